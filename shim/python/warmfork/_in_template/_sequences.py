"""Seeds a SeedSequence of numpy's anew, without numpy's own code: by that a child would get copies of sixty pages."""

from __future__ import annotations

import sys

from .. import _native

# It is the same as typing's, which children that import it would otherwise find loaded.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_WORD = 4
# Numpy is asked what it makes of these: one that has all the words of its own, and one that has to be filled up.
_TRIALS = (0x0123456789ABCDEF_FEDCBA9876543210, 7)


def reseeding_of(sequence: Any) -> Callable[[int], object]:
    """Returns what seeds it anew, to be called with the entropy, in a child. It keeps its spawn key, the size of its
    pool, and how many it has spawned."""
    try:
        return _Reseeding(sequence)
    except Exception:  # of a class of its own, or of another numpy
        return lambda entropy: sequence.__init__(
            entropy, spawn_key=sequence.spawn_key, pool_size=sequence.pool_size,
            n_children_spawned=sequence.n_children_spawned,
        )


class _Reseeding:
    """Does it by what is pickled of it. Raises an exception where numpy would not do the same."""

    def __init__(self, sequence: Any) -> None:
        self._sequence, self._pool, self._size = sequence, sequence.pool, sequence.pool_size
        self._key = b"".join(_words_of(int(number)) for number in sequence.spawn_key)
        self._view = memoryview(self._pool).cast("B")
        if self._view.readonly or not all(map(self._is_known, _TRIALS)):
            raise ValueError("this numpy seeds in another way")

    def __call__(self, entropy: int) -> None:
        self._view[:] = self._mixed(entropy)
        self._sequence.__setstate__(self._state(entropy, self._pool))

    def _state(self, entropy: int, pool: Any) -> tuple[Any, ...]:
        return entropy, self._sequence.n_children_spawned, pool, self._size, self._sequence.spawn_key

    def _is_known(self, entropy: int) -> bool:
        make = sys.modules["numpy.random"].SeedSequence
        fresh = make(
            entropy, spawn_key=self._sequence.spawn_key, pool_size=self._size,
            n_children_spawned=self._sequence.n_children_spawned,
        )
        state = fresh.__reduce__()[2]
        is_same = state == self._state(entropy, fresh.pool) and fresh.pool.tobytes() == self._mixed(entropy)
        return type(self._sequence) is make and is_same

    def _mixed(self, entropy: int) -> bytes:
        words = _words_of(entropy)
        if self._key:
            words = words.ljust(self._size * _WORD, b"\0") + self._key
        return _native.mix_pool(words, self._size)


def _words_of(number: int) -> bytes:
    count = (number.bit_length() + 31) // 32 or 1
    return number.to_bytes(count * _WORD, "little")
