"""Templates of the service: warmfork.Template("name")."""

import asyncio
import ctypes
import errno
import functools
import json
import os
import resource
import select
import signal
import stat
import subprocess
import unittest
import unittest.mock

import warmfork
from support import PYTHON, ServiceTestCase, children

CLI = os.environ["WARMFORK_CLI"]

# Says what it is, and then waits for its input to end.
WAITING = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"

# A client that leaves a child behind when it is killed; says its pid.
CLIENT = """
import subprocess, sys, warmfork
template = warmfork.Template("num")
child = template.popen([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"],
                       stdout=subprocess.PIPE, lifetime=sys.argv[1], backend="warm")
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.read()
"""


def cli(*args, **options):
    return subprocess.run([CLI, *args], capture_output=True, text=True, **options)


class Service(ServiceTestCase):
    def open(self, name="num", **options):
        template = warmfork.Template(name, **options)
        self.addCleanup(template.close)
        return template

    def run_python(self, template, program, **options):
        return template.run([PYTHON, "-c", program], capture_output=True, text=True, **options)

    def waiting_child(self, template, **options):
        child = template.popen(
            [PYTHON, "-c", WAITING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
        )
        self.addCleanup(child.__exit__, None, None, None)
        self.addCleanup(child.kill)
        self.assertEqual(int(child.stdout.readline()), child.pid)
        return child


class Spawns(Service):
    def test_the_first_call_is_warm(self):
        self.start_service()
        done = self.run_python(self.open(), "import sys; print('csv' in sys.modules)", backend="warm")
        self.assertEqual((done.returncode, done.stdout), (0, "True\n"))

    def test_children_are_the_services(self):
        service = self.start_service()
        done = self.run_python(self.open(), "import os; print(os.getppid())")
        self.assertEqual(int(done.stdout), service.pid)

    def test_statuses_are_the_childs(self):
        self.start_service()
        template = self.open(backend="warm")
        self.assertEqual(self.run_python(template, "raise SystemExit(7)").returncode, 7)
        done = self.run_python(template, "import os; os.kill(os.getpid(), 15)")
        self.assertEqual(done.returncode, -signal.SIGTERM)

    def test_environment_directory_and_streams_are_the_callers(self):
        self.start_service()
        folder = self.folder({})
        program = (
            "import os, sys; print(os.getcwd(), os.environ['MARK'], 'HOME' in os.environ, sys.stdin.read()); "
            "print('err', file=sys.stderr)"
        )
        done = self.run_python(
            self.open(backend="warm"), program, cwd=folder, env={**os.environ, "MARK": "x"},
            input="in",
        )
        self.assertEqual(done.stdout.split(), [os.path.realpath(folder), "x", str("HOME" in os.environ), "in"])
        self.assertEqual(done.stderr, "err\n")

    def test_signals_reach_the_child(self):
        self.start_service()
        child = self.waiting_child(self.open(), backend="warm")
        self.assertIsNone(child.poll())
        child.terminate()
        self.assertEqual(child.wait(), -signal.SIGTERM)
        child.terminate()  # as subprocess: nothing happens

    def test_waits_with_a_timeout_and_communicate(self):
        self.start_service()
        child = self.waiting_child(self.open())
        with self.assertRaises(subprocess.TimeoutExpired):
            child.wait(timeout=0.01)
        self.assertEqual(child.communicate("more")[0], "")
        self.assertEqual(child.returncode, 0)

    def test_a_signals_handler_interrupts_a_wait_that_then_goes_on(self):
        self.start_service()
        child = self.waiting_child(self.open())
        handled = []

        def end(*_):
            handled.append(child.returncode)
            child.stdin.close()

        self.addCleanup(signal.signal, signal.SIGALRM, signal.signal(signal.SIGALRM, end))
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        self.assertEqual(child.wait(), 0)
        self.assertEqual(handled, [None])

    def test_what_the_service_cannot_give_is_cold_and_says_why(self):
        self.start_service()
        template = self.open()
        child = template.popen(["true"])
        self.assertEqual((child.wait(), child.backend, child.reason_code), (0, "cold", "program"))
        child = template.popen([PYTHON, "-v", "-c", "pass"], stderr=subprocess.DEVNULL)
        self.assertEqual((child.wait(), child.backend, child.reason_code), (0, "cold", "command-line"))
        child = template.popen([PYTHON, "-c", "pass"], limits={resource.RLIMIT_STACK: (1 << 20, 1 << 20)})
        self.assertEqual((child.wait(), child.backend, child.reason_code), (0, "cold", "limits"))
        self.assertEqual(template.counts["reasons"], {"program": 1, "command-line": 1, "limits": 1})
        with self.assertRaisesRegex(warmfork.Error, "cannot be served warm"):
            template.popen(["true"], backend="warm")

    def test_other_groups_than_the_services_are_cold(self):
        if os.geteuid() != 0:
            self.skipTest("only root can change its groups")
        self.start_service()
        program = (
            "import os, sys, warmfork; os.setgroups([12345]); "
            "child = warmfork.Template('num').popen([sys.executable, '-c', 'pass']); "
            "print(child.wait(), child.backend, child.reason_code)"
        )
        done = subprocess.run([PYTHON, "-c", program], capture_output=True, text=True)
        self.assertEqual(done.stdout, "0 cold owner-changed\n", done.stderr)

    def test_a_changed_file_is_never_served_as_it_was(self):
        self.start_service()
        self.write("modules/own.py", "VALUE = 'old'")
        template = self.open("own")
        program = "import own; print(own.VALUE)"
        self.assertEqual(self.run_python(template, program).stdout, "old\n")
        self.write("modules/own.py", "VALUE = 'newer'")
        child = template.popen([PYTHON, "-c", program], stdout=subprocess.PIPE, text=True, cwd=self.path("modules"))
        self.assertEqual(child.communicate()[0], "newer\n")
        # Where the service was first it has a new image already.
        self.assertIn((child.backend, child.reason_code), [("cold", "stale"), ("warm", "none")])
        self.assertEqual(self.run_python(template, program, backend="warm").stdout, "newer\n")

    def test_a_template_may_wait_for_its_new_image(self):
        self.start_service()
        self.write("modules/own.py", "VALUE = 'old'")
        template = self.open("patient")
        program = "import own; print(own.VALUE)"
        self.assertEqual(self.run_python(template, program).stdout, "old\n")
        self.write("modules/own.py", "VALUE = 'newer'")
        child = template.popen([PYTHON, "-c", program], stdout=subprocess.PIPE, text=True)
        self.assertEqual((child.communicate()[0], child.backend), ("newer\n", "warm"))

    def test_children_can_be_left_behind_on_purpose_only(self):
        self.start_service()
        for lifetime, survives in (("owner", False), ("detached", True)):
            with self.subTest(lifetime), subprocess.Popen(
                [PYTHON, "-c", CLIENT, lifetime], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as client:
                pid = int(client.stdout.readline())
                pidfd = os.pidfd_open(pid)
                client.kill()
                client.wait()
                if survives:
                    # The service notices the client's end before it answers who comes later.
                    self.run_python(self.open(), "pass")
                    self.assertEqual(select.select([pidfd], [], [], 0)[0], [])
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                self.assertTrue(select.select([pidfd], [], [], 30)[0])
                os.close(pidfd)

    def test_a_waiting_caller_asks_for_one_child_only(self):
        self.start_service()
        gate = self.path("modules/gate")
        os.mkfifo(gate)
        self.write("modules/slow.py", f"open({gate!r}).read()")
        template = self.open("slow")
        for _ in range(5):
            with self.assertRaises(warmfork.Error) as caught:
                template.wait_ready(timeout=0.01)
            self.assertEqual(caught.exception.errno, errno.ETIMEDOUT)
        with open(gate, "w"):
            pass
        template.wait_ready()
        self.assertEqual(template.parked, 1)


class Opening(Service):
    def test_an_unknown_template_names_the_known_ones(self):
        self.start_service()
        with self.assertRaises(warmfork.TemplateError) as caught:
            warmfork.Template("nun")
        self.assertEqual(caught.exception.errno, errno.ENOENT)
        for name in ("num", "own"):
            self.assertIn(name, str(caught.exception))

    def test_an_error_in_its_file_is_said_with_file_and_line(self):
        self.write("config/templates.d/broken.toml", 'python = "python3"\nprelode = []\n')
        self.start_service()
        with self.assertRaisesRegex(warmfork.TemplateError, r"broken\.toml:2:1: .*preload"):
            warmfork.Template("broken")

    def test_other_parameters_than_backend_are_refused(self):
        self.start_service()
        with self.assertRaisesRegex(TypeError, "spares= cannot be given for the service's template 'num'"):
            warmfork.Template("num", spares=3)
        with self.open(backend="cold") as template:
            self.assertEqual(template.backend, "cold")
            with self.assertRaises(OSError) as caught:
                template.set_spares(3)
            self.assertEqual(caught.exception.errno, errno.ENOTSUP)

    def test_its_report_is_the_services_to_give(self):
        self.start_service()
        with self.assertRaisesRegex(warmfork.TemplateError, "warmfork template list") as caught:
            self.open().report()
        self.assertEqual(caught.exception.errno, errno.ENOTSUP)

    def test_a_service_is_started_where_none_runs(self):
        self.addCleanup(self.stop_unknown_service)
        # It reads what is configured on this machine.
        with self.assertRaisesRegex(warmfork.TemplateError, "there is no usable template no-such"):
            warmfork.Template("no-such")

    def test_what_a_client_starts_keeps_nothing_of_that_client(self):
        os.environ["WARMFORK_SOCKET"] = self.path("run/socket")
        self.addCleanup(self.stop_unknown_service)
        first = (
            "import os, resource, warmfork; os.umask(0o177); os.nice(5)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))\n"
            "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
            "try: warmfork.Template('no-such')\n"
            "except warmfork.TemplateError as error: print(error)\n"
        )
        said = subprocess.run([PYTHON, "-c", first], env={**os.environ, "SECRET": "of the first"}, text=True,
                              capture_output=True)
        self.assertIn("there is no usable template", said.stdout, said.stderr)
        self.assertEqual(stat.S_IMODE(os.stat(self.path("run")).st_mode), 0o700)
        pid = self.listening_pid()
        with open(f"/proc/{pid}/status") as status:
            fields = dict(line.split(":\t", 1) for line in status.read().splitlines())
        self.assertEqual(fields["Umask"], "0022")
        self.assertEqual(os.sched_getaffinity(pid), os.sched_getaffinity(0))
        self.assertNotEqual(resource.prlimit(pid, resource.RLIMIT_FSIZE)[0], 1 << 30)
        if os.geteuid() == 0:
            self.assertEqual(os.getpriority(os.PRIO_PROCESS, pid), 0)
        with open(f"/proc/{pid}/environ", "rb") as environment:
            self.assertNotIn(b"of the first", environment.read())
        # Another one, with another umask, can use it.
        with self.assertRaisesRegex(warmfork.TemplateError, "there is no usable template no-such"):
            warmfork.Template("no-such")


class Deaths(Service):
    def test_status_is_of_the_service_that_clients_find(self):
        service = self.start_service()
        for _ in range(2):
            status = json.loads(cli("status", "--json").stdout)
            self.assertEqual((status["pid"], status["socket"]), (service.pid, os.environ["WARMFORK_SOCKET"]))
            service.reload()

    def test_services_that_clients_have_started_have_a_status_each(self):
        seen = set()
        for name in ("a", "b"):
            os.environ["WARMFORK_SOCKET"] = self.path(f"{name}/socket")
            self.assertEqual(cli("status").returncode, 3)
            self.assertEqual(cli("template", "list").returncode, 0)
            self.addCleanup(self.stop_unknown_service)
            self.addCleanup(os.environ.__setitem__, "WARMFORK_SOCKET", self.path(f"{name}/socket"))
            seen.add(json.loads(cli("status", "--json").stdout)["pid"])
            self.assertIn(self.listening_pid(), seen)
        self.assertEqual(len(seen), 2)

    def test_a_reload_keeps_children_and_their_statuses(self):
        service = self.start_service()
        template = self.open(backend="warm")
        child = self.waiting_child(template)
        service.reload()
        self.assertEqual(self.run_python(template, "import os; print(os.getppid())").stdout, f"{service.pid}\n")
        child.stdin.write("end")
        child.stdin.close()
        self.assertEqual(child.wait(), 0)

    def test_a_killed_service_takes_no_child_and_makes_up_no_status(self):
        service = self.start_service()
        template = self.open(backend="warm")
        child = self.waiting_child(template)
        service.kill()
        self.assertIsNone(child.poll())
        child.terminate()
        try:
            self.assertEqual(child.wait(), -signal.SIGTERM)
        except ChildProcessError as error:
            self.assertEqual(error.errno, errno.EOWNERDEAD)  # before Linux 6.15
            child.returncode = -signal.SIGTERM  # every further wait would say so again
        self.start_service()
        self.assertEqual(self.run_python(template, "raise SystemExit(3)").returncode, 3)

    def test_no_status_is_waited_for_that_a_zombie_tells(self):
        service = self.start_service()
        child = self.waiting_child(self.open(backend="warm"))
        ended = os.pidfd_open(child.pid)
        self.addCleanup(os.close, ended)
        # It becomes a child of this process, which reaps it only in the end.
        adopt = functools.partial(ctypes.CDLL(None).prctl, 36)  # PR_SET_CHILD_SUBREAPER
        self.assertEqual(adopt(1, 0, 0, 0), 0)
        self.addCleanup(adopt, 0, 0, 0, 0)
        self.addCleanup(self.reap_all)
        service.kill()
        child.stdin.close()
        self.assertEqual(select.select([ended], [], [], 60)[0], [ended])
        self.assertEqual(child.poll(), 0)

    def reap_all(self):
        for pid in children():
            os.waitpid(pid, 0)


class Loops(Service):
    def test_asyncio(self):
        self.start_service()
        template = self.open(backend="warm")

        async def main():
            process = await warmfork.aio.create_subprocess_exec(
                PYTHON, "-c", "import sys; sys.exit(len(sys.stdin.read()))", template=template,
                stdin=asyncio.subprocess.PIPE,
            )
            await process.communicate(b"12345")
            return process.returncode, await process.wait()

        self.assertEqual(asyncio.run(main()), (5, 5))

    def test_trio(self):
        try:
            import trio
        except ImportError:
            self.skipTest("trio is not installed")
        self.start_service()
        template = self.open(backend="warm")

        async def main():
            done = await warmfork.trio.run_process(
                [PYTHON, "-c", "import sys; print(sys.stdin.read()); sys.exit(4)"], template=template, stdin=b"in",
                capture_stdout=True, check=False,
            )
            return done.returncode, done.stdout

        self.assertEqual(trio.run(main), (4, b"in\n"))

    def test_trio_ends_a_cancelled_child(self):
        try:
            import trio
        except ImportError:
            self.skipTest("trio is not installed")
        self.start_service()
        template = self.open(backend="warm")

        async def main():
            async with trio.open_nursery() as nursery:
                process = await nursery.start(
                    lambda task_status: warmfork.trio.run_process(
                        [PYTHON, "-c", "import time; time.sleep(600)"], template=template, task_status=task_status
                    )
                )
                nursery.cancel_scope.cancel()
            return process.returncode

        self.assertEqual(trio.run(main), -signal.SIGTERM)


if __name__ == "__main__":
    unittest.main()
