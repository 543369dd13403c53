"""What children went on to import, preloaded in the next image: templates with learn=True.

Under $XDG_STATE_HOME/warmfork/learned there is a folder for each program with each interpreter and list of modules:

children  a line of each child that has ended, by import_times.cpp: " module=microseconds ..." of what its
          image lacked
modules   a line of each module that was tried: "ok NAME microseconds kilobytes size mtime_ns file", or
          "no NAME size mtime_ns file<TAB>reason"; the last one of a name counts. And "gain MICROSECONDS": of imports
          that a child spent when the image had none of this; the greatest counts

A line that a full disk has cut short is passed over. To forget, remove the folder. All of it is read and tried
in a process of its own, forked by the template while it preloads: the image does not come to depend on these
files, and a module that fails spoils nothing. What somebody else could have written is not read, nor written to.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

from .. import _native
from ._trials import Trials, how_it_ended, identity_of, is_known, line_of, read_line

# It is the same as typing's, which children that import it would otherwise find loaded.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, IO, NoReturn

    from .._types import Judged
    from ._observer import Observer

# This many children are asked; the reports of twice as many are kept.
_CHILDREN = 500
# A module is learned if more than this part of the children has imported it.
_SHARE = 0.5
# What all that is learned may add to an image, first in microseconds of its start beside what a child gains by it, as
# the first child waits for both, then in kilobytes of its memory.
_MOST_MICROSECONDS_MORE = 5000
_MOST_KILOBYTES = 256 << 10
# In seconds, how long modules are tried, the rest of which is left to a later image, and until when the last of them
# has to be imported, beyond which it is taken for one that does not return.
_ENOUGH = 90
_PATIENCE = 120


def folder_of(program: str, preload: Iterable[str], allowed: list[str]) -> str:
    """Returns where the template of this program with these modules remembers. allowed: see `learn`. Must be asked
    before reads are recorded."""
    from _imp import source_hash

    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    # What these options keep out cannot be imported, which is no verdict for the others.
    names = ("isolated", "ignore_environment", "no_user_site", "no_site")
    options = "".join(str(getattr(sys.flags, name)) for name in names)
    # The main module is the program's, with one start's arguments.
    modules = [name for name in preload if "=" not in name]
    key = "\0".join((program, sys.executable, sys.version, options, *modules, *allowed))
    return os.path.join(state, "warmfork", "learned", source_hash(0, key.encode(errors="surrogateescape")).hex())


class Learned:
    """What is known now. modules: (name, seconds, kilobytes) to be preloaded. refused: (name, reason).
    children: how many have reported. error: why nothing can be remembered; "" if it can."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.modules: list[tuple[str, float, int]] = []
        self.refused: list[tuple[str, ...]] = []
        self.children, self.error = 0, ""

    @property
    def log(self) -> str:
        """Returns the file that children write to; "" where there is none to be had."""
        return "" if self.error else os.path.join(self.folder, "children")

    def refuse(self, name: str, reason: str) -> None:
        self.refused.append((name, reason))
        if self.error:
            return
        try:
            _remember(self.folder, line_of(name, ("no", *identity_of(name), reason)))
        except OSError as error:
            self.error = str(error)


def learn(program: str, folder: str, observer: Observer, allowed: list[str]) -> Learned:
    """Returns, in the template, after its own modules, what is to be preloaded beyond them. program: whose children
    these are. observer: looks on. allowed: "directory:MODULE" of those that may depend on the template's directory."""
    learned = Learned(folder)
    sys.stdout.flush()
    sys.stderr.flush()
    read_end, write_end = os.pipe()
    helper = os.fork()
    if helper == 0:
        _help(program, folder, write_end, observer, allowed)
    os.close(write_end)
    trying = ""
    with open(read_end, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            kind, _, rest = line.rstrip("\n").partition(" ")
            if kind == "try":
                trying = rest
            elif kind == "ok":
                name, microseconds, kilobytes = rest.split(" ")
                learned.modules.append((name, int(microseconds) / 1e6, int(kilobytes)))
            elif kind == "no":
                learned.refused.append(tuple(rest.split(" ", 1)))
            elif kind == "children":
                learned.children = int(rest)
            else:
                learned.error = rest
    _, status = os.waitpid(helper, 0)
    if status:
        if trying:
            learned.refuse(trying, f"its import ended the process, {how_it_ended(status)}")
        else:
            learned.error = f"the helper ended with {how_it_ended(status)}"
    return learned


def _help(program: str, folder: str, write_end: int, observer: Observer, allowed: list[str]) -> NoReturn:
    """Does the work, and says what comes of it."""
    status = 1
    try:
        signal.setitimer(signal.ITIMER_REAL, _PATIENCE + 5)  # whose signal ends this process
        silence, output = os.open(os.devnull, os.O_RDONLY), os.memfd_create("warmfork-learning")
        for number, file in enumerate((silence, output, output)):
            os.dup2(file, number)
        os.close(silence)
        os.close(output)
        _native.resume_recording()
        with open(write_end, "w", buffering=1, encoding="utf-8", errors="surrogateescape") as channel:
            try:
                told: list[str] = []

                def say(*words: Any) -> None:
                    print(*words, file=channel, flush=True)
                    told.append(" ".join(map(str, words)))

                _decide(folder, say, observer, allowed)
                _write_image(folder, program, told)
                status = 0
            except OSError as error:
                print("error", error, file=channel, flush=True)
                status = 0
    finally:
        os._exit(status)


def _decide(folder: str, say: Callable[..., None], observer: Observer, allowed: list[str]) -> None:
    """Decides what to preload. What is known goes into the image also where nothing can be written any more."""
    _make(folder)
    _check_trust(folder)
    children = _read_children(os.path.join(folder, "children"), say)
    say("children", len(children))
    known, gain = _read_modules(os.path.join(folder, "modules"))

    def remember(line: str) -> None:
        try:
            _remember(folder, line)
        except OSError as error:
            say("error", error)

    gain_now = sum(sum(child.values()) for child in children) / len(children) if children else 0
    if gain_now > gain * 1.1:  # little more is not worth a line
        remember(f"gain {round(gain_now)}")
    gain = max(gain, gain_now)
    enough = time.monotonic() + _ENOUGH
    microseconds: float = 0
    kilobytes = 0
    has_changed = False
    trials = Trials(observer, allowed)
    for name, cost in _wanted(children, known):
        if microseconds + cost > gain + _MOST_MICROSECONDS_MORE:
            say("no", name, "the image would start later by it than a child does earlier")
            continue
        if not is_known(name, known.get(name)):
            has_changed = has_changed or name in known
            known.pop(name, None)
        # A module may have been refused because of what it imports, which comes before it here.
        if name not in known or has_changed and known[name][0] == "no":
            if time.monotonic() > enough:
                continue
            say("try", name)
            known[name] = trials.try_apart(name, cost)
            remember(line_of(name, known[name]))
        verdict, *facts = known[name]
        if verdict == "no":
            say("no", name, facts[-1])
            continue
        if kilobytes + facts[1] > _MOST_KILOBYTES:
            say("no", name, "more than an image may learn: it takes too much memory")
            continue
        microseconds += cost
        kilobytes += facts[1]
        say("ok", name, facts[0], facts[1])


def _make(folder: str) -> None:
    """Makes the folder and those on the way to it, as far as they are missing: for this user alone."""
    parent = os.path.dirname(folder)
    if not os.path.isdir(parent):
        _make(parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)


def _open(path: str, mode: str) -> IO[str]:
    """Opens a text file, which is this user's alone if it is new."""
    return open(
        path, mode, encoding="utf-8", errors="surrogateescape",
        opener=lambda path, flags: os.open(path, flags, 0o600),
    )


def _check_trust(folder: str) -> None:
    for path in (folder, *(os.path.join(folder, name) for name in ("children", "modules", "image"))):
        why = _native.distrust(os.fsencode(path))
        if why:
            raise PermissionError(why)


def _read_children(path: str, say: Callable[..., None]) -> list[dict[str, int]]:
    """Returns a dictionary {module: microseconds} for each of the last children, in order of import."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o600)
    with open(descriptor, encoding="utf-8", errors="surrogateescape") as file:
        lines = file.readlines()
    if len(lines) > 2 * _CHILDREN:
        lines = lines[-_CHILDREN:]
        try:
            _replace(path, lines)
        except OSError as error:
            say("error", error)
    return [_times_of(line) for line in lines[-_CHILDREN:]]


def _times_of(line: str) -> dict[str, int]:
    """{module: microseconds}"""
    entries = [entry.rpartition("=") for entry in line.split()]
    return {name: int(microseconds) for name, _, microseconds in entries if name and microseconds.isdigit()}


def _write_image(folder: str, program: str, told: list[str]) -> None:
    """Writes the image's file, for `warmfork template list`. told: what the template was told, in lines."""
    lines = [program, *(line for line in told if line.startswith(("ok ", "no ")))]
    _replace(os.path.join(folder, "image"), [line.replace("\n", " ") + "\n" for line in lines])


def _replace(path: str, lines: list[str]) -> None:
    # What is written meanwhile is lost: it is a statistic.
    with _open(path + ".new", "w") as file:
        file.writelines(lines)
    os.rename(path + ".new", path)


def _read_modules(path: str) -> tuple[dict[str, Judged], float]:
    """Returns what was tried, {name: ("ok", microseconds, kilobytes, stamp, file) or ("no", stamp, file, reason)}, and
    the gain."""
    known: dict[str, Judged] = {}
    gain: float = 0
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return known, gain
    for line in lines:
        verdict, name, rest = (*line.split(" ", 2), "", "")[:3]
        if verdict == "gain":
            gain = max(gain, int(name) if name.isdigit() else 0)
            continue
        judged = read_line(verdict, rest)
        if judged:
            known[name] = judged
    return known, gain


def _wanted(children: list[dict[str, int]], known: dict[str, Judged]) -> Iterable[tuple[str, float]]:
    """Returns (module, microseconds that it takes a child) of what most of the children have imported, the most common
    first and what others need before these; then of what is learned already, which children of newer images do not
    report any more."""
    times: dict[str, list[int]] = {}
    for child in children:
        for name, microseconds in child.items():
            times.setdefault(name, []).append(microseconds)
    common = [name for name, all_times in times.items() if len(all_times) > _SHARE * len(children)]
    wanted = {name: sum(times[name]) / len(times[name]) for name in sorted(common, key=lambda name: -len(times[name]))}
    for name, judged in known.items():
        if judged[0] == "ok":
            wanted.setdefault(name, judged[1])
    return wanted.items()


def _remember(folder: str, line: str) -> None:
    with _open(os.path.join(folder, "modules"), "a") as file:
        file.write(line.replace("\n", " ") + "\n")
