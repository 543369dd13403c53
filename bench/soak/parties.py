"""What each party has at a moment: memory, descriptors, watches, threads, processes, as /proc tells."""

import os
import time

# Each is of a party's processes: how many there are, and of the rest the mean of one process. Of what is private, or
# proportional, part comes and goes with other processes that have the same files mapped; anonymous memory does not.
METRICS = {
    "processes": "processes",
    "anonymous_kb": "anonymous, KB",
    "shared_kb": "segments, KB",
    "private_kb": "private, KB",
    "pss_kb": "proportional (PSS), KB",
    "rss_kb": "resident (RSS), KB",
    "descriptors": "descriptors",
    "watches": "inotify watches",
    "threads": "threads",
}
# Of a whole side, or of all: what children leave behind, files of no file system, and what lies on disk.
TOTALS = {
    "zombies": "zombies",
    "orphans": "orphans",
    "segments": "open files in memory",
    "segments_kb": "open segments, KB",
    "output_kb": "output of templates, KB",
    "files": "files",
    "files_kb": "files, KB",
}
_OUTPUT = "/memfd:warmfork-template-output"
# Seconds. What has a template's command line and is younger may be a spare that is being made.
_LEAST_AGE = 1


def _read(pid, name):
    with open(f"/proc/{pid}/{name}") as file:
        return file.read()


def _fields(text):
    """Of lines "Name: value ...", the first word of each value."""
    return {name: value.split()[0] for name, _, value in (line.partition(":") for line in text.splitlines())
            if value.split()}


def children(pid):
    """Those that live or are zombies; none of a process that has gone."""
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            found += [int(child) for child in _read(pid, f"task/{task}/children").split()]
    except OSError:
        pass
    return found


def _age(pid):
    """In seconds."""
    began = int(_read(pid, "stat").rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began / os.sysconf("SC_CLK_TCK")


def kind_of(pid):
    """What a child is: "zombie", "spare", "template", "keeper", "child"; None: it has gone, or cannot be told yet."""
    try:
        name, command = _read(pid, "comm").strip(), _read(pid, "cmdline")
        if not command and _fields(_read(pid, "status"))["State"] == "Z":
            return "zombie"
        if name in ("warmfork-spare", "warmfork-keeper"):
            return name.partition("-")[2]
        if "import warmfork._template;" not in command:
            return "child"
        return "template" if _age(pid) >= _LEAST_AGE else None
    except (OSError, KeyError):
        return None


def owner_of_keeper(pid):
    """The process that it looks after children of; None: that cannot be told."""
    try:
        return int(_fields(_read(pid, "fdinfo/4"))["Pid"])
    except (OSError, KeyError):
        return None


class Segments:
    """Files in memory that some processes have open, each counted once."""

    def __init__(self):
        self._blocks = {}

    def add(self, target, status):
        self._blocks[status.st_dev, status.st_ino] = (target, status.st_blocks)

    def totals(self):
        output = sum(blocks for target, blocks in self._blocks.values() if target.startswith(_OUTPUT))
        blocks = sum(blocks for _, blocks in self._blocks.values())
        return {"segments": len(self._blocks), "segments_kb": (blocks - output) // 2, "output_kb": output // 2}


def _look_at_descriptors(pid, segments):
    """How many there are, and how many files are watched by them."""
    count = watches = 0
    for number in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{number}"
        try:
            target = os.readlink(path)
            count += 1
            if target == "anon_inode:inotify":
                watches += _read(pid, f"fdinfo/{number}").count("inotify wd:")
            elif target.startswith(("/memfd:warmfork-", "/dev/shm/warmfork-")):
                segments.add(target, os.stat(path))
        except OSError:
            pass  # closed meanwhile
    return count, watches


def look_at(pid, segments):
    """The metrics of one process; None: it has gone meanwhile, or is a zombie."""
    try:
        status, memory = _fields(_read(pid, "status")), _fields(_read(pid, "smaps_rollup"))
        descriptors, watches = _look_at_descriptors(pid, segments)
        return {
            "private_kb": int(memory["Private_Clean"]) + int(memory["Private_Dirty"]),
            "pss_kb": int(memory["Pss"]),
            "rss_kb": int(memory["Rss"]),
            "anonymous_kb": int(status["RssAnon"]),
            "shared_kb": int(status["RssShmem"]),
            "descriptors": descriptors,
            "watches": watches,
            "threads": int(status["Threads"]),
        }
    except (OSError, KeyError):
        return None


def look_at_all(pids, segments):
    """The metrics of a party that consists of these; without processes there is only their number."""
    seen = [metrics for metrics in (look_at(pid, segments) for pid in pids) if metrics]
    means = {name: sum(metrics[name] for metrics in seen) / len(seen) for name in seen[0]} if seen else {}
    return {"processes": len(seen), **means}


def look_at_folders(paths):
    """How many files and directories lie below, and how large they are."""
    files = blocks = 0
    for path in paths:
        for folder, folders, names in os.walk(path):
            for name in (*folders, *names):
                try:
                    blocks += os.lstat(os.path.join(folder, name)).st_blocks
                    files += 1
                except OSError:
                    pass  # gone meanwhile
    return {"files": files, "files_kb": blocks // 2}


class Side:
    """A process that has templates, or is one's client, with all that belongs to it."""

    def __init__(self, name, pid):
        self.name, self.pid = name, pid

    def sample(self, orphans):
        """{series: number}. orphans: processes among which the keepers are."""
        kinds = {}
        for child in children(self.pid):
            kinds.setdefault(kind_of(child), []).append(child)
        keepers = [pid for pid in orphans if kind_of(pid) == "keeper" and owner_of_keeper(pid) == self.pid]
        segments = Segments()
        sampled = {self.name: look_at_all([self.pid], segments)}
        for kind, pids in (("templates", kinds.get("template", [])), ("spares", kinds.get("spare", [])),
                           ("keepers", keepers)):
            sampled[f"{self.name}'s {kind}"] = look_at_all(pids, segments)
        sampled[self.name].update(zombies=len(kinds.get("zombie", [])), **segments.totals())
        return {(party, metric): number for party, metrics in sampled.items() for metric, number in metrics.items()}
