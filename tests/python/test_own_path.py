"""Programs that find the package through a sys.path of their own making, under any interpreter option."""

import os
import subprocess
import sys
import unittest

import warmfork
from support import PYTHON, TestCase

PACKAGES = os.path.dirname(os.path.dirname(os.path.abspath(warmfork.__file__)))

PROGRAM = f"""
import os, sys
sys.path[:0] = {PACKAGES!r}, os.path.dirname(os.path.abspath(__file__))
import multiprocessing, warmfork, warmfork.multiprocessing
def leave(*expected):
    sys.exit(3 if (sys.path[0], tuple(sys.flags)) == expected else 1)
def start_another(name):
    child = multiprocessing.get_context(name).Process(target=leave, args=({PACKAGES!r}, tuple(sys.flags)))
    child.start()
    child.join()
    sys.exit(child.exitcode + 1)
if __name__ == "__main__":
    context = warmfork.get_context(["beside"])
    if os.environ["WARMFORK_BACKEND"] == "auto":
        context.template.wait_ready()
    def started(target, *args):
        child = context.Process(target=target, args=args)
        child.start()
        child.join()
        return child.backend, child.exitcode, *([child.reason] if os.environ["WARMFORK_BACKEND"] == "auto" else [])
    print(started(leave, {PACKAGES!r}, tuple(sys.flags)), started(start_another, "warmfork"), started(start_another, "spawn"))
    with context.Pool(1) as pool:
        print(pool.map(abs, [-1]))
    with warmfork.Template(["json"]) as template:
        child = template.popen([sys.executable, "-c", "raise SystemExit(5)"])
        print(child.wait(), child.backend)
"""


class OwnPath(TestCase):
    def outcome(self, backend, *options):
        folder = self.folder({"program.py": PROGRAM, "beside.py": ""})
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [PYTHON, *options, os.path.join(folder, "program.py")], cwd="/", capture_output=True, text=True,
            timeout=120, env={**environment, "WARMFORK_BACKEND": backend},
        )
        return done.stdout.splitlines(), done.stderr

    def test_warm_and_cold_children_find_it_too(self):
        cases = [("warm", ()), ("warm", ("-I",)), ("warm", ("-S", "-B")), ("warm", ("-E",))]
        cases += [("cold", options) for options in ((), ("-I",), ("-E",), ("-S",))]
        if sys.version_info >= (3, 11):
            cases += [("warm", ("-P",)), ("cold", ("-P",))]
        for kind, options in cases:
            with self.subTest(kind, options=options):
                lines, errors = self.outcome("cold" if kind == "cold" else "auto", *options)
                reason = "" if kind == "cold" else ", ''"
                expected = [f"({kind!r}, {status}{reason})" for status in (3, 4, 4)]
                self.assertEqual(lines[:2], [" ".join(expected), "[1]"], errors)
                self.assertIn(lines[2], ("5 cold", "5 warm"))  # its options select a variant
                self.assertEqual(errors, "")


if __name__ == "__main__":
    unittest.main()
