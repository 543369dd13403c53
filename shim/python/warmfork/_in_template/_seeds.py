"""Is the seed of a generator of random numbers one that the process has given, or the same in every process?"""

from __future__ import annotations

import sys

from .. import _native
from . import _kept
from ._modules import attributes_of
from ._written import Written

# It is the same as typing's, which children that import it would otherwise find loaded.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

# Smaller ones are taken for what somebody has written down, but for the process id itself.
_SMALL = 10_000
_WORD = 32
_BYTES_OF_HASH = 64
# Of a number that is written out: Python refuses to write out those of some thousand digits.
_MOST_BITS = 256
_MOST_DIGITS = 20  # of a clock, in a text
# Python's hash of a number is its rest by this, and that of a float is made as if it was a fraction of numbers.
_HASH_MODULUS = sys.hash_info.modulus
_BITS_OF_FLOAT = 53


class Seeds:
    """draws: the random bytes that were drawn. moment: a Moment, which takes the doubts."""

    def __init__(self, draws: Iterable[bytes], moment: _kept.Moment) -> None:
        self._draws, self._moment = draws, moment
        self._has_unseen = _native.observe()[_native.ASKED.index(_kept.UNSEEN)] > 0
        self._drawn: _kept.Drawn | None = None  # until a seed has to be looked for there
        self._written: Written | None = None  # likewise

    def check(self, number: int | None, generator: Any, may_be_unseen: bool = False) -> bool:
        """Returns whether this is the seed of a generator that each child seeds anew. number: None: it cannot be told.
        Where it may be, and may not be, the generator is left alone, and a doubt is noted. may_be_unseen: its library
        has seeded it, by what the system has drawn: where some of that was not seen, it was this."""
        if number is not None and (self._in_drawn().has_number(number) or self._moment(number, generator)):
            return True
        text = None if number is None else _text_of(number)
        if text is not None:
            return self._check_text(text, generator)
        if number is not None and self._is_hash_of_time(number):
            return True
        if number is not None and self._is_written(number):
            return False
        if may_be_unseen and self._has_unseen:
            return True
        if number is None:
            return self.doubt(generator, "has a state of which it cannot be told what has seeded it")
        return self.doubt(generator, f"has the seed {_shown(number)}, and it is not known what that was computed from")

    def doubt(self, generator: Any, text: str) -> bool:
        """Notes that it cannot be told. Returns False: the generator is left alone."""
        self._moment.doubts.append((generator, text))
        return False

    def _in_drawn(self) -> _kept.Drawn:
        if self._drawn is None:
            self._drawn = _kept.Drawn(self._draws)
        return self._drawn

    def _check_text(self, text: bytes, generator: Any) -> bool:
        if self._in_drawn().is_in(text, bytes):
            return True
        digits = "".join(letter if letter.isdecimal() else " " for letter in text.decode("latin-1"))
        if any(self._moment(int(part), generator) for part in digits.split() if len(part) <= _MOST_DIGITS):
            return True
        if not text or text in self._in_modules().texts:
            return False
        shown = text.decode(errors="replace")[:_MOST_DIGITS]
        return self.doubt(generator, f"has a seed that begins with {shown!r}, and is written in the code of no module")

    def _is_hash_of_time(self, number: int) -> bool:
        for shift in range(_BITS_OF_FLOAT):
            numerator = (number << shift) % _HASH_MODULUS
            if numerator >> _BITS_OF_FLOAT == 0 and self._moment.is_clock(numerator / (1 << shift)):
                return True
        return False

    def _is_written(self, number: int) -> bool:
        """Is it a number that stands in the code of a module, or of such numbers, as the elements of a list are?"""
        words = [number >> shift & 0xFFFFFFFF for shift in range(0, number.bit_length() or 1, _WORD)]
        if all(word < _SMALL for word in words):
            return True
        numbers = self._in_modules().numbers
        return number in numbers or all(word < _SMALL or word in numbers for word in words)

    def _in_modules(self) -> Written:
        if self._written is None:
            self._written = Written()
        return self._written


def told(generator: Any, text: str) -> str:
    """A doubt in words, with the name of the generator where a module has it by one."""
    found = type(generator)
    kind = f"{found.__module__}.{found.__qualname__}"
    for name, module in list(sys.modules.items()):
        for attribute, value in list(attributes_of(module).items()):
            if value is generator and type(attribute) is str:
                return f"{name}.{attribute}, a {kind}, {text}"
    return f"a {kind}, which a module keeps, {text}"


def _shown(number: int) -> str:
    bits = number.bit_length()
    return str(number) if bits <= _MOST_BITS else f"{number >> bits - _MOST_BITS:#x}... ({bits} bits)"


def _text_of(number: int) -> bytes | None:
    """What random.seed() has made this number of, as bytes; None: it is no such number."""
    data = number.to_bytes((number.bit_length() + 7) // 8, "big")
    make_hash = getattr(sys.modules.get("random"), "_sha512", None)
    if make_hash is None or len(data) < _BYTES_OF_HASH:
        return None
    text = data[:-_BYTES_OF_HASH]
    return text if make_hash(text).digest() == data[-_BYTES_OF_HASH:] else None
