"""Templates of the service: warmfork.Template("name"), and warmfork run -t."""

import asyncio
import ctypes
import errno
import functools
import json
import os
import pty
import resource
import select
import signal
import stat
import subprocess
import sys
import time
import unittest
import unittest.mock

import warmfork
from support import PYTHON, WARMFORKD, ServiceTestCase, children

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


# A client that has changed what fork and exec hand down, as far as this machine lets it and anybody could take it back.
# It starts the service.
CHANGED_CLIENT = """
import ctypes, os, platform, signal, struct, sys
import warmfork
libc = ctypes.CDLL(None, use_errno=True)
is_x86 = platform.machine() == "x86_64"
prctl = lambda *args: libc.prctl(*map(ctypes.c_ulong, args))
def write(name, text):
    with open(f"/proc/self/{name}", "w") as file:
        file.write(text)
write("oom_score_adj", "500")
write("coredump_filter", "0x1")
prctl(29, 123456, 0, 0, 0)          # PR_SET_TIMERSLACK
prctl(41, 1, 0, 0, 0)               # PR_SET_THP_DISABLE
prctl(67, 1, 0, 0, 0)               # PR_SET_MEMORY_MERGE
prctl(33, 1, 1, 0, 0)               # PR_MCE_KILL, of this thread: early
prctl(57, 1, 0, 0, 0)               # PR_SET_IO_FLUSHER
prctl(28, 4, 0, 0, 0)               # PR_SET_SECUREBITS, without what exec takes root's capabilities for
for which, value in (0, 4), (1, 4), (2, 2):
    prctl(53, which, value, 0, 0)   # PR_SET_SPECULATION_CTRL
libc.personality(0x0200000)         # ADDR_COMPAT_LAYOUT
libc.syscall(251 if is_x86 else 30, 1, 0, 2 << 13 | 7)  # ioprio_set
libc.syscall(238 if is_x86 else 237, 1, ctypes.byref(ctypes.c_ulong(1)), 64)  # set_mempolicy
clamp = struct.pack("IIQiIQQQII", 56, os.SCHED_BATCH, 0x60, 0, 0, 0, 0, 0, 100, 900)
if libc.syscall(314 if is_x86 else 274, 0, clamp, 0):   # sched_setattr
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
if os.geteuid() == 0:
    os.nice(-5)
keyctl = 250 if is_x86 else 219
libc.syscall(keyctl, 1, None)       # KEYCTL_JOIN_SESSION_KEYRING
libc.syscall(248 if is_x86 else 217, b"user", b"warmfork-test", b"secret", 6, -3)  # add_key
%s
"""

# Prints the secret of the client above, if it finds it.
FIND_KEY = """
import ctypes, platform
libc = ctypes.CDLL(None)
keyctl = 250 if platform.machine() == "x86_64" else 219
key = libc.syscall(keyctl, 10, -3, b"user", b"warmfork-test", 0)
text = ctypes.create_string_buffer(6)
print(text.raw if key > 0 and libc.syscall(keyctl, 11, key, text, 6) == 6 else "none")
"""


# Prints which network namespace it is in.
NETWORK = "import os; print(os.readlink('/proc/self/ns/net'))"


def run_without_network(*args):
    """None: this process may not make a network namespace."""
    if subprocess.run(["unshare", "-n", "true"], stderr=subprocess.DEVNULL).returncode:
        return None
    return subprocess.run(["unshare", "-n", CLI, *args], capture_output=True, text=True)


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

    def test_what_a_client_starts_serves_clients_that_have_changed_nothing(self):
        folder = self.path("home/warmfork/templates.d")
        os.makedirs(folder)
        os.rename(self.path("config/templates.d/num.toml"), folder + "/num.toml")
        start = "warmfork.Template('num').run([sys.executable, '-c', '']); " + FIND_KEY
        with unittest.mock.patch.dict(os.environ, XDG_CONFIG_HOME=self.path("home")):
            said = subprocess.run([PYTHON, "-c", CHANGED_CLIENT % start], text=True, capture_output=True)
        self.addCleanup(self.stop_unknown_service)
        self.assertIn(said.stdout, ("b'secret'\n", "none\n"), said.stderr)  # none: keyctl(2) is refused here
        pid = self.listening_pid()
        for name in ("oom_score_adj", "coredump_filter"):
            with open(f"/proc/{pid}/{name}") as its, open(f"/proc/1/{name}") as usual, open(f"/proc/self/{name}") as own:
                self.assertIn(its.read(), (usual.read(), own.read()), name)  # a session's own may be its lowest
        self.assertEqual(os.getpriority(os.PRIO_PROCESS, pid), 0)
        # All else is what the service compares.
        self.assertEqual(self.run_python(self.open(), FIND_KEY, backend="warm").stdout, "none\n")

    def test_a_service_that_is_started_by_hand_has_no_signals_from_there(self):
        self.addCleanup(self.stop_unknown_service)
        subprocess.run(
            [WARMFORKD, "--background", "--socket", os.environ["WARMFORK_SOCKET"], "--config", self.path("config")],
            check=True, preexec_fn=lambda: (signal.signal(signal.SIGCHLD, signal.SIG_IGN),
                                            signal.signal(signal.SIGHUP, signal.SIG_IGN),
                                            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})),
        )
        done = self.run_python(self.open(), "raise SystemExit(3)", backend="warm")
        self.assertEqual(done.returncode, 3)
        with open(f"/proc/{self.listening_pid()}/status") as status:
            fields = dict(line.split(":\t", 1) for line in status.read().splitlines())
        self.assertEqual(int(fields["SigIgn"], 16), 1 << signal.SIGPIPE - 1)
        self.assertFalse(int(fields["SigBlk"], 16) & 1 << signal.SIGUSR1 - 1)


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


class Hanging(Service):
    """A service that is stopped: it answers nothing, and its connections stay."""

    def setUp(self):
        super().setUp()
        self.service = self.start_service()
        self._template = self.open()
        self.assertEqual(self.run_python(self._template, "pass").returncode, 0)

    def stop(self):
        os.kill(self.service.pid, signal.SIGSTOP)
        self.addCleanup(os.kill, self.service.pid, signal.SIGCONT)

    def until_cold(self):
        """What was leased ahead of need is warm."""
        for _ in range(20):
            child = self._template.popen([PYTHON, "-c", "pass"])
            self.assertEqual(child.wait(), 0)
            if child.backend == "cold":
                return child
        self.fail("always warm")

    def test_spawns_are_cold_and_warm_again_when_it_answers(self):
        self.stop()
        child = self.until_cold()
        self.assertEqual(child.reason_code, "unresponsive")
        self.assertIn("does not answer", child.reason)
        self.assertEqual(self.until_cold().reason_code, "unresponsive")
        with self.assertRaises(warmfork.Error) as caught:
            self._template.popen([PYTHON, "-c", "pass"], backend="warm")
        self.assertEqual(caught.exception.errno, errno.ETIMEDOUT)
        os.kill(self.service.pid, signal.SIGCONT)
        backend = "cold"  # until it has said something
        while backend == "cold":
            child = self._template.popen([PYTHON, "-c", "pass"])
            self.assertEqual(child.wait(), 0)
            backend = child.backend

    def test_statuses_of_children_that_end_meanwhile_are_told(self):
        children = [
            self._template.popen([PYTHON, "-c", "import sys; sys.stdin.read(); " + end], stdin=subprocess.PIPE, backend="warm")
            for end in ("sys.exit(3)", "import os; os.kill(os.getpid(), 10)", "pass")
        ]
        self.stop()
        for child in children:
            child.stdin.close()
        self.assertEqual([child.wait() for child in children], [3, -10, 0])

    def test_opening_a_template_ends_with_an_error(self):
        self.stop()
        program = "import warmfork\ntry: warmfork.Template('num')\nexcept OSError as error: print(error.errno, error)"
        done = subprocess.run([PYTHON, "-c", program], capture_output=True, text=True)
        self.assertIn(f"{errno.ETIMEDOUT} ", done.stdout, done.stderr)

    def stop_until_heard(self, handler):
        """Stops the service. Python's handler of a signal is called in a moment, if whatever is done meanwhile lets it."""
        before = signal.signal(signal.SIGALRM, lambda *_: handler())
        self.addCleanup(signal.signal, signal.SIGALRM, before)
        self.stop()
        signal.setitimer(signal.ITIMER_REAL, 0.2)

    def go_on(self):
        os.kill(self.service.pid, signal.SIGCONT)

    def test_python_hears_signals_while_a_template_is_opened(self):
        # Where the handler runs only when the service has been given up, that is an error.
        self.stop_until_heard(self.go_on)
        self.assertEqual(self.run_python(self.open(), "raise SystemExit(3)").returncode, 3)

    def test_python_hears_signals_while_it_connects(self):
        self.stop()
        program = (
            "import os, signal, warmfork\nopen_template = warmfork.Template\n"
            f"signal.signal(signal.SIGALRM, lambda *_: os.kill({self.service.pid}, signal.SIGCONT))\n"
            "signal.setitimer(signal.ITIMER_REAL, 0.2)\n"
            "open_template('num').close()"
        )
        done = subprocess.run([PYTHON, "-c", program], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_python_hears_signals_while_it_is_waited_how_a_child_has_ended(self):
        child = self.waiting_child(self._template, backend="warm")
        child.stdin.write("end")
        heard = []
        self.stop_until_heard(lambda: heard.append(time.monotonic()))
        began = time.monotonic()
        child.stdin.close()
        self.assertEqual(child.wait(), 0)
        # In the first half: not when the wait was over.
        self.assertLess(2 * (heard[0] - began), time.monotonic() - began)

    def test_a_handler_that_raises_breaks_the_wait_off(self):
        class Interrupted(Exception):
            pass

        def interrupt():
            raise Interrupted

        self.stop_until_heard(interrupt)
        self._template.close()  # with what it has leased ahead
        with self.assertRaises(Interrupted):
            self.open()
        self.go_on()
        self.assertEqual(self.run_python(self.open(), "raise SystemExit(3)").returncode, 3)


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


class CommandLine(Service):
    def test_run_is_warm_and_ends_as_the_command(self):
        self.start_service()
        program = "import sys; print('csv' in sys.modules, sys.argv, sys.stdin.read()); sys.exit(9)"
        done = cli("run", "-t", "num", "--explain", "--", PYTHON, "-c", program, "--x", input="in")
        self.assertEqual((done.returncode, done.stdout), (9, "True ['-c', '--x'] in\n"), done.stderr)
        self.assertEqual(done.stderr, "warmfork: served warm\n")
        self.assertEqual(cli("run", "-t", "num", "--", PYTHON, "-c", "import os; os.kill(os.getpid(), 9)").returncode, -9)

    def test_run_in_another_network_namespace_is_cold_or_refused_and_stays_in_it(self):
        self.start_service()
        self.assertEqual(cli("run", "-t", "num", "--", PYTHON, "-c", "pass").returncode, 0)  # it is there
        for backend, status in (("auto", 0), ("warm", 125)):
            done = run_without_network("run", "-t", "num", "--explain", "--backend", backend, "--",
                                       PYTHON, "-c", NETWORK)
            if done is None:
                self.skipTest("no other network namespace can be made here")
            self.assertEqual(done.returncode, status, done.stderr)
            self.assertRegex(done.stderr, 'namespace "?net')
            self.assertNotIn(os.readlink("/proc/self/ns/net"), done.stdout)
            self.assertEqual("net:" in done.stdout, status == 0, done.stdout)

    def test_run_says_what_does_not_exist(self):
        self.start_service()
        done = cli("run", "-t", "nun", "--", PYTHON, "-c", "pass")
        self.assertEqual(done.returncode, 125)
        self.assertIn("num", done.stderr)
        self.assertEqual(cli("run", "-t", "num", "--", "no-such-program").returncode, 127)
        self.assertEqual(cli("run", "-t", "num", "--preload", "json", "--", PYTHON).returncode, 125)

    def test_signals_are_forwarded(self):
        self.start_service()
        program = (
            "import signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}); "
            "print('ready', flush=True); signal.sigwait({signal.SIGTERM}); sys.exit(33)"
        )
        with subprocess.Popen(
            [CLI, "run", "-t", "num", "--backend", "warm", "--", PYTHON, "-c", program], stdout=subprocess.PIPE
        ) as process:
            process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(), 33)

    def at_terminal(self, program):
        """A run of this at a terminal of its own; returns its pid, and the terminal."""
        pid, terminal = pty.fork()
        if pid == 0:
            try:
                os.execv(CLI, [CLI, "run", "-t", "num", "--backend", "warm", "--", PYTHON, "-c", program])
            finally:
                os._exit(99)
        self.addCleanup(os.close, terminal)
        return pid, terminal

    def read_until(self, terminal, *words):
        shown = b""
        while not all(word in shown for word in words):
            if not select.select([terminal], [], [], 60)[0]:
                break
            try:
                shown += os.read(terminal, 1000)
            except OSError:
                break
        for word in words:
            self.assertIn(word, shown)
        return shown

    def test_ctrl_c_at_the_terminal_interrupts_the_child(self):
        self.start_service()
        pid, terminal = self.at_terminal("import time; print('ready', flush=True)\nwhile True: time.sleep(0.05)")
        self.read_until(terminal, b"ready")
        os.write(terminal, b"\x03")
        self.read_until(terminal, b"KeyboardInterrupt")
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), -signal.SIGINT)

    def test_ctrl_z_at_the_terminal_stops_both_and_both_go_on(self):
        self.start_service()
        # A shell of job control's kind: it continues what has stopped.
        program = (
            "import os, signal, subprocess, sys; "
            "child = subprocess.Popen(sys.argv[1:], process_group=0); "
            "signal.signal(signal.SIGTTOU, signal.SIG_IGN); os.tcsetpgrp(0, child.pid); print('foreground', flush=True); "
            "_, status = os.waitpid(child.pid, os.WUNTRACED); os.tcsetpgrp(0, os.getpid()); print('stopped', os.WIFSTOPPED(status), flush=True); "
            "sys.stdin.readline(); os.killpg(child.pid, signal.SIGCONT); "
            "print('status', child.wait(), flush=True)"
        )
        inner = (
            "import os, signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCONT}); "
            "print('pid', os.getpid(), 'ready', flush=True); signal.sigwait({signal.SIGCONT}); os._exit(5)"
        )
        command = [CLI, "run", "-t", "num", "--backend", "warm", "--", PYTHON, "-c", inner]
        if sys.version_info < (3, 11):
            self.skipTest("process_group= is of Python 3.11")
        pid, terminal = pty.fork()
        if pid == 0:
            os.execv(PYTHON, [PYTHON, "-c", program, *command])
        self.addCleanup(os.close, terminal)
        shown = self.read_until(terminal, b"foreground", b"ready")
        child = int(shown.split(b"pid ")[1].split()[0])
        os.write(terminal, b"\x1a")
        self.read_until(terminal, b"stopped True")
        state = ""
        while state != "T":
            os.sched_yield()
            with open(f"/proc/{child}/stat") as file:
                state = file.read().rpartition(")")[2].split()[0]
        os.write(terminal, b"\n")
        self.read_until(terminal, b"status 5")
        os.waitpid(pid, 0)

    def test_explain(self):
        self.start_service()
        done = cli("explain", "-t", "num", "--", PYTHON, "-c", "print('never run')")
        self.assertEqual((done.returncode, done.stdout), (0, "warm\n"), done.stderr)
        done = cli("explain", "-t", "num", "--json", "--", "true")
        self.assertEqual((done.returncode, json.loads(done.stdout)["reason_code"]), (2, "program"))

    def states(self):
        listed = json.loads(cli("template", "list", "--json").stdout)
        return {entry["name"]: entry["state"] for entry in listed["templates"]}

    def test_templates_are_started_stopped_and_listed(self):
        self.start_service()
        self.assertEqual(self.states()["num"], "idle")
        done = cli("template", "start", "num")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(self.states()["num"], "ready")
        self.assertRegex(cli("template", "list").stdout, r"(?m)^num +ready +\d+ +/")
        self.assertEqual(cli("template", "stop", "num").returncode, 0)
        self.assertEqual(self.states()["num"], "idle")
        done = cli("template", "start", "nun")
        self.assertEqual(done.returncode, 1)
        self.assertIn("num", done.stderr)

    def test_a_template_that_does_not_start_says_why(self):
        self.write("config/templates.d/bad.toml", f"python = '{PYTHON}'\npreload = ['no_such_module']\n")
        self.start_service()
        done = cli("template", "start", "bad")
        self.assertEqual(done.returncode, 1)
        self.assertIn("no_such_module", done.stderr)

    def test_a_reload_reads_the_files_anew(self):
        self.start_service()
        self.write("config/templates.d/later.toml", f"python = '{PYTHON}'\npreload = ['csv']\n")
        done = cli("template", "reload")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("later", self.states())
        self.write("config/templates.d/later.toml", f"python = '{PYTHON}'\npreload = ['json']\n")
        self.assertEqual(cli("template", "reload", "later").returncode, 0)
        done = self.run_python(self.open("later"), "import sys; print('json' in sys.modules, 'csv' in sys.modules)", backend="warm")
        self.assertEqual(done.stdout, "True False\n")
        self.write("config/templates.d/later.toml", "prelode = []\n")
        done = cli("template", "reload")
        self.assertEqual(done.returncode, 1)
        self.assertIn("later.toml:1:1:", done.stderr)

    def test_show_needs_no_service(self):
        done = cli("template", "show", "--config", self.path("config"), "num")
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stdout, r'preload = \[.*"csv".*\] +# .*num\.toml:2:1')
        done = cli("template", "show", "--config", self.path("config"), "nun")
        self.assertEqual(done.returncode, 1)
        self.assertIn("num", done.stderr)

    def edit(self, name, text):
        """An edit by an editor that writes this."""
        editor = self.write("editor", f"#!/bin/sh\nprintf '%s' '{text}' >\"$1\"\n")
        os.chmod(editor, 0o700)
        return cli("template", "edit", "--config", self.path("config"), name, env={**os.environ, "VISUAL": editor})

    def test_edit_checks_what_was_written(self):
        own = self.path("config/templates.d/new.toml")
        done = self.edit("new", 'preload = ["csv"]\n')
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        with open(own) as file:
            self.assertEqual(file.read(), 'preload = ["csv"]\n')
        done = self.edit("new", "\nspares = true\n")
        self.assertEqual(done.returncode, 1)
        self.assertIn("new.toml:2:", done.stderr)
        self.assertEqual(self.edit("../new", "").returncode, 1)

    def test_a_new_file_that_nobody_changed_does_not_stay(self):
        done = cli("template", "edit", "--config", self.path("config"), "new", env={**os.environ, "VISUAL": "true"})
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertFalse(os.path.exists(self.path("config/templates.d/new.toml")))
        done = cli("template", "edit", "--config", self.path("config"), "new", env={**os.environ, "VISUAL": "false"})
        self.assertEqual(done.returncode, 1)

    def test_the_log_is_the_journals(self):
        folder = self.folder({"journalctl": "#!/bin/sh\nprintf '%s\\n' \"$@\"\n"})
        os.chmod(os.path.join(folder, "journalctl"), 0o700)
        done = cli("log", "-f", "-t", "num", "--", "-n", "3", env={**os.environ, "PATH": folder})
        user = [] if os.geteuid() == 0 else ["--user"]
        self.assertEqual(
            done.stdout.split("\n")[:-1],
            ["SYSLOG_IDENTIFIER=warmforkd", *user, "WARMFORK_TEMPLATE=num", "--follow", "-n", "3"],
        )
        done = cli("log", env={**os.environ, "PATH": "/nowhere"})
        self.assertEqual(done.returncode, 1)
        self.assertIn("no journalctl", done.stderr)


if __name__ == "__main__":
    unittest.main()
