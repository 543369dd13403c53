"""What a command has by being executed, it has from `warmfork run`: descriptors, its pid, its caller's death."""

import fcntl
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import unittest

from support import PYTHON, ServiceTestCase, TestCase, warm_only

CLI = os.environ["WARMFORK_CLI"]


class Commands:
    options = ()  # that `run` is given
    ways = ("warm", "cold")

    def start(self, way, text, *arguments, **options):
        command = [CLI, "run", *self.options, "--backend", way, "--", PYTHON, "-c", text, *arguments]
        return subprocess.Popen(command, **options)

    def test_descriptors_beyond_the_streams_are_the_childs(self):
        for way in self.ways:
            with self.subTest(way):
                read_end, write_end = os.pipe()
                os.write(write_end, b"through it\n")
                os.close(write_end)
                # As a shell's <(...): the number is in the arguments.
                text = "import sys; print(open(sys.argv[1]).read(), end='')"
                with self.start(
                    way, text, f"/dev/fd/{read_end}", pass_fds=[read_end], stdout=subprocess.PIPE
                ) as child:
                    os.close(read_end)
                    self.assertEqual(child.communicate()[0], b"through it\n")
                self.assertEqual(child.returncode, 0)

    def test_what_the_child_closes_is_closed(self):
        """By everybody who had it for the child's sake: the end of a pipe, of standard output, and a lock."""
        for way in self.ways:
            with self.subTest(way):
                name = os.path.join(self.folder({"lock": ""}), "lock")
                lock, (read_end, write_end), (told, tell) = os.open(name, os.O_RDWR), os.pipe(), os.pipe()
                fcntl.flock(lock, fcntl.LOCK_EX)
                text = (
                    f"import os, sys; os.close({write_end}); os.close({lock}); os.close(1); os.write(2, b'x'); "
                    f"os.read({told}, 1)"
                )
                with self.start(
                    way, text, pass_fds=[lock, write_end, told], stdout=subprocess.PIPE, stderr=subprocess.PIPE
                ) as child, open(name) as other:
                    for number in (lock, write_end, told):
                        os.close(number)
                    self.assertEqual(child.stderr.read(1), b"x")
                    self.assertEqual(os.read(read_end, 1), b"")
                    self.assertEqual(child.stdout.read(), b"")
                    fcntl.flock(other, fcntl.LOCK_EX)
                    self.assertIsNone(child.poll())
                    os.write(tell, b"x")
                os.close(read_end), os.close(tell)

    def test_streams_that_are_closed_are_so_in_the_child_and_signals_reach_it(self):
        text = """if True:
            import os, signal, sys, time
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
            open_ones = []
            for number in range(3):
                try:
                    os.fstat(number)
                    open_ones.append(number)
                except OSError:
                    pass
            os.write(int(sys.argv[1]), repr(open_ones).encode())
            while True:  # a handler runs between two calls only: pause() could miss it
                time.sleep(0.01)
        """
        for way in self.ways:
            for closed in ([0], [2], [0, 1, 2]):
                with self.subTest(way, closed=closed):
                    read_end, write_end = os.pipe()

                    def close():
                        for number in closed:
                            os.close(number)

                    with self.start(way, text, str(write_end), pass_fds=[write_end], preexec_fn=close) as child:
                        os.close(write_end)
                        seen = os.read(read_end, 100).decode()
                        child.terminate()
                        try:
                            self.assertEqual(child.wait(60), 7)
                        finally:
                            child.kill()
                    self.assertEqual(seen, repr([number for number in range(3) if number not in closed]))
                    os.close(read_end)

    def test_a_command_that_is_meant_by_its_pid_is_executed_in_place(self):
        text = "import os; print(os.getpid() == int(os.environ['PID']), os.environ['LISTEN_FDS'], os.read(3, 9))"
        for variable in ("LISTEN_PID", "WATCHDOG_PID"):
            script = f'export {variable}=$$ PID=$$ LISTEN_FDS=1; exec "$@" 3<<<socket'

            def run(backend, *command):
                return subprocess.run(
                    ["bash", "-c", script, "bash", CLI, "run", "--explain", *self.options, "--", *command],
                    capture_output=True, text=True, env={**os.environ, "WARMFORK_BACKEND": backend},
                )

            with self.subTest(variable):
                for backend in ("auto", "cold"):
                    done = run(backend, PYTHON, "-c", text)
                    self.assertEqual((done.returncode, done.stdout), (0, "True 1 b'socket\\n'\n"), done.stderr)
                    self.assertIn(f"served cold: {variable} ", done.stderr)
                done = run("warm", PYTHON, "-c", text)
                self.assertEqual((done.returncode, done.stdout), (125, ""))
                self.assertIn(f"cannot be served warm: {variable} ", done.stderr)
                done = run("auto", "/no/such/program")
                self.assertEqual(done.returncode, 127)
                self.assertIn("/no/such/program: No such file", done.stderr)


# Enters another network namespace with a template open, and prints how three spawns are served, and where.
LEAVES_THE_NETWORK = """
import ctypes, os, sys, warmfork
command = [sys.executable, "-c", "import os; print(os.readlink('/proc/self/ns/net'))"]
with warmfork.Template(["json"], spares=1) as template:
    template.wait_parked(1)
    if ctypes.CDLL(None).unshare(0x40000000):
        sys.exit(77)
    with template.popen(command, stdout=-1, text=True) as child:
        print(child.reason_code, child.reason)
        print(child.stdout.read(), end="")
    print(template.run(command, backend="warm", capture_output=True, text=True).stdout, end="")
    print(os.readlink("/proc/self/ns/net"))
"""


class Own(Commands, TestCase):
    options = ("--preload", "json")

    def test_where_no_number_is_free_to_see_the_end_of_the_command_by_it_waits_all_the_same(self):
        for limit in (4, 5):
            done = subprocess.run(
                [CLI, "run", *self.options, "--", "sh", "-c", "exit 7"], timeout=60,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)),
            )
            self.assertEqual(done.returncode, 7)

    def start_with_unending_preload(self, way):
        """`run` of a command, which preloads what does not return; and a pidfd of its template, once that does so."""
        folder = self.folder({"unending.py": (
            "import os, time\n"
            "with open(os.environ['STARTED'], 'w') as started: started.write(str(os.getpid()))\n"
            "while True: time.sleep(1000)\n"
        )})
        os.mkfifo(os.path.join(folder, "started"))
        process = subprocess.Popen(
            [CLI, "run", "--preload", "unending", "--backend", way, "--explain", "--", PYTHON, "-c", "print(7)"],
            env={**os.environ, "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}",
                 "STARTED": os.path.join(folder, "started")},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        self.addCleanup(process.stderr.close), self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait), self.addCleanup(process.kill)
        with open(os.path.join(folder, "started")) as started:
            template = os.pidfd_open(int(started.read()))
        self.addCleanup(os.close, template)
        return process, template

    def assert_ends(self, pidfd):
        self.assertTrue(select.select([pidfd], [], [], 60)[0], "it still runs")

    def test_a_signal_ends_it_while_what_is_preloaded_does_not_return(self):
        for way in ("auto", "warm"):
            for number in (signal.SIGINT, signal.SIGTERM):
                with self.subTest(way, number=number):
                    process, template = self.start_with_unending_preload(way)
                    process.send_signal(number)
                    self.assertEqual(process.wait(60), -number)
                    self.assert_ends(template)

    def test_the_command_is_cold_in_the_end_where_what_is_preloaded_does_not_return(self):
        process, template = self.start_with_unending_preload("auto")
        output, errors = process.communicate(timeout=120)
        self.assertEqual((process.returncode, output), (0, "7\n"), errors)
        self.assertRegex(errors, "served cold: the template is not ready after 1[0-9] seconds, it preloads .*unending")
        self.assert_ends(template)

    def test_a_command_in_another_network_namespace_stays_in_it(self):
        network = ["sh", "-c", 'readlink /proc/self/ns/net; exec "$@"', "sh"]
        text = "import os; print(os.readlink('/proc/self/ns/net'))"
        command = [CLI, "run", *self.options, "--backend", "warm", "--", PYTHON, "-c", text]
        done = subprocess.run(["unshare", "-n", *network, *command], capture_output=True, text=True)
        if "unshare" in done.stderr:
            self.skipTest("no other network namespace can be made here")
        outside, inside = done.stdout.splitlines()
        self.assertEqual(inside, outside, done.stderr)
        self.assertNotEqual(inside, os.readlink("/proc/self/ns/net"))

    @warm_only
    def test_an_owner_that_enters_another_network_namespace_gets_no_child_in_the_old_one(self):
        done = subprocess.run([PYTHON, "-c", LEAVES_THE_NETWORK], capture_output=True, text=True)
        if done.returncode == 77:
            self.skipTest("no other network namespace can be entered here")
        reason, cold, warm, own = done.stdout.splitlines()
        self.assertRegex(reason, 'owner-changed .*namespace "?net')
        self.assertEqual((cold, warm), (own, own), done.stderr)
        self.assertNotEqual(own, os.readlink("/proc/self/ns/net"))

    @unittest.skipUnless(shutil.which("setpriv"), "setpriv is not installed")
    def test_the_death_of_its_caller_reaches_the_child_where_that_is_asked_for(self):
        text = "import os; print(os.getpid(), flush=True); os.read(0, 1)"
        for way in self.ways:
            with self.subTest(way):
                command = ["setpriv", "--pdeathsig", "TERM", CLI, "run", "--backend", way, "--", PYTHON, "-c", text]
                read_end, write_end = os.pipe()  # so that it does not end by itself
                with subprocess.Popen(
                    [PYTHON, "-c", f"import subprocess; subprocess.run({command!r})"], stdin=read_end,
                    stdout=subprocess.PIPE,
                ) as caller:
                    child = os.pidfd_open(int(caller.stdout.readline()))
                    caller.kill()
                    self.assertEqual(select.select([child], [], [], 60)[0], [child])
                for number in (child, read_end, write_end):
                    os.close(number)


class Served(Commands, ServiceTestCase):
    options = ("-t", "num")

    def setUp(self):
        super().setUp()
        self.start_service()


if __name__ == "__main__":
    unittest.main()


@warm_only
class Confined(TestCase):
    """As in a container whose filter knows no newer system call, with little to be had."""

    def confined(self, *command):
        confined = os.path.join(os.path.dirname(CLI), "warmfork-confined")
        done = subprocess.run([confined, *command], capture_output=True, text=True)
        if done.returncode == 77 or "warmfork-confined" in done.stderr:
            self.skipTest(done.stderr)
        return done

    def run_in(self, sandbox, *options):
        command = [CLI, "run", "--explain", *options, "--preload", "json", "--", PYTHON, "-c", "import json; print(json)"]
        return self.confined("--older", sandbox, *command)

    def test_an_owner_whose_state_cannot_be_read_is_cold_and_starts_no_template(self):
        program = """if True:
            import json, subprocess, sys, warmfork
            with warmfork.Template(preload=["json"]) as template:
                reasons = []
                for turn in range(3):
                    child = template.popen([sys.executable, "-c", "print(7)"], stdout=subprocess.PIPE, text=True)
                    assert child.communicate()[0] == "7\\n"
                    reasons.append((child.backend, child.reason_code, child.reason))
                print(json.dumps([reasons, template.counts["template_starts"]]))"""
        for call, what in ("statx", "the mount of the root directory"), ("sched_getattr", "scheduling class"):
            with self.subTest(call):
                done = self.confined("--without", call, PYTHON, "-c", program)
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                reasons, starts = json.loads(done.stdout)
                self.assertEqual(starts, 0)
                for backend, code, text in reasons:
                    self.assertEqual((backend, code), ("cold", "owner-changed"), text)
                    self.assertIn(what, text)

    def test_a_command_is_warm_with_few_files_a_small_shared_memory_and_a_file_system_that_is_read_only(self):
        done = self.run_in("--narrow")
        self.assertEqual((done.returncode, done.stderr), (0, "warmfork: served warm\n"))
        self.assertIn("json/__init__.py", done.stdout)

    def test_a_command_in_a_directory_that_may_not_be_entered_is_cold(self):
        done = self.run_in("--unreadable")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("json/__init__.py", done.stdout)
        self.assertIn("served cold: cannot enter the directory", done.stderr)
        self.assertEqual(self.run_in("--unreadable", "--backend", "warm").returncode, 125)
