"""How a warm child's interpreter ends: whatever the program has hung on preloaded modules comes to its end as in
a cold one, and the image is not taken apart for nothing."""

import os
import random
import re
import resource
import signal
import subprocess
import sys
import unittest

from finalization_programs import BEGIN, CAPSULES, CAPSULE_PROGRAMS, ENDING, LAST, PLACES, PROGRAMS, QUIET_PROGRAMS, RANDOM, STORE, THINGS
from support import PYTHON, TestCase


def random_program(chance):
    lines = [
        chance.choice(PLACES).format(number, chance.choice(THINGS).format(number))
        for number in range(chance.randint(1, 4))
    ]
    return RANDOM + "\n".join(lines) + "\n" + chance.choice(LAST).format(3)


def in_any_order(result):
    """The order of ends that the collector finds is that of its lists, which depends on when it was called."""
    status, output, errors, files = result
    return status, sorted(output.split()), sorted(errors.split(b"\n")), files


def byte_by_byte(result):
    """The same where some programs end no line, so that what they tell runs into what the image tells."""
    status, output, errors, files = result
    return status, sorted(output), sorted(errors), files


class Finalization(TestCase):
    def begin(self, store, preload=("store", "json"), **options):
        """A template with such a module, and the environment that it is found in."""
        self.directory = self.folder({"store.py": store, "beside.py": "import store\ndef function(): pass\n"})
        self.env = {**os.environ, "PYTHONPATH": self.directory, "PYTHONDONTWRITEBYTECODE": "1"}
        self.preload = f"import {', '.join(preload)}\n"
        return self.template(preload, env=self.env, backend="warm", spares=1, **options)

    def run_program(self, run, program, options=()):
        """Status, output, and what is in the files that were written."""
        folder = self.folder({})
        done = run([PYTHON, *options, "-c", self.preload + BEGIN + program], env=self.env, cwd=folder, capture_output=True, timeout=60)
        files = {}
        for name in os.listdir(folder):
            with open(os.path.join(folder, name), "rb") as file:
                files[name] = file.read()
        # Where things lie in memory is each process's own.
        return done.returncode, done.stdout, re.sub(rb"0x[0-9a-f]{6,}", b"0x", done.stderr), files

    def test_what_hangs_on_the_image_ends_as_in_a_cold_child(self):
        with self.begin(STORE) as template:
            for name, program in PROGRAMS.items():
                with self.subTest(name):
                    expected = self.run_program(subprocess.run, program)
                    self.assertEqual(self.run_program(template.run, program), expected)

    def test_what_only_c_code_ends_ends_as_in_a_cold_child(self):
        with self.begin(STORE + CAPSULES) as template:
            for name, program in CAPSULE_PROGRAMS.items():
                with self.subTest(name):
                    program = "del Loud, written\n" + program
                    expected = self.run_program(subprocess.run, program)
                    self.assertEqual(expected[0], -signal.SIGABRT)
                    self.assertEqual(self.run_program(template.run, program), expected)

    def test_what_the_image_itself_holds_ends_in_each_child(self):
        store = STORE + BEGIN.replace("import store\n", "") + "kept['loud'] = Loud('preloaded')\n"
        with self.begin(store) as template:
            expected = self.run_program(subprocess.run, "")
            self.assertIn(b"end of preloaded", expected[1])
            for _ in range(2):
                self.assertEqual(self.run_program(template.run, ""), expected)

    def test_an_image_with_ends_of_its_own_ends_as_in_a_cold_child(self):
        programs = dict(PROGRAMS)
        if sys.version_info < (3, 10):
            # Of what is written to standard error without an end of line only that is seen which something follows,
            # and the order is another one, as bytes are compared without it.
            del programs["printed_at_the_end_to_stderr"]
        with self.begin(ENDING) as template:
            for name, program in programs.items():
                with self.subTest(name):
                    expected = self.run_program(subprocess.run, program)
                    self.assertEqual(byte_by_byte(self.run_program(template.run, program)), byte_by_byte(expected))

    def test_a_hook_of_the_template_does_not_keep_what_the_program_unfreezes(self):
        with self.begin(STORE + "def before(): pass\n", before_fork="store:before") as template:
            for start in ("", "import gc; gc.unfreeze()\n", "import atexit; atexit._run_exitfuncs()\n"):
                with self.subTest(start):
                    done = self.run_program(template.run, start + "store.Class.file = written('a')")
                    self.assertEqual(done[3], {"a": b"buffered in a"})

    def test_an_image_that_had_frozen_itself_ends_as_in_a_cold_child(self):
        with self.begin(STORE + "import gc\ngc.freeze()\n") as template:
            done = self.run_program(template.run, "store.kept['file'] = written('a')")
            self.assertEqual(done[3], {"a": b"buffered in a"})

    def test_an_exit_handler_of_the_interpreter_itself_finds_its_modules(self):
        site = "import atexit\ndef late():\n    import store, json, os\n    os.write(1, json.dumps(len(store.kept)).encode())\natexit.register(late)\n"
        with self.begin(STORE) as template:
            pass
        with open(os.path.join(self.directory, "sitecustomize.py"), "w") as file:
            file.write(site)
        with self.template(["store", "json"], env=self.env, backend="warm") as template:
            expected = self.run_program(subprocess.run, "store.kept['file'] = written('a')")
            self.assertIn(b"1", expected[1])
            self.assertEqual(self.run_program(template.run, "store.kept['file'] = written('a')"), expected)

    def test_what_a_site_sets_up_until_its_exit_handler_is_through(self):
        site = (
            "import atexit\ndef generate():\n    try: yield\n    finally: print('site is through')\n"
            "kept = generate()\nnext(kept)\ndef late():\n    global kept\n    kept = None\natexit.register(late)\n"
        )
        with self.begin(STORE) as template:
            pass
        with open(os.path.join(self.directory, "sitecustomize.py"), "w") as file:
            file.write(site)
        with self.template(["store", "json"], env=self.env, backend="warm") as template:
            for program in ("", "file = written('a'); loud = Loud('x')", "store.kept[1] = Loud('kept')", "1/0"):
                with self.subTest(program):
                    self.assertEqual(
                        self.run_program(template.run, program), self.run_program(subprocess.run, program)
                    )

    def test_ends_are_the_same_where_memory_is_checked(self):
        options = ["-X", "dev"]
        with self.begin(STORE, options=options) as template:
            for name in ("nothing", "objects", "file_in_main", "loud_in_cycle", "file_in_dictionary", "resource_warning"):
                with self.subTest(name):
                    expected = self.run_program(subprocess.run, PROGRAMS[name], options)
                    self.assertEqual(self.run_program(template.run, PROGRAMS[name], options), expected)

    def test_random_programs_end_as_in_a_cold_child(self):
        with self.begin(STORE) as template:
            for seed in range(30):
                program = random_program(random.Random(seed))
                with self.subTest(program):
                    expected = self.run_program(subprocess.run, program)
                    self.assertEqual(in_any_order(self.run_program(template.run, program)), in_any_order(expected))

    @unittest.skipIf(sys.version_info < (3, 11), "objects cannot be looked at")
    def test_an_image_in_which_nothing_ends_is_left_as_it_is(self):
        def faults(program):
            before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt
            self.run_program(template.run, program)
            return resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt - before

        many = "many = [[] for _ in range(100_000)]\n"
        with self.begin(STORE + many) as template:
            taken_apart = faults("sys.setprofile(lambda *_: None)")  # it sees what happens
        names = (
            "nothing", "finalizer", "buffered_output", "objects", "file_in_main", "loud_in_main", "file_in_dictionary",
            "file_known_to_many", "file_in_a_cycle_that_hangs", "places_taken_in_order", "loud_in_dictionary",
            "loud_generator", "loud_generator_that_has_what_is_held_has", "loud_as_attribute", "loud_coroutine",
        )
        for store, names in (STORE, (*names, *QUIET_PROGRAMS)), (ENDING, names):
            with self.begin(store + many) as template:
                for name in names:
                    with self.subTest(name, has_ends=store is ENDING):
                        self.assertLess(faults(PROGRAMS[name]) * 2, taken_apart)

    @unittest.skipIf(sys.version_info < (3, 11), "objects cannot be looked at")
    def test_an_image_of_little_more_than_the_interpreter_is_left_as_it_is(self):
        def faults(text):
            before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt
            template.run([PYTHON, "-c", text], check=True, env=env)
            return resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt - before

        # Compiled modules, as where the package is installed: then nothing else makes what the compiler knows of syntax
        # trees before a child does.
        env = {**os.environ, "PYTHONPYCACHEPREFIX": self.folder({})}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        with self.template(["sys"], backend="warm", env=env):
            pass
        with self.template(["sys"], backend="warm", spares=0, env=env) as template:
            taken_apart = faults("import sys; sys.setprofile(lambda *_: None)")
            for text in ("", "import os", "compile('1', '', 'eval', 1 << 10)"):
                with self.subTest(text):
                    self.assertLess(faults(text) * 2, taken_apart)


if __name__ == "__main__":
    unittest.main()
