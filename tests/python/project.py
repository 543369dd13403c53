"""A project whose modules are changed in every way that files are, for tests of freshness."""

import os
import shutil
import sys

from support import PYTHON


class Project:
    """A module on the owner's import path, in a place that can be changed in every way."""

    def __init__(self, test, root):
        self.root = os.path.realpath(root)
        os.makedirs(os.path.join(self.root, "releases/one/code"))
        with open(os.path.join(self.root, "releases/one/code/subject.py"), "w") as file:
            file.write("VALUE = 0\n")
        os.symlink("one", os.path.join(self.root, "releases/current"))
        os.mkdir(os.path.join(self.root, "first"))
        self.first = os.path.join(self.root, "first")
        self.path = os.path.join(self.root, "releases/current/code")
        self.count = 0
        sys.path[:0] = [self.first, self.path]
        test.addCleanup(lambda: [sys.path.remove(entry) for entry in (self.first, self.path)])

    @property
    def module(self):
        return os.path.join(self.path, "subject.py")

    def next_text(self):
        self.count += 1
        return f"VALUE = {self.count}\n"

    def write_in_place(self):
        with open(self.module, "w") as file:
            file.write(self.next_text())

    def append(self):
        with open(self.module, "a") as file:
            file.write(self.next_text())

    def rename_over(self):
        with open(self.module + ".new", "w") as file:
            file.write(self.next_text())
        os.rename(self.module + ".new", self.module)

    def delete_and_write(self):
        os.unlink(self.module)
        self.write_in_place()

    def swap_a_symlink(self):
        current = os.path.join(self.root, "releases/current")
        other = "two" if os.readlink(current) == "one" else "one"
        code = os.path.join(self.root, "releases", other, "code")
        os.makedirs(code, exist_ok=True)
        with open(os.path.join(code, "subject.py"), "w") as file:
            file.write(self.next_text())
        os.symlink(other, current + ".new")
        os.rename(current + ".new", current)

    def rename_an_ancestor(self):
        releases = os.path.join(self.root, "releases")
        shutil.copytree(releases, releases + ".new", symlinks=True)
        with open(os.path.join(releases + ".new", "current/code/subject.py"), "w") as file:
            file.write(self.next_text())
        os.rename(releases, releases + ".old")
        os.rename(releases + ".new", releases)
        shutil.rmtree(releases + ".old")

    def make_a_package_of_it(self):
        """As an upgrade may do: removes the module, writes a package of the same name."""
        if os.path.isdir(self.module[:-3]):
            shutil.rmtree(self.module[:-3])
            self.write_in_place()
        else:
            os.unlink(self.module)
            os.mkdir(self.module[:-3])
            with open(os.path.join(self.module[:-3], "__init__.py"), "w") as file:
                file.write(self.next_text())

    def shadow_it(self):
        """A file of the same name, earlier on the import path."""
        with open(os.path.join(self.first, "subject.py"), "w") as file:
            file.write(self.next_text())

    def unshadow_it(self):
        self.write_in_place()
        os.unlink(os.path.join(self.first, "subject.py"))

    CHANGES = (write_in_place, append, rename_over, delete_and_write, swap_a_symlink, rename_an_ancestor)
    PROGRAM = "import subject; print(subject.VALUE)"

    def value(self, template, **options):
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([self.first, self.path]), "PYTHONDONTWRITEBYTECODE": "1"}
        process = template.popen([PYTHON, "-c", self.PROGRAM], stdout=-1, stderr=-2, env=env, **options)
        return process.communicate()[0].decode().strip(), process
