"""`pip install` of shim/python: into virtual environments, with and without the system's packages."""

import glob
import os
import select
import signal
import tempfile
import unittest

from support import PYTHON, SOURCE, find, run

PROGRAM = """
import sys, warmfork, warmfork._native
with warmfork.Template(["json"]) as template:
    done = template.run([sys.executable, "-c", "import json, sys; print(sys.prefix)"], backend="warm",
                        capture_output=True, text=True, check=True)
    assert done.stdout.strip() == sys.prefix, done.stdout
print(warmfork.__file__, warmfork.__version__)
"""


class Wheel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name
        run([PYTHON, "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir",
             cls.folder, f"{SOURCE}/shim/python"])
        (cls.wheel,) = glob.glob(f"{cls.folder}/*.whl")

    def pip(self, root):
        """pip, working on that environment: the system's own, which is quicker than one in each."""
        return [PYTHON, "-m", "pip", "--python", f"{root}/bin/python"]

    def environment(self, *options):
        """A virtual environment with the wheel installed."""
        root = tempfile.mkdtemp(dir=self.folder)
        run([PYTHON, "-m", "venv", "--without-pip", *options, root])
        run([*self.pip(root), "install", "--no-deps", "--no-index", self.wheel])
        return root

    def stop(self, process):
        """And wait until it has ended."""
        ended = os.pidfd_open(process)
        os.kill(process, signal.SIGTERM)
        select.select([ended], [], [], 60)
        os.close(ended)

    def test_it_is_for_the_stable_abi(self):
        self.assertIn("-cp39-abi3-linux_", os.path.basename(self.wheel))

    def test_type_checkers_find_what_they_read(self):
        package = os.path.dirname(find(self.environment(), "_native.abi3.so"))
        for name in ("py.typed", "__init__.pyi", "_native.pyi", "_types.pyi"):
            self.assertTrue(os.path.exists(os.path.join(package, name)), name)

    def test_others_find_what_the_package_offers_them(self):
        program = "from importlib.metadata import distribution; print(distribution('warmfork').entry_points)"
        self.assertIn("warmfork.jupyter:WarmforkProvisioner", run([f"{self.environment()}/bin/python", "-c", program]))

    def test_children_are_warm_in_a_virtual_environment(self):
        for options in ((), ("--system-site-packages",)):
            root = self.environment(*options)
            self.assertIn(root, run([f"{root}/bin/python", "-c", PROGRAM], cwd=root))

    def test_the_command_line_comes_with_it(self):
        root = self.environment()
        path = {"PATH": f"{root}/bin:/usr/bin:/bin"}
        self.assertEqual(run(["warmfork", "run", "--backend", "warm", "--preload", "json", "--", "python", "-c",
                              "import sys; print(sys.prefix)"], env=path), f"{root}\n")
        self.assertIn("warm-spare", run(["warmfork", "bench", "serial", "--count", "1", "--preload", "json"], env=path))

    def test_the_service_comes_with_it(self):
        root = self.environment()
        folder = tempfile.mkdtemp(dir=self.folder)
        os.makedirs(f"{folder}/templates.d")
        with open(f"{folder}/templates.d/own.toml", "w") as file:
            file.write(f'python = "{root}/bin/python"\npreload = ["json"]\n')
        service = {"WARMFORK_SOCKET": f"{folder}/socket"}
        run([find(root, "warmforkd"), "--background", "--idle-exit", "60", "--config", folder], env=service)
        shown = run([f"{root}/bin/warmfork", "run", "--backend", "warm", "-t", "own", "--", f"{root}/bin/python", "-c",
                     "import os, sys; print(os.getppid(), sys.prefix)"], env=service)
        daemon, prefix = shown.split()
        self.addCleanup(self.stop, int(daemon))
        self.assertEqual(os.readlink(f"/proc/{daemon}/exe"), find(root, "warmforkd"))
        self.assertEqual(prefix, root)

    def test_it_is_removed_without_a_trace(self):
        root = self.environment()
        run([*self.pip(root), "uninstall", "--yes", "warmfork"])
        left = [os.path.join(folder, name) for folder, folders, files in os.walk(root) for name in folders + files
                if "warmfork" in name]
        self.assertEqual(left, [])


if __name__ == "__main__":
    unittest.main()
