"""Whether sources look as the tools of the tree's own settings would have them."""

import glob
import re
import shutil
import subprocess
import unittest

from support import SOURCE, environment

# Versions of clang-format lay the same settings out differently: the sources are as this one has them (Debian 12).
FORMATTER_VERSION = "14"


def formatter():
    """A clang-format of the version that the sources were formatted with, or None."""
    for name in (f"clang-format-{FORMATTER_VERSION}", "clang-format"):
        if path := shutil.which(name, path="/usr/bin:/bin"):
            said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
            if re.search(rf"version {FORMATTER_VERSION}\.", said):
                return path
    return None


def cpp_sources():
    return [path for top in ("forkserver", "shim", "bench", "tests") for suffix in ("cpp", "hpp")
            for path in glob.glob(f"{SOURCE}/{top}/**/*.{suffix}", recursive=True)]


class Format(unittest.TestCase):
    def test_the_formatter_would_change_nothing(self):
        path = formatter()
        if not path:
            self.skipTest(f"there is no clang-format {FORMATTER_VERSION}, and others lay out differently")
        sources = cpp_sources()
        self.assertGreater(len(sources), 300)
        done = subprocess.run([path, "--dry-run", "-Werror", *sources], capture_output=True, text=True, cwd=SOURCE,
                              env=environment())
        changed = re.findall(r"^(\S+?):(\d+):", done.stderr, re.M)
        self.assertEqual((done.returncode, changed[:20]), (0, []),
                         f"mend it with: clang-format -i {' '.join(sorted({file for file, _ in changed}))}")


if __name__ == "__main__":
    unittest.main()
