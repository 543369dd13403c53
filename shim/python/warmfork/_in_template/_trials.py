"""Can a module be preloaded that children went on to import? Each is tried by itself, and a line tells what came of it."""

from __future__ import annotations

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
    from typing import Any

    from .._types import Judged, Stamp
    from ._observer import Observer

# The longest line about a module, which goes through a pipe at once: PIPE_BUF.
_MOST_BYTES = 4096


class Trials:
    """Tries modules, each in a process of its own: what one that is refused leaves behind (modules in C, threads, an id
    that a library has made) is no reason to refuse others. One that can be preloaded is imported here then, for those
    that need it."""

    def __init__(self, observer: Observer, allowed: list[str]) -> None:
        self._observer, self._allowed = observer, allowed
        self._generators: list[Any] = []  # that are there already

    def try_apart(self, name: str, microseconds: float) -> Judged:
        """Returns what comes of it, as _read_modules has it. microseconds: what it takes a child."""
        from importlib import import_module

        identity = identity_of(name)  # before it is tried: what is written meanwhile is another one
        self._set_aside()
        read_end, write_end = os.pipe()
        patience, _ = signal.getitimer(signal.ITIMER_REAL)
        process = os.fork()
        if process == 0:
            status = 1
            try:
                signal.setitimer(signal.ITIMER_REAL, max(1, patience - 5))  # which is not inherited
                verdict, *facts = self._try(name, microseconds)
                line = line_of(name, (verdict, *(identity if verdict == "no" else ()), *facts))
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
        judged = read_line(verdict, rest)
        if status or judged is None:
            return "no", *identity, f"its import ended the process, {how_it_ended(status)}"
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


def read_line(verdict: str, rest: str) -> Judged | None:
    """Returns what a line says, as `line_of` writes it; None where it has been cut short."""
    try:
        if verdict == "no":
            size, modified, rest = rest.split(" ", 2)
            file, reason = rest.split("\t", 1)
            return verdict, (int(size), int(modified)), file, reason
        microseconds, kilobytes, size, modified, file = rest.split(" ", 4)
        return verdict, int(microseconds), int(kilobytes), (int(size), int(modified)), file
    except ValueError:
        return None


def line_of(name: str, judged: Judged) -> str:
    verdict, *facts = judged
    if verdict == "no":
        (size, modified), file, reason = facts
        return f"no {name} {size} {modified} {file}\t{reason}"
    microseconds, kilobytes, (size, modified), file = facts
    return f"ok {name} {microseconds} {kilobytes} {size} {modified} {file}"


def is_known(name: str, judged: Judged | None) -> bool:
    """Was it tried as it is now?"""
    if judged is None:
        return False
    if judged[0] == "no":
        return identity_of(name) == judged[1:3]
    *_, stamp, file = judged
    return _stamp(file) == stamp


def identity_of(name: str) -> tuple[Stamp, str]:
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


def how_it_ended(status: int) -> str:
    """Says how a process has ended. status: as of os.waitpid."""
    return f"signal {status & 127}" if status & 127 else f"exit status {status >> 8}"


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
