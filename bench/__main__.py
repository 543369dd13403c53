"""python3 .../warmfork/bench/__main__.py {serial,concurrent,resident,multiprocessing} ..."""

import sys
from importlib import import_module

KINDS = ("serial", "concurrent", "resident", "multiprocessing")


def main():
    # Of a script, its own directory, where modules are called `concurrent` and `multiprocessing`.
    sys.path[:] = [entry for entry in sys.path if not entry.endswith("/warmfork/bench")]
    if len(sys.argv) < 2 or sys.argv[1] not in KINDS:
        sys.exit(f"usage: warmfork bench {{{','.join(KINDS)}}} [--help]")
    import_module(f"warmfork.bench.{sys.argv[1]}").main(sys.argv[2:])


if __name__ == "__main__":
    main()
