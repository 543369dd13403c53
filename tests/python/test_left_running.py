"""What a command leaves running in the background: it lives on as behind the command without a link."""

import contextlib
import os
import socket
import struct
import subprocess
import tempfile
import unittest

from support import warm_only
from terminal_scene import wait_until
from test_links_warm import WarmTestCase

# Forks into the background as daemons do; what is left answers by a socket. A child of the service that makes cgroups
# waits until it is in its own first, as what it leaves before that is not found: warmforkd(8). With a third argument the
# command itself runs until it is ended.
TOOL = """\
import csv, os, signal, socket, sys, time
while os.getppid() == int(sys.argv[2]) and "/client-" not in open("/proc/self/cgroup").read(): time.sleep(.001)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        for number in range(3): os.dup2(null, number)
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(sys.argv[1])
        while connection.recv(1): connection.send(b"x")
    os._exit(0)
os.wait()
print(os.getppid(), flush=True)
sys.argv[3:] and signal.pause()
"""


def find_cgroups():
    """Where version 2 is mounted and cgroups can be made; None: nowhere."""
    with open("/proc/mounts") as mounts:
        places = [line.split()[1] for line in mounts if line.split()[2] == "cgroup2"]
    with contextlib.suppress(IndexError, OSError):
        directory = tempfile.mkdtemp(prefix="warmfork-test-", dir=places[0])
        try:
            return places[0] if os.path.exists(f"{directory}/cgroup.kill") else None  # since Linux 5.14
        finally:
            os.rmdir(directory)
    return None


CGROUPS = find_cgroups()


@warm_only
class LeftRunning(WarmTestCase):
    def setUp(self):
        super().setUp()
        self.script("tool", TOOL)
        self.listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.listening.close)
        self.listening.settimeout(60)
        self.listening.bind(self.path("listening"))
        self.listening.listen()

    def accept(self):
        """What was left running: its connection and pid. It ends with the connection."""
        connection, _ = self.listening.accept()
        self.addCleanup(connection.close)
        connection.settimeout(60)
        return connection, struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]

    def leave(self, service):
        """Runs the tool until that was warm, and has ended."""
        def run_once():
            done = self.run_it("tool", *self.arguments(service))
            self.assertEqual(done.returncode, 0, done.stderr)
            return int(done.stdout), self.accept()

        parent, left = self.until(lambda seen: seen[0] == service.pid, run_once)
        self.assertEqual(parent, service.pid)
        return left

    def arguments(self, service):
        return self.path("listening"), "0"

    def assert_lives(self, connection):
        connection.send(b"?")
        self.assertEqual(connection.recv(1), b"x")

    def test_it_lives_on_when_its_command_has_ended(self):
        service = self.start_ready()
        connection, _ = self.leave(service)
        service.stop()
        self.assert_lives(connection)


@unittest.skipUnless(CGROUPS, "no cgroup of version 2 can be made here")
class LeftInCgroups(LeftRunning):
    """With a cgroup that is delegated to the service, as that of its unit is."""

    def setUp(self):
        super().setUp()
        self.cgroup = tempfile.mkdtemp(prefix="warmfork-test-", dir=CGROUPS)
        self.addCleanup(self.remove)

    def remove(self):
        # What has ended is in it for a moment more: kill has the kernel wait for nobody.
        for directory, _, _ in os.walk(self.cgroup, topdown=False):
            wait_until(lambda: self.is_removed(directory))

    @staticmethod
    def is_removed(directory):
        with contextlib.suppress(OSError):
            os.rmdir(directory)
        return not os.path.exists(directory)

    def start_service(self, *options):
        return super().start_service("--delegated-cgroup", *options, cgroup=self.cgroup)

    def arguments(self, service):
        return self.path("listening"), str(service.pid)

    @staticmethod
    def cgroup_of(pid):
        with open(f"/proc/{pid}/cgroup") as file:
            return next(os.path.basename(line.rstrip("\n")) for line in file if line.startswith("0::/"))

    def clients(self):
        return [name for name in os.listdir(self.cgroup) if name.startswith("client-")]

    def test_it_is_nobodys_when_its_client_has_gone(self):
        """Whose cgroups are removed when nothing is left in them."""
        connection, pid = self.leave(self.start_ready())
        wait_until(lambda: not self.clients())
        self.assert_lives(connection)
        self.assertEqual(self.cgroup_of(pid), "detached-tool")

    def test_it_is_ended_with_a_client_whose_command_runs(self):
        service = self.start_ready()
        self.leave(service)  # from now on it is warm
        ended = []

        def leave_and_kill():
            command = ["/usr/bin/env", "tool", *self.arguments(service), "runs"]
            with subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, text=True) as process:
                parent = int(process.stdout.readline())
                left, _ = self.accept()
                process.kill()
            ended.append((parent, left))
            return parent == service.pid

        self.assertTrue(self.until(lambda is_warm: is_warm, leave_and_kill))
        self.assertEqual(ended[-1][1].recv(1), b"")  # it was ended


if __name__ == "__main__":
    unittest.main()
