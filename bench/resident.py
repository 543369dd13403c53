"""`warmfork bench resident`: does a spawn cost more when the template is larger?"""

import argparse
import json
import os
import subprocess
import sys

import warmfork

from . import common
from .common import now


def started(template, templates):
    # All of them: another one that forks takes a processor, and the larger it is the longer.
    for each in templates:
        common.wait_for_spare(each)
    called = now()
    process = template.popen([sys.executable, "-c", common.MEASURED_PROGRAM],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, _ = process.communicate()
    return int(output) - called


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="warmfork bench resident", description=__doc__)
    parser.add_argument("--count", type=int, default=50, help="spawns of each size (default: 50)")
    parser.add_argument("--small", type=int, default=50, metavar="MB")
    parser.add_argument("--large", type=int, default=1000, metavar="MB")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    sizes = (options.small, options.large)
    ballast = "warmfork.bench.ballast"
    templates = {
        size: warmfork.Template(["os", ballast], backend="warm",
                                env={**os.environ, "WARMFORK_BENCH_MB": str(size)})
        for size in sizes
    }
    try:
        times = {size: [] for size in sizes}
        for template in templates.values():
            started(template, templates.values())
        progress = common.Progress("spawns", options.count)
        for _ in range(options.count):
            for size, template in templates.items():
                times[size].append(started(template, templates.values()))
            progress.step()
        progress.close()
        resident = {size: templates[size].report()["resident_kb"] // 1024 for size in sizes}
    finally:
        for template in templates.values():
            template.close()
    rows = {f"{size} MB": {"started_us": common.summary(times[size]), "resident_mb": resident[size],
                           "count": len(times[size])} for size in sizes}
    ratio = (rows[f"{options.large} MB"]["started_us"]["p50"]
             / rows[f"{options.small} MB"]["started_us"]["p50"])
    if options.json:
        json.dump({"rows": rows, "ratio": round(ratio, 3), "machine": common.machine()}, sys.stdout, indent=1)
        print()
        return
    table = [[row, values["resident_mb"]] + [f"{values['started_us'][name]:,.0f}"
             for name in ("p50", "p90", "p99")] for row, values in rows.items()]
    common.print_table(["ballast", "resident MB", "started p50", "p90", "p99"], table,
                       ["", f"warm-spare, large against small: {ratio:.2f} (wanted: at most 2)"])
