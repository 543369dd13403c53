"""The generators of random numbers that preloaded modules keep, and which of them each child seeds anew.

One that was seeded by the system's random bytes (or by the time, or a process id) has another stream in every
process; one that was given a seed has the same in all, also in cold ones. Which it was is told by the seed, which
numpy's newer generators keep, and which can be found from the state of the others.
"""

import gc
import sys

from .. import _native

# Of numpy's one that was seeded anew no seed can be found: it is looked for among what these would have made of draws.
_BLOCKS = 64
_MOST_STREAMS = 1024
_WORDS = 624


class Generators:
    """found: all of them, seeded either way. randoms: of the module random, to be seeded anew. restored: pairs of
    one that seeds itself after a fork, and the state that it has to have. legacy, sequences, bits: numpy's, see
    `Numpy`; None where it is not loaded."""

    def __init__(self, inherited, draws, seeds):
        """inherited: objects that are known already, and not the collector's any more. draws: random bytes that
        were drawn. seeds: a Seeds."""
        kinds = _kinds()
        self.found = list({
            id(value): value for objects in (inherited, gc.get_objects())
            for value in objects if kinds and issubclass(type(value), kinds)
        }.values())
        self.randoms, self.restored, self.numpy = [], [], None
        if "_random" in sys.modules:
            self._sort_randoms(seeds)
        if "numpy.random" in sys.modules and hasattr(sys.modules["numpy.random"], "SeedSequence"):
            self.numpy = Numpy(self.found, draws, seeds)

    def _sort_randoms(self, seeds):
        of_c, random = sys.modules["_random"].Random, sys.modules.get("random")
        own = getattr(random, "_inst", None)  # seeds itself after a fork
        for value in self.found:
            if not issubclass(type(value), of_c) or issubclass(type(value), getattr(random, "SystemRandom", ())):
                continue
            is_to_be_seeded = seeds.is_of_process(_seed_of(of_c.getstate(value)[:_WORDS]), value)
            if value is own:
                self.restored += [] if is_to_be_seeded else [(own, own.getstate())]
            elif is_to_be_seeded:
                self.randoms.append(value)


def _kinds():
    kinds = []
    if "_random" in sys.modules:
        kinds.append(sys.modules["_random"].Random)
    numpy = sys.modules.get("numpy.random")
    for name in ("BitGenerator", "RandomState", "SeedSequence"):
        if hasattr(numpy, name):
            kinds.append(getattr(numpy, name))
    return tuple(kinds)


def _seed_of(words):
    """A number; None: it cannot be told."""
    key = _native.seed_of(b"".join(int(word).to_bytes(4, sys.byteorder) for word in words))
    return None if key is None else int.from_bytes(key, "little")


class Numpy:
    """legacy: RandomState objects. sequences: lists of SeedSequence objects that share their entropy. bits: pairs
    of another BitGenerator and its sequence."""

    def __init__(self, found, draws, seeds):
        random = sys.modules["numpy.random"]
        self._draws, self._seeds = [draw for draw in draws if len(draw) == 16][:_MOST_STREAMS], seeds
        self._mersenne, self._sequence = random.MT19937, random.SeedSequence
        sequences, self.legacy, self.bits, of_legacy = {}, [], [], set()
        for value in found:
            if issubclass(type(value), random.RandomState) and type(value._bit_generator) is random.MT19937:
                of_legacy.add(id(value._bit_generator))
                if self._is_legacy_drawn(value._bit_generator, value):
                    self.legacy.append(value)
        for value in found:
            if issubclass(type(value), random.SeedSequence):
                if self._is_drawn(value.entropy, value):
                    sequences.setdefault(repr(value.entropy), []).append(value)
            elif issubclass(type(value), random.BitGenerator) and id(value) not in of_legacy:
                sequence = _sequence_of(value)
                if type(sequence) is random.SeedSequence and self._is_drawn(sequence.entropy, value):
                    self.bits.append((value, sequence))
        self.sequences = list(sequences.values())

    def _is_drawn(self, entropy, generator):
        try:
            numbers = [int(number) for number in (entropy if hasattr(entropy, "__iter__") else (entropy,))]
        except (TypeError, ValueError):
            return False  # none, or in words: given
        return any(self._seeds.is_of_process(number, generator) for number in numbers)

    def _is_legacy_drawn(self, generator, owner):
        """One that was given a seed, or was seeded anew, has no sequence any more."""
        sequence = _sequence_of(generator)
        if sequence is not None:
            return type(sequence) is not self._sequence or self._is_drawn(sequence.entropy, owner)
        key = generator.state["state"]["key"]
        seed = _seed_of(key)
        if seed is None and self._is_made_anew(key.tobytes()):
            return True
        return self._seeds.is_of_process(seed, owner)

    def _is_made_anew(self, key):
        """As numpy.random.seed() does it."""
        streams = [self._mersenne(self._sequence(int.from_bytes(draw, "big"))) for draw in self._draws]
        for _ in range(_BLOCKS):
            if any(stream.state["state"]["key"].tobytes() == key for stream in streams):
                return True
            for stream in streams:
                stream.random_raw(_WORDS, False)
        return False


def _sequence_of(generator):
    return getattr(generator, "seed_seq", None) or getattr(generator, "_seed_seq", None)
