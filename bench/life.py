"""`warmfork bench life`: what the whole life of a child costs all processes together, one after the other."""

import argparse
import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
from importlib.util import find_spec

from . import common
from .lives import AT_ONCE, IDLE

ROWS = (
    ("os-fork", "limit: bare os.fork() of the same image, and _exit"),
    ("cold-pass", "python3 -c pass"),
    ("cold-imports", "the same with the imports"),
    ("first", "a new template, its first child, and the end of both"),
    ("warm-pass", "template: pass"),
    ("warm-numpy", "a use of numpy"),
    ("warm-file", "an open file is left"),
    ("warm-generator", "a suspended generator is left"),
    ("warm-finalizer", "an object with __del__ is left"),
    ("warm-hung", "an open file is left on a preloaded module"),
    ("warm-thread", "a thread has ended"),
    ("mp-forkserver", "multiprocessing forkserver, same preload"),
    ("mp-fork", "multiprocessing fork of a process with the imports"),
    ("mp-warmfork", "multiprocessing, the method warmfork"),
    ("native", "a native template, of some KB"),
    ("cold-at-once", f"{AT_ONCE} of python3 -c pass at once"),
    ("warm-at-once", f"{AT_ONCE} of the template's at once"),
    ("idle-cold", f"wall: {IDLE} that wait in trio told to end, all together"),
    ("idle-warm", "the same of the template's"),
)

# How many times fewer spawns of it there are.
_SLOWNESS = {
    "cold-imports": 10, "first": 10, "cold-at-once": AT_ONCE, "warm-at-once": AT_ONCE, "idle-cold": 20, "idle-warm": 20,
}
_AT_ONCE_ROWS = ("cold-at-once", "warm-at-once")
_ROWS_WITH_MEMORY = ("os-fork", "cold-pass", "cold-imports")

PR_SET_CHILD_SUBREAPER = 36


def run_all(command):
    """Runs it, and reaps whatever it leaves behind. Its output, processor time in seconds, and page faults, of
    all processes together."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, stdout=subprocess.PIPE)
    if done.returncode:
        raise SystemExit(f"warmfork bench: {' '.join(command)} ended with status {done.returncode}")
    try:
        while True:
            os.wait()
    except ChildProcessError:
        pass
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, seconds, after.ru_minflt + after.ru_majflt - before.ru_minflt - before.ru_majflt


def command_for(row, what, preload):
    if row == "native":
        return [os.path.join(os.path.dirname(__file__), "native"), what]
    # Not as a module: multiprocessing would import it as __main__ in each child.
    return [sys.executable, "-c", "from warmfork.bench.lives import main; main()", row, what, ",".join(preload)]


def measure(row, count, preload):
    """(page faults, processor µs, wall µs) a spawn: the difference of a long run and a short one, in which start
    and end of the template, its imports and the spares that nobody used cancel out."""
    short = max(1, 10 // _SLOWNESS.get(row, 1))
    more = max(1, count // _SLOWNESS.get(row, 1))
    figures = []
    for spawns in (short, short + more):
        output, seconds, faults = run_all(command_for(row, str(spawns), preload))
        figures.append((faults, seconds * 1e6, float(output) * 1e6))
    children = more * (AT_ONCE if row in _AT_ONCE_ROWS else 1)
    return [(long - short) / children for short, long in zip(*figures)]


def run(preload, count, rounds):
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    needs = {"warm-numpy": "numpy" in preload}
    needs.update(dict.fromkeys(("idle-cold", "idle-warm"), find_spec("trio") is not None))
    names = [row for row, _ in ROWS if needs.get(row, True)]
    measured = {row: [] for row in names}
    progress = common.Progress("lives", rounds * len(names))
    for _ in range(rounds):
        for row in names:
            measured[row].append(measure(row, count, preload))
            progress.step()
    progress.close()
    rows = {}
    for row, samples in measured.items():
        faults, processor, wall = zip(*samples)
        rows[row] = {
            "page_faults": round(statistics.median(faults)),
            "cpu_us": round(statistics.median(processor)),
            "wall_us": {"p50": round(statistics.median(wall)), "samples": [round(value, 1) for value in wall]},
        }
        if row in _ROWS_WITH_MEMORY or row.startswith("warm") and row not in _AT_ONCE_ROWS:
            rows[row].update(json.loads(run_all(command_for(row, "memory", preload))[0]))
    return rows


def ratios(rows):
    """The figures that the project promises, as ratios within this run."""

    def ratio(what, row, other):
        values = [rows[name][what] for name in (row, other)]
        if what == "wall_us":
            values = [value["p50"] for value in values]
        return values[0] / values[1] if values[1] else float("nan")

    return [
        ("page faults, warm-pass / os-fork", ratio("page_faults", "warm-pass", "os-fork"), "2.5"),
        ("page faults, warm-file / os-fork", ratio("page_faults", "warm-file", "os-fork"), "3.5"),
        ("CPU, warm-pass / os-fork", ratio("cpu_us", "warm-pass", "os-fork"), "2.2"),
        ("CPU, warm-pass / cold-pass", ratio("cpu_us", "warm-pass", "cold-pass"), "0.8"),
        ("wall, warm-pass / cold-pass", ratio("wall_us", "warm-pass", "cold-pass"), "0.5"),
        ("wall, first / cold-imports", ratio("wall_us", "first", "cold-imports"), "1.1"),
        ("CPU, mp-warmfork / mp-forkserver", ratio("cpu_us", "mp-warmfork", "mp-forkserver"), "0.6"),
        ("wall, mp-warmfork / mp-forkserver", ratio("wall_us", "mp-warmfork", "mp-forkserver"), "0.4"),
    ] + ([("wall, idle-warm / idle-cold", ratio("wall_us", "idle-warm", "idle-cold"), "1")] if "idle-warm" in rows else [])


def print_report(result):
    def cell(value):
        return "-" if value is None else f"{value:,.0f}"

    explanations = dict(ROWS)
    table = [
        [row] + [cell(values[name]) for name in ("page_faults", "cpu_us")] + [cell(values["wall_us"]["p50"])]
        + [cell(values.get(name)) for name in ("spare_kb", "end_kb")] + [f"{explanations[row]:<48}"]
        for row, values in result["rows"].items()
    ]
    machine = result["machine"]
    notes = ["", "a spawn, all processes of both sides together: page faults, microseconds of the processors, and of the",
             "clock from the call until it is reaped, one after the other without a pause; private dirty memory of a",
             "parked spare, and of a child at its end, in KB", ""]
    for name, ratio, text in ratios(result["rows"]):
        notes.append(f"{name}: {ratio:.3f} (wanted: at most {text})")
    notes.append(f"{machine['processors']} × {machine['processor']}, Linux {machine['kernel']}, "
                 f"Python {machine['python']}; preload: {','.join(result['preload'])}")
    common.print_table(["row", "faults", "CPU", "wall", "spare KB", "end KB", "what it is"], table, notes)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="warmfork bench life", description=__doc__)
    parser.add_argument("--preload", default=common.DEFAULT_PRELOAD, metavar="M,...",
                        help="modules to preload (default: numpy and a dozen of the standard library)")
    parser.add_argument("--count", type=int, default=100, help="spawns of each kind in a round (default: 100)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the medians count (default: 3)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    if options.count < 1 or options.rounds < 1:
        parser.error("--count and --rounds must be at least 1")
    preload = [name for name in options.preload.split(",") if name]
    result = {
        "rows": run(preload, options.count, options.rounds),
        "preload": preload,
        "machine": common.machine(),
    }
    if options.json:
        json.dump(result, sys.stdout, indent=1)
        print()
    else:
        print_report(result)


if __name__ == "__main__":
    main()
