"""libwarmfork-exec.so in a program that starts others by their path: they are warm, or what they were."""

import os
import subprocess
import unittest

from support import PYTHON, warm_only
from test_links_warm import WarmTestCase

SEEN = "import os, sys; print('csv' in sys.modules, os.getppid(), sys.argv, sys.executable)"

# How programs start others, by the name of the way.
WAYS = {
    "vfork": "subprocess.run(command)",
    "fork": "subprocess.run(command, preexec_fn=lambda: None)",
    "execve": "os.execve(command[0], command, os.environ)",
    "execv": "os.execv(command[0], command)",
    "posix_spawn": "os.waitpid(os.posix_spawn(command[0], command, os.environ), 0)",
    "posix_spawnp": "os.waitpid(os.posix_spawnp(command[0], command, os.environ), 0)",
}


class ExecLibrary(WarmTestCase):
    def setUp(self):
        super().setUp()
        self.install("python3")
        self.library = os.path.join(os.path.dirname(os.readlink(self.path("links/python3"))), "libwarmfork-exec.so")
        self.environment["PATH"] = "/usr/bin:/bin"

    def start_by(self, way, *command, **more):
        """By a program that has the library. The children have no LD_PRELOAD, which would be another image's."""
        program = ("import os, subprocess, sys; command = sys.argv[1:]; del os.environ['LD_PRELOAD']; " + WAYS[way])
        environment = {**self.environment, "LD_PRELOAD": self.library, **more}
        return subprocess.run([PYTHON, "-c", program, *command], env=environment, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=60)

    @warm_only
    def test_an_interpreter_is_warm_by_each_way(self):
        service = self.start_ready()
        for way in WAYS:
            expected = f"True {service.pid} {['-c', 'a b', '']} {PYTHON}\n"
            seen = self.until(expected.__eq__, lambda: self.start_by(way, PYTHON, "-c", SEEN, "a b", "").stdout)
            self.assertEqual(seen, expected, way)

    @warm_only
    def test_children_may_keep_the_library(self):
        """They are warm, and what they start is too."""
        service = self.start_ready()
        again = "import os, subprocess, sys; print('csv' in sys.modules, os.getppid(), os.environ['LD_PRELOAD'], flush=True)\n" \
                "sys.argv[1:] and subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
        program = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1], sys.argv[1]])"
        expected = f"True {service.pid} {self.library}\n" * 2

        def start():
            return subprocess.run([PYTHON, "-c", program, again], env={**self.environment, "LD_PRELOAD": self.library},
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60).stdout

        self.assertEqual(self.until(expected.__eq__, start), expected)

    @warm_only
    def test_a_script_is_warm(self):
        service = self.start_ready()
        for line in (f"#!{PYTHON}", "#!/usr/bin/env python3"):
            self.write("bin/tool", f"{line}\n{SEEN}\n")
            os.chmod(self.path("bin/tool"), 0o755)
            expected = f"True {service.pid} {[self.path('bin/tool'), 'x']} {PYTHON}\n"
            seen = self.until(expected.__eq__, lambda: self.start_by("vfork", self.path("bin/tool"), "x").stdout)
            self.assertEqual(seen, expected)

    def test_without_a_service_it_is_the_same_command(self):
        for way in WAYS:
            done = self.start_by(way, PYTHON, "-c", SEEN)
            self.assertRegex(done.stdout, rf"^False \d+ \['-c'\] {PYTHON}\n$", (way, done.stderr))

    def test_other_programs_and_failures_are_left_alone(self):
        self.start_ready()
        self.assertEqual(self.start_by("vfork", "/bin/echo", "x").stdout, "x\n")
        self.assertIn("FileNotFoundError", self.start_by("vfork", "/none/python3").stderr)
        self.assertIn("PermissionError", self.start_by("posix_spawn", self.write("python3", "#!/bin/sh\n")).stderr)
        self.assertIn("FileNotFoundError", self.start_by("execv", "/none/python3").stderr)
        for text in ("", "#!", "#!/bin/sh", f"#!{PYTHON}"):  # none with an end of its line
            self.write("bin/odd", text)
            os.chmod(self.path("bin/odd"), 0o755)
            done, plain = (self.start_by("vfork", self.path("bin/odd"), **more) for more in ({}, {"LD_PRELOAD": ""}))
            self.assertEqual((done.stdout, done.returncode), (plain.stdout, plain.returncode), text)

    def test_workers_that_tell_their_process_id_are_left_alone(self):
        self.start_ready()
        self.write("library/loky/backend/popen_loky_posix.py", SEEN)
        for command in (("-c", SEEN, "--multiprocessing-fork"), ("-m", "loky.backend.popen_loky_posix", "--pipe", "3")):
            done = self.start_by("vfork", PYTHON, *command, PYTHONPATH=self.path("library"))
            self.assertTrue(done.stdout.startswith("False "), (done.stdout, done.stderr))
        self.assertTrue(os.path.exists(self.path("socket.links/python3")))  # warmfork-exec has been there

    def test_set_uid_programs_are_left_alone(self):
        self.start_ready()
        copy = self.path("bin/python3")
        subprocess.run(["cp", os.path.realpath(PYTHON), copy], check=True)
        os.chmod(copy, 0o4755)
        shown = "print(open('/proc/self/comm').read(), __import__('os').readlink('/proc/self/exe'))"
        self.assertEqual(self.start_by("vfork", copy, "-c", shown).stdout, f"python3\n {copy}\n")
        self.assertFalse(os.path.exists(self.path("socket.links/python3")))  # warmfork-exec has not been there

    def test_a_program_of_ours_has_its_cold_children_cold(self):
        self.start_ready()
        program = ("import os, sys, warmfork; del os.environ['LD_PRELOAD']; "
                   "warmfork.Popen([sys.executable, '-c', sys.argv[1]], backend='cold').wait()")
        done = subprocess.run([PYTHON, "-c", program, "import os; print(os.getppid())"], stdin=subprocess.DEVNULL,
                              env={**self.environment, "LD_PRELOAD": self.library}, capture_output=True, text=True,
                              timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertFalse(os.path.exists(self.path("socket.links/python3")))


if __name__ == "__main__":
    unittest.main()
