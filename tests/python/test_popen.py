"""warmfork.Popen against subprocess.Popen: the same parameters, the same results."""

import gc
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import unittest.mock
import warnings

import warmfork
from support import PYTHON, TestCase, children, cold, warm_only
from warmfork import _native


class Backends(TestCase):
    @warm_only
    def test_a_child_is_the_callers_own(self):
        template = self.template()
        process = template.popen([PYTHON, "-c", "import os; print(os.getppid())"], stdout=subprocess.PIPE)
        output, _ = process.communicate()
        self.assertEqual(int(output), os.getpid())
        self.assertEqual((process.backend, process.reason, process.returncode), ("warm", "", 0))
        self.assertIsInstance(process, subprocess.Popen)

    @warm_only
    def test_another_program_is_cold_with_the_reason(self):
        template = self.template()
        process = template.popen(["/bin/echo", "hello"], stdout=subprocess.PIPE)
        self.assertEqual(process.communicate()[0], b"hello\n")
        self.assertEqual((process.backend, process.reason_code), ("cold", "program"))
        self.assertIn("/bin/echo", process.reason)
        self.assertEqual(template.counts["reasons"], {"program": 1})

    def test_what_only_subprocess_can_do_is_cold_under_auto_and_an_error_under_warm(self):
        template = self.template()
        for options in (
            {"shell": True, "args": "exit 3"},
            {"args": [PYTHON, "-c", "raise SystemExit(3)"], "preexec_fn": lambda: None},
            {"args": [PYTHON, "-c", "raise SystemExit(3)"], "close_fds": False},
        ):
            process = template.popen(**options)
            self.assertEqual((process.wait(), process.backend), (3, "cold"))
            self.assertTrue(process.reason)
            with self.assertRaises(OSError) as caught:
                template.popen(**options, backend="warm")
            self.assertIn("warm", str(caught.exception))

    def test_interpreter_options_and_their_variables_are_cold(self):
        template = self.template()
        for args, env in (
            ([PYTHON, "-O", "-c", "pass"], None),
            ([PYTHON, "-I", "-c", "pass"], None),
            ([PYTHON, "-c", "pass"], {**os.environ, "PYTHONHASHSEED": "1"}),
        ):
            process = template.popen(args, env=env)
            self.assertEqual((process.wait(), process.backend), (0, "cold"))

    def test_the_interpreter_is_looked_up_in_the_childs_path(self):
        template = self.template(python=PYTHON)
        path = os.path.dirname(PYTHON)
        # PATH counts as read: a variant.
        process = template.popen(
            [os.path.basename(PYTHON), "-c", "pass"], env={**os.environ, "PATH": path}, backend="warm"
        )
        self.assertEqual((process.wait(), process.backend), (0, "warm"))

    def test_without_a_template_and_by_environment_it_is_cold(self):
        process = warmfork.Popen([PYTHON, "-c", "pass"])
        self.assertEqual((process.wait(), process.backend, process.reason_code), (0, "cold", "no-template"))
        os.environ["WARMFORK_BACKEND"] = "cold"
        try:
            process = self.template().popen([PYTHON, "-c", "pass"])
            self.assertEqual((process.wait(), process.reason_code), (0, "asked"))
        finally:
            del os.environ["WARMFORK_BACKEND"]

    def test_bad_parameters_are_refused(self):
        template = self.template()
        for wrong in ({"backend": "tepid"}, {"lifetime": "eternal"}):
            with self.assertRaises(ValueError):
                template.popen([PYTHON, "-c", "pass"], **wrong)
        template.close()
        with self.assertRaises(ValueError):
            template.popen([PYTHON, "-c", "pass"])


class Failures(TestCase):
    """The child may have started when subprocess finds that something is wrong."""

    def setUp(self):
        super().setUp()
        self.warm = self.template(backend="warm")
        self.folder_of_marks = self.folder({})

    def refused(self, error, **options):
        mark = os.path.join(self.folder_of_marks, "mark")
        args = options.pop("args", [PYTHON, "-c", f"open({mark!r}, 'w')"])
        # One pipe: with more of them subprocess itself forgets to close the others.
        with self.assertRaises(error):
            self.warm.popen(args, **{"stdin": subprocess.PIPE, **options})
        # Nothing is left: the leak check of every test. Nor has it run.
        self.assertFalse(os.path.exists(mark))

    def test_options_of_text_that_are_wrong_start_no_child(self):
        self.refused(LookupError, encoding="no-such-encoding")
        self.refused(subprocess.SubprocessError, text=True, universal_newlines=False)
        self.refused(TypeError, bufsize="large")
        self.refused(TypeError, text=True, no_such_option=1)

    def test_what_the_child_cannot_do_leaves_no_pipe(self):
        self.refused(FileNotFoundError, cwd="/nowhere")
        self.refused(TypeError, args=[PYTHON, 1])
        self.refused(ValueError, args=[PYTHON, "a\0b"])
        self.refused(ValueError, env={"a=b": "c"})
        self.refused(AttributeError, stdin="no file")

    def test_a_child_that_starts_when_its_caller_is_interrupted_is_ended(self):
        def interrupt(*_):
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGUSR1, interrupt)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        made = []

        class Kept(warmfork.Popen):
            def __init__(self, *args, **options):
                made.append(self)
                super().__init__(*args, **options)

        program = "import os, signal; os.kill(os.getppid(), signal.SIGUSR1); input()"
        for options in ({}, {"encoding": "utf-8"}):  # started early or late
            # The signal is there when the spawn returns, or comes soon after.
            with self.assertRaises(KeyboardInterrupt):
                Kept([PYTHON, "-c", program], template=self.warm, stdin=subprocess.PIPE, **options)
                while True:  # a handler runs between two calls only: pause() could miss it
                    time.sleep(0.001)
            # Where that was behind the Popen it is complete, and the caller's, as in subprocess.
            child = made.pop()
            if getattr(child, "_child_created", False):
                child.kill()
                child.wait()
                child.stdin.close()

    def test_a_child_whose_popen_cannot_be_finished_is_ended(self):
        with unittest.mock.patch("subprocess._cleanup", lambda: 1 / 0), self.assertRaises(ZeroDivisionError):
            self.warm.popen([PYTHON, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


class NoMemory(TestCase):
    """For the handle of a child that subprocess has started."""

    def test_the_child_is_ended(self):
        before = children()
        answers = [MemoryError, unittest.mock.DEFAULT]
        adopt = unittest.mock.patch.object(_native, "adopt", wraps=_native.adopt, side_effect=answers)
        with adopt, self.assertRaises(MemoryError):
            warmfork.Popen("exec sleep 3600", shell=True)
        self.assertEqual(children(), before)

    @unittest.skipUnless("WARMFORK_FAILING_CALLS" in os.environ, "there is no library whose calls fail")
    def test_it_is_an_exception(self):
        program = (
            "import ctypes, os, subprocess\nfrom warmfork import _native\nchild = subprocess.Popen(['sleep', '3600'])\n"
            "ctypes.CDLL(None).fail_next_new()\ntry: _native.adopt(child.pid)\nexcept MemoryError: print('none')\n"
            "_native.adopt(child.pid)\nchild.kill()\nchild.wait()\n"
        )
        environment = {
            **os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "LD_PRELOAD": os.environ["WARMFORK_FAILING_CALLS"]
        }
        done = subprocess.run([PYTHON, "-c", program], env=environment, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "none\n", ""))


class Abandoned(TestCase):
    """Children whose Popen was dropped while they ran."""

    def test_the_next_popen_reaps_them_even_where_it_fails(self):
        template = self.template()
        for backend in ("warm", "cold"):
            with self.subTest(backend), warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                process = template.popen([PYTHON, "-c", "import time; time.sleep(1000)"], backend=backend)
                pid = process.pid
                del process
                gc.collect()
                os.kill(pid, signal.SIGKILL)
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
                with self.assertRaises(FileNotFoundError):
                    template.popen(["/no/such/program"])
                with self.assertRaises(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


class Parameters(TestCase):
    def setUp(self):
        super().setUp()
        self.warm = self.template(backend="warm")

    def same(self, args, **options):
        """Runs it warm and cold; both must agree. Returns the cold one."""
        expected = cold([PYTHON, *args], **options)
        seen = self.warm.run([PYTHON, *args], capture_output=True, **options)
        self.assertEqual(
            (seen.returncode, seen.stdout, seen.stderr),
            (expected.returncode, expected.stdout, expected.stderr),
        )
        return expected

    def test_streams_environment_and_directory(self):
        self.same(["-c", "import sys; print(sys.stdin.read().upper())"], input=b"text")
        self.same(["-c", "import os; print(sorted(os.environ.items()))"], env={**os.environ, "X": "1"})
        self.same(["-c", "import os; print(os.getcwd())"], cwd="/usr")
        self.same(["-c", "import sys; sys.stderr.write('e'); sys.stdout.write('o')"])

    def test_descriptors(self):
        read_end, write_end = os.pipe()
        program = f"import os; os.write({write_end}, b'x'); print(sorted(os.listdir('/proc/self/fd')))"
        self.same(["-c", program], pass_fds=(write_end,))
        self.assertEqual(os.read(read_end, 10), b"xx")
        os.close(read_end), os.close(write_end)

    def test_session_group_and_umask(self):
        self.same(["-c", "import os; print(os.getsid(0) == os.getpid())"], start_new_session=True)
        self.same(["-c", "import os; print(os.umask(0))"], umask=0o123)
        if sys.version_info >= (3, 11):
            self.same(["-c", "import os; print(os.getpgrp() == os.getpid())"], process_group=0)

    def test_signals(self):
        program = "import signal; print([signal.getsignal(n) for n in (1, 2, 3, 10, 13, 15, 25)])"
        self.same(["-c", program])
        self.same(["-c", program], restore_signals=False)
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            self.same(["-c", program])
        finally:
            signal.signal(signal.SIGHUP, before)

    def test_statuses(self):
        for program in ("pass", "raise SystemExit(7)", "raise SystemExit('text')", "1/0",
                        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"):
            self.same(["-c", program])

    def test_nice_affinity_and_limits(self):
        import resource

        program = "import os, resource; print(os.nice(0), os.sched_getaffinity(0), resource.getrlimit(resource.RLIMIT_NOFILE))"
        outputs = set()
        for backend in ("cold", "warm"):
            process = self.warm.popen(
                [PYTHON, "-c", program], backend=backend, stdout=subprocess.PIPE, nice=3,
                affinity={min(os.sched_getaffinity(0))}, limits={resource.RLIMIT_NOFILE: (100, 200)})
            outputs.add(process.communicate()[0])
        self.assertEqual(len(outputs), 1)
        self.assertIn(b"3 {", outputs.pop())

    def test_failures_are_those_of_subprocess(self):
        for options in (
            {"args": [PYTHON, "-c", "pass"], "cwd": "/no/such/directory"},
            {"args": ["/no/such/program"]},
            {"args": ["no-such-program"]},
            {"args": ["/etc/passwd"]},
        ):
            with self.assertRaises(OSError) as expected:
                subprocess.Popen(**options)
            with self.assertRaises(OSError) as seen:
                self.warm.popen(**options, backend="auto")
            self.assertIs(type(seen.exception), type(expected.exception))
            self.assertEqual(seen.exception.errno, expected.exception.errno)
            self.assertEqual(str(seen.exception), str(expected.exception))

    def test_timeouts_and_kills(self):
        with self.assertRaises(subprocess.TimeoutExpired):
            self.warm.run([PYTHON, "-c", "import time; time.sleep(100)"], timeout=0.05)
        with self.assertRaises(subprocess.CalledProcessError):
            self.warm.run([PYTHON, "-c", "raise SystemExit(1)"], check=True)
        process = self.warm.popen([PYTHON, "-c", "import time; time.sleep(100)"])
        self.assertIsNone(process.poll())
        process.terminate()
        self.assertEqual(process.wait(), -signal.SIGTERM)

    def test_a_status_that_was_taken_is_not_made_up(self):
        process = self.warm.popen([PYTHON, "-c", "raise SystemExit(5)"])
        os.waitpid(process.pid, 0)
        with self.assertRaises(ChildProcessError):
            process.wait()
        with self.assertRaises(ChildProcessError):
            process.poll()
        process.returncode = 0  # so that its destructor does not mind

    def test_arguments_too_large_are_an_error(self):
        with self.assertRaises(OSError) as caught:
            self.warm.popen([PYTHON, "-c", "pass", "x" * 200_000])
        self.assertEqual(caught.exception.errno, 7)
        self.same(["-c", "import sys; print(len(sys.argv[1]))", "x" * 100_000])


class Programs(TestCase):
    """What python3 runs, warm and cold."""

    def setUp(self):
        super().setUp()
        self.warm = self.template(backend="warm")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
        return path

    def same(self, *args, **options):
        expected = cold([PYTHON, *args], **options)
        seen = self.warm.run([PYTHON, *args], capture_output=True, **options)
        self.assertEqual(
            (seen.returncode, seen.stdout, seen.stderr),
            (expected.returncode, expected.stdout, expected.stderr),
        )
        return expected

    STATE = "import sys; print(sys.argv, sys.path, __name__, globals().get('__file__'), __spec__ is None, sorted(globals()))"

    def test_script(self):
        path = self.write("script.py", self.STATE)
        self.same(path, "a", "-O")
        self.same("script.py", "b", cwd=self.folder)
        self.same("--", "script.py", cwd=self.folder)

    def test_script_by_a_link(self):
        self.write("place/script.py", self.STATE)
        os.symlink("place/script.py", os.path.join(self.folder, "link.py"))
        self.same("link.py", cwd=self.folder)

    def test_command_and_module(self):
        self.write("module.py", self.STATE)
        self.write("package/__init__.py", "")
        self.write("package/__main__.py", self.STATE)
        self.same("-c", self.STATE, "x")
        self.same("-m", "module", "x", cwd=self.folder)
        self.same("-m", "package", cwd=self.folder)
        self.same("-m", "no_such_module", cwd=self.folder)

    def test_directory_and_archive(self):
        import zipfile

        self.write("app/__main__.py", self.STATE)
        self.same("app", cwd=self.folder)
        archive = os.path.join(self.folder, "app.zip")
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("__main__.py", self.STATE)
        self.same(archive, "x")
        with zipfile.ZipFile(archive, "a") as file:
            file.writestr("json/__init__.py", "")
        with self.assertRaisesRegex(warmfork.Error, "json/__init__.py would be imported"):
            self.warm.run([PYTHON, archive])

    def test_a_script_that_does_not_exist_is_pythons_own_message(self):
        self.assertEqual(self.same("/no/such/script.py").returncode, 2)
        self.same("missing.py", cwd=self.folder)

    def test_errors_look_the_same(self):
        self.same(self.write("error.py", "def f():\n    raise ValueError('x')\nf()\n"))
        self.same(self.write("syntax.py", "x = = 1\n"))
        self.same("-c", "import sys; sys.exit({'a': 1})")

    def test_leaving_is_pythons_own_way(self):
        self.same("-c", "import atexit; atexit.register(print, 'left'); print('right')")
        self.same("-c", "import threading, time; threading.Thread(target=lambda: (time.sleep(.05), print('last'))).start()")
        self.same("-c", "class A:\n    def __del__(self): print('gone')\na = A()")
        self.same("-c", "import os, signal; os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(9)")

    def test_an_interrupt_ahead_of_the_program_is_the_programs(self):
        """Whenever it comes, the traceback begins with a line of the program's, as that of python3 does."""
        # Python itself hears none between its last look and the system call that sleeps: so it sleeps more than once.
        path = self.write("waits.py", "import time\nwhile True: time.sleep(0.01)\n")
        for _ in range(20):
            child = self.warm.popen([PYTHON, path], stderr=subprocess.PIPE, text=True)
            child.send_signal(signal.SIGINT)
            _, error = child.communicate(timeout=60)
            self.assertEqual(child.returncode, -signal.SIGINT, error)
            self.assertEqual(error.splitlines()[1].partition(", line ")[0], f'  File "{path}"', error)

    def test_what_differed_once(self):
        self.same("-c", "import sys; print(repr(sys.stdin.read()))", input=b"a\r\nb\rc")
        self.same("-c", "class K(KeyboardInterrupt): pass\nraise K()")
        self.same("-c", "class A:\n    def __del__(self): print('gone')\na = A(); a.a = a")
        self.same("-c", "import threading, os; print(threading.main_thread().native_id == os.getpid())")
        self.same("-c", "import warnings\n1/0")
        gone = os.path.join(self.folder, "gone")
        os.mkdir(gone)
        script = self.write("anywhere.py", "print(1)")
        for command in ([PYTHON, script], [PYTHON, "-c", "print(2)"]):
            program = f"import os, subprocess, sys; os.rmdir({gone!r}); sys.exit(subprocess.call({command!r}))"
            self.assertEqual(cold([PYTHON, "-c", program], cwd=gone).returncode, 0)
            os.mkdir(gone)
            before = os.open(".", os.O_RDONLY)
            try:
                os.chdir(gone)
                os.rmdir(gone)
                self.assertEqual(self.warm.run(command, capture_output=True).returncode, 0)
            finally:
                os.fchdir(before)
                os.close(before)
            os.mkdir(gone)

    def test_a_child_that_is_forked_on_command_is_no_different(self):
        self.warm = self.template(backend="warm", spares=0)
        self.same("-c", "class A:\n    def __del__(self): print('gone')\na = A()")
        self.same("-c", self.STATE)
        self.same("-c", "import random, atexit; atexit.register(print, 'left'); 1/0")

    def test_random_streams_are_each_childs_own(self):
        template = self.template(["random", "uuid", "tempfile"], backend="warm", spares=3)
        template.wait_parked(3)
        program = "import random, uuid, tempfile; print(random.random(), uuid.uuid4(), next(tempfile._get_candidate_names()))"
        outputs = {template.run([PYTHON, "-c", program], capture_output=True).stdout for _ in range(6)}
        self.assertEqual(len(outputs), 6)
        self.assertEqual(len({output.split()[0] for output in outputs}), 6)
        self.assertEqual(len({output.split()[2] for output in outputs}), 6)

    def test_the_title_is_the_childs_own(self):
        program = (
            "import sys; sys.stdout.write(repr([open(f'/proc/self/{name}', 'rb').read() "
            "for name in ('cmdline', 'environ', 'comm')]))"
        )
        environment = {**os.environ, "ONLY_HERE": "1"}
        expected = cold([PYTHON, "-c", program], env=environment)
        seen = self.warm.run([PYTHON, "-c", program], capture_output=True, env=environment)
        self.assertEqual(seen.stdout, expected.stdout)


if __name__ == "__main__":
    unittest.main()
