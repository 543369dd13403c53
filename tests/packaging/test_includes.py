"""Which folder of the sources includes which: never one that, by whatever way, includes it."""

import glob
import os
import re
import unittest

from support import SOURCE

TOPS = ("forkserver", "shim")
INCLUDE = re.compile(r'^#include "([^"]+)"', re.M)


def folders():
    """{folder: what it includes}, of those of other folders."""
    files = {
        os.path.relpath(file, SOURCE)
        for top in TOPS for file in glob.glob(f"{SOURCE}/{top}/**/*.[hc]*", recursive=True)
    }
    included = {}
    for file in files:
        folder = os.path.dirname(file)
        with open(os.path.join(SOURCE, file)) as text:
            names = INCLUDE.findall(text.read())
        candidates = {os.path.dirname(os.path.join(top, name)) for top in (*TOPS, folder) for name in names
                      if os.path.normpath(os.path.join(top, name)) in files}
        included.setdefault(folder, set()).update(candidates - {folder})
    return included


def reachable(included, folder):
    found, todo = set(), [folder]
    while todo:
        for other in included[todo.pop()] - found:
            found.add(other)
            todo.append(other)
    return found


class Includes(unittest.TestCase):
    def test_folders_include_each_other_in_no_circle(self):
        included = folders()
        self.assertGreater(len(included), 8)
        self.assertEqual([folder for folder in included if folder in reachable(included, folder)], [])


if __name__ == "__main__":
    unittest.main()
