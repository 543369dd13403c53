"""CPython's own tests of multiprocessing with a start method.

usage: METHOD=warmfork cpython_multiprocessing.py [TEST...]

Leaves out what EXCEPTIONS names. Prints JSON: the outcome of each test, and how many processes were warm.
"""

import io
import json
import os
import sys
import unittest

import test._test_multiprocessing

import warmfork.multiprocessing
from cpython_run import Outcomes

EXCEPTIONS = {
    # A child's own child is to outlive it when it is killed; warmfork's end with their parent.
    ("WithProcessesTestProcess", "test_parent_process"),
    # Their programs do not import warmfork.multiprocessing, and so do not know the method.
    ("TestNoForkBomb", "test_noforkbomb"),
    ("TestFlags", "test_flags"),
}

# From 3.13 on a class of them names the methods that it is for.
if hasattr(test._test_multiprocessing, "_TestSpawnedSysPath"):
    test._test_multiprocessing._TestSpawnedSysPath.START_METHODS |= {"warmfork"}

# Their names for files have the process's id: the template's, in all children.
warmfork.multiprocessing._default.definition[1]["allow"] = ["identity:test.support.os_helper"]

# Children import this module too, and find the tests' classes in it.
test._test_multiprocessing.install_tests_in_module_dict(globals(), os.environ["METHOD"])

for name, method in EXCEPTIONS:
    setattr(globals()[name], method, None)

if __name__ == "__main__":
    output = sys.stdout
    sys.stdout = sys.stderr = io.TextIOWrapper(open("/dev/null", "wb"))
    outcomes = Outcomes()
    loader = unittest.defaultTestLoader
    if sys.argv[1:]:
        suite = unittest.TestSuite(loader.loadTestsFromNames(sys.argv[1:], sys.modules["__main__"]))
    else:
        suite = loader.loadTestsFromModule(sys.modules["__main__"])
    suite.run(outcomes)
    json.dump({"tests": outcomes.seen, "processes": warmfork.multiprocessing._default.counts}, output)
    output.flush()
