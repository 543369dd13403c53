"""`warmfork bench serial`: one spawn at a time, every kind in turn, so that all meet the same machine."""

import argparse
import importlib
import json
import multiprocessing
import os
import random
import socket
import subprocess
import sys

import warmfork

from . import common
from .common import now

ROWS = (
    ("cold", "subprocess, imports and all"),
    ("warm", "template without spares: a fork on command"),
    ("warm-spare", "template with a parked spare"),
    ("warm-spare-unchecked", "the same without the checks of environment, files and names"),
    ("mp-forkserver", "multiprocessing forkserver, same preload"),
    ("mp-fork", "multiprocessing fork of a process with the imports"),
    ("mp-spawn", "multiprocessing spawn, then the imports"),
    ("os-fork", "limit: bare os.fork() of the same image"),
    ("os-fork-setup", "limit: os.fork() and the set-up of a warm child"),
    ("posix-spawn-true", "limit: posix_spawn of /bin/true"),
    ("handoff-c", "limit: hand-off to a parked C process"),
    ("handoff-image", "limit: hand-off to a parked fork of the same image"),
)

IMAGE_ROWS = ("mp-fork", "os-fork", "os-fork-setup", "handoff-image")


def import_and_report(names, write_end):
    """The target of multiprocessing's children."""
    for name in names:
        importlib.import_module(name)
    os.write(write_end.fileno() if hasattr(write_end, "fileno") else write_end, b"%d" % now())


class Serial:
    """One object a run; each row is a method that spawns once and returns the three times."""

    def __init__(self, preload, unchecked):
        self.preload = preload
        self.unchecked = None
        self.without = warmfork.Template(preload, spares=0, backend="warm")
        self.with_spares = warmfork.Template(preload, backend="warm")
        if unchecked:
            self.unchecked = warmfork.Template(preload, backend="warm")
            warmfork._native.leave_unchecked(self.unchecked._handle)
        self.forkserver = multiprocessing.get_context("forkserver")
        self.forkserver.set_forkserver_preload([*preload, "warmfork.bench.serial"])
        self.spawner = multiprocessing.get_context("spawn")
        # One for each row, so that each of them forks as often as a template does: a process that has
        # just been forked forks faster, its page tables being in the processor's caches.
        self.images = {row: self._start_image() for row in IMAGE_ROWS}

    def _start_image(self):
        return subprocess.Popen(
            [sys.executable, "-m", "warmfork.bench.image", ",".join(self.preload)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )

    def wait_ready(self):
        if self.unchecked:
            self.unchecked.wait_ready()
        self.without.wait_ready()
        self.with_spares.wait_ready()
        for image in self.images.values():
            if image.stdout.readline() != "ready\n":
                raise SystemExit("warmfork bench: the process that is to fork itself did not start")

    def close(self):
        self.without.close()
        self.with_spares.close()
        if self.unchecked:
            self.unchecked.close()
        for image in self.images.values():
            image.stdin.close()
            image.wait()
            image.stdout.close()

    def measure(self, row):
        if row in IMAGE_ROWS:
            return self._ask_image(row)
        method = getattr(self, "_" + row.replace("-", "_"))
        if row == "warm-spare":
            common.wait_for_spare(self.with_spares)
        elif row == "warm-spare-unchecked":
            common.wait_for_spare(self.unchecked)
        else:
            common.wait_for_spare(None)
        return method()

    def _popen(self, template, backend, program=common.MEASURED_PROGRAM):
        called = now()
        process = warmfork.Popen(
            [sys.executable, "-c", program], template=template, backend=backend,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        returned = now()
        started = int(os.read(process.stdout.fileno(), 64))
        process.wait()
        reaped = now()
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()
        return started - called, returned - called, reaped - called

    def _cold(self):
        return self._popen(None, "cold", common.cold_program(self.preload))

    def _warm(self):
        return self._popen(self.without, "warm")

    def _warm_spare(self):
        return self._popen(self.with_spares, "warm")

    def _warm_spare_unchecked(self):
        return self._popen(self.unchecked, "warm")

    def _multiprocessing(self, context):
        read_end, write_end = context.Pipe(duplex=False)
        called = now()
        process = context.Process(target=import_and_report, args=(self.preload, write_end))
        process.start()
        returned = now()
        write_end.close()
        started = int(os.read(read_end.fileno(), 64))
        process.join()
        reaped = now()
        read_end.close()
        process.close()
        return started - called, returned - called, reaped - called

    def _mp_forkserver(self):
        return self._multiprocessing(self.forkserver)

    def _mp_spawn(self):
        return self._multiprocessing(self.spawner)

    def _posix_spawn_true(self):
        called = now()
        pid = os.posix_spawn("/bin/true", ["true"], os.environ)
        returned = now()
        os.waitpid(pid, 0)
        return None, returned - called, now() - called

    def _handoff_c(self):
        near, far = socket.socketpair()
        program = os.path.join(os.path.dirname(__file__), "parked")
        process = subprocess.Popen([program], stdin=far, stdout=subprocess.PIPE)
        far.close()
        os.read(process.stdout.fileno(), 1)  # parked
        common.wait_for_spare(None)
        called = now()
        near.send(b"x")
        returned = now()
        started = int(os.read(process.stdout.fileno(), 64))
        process.wait()
        reaped = now()
        near.close()
        process.stdout.close()
        return started - called, returned - called, reaped - called

    def _ask_image(self, row):
        common.wait_for_spare(None)
        image = self.images[row]
        print(row, file=image.stdin)
        answer = image.stdout.readline()
        if answer == "parked\n":
            common.wait_for_spare(None)
            print("go", file=image.stdin)
            answer = image.stdout.readline()
        return tuple(int(number) for number in answer.split())


def run(preload, count, slow_count, unchecked):
    """Measures every row `count` times (the slow ones `slow_count` times), in turn."""
    serial = Serial(preload, unchecked)
    names = [row for row, _ in ROWS if unchecked or row != "warm-spare-unchecked"]
    times = {row: ([], [], []) for row in names}
    slow = {"cold", "mp-spawn"}
    try:
        serial.wait_ready()
        for row in names:
            serial.measure(row)  # once for whatever happens at a first time
        progress = common.Progress("serial spawns", count)
        order = names[:]
        for turn in range(count):
            # Nobody always comes right behind a cold start, which leaves the caches to the next.
            random.Random(turn).shuffle(order)
            for row in order:
                if row in slow and turn * slow_count // count == (turn - 1) * slow_count // count:
                    continue
                for list_, value in zip(times[row], serial.measure(row)):
                    list_.append(value)
            progress.step()
        progress.close()
    finally:
        serial.close()
    return {
        row: {
            "started_us": with_samples(started),
            "returned_us": common.summary(returned),
            "reaped_us": common.summary(reaped),
            "count": len(started),
        }
        for row, (started, returned, reaped) in times.items()
    }


def with_samples(nanoseconds):
    """The summary, and what `warmfork bench plot` draws."""
    summary = common.summary(nanoseconds)
    return summary and {**summary, "samples": [round(value / 1000, 1) for value in nanoseconds]}


def ratios(rows):
    """The figures that the project promises, as ratios of medians within this run."""

    def p50(row, what="started_us"):
        return rows[row][what]["p50"]

    checks = []
    if "warm-spare-unchecked" in rows:
        checks = [("warm-spare started / unchecked", p50("warm-spare") / p50("warm-spare-unchecked"), "1.2")]
    return [
        ("warm-spare started / mp-forkserver started", p50("warm-spare") / p50("mp-forkserver"), "1/20"),
        ("warm-spare started / posix-spawn-true reaped",
         p50("warm-spare") / p50("posix-spawn-true", "reaped_us"), "1/2"),
        ("warm-spare started / handoff-image started", p50("warm-spare") / p50("handoff-image"), "3"),
        ("warm started / os-fork-setup started", p50("warm") / p50("os-fork-setup"), "1.25"),
        *checks,
    ]


def print_report(result):
    def cell(summary, name):
        return "-" if summary is None else f"{summary[name]:,.0f}"

    explanations = dict(ROWS)
    table = []
    for row, values in result["rows"].items():
        table.append(
            [row]
            + [cell(values["started_us"], name) for name in ("p50", "p90", "p99")]
            + [cell(values["returned_us"], "p50"), cell(values["reaped_us"], "p50"),
               explanations[row]]
        )
    machine = result["machine"]
    notes = ["", "microseconds since the call: until the first line of user code runs in the child, until",
             "the call has returned (p50), until the child has been reaped (p50)", ""]
    for name, ratio, text in ratios(result["rows"]):
        notes.append(f"{name}: {ratio:.3f} (wanted: at most {text})")
    notes.append(f"{machine['processors']} × {machine['processor']}, Linux {machine['kernel']}, "
                 f"Python {machine['python']}; preload: {','.join(result['preload'])}")
    widths = ["row", "started p50", "p90", "p99", "returned", "reaped", "what it is"]
    for line in table:
        line[-1] = f"{line[-1]:<48}"
    common.print_table(widths, table, notes)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="warmfork bench serial", description=__doc__)
    parser.add_argument("--preload", default=common.DEFAULT_PRELOAD, metavar="M,...",
                        help="modules to preload (default: numpy and a dozen of the standard library)")
    parser.add_argument("--count", type=int, default=200, help="spawns of each kind (default: 200)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--unchecked", action="store_true",
                        help="also a row without the checks of environment, files and shadowing names")
    options = parser.parse_args(arguments)
    if options.count < 1:
        parser.error("--count must be at least 1")
    preload = [name for name in options.preload.split(",") if name]
    result = {
        "rows": run(preload, options.count, max(1, options.count // 10), options.unchecked),
        "preload": preload,
        "machine": common.machine(),
    }
    if options.json:
        json.dump(result, sys.stdout, indent=1)
        print()
    else:
        print_report(result)


if __name__ == "__main__":
    main()
