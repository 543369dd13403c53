"""A process for each processor, each answering with its pid; spawned one after the other or at once.

usage: process_per_core.py [--concurrent] [--preload M,...]

Spawning one after the other is fast enough once the imports are behind them.
"""

import argparse
import os
import subprocess
import sys
import time

import warmfork

PROGRAM = "import os, numpy; print(os.getpid(), numpy.arange(10).sum())"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concurrent", action="store_true", help="spawn all, then wait for all")
    parser.add_argument("--preload", default="numpy", metavar="M,...")
    options = parser.parse_args()
    count = os.cpu_count() or 1
    with warmfork.Template(options.preload.split(",")) as template:
        template.wait_parked()

        def spawn():
            return template.popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)

        began = time.perf_counter()
        if options.concurrent:
            answers = [child.communicate()[0] for child in [spawn() for _ in range(count)]]
        else:
            answers = [spawn().communicate()[0] for _ in range(count)]
        took = time.perf_counter() - began
        for answer in answers:
            print(answer, end="")
        print(f"{count} processes in {took * 1000:.1f} ms, {template.counts['cold']} of them cold")


if __name__ == "__main__":
    main()
