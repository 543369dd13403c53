"""`warmfork bench commands`: whole commands through a service of this benchmark's own, beside the plain command."""

import argparse
import ctypes
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from . import common
from .common import now
from .life import PR_SET_CHILD_SUBREAPER
from .service import NAME, Service
from .tools import TOOLS

# What a template learns from before it is measured.
_LEARNED_FROM = 3
# What no part of the measurement may wait for longer, in seconds.
_PATIENCE = 300
# How often it is looked whether a service is idle, at the most, and with how many seconds in between.
_MOST_LOOKS, _BETWEEN_LOOKS = 50, 0.1


class Unsuitable(Exception):
    """A tool that cannot be measured here; the reason is the text."""


class Workplace:
    """The directory that a tool is run in, always the same one: each run finds what there was before the first."""

    def __init__(self, tool, folder):
        path = f"{os.path.dirname(sys.executable)}:/usr/bin:/bin"  # the interpreter's own come first
        program = next(filter(None, (shutil.which(name, path=path) for name in tool.names)), None)
        if program is None:
            raise Unsuitable(f"is not installed (Debian's package {tool.package or tool.row})")
        self.command = [program, *tool.arguments]
        self.directory = os.path.join(folder, "work")
        home = os.path.join(folder, "home")  # stays, with caches: a template depends on what lies there
        os.mkdir(home)
        self._original = os.path.join(folder, "original")
        # Nothing of the user's, nor of what earlier runs have kept elsewhere.
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "XDG_"))},
            "PATH": path, "HOME": home, "XDG_STATE_HOME": os.path.join(folder, "state"), "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8", "TERM": "dumb",
        }
        os.mkdir(self._original)
        for name, text in tool.files.items():
            with open(os.path.join(self._original, name), "w") as file:
                file.write(text)
        for command in tool.setup:
            subprocess.run(command, cwd=self._original, env=self.environment, check=True, timeout=_PATIENCE,
                           stdout=subprocess.DEVNULL)

    def lay_out(self):
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.copytree(self._original, self.directory, symlinks=True)

    def run(self, command, environment=None):
        """(wall in ns, status, output, error output) in a directory laid out anew."""
        self.lay_out()
        began = now()
        done = subprocess.run(command, cwd=self.directory, env=environment or self.environment, timeout=_PATIENCE,
                              stdin=subprocess.DEVNULL, capture_output=True)
        return now() - began, done.returncode, done.stdout, done.stderr

    def files(self):
        """What the last run has left, by path."""
        left = {}
        for directory, _, names in os.walk(self.directory):
            for name in names:
                path = os.path.join(directory, name)
                if os.path.isfile(path) and not os.path.islink(path):
                    with open(path, "rb") as file:
                        left[os.path.relpath(path, self.directory)] = file.read()
                else:
                    left[os.path.relpath(path, self.directory)] = None
        return left


def differences(cold, other_cold, warm):
    """What two cold runs agree in and the warm one does not: words. Each: (status, output, error output, files)."""
    found = []
    if cold[0] == other_cold[0] != warm[0]:
        found.append(f"status {warm[0]} instead of {cold[0]}")
    for name, *texts in zip(("output", "error output"), cold[1:3], other_cold[1:3], warm[1:3]):
        lines = [text.split(b"\n") for text in texts]
        is_alike = len(lines[0]) == len(lines[1])  # of dates and durations
        if is_alike and (len(lines[2]) != len(lines[0])
                         or any(one == other != last for one, other, last in zip(*lines))):
            found.append(name)
    files, other_files, warm_files = cold[3], other_cold[3], warm[3]
    if files.keys() == other_files.keys():
        found += [f"file {path}" for path in files.keys() ^ warm_files.keys()]
    for path in files.keys() & other_files.keys() & warm_files.keys():
        if files[path] == other_files[path] != warm_files[path]:
            found.append(f"file {path}")
    return found


def usage_of_children():
    """Processor seconds and page faults of those that have been reaped."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime, usage.ru_minflt + usage.ru_majflt


def usage_of_descendants():
    """The same with those that live, and what they have reaped."""
    seconds, faults = usage_of_children()
    todo = children_of(os.getpid())
    while todo:
        pid = todo.pop()
        try:
            todo += children_of(pid)
            with open(f"/proc/{pid}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended just now: the next look has it
        faults += sum(map(int, fields[7:11]))
        seconds += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return seconds, faults


def children_of(pid):
    found = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/children") as file:
            found += map(int, file.read().split())
    return found


def settled_usage():
    """When nothing is done any more for the last command, nor for the next one; after a while in any case."""
    usage = usage_of_descendants()
    for _ in range(_MOST_LOOKS):
        time.sleep(_BETWEEN_LOOKS)
        earlier, usage = usage, usage_of_descendants()
        if usage == earlier:
            break
    return usage


def less(usage, other):
    return [more - of_other for more, of_other in zip(usage, other)]


class Measurement:
    """Of one tool, with a template that has learned from it."""

    def __init__(self, workplace, tool, cli):
        self._place, self._tool = workplace, tool
        self._warm = [cli, "run", "-t", NAME, "--backend", "warm", "--", *workplace.command]

    def _serve(self, body):
        """body(run_warm), beside a service."""
        definition = {"learn": True, "preload": self._tool.preload, "allow": self._tool.allow}
        service = Service(definition, self._place.environment)
        environment = {**self._place.environment, "WARMFORK_SOCKET": service.address}
        try:
            return body(lambda: self._place.run(self._warm, environment))
        finally:
            service.close()

    def learn(self):
        def body(run_warm):
            for _ in range(_LEARNED_FROM):
                _, status, _, error = run_warm()
                if status == 125 and error.startswith(b"warmfork: "):
                    raise Unsuitable(error.decode(errors="replace").strip().partition(": ")[2])

        self._serve(body)

    def check(self):
        def body(run_warm):
            return [(*run()[1:], self._place.files()) for run in (self.run_cold, self.run_cold, run_warm)]

        return differences(*self._serve(body))

    def run_cold(self):
        return self._place.run(self._place.command)

    def measure(self, count, step):
        """The row: medians of wall; processor time and page faults a command, of all processes. What the service's
        do in the meantime is the warm commands'."""
        walls, cold = {"cold": [], "warm": []}, [0, 0]

        def body(run_warm):
            run_warm()
            before = settled_usage()
            for turn in range(count):
                kinds = ["cold", "warm"]
                random.Random(turn).shuffle(kinds)
                for kind in kinds:
                    common.wait_for_spare(None)
                    before_it = usage_of_children()
                    walls[kind].append((run_warm if kind == "warm" else self.run_cold)()[0])
                    if kind == "cold":
                        cold[:] = [sum(pair) for pair in zip(cold, less(usage_of_children(), before_it))]
                step()
            return less(settled_usage(), before)

        warm = less(self._serve(body), cold)
        return {
            kind: {"wall_us": round(statistics.median(walls[kind]) / 1000), "cpu_us": round(seconds * 1e6 / count),
                   "page_faults": round(faults / count)}
            for kind, (seconds, faults) in (("cold", cold), ("warm", warm))
        }


def measure_tool(tool, cli, count, step):
    with tempfile.TemporaryDirectory(prefix="warmfork-bench-") as folder:
        measurement = Measurement(Workplace(tool, os.path.realpath(folder)), tool, cli)
        measurement.learn()
        different = measurement.check()
        return {**measurement.measure(count, step), "differences": different}


def run(tools, cli, count):
    """(rows, {name: why there is none})"""
    # What a service has started is this process's when the service has ended.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    rows, skipped = {}, {}
    progress = common.Progress("commands", len(tools) * count)
    for tool in tools:
        try:
            rows[tool.row] = measure_tool(tool, cli, count, progress.step)
        except Unsuitable as reason:
            skipped[tool.row] = str(reason)
    progress.close()
    return rows, skipped


def ratio(row, what):
    return row["warm"][what] / row["cold"][what]


def print_report(result):
    rows, machine = result["rows"], result["machine"]
    table = [
        [name] + [f"{row[kind][what] / scale:,.0f}" if kind else f"{ratio(row, what):.2f}"
                  for what, scale in (("wall_us", 1000), ("cpu_us", 1000), ("page_faults", 1))
                  for kind in ("cold", "warm", None)]
        + [f"{'no: ' + ', '.join(row['differences']) if row['differences'] else 'yes':<9}"]
        for name, row in rows.items()
    ]
    notes = [f"{name}: {reason}" for name, reason in result["skipped"].items()]
    notes += ["", "milliseconds from start to end, and of the processors of all processes; page faults; cold, warm, and",
              "their ratio; whether bytes, status and files are those of a cold run"]
    for what, text, wanted in (("wall_us", "wall", "1/3"), ("cpu_us", "CPU", "1/2")):
        ratios = [ratio(row, what) for row in rows.values()]
        if ratios:
            notes.append(f"{text}, warm / cold, median: {statistics.median(ratios):.2f} (wanted: at most {wanted}); "
                         f"the highest: {max(ratios):.2f}")
    notes.append(f"{machine['processors']} × {machine['processor']}, Linux {machine['kernel']}, "
                 f"Python {machine['python']}")
    columns = ["command", "wall", "warm", "ratio", "CPU", "warm", "ratio", "faults", "warm", "ratio", f"{'identical':<9}"]
    common.print_table(columns, table, notes)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="warmfork bench commands", description=__doc__)
    parser.add_argument("--only", metavar="TOOL,...", help=f"of {', '.join(tool.row for tool in TOOLS)}")
    parser.add_argument("--count", type=int, default=10, help="runs of each kind (default: 10)")
    options = common.parse_for_commands(parser, arguments)
    names = options.only.split(",") if options.only else [tool.row for tool in TOOLS]
    if unknown := set(names) - {tool.row for tool in TOOLS}:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    rows, skipped = run([tool for tool in TOOLS if tool.row in names], os.path.abspath(options.cli), options.count)
    result = {"rows": rows, "skipped": skipped, "machine": common.machine()}
    if options.json:
        json.dump(result, sys.stdout, indent=1)
        print()
    else:
        print_report(result)
