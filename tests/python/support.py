"""What the Python tests share: a leak guard around every test, and cold reference runs."""

import contextlib
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import unittest
import unittest.mock

import warmfork

PYTHON = sys.executable
CLI = os.environ.get("WARMFORK_CLI")

# Those of a shell's background job are ignored, and what the tests interrupt would go on for ever.
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

# Whole suites run cold as well: what the children of this run are to be.
BACKEND = os.environ.get("WARMFORK_BACKEND", "warm")
# For tests of what only warm children show.
warm_only = unittest.skipIf(BACKEND == "cold", "about warm children")


def run(*args, **options):
    """The command line, warmfork(1)."""
    return subprocess.run([CLI, *args], capture_output=True, text=True, **options)


def children():
    found = []
    for task in os.listdir("/proc/self/task"):
        # A thread that was joined may be gone only now.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/self/task/{task}/children") as file:
            found += [int(pid) for pid in file.read().split()]
    return found


def descriptors():
    found = {}
    lowest_kept = min(500, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        # Files of /proc are kept by the shim for the life of the process, as are the sockets of the keeper and
        # of the service, and what tells that a file of the service's images has changed.
        is_kept = int(number) >= lowest_kept and target.startswith(("socket:", "anon_inode:inotify"))
        # So is libffi by itself, from the first function of Python's on that ctypes makes one of C's.
        is_kept = is_kept or os.path.basename(target).startswith("libffi.so")
        if not target.startswith("/proc/") and not is_kept:
            found[int(number)] = target
    return found


def tracker_of_shared_resources():
    """multiprocessing's, which lives as long as the process."""
    module = sys.modules.get("multiprocessing.resource_tracker")
    return module and module._resource_tracker._pid


class TestCase(unittest.TestCase):
    """A test that leaves a child or a descriptor behind has failed."""

    def setUp(self):
        self._before = descriptors()
        self.addCleanup(self._check_leaks)

    def _check_leaks(self):
        left = {number: target for number, target in descriptors().items() if number not in self._before}
        self.assertEqual(left, {}, "descriptors were left open")
        for pid in children():
            if pid == tracker_of_shared_resources():
                continue
            with open(f"/proc/{pid}/comm") as file:
                name = file.read().strip()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self.fail(f"child {pid} ({name}) was left behind")

    def folder(self, files):
        """A temporary directory with these files, {name: text}."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        for name, text in files.items():
            path = os.path.join(folder.name, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as file:
                file.write(text)
        return folder.name

    def template(self, preload=("json",), waits=True, **options):
        """A template that is closed before the leak check. waits: until it is ready, or cannot be."""
        template = warmfork.Template(preload, **options)
        self.addCleanup(template.close)
        if waits and template.backend != "cold":
            with contextlib.suppress(warmfork.TemplateError):
                template.wait_ready(timeout=60)
        return template


def enter_cgroup(directory):
    with open(os.path.join(directory, "cgroup.procs"), "w") as file:
        file.write("0")


class _Service:
    """A warmforkd, started. Its notifications are read from a socket of ours, as systemd does it."""

    def __init__(self, folder, environment, options, cgroup):
        self._notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = f"\0{folder}/{id(self)}"
        self._notifications.bind(address)
        self._notifications.settimeout(60)
        instance = f"test-{os.getpid()}"  # neither this user's own service nor another test's shares its board
        self._board = f"/dev/shm/warmfork-{os.geteuid()}-{instance}"
        self.process = subprocess.Popen(
            [WARMFORKD, "--config", os.path.join(folder, "config"), "--socket", environment["WARMFORK_SOCKET"],
             "--instance", instance, *options],
            env={**environment, "NOTIFY_SOCKET": "@" + address[1:]}, start_new_session=True, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, preexec_fn=cgroup and (lambda: enter_cgroup(cgroup)),
        )
        self.pid = self.process.pid
        self.wait_for(b"READY=1")

    def wait_for(self, word):
        while word not in self._notifications.recv(4096).split(b"\n"):
            pass

    def reload(self):
        """Until it serves again."""
        self.process.send_signal(signal.SIGHUP)
        self.wait_for(b"RELOADING=1")
        self.wait_for(b"READY=1")

    def kill(self):
        self.process.kill()
        self.process.wait()
        os.unlink(self._board)

    def stop(self):
        self._notifications.close()
        if self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.kill()
            raise


WARMFORKD = os.path.join(os.path.dirname(warmfork.__file__), "_libexec", "warmforkd")


class ServiceTestCase(TestCase):
    """A test with a service of its own: its socket and configuration lie in a temporary directory, for what
    is started here as well. Templates: num (csv), own and slow (modules/*.py), patient (own, on_stale="wait")."""

    def setUp(self):
        super().setUp()
        self._folder = self.folder({})
        self.addCleanup(os.environ.pop, "WARMFORK_SOCKET")
        os.environ["WARMFORK_SOCKET"] = self.path("socket")
        self.addCleanup(self._check_service)
        state = unittest.mock.patch.dict(os.environ, XDG_STATE_HOME=self.path("state"))
        state.start()
        self.addCleanup(state.stop)
        os.mkdir(self.path("modules"))
        for name, preload, more in (
            ("num", "csv", ""), ("own", "own", ""), ("slow", "slow", ""), ("patient", "own", 'on_stale = "wait"\n')
        ):
            text = f'python = "{PYTHON}"\npreload = ["{preload}"]\ncwd = "{self.path("modules")}"\n{more}'
            self.write(f"config/templates.d/{name}.toml", text)

    def path(self, name):
        return os.path.join(self._folder, name)

    def write(self, name, text):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "w") as file:
            file.write(text)
        return self.path(name)

    def start_service(self, *options, cgroup=None):
        """cgroup: the directory of the one that it is started in."""
        service = _Service(self._folder, os.environ, options, cgroup)
        self.addCleanup(service.stop)
        return service

    def listening_pid(self):
        """Of a service that a client has started."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(os.environ["WARMFORK_SOCKET"])
            return struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]

    def _check_service(self):
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            self.stop_unknown_service()
            self.fail("a service was left behind")

    def stop_unknown_service(self):
        pid = self.listening_pid()
        ended = os.pidfd_open(pid)
        os.kill(pid, signal.SIGTERM)
        select.select([ended], [], [], 60)
        os.close(ended)


def cold(command, **options):
    """The reference: subprocess itself."""
    return subprocess.run(command, capture_output=True, **options)
