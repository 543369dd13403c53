"""What modules keep of the directory that they are imported in, which is a template's and not a child's."""

import contextlib
import os
import subprocess
import unittest

import warmfork
from support import PYTHON, warm_only
from test_identity import Importing

IN_DIRECTORY = {
    "the directory": ("import os\nVALUE = os.getcwd()", "directory:kept"),
    "in bytes": ("import os\nVALUE = os.fsdecode(os.getcwdb())\nOTHER = [os.getcwdb()]", "directory:kept"),
    "a path in it": ("import os\nVALUE = os.path.abspath('log')", "directory:kept"),
    "a path object in it": ("import pathlib\nPATH = pathlib.Path('log').absolute()\nVALUE = str(PATH)[1:]", "directory:kept"),
    "a default": ("import os\ndef f(where=os.getcwd()): return where\nVALUE = f()[1:]", "directory:kept"),
    "a file that is there": ("VALUE = open('file').read()", "directory:./file"),
    "a file by the kernel's link": ("VALUE = open('/proc/self/cwd/file').read()", "directory:./file"),
    "whether a file is there": ("import os\nVALUE = os.path.exists('only')", "directory:./only"),
    "a directory that it makes": (
        "import os\nos.makedirs('made', exist_ok=True)\nVALUE = os.path.isdir('made')", "directory:./made",
    ),
    "a listing": ("import os\nVALUE = sorted(os.listdir())", "directory:./."),
}


class Directory(Importing):
    files = {"file": "of the template"}

    def setUp(self):
        super().setUp()
        self.other = self.folder({"file": "of another", "only": ""})

    def served(self, template, env, directory):
        """How the spawn was served, and what the child has."""
        command = [PYTHON, "-c", "import kept; print(kept.VALUE)"]
        with template.popen(command, env=env, cwd=directory, stdout=subprocess.PIPE, text=True) as child:
            return child.backend, child.communicate()[0], child.reason_code, child.reason

    @warm_only
    def test_a_child_has_what_is_in_its_own(self):
        for name, (source, allowed) in IN_DIRECTORY.items():
            with self.subTest(name):
                template, env = self.importing(source)
                value = {
                    directory: subprocess.run(
                        [PYTHON, "-c", "import kept; print(kept.VALUE)"], env=env, cwd=directory, capture_output=True,
                        text=True,
                    ).stdout
                    for directory in (self.work, self.other)
                }
                self.assertEqual(self.served(template, env, self.work), ("warm", value[self.work], "none", ""))
                *served, reason = self.served(template, env, self.other)
                self.assertEqual(served, ["cold", value[self.other], "shadowed"])
                self.assertIn("kept" if allowed == "directory:kept" else allowed[len("directory:./"):], reason)
                self.assertEqual(template.report()["directory"], [allowed])
                template, env = self.importing(source, allow=[allowed])
                self.assertEqual(self.served(template, env, self.other)[0], "warm")

    @warm_only
    def test_where_nothing_differs_it_is_warm(self):
        for source in (
            "import os\nVALUE = os.path.exists('neither')",
            "import os\nos.getcwd()\nVALUE = os.path.dirname(__file__)",
            "VALUE = open('same').read()",
        ):
            with self.subTest(source):
                template, env = self.importing(source)
                for directory in (self.work, self.other):
                    path = os.path.join(directory, "same")
                    if not os.path.lexists(path):
                        os.symlink(__file__, path)
                for directory in (self.work, self.other):
                    self.assertEqual(self.served(template, env, directory)[0], "warm")

    @warm_only
    def test_what_would_be_removed_in_another_directory_is_not_left_there(self):
        template, env = self.importing("import os\nopen('only', 'w').close()\nos.remove('only')\nVALUE = 'ran'")
        self.assertEqual(self.served(template, env, self.work)[0], "warm")
        self.assertEqual(self.served(template, env, self.other)[:3], ("cold", "ran\n", "shadowed"))
        self.assertEqual(os.listdir(self.other), ["file"])
        self.assertEqual(self.served(template, env, self.other)[0], "warm")

    @warm_only
    def test_made_files_that_cannot_be_looked_at_are_not_said_to_be_none(self):
        from warmfork._in_template import _findings

        made = [("/made", "made")], True
        with unittest.mock.patch.multiple(
            _findings._native, made=lambda: made, descriptors_in_the_way=unittest.mock.Mock(side_effect=OSError)
        ), self.assertRaises(OSError):
            _findings.made_files()

    def test_each_child_makes_the_files_of_its_own_directory(self):
        template, env = self.importing("open('log', 'a').write('x')\nVALUE = 'ran'")
        for directory, length in ((self.work, 2), (self.other, 1), (self.other, 2)):
            self.assertEqual(self.served(template, env, directory)[:3], ("cold", "ran\n", "gate"))
            self.assertEqual(os.stat(os.path.join(directory, "log")).st_size, length)

    def test_what_is_known_to_keep_it_has_the_childs(self):
        folder = self.folder({"rich.py": "import os\n_IMPORT_CWD = os.path.abspath(os.getcwd())\n"})
        env = {**os.environ, "PYTHONPATH": folder}
        template = self.template(["rich"], env=env, backend="warm")
        command = [PYTHON, "-c", "import rich; print(rich._IMPORT_CWD)"]
        self.assertEqual(template.run(command, env=env, cwd="/usr", capture_output=True, text=True).stdout, "/usr\n")

    def test_arguments_that_a_module_is_known_to_keep_are_the_childs(self):
        folder = self.folder({"mercurial/__init__.py": "", "mercurial/pycompat.py":
                              "import os, sys\nsysargv = [os.fsencode(argument) for argument in sys.argv]\n"})
        env = {**os.environ, "PYTHONPATH": folder}
        template = self.template(["mercurial.pycompat"], env=env, backend="warm")
        command = [PYTHON, "-c", "from mercurial.pycompat import sysargv; print(sysargv)", "log", "\udcff"]
        expected = subprocess.run(command, env=env, capture_output=True).stdout
        self.assertEqual(template.run(command, env=env, capture_output=True).stdout, expected)

    def test_the_umask_that_a_module_is_known_to_keep_is_the_childs(self):
        folder = self.folder({"mercurial/__init__.py": "", "mercurial/util.py": "from .posix import umask\n",
                              "mercurial/posix.py": "import os\numask = os.umask(0)\nos.umask(umask)\n"})
        env = {**os.environ, "PYTHONPATH": folder}
        template = self.template(["mercurial.util"], env=env, backend="warm")
        text = "import os; from mercurial import posix, util; print(posix.umask, util.umask, os.umask(0))"
        child = template.popen([PYTHON, "-c", text], env=env, umask=0o77, stdout=subprocess.PIPE)
        self.assertEqual(child.communicate()[0], b"63 63 63\n")

    @warm_only
    def test_what_a_module_is_known_to_have_drawn_is_another_in_each_child(self):
        key = "import os\ndef new_id_bytes(): return os.urandom(16).hex().encode()\nsession_flags = {{'secure': ({}, '')}}\n"
        settings = "{'Session': {'key': new_id_bytes()}}"
        client = "import uuid\nclass Future: _uid = {}\n"
        process = (
            "import os\nclass Key(bytes): pass\nclass Process:\n    def __init__(self): self._config = {{'authkey': {}}}\n"
            "    @property\n    def authkey(self): return self._config['authkey']\n"
            "    @authkey.setter\n    def authkey(self, key): self._config['authkey'] = Key(key)\n_current_process = Process()\n"
        )
        known, unknown = (2, "warm"), (2, "cold")
        for name, source, shown, expected in (
            ("jupyter_client.session", key.format(settings), "session_flags", known),
            ("jupyter_client.session", key.format(f"[{settings}]"), "session_flags", unknown),
            ("billiard.process", process.format("Key(os.urandom(32))"), "_current_process.authkey", known),
            ("distributed.client", client.format("uuid.uuid4().hex"), "Future._uid", known),
            ("distributed.client", client.format("[uuid.uuid4().hex]"), "Future._uid", unknown),
            ("distributed.client", client.format("uuid.uuid4().hex") + "del uuid\n", "Future._uid", unknown),
        ):
            with self.subTest(source):
                package, _, module = name.partition(".")
                folder = self.folder({f"{package}/__init__.py": "", f"{package}/{module}.py": source})
                env = {**os.environ, "PYTHONPATH": folder}
                template = self.template([name], env=env)
                with contextlib.suppress(warmfork.TemplateError):  # as it is kept where nobody looks for it
                    template.wait_ready()
                command = [PYTHON, "-c", f"import {name} as module; print(module.{shown})"]
                children = [template.popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
                outputs = {child.communicate()[0] for child in children}
                self.assertEqual((len(outputs), children[1].backend), expected)

    @warm_only
    def test_a_template_in_the_root_directory(self):
        folder = self.folder({"kept.py": "import os\nVALUE = os.path.abspath('log')\n"})
        env = {**os.environ, "PYTHONPATH": folder}
        template = self.template(["kept"], env=env, cwd="/")
        self.assertEqual(self.served(template, env, "/")[:2], ("warm", "/log\n"))
        self.assertEqual(self.served(template, env, self.other)[:2], ("cold", f"{self.other}/log\n"))


# What pybind11 does: a key of the thread's that has its state.


if __name__ == "__main__":
    unittest.main()
