"""What the benchmarks share: the measured program, percentiles, the machine, progress and tables."""

import os
import platform
import shutil
import sys
import time

DEFAULT_PRELOAD = (
    "numpy,json,re,random,logging,argparse,datetime,decimal,urllib.parse,email.message,"
    "http.client,sqlite3,concurrent.futures"
)

now = time.monotonic_ns


# What a child runs: its first line is the time.
MEASURED_PROGRAM = "import os, time; os.write(1, b'%d' % time.monotonic_ns())"


def cold_program(preload):
    """The same for a child that has to import first what the others have behind them."""
    return f"import {', '.join(preload)}\n{MEASURED_PROGRAM}"


def percentile(ordered, fraction):
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


def summary(nanoseconds):
    """p50, p90 and p99 in microseconds; None where there is nothing to measure."""
    values = sorted(value / 1000 for value in nanoseconds if value is not None)
    if not values:
        return None
    return {name: round(percentile(values, fraction), 1) for name, fraction in
            (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))}


def machine():
    model = "unknown"
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    model = line.partition(":")[2].strip()
                    break
    except OSError:
        pass
    return {
        "processor": model,
        "processors": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "architecture": platform.machine(),
    }


class Progress:
    """A bar on a terminal, nothing elsewhere."""

    def __init__(self, label, total):
        self._label, self._total, self._done = label, total, 0
        self._is_shown = sys.stderr.isatty()

    def step(self):
        self._done += 1
        if self._is_shown:
            filled = 30 * self._done // self._total
            sys.stderr.write(f"\r{self._label} [{'#' * filled:30}] {self._done}/{self._total}")
            sys.stderr.flush()

    def close(self):
        if self._is_shown:
            sys.stderr.write("\r\x1b[K")


def wait_for_spare(template):
    """Until a spare is parked and the template sleeps; and a little longer, until the processors do."""
    if template is not None:
        template.wait_parked(1, timeout=60)
    time.sleep(0.002)


def print_table(columns, rows, notes):
    """columns: headings; rows: lists of text, the first cell left-aligned."""
    widths = [max(len(str(row[i])) for row in [columns, *rows]) for i in range(len(columns))]
    for row in [columns, ["-" * width for width in widths], *rows]:
        cells = [f"{row[0]:<{widths[0]}}"]
        cells += [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:])]
        print("  ".join(cells).rstrip())
    for note in notes:
        print(note)


def parse_for_commands(parser, arguments):
    """For a benchmark of whole commands, which has --count already: with --cli and --json. Returns the options."""
    parser.add_argument("--cli", default=os.environ.get("WARMFORK_CLI") or shutil.which("warmfork"), metavar="FILE",
                        help="the command line to measure (default: $WARMFORK_CLI, or warmfork of the PATH)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    if options.count < 1:
        parser.error("--count must be at least 1")
    if not options.cli:
        parser.error("there is no warmfork in the PATH: give it with --cli")
    return options
