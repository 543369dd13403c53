"""Spawns without end for as long as asked, embedded and through a service of its own, and watches whether anything
grows: memory, descriptors, inotify watches, threads and processes of each party, segments in memory, output of
templates, files.

    PYTHONPATH=build/python python3 bench/soak [--seconds 3600] [--json FILE] [--svg FILE]

Two programs spawn at once, one child after the other: an owner of embedded templates, and a client of a warmforkd.
They mix parked spares, forks on command, cold children, processes and pools of multiprocessing, whole commands
(warmfork run -t), variants, changed files, killed children, templates and clients, failing spawns and more, and look at
each result. What a series is in the second quarter of the time and in the last, by the median, has to be the same but
for the tolerance, or for what it goes up and down within one of them; in the first quarter pools and caches fill.

Interrupted (Ctrl-C, SIGTERM) it reports what there is.

Exit status: 0: nothing grows and no result was wrong. 1: something does, or was, or a party hung. 2: wrong usage.
"""

import argparse
import json
import os
import signal
import sys
import time

try:
    from warmfork.bench import common
except ImportError:
    sys.exit("soak: there is no package warmfork: build it, and put its directory into PYTHONPATH (see --help)")

from drawing import draw
from growth import from_samples
from scene import Scene

_LATEST_STARTUP = 60
# Seconds without a spawn: longer than any wait of the library is.
_LONGEST_PAUSE = 60


class Progress:
    """One line on standard error: rewritten where that is a terminal, else one each minute."""

    def __init__(self, seconds):
        self._seconds, self._is_terminal, self._last = seconds, sys.stderr.isatty(), 0

    def show(self, elapsed, text, is_last=False):
        if not (self._is_terminal or is_last or elapsed - self._last >= 60):
            return
        self._last = elapsed
        line = f"soak: {elapsed:5.0f} of {self._seconds:.0f} s, {text}"
        sys.stderr.write(f"\r\x1b[K{line}" if self._is_terminal else f"{line}\n")
        if self._is_terminal and is_last:
            sys.stderr.write("\n")
        sys.stderr.flush()


class Stopped(Exception):
    """A party has ended, or hangs."""


class Watch:
    """Raises Stopped when no spawn comes for long."""

    def __init__(self, party):
        self._party, self._spawns, self._since = party, 0, time.monotonic()

    def look(self):
        party, moment = self._party, time.monotonic()
        if party.process.poll() is not None:
            raise Stopped(f"the {party.name} has ended with status {party.process.returncode}")
        spawns = party.counts.spawns()
        if spawns != self._spawns:
            self._spawns, self._since = spawns, moment
        elif moment - self._since > _LONGEST_PAUSE:
            party.process.send_signal(signal.SIGUSR1)
            time.sleep(1)  # for what it says then
            raise Stopped(f"the {party.name} has not spawned for {_LONGEST_PAUSE} s")


def soak(scene, seconds, interval):
    """Samples, each with its time; and why it ended early, if so."""
    began, samples, ending = time.monotonic(), [], None
    watches, progress = [Watch(party) for party in scene.parties], Progress(seconds)
    spawned = {party.name: 0 for party in scene.parties}
    try:
        while not samples or samples[-1]["time"] < seconds:
            due = began + interval * (len(samples) + 1)
            time.sleep(max(0, min(due, began + seconds) - time.monotonic()))
            elapsed = time.monotonic() - began
            sample = {"time": elapsed, "numbers": scene.sample()}
            since = elapsed - (samples[-1]["time"] if samples else 0)
            for party in scene.parties:
                spawns = party.counts.spawns()
                rate, spawned[party.name] = (spawns - spawned[party.name]) / since, spawns
                sample["numbers"][party.name, "spawns_per_second"] = rate
            samples.append(sample)
            progress.show(elapsed, ", ".join(
                f"{party.name}: {spawned[party.name]:,} spawns"
                f" ({sample['numbers'][party.name, 'spawns_per_second']:.0f}/s)" for party in scene.parties))
            for watch in watches:
                watch.look()
    except Stopped as stopped:
        ending = str(stopped)
    except KeyboardInterrupt:
        ending = "interrupted"
    return samples, ending


def result_of(scene, samples, ending, left, options):
    series = from_samples([sample["numbers"] for sample in samples])
    rows = []
    for each in series:
        first, middle, last = each.marks()
        before, after = each.medians()
        rows.append({"party": each.party, "metric": each.metric, "first": first, "middle": middle, "last": last,
                     "second_quarter": before, "last_quarter": after,
                     "verdict": each.verdict(options.tolerance / 100),
                     "values": [value and round(value, 2) for value in each.values]})
    return series, {
        "seconds": samples[-1]["time"] if samples else 0,
        "spawns": {party.name: party.report() for party in scene.parties},
        "times": [round(sample["time"], 1) for sample in samples],
        "series": rows,
        "ended_early": ending,
        "left_behind": left,
        "machine": common.machine(),
    }


def print_report(result, faults):
    def cell(value):
        return "-" if value is None else f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"

    names = ("first", "middle", "last", "second_quarter", "last_quarter")
    table = [[f"{row['party']}: {row['metric']}", *(cell(row[name]) for name in names), row["verdict"]]
             for row in result["series"] if any(row["values"])]
    notes = [""]
    for party, report in result["spawns"].items():
        rate = report["spawns"] / max(1, result["seconds"])
        notes.append(f"{party}: {report['spawns']:,} spawns, {rate:.1f} a second; of each kind, and the slowest turn: "
                     + ", ".join(f"{name} {count:,} ({report['slowest'].get(name, 0):.2f} s)"
                                 for name, count in report["actions"].items()))
        notes.append(f"  of those that say how they were served {report['warm']:,} were warm, {report['cold']:,} cold:")
        notes += [f"    {name} {count:,}, the latest: {report['sentences'][name]}"
                  for name, count in report["reasons"].items()]
    machine = result["machine"]
    notes.append(f"{result['seconds']:.0f} s on {machine['processors']} × {machine['processor']}, Linux "
                 f"{machine['kernel']}, Python {machine['python']}")
    notes += [f"FAULT: {fault}" for fault in faults] or ["nothing grows, nothing was wrong"]
    common.print_table(["series", "first", "middle", "last", "2nd quarter", "last quarter", "verdict"], table, notes)


def faults_of(result):
    faults = [result["ended_early"]] if result["ended_early"] else []
    for party, report in result["spawns"].items():
        if report["wrong"]:
            faults.append(f"{report['wrong']} results of the {party} were wrong (see above)")
    for row in result["series"]:
        if row["verdict"] == "grows":
            faults.append(f"{row['party']}: {row['metric']} grows, from {row['second_quarter']:,.1f} to "
                          f"{row['last_quarter']:,.1f}")
    return faults + [f"left behind at the end: {what}" for what in result["left_behind"]]


def parse(arguments):
    parser = argparse.ArgumentParser(prog="bench/soak", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600, metavar="S", help="how long (default: 3600)")
    parser.add_argument("--interval", type=float, metavar="S",
                        help="between two samples (default: a 720th of the whole, and at least half a second)")
    parser.add_argument("--tolerance", type=float, default=3, metavar="PERCENT",
                        help="by how much a series may differ (default: 3); 256 KB, or 1 of what is counted, at least")
    parser.add_argument("--cli", default=os.environ.get("WARMFORK_CLI"), metavar="FILE",
                        help="the command line warmfork (default: $WARMFORK_CLI, or that of the build)")
    parser.add_argument("--json", metavar="FILE", help="write all samples there")
    parser.add_argument("--svg", metavar="FILE", help="draw the series there, a panel each")
    options = parser.parse_args(arguments)
    if not options.seconds > 0 or options.interval is not None and not options.interval > 0:
        parser.error("--seconds and --interval must be more than 0")
    options.interval = options.interval or max(0.5, options.seconds / 720)
    return options


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def main(arguments=None):
    options = parse(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Scene(options.cli) as scene:
        scene.start(_LATEST_STARTUP)
        samples, ending = soak(scene, options.seconds, options.interval)
        left = scene.stop()
        series, result = result_of(scene, samples, ending, left, options)
    faults = faults_of(result)
    if options.json:
        write(options.json, json.dumps(result, indent=None, separators=(",", ":")) + "\n")
    if options.svg:
        about = [f"{name}: {report['spawns']:,} spawns" for name, report in result["spawns"].items()]
        machine = result["machine"]
        write(options.svg, draw(series, options.tolerance / 100, [
            f"{result['seconds']:.0f} s; {'; '.join(about)}",
            f"{machine['processors']} × {machine['processor']}, Linux {machine['kernel']}, Python {machine['python']}",
        ]))
    print_report(result, faults)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
