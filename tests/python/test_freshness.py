"""A spawn asked for after a file has changed never starts from the image that was made before."""

import ctypes
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
import zipfile
from project import Project

from support import PYTHON, TestCase, warm_only

MOST_WATCHES = "/proc/sys/user/max_inotify_watches"  # of a user namespace


@warm_only
class Freshness(TestCase):
    watching = True

    def make_root(self):
        return self.folder({})

    def setUp(self):
        super().setUp()
        self.project = Project(self, self.make_root())
        # So that the images for the children's environment are the first ones.
        for name, value in (
            ("PYTHONPATH", os.pathsep.join([self.project.first, self.project.path])),
            ("PYTHONDONTWRITEBYTECODE", "1"),
        ):
            before = os.environ.get(name)
            os.environ[name] = value
            self.addCleanup(self.restore, name, before)

    @staticmethod
    def restore(name, value):
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value

    def parked(self, **options):
        template = self.template(["subject"], **options)
        template.wait_parked(1)
        return template

    def check(self, change):
        with self.parked() as template:
            value, process = self.project.value(template)
            self.assertEqual((value, process.backend), (str(self.project.count), "warm"), process.reason)
            self.assertEqual(template.report()["freshness"]["not_watched_because"] == "", self.watching)
            template.wait_parked(1)
            change()
            value, process = self.project.value(template)
            self.assertEqual((value, process.backend), (str(self.project.count), "cold"))
            self.assertEqual(process.reason_code, "stale", process.reason)
            value, process = self.project.value(template, backend="warm")
            self.assertEqual((value, process.backend), (str(self.project.count), "warm"))

    def test_every_kind_of_change(self):
        for change in (*Project.CHANGES, Project.make_a_package_of_it):
            with self.subTest(change=change.__name__):
                self.check(lambda: change(self.project))

    @unittest.skipUnless(shutil.which("git"), "git is not installed")
    def test_a_checkout(self):
        def git(*args):
            identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
            subprocess.run(["git", "-C", self.project.path, *identity, *args], check=True, stdout=-3, stderr=-3)

        def check_out():
            git("checkout", "-f", "-")
            self.project.count = 1

        git("init")
        git("add", "subject.py")
        git("commit", "-m", "first")
        self.project.write_in_place()
        git("commit", "-am", "second")
        git("checkout", "HEAD~1")
        self.project.count = 0
        self.check(check_out)

    @unittest.skipUnless(importlib.util.find_spec("pip"), "pip is not installed")
    def test_an_upgrade(self):
        def upgrade():
            text = self.project.next_text()
            name = f"subject-{self.project.count}.0"
            wheel = os.path.join(self.project.root, f"{name}-py3-none-any.whl")
            with zipfile.ZipFile(wheel, "w") as archive:
                archive.writestr("subject.py", text)
                archive.writestr(f"{name}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: subject\nVersion: {self.project.count}.0\n")
                archive.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
                archive.writestr(f"{name}.dist-info/RECORD", "")
            pip = [PYTHON, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--upgrade", "--target"]
            subprocess.run([*pip, self.project.path, wheel], check=True, stdout=-3, stderr=-3)

        upgrade()
        self.check(upgrade)

    def test_an_archive_on_the_import_path_that_is_written_in_place(self):
        def write():
            with zipfile.ZipFile(self.project.first, "w") as archive:
                archive.writestr("subject.py", self.project.next_text())

        os.rmdir(self.project.first)
        write()
        self.check(write)

    def test_a_file_that_comes_earlier_on_the_import_path(self):
        self.check(self.project.shadow_it)
        self.check(self.project.unshadow_it)

    def test_metadata_that_was_read(self):
        metadata = os.path.join(self.project.path, "subject-1.0.dist-info/METADATA")
        os.mkdir(os.path.dirname(metadata))
        for version in ("1.0", "2.0"):
            with open(metadata, "w") as file:
                file.write(f"Metadata-Version: 2.1\nName: subject\nVersion: {version}\n")
            with open(self.project.module, "w") as file:
                file.write("import importlib.metadata\nVALUE = importlib.metadata.version('subject')\n")
            with self.parked() as template:
                self.assertEqual(self.project.value(template)[0], version)
                os.utime(metadata)
                self.assertEqual(self.project.value(template)[1].reason_code, "stale")

    def write_subject(self, text):
        with open(self.project.module, "w") as file:
            file.write(text)

    def check_listing(self, expression, add, *, passes=()):
        """expression: over `folder`, which the module lists. add: changes it so that one more is found. passes:
        names of files in it that do not matter."""
        folder = tempfile.mkdtemp(prefix="plugins", dir=self.project.root)
        self.write_subject(f"import glob, os, pathlib, pkgutil\nfolder = {folder!r}\nVALUE = {expression}\n")
        with self.parked() as template:
            for name in passes:
                open(os.path.join(folder, name), "w").close()
                value, process = self.project.value(template)
                self.assertEqual((value, process.backend), ("0", "warm"), process.reason)
            template.wait_parked(1)
            add(folder)
            value, process = self.project.value(template)
            self.assertEqual((value, process.reason_code), ("1", "stale"), process.reason)
            self.assertIn("plugins", process.reason)
            value, process = self.project.value(template, backend="warm")
            self.assertEqual((value, process.backend), ("1", "warm"))

    def test_a_directory_that_was_listed(self):
        def add(folder):
            open(os.path.join(folder, "new.py"), "w").close()

        for expression in (
            "sum(name.endswith('.py') for name in os.listdir(folder))",
            "sum(entry.name.endswith('.py') for entry in os.scandir(folder))",
            "len(glob.glob(folder + '/*.py'))",
            "len(list(pathlib.Path(folder).rglob('*.py')))",
            "len(list(pkgutil.iter_modules([folder])))",
        ):
            with self.subTest(expression=expression):
                self.check_listing(expression, add, passes=("new.py~", ".new.py.swp"))

    def test_a_distribution_that_is_new_where_entry_points_were_looked_for(self):
        def add(folder):
            os.mkdir(os.path.join(folder, "plugin-1.0.dist-info"))
            with open(os.path.join(folder, "plugin-1.0.dist-info/entry_points.txt"), "w") as file:
                file.write("[subject.plugins]\nplugin = plugin\n")
            with open(os.path.join(folder, "plugin-1.0.dist-info/METADATA"), "w") as file:
                file.write("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")

        find = "__import__('importlib.metadata').metadata.distributions(path=[folder])"
        count = f"sum(point.group == 'subject.plugins' for found in {find} for point in found.entry_points)"
        self.check_listing(count, add, passes=("run-1.log", "other.py"))

    def test_what_comes_and_goes_in_a_listed_directory_preloads_nothing_anew(self):
        self.write_subject(f"import os\nVALUE = len(os.listdir({self.project.first!r}))\n")
        template = self.parked()
        for name in ("a", "b", "c"):
            path = os.path.join(self.project.first, name)
            open(path, "w").close()
            os.unlink(path)
            value, process = self.project.value(template)
            self.assertEqual((value, process.backend), ("0", "warm"), process.reason)
        self.assertEqual(template.counts["template_starts"], 1)

    def test_what_does_not_matter_leaves_it_warm(self):
        template = self.parked()
        for name in ("notes.txt", "subject.txt", "other.py", ".subject.py.swp"):
            with open(os.path.join(self.project.path, name), "w") as file:
                file.write("x")
            value, process = self.project.value(template)
            self.assertEqual((value, process.backend), ("0", "warm"), process.reason)
        self.assertEqual(template.counts["template_starts"], 1)

    def test_a_log_beside_the_module_does_not_keep_spares_from_being_used(self):
        template = self.parked()
        with open(os.path.join(self.project.path, "application.log"), "w") as log:
            self.project.value(template)
            forked = template.counts["forked"]
            for _ in range(10):
                template.wait_parked(1)
                log.write("a line\n")
                log.flush()
                self.project.value(template)
        self.assertEqual(template.counts["forked"], forked)

    def test_wait_gives_the_new_image_and_serve_the_old_one(self):
        template = self.parked(on_stale="wait")
        self.project.write_in_place()
        value, process = self.project.value(template)
        self.assertEqual((value, process.backend), ("1", "warm"), process.reason)
        template.close()
        template = self.parked(on_stale="serve")
        self.project.write_in_place()
        program = "import sys; print(sys.modules['subject'].VALUE)"
        value = template.run([PYTHON, "-c", program], capture_output=True).stdout
        self.assertEqual(value, b"1\n")
        while value == b"1\n":  # until the new image has taken over
            value = template.run([PYTHON, "-c", program], capture_output=True).stdout
        self.assertEqual(value, b"2\n")
        self.assertEqual(template.counts["cold"], 0)

    def test_a_fork_on_command_looks_too(self):
        template = self.template(["subject"], spares=0)
        template.wait_ready()
        self.project.write_in_place()
        value, process = self.project.value(template)
        self.assertEqual((value, process.reason_code), ("1", "stale"))

    def test_an_endless_rewrite_is_cold_and_preloads_a_bounded_number_of_times(self):
        template = self.parked()
        for _ in range(100):
            self.project.write_in_place()
            value, _ = self.project.value(template)
            self.assertEqual(value, str(self.project.count))
        self.assertLess(template.counts["template_starts"], 15)

    def test_a_module_that_no_longer_imports_is_cold_until_it_does(self):
        template = self.parked()
        with open(self.project.module, "w") as file:
            file.write("VALUE = (\n")
        output, process = self.project.value(template)
        self.assertIn("SyntaxError", output)
        output, process = self.project.value(template)
        self.assertEqual((process.backend, process.reason_code), ("cold", "stale"))
        self.project.write_in_place()
        process = None
        while not process or process.backend == "cold":  # it is noticed without anybody waiting
            value, process = self.project.value(template)
            self.assertEqual(value, "1")

    def test_compiling_is_no_change(self):
        del os.environ["PYTHONDONTWRITEBYTECODE"]
        template = self.parked()
        process = template.popen([PYTHON, "-c", "pass"])
        self.assertEqual((process.wait(), process.backend), (0, "warm"), process.reason)
        self.assertTrue(os.path.isdir(os.path.join(self.project.path, "__pycache__")))

    def test_what_was_looked_for_and_not_there(self):
        with open(self.project.module, "w") as file:
            file.write(
                "import os\nhere = os.path.dirname(__file__)\n"
                "VALUE = [os.path.exists(os.path.join(here, 'settings'))]\n"
                "try:\n    import optional\nexcept ImportError: VALUE.append('without')\n"
                "else: VALUE.append('with')\n"
            )
        for name, expected in (("settings", "[True, 'without']"), ("optional.py", "[True, 'with']")):
            template = self.parked()
            self.assertEqual(self.project.value(template)[1].backend, "warm")
            with open(os.path.join(self.project.path, name), "w"):
                pass
            value, process = self.project.value(template)
            self.assertEqual((value, process.reason_code), (expected, "stale"))
            template.close()

    def test_a_pth_file_beside_packages(self):
        template = self.parked()
        self.assertEqual(self.project.value(template)[1].backend, "warm")
        with open(os.path.join(self.project.path, "new.pth"), "w"):
            pass
        self.assertEqual(self.project.value(template)[1].reason_code, "stale")

    def test_an_optional_module_beside_the_script(self):
        with open(self.project.module, "w") as file:
            file.write("try:\n    import optional\nexcept ImportError: VALUE = 'without'\nelse: VALUE = 'with'\n")
        template = self.parked()
        folder = self.folder({"script.py": "import subject; print(subject.VALUE)", "optional.py": ""})
        process = template.popen([PYTHON, os.path.join(folder, "script.py")], stdout=-1)
        self.assertEqual((process.communicate()[0], process.reason_code), (b"with\n", "shadowed"))

    @unittest.skipIf(os.geteuid(), "mounting needs root")
    def test_a_mount_over_a_directory(self):
        other = self.folder({"subject.py": "VALUE = 'mounted'\n"})
        template = self.parked()
        if subprocess.run(["mount", "--bind", other, self.project.path], stderr=-3).returncode:
            self.skipTest("cannot mount here")
        try:
            value, process = self.project.value(template)
        finally:
            subprocess.run(["umount", "--lazy", os.path.realpath(self.project.path)], check=True)
        self.assertEqual((value, process.reason_code), ("mounted", "stale"))

    def test_without_an_inotify_instance_files_are_compared(self):
        libc = ctypes.CDLL(None, use_errno=True)
        taken = []
        try:
            while (number := libc.inotify_init1(os.O_CLOEXEC)) >= 0:
                taken.append(number)
                if len(taken) > 1000:
                    self.skipTest("this user may have more of them than there are descriptors")
            template = self.template(["subject"])
            template.wait_ready()
        finally:
            for number in taken:
                os.close(number)
        report = template.report()["freshness"]
        self.assertIn("inotify", report["not_watched_because"])
        self.assertEqual(self.project.value(template)[1].backend, "warm")
        for change in (Project.write_in_place, Project.rename_over):
            change(self.project)
            value, process = self.project.value(template)
            self.assertEqual((value, process.reason_code), (str(self.project.count), "stale"))
            self.project.value(template, backend="warm")

    def test_with_too_few_watches_files_are_compared(self):
        self.run_with_few_watches(
            False, "test_every_kind_of_change", "test_a_file_that_comes_earlier_on_the_import_path",
            "test_what_was_looked_for_and_not_there", "test_a_pth_file_beside_packages",
            "test_wait_gives_the_new_image_and_serve_the_old_one",
        )

    def test_with_too_few_watches_for_each_file_their_directories_are_watched(self):
        self.run_with_few_watches(True, "changes_with_as_many_watches_as_directories")

    def changes_with_as_many_watches_as_directories(self):
        for count in range(20, 1000):
            with open(MOST_WATCHES, "w") as file:
                file.write(str(count))
            with self.parked() as template:
                if not template.report()["freshness"]["not_watched_because"]:
                    break
        self.check(self.project.write_in_place)

    def run_with_few_watches(self, watching, *names):
        """These tests in a user namespace that allows five watches."""
        program = (
            "import sys, unittest\n"
            "import test_freshness\n"
            f"test_freshness.Freshness.watching = {watching}\n"
            "with open(test_freshness.MOST_WATCHES, 'w') as file: file.write('5')\n"
            f"unittest.main(argv=['', *['test_freshness.Freshness.' + name for name in {names}]])\n"
        )
        confine = ["unshare", "--user", "--map-root-user"]
        if subprocess.run([*confine, "sh", "-c", f"echo 5 > {MOST_WATCHES}"], stderr=-3).returncode:
            self.skipTest("user namespaces cannot be made here")
        done = subprocess.run(
            [*confine, PYTHON, "-c", program], capture_output=True, env={**os.environ, "PYTHONPATH": ":".join(sys.path)}
        )
        self.assertEqual(done.returncode, 0, done.stderr.decode())

    def test_an_unreadable_file_on_the_way_is_no_reason_to_fail(self):
        unreadable = os.path.join(self.project.path, "data.txt")
        with open(unreadable, "w") as file:
            file.write("x")
        os.chmod(unreadable, 0)
        with open(self.project.module, "w") as file:
            file.write("import os\ntry:\n    open(os.path.join(os.path.dirname(__file__), 'data.txt'))\nexcept OSError: pass\nVALUE = 5\n")
        self.assertEqual(self.project.value(self.parked())[0], "5")

    def test_no_stale_child_in_a_thousand_edits(self):
        changes = Project.CHANGES
        enough = time.monotonic() + 200  # as many of them as a busy machine makes
        for turn in range(125):
            if time.monotonic() > enough:
                break
            with self.parked() as template:
                for edit in range(8):
                    changes[(turn + edit) % len(changes)](self.project)
                    value, process = self.project.value(template)
                    self.assertEqual(value, str(self.project.count), (turn, edit, process.backend, process.reason))


@warm_only
class Limits(TestCase):
    def test_an_owner_without_memory_to_note_what_is_read_is_cold_and_its_image_is_not_preloaded_again(self):
        program = """if True:
            import json, resource, subprocess, sys, warmfork
            resource.setrlimit(resource.RLIMIT_DATA, (50 << 20, 50 << 20))
            with warmfork.Template(preload=["json"]) as template:
                answers = []
                for turn in range(4):
                    child = template.popen([sys.executable, "-c", "print(7)"], stdout=subprocess.PIPE, text=True)
                    assert child.communicate()[0] == "7\\n"
                    answers.append((child.backend, child.reason_code, child.reason))
                    if turn == 0:
                        try:
                            template.wait_ready()
                        except warmfork.Error:
                            pass
                print(json.dumps([answers, template.counts["template_starts"]]))"""
        done = subprocess.run([PYTHON, "-c", program], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        answers, starts = json.loads(done.stdout)
        self.assertEqual(starts, 1)
        for backend, code, text in answers[1:]:  # the first need not wait for the image
            self.assertEqual((backend, code), ("cold", "limits"), text)
            self.assertIn("no memory to note what preloading reads", text)


if __name__ == "__main__":
    unittest.main()
