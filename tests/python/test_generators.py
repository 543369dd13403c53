"""The generators of random numbers that preloaded modules keep: which of them each child seeds anew."""

import importlib.util
import json
import subprocess
import unittest

import warmfork
from support import PYTHON
from test_identity import Importing

HAS_NUMPY = importlib.util.find_spec("numpy") is not None


# Its module as far as it counts: where a generator keeps its seed nobody can see.
TORCH = """
import os
class Generator:
    def __init__(self, seed=67280421310721): self.hidden = ~seed
    def initial_seed(self): return ~self.hidden
    def seed(self): self.hidden = ~int.from_bytes(os.urandom(8), 'little')
default_generator, unseeded, given = Generator(), Generator(), Generator(5)
default_generator.seed()
class Proxy:
    __class__ = property(lambda self: 1 / 0)
proxy = Proxy()
"""


class Generators(Importing):
    def draws(self, source, program):
        """What each of three warm children and two cold ones prints, as lists."""
        template, env = self.importing(source, backend="warm")
        warm = [json.loads(self.run_in(template, program, env).stdout) for _ in range(3)]
        command = [PYTHON, "-c", "import kept\n" + program]
        cold = [json.loads(subprocess.run(command, env=env, capture_output=True).stdout) for _ in range(2)]
        return warm, cold

    def check(self, source, values):
        """values: expressions, by whether they are the same in all processes."""
        program = "import json; print(json.dumps([" + ", ".join(values) + "]))"
        warm, cold = self.draws(source, program)
        for number, (value, is_given) in enumerate(values.items()):
            of_warm, of_cold = ({repr(row[number]) for row in rows} for rows in (warm, cold))
            with self.subTest(value):
                if is_given:
                    self.assertEqual(of_warm, of_cold)
                self.assertEqual((len(of_warm), len(of_cold)), (1, 1) if is_given else (3, 2))

    def test_of_the_standard_library(self):
        self.check(
            "import os, random, secrets, time\n"
            "class Dice(random.Random): pass\n"
            "one, two, given, dice = random.Random(), Dice(), random.Random(42), [Dice(5)]\n"
            "for _ in range(2000): one.random(); given.random()\n"
            "of_bytes, of_time = random.Random(os.urandom(16)), random.Random(int(time.time()))\n"
            "of_number = random.Random(secrets.randbits(64))\n"
            "restored = random.Random(); restored.setstate(given.getstate())\n"
            "copied = random.Random(); copied.setstate(one.getstate())\n",
            {"kept.one.random()": False, "kept.two.random()": False, "kept.given.random()": True,
             "kept.dice[0].random()": True, "kept.of_bytes.random()": False,
             "kept.of_number.random()": False, "kept.restored.random()": True, "kept.copied.random()": False},
        )

    def test_of_pytorch(self):
        self.check(
            f"import sys, types\ntorch = sys.modules['torch'] = types.ModuleType('torch')\nexec({TORCH!r}, torch.__dict__)",
            {"kept.torch.default_generator.initial_seed()": False, "kept.torch.unseeded.initial_seed()": True,
             "kept.torch.given.initial_seed()": True},
        )

    def test_seeded_by_what_the_process_has_given_in_another_form(self):
        self.check(
            "import gc, random, time, uuid\n"
            "class Bare(random.Random): __slots__ = ()\n"
            "of_clock, of_nanoseconds = random.Random(time.time()), random.Random(time.time_ns())\n"
            "of_monotonic, of_text = random.Random(time.monotonic()), random.Random(f'run {time.time()}')\n"
            "of_id, bare = random.Random(str(uuid.uuid4())), Bare()\n"
            "far = random.Random()\n"
            "for _ in range(100): far.randbytes(4 * 624)\n"
            "gc.freeze()\n",
            {f"kept.{name}.random()": False for name in (
                "of_clock", "of_nanoseconds", "of_monotonic", "of_text", "of_id", "bare", "far",
            )},
        )

    def test_seeded_by_what_somebody_has_written_down(self):
        self.check(
            "import os, random, time\n"
            "os.getpid(), time.time(), os.urandom(16), random.random()\n"
            "large, negative, fraction = random.Random(123456789), random.Random(-20240131), random.Random(0.75)\n"
            "text, data, small = random.Random('some täxt'), random.Random(b'some bytes'), random.Random(42)\n"
            "empty = random.Random('')\n"
            "long = random.Random(122807528840384100672342137672332424406)\n"
            "for _ in range(100): small.getrandbits(32 * 624)\n",
            {f"kept.{name}.random()": True for name in (
                "large", "negative", "fraction", "text", "data", "small", "empty", "long",
            )},
        )

    def test_one_that_may_have_been_seeded_by_what_the_process_has_given_is_named(self):
        sources = [
            "import os, random, time\nR = random.Random(1_000_003 * (os.getpid() + int(time.time())))",
            "import random\nR = random.Random()\nR.seed(R.random())",
            "import random\nrandom.seed(random.getrandbits(64))",
            "import random\nR = random.Random(1)\nR.setstate((3, (*range(1, 625), 624), None))",
            "import datetime, random\nR = random.Random(str(datetime.datetime.now()))",
            "import hashlib, os, random\nR = random.Random(hashlib.sha256(os.urandom(16)).hexdigest())",
            "import os, random\nR = random.Random('worker-%x' % os.getpid())",
            "import random, sys\nif hasattr(sys, 'set_int_max_str_digits'): sys.set_int_max_str_digits(640)\n"
            "R = random.Random(3**2500)\nS = random.Random('7' * 400 + str(random))",
        ]
        if HAS_NUMPY:
            sources += [
                "import numpy, os, time\nnumpy.random.seed(os.getpid() * int(time.time()) % 2**32 | 1 << 31)",
                "import numpy, random\nR = numpy.random.RandomState(random.getrandbits(31) | 1 << 31)",
                "import numpy, random\nR = numpy.random.default_rng(random.getrandbits(128))",
                "from numpy import random\nR = random.default_rng(3**10000)",
                "from numpy import random\nR = random.MT19937()\nR.state = random.MT19937().jumped().state",
                "from numpy import random\nclass Own(random.BitGenerator): pass\nR = Own()",
                *(f"from numpy import random\nR, other = random.{kind}(5), random.{kind}()\nR.state = other.state"
                  for kind in ("PCG64", "PCG64DXSM", "SFC64", "Philox")),
            ]
        for source in sources:
            with self.subTest(source):
                template, _ = self.importing(source)
                with self.assertRaisesRegex(warmfork.TemplateError, '"identity:random"'):
                    template.wait_ready()
                self.importing(source, allow=["identity:random"])[0].wait_ready()

    def test_the_shared_one_with_a_seed(self):
        self.check("import random\nrandom.seed(7)", {"kept.random.random()": True})
        self.check("import random\nrandom.random()", {"kept.random.random()": False})

    @unittest.skipUnless(HAS_NUMPY, "not installed: numpy")
    def test_of_numpy(self):
        self.check(
            "import numpy, secrets\nfrom numpy import random\n"
            "a, b, c = random.default_rng(), random.RandomState(), random.Generator(random.Philox())\n"
            "legacy = random.RandomState(random.MT19937())\n"
            "b.standard_normal()\n"
            "given, legacy_given = random.default_rng(42), random.RandomState(42)\n"
            "parts = [random.default_rng(part) for part in random.SeedSequence().spawn(2)]\n"
            "of_number = random.default_rng(secrets.randbits(128))\n",
            {"kept.a.random()": False, "kept.b.standard_normal()": False, "kept.c.random()": False,
             "kept.legacy.random_sample()": False, "kept.given.random()": True,
             "kept.legacy_given.random_sample()": True, "kept.parts[0].random()": False,
             "kept.parts[1].random()": False, "kept.of_number.random()": False, "kept.random.rand()": False,
             "int(kept.a.bit_generator._seed_seq.spawn(1)[0].generate_state(1)[0])": False},
        )

    @unittest.skipUnless(HAS_NUMPY, "not installed: numpy")
    def test_of_numpy_with_a_state_that_was_set(self):
        self.check(
            "import copy\nfrom numpy import random\n"
            "given = random.RandomState()\ngiven.set_state(random.RandomState(42).get_state())\n"
            "copied, drawn_copy = copy.deepcopy(random.RandomState(7)), copy.deepcopy(random.RandomState())\n"
            "random.set_state(random.RandomState(3).get_state())\n"
            "mersenne = random.Generator(random.MT19937(5))\nmersenne.bit_generator.state = random.RandomState(9).get_state(False)\n"
            "of_key = random.Generator(random.Philox(key=77))\n",
            {"kept.given.rand()": True, "kept.copied.rand()": True, "kept.drawn_copy.rand()": False,
             "kept.random.rand()": True, "kept.mersenne.random()": True, "kept.of_key.random()": True},
        )

    @unittest.skipUnless(HAS_NUMPY, "not installed: numpy")
    def test_of_numpy_after_many_numbers(self):
        kinds = "PCG64", "PCG64DXSM", "SFC64", "Philox", "MT19937"
        self.check(
            "from numpy import random\n"
            f"drawn, given = ([random.Generator(kind(*seed)) for kind in ({', '.join(f'random.{kind}' for kind in kinds)})]\n"
            "                for seed in ((), (5,)))\n"
            "for generator in drawn + given: generator.random(300_001), generator.integers(9, dtype='i4')\n",
            {f"kept.{name}[{number}].random()": name == "given" for name in ("drawn", "given") for number in range(len(kinds))},
        )

    @unittest.skipUnless(HAS_NUMPY, "numpy is not installed")
    def test_a_sequence_that_is_seeded_without_numpy_is_as_numpy_makes_it(self):
        import numpy.random
        from warmfork._in_template import _sequences

        class Own(numpy.random.SeedSequence):
            pass

        for kind in (numpy.random.SeedSequence, Own):
            for key in ((), (1,), (1 << 40, 0, 3)):
                for size in (4, 7):
                    options = {"spawn_key": key, "pool_size": size, "n_children_spawned": 2}
                    sequence = kind(5, **options)
                    reseed = _sequences.reseeding_of(sequence)
                    self.assertEqual(isinstance(reseed, _sequences._Reseeding), kind is not Own)
                    for entropy in (0, 1 << 127, 1 << 200):
                        with self.subTest(kind=kind, key=key, size=size, entropy=entropy):
                            reseed(entropy)
                            fresh = kind(entropy, **options)
                            self.assertEqual(str(sequence), str(fresh))
                            self.assertEqual(sequence.generate_state(9).tolist(), fresh.generate_state(9).tolist())
                            self.assertEqual(str(sequence.spawn(1)), str(fresh.spawn(1)))
                            sequence.__init__(entropy, **options)

    def test_where_not_all_that_was_drawn_is_known_the_shared_ones_are_taken_for_drawn(self):
        source = "import os\nfor _ in range(1 << 14): os.urandom(1)\nimport random\n"
        values = ["kept.random.random()"]
        if HAS_NUMPY:
            source += "import numpy\n"
            values.append("kept.numpy.random.rand()")
        template, env = self.importing(source, backend="warm", allow=["identity:kept", "identity:numpy"])
        shown = [self.run_in(template, f"print({', '.join(values)})", env).stdout.split() for _ in range(3)]
        self.assertEqual([len(set(column)) for column in zip(*shown)], [3] * len(values))

    def test_however_much_is_drawn_there_is_room_for_what_is_read(self):
        source = (
            "import os\nfor size, count in (1 << 20, 70), (1 << 10, 1100), (16, 1100):\n"
            "    for _ in range(count): os.urandom(size)\n"
            "import colorsys"
        )
        template, env = self.importing(source, backend="warm", allow=["identity:kept"])
        for _ in range(2):
            self.assertEqual(self.run_in(template, "print('ran')", env).stdout, "ran\n")
        self.assertEqual(template.counts["template_starts"], 1)

    @unittest.skipUnless(HAS_NUMPY, "not installed: numpy")
    def test_the_shared_one_of_numpy_with_a_seed(self):
        self.check("import numpy\nnumpy.random.seed(7)", {"kept.numpy.random.rand()": True})
        self.check("import numpy\nnumpy.random.seed([123456, 5])", {"kept.numpy.random.rand()": True})

    @unittest.skipUnless(HAS_NUMPY, "not installed: numpy")
    def test_of_numpy_seeded_by_what_the_process_has_given_in_another_form(self):
        self.check(
            "import os, time, numpy\n"
            "numpy.random.seed(os.getpid() + 0)\n"
            "of_nanoseconds = numpy.random.default_rng(time.time_ns())\n"
            "given = numpy.random.RandomState(numpy.random.MT19937(5))\n"
            "for _ in range(100): numpy.random.bytes(4 * 624)\n",
            {"kept.numpy.random.rand()": False, "kept.of_nanoseconds.random()": False, "kept.given.rand()": True},
        )
        # In cold processes of one second it is the same.
        template, env = self.importing(
            "import time, numpy\nR = numpy.random.RandomState(int(time.time()))", backend="warm",
        )
        self.assertEqual(len({self.run_in(template, "print(kept.R.rand())", env).stdout for _ in range(3)}), 3)


if __name__ == "__main__":
    unittest.main()
