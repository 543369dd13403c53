"""What a party of the soak does: it spawns without end, in every way there is, and looks at each result.

    load.py owner|client FOLDER

FOLDER/PARTY has modules/, the directory of its modules that change; counts, which the soak reads (see Counts); and at
the end report: why children were cold, by reason with the latest sentence, and how many seconds the slowest turn of
each action took, as JSON.
"""

import asyncio
import collections
import faulthandler
import json
import mmap
import os
import random
import signal
import subprocess
import sys
import threading
import time

import warmfork
import warmfork.aio

# What one party does, and how often of a thousand turns. Those that make a new image are the rare ones: each of
# them costs as much as some dozen spawns.
_BOTH = {
    "spare": 400,
    "on command": 150,
    "output": 100,
    "cold": 30,
    "killed": 60,
    "failed": 30,
    "at once": 10,
    "large": 10,
    "abandoned": 10,
    "detached": 10,
    "from a thread": 10,
    "asyncio": 10,
    "variant": 5,
    "changed file": 5,
    "opened anew": 2,
}
ACTIONS = {
    "owner": {**_BOTH, "process": 60, "pool": 5, "killed template": 2},
    "client": {**_BOTH, "command": 30, "killed command": 5, "changed base": 2, "reloaded": 2},
}

PYTHON = sys.executable
PRELOAD = ["csv", "decimal"]
AT_ONCE = 8
_WAITING = "import sys; print('up', flush=True); sys.stdin.read()"
_SHOWING = "import own; print(own.VALUE, own.SETTING)"
_OWN = "import os\nVALUE = {}\nSETTING = os.environ.get('SETTING')\n"
_MOST_SHOWN = 20
# Seconds of one turn that are worth a word: the library waits so long only for what does not come.
_SLOW = 5


class Counts:
    """Numbers in a file that both sides have mapped: of each action the spawns, then of a party what was warm, cold
    and wrong, and whether it is to stop."""

    OF_PARTY = ("warm", "cold", "wrong", "stop")

    def __init__(self, path, party):
        self._names = [*ACTIONS[party], *self.OF_PARTY]
        with open(path, "a+b") as file:
            file.truncate(8 * len(self._names))
            self._numbers = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")

    def __getitem__(self, name):
        return self._numbers[self._names.index(name)]

    def __setitem__(self, name, number):
        self._numbers[self._names.index(name)] = number

    def spawns(self):
        return sum(self._numbers[:-len(self.OF_PARTY)])


def write_module(folder, name, text, by_rename=True):
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"{name}.py")
    with open(path + ".new" if by_rename else path, "w") as file:
        file.write(text)
    if by_rename:
        os.rename(path + ".new", path)


class Party:
    """The actions that both have: methods named as the action, which return how many they have spawned.

    Templates: steady and commanded, which has no spares, live as long as the party, so that what grows in a template is
    seen; own is the one whose module changes, that has variants, is closed and opened, and so on.
    """

    name = None

    def __init__(self, folder):
        self.folder = os.path.join(folder, self.name)
        self.modules = os.path.join(self.folder, "modules")
        self.counts = Counts(os.path.join(self.folder, "counts"), self.name)
        self.reasons, self.sentences, self.slowest = collections.Counter(), {}, {}
        self.random = random.Random(self.name)
        self.version = 1
        write_module(self.modules, "own", _OWN.format(self.version))
        self.steady, self.commanded, self.own = self.open("steady"), self.open("commanded"), self.open("own")

    def open(self, name):
        """A template of its own, or the service's."""
        raise NotImplementedError

    def close(self):
        for template in (self.steady, self.commanded, self.own):
            template.close()

    def run(self):
        weights = ACTIONS[self.name]
        while not self.counts["stop"]:
            action, = self.random.choices(list(weights), weights.values())
            began = time.monotonic()
            self.counts[action] += getattr(self, action.replace(" ", "_"))()
            seconds = time.monotonic() - began
            self.slowest[action] = max(self.slowest.get(action, 0), seconds)
            if seconds > _SLOW:
                print(f"soak: {self.name}: {action} took {seconds:.1f} s", file=sys.stderr, flush=True)
        self.close()
        with open(os.path.join(self.folder, "report"), "w") as file:
            json.dump({"reasons": self.reasons, "sentences": self.sentences, "slowest": self.slowest}, file)

    def expect(self, what, seen, expected):
        if seen == expected:
            return
        self.counts["wrong"] += 1
        if self.counts["wrong"] <= _MOST_SHOWN:
            print(f"soak: {self.name}: {what}: {seen!r} and not {expected!r}", file=sys.stderr, flush=True)

    def served(self, process):
        self.counts[process.backend] += 1
        # A process of multiprocessing has only a sentence.
        reason = getattr(process, "reason_code", process.reason and "other")
        if process.backend == "cold":
            self.reasons[reason] += 1
            self.sentences[reason] = process.reason

    def _pass(self, template, **options):
        with template.popen([PYTHON, "-c", "pass"], stdin=subprocess.DEVNULL, **options) as process:
            self.served(process)
            self.expect("a status", process.wait(), 0)
        return 1

    def _show(self, template, **options):
        """What a child sees of the module that changes."""
        process = template.popen([PYTHON, "-c", _SHOWING], stdout=subprocess.PIPE, text=True, cwd=self.modules,
                                 **options)
        self.served(process)
        return process.communicate()[0].split()

    def spare(self):
        return self._pass(self.steady)

    def on_command(self):
        return self._pass(self.commanded)

    def output(self):
        self.expect("output", self._show(self.own), [str(self.version), "None"])
        return 1

    def cold(self):
        return self._pass(self.steady, backend="cold")

    def killed(self):
        number = self.random.choice((signal.SIGTERM, signal.SIGKILL, signal.SIGABRT))
        template = self.random.choice((self.steady, self.commanded, self.own))
        with template.popen([PYTHON, "-c", _WAITING], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            self.served(process)
            if self.random.random() < 0.5:
                process.stdout.readline()
            process.send_signal(number)
            self.expect("the status of a killed child", process.wait(), -number)
        return 1

    def failed(self):
        """Without a child: of the program that is not there only a cold start can tell."""
        command, options = self.random.choice((
            (["/nowhere/program"], {}), ([PYTHON, "-c", "pass"], {"cwd": "/nowhere"}),
        ))
        try:
            self.steady.popen(command, **options)
            self.expect("a failing spawn", "a child", FileNotFoundError)
        except FileNotFoundError:
            pass
        return 1

    def at_once(self):
        processes = [self.steady.popen([PYTHON, "-c", "pass"]) for _ in range(AT_ONCE)]
        for process in processes:
            self.served(process)
            self.expect("a status of many", process.wait(), 0)
        return AT_ONCE

    def large(self):
        """A request that does not fit where requests usually travel, and more input than a pipe holds."""
        variables = {f"LARGE_{number}": "x" * 100_000 for number in range(3)}
        done = self.steady.run(
            [PYTHON, "-c", "import os, sys; print(len(os.environ['LARGE_2']), len(sys.stdin.read()))"],
            input="y" * 300_000, capture_output=True, text=True, env={**os.environ, **variables},
        )
        self.expect("a large request", done.stdout.split(), ["100000", "300000"])
        return 1

    def abandoned(self):
        """Reaped by a later spawn, as subprocess does it."""
        self.steady.popen([PYTHON, "-c", "pass"])
        return 1

    def detached(self):
        return self._pass(self.steady, lifetime="detached")

    def from_a_thread(self):
        thread = threading.Thread(target=self._pass, args=(self.steady,))
        thread.start()
        thread.join()
        return 1

    def asyncio(self):
        async def spawn():
            process = await warmfork.aio.create_subprocess_exec(PYTHON, "-c", "pass", template=self.steady)
            return await process.wait()

        self.expect("a status in asyncio", asyncio.run(spawn()), 0)
        return 1

    def variant(self):
        """Of three values, where there is room for two images: one has to go for the next."""
        setting = self.random.choice("abc")
        seen = self._show(self.own, env={**os.environ, "SETTING": setting}, backend="warm")
        self.expect("a variant", seen, [str(self.version), setting])
        return 1

    def changed_file(self):
        self.version += 1
        write_module(self.modules, "own", _OWN.format(self.version), by_rename=self.random.random() < 0.5)
        self.expect("a changed file", self._show(self.own), [str(self.version), "None"])
        return 1

    def opened_anew(self):
        self.own.close()
        self.own = self.open("own")
        return self._pass(self.own)


class Owner(Party):
    """Has its templates to itself."""

    name = "owner"

    def __init__(self, folder):
        super().__init__(folder)
        # Not opened anew: multiprocessing looks after the processes of one for as long as the program runs.
        self.context = warmfork.get_context(preload=["csv"])

    def open(self, name):
        if name == "steady":
            return warmfork.Template(PRELOAD)
        if name == "commanded":
            return warmfork.Template(PRELOAD, spares=0)
        sys.path.insert(0, self.modules)
        try:
            return warmfork.Template([*PRELOAD, "own"], variants=2)
        finally:
            sys.path.remove(self.modules)

    def process(self):
        process = self.context.Process(target=abs, args=(-1,))
        process.start()
        self.served(process)
        process.join()
        self.expect("a process's status", process.exitcode, 0)
        process.close()
        return 1

    def pool(self):
        with self.context.Pool(2) as pool:
            self.expect("a pool's work", pool.map(abs, range(-3, 0)), [3, 2, 1])
            pool.close()
            pool.join()
        return 2

    def killed_template(self):
        # One that is killed in its very first start has failed to start, which is told as an error.
        self.own.wait_ready()
        if pid := self.own.pid:  # 0: the one that was killed before is only now seen to be gone
            os.kill(pid, signal.SIGKILL)
        return self._pass(self.own)


class Client(Party):
    """Has those of the service, and a layer on top of own."""

    name = "client"

    def __init__(self, folder):
        super().__init__(folder)
        self.layer = self.open("layer")

    def open(self, name):
        return warmfork.Template(name)

    def close(self):
        super().close()
        self.layer.close()

    def command(self):
        """A client that comes and goes."""
        command = [os.environ["WARMFORK_CLI"], "run", "-t", "steady", "--", PYTHON, "-c", "raise SystemExit(7)"]
        self.expect("a command's status", subprocess.run(command, stdin=subprocess.DEVNULL).returncode, 7)
        return 1

    def killed_command(self):
        """Its child ends with it: the other end of its output is closed."""
        command = [os.environ["WARMFORK_CLI"], "run", "-t", "steady", "--", PYTHON, "-c", _WAITING]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            self.expect("a command's output", process.stdout.readline(), b"up\n")
            process.kill()
            self.expect("the end of a killed command's child", process.stdout.read(), b"")
        return 1

    def changed_base(self):
        """The layer is to be made anew with it, at once or, as often as it changes here, later."""
        self.changed_file()
        self.expect("a changed base", self._show(self.layer), [str(self.version), "None"])
        return 2 + self._pass(self.layer)

    def reloaded(self):
        name = self.random.choice(("own", "layer"))
        command = [os.environ["WARMFORK_CLI"], "template", "reload", name]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
        self.expect("a reload", (done.returncode, done.stderr), (0, b""))
        return self._pass(self.own)


def main():
    # What it hangs in, should it: the soak asks for it.
    faulthandler.register(signal.SIGUSR1)
    party = {"owner": Owner, "client": Client}[sys.argv[1]](sys.argv[2])
    party.run()


if __name__ == "__main__":
    main()
