"""What an import asks of the process that it runs in, or does beyond it, module by module.

This runs in a template, while it preloads. What a module asked for may still be kept somewhere: see _kept.py.
"""

from __future__ import annotations

import _frozen_importlib as _bootstrap
import _thread
import os
import sys
import time

from .. import _native
from . import _kept
from ._arguments import Arguments
from ._listings import Listings
from ._modules import is_standard
from ._temporary import Temporary

# It is the same as typing's, which children that import it would otherwise find loaded.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from .._types import Span

# What is counted; all but the last as _native.observe has them.
KINDS = (*_native.ASKED, "program", "output", "file", "arguments")
_PROCESS, _THREAD, _PROGRAM, _OUTPUT = map(KINDS.index, ("process id", "thread id", "program", "output"))
# Functions that start programs of which it is known what they read, or ask for what they tell nobody: {module:
# (attribute that has the function, or "", its name, kind)}. `uname -p` says nothing that changes while the machine
# runs; `ldconfig -p` shows ld.so.cache, which belongs to every image; temporary names are drawn anew where the process
# is another one; up to CPython 3.11 the interpreter asks, for itself, in whoever starts a thread.
_HARMLESS = {
    "platform": ("_Processor", "from_subprocess", _PROGRAM),
    "ctypes.util": ("", "_findSoname_ldconfig", _PROGRAM),
    "threading": ("", "_start_new_thread", _THREAD),
    "tempfile": ("_RandomNameSequence", "__next__", _PROCESS),
}
_SECOND = 1_000_000_000
# Of the interpreter, in nanoseconds, where it cannot be told.
_LONGEST_START = 60 * _SECOND


class Seen:
    """What was seen of one import, without those that it has caused. counts: by KINDS. real, monotonic: when it began
    and ended, in nanoseconds. output_at: where in the template's output it began."""

    def __init__(self, counts: Iterable[int], real: Span, monotonic: Span, output_at: int) -> None:
        self.counts, self.real, self.monotonic = dict(zip(KINDS, counts)), real, monotonic
        self.output_at = output_at

    def __getitem__(self, kind: str) -> int:
        return self.counts[kind]

    def __add__(self, other: Seen) -> Seen:
        counts = [self.counts[kind] + other.counts[kind] for kind in KINDS]
        began, ended = zip(*((min(one[0], two[0]), max(one[1], two[1])) for one, two in (
            (self.real, other.real), (self.monotonic, other.monotonic)
        )))
        return Seen(counts, (began[0], ended[0]), (began[1], ended[1]), min(self.output_at, other.output_at))


def _seen_at_start() -> dict[str, Seen]:
    """Of the modules that the interpreter itself has imported, as sitecustomize: nobody has looked on, so that each
    may have asked for all of it. A small process id is there by chance too often."""
    *_, real, monotonic = _native.observe()
    age = _age()
    kinds = {"time", "random bytes"} | (set() if _kept.is_small(os.getpid()) else {"process id"})
    real_span, monotonic_span = [(now - age, now) for now in (real, monotonic)]
    seen = Seen([int(kind in kinds) for kind in KINDS], real_span, monotonic_span, 0)
    return {name: seen for name in list(sys.modules) if name != "__main__" and not is_standard(name)}


def _age() -> int:
    """Returns for how long there has been this process, in nanoseconds. A clock that begins with the machine may have
    shown less before that, as numbers have that somebody has written down."""
    try:
        with open("/proc/self/stat", "rb") as file:
            began = int(file.read().rpartition(b")")[2].split()[19])
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - began * (_SECOND // os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return _LONGEST_START


class Observer:
    """Looks on from its making until `stop`. seen: {name of a module: Seen}, of those where anything was. at_start:
    the same of those that were there before. had_generators: may one of these have seeded the module random's, or one
    of its own?"""

    def __init__(self, flush: Callable[[], None], is_first: bool) -> None:
        """flush: writes out what streams have buffered. is_first: in the interpreter that has just started."""
        self.seen: dict[str, Seen] = {}
        self.at_start = _seen_at_start() if is_first else {}
        self.had_generators = bool(self.at_start) and "_random" in sys.modules
        self._flush = flush
        self._thread = _thread.get_ident()
        self._within = [[0] * len(KINDS)]  # what imports have caused that an import has caused
        self.arguments = Arguments()
        # This comes ahead of the loader, which has it look at each module: where imports are lazy its own comes with
        # the call.
        self._listings = Listings()
        self._names = [""]  # of the imports under way
        self._temporary = Temporary(lambda: self._names[-1])
        # Where there is no loader all is noted under the name that was asked for.
        self._load = getattr(_bootstrap, "_load_unlocked", None)
        if self._load is not None:
            _bootstrap._load_unlocked = self._make_loader()
        self._harmless = [0] * len(KINDS)
        self._put_back: list[tuple[Any, str, Any]] = []  # (object, name, function)
        for name in _HARMLESS:
            self._look_at(name)

    def stop(self) -> None:
        self._listings.stop()
        self._temporary.stop()
        if self._load is not None:
            _bootstrap._load_unlocked = self._load
        for owner, name, function in self._put_back:
            setattr(owner, name, function)
        self.arguments.give_back()

    def clear(self) -> None:
        """Drops what was seen so far."""
        self.seen.clear()
        self.at_start.clear()
        self.had_generators = False
        self._temporary.clear()

    def left_behind(self) -> dict[str, str]:
        """Returns {name of a module: path of a temporary file or directory that is still there}."""
        return self._temporary.left()

    def is_temporary(self, path: str) -> bool:
        """Has tempfile made it, or what it lies in?"""
        return self._temporary.has_made(path)

    def _make_loader(self) -> Callable[[Any], Any]:
        load: Any = self._load

        def load_unlocked(spec: Any) -> Any:
            if _thread.get_ident() != self._thread:
                return load(spec)
            module = self.watch(spec.name, load, spec)
            self._look_at(spec.name)
            self._listings.look_at(spec.name)
            self._temporary.look_at(spec.name)
            return module

        # Tracebacks and warnings pass over the frames of the import system.
        for function in (load_unlocked, Observer.watch):
            function.__code__ = function.__code__.replace(co_filename=load.__code__.co_filename)
        return load_unlocked

    def _look_at(self, module: str) -> None:
        """Counts what the module starts or asks for, if it is one of _HARMLESS, as such."""
        if module not in _HARMLESS:
            return  # a module's own __getattr__ is not to be called
        attribute, name, kind = _HARMLESS[module]
        owner = sys.modules.get(module)
        owner = getattr(owner, attribute, None) if attribute else owner
        start: Any = getattr(owner, name, None)
        if start is None:
            return

        def counted(*arguments: Any, **keywords: Any) -> Any:
            before = _native.observe()[kind]
            try:
                return start(*arguments, **keywords)
            finally:
                self._harmless[kind] += _native.observe()[kind] - before

        self._put_back.append((owner, name, start))
        setattr(owner, name, counted)

    def watch(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls the function, and notes under the name what that asks for."""
        self._within.append([0] * len(KINDS))
        self._names.append(name)
        before = self._look()
        try:
            return function(*arguments)
        finally:
            self._names.pop()
            after = self._look()
            within = self._within.pop()
            total = [new - old for new, old in zip(after[0], before[0])]
            self._within[-1] = [sum(pair) for pair in zip(self._within[-1], total)]
            own = [count - caused for count, caused in zip(total, within)]
            if any(own):
                seen = Seen(own, (before[1], after[1]), (before[2], after[2]), before[0][_OUTPUT])
                self.seen[name] = self.seen[name] + seen if name in self.seen else seen

    def _look(self) -> tuple[list[int], int, int]:
        self._flush()
        *counts, real, monotonic = _native.observe()
        counts.append(self.arguments.reads())
        return [count - harmless for count, harmless in zip(counts, self._harmless)], real, monotonic
