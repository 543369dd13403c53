"""What `warmfork bench life` starts for each of its rows: a process that spawns one child after the other.

main() has the arguments ROW COUNT PRELOAD, and prints how many seconds that took (of the rows idle-…: until all had
ended that were told to); with "memory" instead of a count it prints kilobytes, as JSON.
"""

import ctypes
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from importlib import import_module

import warmfork

from .common import now

AT_ONCE = 100
IDLE = 8

# As an actor does that waits for what comes: ends when its standard input does.
IDLE_PROGRAM = """\
import os, trio
async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        await trio.lowlevel.wait_readable(0)
        nursery.cancel_scope.cancel()
os.write(1, b"x")
trio.run(main)
"""

# What the warm children run. What they leave has an end, which must not be lost.
PROGRAMS = {
    "pass": "pass",
    "numpy": "import numpy; numpy.arange(1000.0).sum()",
    "file": "import os; file = open(os.devnull, 'w'); file.write('x')",
    "generator": "def generate():\n try: yield\n finally: pass\ngenerator = generate(); next(generator)",
    "finalizer": "class Class:\n def __del__(self): pass\nleft = Class()",
    "hung": "import json, os; json.file = open(os.devnull, 'w'); json.file.write('x')",
    "thread": "import threading; threading.Thread(target=int).start()",
}

_PTRACE_CONT, _PTRACE_SEIZE, _PTRACE_O_TRACEEXIT, _PTRACE_EVENT_EXIT = 7, 0x4206, 0x40, 6


def nothing():
    """The target of multiprocessing's children."""


def spawn_and_reap(template, backend, programs):
    """Children of which all run at once."""
    children = [
        warmfork.Popen(
            [sys.executable, "-c", program], template=template, backend=backend,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for program in programs
    ]
    for child in children:
        status = child.wait()
        for pipe in (child.stdin, child.stdout, child.stderr):
            pipe.close()
        if status:
            raise SystemExit(f"warmfork bench: a child ended with status {status}")


def end_idle(template, backend, text):
    """Children that wait, all of which are told to end. Returns nanoseconds from then until all have ended."""
    children = [
        warmfork.Popen([sys.executable, "-c", text], template=template, backend=backend,
                       stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(IDLE)
    ]
    for child in children:
        child.stdout.read(1)
    began = now()
    for child in children:
        child.stdin.close()
    statuses = [child.wait() for child in children]
    took = now() - began
    for child in children:
        child.stdout.close()
    if any(statuses):
        raise SystemExit(f"warmfork bench: children ended with statuses {statuses}")
    return took


def open_and_spawn(preload):
    """A template, and at once a child that has the same imports."""
    with warmfork.Template(preload) as template:
        spawn_and_reap(template, "auto", [f"import {', '.join(preload)}"])


def fork_and_reap():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def process_of(context):
    def spawn():
        process = context.Process(target=nothing)
        process.start()
        process.join()
        process.close()

    return spawn


def warm_template(preload):
    template = warmfork.Template(preload, backend="warm")
    template.wait_ready()
    return template


def spawner(row, preload):
    """A function that spawns one child (AT_ONCE of them, where the row says so) and reaps it."""
    kind, _, program = row.partition("-")
    if kind == "cold":
        text = f"import {', '.join(preload)}" if program == "imports" else "pass"
        programs = [text] * (AT_ONCE if program == "at-once" else 1)
        return lambda: spawn_and_reap(None, "cold", programs)
    if kind == "idle":
        text = f"import {', '.join(preload)}\n{IDLE_PROGRAM}"
        template = warm_template([*preload, "trio"]) if program == "warm" else None
        return lambda: end_idle(template, program, text)
    if row == "first":
        return lambda: open_and_spawn(preload)
    if kind == "warm":
        template = warm_template(preload)
        programs = ["pass"] * AT_ONCE if program == "at-once" else [PROGRAMS[program]]
        return lambda: spawn_and_reap(template, "warm", programs)
    if row == "mp-warmfork":
        context = import_module("warmfork.multiprocessing").WarmforkContext(
            [*preload, "warmfork.bench.lives"], backend="warm")
        context.template.wait_ready()
        return process_of(context)
    if row == "mp-forkserver":
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([*preload, "warmfork.bench.lives"])
        return process_of(context)
    for name in preload:
        import_module(name)
    return fork_and_reap if row == "os-fork" else process_of(multiprocessing.get_context("fork"))


def private_kilobytes(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Private_Dirty:"))


def spare_of(template):
    """The pid of a parked one: a fork of the template, and this process's child."""
    template.wait_parked(1, timeout=60)

    def command_line(pid):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()

    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        pids = [int(pid) for pid in file.read().split()]
    of_template = command_line(template.pid)
    return next(pid for pid in pids if pid != template.pid and command_line(pid) == of_template)


def memory_at_end(spawn):
    """Of a child that waits for a byte on its standard input before it goes on: when it has done all but exit.
    spawn() returns its pid and the function that wakes it."""
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    pid, wake = spawn()
    if ptrace(_PTRACE_SEIZE, pid, None, _PTRACE_O_TRACEEXIT) < 0:
        wake()
        return None  # not allowed here
    wake()
    kilobytes = None
    while True:
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            return kilobytes
        is_end = status >> 8 == signal.SIGTRAP | _PTRACE_EVENT_EXIT << 8
        if is_end:
            kilobytes = private_kilobytes(pid)
        ptrace(_PTRACE_CONT, pid, None, 0 if is_end else os.WSTOPSIG(status))


def memory(row, preload):
    """Private_Dirty of a parked spare, and of a child at its end; None: there is none."""
    kind, _, name = row.partition("-")
    template = warm_template(preload) if kind == "warm" else None
    text = PROGRAMS.get(name) or (f"import {', '.join(preload)}" if name == "imports" else "pass")

    def spawn():
        child = warmfork.Popen(
            [sys.executable, "-c", f"import os; os.write(1, b'x'); os.read(0, 1)\n{text}"],
            template=template, backend=kind, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        os.read(child.stdout.fileno(), 1)
        return child.pid, child.stdin.close

    def fork():
        for module in preload:
            import_module(module)
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(write_end)
            os.read(read_end, 1)
            os._exit(0)
        return pid, lambda: os.close(write_end)

    return {
        "spare_kb": private_kilobytes(spare_of(template)) if template else None,
        "end_kb": memory_at_end(fork if row == "os-fork" else spawn),
    }


def main():
    row, count, preload = sys.argv[1], sys.argv[2], sys.argv[3].split(",")
    if count == "memory":
        print(json.dumps(memory(row, preload)), flush=True)
        return
    spawn = spawner(row, preload)
    took = 0
    for _ in range(int(count)):
        began = now()
        took += spawn() or now() - began
    print(took / 1e9, flush=True)
