"""python3 -m warmfork: the command line, warmfork(1)."""

from __future__ import annotations

import os
import sys


def main() -> None:
    # A wheel brings the command; otherwise it is a package of its own.
    own = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_command")
    program = own if os.path.exists(own) else "warmfork"
    try:
        os.execvp(program, ["warmfork", *sys.argv[1:]])
    except FileNotFoundError:
        sys.exit("warmfork: the command line is not installed (Debian: the package warmfork)")


if __name__ == "__main__":
    main()
