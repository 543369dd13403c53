"""Runs suites as a program does that finds the package, and the suites, through a sys.path of its own making.

    python3 [OPTIONS] own_path.py PACKAGES SUITE...
"""

import os
import sys

sys.path[:0] = sys.argv[1], os.path.dirname(os.path.abspath(__file__))

import unittest

if __name__ == "__main__":
    unittest.main(module=None, argv=["unittest", "-v", *sys.argv[2:]])
