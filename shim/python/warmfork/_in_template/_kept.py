"""What preloaded modules keep of the process that imported them, and a child would have otherwise.

Only what a module has asked for while it was imported (see _observer.py) is looked for: a number that happens to be
the process id is none where nobody asked for one.
"""

from __future__ import annotations

import gc
import os
import sys
import time
import types

from ._arguments import Rest
from ._held import UnseenParts, base_of
from ._modules import attributes_of, is_standard
from ._written import Written

# It is the same as typing's, which children that import it would otherwise find loaded.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from typing import Any

    from .._types import Kept
    from ._observer import Observer, Seen

# Objects of these types hold no others that count.
_LEAVES = (int, float, complex, str, bytes, bytearray, bool, type(None))
_CLOSED = (types.ModuleType, types.CodeType, types.FrameType, types.BuiltinFunctionType)
# The modules of these types: what they hold is the standard library's, which sees to itself.
_SEEN_TO = (
    "threading", "_thread", "logging", "random", "tempfile", "_frozen_importlib", "_frozen_importlib_external",
)
# How many objects of one package are looked at, and how long a text may be.
_MOST_OBJECTS = 500_000
_LONGEST_TEXT = 200
_SHORTEST_DRAW, _LONGEST_DRAW = 4, 4096
# Of those that are looked for within texts, and of how many hexadecimal digits a part of one has.
_LONGEST_PART = 64
_DIGITS_OF_PART = 8
_SHORTEST_BASE64 = 11
# From so many on a number in a text is hardly there by chance.
_DIGITS_THAT_TELL = 4
# For str.translate: what separates these. UUIDs have hyphens.
_OTHERS_THAN_DIGITS = {
    number: "" if chr(number) == "-" else " " for number in range(256) if chr(number) not in "0123456789abcdef"
}
_OTHERS_THAN_BASE64 = {number: " " for number in range(256) if not chr(number).isalnum() and chr(number) not in "+/-_"}
_SECOND = 1_000_000_000
_ROUNDING = 1000  # nanoseconds
_SLACK = 0.001
_SHIFTS = (0, -time.timezone, -time.altzone)  # of UTC taken for local time

# The standard library's modules keep nothing, as what they keep is put right in each child, by themselves or by
# _child.py. Nor do those of this package: their numbers are not the process's, however small its id is.
_OWN_PACKAGE = __name__.partition(".")[0]


KEPT = ("process id", "thread id", "time", "random bytes", "directory", "arguments")
# As in protocol/preload_interface.hpp, too.
UNSEEN = "unseen random bytes"
# The kind of what nobody has looked for, since there was too much.
UNSEARCHED = "something in more objects than are looked at"
# Of what raises something else when it is asked, such as a moment without a time zone that works.
UNTOLD = "something in an object that does not tell what it holds"


def has_asked_for_process(seen: dict[str, Seen]) -> bool:
    """Has any module asked for the process, but for those that see to themselves?"""
    kinds = ("process id", "thread id")
    return any(of_module[kind] for name, of_module in seen.items() if not is_standard(name) for kind in kinds)


def is_small(pid: int) -> bool:
    """Is it small, as the process ids in a container are? Such a number is often there by chance."""
    return pid < 10 ** (_DIGITS_THAT_TELL - 1)


def described(kind: str) -> str:
    """Describes it for whoever decides whether to allow it. A small number counts all the same: nobody can tell where
    it is from."""
    pid = os.getpid()
    return f"{kind} ({pid}, which may be there by chance)" if kind == "process id" and is_small(pid) else kind


class Moment:
    """The process id and the time at which the image was made, as numbers that a program may have kept.

    doubts: (generator, text), of those of which it cannot be told whether the process has seeded them.
    """

    def __init__(self, began: int, observer: Observer) -> None:
        """began: time.time_ns() at the first import. observer: an Observer, which has looked on since."""
        at_start = observer.at_start
        asks = observer.had_generators or has_asked_for_process({**at_start, **observer.seen})
        self._pid = os.getpid() if asks else None
        self._began = min([began, *(of_module.real[0] for of_module in at_start.values())])
        self._ended, self._monotonic = time.time_ns(), time.monotonic()
        self.doubts: list[tuple[Any, str]] = []

    def __call__(self, number: int, generator: Any) -> bool:
        """Of its seed."""
        if number == self._pid:
            if is_small(number):
                text = f"has the process id as its seed ({number}), or one that happens to be the same"
                self.doubts.append((generator, text))
            return True
        spans = ((self._began // unit, self._ended // unit) for unit in (1, 1000, 1_000_000, _SECOND))
        return any(first <= number <= last for first, last in spans)

    def is_clock(self, seconds: float) -> bool:
        """Is it what a clock showed meanwhile?"""
        took = (self._ended - self._began) / _SECOND
        ends = self._ended / _SECOND, self._monotonic
        return any(last - took - _SLACK <= seconds <= last + _SLACK for last in ends)


class _Search:
    """A search in the modules of one package: what one of them asks for another one may keep."""

    def __init__(
        self, seen: Seen, argument: str, draws: Drawn | None, ours: Iterable[Any], namespaces: Collection[int],
    ) -> None:
        self._seen = seen
        self._visited, self._is_told = {id(value) for value in (*ours, sys.argv)}, False
        self._namespaces = namespaces
        self._arguments = argument if seen["arguments"] else None
        self._pid = os.getpid() if seen["process id"] or seen["thread id"] else None
        self._drawn = draws if seen["random bytes"] else None
        self._directory = _current_directory() if seen["directory"] else None
        self._unseen = UnseenParts()
        self._bases: dict[type, tuple[Any, Any]] = {}  # of a class: which one of datetime and of UUID it is derived from
        self._written: Written | None = None  # until it is needed
        self._seeks = self._arguments or self._pid or self._drawn or self._directory or seen["time"]

    def find(self, name: str) -> dict[str, str]:
        """Returns {name in the module: kind of what is kept there}."""
        found: dict[str, str] = {}
        if self._directory == "/":  # every path begins with it
            found["__name__"] = "directory"
        own = os.path.dirname(attributes_of(sys.modules.get(name.partition(".")[0])).get("__file__") or "")
        for attribute, value in list(attributes_of(sys.modules[name]).items()) if self._seeks else ():
            if attribute.startswith("__") and attribute.endswith("__"):
                continue
            for part in self._below(value, name):
                try:
                    kind = self._kind_of(part) or ("directory" if self._is_in_directory(part, own) else None)
                except Exception:
                    kind = UNTOLD
                if kind:
                    found.setdefault(attribute, kind)
            if len(self._visited) >= _MOST_OBJECTS and not self._is_told:
                self._is_told = True
                found.setdefault(attribute, UNSEARCHED)
        return found

    def _below(self, value: Any, module: str) -> Iterator[Any]:
        todo, visited = [value], self._visited
        while todo and len(visited) < _MOST_OBJECTS:
            value = todo.pop()
            kind = type(value)
            if kind in _LEAVES:
                yield value
            elif id(value) not in visited and id(value) not in self._namespaces:
                visited.add(id(value))
                yield value
                todo.extend(self._unseen.of(value, kind))
                if self._is_own(value, kind, module):
                    todo.extend(gc.get_referents(value))

    @staticmethod
    def _is_own(value: Any, kind: type, module: str) -> bool:
        """May the module have made what it holds?"""
        if issubclass(kind, _CLOSED):
            return False
        if issubclass(kind, type):
            return type.__getattribute__(value, "__module__") == module
        if kind is types.FunctionType:
            return value.__module__ == module
        return kind.__module__ not in _SEEN_TO

    def _kind_of(self, value: Any) -> str | None:
        kind = type(value)
        if self._arguments is not None and self._is_arguments(value, kind):
            return "arguments"
        if self._pid is not None and self._is_pid(value, kind):
            return "process id"
        if self._seen["time"] and self._is_time(value, kind):
            return "time"
        if self._drawn and self._is_drawn(self._drawn, value, kind):
            return "random bytes"
        return None

    def _is_arguments(self, value: Any, kind: type) -> bool:
        if kind is str or kind is Rest:
            return kind is Rest or value is self._arguments
        if kind not in (list, tuple) or len(value) != 1 or type(value[0]) is not bytes:
            return False
        return self._arguments is not None and value[0] == os.fsencode(self._arguments)

    def _is_in_directory(self, value: Any, own: str) -> bool:
        """Is it the path of the directory, or of something in it that is no part of the package itself? own: where
        that lies."""
        if self._directory is None or self._directory == "/":
            return False
        path = _path_of(value)
        is_own = own.startswith(self._directory + "/") and (path + "/").startswith(own + "/")
        return path == self._directory or path.startswith(self._directory + "/") and not is_own

    def _is_pid(self, value: Any, kind: type) -> bool:
        if kind is int:
            return value == self._pid
        if kind in (str, bytes) and len(value) <= _LONGEST_TEXT:
            text = value if kind is str else value.decode("latin-1")
            before, digits, behind = text.partition(str(self._pid))
            # Anything may stand behind it, as the random part of a temporary name; a short number would often be a part
            # of another one.
            is_apart = not behind[:1].isdigit() or len(digits) >= _DIGITS_THAT_TELL
            is_there = bool(digits) and not before[-1:].isdigit() and is_apart
            is_all = not before and not behind
            return is_there and (is_all or not self._is_written(value))
        return False

    def _is_written(self, text: str | bytes) -> bool:
        """Does it stand in the code of a module, as documentation does that gives a number for an example?"""
        if self._written is None:
            self._written = Written()
        return (text if isinstance(text, bytes) else text.encode(errors="surrogatepass")) in self._written.texts

    def _is_time(self, value: Any, kind: type) -> bool:
        if kind is float:
            return self._is_within(value * _SECOND, True) or self._is_within(value * 1_000_000, False)
        if kind is int:
            return any(self._is_within(value * unit, False) for unit in (1, 1_000_000, _SECOND))
        try:
            if (moment := self._bases_of(kind)[0]) is not None:
                seconds = moment.timestamp(value)
            elif kind is time.struct_time:
                seconds = time.mktime(value)
            else:
                return False
        except (ValueError, OverflowError, OSError):
            return False  # of a year that no clock shows
        return any(self._is_within((seconds + shift) * _SECOND, False) for shift in _SHIFTS)

    def _is_within(self, nanoseconds: float, may_be_monotonic: bool) -> bool:
        """Is it within? A whole second is the one that it began in."""
        spans = (self._seen.real, self._seen.monotonic) if may_be_monotonic else (self._seen.real,)
        slack = _ROUNDING if may_be_monotonic else _SECOND
        return any(first - slack <= nanoseconds <= last + _ROUNDING for first, last in spans)

    def _bases_of(self, kind: type) -> tuple[Any, Any]:
        if kind not in self._bases:
            self._bases[kind] = base_of(kind, "datetime", "datetime"), base_of(kind, "uuid", "UUID")
        return self._bases[kind]

    def _is_drawn(self, drawn: Drawn, value: Any, kind: type) -> bool:
        if self._bases_of(kind)[1] is not None:
            return drawn.has_number(value.int)
        return drawn.is_in(value, kind)


def _path_of(value: Any) -> str:
    """Returns the path of a text or of an object of pathlib's; "" for others."""
    kind = type(value)
    if kind is bytes:
        return os.fsdecode(value)
    if kind is str:
        return value
    paths = attributes_of(sys.modules.get("pathlib")).get("PurePath")
    return str(value) if paths is not None and issubclass(kind, paths) else ""


def _current_directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it has been removed: nobody keeps what nobody gets
        return None


def without_version(number: int) -> int:
    """Of a UUID that was made of random bytes."""
    return number & ~(0xF << 76) & ~(0xC << 60)


class Drawn:
    """What usually becomes of random bytes: numbers, hexadecimal digits, texts, UUIDs."""

    def __init__(self, draws: Iterable[bytes]) -> None:
        self._values: set[Any] = set()
        self._numbers: set[int] = set()
        self._digits: set[str] = set()
        self._base64: set[str] = set()
        for draw in draws:
            if len(draw) < _SHORTEST_DRAW:
                continue
            self._numbers.update((int.from_bytes(draw, "big"), int.from_bytes(draw, "little")))
            if len(draw) <= _LONGEST_DRAW:
                self._add_forms(draw)
        self._sizes = [{len(form) for form in forms} for forms in (self._digits, self._base64)]

    def _add_forms(self, draw: bytes) -> None:
        big, digits = int.from_bytes(draw, "big"), [draw.hex()]
        self._values.update((draw, big, int.from_bytes(draw, "little"), *digits))
        if len(draw) == 16:
            number = without_version(big)
            self._values.add(number)
            digits.append(f"{number | 4 << 76 | big & (3 << 60) | 2 << 62:032x}")
        elif len(draw) == 32:  # a key for signing and one for encrypting
            self._values.update((draw[:16], draw[16:]))
        elif len(draw) == 7:  # as random.SystemRandom makes a fraction of them
            self._values.add((big >> 3) * 2**-53)
        if len(draw) <= _LONGEST_PART:
            self._digits.update(part for all_of_it in digits for part in (all_of_it, all_of_it[:_DIGITS_OF_PART]))
            if len(draw) > _SHORTEST_DRAW:  # a number that was drawn has fewer bits than its bytes
                self._values.update(big >> shift for shift in range(1, 8))
        if "binascii" in sys.modules:  # nobody has made base64 of it without
            encoded = sys.modules["binascii"].b2a_base64(draw).rstrip(b"=\n").decode()
            forms = {encoded, encoded.replace("+", "-").replace("/", "_")}
            self._values.update(forms)
            if _SHORTEST_BASE64 <= len(encoded) and len(draw) <= _LONGEST_PART:
                self._base64.update(forms)

    def __bool__(self) -> bool:
        return bool(self._values)

    def has_number(self, number: int) -> bool:
        """Is it one that random bytes of any length are?"""
        return number in self._numbers or without_version(number) in self._values

    def is_in(self, value: Any, kind: type) -> bool:
        if kind is int or kind is float:
            return value in self._values
        if kind is bytes or kind is bytearray:
            return bytes(value) in self._values or self._is_in_text(value.decode("latin-1"))
        return kind is str and self._is_in_text(value)

    def _is_in_text(self, text: str) -> bool:
        """All of it, or a part of a text that is not long."""
        if text in self._values:
            return True
        if not _DIGITS_OF_PART <= len(text) <= _LONGEST_TEXT:
            return False
        parts = (text.lower().translate(_OTHERS_THAN_DIGITS), self._digits, self._sizes[0], _DIGITS_OF_PART), (
            text.translate(_OTHERS_THAN_BASE64), self._base64, self._sizes[1], _SHORTEST_BASE64,
        )
        return any(
            word[at:at + size] in forms
            for words, forms, sizes, shortest in parts if forms
            for word in words.split() if len(word) >= shortest
            for size in sizes for at in range(len(word) - size + 1)
        )


def find_kept(seen: dict[str, Seen], argument: str, draws: Iterable[bytes], ours: Iterable[Any] = ()) -> Kept:
    """{name of a module: {name in it: kind}} of what was asked for and is kept. seen: as of Observer. argument: its
    stand-in for sys.argv[0]. draws: random bytes that were drawn. ours: objects that are
    put right in each child, as sys.argv is."""
    packages: dict[str, list[Seen]] = {}
    for name, of_module in seen.items():
        package = name.partition(".")[0]
        if package != _OWN_PACKAGE and not is_standard(name) and any(of_module[kind] for kind in KEPT):
            packages.setdefault(package, []).append(of_module)
    drawn = Drawn(draws) if packages else None
    namespaces = {id(attributes_of(module)) for module in list(sys.modules.values())}
    searches = {
        package: _Search(sum(of_modules[1:], of_modules[0]), argument, drawn, ours, namespaces)
        for package, of_modules in packages.items()
    }
    kept: Kept = {}
    for name in list(sys.modules):
        search = searches.get(name.partition(".")[0])
        found = search and search.find(name)
        if found:
            kept[name] = found
    return kept


def find_monotonic(began: float) -> Kept:
    """Returns what find_kept does, for clocks of which nobody notes that they are asked for, since Python does it for
    each lock. Only what a module has by name is looked at. began: time.monotonic() at the first import."""
    ended = time.monotonic()
    kept: Kept = {}
    for module, name in [(module, name) for name, module in list(sys.modules.items()) if not is_standard(name)]:
        for attribute, value in attributes_of(module).items():
            if type(value) is float and began <= value <= ended:
                kept.setdefault(name, {})[attribute] = "time"
    return kept


def put_right() -> None:
    """Puts right what is known to keep something that can be set anew."""
    uuid: Any = sys.modules.get("uuid")
    if uuid is not None and uuid._node is not None and uuid._node >> 40 & 1:
        uuid._node = None  # random, where there is no network card
    utils = sys.modules.get("numpy.testing._private.utils")
    for name in ("memusage", "jiffies"):
        function = attributes_of(utils).get(name)
        if isinstance(function, types.FunctionType) and function.__defaults__:
            own = f"/proc/{os.getpid()}/stat"
            function.__defaults__ = tuple(
                "/proc/self/stat" if type(value) is str and value == own else value for value in function.__defaults__
            )
