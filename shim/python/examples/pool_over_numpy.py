"""A multiprocessing pool whose workers have numpy from the beginning.

usage: pool_over_numpy.py [WORKERS]
"""

import sys
import time

import warmfork


def largest_eigenvalue(size):
    import numpy  # there already

    return float(numpy.linalg.eigvalsh(numpy.fromfunction(lambda i, j: 1 / (1 + i + j), (size, size)))[-1])


def main():
    workers = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    context = warmfork.get_context(preload=["numpy"], spares=workers)
    context.template.wait_parked(workers)
    began = time.perf_counter()
    with context.Pool(workers) as pool:
        for size, value in zip(range(2, 8), pool.map(largest_eigenvalue, range(2, 8))):
            print(f"Hilbert matrix of {size}: {value:.6f}")
    print(f"{workers} workers, {(time.perf_counter() - began) * 1000:.0f} ms")


if __name__ == "__main__":
    main()
