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
import gc
import os
import signal
import sys
import time

from .. import _native
from ._findings import Findings
from ._generators import Generators, find_generators, state_of
from ._kept import Moment
from ._seeds import Seeds

# It is the same as typing's, which children that import it would otherwise find loaded.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, IO, NoReturn

    from .._types import Judged, Stamp
    from ._observer import Observer

# This many children are asked; the reports of twice as many are kept.
_CHILDREN = 500
# A module is learned if more than this part of the children has imported it.
_SHARE = 0.5
# What all that is learned may add to an image, first in microseconds of its start beside what a child gains by it, as
# the first child waits for both, then in kilobytes of its memory.
_MOST_MICROSECONDS_MORE = 5000
_MOST_KILOBYTES = 256 << 10
# The longest line about a module, which goes through a pipe at once: PIPE_BUF.
_MOST_BYTES = 4096
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
            _remember(self.folder, _line(name, ("no", *_identity(name), reason)))
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
            learned.refuse(trying, f"its import ended the process, {_how(status)}")
        else:
            learned.error = f"the helper ended with {_how(status)}"
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
    trials = _Trials(observer, allowed)
    for name, cost in _wanted(children, known):
        if microseconds + cost > gain + _MOST_MICROSECONDS_MORE:
            say("no", name, "the image would start later by it than a child does earlier")
            continue
        if not _is_known(name, known.get(name)):
            has_changed = has_changed or name in known
            known.pop(name, None)
        # A module may have been refused because of what it imports, which comes before it here.
        if name not in known or has_changed and known[name][0] == "no":
            if time.monotonic() > enough:
                continue
            say("try", name)
            known[name] = trials.try_apart(name, cost)
            remember(_line(name, known[name]))
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
        judged = _judged(verdict, rest)
        if judged:
            known[name] = judged
    return known, gain


def _judged(verdict: str, rest: str) -> Judged | None:
    """Returns what a line says, as `_line` writes it; None where it has been cut short."""
    try:
        if verdict == "no":
            size, modified, rest = rest.split(" ", 2)
            file, reason = rest.split("\t", 1)
            return verdict, (int(size), int(modified)), file, reason
        microseconds, kilobytes, size, modified, file = rest.split(" ", 4)
        return verdict, int(microseconds), int(kilobytes), (int(size), int(modified)), file
    except ValueError:
        return None


def _line(name: str, judged: Judged) -> str:
    verdict, *facts = judged
    if verdict == "no":
        (size, modified), file, reason = facts
        return f"no {name} {size} {modified} {file}\t{reason}"
    microseconds, kilobytes, (size, modified), file = facts
    return f"ok {name} {microseconds} {kilobytes} {size} {modified} {file}"


def _is_known(name: str, judged: Judged | None) -> bool:
    """Was it tried as it is now?"""
    if judged is None:
        return False
    if judged[0] == "no":
        return _identity(name) == judged[1:3]
    *_, stamp, file = judged
    return _stamp(file) == stamp


def _identity(name: str) -> tuple[Stamp, str]:
    """Returns (stamp, file) of a module that need not be importable: nothing is imported. The file is "" where there is
    none."""
    from importlib.machinery import PathFinder

    path: Any = None
    spec: Any = None
    parts = name.split(".")
    try:
        for count in range(1, len(parts) + 1):
            spec = PathFinder.find_spec(".".join(parts[:count]), path)
            path = spec.submodule_search_locations
    except Exception:  # of a finder that others have brought, or where a package is none
        spec = None
    file = spec and spec.has_location and spec.origin or ""
    return _stamp(file), file


def _stamp(file: str) -> Stamp:
    try:
        status = os.stat(file)
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


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


def _resident_kilobytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 10


def _threads() -> list[str]:
    return os.listdir("/proc/self/task")


def _shared_memory() -> set[str]:
    """Returns addresses of what this process could write to, and another one would see."""
    with open("/proc/self/maps") as maps:
        found = [line.split(" ", 2) for line in maps]
    return {addresses for addresses, permissions, _ in found if permissions[1] + permissions[3] == "ws"}


def _threads_after_fork() -> list[str]:
    """Returns the threads that are left after a fork: fork handlers may end some, as OpenBLAS's do."""
    if len(_threads()) > 1:
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
    return _threads()


class _Trials:
    """Tries modules, each in a process of its own: what one that is refused leaves behind (modules in C, threads, an id
    that a library has made) is no reason to refuse others. One that can be preloaded is imported here then, for those
    that need it."""

    def __init__(self, observer: Observer, allowed: list[str]) -> None:
        self._observer, self._allowed = observer, allowed
        self._generators: list[Any] = []  # that are there already

    def try_apart(self, name: str, microseconds: float) -> Judged:
        """Returns what comes of it, as _read_modules has it. microseconds: what it takes a child."""
        from importlib import import_module

        identity = _identity(name)  # before it is tried: what is written meanwhile is another one
        self._set_aside()
        read_end, write_end = os.pipe()
        patience, _ = signal.getitimer(signal.ITIMER_REAL)
        process = os.fork()
        if process == 0:
            status = 1
            try:
                signal.setitimer(signal.ITIMER_REAL, max(1, patience - 5))  # which is not inherited
                verdict, *facts = self._try(name, microseconds)
                line = _line(name, (verdict, *(identity if verdict == "no" else ()), *facts))
                os.write(write_end, line.encode(errors="surrogateescape")[:_MOST_BYTES])
                status = 0
            finally:
                os._exit(status)
        os.close(write_end)
        _, status = os.waitpid(process, 0)
        os.set_blocking(read_end, False)  # a process that the module has started may have the other end
        with open(read_end, "rb", 0) as pipe:
            line = (pipe.read(_MOST_BYTES) or b"").decode(errors="surrogateescape")
        verdict, _, rest = (*line.split(" ", 2), "", "")[:3]
        judged = _judged(verdict, rest)
        if status or judged is None:
            return "no", *identity, f"its import ended the process, {_how(status)}"
        if verdict == "ok":
            try:
                import_module(name)
            except BaseException as error:
                return "no", *identity, f"it can be imported once, and not again: {error}"
        return judged

    def _set_aside(self) -> None:
        """Has the collector pass over what there is: it is none of the next module's. That is also quicker by far than
        to go through it after each fork, which copies it."""
        self._generators = find_generators(self._generators)
        gc.freeze()

    def _try(self, name: str, microseconds: float) -> tuple[Any, ...]:
        """Imports it here, where it does no harm."""
        from importlib import import_module

        _native.resume_recording()
        random = sys.modules.get("random")
        if random is not None:
            random._inst.seed()  # again, as it has done when this process was forked: what it draws is noted now
        states = {id(generator): state_of(generator) for generator in self._generators}
        threads, descriptors, memory = len(_threads()), _native.descriptors_in_the_way(), _shared_memory()
        resident = _resident_kilobytes()
        self._observer.clear()
        began, frozen = (time.time_ns(), time.monotonic()), gc.get_freeze_count()
        try:
            module = import_module(name)
        except BaseException as error:
            return "no", f"it cannot be imported in a template: {type(error).__name__}: {error}".replace("\n", " ")
        kilobytes = max(0, _resident_kilobytes() - resident)
        if gc.get_freeze_count() != frozen:
            gc.unfreeze()
        findings = self._findings(began, states)
        if findings.found:
            return "no", findings.found[0][1].replace("\n", " ")
        # A template of an application is in the directory that most of its children are started in.
        bound = [module for module in findings.in_directory if f"directory:{module}" not in self._allowed]
        if bound and os.getcwd() == "/":
            return "no", f"{bound[0]} depends on the directory that it is imported in"
        if len(_threads_after_fork()) > threads:
            return "no", "it starts threads"
        if _native.descriptors_in_the_way() - descriptors:
            return "no", "it leaves descriptors open"
        if _shared_memory() - memory:
            return "no", "it leaves memory that children would share, as locks between processes are"
        file = getattr(module, "__file__", None) or ""
        return "ok", round(microseconds), kilobytes, _stamp(file), file

    def _findings(self, began: tuple[int, float], states: dict[int, Any]) -> Findings:
        """began: both clocks before the import. states: {id: state_of} of the generators that were there: what has
        seeded one that still has it was none of this import's."""
        draws = _native.drawn()
        moment = Moment(began[0], self._observer)
        generators = find_generators(self._generators)
        changed = [generator for generator in generators if states.get(id(generator)) != state_of(generator)]
        Generators(changed, draws, Seeds(draws, moment))
        return Findings(self._observer, draws, generators, began[1], moment.doubts)


def _how(status: int) -> str:
    """Says how a process has ended. status: as of os.waitpid."""
    return f"signal {status & 127}" if status & 127 else f"exit status {status >> 8}"


def _remember(folder: str, line: str) -> None:
    with _open(os.path.join(folder, "modules"), "a") as file:
        file.write(line.replace("\n", " ") + "\n")
