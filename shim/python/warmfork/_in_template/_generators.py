"""The generators of random numbers that preloaded modules keep, and which of them each child seeds anew.

One that was seeded by the system's random bytes (or by the time, or a process id) has another stream in every
process; one that was given a seed has the same in all, also in cold ones. Which it was is told by the seed, which
numpy's newer generators keep, and which can be found from the state of the others.
"""

from __future__ import annotations

import gc
import os
import sys

from .. import _native
from ._modules import attributes_of
from ._sequences import reseeding_of

# It is the same as typing's, which children that import it would otherwise find loaded.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from ._seeds import Seeds

_MOST_STREAMS = 1024
_WORDS = 624
# So many numbers that have come out of a newer generator of numpy's can be told from a state that was set. What
# takes its time is to make them; most generators can pass over them, or count them.
_BITS_OF_NUMBERS = 40
_MOST_NUMBERS = 1 << 20
# With this one of PyTorch's begins that nobody has seeded: c10::detail::default_rng_seed_val of its sources.
_SEED_OF_TORCH = 67280421310721


def find_generators(inherited: Iterable[Any]) -> list[Any]:
    """Returns all of them, seeded either way. inherited: objects that are known already, and not the collector's any
    more."""
    kinds: set[type] = set()
    todo = _kinds()
    while todo:
        kind = todo.pop()
        kinds.add(kind)
        todo += type.__subclasses__(kind)
    if not kinds:
        return []
    found = [value for objects in (inherited, gc.get_objects()) for value in objects if type(value) in kinds]
    return list({id(value): value for value in found}.values())


def state_of(generator: Any) -> Any:
    """Returns what changes when a generator is used or seeded, to be compared."""
    numpy: Any = sys.modules.get("numpy.random")
    if issubclass(type(generator), sys.modules["_random"].Random):
        return sys.modules["_random"].Random.getstate(generator)
    bits = generator._bit_generator if issubclass(type(generator), numpy.RandomState) else generator
    if not issubclass(type(bits), numpy.BitGenerator):
        return ()
    state = _inner_state(bits)
    return object() if state is None else _plain(state)


def _inner_state(bits: Any) -> Any:
    """Returns it without what is left over of the last number; None: it cannot be told."""
    try:
        return bits.state["state"]
    except Exception:  # of a class that numpy does not have
        return None


def _plain(state: Any) -> Any:
    if isinstance(state, dict):
        return {name: _plain(value) for name, value in state.items()}
    return state.tobytes() if hasattr(state, "tobytes") else state


class Generators:
    """found: all of them, seeded either way. randoms: of the module random and of torch, to be seeded anew. restored:
    pairs of one that seeds itself after a fork, and the state that it has to have. numpy: a `Numpy`; None where that is
    not loaded."""

    def __init__(self, found: list[Any], draws: list[bytes], seeds: Seeds) -> None:
        """found: as find_generators has them. draws: random bytes that were drawn. seeds: a Seeds."""
        self.found = found
        self.randoms: list[Any] = []
        self.restored: list[tuple[Any, Any]] = []
        self.numpy: Numpy | None = None
        if "_random" in sys.modules:
            self._sort_randoms(seeds)
        if "numpy.random" in sys.modules and hasattr(sys.modules["numpy.random"], "SeedSequence"):
            self.numpy = Numpy(found, _NumpySeeds(draws, seeds))
        self.randoms += [generator for generator in _of_torch() if _is_to_be_seeded(generator, seeds)]

    def _sort_randoms(self, seeds: Seeds) -> None:
        of_c, random = sys.modules["_random"].Random, sys.modules.get("random")
        own = getattr(random, "_inst", None)  # seeds itself after a fork
        for value in self.found:
            if not issubclass(type(value), of_c) or issubclass(type(value), getattr(random, "SystemRandom", ())):
                continue
            words = b"".join(word.to_bytes(4, sys.byteorder) for word in of_c.getstate(value)[:_WORDS])
            seed = _seed_of(words)
            is_to_be_seeded = seeds.check(seed, value, value is own and seed is None)
            if value is own:
                self.restored += [] if is_to_be_seeded else [(own, own.getstate())]
            elif is_to_be_seeded:
                self.randoms.append(value)


def _of_torch() -> list[Any]:
    """Returns the generators of PyTorch that modules have by a name, which begin with its own: most programs know no
    other. They are no objects of the collector's."""
    torch = attributes_of(sys.modules.get("torch"))
    kind = torch.get("Generator")
    if not isinstance(kind, type):
        return []
    named = [value for module in list(sys.modules.values()) for value in list(attributes_of(module).values())]
    return list({id(value): value for value in named if issubclass(type(value), kind)}.values())


def _is_to_be_seeded(generator: Any, seeds: Seeds) -> bool:
    """Of one of PyTorch's. It is tried here: in a child nothing may be raised."""
    try:
        number = generator.initial_seed()
        is_wanted = number != _SEED_OF_TORCH and seeds.check(number, generator, may_be_unseen=True)
        if is_wanted:
            generator.seed()
        return is_wanted
    except Exception as error:
        return seeds.doubt(generator, f"does not tell its seed: {error!r}")


class NoGenerators:
    """Stands for `Generators` where none have to be seeded."""

    randoms = restored = ()
    numpy = None


def seed_anew(generators: Any) -> None:
    """Seeds generators anew. generators: as NoGenerators."""
    for generator in generators.randoms:
        generator.seed()
    for generator, state in generators.restored:
        generator.setstate(state)
    if generators.numpy is not None:
        _seed_numpy(generators.numpy)


def _seed_numpy(generators: Any) -> None:
    """Seeds each of them as it is when it is made, by what the system draws."""
    for generator in generators.legacy:
        generator.set_state(("MT19937", memoryview(os.urandom(4 * 624)).cast("I"), 624, 0, 0.0))
    for sequences in generators.sequences:
        entropy = int.from_bytes(os.urandom(16), "big")
        for reseed in sequences:
            reseed(entropy)
    for generator, sequence in generators.bits:
        generator.state = type(generator)(sequence).state


def _kinds() -> list[type]:
    kinds: list[type] = []
    if "_random" in sys.modules:
        kinds.append(sys.modules["_random"].Random)
    numpy = sys.modules.get("numpy.random")
    for name in ("BitGenerator", "RandomState", "SeedSequence"):
        if hasattr(numpy, name):
            kinds.append(getattr(numpy, name))
    return kinds


def _seed_of(words: bytes) -> int | None:
    """A number; None: it cannot be told. words: of a Mersenne Twister, as bytes."""
    key = _native.seed_of(words, b"")
    return None if key is None else int.from_bytes(key, "little")


class Numpy:
    """legacy: RandomState objects. sequences: lists of what seeds SeedSequence objects that share their entropy:
    see reseeding_of. bits: pairs of another BitGenerator and its sequence, or None where another one has to be made."""

    def __init__(self, found: Iterable[Any], seeds: _NumpySeeds) -> None:
        """seeds: a _NumpySeeds."""
        random = sys.modules["numpy.random"]
        self.legacy: list[Any] = []
        self.bits: list[tuple[Any, Any]] = []
        sequences: dict[tuple[int, ...], list[Callable[[int], object]]] = {}
        of_legacy = set()
        for value in found:
            if issubclass(type(value), random.RandomState) and type(value._bit_generator) is random.MT19937:
                of_legacy.add(id(value._bit_generator))
                if seeds.check_bits(value._bit_generator, value)[0]:
                    self.legacy.append(value)
        for value in found:
            if issubclass(type(value), random.SeedSequence):
                if seeds.check_entropy(value.entropy, value):
                    sequences.setdefault(tuple(_numbers_in(value.entropy)), []).append(reseeding_of(value))
            elif issubclass(type(value), random.BitGenerator) and id(value) not in of_legacy:
                is_of_process, sequence = seeds.check_bits(value, value)
                if is_of_process:
                    self.bits.append((value, sequence))
        self.sequences = list(sequences.values())


class _NumpySeeds:
    """What has seeded a generator of numpy's."""

    def __init__(self, draws: list[bytes], seeds: Seeds) -> None:
        random = sys.modules["numpy.random"]
        self._draws, self._seeds = [draw for draw in draws if len(draw) == 16][:_MOST_STREAMS], seeds
        self._mersenne, self._sequence = random.MT19937, random.SeedSequence
        shared = getattr(sys.modules.get("numpy.random.mtrand"), "_rand", None)
        self._shared = (shared, _sequence_of(getattr(shared, "_bit_generator", None)))

    def check_bits(self, bits: Any, generator: Any) -> tuple[bool, Any]:
        """Returns whether it was seeded by the process, and the sequence that it goes on from; None: none. bits: its
        BitGenerator. generator: what a doubt is about."""
        sequence = _sequence_of(bits)
        if type(sequence) is self._sequence and self._goes_on_from(bits, sequence):
            return self.check_entropy(sequence.entropy, generator), sequence
        state = _inner_state(bits)
        if type(bits) is self._mersenne:
            words = state["key"].tobytes()
            seed = _seed_of(words)
            is_of_process = seed is None and self._is_made_anew(words) or self._seeds.check(
                seed, generator, seed is None and self._is_shared(generator)
            )
        elif isinstance(state, dict) and "key" in state and "counter" in state:  # Philox, with a key in place of a seed
            is_of_process = self._seeds.check(_number_of(state["key"]), generator)
        else:
            is_of_process = self._seeds.check(None, generator)
        return is_of_process, None

    def _is_shared(self, generator: Any) -> bool:
        return any(generator is shared for shared in self._shared)

    def check_entropy(self, entropy: Any, generator: Any) -> bool:
        try:
            numbers: list[int | None] = [*_numbers_in(entropy)]
        except (TypeError, ValueError):
            numbers = [None]
        # The numbers that numpy itself draws are larger.
        is_shared = self._is_shared(generator)
        return any(
            self._seeds.check(number, generator, is_shared and (number or 0) >> 64 > 0) for number in numbers
        )

    def _goes_on_from(self, bits: Any, sequence: Any) -> bool:
        """Has this sequence seeded it, whatever has come out of it since? Its state may have been set instead."""
        try:
            fresh = type(bits)(sequence)
        except Exception:  # of another kind, which is made in another way
            return False
        begin, now = _inner_state(fresh), _inner_state(bits)
        if begin is None or now is None:
            return False
        if _plain(begin) == _plain(now):
            return True
        if type(bits) is self._mersenne:
            words = begin["key"].tobytes()
            return _native.seed_of(now["key"].tobytes(), words) == words
        return isinstance(begin, dict) and _is_later(fresh, begin, now)

    def _is_made_anew(self, words: bytes) -> bool:
        """As numpy.random.seed() does it."""
        streams = [self._mersenne(self._sequence(int.from_bytes(draw, "big"))) for draw in self._draws]
        return _native.seed_of(words, b"".join(stream.state["state"]["key"].tobytes() for stream in streams)) is not None


def _is_later(fresh: Any, begin: dict[str, Any], now: dict[str, Any]) -> bool:
    """Does it come to that state? begin: the state of a fresh generator, which is changed."""
    if "inc" in begin:  # PCG64: each bit of a state is the same again after as many numbers as it is worth twice
        for bit in range(_BITS_OF_NUMBERS if begin["inc"] == now["inc"] else 0):
            if (fresh.state["state"]["state"] ^ now["state"]) >> bit & 1:
                fresh.advance(1 << bit)
        return fresh.state["state"] == now
    if "counter" in begin:  # Philox
        passed = _number_of(now["counter"]) - _number_of(begin["counter"])
        return _plain(begin["key"]) == _plain(now["key"]) and 0 <= passed < 1 << _BITS_OF_NUMBERS
    if len(begin.get("state", ())) == 4:  # SFC64, whose last word counts
        passed = int(now["state"][3]) - int(begin["state"][3])
        if 0 <= passed <= _MOST_NUMBERS:
            fresh.random_raw(passed, False)
        return _plain(fresh.state["state"]) == _plain(now)
    return False


def _number_of(words: Any) -> int:
    return int.from_bytes(words.astype("<u8").tobytes(), "little")


def _numbers_in(entropy: Any) -> list[int]:
    """Returns those of which it is made, in order; raises TypeError or ValueError where it is made of others."""
    if hasattr(entropy, "__iter__") and not isinstance(entropy, (str, bytes)):
        return [number for part in entropy for number in _numbers_in(part)]
    return [int(entropy)]


def _sequence_of(generator: Any) -> Any:
    return getattr(generator, "seed_seq", None) or getattr(generator, "_seed_seq", None)
