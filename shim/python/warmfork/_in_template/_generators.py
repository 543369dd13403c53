"""The generators of random numbers that preloaded modules keep, and which of them each child seeds anew.

One that was seeded by the system's random bytes (or by the time, or a process id) has another stream in every
process; one that was given a seed has the same in all, also in cold ones. Which it was is told by the random
bytes that were drawn while preloading, all of which are known.
"""

import gc
import sys

# An object that has gone further than this is not looked for: it counts as seeded by what is not known.
_BLOCKS = 64
_WORDS = 624
_BITS_OF_BLOCK = 32 * _WORDS
_MOST_BYTES_OF_SEED = 64


class Generators:
    """found: all of them, seeded either way. randoms: of the module random, to be seeded anew. restored: pairs of
    one that seeds itself after a fork, and the state that it has to have. legacy, sequences, bits: numpy's, see
    `Numpy`; None where it is not loaded."""

    def __init__(self, inherited, draws, is_of_moment):
        """inherited: objects that are known already, and not the collector's any more. draws: random bytes that
        were drawn; None: not all are known. is_of_moment: a Moment: of a number, is it the process's id or the time?"""
        kinds = _kinds()
        self.found = [
            value for objects in (inherited, gc.get_objects())
            for value in objects if kinds and issubclass(type(value), kinds)
        ]
        self.randoms, self.restored, self.numpy = [], [], None
        if "random" in sys.modules:
            self._sort_randoms(draws, is_of_moment)
        if "numpy.random" in sys.modules and hasattr(sys.modules["numpy.random"], "SeedSequence"):
            self.numpy = Numpy(self.found, draws, is_of_moment)

    def _sort_randoms(self, draws, is_of_moment):
        random = sys.modules["random"]
        candidates = [
            value for value in self.found
            if issubclass(type(value), random.Random) and not issubclass(type(value), random.SystemRandom)
        ]
        own = getattr(random, "_inst", None)  # seeds itself after a fork
        given = set() if draws is None else _not_drawn(candidates, draws, is_of_moment)
        self.randoms = [value for value in candidates if id(value) not in given and value is not own]
        if id(own) in given:
            self.restored.append((own, own.getstate()))


def _kinds():
    kinds = []
    if "random" in sys.modules:
        kinds.append(sys.modules["random"].Random)
    numpy = sys.modules.get("numpy.random")
    for name in ("BitGenerator", "RandomState", "SeedSequence"):
        if hasattr(numpy, name):
            kinds.append(getattr(numpy, name))
    return tuple(kinds)


def _seeds(draws):
    for draw in draws:
        if len(draw) <= _MOST_BYTES_OF_SEED:
            yield int.from_bytes(draw, "big")
            yield draw
        yield int.from_bytes(draw, "little")


def _not_drawn(randoms, draws, is_of_moment):
    """The id() of those that no drawn bytes have seeded."""
    import _random

    random = sys.modules["random"]
    left = {id(value): _random.Random.getstate(value)[:_WORDS] for value in randoms}
    streams = [random.Random(seed) for seed in dict.fromkeys(_seeds(draws))]
    streams += [random.Random(second) for second in is_of_moment.seconds()]
    of_process = [] if is_of_moment.pid is None else [random.Random(is_of_moment.pid)]
    for _ in range(_BLOCKS):
        states, states_of_process = (
            {_random.Random.getstate(stream)[:_WORDS] for stream in some} for some in (streams, of_process)
        )
        if not states_of_process.isdisjoint(left.values()):
            is_of_moment.take_pid(f"a random.Random({is_of_moment.pid})")
        left = {key: state for key, state in left.items() if state not in states | states_of_process}
        if not left:
            break
        for stream in streams + of_process:
            stream.getrandbits(_BITS_OF_BLOCK)
    return set(left)


class Numpy:
    """legacy: RandomState objects. sequences: lists of SeedSequence objects that share their entropy. bits: pairs
    of another BitGenerator and its sequence."""

    def __init__(self, found, draws, is_of_moment):
        random = sys.modules["numpy.random"]
        self._draws, self._is_of_moment = draws, is_of_moment
        self._entropies = None if draws is None else {int.from_bytes(draw, "big") for draw in draws}
        self._mersenne = random.MT19937
        sequences, self.legacy, self.bits, of_legacy = {}, [], [], set()
        for value in found:
            if issubclass(type(value), random.RandomState) and type(value._bit_generator) is random.MT19937:
                of_legacy.add(id(value._bit_generator))
                if self._is_legacy_drawn(value._bit_generator):
                    self.legacy.append(value)
        for value in found:
            if issubclass(type(value), random.SeedSequence):
                if self._is_drawn(value.entropy):
                    sequences.setdefault(repr(value.entropy), []).append(value)
            elif issubclass(type(value), random.BitGenerator) and id(value) not in of_legacy:
                sequence = _sequence_of(value)
                if type(sequence) is random.SeedSequence and self._is_drawn(sequence.entropy):
                    self.bits.append((value, sequence))
        self.sequences = list(sequences.values())

    def _is_drawn(self, entropy):
        try:
            numbers = [int(number) for number in (entropy if hasattr(entropy, "__iter__") else (entropy,))]
        except (TypeError, ValueError):
            return False  # none, or in words: given
        if self._entropies is None:
            return any(number >> 64 for number in numbers)
        return any(number in self._entropies or self._is_of_moment(number) for number in numbers)

    def _is_legacy_drawn(self, generator):
        """One that was given a seed, or was seeded anew, has no sequence any more."""
        if _sequence_of(generator) is not None or self._draws is None:
            return True
        sequence = sys.modules["numpy.random"].SeedSequence
        key = generator.state["state"]["key"].tobytes()
        streams = [self._mersenne(sequence(int.from_bytes(draw, "big"))) for draw in self._draws if len(draw) == 16]
        for _ in range(_BLOCKS):
            if any(stream.state["state"]["key"].tobytes() == key for stream in streams):
                return True
            for stream in streams:
                stream.random_raw(_WORDS, False)
        return False


def _sequence_of(generator):
    return getattr(generator, "seed_seq", None) or getattr(generator, "_seed_seq", None)
