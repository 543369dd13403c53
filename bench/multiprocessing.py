"""`warmfork bench multiprocessing`: processes, pools and memory of the method "warmfork" against forkserver's."""

import argparse
import json
import multiprocessing
import os
import sys

import warmfork.multiprocessing

from . import common
from .common import now

# How many times a pool is made, and idle children are looked at, for so many processes.
_PROCESSES_PER_POOL = 10


def report(write_end):
    """The target of a process, and what each process of a pool begins with."""
    os.write(write_end.fileno(), b"%d\n" % now())


def report_and_wait(write_end, read_end):
    report(write_end)
    os.read(read_end.fileno(), 1)


class Method:
    """One start method, with its children's first lines coming in over a pipe."""

    def __init__(self, context, make_ready):
        self.context = context
        self.make_ready = make_ready  # waits for so many parked children
        self.read_end, self.write_end = context.Pipe(duplex=False)
        self.times = {"started_us": [], "returned_us": [], "reaped_us": [], "pool_ready_us": []}
        self.memory = []

    def reports(self, count):
        lines = []
        while len(lines) < count:
            lines += os.read(self.read_end.fileno(), 4096).split()
        return [int(line) for line in lines]

    def start_process(self):
        self.make_ready(1)
        called = now()
        process = self.context.Process(target=report, args=(self.write_end,))
        process.start()
        returned = now()
        (started,) = self.reports(1)
        process.join()
        for name, time in (("started_us", started), ("returned_us", returned), ("reaped_us", now())):
            self.times[name].append(time - called)
        process.close()

    def make_pool(self, width):
        """Until the last of its processes runs the initializer's first line."""
        self.make_ready(width)
        called = now()
        with self.context.Pool(width, report, (self.write_end,)) as pool:
            self.times["pool_ready_us"].append(max(self.reports(width)) - called)
            pool.close()
            pool.join()

    def look_at_memory(self, width):
        self.make_ready(width)
        gate, opener = self.context.Pipe(duplex=False)
        processes = [self.context.Process(target=report_and_wait, args=(self.write_end, gate))
                     for _ in range(width)]
        for process in processes:
            process.start()
        self.reports(width)
        self.memory += [proportional_kilobytes(process.pid) for process in processes]
        os.write(opener.fileno(), b"x" * width)
        for process in processes:
            process.join()
            process.close()
        gate.close(), opener.close()

    def summary(self):
        return {
            **{name: common.summary(values) for name, values in self.times.items()},
            "idle_pss_kb": common.percentile(sorted(self.memory), 0.5),
            "count": len(self.times["started_us"]),
        }


def proportional_kilobytes(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:"))


def run(preload, count, width):
    preload = [*preload, "warmfork.bench.multiprocessing"]
    forkserver = multiprocessing.get_context("forkserver")
    forkserver.set_forkserver_preload(preload)
    warm = warmfork.multiprocessing.WarmforkContext(preload, spares=width, backend="warm")
    warm.template.wait_ready()

    def park(children):
        warm.template.wait_parked(children, timeout=60)
        common.wait_for_spare(None)

    methods = {"warmfork": Method(warm, park), "forkserver": Method(forkserver, park)}
    try:
        for method in methods.values():
            method.start_process()  # once for whatever happens at a first time
            method.make_pool(width)
            for times in method.times.values():
                times.clear()
        progress = common.Progress("processes", count)
        for turn in range(count):
            for method in methods.values():
                method.start_process()
                if turn % _PROCESSES_PER_POOL == 0:
                    method.make_pool(width)
                    method.look_at_memory(width)
            progress.step()
        progress.close()
    finally:
        warm.template.close()
    return {name: method.summary() for name, method in methods.items()}


def ratios(rows):
    """The figures that the project promises, as ratios of medians within this run."""
    warm, other = rows["warmfork"], rows["forkserver"]
    return [
        ("start() to the first line, warmfork / forkserver",
         warm["started_us"]["p50"] / other["started_us"]["p50"], "1/15"),
        ("pool ready, warmfork / forkserver",
         warm["pool_ready_us"]["p50"] / other["pool_ready_us"]["p50"], "1/10"),
        ("PSS of an idle child, warmfork / forkserver", warm["idle_pss_kb"] / other["idle_pss_kb"], "1"),
    ]


def print_report(result):
    table = []
    for row, values in result["rows"].items():
        table.append([row]
                     + [f"{values['started_us'][name]:,.0f}" for name in ("p50", "p90", "p99")]
                     + [f"{values[name]['p50']:,.0f}" for name in ("returned_us", "reaped_us", "pool_ready_us")]
                     + [f"{values['idle_pss_kb']:,}"])
    machine = result["machine"]
    notes = ["", "microseconds since the call: until the target's first line (p50, p90, p99), until start() has",
             f"returned, until it is joined, until all {result['width']} processes of a pool are there (p50); and the",
             "proportional memory of an idle child in KB", ""]
    for name, ratio, text in ratios(result["rows"]):
        notes.append(f"{name}: {ratio:.3f} (wanted: at most {text})")
    notes.append(f"{machine['processors']} × {machine['processor']}, Linux {machine['kernel']}, "
                 f"Python {machine['python']}; preload: {','.join(result['preload'])}")
    common.print_table(["row", "started p50", "p90", "p99", "returned", "joined", "pool ready", "idle PSS"],
                       table, notes)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="warmfork bench multiprocessing", description=__doc__)
    parser.add_argument("--preload", default=common.DEFAULT_PRELOAD, metavar="M,...",
                        help="modules to preload (default: numpy and a dozen of the standard library)")
    parser.add_argument("--count", type=int, default=100, help="processes of each method (default: 100)")
    parser.add_argument("--width", type=int, default=8, help="processes of a pool (default: 8)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    if options.count < 1 or options.width < 1:
        parser.error("--count and --width must be at least 1")
    preload = [name for name in options.preload.split(",") if name]
    result = {
        "rows": run(preload, options.count, options.width),
        "width": options.width,
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
