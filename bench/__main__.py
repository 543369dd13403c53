"""python3 .../warmfork/bench/__main__.py {serial,life,concurrent,...,plot} ..."""

import sys
from importlib import import_module

KINDS = ("serial", "life", "concurrent", "resident", "multiprocessing", "service", "commands", "plot")


def main():
    # Of a script, its own directory, where modules are called `concurrent` and `multiprocessing`.
    sys.path[:] = [entry for entry in sys.path if not entry.endswith("/warmfork/bench")]
    usage = (f"usage: warmfork bench [--python FILE] {{{','.join(KINDS)}}} ...\n\n"
             "Each has --help.\n\n"
             "  -h, --help     show this help message and exit\n"
             "  --python FILE  the interpreter to measure with (default: python3)")
    if sys.argv[1:2] in (["-h"], ["--help"]):
        print(usage)
        return
    if len(sys.argv) < 2 or sys.argv[1] not in KINDS:
        sys.exit(usage)
    import_module(f"warmfork.bench.{sys.argv[1]}").main(sys.argv[2:])


if __name__ == "__main__":
    main()
