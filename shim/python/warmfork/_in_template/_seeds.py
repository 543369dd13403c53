"""Is the seed of a generator of random numbers one that the process has given, or the same in every process?"""

import sys

from . import _kept

# Smaller ones are taken for what somebody has written down, but for the process id itself.
_SMALL = 10_000
_WORD = 32
_BYTES_OF_HASH = 64
# Python's hash of a number is its rest by this, and that of a float is made as if it was a fraction of numbers.
_HASH_MODULUS = sys.hash_info.modulus
_BITS_OF_FLOAT = 53


class Seeds:
    """draws: the random bytes that were drawn. moment: a Moment, which takes the doubts."""

    def __init__(self, draws, moment):
        self._drawn, self._moment = _kept.Drawn(draws), moment
        self._written = None

    def is_of_process(self, number, generator):
        """Is this the seed of a generator that each child seeds anew? number: None: it cannot be told. Where it may
        be, and may not be, the generator is left alone, and there is a doubt."""
        if number is None:
            return self._doubt(generator, "has a state of which it cannot be told what has seeded it")
        if self._drawn.has_number(number) or self._moment(number, generator):
            return True
        text = _text_of(number)
        if text is not None:
            return self._is_text_of_process(text, generator)
        if self._is_hash_of_time(number):
            return True
        if self._is_written(number):
            return False
        return self._doubt(generator, f"has the seed {number}, and it is not known what that was computed from")

    def _doubt(self, generator, text):
        self._moment.doubts.append((generator, text))
        return False

    def _is_text_of_process(self, text, generator):
        if self._drawn.is_in(text, bytes):
            return True
        digits = "".join(letter if letter.isdecimal() else " " for letter in text.decode("latin-1"))
        return any(self._moment(int(part), generator) for part in digits.split())

    def _is_hash_of_time(self, number):
        for shift in range(_BITS_OF_FLOAT):
            numerator = (number << shift) % _HASH_MODULUS
            if numerator >> _BITS_OF_FLOAT == 0 and self._moment.is_clock(numerator / (1 << shift)):
                return True
        return False

    def _is_written(self, number):
        """Is it a number that stands in the code of a module, or of such numbers, as the elements of a list are?"""
        words = [number >> shift & 0xFFFFFFFF for shift in range(0, number.bit_length() or 1, _WORD)]
        if all(word < _SMALL for word in words):
            return True
        if self._written is None:
            self._written = _numbers_in_modules()
        return number in self._written or all(word < _SMALL or word in self._written for word in words)


def told(generator, text):
    """A doubt in words, with the name of the generator where a module has it by one."""
    kind = type(generator)
    kind = f"{kind.__module__}.{kind.__qualname__}"
    for name, module in list(sys.modules.items()):
        for attribute, value in list(_kept.attributes_of(module).items()):
            if value is generator and type(attribute) is str:
                return f"{name}.{attribute}, a {kind}, {text}"
    return f"a {kind}, which a module keeps, {text}"


def _text_of(number):
    """What random.seed() has made this number of, as bytes; None: it is no such number."""
    data = number.to_bytes((number.bit_length() + 7) // 8, "big")
    make_hash = getattr(sys.modules.get("random"), "_sha512", None)
    if make_hash is None or len(data) < _BYTES_OF_HASH:
        return None
    text = data[:-_BYTES_OF_HASH]
    return text if make_hash(text).digest() == data[-_BYTES_OF_HASH:] else None


def _numbers_in_modules():
    """Those in the code of all modules but the standard library's; of floats what they are as a seed."""
    found = set()
    for name, module in list(sys.modules.items()):
        spec = _kept.attributes_of(module).get("__spec__")
        get_code = getattr(getattr(spec, "loader", None), "get_code", None)
        if get_code is None or _kept.is_standard(name):
            continue
        try:
            todo = [get_code(spec.name)]
        except Exception:
            continue  # whatever a loader of its own raises
        while todo:
            value = todo.pop()
            if hasattr(value, "co_consts"):
                todo.extend(value.co_consts)
            elif type(value) in (tuple, frozenset):
                todo.extend(value)
            elif type(value) is int:
                found.add(abs(value))
            elif type(value) is float:
                found.add(hash(value) & (1 << 64) - 1)
            elif type(value) is str and value.isdecimal() and len(value) < _BYTES_OF_HASH:
                found.add(int(value))
    return found
