"""The version is written once, in CMakeLists.txt; what cannot take it from there agrees with it."""

import os
import re
import unittest

from support import BUILD, CLI, PYTHON, SOURCE, run


def first_match(pattern, file):
    with open(os.path.join(SOURCE, file)) as source:
        return re.search(pattern, source.read(), re.M)[1]


class Version(unittest.TestCase):
    version = first_match(r"^project\(warmfork VERSION (\S+)", "CMakeLists.txt")

    def test_the_command_line_and_the_python_package_have_it(self):
        self.assertEqual(run([CLI, "--version"]).strip(), self.version)
        program = "import warmfork; print(warmfork.__version__)"
        self.assertEqual(run([PYTHON, "-c", program], env={"PYTHONPATH": f"{BUILD}/python"}).strip(), self.version)

    def test_the_newest_entry_of_both_changelogs_is_of_it(self):
        self.assertEqual(first_match(r"^warmfork \((\S+)\)", "packaging/debian/changelog"), self.version)
        self.assertEqual(first_match(r"^## (\S+)", "CHANGELOG.md"), self.version)

    def test_nothing_else_writes_it_down(self):
        for file in ("shim/python/pyproject.toml", "shim/python/setup.py", "shim/python/warmfork/__init__.py"):
            with open(os.path.join(SOURCE, file)) as source:
                self.assertNotIn(self.version, source.read(), file)


if __name__ == "__main__":
    unittest.main()
