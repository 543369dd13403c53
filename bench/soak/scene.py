"""The processes of a soak, in a directory of their own: a warmforkd, its client, an owner of embedded templates."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

import warmfork

import parties
from load import ACTIONS, PRELOAD, Counts

_PACKAGE = os.path.dirname(os.path.abspath(warmfork.__file__))
_PR_SET_CHILD_SUBREAPER = 36
# Seconds. A turn may be in the midst of its longest wait, and where the machine is busy everything takes that much longer.
_LATEST_END = 30
_LATEST_END_OF_PARTY = 150
# Where the parties may leave files: HOME, TMPDIR, XDG_RUNTIME_DIR.
_FOLDERS = ("home", "tmp", "run")
# Of the service, which leaves it in its directory: removed, it could be taken twice.
_LOCK = "lock"


class Started:
    """A process of the soak, with its name."""

    def __init__(self, name, command, environment, **options):
        self.name = name
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, **options)

    def wait(self, seconds):
        """Its status; None: it still runs then."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Party(Started):
    """The owner or the client."""

    def __init__(self, name, folder, environment):
        os.mkdir(os.path.join(folder, name))
        self.counts = Counts(os.path.join(folder, name, "counts"), name)
        program = os.path.join(os.path.dirname(__file__), "load.py")
        super().__init__(name, [sys.executable, program, name, folder], environment)
        self._report = os.path.join(folder, name, "report")

    def report(self):
        """Of a party that has ended."""
        report = {"reasons": {}, "sentences": {}, "slowest": {}}
        if os.path.exists(self._report):
            with open(self._report) as file:
                report = json.load(file)
        return {
            "spawns": self.counts.spawns(), "actions": {name: self.counts[name] for name in ACTIONS[self.name]},
            **{name: self.counts[name] for name in ("warm", "cold", "wrong")}, **report,
        }


class Scene:
    """A context manager: whatever it has started has ended after it, and its directory is gone."""

    def __init__(self, cli):
        # The keepers, and whatever else loses its parent, are to be found among this process's children.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._cli = os.path.abspath(cli or os.path.join(_PACKAGE, "../../bin/warmfork"))
        if not os.access(self._cli, os.X_OK):
            raise SystemExit(f"soak: there is no {self._cli}: give the command line warmfork with --cli")
        self._temporary = tempfile.TemporaryDirectory(prefix="warmfork-soak-")
        self._folder = self._temporary.name
        self.parties, self._started, self._sides = [], [], []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for started in reversed(self._started):
            started.close()
        self._end_orphans()
        self._temporary.cleanup()

    def _path(self, *names):
        return os.path.join(self._folder, *names)

    def _environment(self, **more):
        """Of each process. Nobody's state and configuration is read or changed, and no compiled module is written: of
        those of one length and second Python takes one for the other."""
        return {
            "PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8",
            "PYTHONPATH": os.path.dirname(_PACKAGE), "PYTHONDONTWRITEBYTECODE": "1", "HOME": self._path("home"),
            "TMPDIR": self._path("tmp"), "XDG_RUNTIME_DIR": self._path("run"),
            "WARMFORK_SOCKET": self._path("run", "socket"), "WARMFORK_CLI": self._cli, **more,
        }

    def _define_templates(self):
        plain = {"python": sys.executable, "preload": PRELOAD}
        os.makedirs(self._path("config", "templates.d"))
        for name, keys in (
            ("steady", plain),
            ("commanded", {**plain, "spares": 0}),
            ("own", {**plain, "cwd": self._path("client", "modules"), "preload": [*PRELOAD, "own"], "variants": 2}),
            ("layer", {"extends": "own", "preload": ["json"]}),
        ):
            with open(self._path("config", "templates.d", f"{name}.toml"), "w") as file:
                file.writelines(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())

    def _start_daemon(self, latest):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications, open(self._path("log"), "w") as log:
            notifications.bind("")
            notifications.settimeout(latest)
            address = notifications.getsockname().decode().replace("\0", "@", 1)
            daemon = Started(
                "daemon", [os.path.join(_PACKAGE, "_libexec", "warmforkd"), "--config", self._path("config"),
                           "--instance", f"soak-{os.getpid()}"],
                self._environment(NOTIFY_SOCKET=address), stdout=log, stderr=log)
            self._started.append(daemon)
            try:
                while b"READY=1" not in notifications.recv(4096):
                    pass
            except TimeoutError:
                with open(self._path("log")) as said:
                    raise SystemExit(f"soak: the service did not start within {latest} s\n{said.read()}") from None
        return daemon

    def start(self, latest):
        """Returns when each has spawned. latest: seconds."""
        for name in _FOLDERS:
            os.mkdir(self._path(name), 0o700)
        self._define_templates()
        daemon = self._start_daemon(latest)
        for name in ("owner", "client"):
            self.parties.append(Party(name, self._folder, self._environment()))
            self._started.append(self.parties[-1])
        owner, client = self.parties
        self._sides = [parties.Side(each.name, each.process.pid) for each in (owner, daemon, client)]
        deadline = time.monotonic() + latest
        while not all(party.counts.spawns() for party in self.parties):
            if time.monotonic() > deadline or any(party.process.poll() is not None for party in self.parties):
                raise SystemExit("soak: the parties did not begin to spawn")
            time.sleep(0.05)

    def _orphans(self):
        known = {started.process.pid for started in self._started}
        return [pid for pid in parties.children(os.getpid()) if pid not in known]

    def _reap_orphans(self):
        for pid in self._orphans():
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass

    def sample(self):
        self._reap_orphans()
        orphans = self._orphans()
        numbers = {}
        for side in self._sides:
            numbers.update(side.sample(orphans))
        others = [pid for pid in orphans if parties.kind_of(pid) in ("child", "template", "spare")]
        numbers["all", "orphans"] = len(others)
        for metric, number in parties.look_at_folders(map(self._path, _FOLDERS)).items():
            numbers["all", metric] = number
        return numbers

    def stop(self):
        """Ends the parties, then the daemon, as they should end. What is left behind, in words."""
        left = []
        for party in self.parties:
            party.counts["stop"] = 1
        for started in [*self.parties, *(each for each in self._started if each not in self.parties)]:
            if started not in self.parties:
                started.process.send_signal(signal.SIGTERM)
            status = started.wait(_LATEST_END)
            if status is None and started in self.parties:
                started.process.send_signal(signal.SIGUSR1)  # it says where it is
                status = started.wait(_LATEST_END_OF_PARTY)
            if status is None:
                left.append(f"the {started.name}, which does not end")
            elif status:
                left.append(f"the {started.name}'s status {status}")
        left += self._end_orphans()
        for name in _FOLDERS:
            left += [os.path.join(name, entry) for entry in os.listdir(self._path(name)) if entry != _LOCK]
        return left

    def _end_orphans(self):
        """Waits for those that end by themselves; the others are killed and named."""
        deadline, left = time.monotonic() + _LATEST_END, []
        while True:
            self._reap_orphans()
            orphans = self._orphans()
            if not orphans:
                return left
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        for pid in orphans:
            left.append(f"process {pid}, a {parties.kind_of(pid)}")
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        return left
