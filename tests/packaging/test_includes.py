"""Which folder of the sources includes which, and which unit (NAME.hpp and NAME.cpp) which other one: never in a circle."""

import glob
import os
import re
import unittest

from support import SOURCE

TOPS = ("forkserver", "shim")
INCLUDE = re.compile(r'^#include "([^"]+)"', re.M)


def includes(name_of):
    """{name: other names that it includes}, of what `name_of` calls each file."""
    files = {
        os.path.relpath(file, SOURCE)
        for top in TOPS for file in glob.glob(f"{SOURCE}/{top}/**/*.[hc]*", recursive=True)
    }
    included = {}
    for file in files:
        with open(os.path.join(SOURCE, file)) as text:
            names = INCLUDE.findall(text.read())
        candidates = (os.path.normpath(os.path.join(top, name))
                      for top in (os.path.dirname(file), *TOPS) for name in names)
        included.setdefault(name_of(file), set()).update(name_of(other) for other in candidates if other in files)
    return {name: others - {name} for name, others in included.items()}


def reachable(included, name):
    found, todo = set(), [name]
    while todo:
        for other in included[todo.pop()] - found:
            found.add(other)
            todo.append(other)
    return found


def in_circles(included):
    return sorted(name for name in included if name in reachable(included, name))


class Includes(unittest.TestCase):
    def test_folders_include_each_other_in_no_circle(self):
        folders = includes(os.path.dirname)
        self.assertGreater(len(folders), 8)
        self.assertEqual(in_circles(folders), [])

    def test_units_include_each_other_in_no_circle(self):
        units = includes(lambda file: os.path.splitext(file)[0])
        self.assertGreater(len(units), 100)
        self.assertEqual(in_circles(units), [])


if __name__ == "__main__":
    unittest.main()
