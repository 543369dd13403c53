"""warmfork.Popen against subprocess.Popen: the same parameters, the same results."""

import concurrent.futures
import gc
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import unittest.mock
import warnings

import warmfork
from support import PYTHON, TestCase, cold, warm_only


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
        path = self.write("waits.py", "import time\ntime.sleep(60)\n")
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


class Templates(TestCase):
    @warm_only
    def test_the_first_child_does_not_wait_for_an_image_that_takes_longer(self):
        folder = self.folder({"slow.py": "import sys\nopen(sys.path[0] + '/wait').read()\n"})
        os.mkfifo(os.path.join(folder, "wait"))
        sys.path.insert(0, folder)
        self.addCleanup(sys.path.remove, folder)
        template = self.template(["slow"], waits=False)
        process = template.popen([PYTHON, "-c", "pass"])
        self.assertEqual((process.wait(), process.backend, process.reason_code), (0, "cold", "restarting"))
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            insisting = executor.submit(template.popen, [PYTHON, "-c", "pass"], backend="warm")
            with open(os.path.join(folder, "wait"), "w"):
                pass
            self.assertEqual(insisting.result().wait(), 0)
        process = template.popen([PYTHON, "-c", "pass"])
        self.assertEqual((process.wait(), process.backend), (0, "warm"))
        self.assertEqual(template.counts["template_starts"], 1)

    @warm_only
    def test_more_than_a_few_wait_for_the_image(self):
        """A few children, which come first, are cold."""
        template = self.template(["json", "decimal", "asyncio"], waits=False)
        processes = [template.popen([PYTHON, "-c", "pass"]) for _ in range(4)]
        backends = [process.backend for process in processes if process.wait() == 0]
        self.assertEqual(backends, sorted(backends))
        self.assertEqual(backends[2:], ["warm", "warm"])

    def test_an_unknown_module_fails_the_spawn_with_the_traceback(self):
        template = self.template(["json", "no_such_module_anywhere"])  # has failed by now
        for backend in ("auto", "warm"):
            with self.assertRaises(warmfork.TemplateError) as caught:
                template.popen([PYTHON, "-c", "pass"], backend=backend)
            self.assertIn("ModuleNotFoundError", str(caught.exception))
            self.assertIn("no_such_module_anywhere", str(caught.exception))
            self.assertEqual(caught.exception.stage, "launch")

    def test_a_module_that_starts_a_thread_is_refused_and_the_thread_named(self):
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "threaded.py"), "w") as file:
                file.write("import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n")
            sys.path.insert(0, folder)
            try:
                template = self.template(["threaded"])
                process = template.popen([PYTHON, "-c", "pass"])
                self.assertEqual((process.wait(), process.reason_code), (0, "gate"))
                self.assertIn("thread", process.reason)
                with self.assertRaises(warmfork.TemplateError) as caught:
                    template.popen([PYTHON, "-c", "pass"], backend="warm")
                self.assertEqual(caught.exception.stage, "gate")
            finally:
                sys.path.remove(folder)

    def test_modules_are_found_where_the_owner_finds_them(self):
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "neighbour.py"), "w") as file:
                file.write("value = 42\n")
            sys.path.insert(0, folder)
            try:
                template = self.template(["neighbour"], backend="warm")
                program = "import sys; print(sys.modules['neighbour'].value, sys.path[0])"
                done = template.run([PYTHON, "-c", program], capture_output=True)
                self.assertEqual(done.stdout, b"42 \n")
            finally:
                sys.path.remove(folder)

    def test_output_while_preloading_is_not_repeated(self):
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "loud.py"), "w") as file:
                file.write("import sys\nprint('loud')\nsys.stdout.write('no newline')\n")
            sys.path.insert(0, folder)
            try:
                template = self.template(["loud"], backend="warm", allow=["output:loud"])
                for _ in range(2):
                    done = template.run([PYTHON, "-c", "import loud; print('own')"], capture_output=True)
                    self.assertEqual((done.stdout, done.stderr), (b"own\n", b""))
            finally:
                sys.path.remove(folder)

    def test_modules_that_kept_the_streams_write_in_order(self):
        folder = self.folder({"keeper.py": "import sys\nOUT, ERR, IN, RAW = sys.stdout, sys.stderr, sys.stdin, sys.stdout.buffer\n"})
        sys.path.insert(0, folder)
        self.addCleanup(sys.path.remove, folder)
        template = self.template(["keeper", "logging"], backend="warm")
        program = (
            "import keeper, sys\nprint(1); keeper.OUT.write('2\\n'); print(3); keeper.OUT.flush(); keeper.RAW.write(b'4\\n'); keeper.RAW.flush()\n"
            "print(5, keeper.IN.read()); keeper.ERR.write('to stderr'); print(keeper.OUT is sys.stdout is sys.__stdout__)"
        )
        env = {**os.environ, "PYTHONPATH": folder + ":" + os.environ["PYTHONPATH"]}
        for number in range(2):
            done = template.run([PYTHON, "-c", program], input=b"in", capture_output=True, env=env)
            self.assertEqual((done.stdout, done.stderr), (b"1\n2\n3\n4\n5 in\nTrue\n", b"to stderr"))

    def test_every_source_of_random_numbers_is_the_childs_own(self):
        template = self.template(["ssl", "uuid", "random", "secrets"], backend="warm", spares=3)
        template.wait_parked(3)
        program = (
            "import ssl, uuid, random, secrets, os; print(ssl.RAND_bytes(8).hex(), uuid.uuid1(), uuid.uuid4(),"
            " random.getrandbits(64), random.Random().random(), secrets.token_hex(), os.urandom(8).hex())"
        )
        lines = [template.run([PYTHON, "-c", program], capture_output=True).stdout.split() for _ in range(6)]
        for column in zip(*lines):
            self.assertEqual(len(set(column)), 6, column)

    def test_numpy_computes_in_children_and_draws_its_own_numbers(self):
        try:
            import numpy  # noqa: F401
        except ImportError:
            self.skipTest("numpy is not installed")
        template = self.template(["numpy"], backend="warm")
        program = (
            "import numpy; a = numpy.ones((300, 300)); print(int((a @ a).sum())); print(numpy.random.rand())"
        )
        outputs = [template.run([PYTHON, "-c", program], capture_output=True, timeout=60).stdout.split() for _ in range(4)]
        self.assertEqual({output[0] for output in outputs}, {b"27000000"})
        self.assertEqual(len({output[1] for output in outputs}), 4)

    def test_a_signal_interrupts_the_wait_for_the_first_image(self):
        folder = self.folder({"slow.py": "import time; time.sleep(60)"})
        sys.path.insert(0, folder)
        self.addCleanup(sys.path.remove, folder)
        template = self.template(["slow"], waits=False, backend="warm")

        def interrupt(*_):
            raise InterruptedError

        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            with self.assertRaises(InterruptedError):
                signal.setitimer(signal.ITIMER_REAL, 0.2)
                template.popen([PYTHON, "-c", "pass"])
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def test_threads_spawn_at_once(self):
        template = self.template(backend="warm")
        statuses = {}

        def spawn(number):
            statuses[number] = template.run([PYTHON, "-c", f"raise SystemExit({number})"]).returncode

        threads = [threading.Thread(target=spawn, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(statuses, {number: number for number in range(12)})

    def test_a_template_of_a_forked_owner_answers_an_error(self):
        template = self.template()
        template.wait_ready()
        pid = os.fork()
        if pid == 0:
            try:
                template.popen([PYTHON, "-c", "pass"])
            except warmfork.Error as error:
                os._exit(0 if error.errno == 10 else 1)
            os._exit(2)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)

    def test_a_template_that_a_signal_has_ended_comes_back(self):
        template = self.template(backend="warm")
        for starts, number in enumerate((signal.SIGKILL, signal.SIGTERM, signal.SIGINT), 2):
            with self.subTest(number):
                template.wait_ready()
                first = template.pid
                pidfd = os.pidfd_open(first)
                self.addCleanup(os.close, pidfd)
                os.kill(first, number)
                self.assertTrue(select.select([pidfd], [], [], 10)[0], "it runs on")
                self.assertEqual(template.run([PYTHON, "-c", "raise SystemExit(4)"]).returncode, 4)
                self.assertNotEqual(template.pid, first)
                self.assertEqual(template.counts["template_starts"], starts)

    def test_ctrl_c_at_a_terminal_reaches_owner_and_child_but_not_the_template(self):
        import pty

        program = """
import os, subprocess, sys, warmfork
with warmfork.Template(["json"], backend="warm") as template:
    template.wait_parked()
    first = template.pid
    # Ready it may be before this process runs on. A signal that comes right before a pause() would be seen only after it.
    read_end, write_end = os.pipe()
    text = f"import os, time; os.read({read_end}, 1); print('ready', flush=True)\\nwhile True: time.sleep(0.05)"
    child = template.popen([sys.executable, "-c", text], pass_fds=[read_end])
    try:
        os.write(write_end, b"x")
        child.wait()
        print("no interrupt")
    except KeyboardInterrupt:
        print("child", child.wait())
    print("next", template.run([sys.executable, "-c", "pass"]).returncode, template.pid == first)
"""
        pid, terminal = pty.fork()
        if pid == 0:
            os.execv(PYTHON, [PYTHON, "-c", program])
        output = b""
        while b"ready" not in output:
            output += os.read(terminal, 1000)
        os.write(terminal, b"\x03")
        try:
            while True:
                output += os.read(terminal, 1000)
        except OSError:  # the last process has left the terminal
            pass
        os.close(terminal)
        self.assertEqual(os.waitpid(pid, 0)[1], 0, output)
        self.assertIn(b"child -2", output)
        self.assertIn(b"next 0 True", output)

    def test_the_report_names_imports(self):
        template = self.template(["json", "csv"])
        report = template.report()
        self.assertEqual([entry["module"] for entry in report["host"]["imports"]], ["json", "csv"])
        self.assertEqual(len(report["threads"]), 1)


if __name__ == "__main__":
    unittest.main()
