"""Small process ids, as containers have them: a number is no process id because it is as small."""

import json
import os
import subprocess
import unittest
import unittest.mock

import warmfork
from support import PYTHON, TestCase, warm_only

CONFINEMENTS = (
    ["unshare", "--pid", "--fork", "--mount-proc"],
    ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"],
)

# Holds whatever id the template has.
TABLE = "import os\nTABLE = list(range(1000))\n"
GENERATORS = "import os, random\nGENERATORS = [random.Random(seed) for seed in range(1000)]\n"

# Says whether a child comes warm, why not, and what it prints.
PROGRAM = """
import json, sys, warmfork
with warmfork.Template(["kept"]) as template:
    reason = ""
    try:
        template.wait_ready()
    except warmfork.TemplateError as error:
        reason = str(error)
    done = template.run([sys.executable, "-c", "import kept; print(%s)"], capture_output=True, text=True)
    print(json.dumps([template.counts["cold"] == 0, reason, done.stdout.strip(), template.pid]))
"""


def confinement():
    """The command by which a program has process ids of its own; None: it is not permitted here."""
    for command in CONFINEMENTS:
        try:
            if subprocess.run([*command, "true"], stdout=-3, stderr=-3).returncode == 0:
                return command
        except FileNotFoundError:
            return None
    return None


@warm_only
class SmallIds(TestCase):
    @classmethod
    def setUpClass(cls):
        cls.confinement = confinement()
        if cls.confinement is None:
            raise unittest.SkipTest("a namespace of process ids cannot be made here")

    def preload(self, source, expression="'ran'"):
        """Is a child of a template with this module warm, why not, and what does it see?"""
        package = os.path.dirname(os.path.dirname(warmfork.__file__))
        path = ":".join([self.folder({"kept.py": source}), package, os.environ.get("PYTHONPATH", "")])
        # The first process is a shell, which takes in orphans; a process group of its own is in the namespace.
        run = ["sh", "-c", 'setsid --wait "$@"; exit $?', "sh"]
        command = [*self.confinement, *run, PYTHON, "-c", PROGRAM % expression]
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        is_warm, reason, output, template = json.loads(done.stdout)
        self.assertLess(template, 1000)
        return is_warm, reason, output

    def test_a_thread_that_has_ended_has_no_id_that_could_be_kept(self):
        thread = "import threading\nthread = threading.Thread(target=int)\nthread.start()\nthread.join()\n"
        self.assertEqual(self.preload(TABLE + thread), (True, "", "ran"))

    def test_a_temporary_name_tells_nobody_the_process_id(self):
        temporary = "import tempfile\nwith tempfile.TemporaryDirectory(): pass\n"
        self.assertEqual(self.preload(TABLE + temporary), (True, "", "ran"))

    def test_where_a_package_has_asked_the_doubt_is_told_and_nothing_is_warm(self):
        for source in ("os.getpid()\n", "import threading\nthreading.get_native_id()\n", "ID = os.getpid()\n"):
            with self.subTest(source):
                is_warm, reason, output = self.preload(TABLE + source)
                self.assertEqual((is_warm, output), (False, "ran"))
                self.assertRegex(reason, r"process id \([0-9]+, which may be there by chance\) in kept\.TABLE")
                self.assertIn('"identity:kept"', reason)

    def test_a_generator_with_a_seed_has_its_stream_whatever_the_process_id_is(self):
        expression = "[generator.random() for generator in kept.GENERATORS]"
        is_warm, reason, output = self.preload(GENERATORS, expression)
        self.assertEqual((is_warm, reason), (True, ""))
        path = self.folder({"kept.py": GENERATORS})
        cold = subprocess.run(
            [PYTHON, "-c", f"import kept; print({expression})"], env={**os.environ, "PYTHONPATH": path},
            capture_output=True, text=True,
        )
        self.assertEqual(output, cold.stdout.strip())

    def test_where_the_process_id_was_asked_for_the_seed_is_a_doubt(self):
        is_warm, reason, _ = self.preload(GENERATORS + "os.getpid()\n")
        self.assertFalse(is_warm)
        self.assertRegex(reason, r"a random\.Random, which a module keeps, has the process id as its seed \([0-9]+\)")
        self.assertIn('"identity:random"', reason)

    def test_of_a_module_that_was_there_at_the_start_it_is_not_known_whether_it_has_asked(self):
        folder = self.folder({"sitecustomize.py": "import os, random\nrandom.seed(os.getpid())\n"})
        with unittest.mock.patch.dict(os.environ, PYTHONPATH=folder):
            is_warm, reason, _ = self.preload("")
        self.assertFalse(is_warm)
        self.assertRegex(reason, r"random\._inst, a random\.Random, has the process id as its seed \([0-9]+\)")


if __name__ == "__main__":
    unittest.main()
