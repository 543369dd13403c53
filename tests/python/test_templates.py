"""warmfork.Template: what it tells, how it is opened and closed, and what is open of it in children."""

import concurrent.futures
import os
import select
import signal
import sys
import tempfile
import threading
import unittest

import warmfork
from support import PYTHON, TestCase, warm_only


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

    @warm_only
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
