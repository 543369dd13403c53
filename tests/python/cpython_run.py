"""Runs test modules of CPython's own suite with every interpreter that they start spawned through warmfork.

usage: cpython_run.py cold|warm TIMES MODULE...

Prints JSON: of each run, the outcome of each test, and how the interpreters were served.
"""

import collections
import collections.abc
import io
import json
import subprocess
import sys
import unittest

import warmfork

PRELOAD = ["json", "argparse", "logging"]


class Served:
    """Stands in for subprocess.Popen while the tests run."""

    template = None
    counts = collections.Counter()

    class Popen(warmfork.Popen):
        def __init__(self, args, *positional, **keywords):
            if isinstance(args, collections.abc.Iterable) and not isinstance(args, (str, bytes)):
                args = list(args)
            super().__init__(args, *positional, template=Served.template, **keywords)
            if isinstance(self.args, list) and self.args[:1] == [sys.executable]:
                Served.counts[self.backend] += 1
                if self.backend == "cold":
                    Served.counts[self.reason] += 1


class Outcomes(unittest.TestResult):
    """The worst of each test, its subtests included."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def startTest(self, test):
        super().startTest(test)
        self.seen.setdefault(test.id(), ["passed", ""])

    def addError(self, test, error):
        self.seen[test.id()] = ["failed", self._exc_info_to_string(error, test)]

    addFailure = addError

    def addSubTest(self, test, subtest, error):
        if error is not None:
            self.addError(test, error)

    def addSkip(self, test, reason):
        self.seen[test.id()] = ["skipped", reason]


def run(modules):
    Served.counts.clear()
    outcomes = Outcomes()
    for module in modules:
        unittest.defaultTestLoader.loadTestsFromName(f"test.{module}").run(outcomes)
    return {"tests": outcomes.seen, "interpreters": dict(Served.counts)}


def main():
    backend, times, modules = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    runs = []
    output = sys.stdout
    sys.stdout = sys.stderr = io.TextIOWrapper(open("/dev/null", "wb"))
    if backend == "warm":
        # What it starts is to be the only child of its kind that tests can find.
        Served.template = warmfork.Template(PRELOAD, variants=80, spares=0)
        Served.template.wait_ready()
        subprocess.Popen = Served.Popen
    for _ in range(times):
        runs.append(run(modules))
    json.dump(runs, output)
    if Served.template:
        Served.template.close()


if __name__ == "__main__":
    main()
