"""`warmfork bench concurrent`: many children at once, and how long until the last has run its first line."""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import subprocess
import sys

import warmfork

from . import common
from .common import now


def report(write_end):
    os.write(write_end.fileno(), b"x")


def by_popen(template, backend, program):
    def spawn():
        process = warmfork.Popen(
            [sys.executable, "-c", program], template=template, backend=backend,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )
        process.communicate()

    return spawn


def by_forkserver(context):
    def spawn():
        read_end, write_end = context.Pipe(duplex=False)
        process = context.Process(target=report, args=(write_end,))
        process.start()
        write_end.close()
        os.read(read_end.fileno(), 1)
        process.join()
        read_end.close()

    return spawn


def measure(spawn, width):
    """`width` threads spawn one child each, at once; nanoseconds until all have ended."""
    with concurrent.futures.ThreadPoolExecutor(width) as pool:
        began = now()
        for done in [pool.submit(spawn) for _ in range(width)]:
            done.result()
        return now() - began


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="warmfork bench concurrent", description=__doc__)
    parser.add_argument("--preload", default=common.DEFAULT_PRELOAD, metavar="M,...")
    parser.add_argument("--count", type=int, default=20, help="rounds (default: 20)")
    parser.add_argument("--width", type=int, default=8, help="children at once (default: 8)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    if options.count < 1 or options.width < 1:
        parser.error("--count and --width must be at least 1")
    preload = [name for name in options.preload.split(",") if name]
    forkserver = multiprocessing.get_context("forkserver")
    forkserver.set_forkserver_preload([*preload, "warmfork.bench.concurrent"])
    times = {"cold": [], "warm": [], "warm-spare": [], "mp-forkserver": []}
    with warmfork.Template(preload, spares=0, backend="warm") as without, warmfork.Template(
        preload, spares=options.width, backend="warm"
    ) as with_spares:
        spawns = {
            "cold": by_popen(None, "cold", common.cold_program(preload)),
            "warm": by_popen(without, "warm", common.MEASURED_PROGRAM),
            "warm-spare": by_popen(with_spares, "warm", common.MEASURED_PROGRAM),
            "mp-forkserver": by_forkserver(forkserver),
        }
        without.wait_ready()
        spawns["mp-forkserver"]()
        progress = common.Progress("concurrent spawns", options.count)
        for _ in range(options.count):
            for row, spawn in spawns.items():
                if row == "warm-spare":
                    with_spares.wait_parked(options.width, timeout=60)
                times[row].append(measure(spawn, options.width))
            progress.step()
        progress.close()
    result = {
        "rows": {row: {"all_reaped_us": common.summary(values), "count": len(values)}
                 for row, values in times.items()},
        "width": options.width,
        "preload": preload,
        "machine": common.machine(),
    }
    if options.json:
        json.dump(result, sys.stdout, indent=1)
        print()
        return
    table = [[row] + [f"{values['all_reaped_us'][name]:,.0f}" for name in ("p50", "p90", "p99")]
             for row, values in result["rows"].items()]
    common.print_table(["row", "p50", "p90", "p99"], table,
                       ["", f"microseconds until {options.width} children, spawned at once, have ended"])
