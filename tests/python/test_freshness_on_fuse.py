"""The tests of freshness on a file system that inotify does not see everything of."""

import os
import shutil
import subprocess
import time
import unittest

from support import PYTHON
import test_freshness


class FreshnessOnFuse(test_freshness.Freshness):
    """All of it on a file system that inotify does not see everything of."""

    watching = False
    test_with_too_few_watches_files_are_compared = None
    test_with_too_few_watches_for_each_file_their_directories_are_watched = None
    test_a_log_beside_the_module_does_not_keep_spares_from_being_used = None
    test_without_an_inotify_instance_files_are_compared = None
    test_no_stale_child_in_a_thousand_edits = None  # a minute is enough

    def make_root(self):
        self.beneath, mount = self.folder({}), self.folder({})
        if not shutil.which("bindfs"):
            self.skipTest("bindfs is not installed")
        # It ends with this process, however that ends, and the mount with it.
        server = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "bindfs", "-f", "-o", "auto_unmount", self.beneath, mount],
            stderr=subprocess.PIPE,
        )
        self.addCleanup(self.end_server, server, mount)
        deadline = time.monotonic() + 30
        while not os.path.ismount(mount) and server.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        if not os.path.ismount(mount):
            server.kill()
            self.skipTest(f"FUSE cannot be mounted here: {server.stderr.read().decode()}")
        return mount

    @staticmethod
    def end_server(server, mount):
        """Also where a template that a failed test has left still has files open there."""
        if os.path.ismount(mount):
            unmount = shutil.which("fusermount3") or "fusermount"  # bindfs comes with the one or the other
            subprocess.run([unmount, "-uz", mount])
        server.terminate()
        server.wait()
        server.stderr.close()

    def test_what_changes_behind_the_file_system(self):
        module = os.path.join(self.beneath, "releases/one/code/subject.py")

        def write_in_place():
            with open(module, "w") as file:
                file.write(self.project.next_text())

        def rename_over():
            with open(module + ".new", "w") as file:
                file.write(self.project.next_text())
            os.rename(module + ".new", module)

        for change in (write_in_place, rename_over):
            with self.subTest(change=change.__name__):
                self.check(change)

    def test_spawns_are_forked_and_the_doctor_says_why(self):
        template = self.parked()
        self.project.value(template)
        self.assertEqual((template.counts["forked"], template.counts["handed_off"]), (1, 0))
        done = subprocess.run(
            [os.environ["WARMFORK_CLI"], "doctor", "--python", PYTHON, "--preload", "subject"],
            capture_output=True, text=True,
        )
        self.assertRegex(done.stdout, r"compared at each fork: /\S+ is on a file system whose changes cannot be watched")


if __name__ == "__main__":
    unittest.main()
