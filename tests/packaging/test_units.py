"""The units of the service, as systemd reads them: nothing starts them here."""

import os
import shutil
import tempfile
import unittest

from support import BUILD, find, run

# As systemd-analyze counts, in tenths: what a confined instance may be exposed to at the most.
MOST_EXPOSED = "25"


@unittest.skipUnless(shutil.which("systemd-analyze", path="/usr/bin:/bin"), "systemd-analyze is not installed")
class Units(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.root = os.path.join(folder.name, "installed")
        run(["cmake", "--install", BUILD, "--prefix", cls.root])
        cls.units = os.path.join(cls.root, "lib", "systemd")
        cls.runtime = os.path.join(folder.name, "runtime")
        os.mkdir(cls.runtime, 0o700)

    def verify(self, *options):
        run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=yes", *options],
            env={"XDG_RUNTIME_DIR": self.runtime})

    def test_the_units_of_a_user_have_no_errors(self):
        self.verify("--user", f"{self.units}/user/warmforkd.socket", f"{self.units}/user/warmforkd.service")

    def test_the_units_of_a_service_account_have_no_errors(self):
        self.verify(f"{self.units}/system/warmforkd@.socket", f"{self.units}/system/warmforkd@.service")

    def test_each_unit_starts_the_daemon_that_was_installed_with_it(self):
        for unit in ("user/warmforkd.service", "system/warmforkd@.service"):
            with open(os.path.join(self.units, unit)) as file:
                command = next(line for line in file if line.startswith("ExecStart="))
            self.assertEqual(command.strip(), f"ExecStart={find(self.root, 'warmforkd')} --delegated-cgroup")

    def test_the_example_of_confinement_leaves_little_exposed(self):
        unit = f"{self.units}/system/warmforkd@.service"
        folder = unit + ".d"
        os.mkdir(folder)
        self.addCleanup(shutil.rmtree, folder)
        shutil.copy(find(self.root, "hardened.conf"), folder)
        self.verify(unit)
        run(["systemd-analyze", "security", "--offline=yes", f"--threshold={MOST_EXPOSED}", unit])


if __name__ == "__main__":
    unittest.main()
