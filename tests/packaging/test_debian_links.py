"""The directory of links of the Debian package, in a root of its own."""

import os
import subprocess
import sys
import tempfile
import unittest

from support import SOURCE

PROGRAM = os.path.join(SOURCE, "packaging", "debian", "update-warmfork-links")


@unittest.skipIf(sys.version_info < (3, 11), "the package asks for Python 3.11")
class DebianLinks(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = folder.name
        self.command("usr/lib/x86_64-linux-gnu/warmfork0/warmfork-exec")
        for name in ("python3", "pytest", "pytest-3", "black"):
            self.command(f"usr/bin/{name}")

    def path(self, name):
        path = os.path.join(self.root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def command(self, name):
        with open(self.path(name), "w") as file:
            os.chmod(file.fileno(), 0o755)

    def template(self, name, text, configuration="etc/warmfork"):
        with open(self.path(f"{configuration}/templates.d/{name}"), "w") as file:
            file.write(text)

    def update(self):
        """The links afterwards, and what was said."""
        done = subprocess.run([sys.executable, "-I", PROGRAM], env={**os.environ, "DPKG_ROOT": self.root},
                              capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return sorted(os.listdir(self.path("usr/lib/warmfork/links"))), done.stderr

    def test_without_a_template_there_are_none(self):
        self.assertEqual(self.update(), ([], ""))

    def test_a_template_has_links_for_what_it_names_and_its_interpreter(self):
        self.template("tests.toml", 'preload = ["pytest"]\nlinks = ["pytest", "pytest-3", "not-there"]\n')
        self.assertEqual(self.update(), (["pytest", "pytest-3", "python3"], ""))
        for name in ("pytest", "python3"):
            link = self.path(f"usr/lib/warmfork/links/{name}")
            self.assertFalse(os.path.isabs(os.readlink(link)))
            self.assertTrue(os.path.samefile(link, self.path("usr/lib/x86_64-linux-gnu/warmfork0/warmfork-exec")))

    def test_what_no_template_of_python_is_for_has_none(self):
        self.template("native.toml", 'program = ["/usr/bin/black"]\n')
        self.template("layer.toml", 'extends = "native"\n')
        self.assertEqual(self.update(), ([], ""))

    def test_links_come_and_go_with_commands_and_templates(self):
        self.template("format.toml", 'python = "/usr/bin/python3"\nlinks = ["black"]\n')
        self.assertEqual(self.update()[0], ["black", "python3"])
        os.unlink(self.path("usr/bin/black"))
        self.assertEqual(self.update()[0], ["python3"])
        self.command("usr/bin/black")
        self.assertEqual(self.update()[0], ["black", "python3"])
        os.unlink(self.path("etc/warmfork/templates.d/format.toml"))
        self.assertEqual(self.update()[0], [])

    def test_a_more_specific_file_replaces_and_a_drop_in_changes(self):
        self.template("tests.toml", 'links = ["pytest"]\n', "usr/lib/warmfork")
        self.template("masked.toml", 'links = ["black"]\n', "usr/lib/warmfork")
        self.template("masked.toml", "")
        self.assertEqual(self.update()[0], ["pytest", "python3"])
        self.template("tests.toml.d/local.conf", 'links = ["pytest-3"]\n')
        self.assertEqual(self.update()[0], ["pytest-3", "python3"])
        self.template("tests.toml", 'links = ["black"]\n')
        os.unlink(self.path("etc/warmfork/templates.d/tests.toml.d/local.conf"))
        self.assertEqual(self.update()[0], ["black", "python3"])

    def test_what_is_not_its_own_stays(self):
        self.command("usr/lib/warmfork/links/mine")
        self.command("usr/lib/warmfork/links/pytest")
        os.symlink("/usr/bin/black", self.path("usr/lib/warmfork/links/other"))
        self.template("tests.toml", 'links = ["pytest", "black"]\n')
        self.assertEqual(self.update()[0], ["black", "mine", "other", "pytest", "python3"])
        self.assertFalse(os.path.islink(self.path("usr/lib/warmfork/links/pytest")))

    def test_a_link_of_another_place_is_made_anew(self):
        self.template("tests.toml", "links = []\n")
        os.symlink("/usr/lib/old/warmfork-exec", self.path("usr/lib/warmfork/links/python3"))
        self.assertEqual(self.update()[0], ["python3"])
        self.assertTrue(os.path.exists(self.path("usr/lib/warmfork/links/python3")))

    def test_names_that_are_none_and_files_that_cannot_be_read_cost_only_themselves(self):
        self.template("broken.toml", "links = [\n")
        self.template("names.toml", 'links = ["../python3", "", "..", "warmfork", 5, "black"]\n')
        self.command("usr/bin/warmfork")
        links, said = self.update()
        self.assertEqual(links, ["black", "python3"])
        self.assertIn("broken.toml", said)


if __name__ == "__main__":
    unittest.main()
