"""What the Python tests share: a leak guard around every test, and cold reference runs."""

import os
import signal
import subprocess
import sys
import tempfile
import unittest

import warmfork

PYTHON = sys.executable


def children():
    found = []
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/children") as file:
            found += [int(pid) for pid in file.read().split()]
    return found


def descriptors():
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        # Files of /proc are kept by the shim for the life of the process, as is the keeper's socket.
        if not target.startswith("/proc/") and not (int(number) > 500 and target.startswith("socket:")):
            found[int(number)] = target
    return found


def tracker_of_shared_resources():
    """multiprocessing's, which lives as long as the process."""
    module = sys.modules.get("multiprocessing.resource_tracker")
    return module and module._resource_tracker._pid


class TestCase(unittest.TestCase):
    """A test that leaves a child or a descriptor behind has failed."""

    def setUp(self):
        self._before = descriptors()
        self.addCleanup(self._check_leaks)

    def _check_leaks(self):
        left = {number: target for number, target in descriptors().items() if number not in self._before}
        self.assertEqual(left, {}, "descriptors were left open")
        for pid in children():
            if pid == tracker_of_shared_resources():
                continue
            with open(f"/proc/{pid}/comm") as file:
                name = file.read().strip()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self.fail(f"child {pid} ({name}) was left behind")

    def folder(self, files):
        """A temporary directory with these files, {name: text}."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        for name, text in files.items():
            path = os.path.join(folder.name, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as file:
                file.write(text)
        return folder.name

    def template(self, preload=("json",), **options):
        """A template that is closed before the leak check."""
        template = warmfork.Template(preload, **options)
        self.addCleanup(template.close)
        return template


def cold(command, **options):
    """The reference: subprocess itself."""
    return subprocess.run(command, capture_output=True, **options)
