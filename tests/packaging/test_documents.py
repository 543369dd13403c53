"""The pages that newcomers read first: their examples run as pasted, and every reason of a cold spawn is explained."""

import os
import re
import subprocess
import tempfile
import unittest

from support import BUILD, PYTHON, SOURCE, environment


def read(page):
    with open(os.path.join(SOURCE, page)) as file:
        return file.read()


def python_examples(page):
    return re.findall(r"^```python\n(.*?)^```$", read(page), re.M | re.S)


class Examples(unittest.TestCase):
    def run_pasted(self, example):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "example.py")
            with open(path, "w") as file:
                file.write(example)
            done = subprocess.run([PYTHON, path], cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  timeout=300, env=environment(PYTHONPATH=os.path.join(BUILD, "python")))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def test_the_example_of_the_readme_prints_a_third_from_a_warm_child(self):
        example, = python_examples("README.md")
        self.assertEqual(self.run_pasted(example).split(), ["0." + "3" * 28, "warm"])

    def test_the_examples_of_getting_started_run(self):
        first, executor, tasks = python_examples("docs/getting-started.md")
        self.assertEqual(self.run_pasted(first), "0." + "3" * 28 + "\nbackend: warm - exit status: 0\n")
        self.assertEqual(self.run_pasted(executor), "[0, 1, 4, 9, 16, 25, 36, 49]\n")
        self.assertEqual(self.run_pasted(tasks), "warm\n0\n")


class Reasons(unittest.TestCase):
    def test_each_reason_of_the_header_and_no_other_has_its_row(self):
        header = set(re.findall(r"WARMFORK_REASON_(\w+) = ", read("shim/include/warmfork.h"))) - {"NONE", "COUNT"}
        rows = re.findall(r"^\| `([\w-]+)` \| ", read("docs/why-cold.md"), re.M)
        self.assertEqual(sorted(rows), sorted(name.lower().replace("_", "-") for name in header))


if __name__ == "__main__":
    unittest.main()
