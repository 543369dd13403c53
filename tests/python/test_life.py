"""What a warm child costs besides the time to its first line: pages that it need not fault for."""

import importlib.util
import os
import subprocess
import sys
import unittest

from support import PYTHON, TestCase


def private_code(pid):
    """KB of the interpreter's code that are the process's own."""
    interpreter, own, is_code = os.path.realpath(PYTHON), 0, False
    with open(f"/proc/{pid}/smaps") as file:
        for line in file:
            fields = line.split()
            if not fields[0].endswith(":"):
                is_code = fields[1] == "r-xp" and fields[-1].startswith(os.path.dirname(os.path.dirname(interpreter)))
            elif is_code and fields[0] == "Anonymous:":
                own += int(fields[1])
    return own


class Life(TestCase):
    def test_a_template_has_code_of_its_own_so_that_forks_copy_how_it_is_mapped(self):
        with self.template(backend="warm") as template:
            template.wait_ready()
            self.assertGreater(private_code(template.pid), 0)
        self.assertEqual(private_code(os.getpid()), 0)

    def test_what_a_preloaded_module_has_for_its_end_comes_at_the_templates(self):
        """In the order of CPython, and once for the template, which has forked."""
        module = (
            "import atexit, os, sys\n"
            "LOG = os.path.join(os.path.dirname(__file__), 'log')\n"
            "def say(text):\n"
            "    with open(LOG, 'a') as log: print(os.getpid(), text, file=log)\n"
            "class Ending:\n"
            "    def __del__(self, say=say): say('finalizer')\n"
            "ending = Ending()\n"
            "atexit.register(say, 'second'); atexit.register(say, 'first')\n"
        )
        folder = self.folder({"ending.py": module})
        env = {**os.environ, "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}
        with self.template(["ending"], backend="warm", env=env, spares=1) as template:
            template.run([PYTHON, "-c", "import os; os._exit(0)"], env=env)
            template.wait_parked(1)
            pid = template.pid
        with open(os.path.join(folder, "log")) as log:
            self.assertEqual(log.read().splitlines(), [f"{pid} {text}" for text in ("first", "second", "finalizer")])

    @unittest.skipUnless(importlib.util.find_spec("numpy"), "there is no numpy")
    def test_children_draw_other_numbers_from_numpy_than_their_template_and_each_other(self):
        program = (
            "import numpy.random as r\nname, key, position, has_normal, _ = r.get_state()\n"
            "print(len(set(key)) > 600, position, has_normal, r.random(), r.normal(), r.random())"
        )
        command = [sys.executable, "-c", program]
        with self.template(["numpy.random"], backend="warm", spares=2) as template:
            drawn = [template.run(command, capture_output=True, text=True).stdout.split() for _ in range(4)]
        self.assertEqual({tuple(line[:3]) for line in drawn}, {("True", "624", "0")})
        self.assertEqual(len({tuple(line[3:]) for line in drawn}), 4)

    @unittest.skipUnless(importlib.util.find_spec("numpy"), "there is no numpy")
    def test_numpy_seeds_itself_where_it_has_half_a_pair_of_normals_left(self):
        folder = self.folder({"drawing.py": "import numpy.random\nnumpy.random.normal()\n"})
        env = {**os.environ, "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}
        command = [sys.executable, "-c", "import numpy.random as r; print(r.get_state()[3], r.normal())"]
        with self.template(["drawing"], backend="warm", env=env) as template:
            drawn = [template.run(command, capture_output=True, text=True, env=env).stdout for _ in range(3)]
        self.assertEqual(len(set(drawn)), 3)
        self.assertTrue(all(line.startswith("0 ") for line in drawn), drawn)
        self.assertNotEqual(subprocess.run(command, env=env, capture_output=True, text=True).stdout, "")


if __name__ == "__main__":
    unittest.main()
