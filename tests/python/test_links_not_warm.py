"""Links in place of commands, where no template may serve: each command is itself."""

import contextlib
import os
import signal
import socket
import subprocess
import threading
import unittest

from support import PYTHON
from test_links_warm import WarmTestCase


class NotWarm(WarmTestCase):
    """With a service, and yet the real command: in the process that the link was."""

    PROCESS = ("sh", "-c", 'echo $$; exec "$@"', "sh")

    def assert_is_itself(self, *command, **options):
        done = self.run_it(*self.PROCESS, *command, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        expected, shown = done.stdout.split()[:2]
        self.assertEqual(expected, shown)
        return done.stdout.split()[2:]

    def setUp(self):
        super().setUp()
        self.script("tool", "import os, sys; print(os.getpid(), *sys.argv[1:])")

    def test_cold_is_asked_for(self):
        self.start_ready()
        self.assert_is_itself("tool", env={"WARMFORK_BACKEND": "cold"})

    def test_the_service_has_gone_or_was_never_there(self):
        self.assert_is_itself("tool")
        self.assertFalse(os.path.exists(self.path("socket")))  # none was started
        self.start_ready().kill()
        self.assertTrue(os.path.exists(self.path("socket")))
        self.assert_is_itself("tool")

    def test_nobody_has_said_where_the_service_is(self):
        """As under cron, sudo and ssh."""
        self.start_ready()
        self.environment = {"PATH": self.environment["PATH"]}
        self.assert_is_itself("tool")

    @unittest.skipUnless(os.geteuid() == 0, "nobody else can listen here")
    def test_the_service_is_another_users(self):
        """It would run the command with this user's arguments and files. He who says where it is may mean it."""
        os.chmod(self.path("."), 0o777)
        os.makedirs(self.path("warmfork"))
        os.chmod(self.path("warmfork"), 0o777)
        address = self.path("warmfork/socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            os.seteuid(12345)
            try:
                listening.bind(address)
                listening.listen()
            finally:
                os.seteuid(0)
            listening.settimeout(60)
            for name, place, is_asked in (("XDG_RUNTIME_DIR", self.path("."), False), ("WARMFORK_SOCKET", address, True)):
                self.environment = {"PATH": self.environment["PATH"], name: place}
                self.assert_is_itself("tool")
                with listening.accept()[0] as connection:
                    self.assertEqual(connection.recv(4096) != b"", is_asked)

    def test_the_service_is_stopped(self):
        service = self.start_ready()
        os.kill(service.pid, signal.SIGSTOP)
        try:
            self.assert_is_itself("tool")
        finally:
            os.kill(service.pid, signal.SIGCONT)

    def test_the_template_is_not_ready(self):
        self.start_service()
        self.assert_is_itself("tool", "--", "-x")

    def test_the_template_does_not_start(self):
        self.write("config/templates.d/tool.toml", f'python = "{PYTHON}"\npreload = ["nonesuch"]\n')
        self.start_service()
        for _ in range(2):
            self.assert_is_itself("tool")

    def test_the_program_is_another_one(self):
        self.install("cat")
        self.configure("cat")
        self.start_ready("cat")
        self.assertEqual(self.run_it("cat", "/proc/self/cmdline").stdout, "cat\0/proc/self/cmdline\0")

    def test_options_are_for_a_cold_interpreter_only(self):
        self.install("python3")
        self.start_ready()
        done = self.run_it("python3", "-i", "-c", "import sys; print(sys.executable)", stdin=subprocess.DEVNULL)
        self.assertEqual(done.stdout, f"{PYTHON}\n", done.stderr)

    def test_what_is_plainly_cold_is_not_asked_for(self):
        """No other program is started to find out."""
        self.install("python3")
        limited = ("sh", "-c", 'ulimit -v 4000000; exec "$0" "$@"')
        for command, env, asks in (
            (("python3", "-c", "pass"), {}, True), (("python3", "-c", "pass"), {"PYTHONINSPECT": "1"}, False),
            (("tool",), {"PYTHONVERBOSE": "1"}, False), (("python3", "-Bi", "-c", "pass"), {}, False),
            (("python3", "-W", "ignore", "-Ximporttime", "-c", "pass"), {}, False), (("python3", "--version"), {}, False),
            (("python3", "-X", "tracemalloc=3", "-c", "pass"), {}, False), (("python3", "-X", "utf8", "-c", "pass"), {}, True),
            (("python3", "-B", "-c", "pass", "-i"), {}, True), (("tool", "-i"), {}, True), ((*limited, "tool"), {}, False),
        ):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
                listening.bind(self.path("socket"))
                listening.listen()
                self.assertEqual(self.run_it(*command, env=env).returncode, 0, command)
                listening.setblocking(False)
                asked = b""
                with contextlib.suppress(BlockingIOError), listening.accept()[0] as connection:
                    asked = connection.recv(4096)
            os.unlink(self.path("socket"))
            self.assertEqual(asked != b"", asks, command)

    def test_the_service_answers_another_version(self):
        """Somebody listens there who does not speak as a service does."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            listening.bind(self.path("socket"))
            listening.listen()

            def answer():
                connection = listening.accept()[0]
                connection.recv(4096)
                connection.send(b"\xff" * 64)
                connection.close()

            thread = threading.Thread(target=answer)
            thread.start()
            self.assert_is_itself("tool")
            thread.join()

    def test_signals_are_as_they_were(self):
        """Blocked for a child that there is none of, they would stay blocked in the command."""
        self.script("tool", "import os, signal; print(os.getpid(), signal.pthread_sigmask(0, []))")
        self.start_service()
        self.assertEqual(self.assert_is_itself("tool"), ["set()"])


if __name__ == "__main__":
    unittest.main()
