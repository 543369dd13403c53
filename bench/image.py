"""A process with the preload list imported, which forks itself on command and says how long it took.

It stands for what a fork can do at best: multiprocessing's fork method, a bare os.fork(), the same with
the set-up of a warm child behind it, and a hand-off to a child that is parked already.

usage: python -m warmfork.bench.image PRELOAD      (commands on stdin, an answer line each on stdout)
"""

import importlib
import multiprocessing
import os
import socket
import sys

from .common import MEASURED_PROGRAM, now


def _report(write_end):
    os.write(write_end, b"%d" % now())


def _timed(spawn):
    """spawn(write end) -> wait function; returns started, returned, reaped since the call."""
    read_end, write_end = os.pipe()
    called = now()
    wait = spawn(write_end)
    returned = now()
    os.close(write_end)
    started = int(os.read(read_end, 64))
    wait()
    reaped = now()
    os.close(read_end)
    return started - called, returned - called, reaped - called


def _fork(write_end):
    pid = os.fork()
    if pid == 0:
        _report(write_end)
        os._exit(0)
    return lambda: os.waitpid(pid, 0)


def _fork_and_set_up(program):
    """os.fork(), and in the child all that a warm child does, by the same code."""
    from warmfork import _native
    from warmfork._in_template import _child

    _child.remember_image(
        (), _native.start_environment(), _native.current_environment(), None, _child._PYTHON_IGNORES, ((), ())
    )
    _native.prepare_to_become_child(_child)
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def spawn(write_end):
        pid = os.fork()
        if pid == 0:
            _native.become_child([b"python3", b"-c", program], [0, 0, write_end, 1, 2, 2], far.fileno())

        def wait():
            os.waitpid(pid, 0)
            near.recv(64)  # what the child says when it is set up

        return wait

    return spawn


def _multiprocessing_fork(write_end):
    process = multiprocessing.get_context("fork").Process(target=_report, args=(write_end,))
    process.start()
    return process.join


def _hand_off():
    """Forks the child ahead of need; only the hand-off is timed."""
    near, far = socket.socketpair()
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        far.recv(1)
        _report(write_end)
        os._exit(0)
    os.close(write_end)
    os.sched_yield()
    sys.stdout.write("parked\n")
    sys.stdout.flush()
    sys.stdin.readline()
    called = now()
    near.send(b"x")
    returned = now()
    started = int(os.read(read_end, 64))
    os.waitpid(pid, 0)
    reaped = now()
    near.close(), far.close(), os.close(read_end)
    return started - called, returned - called, reaped - called


def main():
    preload = sys.argv[1].split(",")
    for name in preload:
        importlib.import_module(name)
    rows = {
        "os-fork": lambda: _timed(_fork),
        "os-fork-setup": lambda: _timed(_fork_and_set_up(MEASURED_PROGRAM.encode())),
        "mp-fork": lambda: _timed(_multiprocessing_fork),
        "handoff-image": _hand_off,
    }
    print("ready", flush=True)
    for line in sys.stdin:
        print(*rows[line.strip()](), flush=True)


if __name__ == "__main__":
    main()
