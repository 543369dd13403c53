"""Programs that put something else in the place of subprocess.Popen: each spawn is one child, as they asked."""

import inspect
import os
import subprocess
import unittest

from support import PYTHON, TestCase

# The command leaves a mark each time that it runs. Prints how it was served, and how often it ran.
SPAWN = """
import os, sys
def spawn(template, **options):
    command = [sys.executable, "-c", "print('ran', file=open('marks', 'a'))"]
    child = template.popen(command, **options)
    print(child.wait(), child.backend, child.reason_code, isinstance(child, subprocess.Popen))
    print(open("marks").read().split())
"""

ANOTHER_CLASS = """
import subprocess
class Another(subprocess.Popen):
    def __init__(self, *positional, **keywords):
        private = self._execute_child
        self._execute_child = lambda *given: private(*given[:3], None, *given[3:])
        super().__init__(*positional, **keywords)
    def _execute_child(self, *given):
        super()._execute_child(*given[:3], *given[4:])
"""

WRAPPED = """
import subprocess
def wrap(name):
    original = getattr(subprocess.Popen, name)
    def wrapper(self, *positional, **keywords):
        if name == "__init__":
            inner = self._execute_child
            self._execute_child = lambda *given: inner(None, *given[1:])
        return original(self, *positional, **keywords)
    setattr(subprocess.Popen, name, wrapper)
"""


class Replaced(TestCase):
    def run_program(self, text, **files):
        folder = self.folder({"program.py": text, **files})
        path = os.pathsep.join([folder, *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
        done = subprocess.run(
            [PYTHON, "program.py"], cwd=folder, capture_output=True, text=True, timeout=120,
            env={**os.environ, "PYTHONPATH": path, "WARMFORK_BACKEND": "auto"},
        )
        self.assertEqual(done.stderr, "")
        return done.stdout.splitlines()

    def spawned(self, preparation, before_spawn="", options=""):
        return self.run_program(
            f"{preparation}\nimport warmfork, subprocess\n{SPAWN}\n"
            f"with warmfork.Template(['json']) as template:\n    template.wait_ready()\n    {before_spawn}\n    spawn(template{options})\n"
        )

    def test_another_class(self):
        self.assertEqual(self.spawned(ANOTHER_CLASS + "subprocess.Popen = Another"), ["0 warm none True", "['ran']"])

    def test_what_is_no_class(self):
        program = "import subprocess, functools\nkept, subprocess.Popen = subprocess.Popen, functools.partial(subprocess.Popen)"
        self.assertEqual(
            self.spawned(program, "subprocess.Popen = kept"), ["0 warm none False", "['ran']"]
        )

    def test_another_class_later(self):
        self.assertEqual(
            self.spawned(ANOTHER_CLASS, "warmfork.Popen; subprocess.Popen = Another"),
            ["0 warm none False", "['ran']"],
        )

    def test_other_methods(self):
        for name in ("__init__", "_execute_child", "_get_handles", "_try_wait"):
            with self.subTest(name):
                self.assertEqual(self.spawned(WRAPPED + f"wrap({name!r})"), ["0 warm none True", "['ran']"])

    def test_other_methods_later(self):
        for name in ("__init__", "_execute_child", "_get_handles"):
            with self.subTest(name):
                self.assertEqual(
                    self.spawned(WRAPPED, f"warmfork.Popen; wrap({name!r})"), ["0 warm none True", "['ran']"]
                )

    def test_a_child_that_was_started_early_is_never_started_again(self):
        """Whatever the private call is given."""
        program = (
            "import warmfork, subprocess\n" + SPAWN + "with warmfork.Template(['json']) as template:\n    template.wait_ready()\n"
            "    class Own(warmfork.Popen):\n"
            "        def __init__(self, *given, **options):\n"
            "            inner = self._execute_child\n"
            "            def shifted(*given):\n"
            "                return inner(*given[:2], print, False, *given[4:9], True, *given[10:])\n"
            "            self._execute_child = shifted\n"
            "            super().__init__(*given, template=template, **options)\n"
            "    template.popen = Own\n"
            "    spawn(template)\n"
        )
        self.assertEqual(self.run_program(program), ["0 warm none True", "['ran']"])

    def test_a_private_interface_that_is_not_known_is_not_used(self):
        with open(inspect.getsourcefile(subprocess)) as file:
            source = file.read()
        for old, new in (
            ("_execute_child(self, args, executable, preexec_fn, close_fds,", "_execute_child(self, executable, args, preexec_fn, close_fds,"),
            ("wait_flags", "wait_options"),
        ):
            with self.subTest(new):
                changed = source.replace(old, new).replace(
                    "self._execute_child(args, executable,", "self._execute_child(executable, args,"
                    if "executable, args" in new else "self._execute_child(args, executable,"
                )
                self.assertNotEqual(changed, source)
                program = f"import warmfork, subprocess\n{SPAWN}\nwith warmfork.Template(['json']) as template:\n    template.wait_ready()\n"
                self.assertEqual(
                    self.run_program(program + "    spawn(template)\n", **{"subprocess.py": changed}),
                    ["0 cold command-line True", "['ran']"],
                )
                refused = (
                    "    for options in {'backend': 'warm'}, {'nice': 1}:\n        try:\n            spawn(template, **options)\n"
                    "        except (OSError, ValueError) as error: print(error)\n"
                )
                for line in self.run_program(program + refused, **{"subprocess.py": changed}):
                    self.assertIn("another one than warmfork knows", line)


if __name__ == "__main__":
    unittest.main()
