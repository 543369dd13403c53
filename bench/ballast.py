"""A module that is large in memory: WARMFORK_BENCH_MB megabytes, every page written."""

import os

_ballast = bytearray(os.urandom(4096) * 256 * int(os.environ.get("WARMFORK_BENCH_MB", "50")))
