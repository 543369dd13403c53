"""Programs that are scripts: what exec makes of their `#!` line, a warm child shows to the byte."""

import os
import subprocess
import sys
import unittest
import zipapp

from support import CLI, PYTHON, TestCase, run, warm_only

NAME = os.path.basename(PYTHON)

STATE = """
import os, sys
print(sys.argv, getattr(sys, "orig_argv", None), sys.flags, globals().get("__file__"), sys.path[0], sys.executable,
      sys.prefix, __name__, os.getcwd(), __doc__)
for name in ("cmdline", "comm", "environ"):
    with open("/proc/self/" + name, "rb") as file:
        print(file.read())
"""


class Scripts(TestCase):
    def setUp(self):
        super().setUp()
        self.root = os.path.realpath(self.folder({}))
        self.bin = os.path.join(self.root, "bin")
        os.mkdir(self.bin)
        # An entry of PATH that is relative is so to the child's directory.
        path = f"{self.bin}:{os.path.dirname(PYTHON)}:near:/usr/bin:/bin"
        self.env = {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        if "PYTHONPATH" in os.environ:
            self.env["PYTHONPATH"] = os.environ["PYTHONPATH"]

    def script(self, name, line, text=STATE, mode=0o755):
        path = os.path.join(self.root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write((line + "\n" + text).encode())
        os.chmod(path, mode)
        return path

    def open(self, **options):
        return self.template(["json"], env=self.env, **options)

    def seen(self, popen, command, **options):
        """What comes of it, and by which backend; of an error its number."""
        try:
            with popen(command, stdin=-3, stdout=-1, stderr=-1, env=self.env, **options) as process:
                output = process.communicate(timeout=60)
        except OSError as error:
            return (type(error), error.errno), "cold", str(error)
        backend, reason = getattr(process, "backend", None), getattr(process, "reason_code", None)
        return (process.returncode, *output), backend, reason

    def compare(self, template, command, **options):
        expected, _, _ = self.seen(subprocess.Popen, command, **options)
        seen, backend, reason = self.seen(template.popen, command, **options)
        self.assertEqual(seen, expected)
        return seen, backend, reason

    def assert_warm(self, template, command, **options):
        seen, backend, reason = self.compare(template, command, **options)
        self.assertEqual((seen[0], backend), (0, "warm"), (seen, reason))
        return seen[1]

    def assert_cold(self, template, command, **options):
        seen, backend, reason = self.compare(template, command, **options)
        self.assertEqual(backend, "cold", seen)
        return seen[0], reason

    @warm_only
    def test_lines_of_the_interpreter_and_of_env(self):
        lines = {
            "plain": f"#!{PYTHON}",
            "blanks": f"#! \t{PYTHON} \t ",
            "option": f"#!{PYTHON} -Es",
            "blanks-around-option": f"#! {PYTHON} \t -u \t",
            "env": f"#!/usr/bin/env {NAME}",
            "env-of-bin": f"#! /bin/env  {NAME} ",
            "env-with-path": f"#!/usr/bin/env {PYTHON}",
            "split": f"#!/usr/bin/env -S {NAME} -E  -s\t-u",
            "split-at-once": f"#!/usr/bin/env -S{NAME}",
            "split-by-its-long-name": f"#!/usr/bin/env --split-string={NAME} -B",
            "longest": f"#!{PYTHON} -".ljust(255, "E"),
        }
        if os.path.realpath("/bin/env") != "/usr/bin/env":
            self.skipTest("env is not that of coreutils")
        template = self.open(backend="warm", variants=8)
        for name, line in lines.items():
            with self.subTest(name):
                path = self.script(f"bin/{name}", line, f"'''{name}'''\n{STATE}")
                self.assert_warm(template, [path, "-c", "an argument", ""])

    @warm_only
    def test_ways_to_call_a_script(self):
        template = self.open(backend="warm")
        path = self.script("bin/tool", f"#!{PYTHON}")
        self.script("near/neighbour", f"#!{PYTHON}")
        os.symlink("bin/tool", os.path.join(self.root, "link"))
        os.symlink("bin", os.path.join(self.root, "other"))
        os.mkdir(os.path.join(self.root, "bin/neighbour"))  # found first, and no program
        for command in ("tool", "bin/tool", "./bin/tool", "../" + os.path.basename(self.root) + "/bin/tool", "./link",
                        "other/tool", "neighbour", path):
            with self.subTest(command):
                self.assert_warm(template, [command], cwd=self.root)
        # Its own name is lost on the way.
        self.assertNotIn(b"called", self.assert_warm(template, ["called", "x"], executable=path))
        # What is called itself has a name of its own.
        self.assert_warm(template, [PYTHON, path])
        self.assert_warm(template, [PYTHON, path], executable=NAME)

    @warm_only
    def test_a_directory_of_the_child_is_where_relative_paths_begin(self):
        template = self.open(backend="warm")
        self.script("place/tool", f"#!{PYTHON}")
        there = os.path.join(self.root, "there")
        os.mkdir(there)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(there)
        self.assert_warm(template, ["./tool"], cwd="../place")

    @warm_only
    @unittest.skipIf(sys.prefix != sys.base_prefix, "a link to an interpreter of a virtual environment is none of it")
    def test_an_interpreter_has_the_path_that_it_is_called_by(self):
        here = self.script("place/tool", "")
        for name in (NAME, "other"):
            os.symlink(PYTHON, os.path.join(self.root, "place", name))
        cwd = os.path.join(self.root, "place")
        template = self.open(backend="warm")
        for name in (f"./{NAME}", f"../place/{NAME}", f"./../place/{NAME}", "./other", f"{cwd}/other",
                     f"{cwd}/./other", f"{cwd}//../place/.//other", f"/..{cwd}/other"):
            with self.subTest(name):
                self.assert_warm(template, [name, here], cwd=cwd)
        self.env["PATH"] = "sub:../place:/usr/bin"
        template = self.open()
        for name in (f".//{NAME}", f"././{NAME}", f"../place/../place/{NAME}", f"..//place/{NAME}",
                     f"/{cwd}/{NAME}", "other"):
            with self.subTest(name):
                self.assertEqual(self.assert_cold(template, [name, here], cwd=cwd), (0, "program"))

    @warm_only
    def test_scripts_for_scripts(self):
        template = self.open(backend="warm")
        last = self.script("bin/interpreter", f"#!{PYTHON} -u")
        for depth in range(2, 6):
            last = self.script(f"bin/depth-{depth}", f"#!{last} option {depth}")
            self.assert_warm(template, [last, "x"])
        last = self.script("bin/too-deep", f"#!{last}")
        self.assertEqual(self.assert_cold(self.open(), [last])[0], OSError)
        # Each exec counts anew.
        again = self.script("bin/by-env", "#!/usr/bin/env depth-5")
        self.assert_warm(template, [again])

    @warm_only
    def test_archives_with_a_line(self):
        source = self.folder({"__main__.py": STATE})
        archive = os.path.join(self.root, "bin/app")
        zipapp.create_archive(source, archive, interpreter=PYTHON)
        os.chmod(archive, 0o755)
        self.assert_warm(self.open(backend="warm"), ["app", "x"])

    @warm_only
    def test_a_virtual_environment_is_another_interpreter(self):
        venv = os.path.join(self.root, "venv")
        subprocess.run([PYTHON, "-m", "venv", "--without-pip", "--symlinks", venv], check=True)
        own = os.path.join(venv, "bin", "python3")
        tool = self.script("venv/bin/tool", f"#!{own}")
        self.assert_warm(self.open(backend="warm", python=own), [tool])
        self.assertEqual(self.assert_cold(self.open(), [tool]), (0, "program"))
        self.assert_warm(self.open(backend="warm"), [self.script("bin/tool", f"#!{PYTHON}")])

    @warm_only
    def test_what_is_no_script_of_the_interpreter(self):
        template = self.open()
        lines = {
            "shell": "#!/bin/sh\necho $0 $*; exit 3\n#",
            "by-shell": "#!/usr/bin/env sh\necho $0 $*\n#",
            "env-variable": f"#!/usr/bin/env -S A=b {NAME}",
            "env-option": f"#!/usr/bin/env -i {PYTHON}",
            "env-verbose": f"#!/usr/bin/env -vS {NAME}",
            "env-quotes": f"#!/usr/bin/env -S '{NAME}' -E",
            "env-words": f"#!/usr/bin/env {NAME} -E",
            "env-of-nothing": "#!/usr/bin/env no-such-program-anywhere",
            "cold-option": f"#!{PYTHON} -R",
            "windows": f"#!{PYTHON}\r",
            "missing": "#!/no/such/interpreter",
            "directory": "#!/usr",
            "not-executable": "#!/etc/passwd",
            "nameless": "#!",
            "blank": "#!  \t ",
            "too-long": f"#!{PYTHON} -".ljust(256, "E"),
            "too-long-a-path": "#!/".ljust(300, "x"),
            "none": "print('not reached')",
        }
        for name, line in lines.items():
            with self.subTest(name):
                self.assert_cold(template, [self.script(f"bin/{name}", line, "import sys\nprint(sys.argv)\n"), "x"])

    @warm_only
    def test_files_that_cannot_be_executed(self):
        template = self.open()
        denied = self.script("bin/denied", f"#!{PYTHON}", mode=0o644)
        self.assertEqual(self.assert_cold(template, [denied])[0], PermissionError)
        self.assertEqual(self.assert_cold(template, [self.bin])[0], PermissionError)
        self.assertEqual(self.assert_cold(template, ["/no/such/script"])[0], FileNotFoundError)
        os.symlink("loop", os.path.join(self.root, "loop"))
        self.assertEqual(self.assert_cold(template, [os.path.join(self.root, "loop")])[0], OSError)
        os.mkfifo(os.path.join(self.bin, "pipe"), 0o755)
        self.assertEqual(self.assert_cold(template, ["pipe"])[0], PermissionError)
        self.assertEqual(self.assert_cold(template, ["/bin/true"]), (0, "program"))

    @warm_only
    def test_what_a_path_names_is_looked_at_each_time(self):
        template = self.open()
        path = self.script("bin/tool", f"#!{PYTHON}")
        self.assert_warm(template, [path])
        self.script("bin/tool", "#!/bin/sh", "echo shell\n")
        self.assertEqual(self.assert_cold(template, [path]), (0, "program"))
        os.unlink(path)
        self.assertEqual(self.assert_cold(template, [path])[0], FileNotFoundError)

    @warm_only
    def test_a_script_that_deletes_itself_and_one_that_is_gone_when_it_is_read(self):
        template = self.open(backend="warm")
        text = "import os, sys\nos.unlink(sys.argv[0])\nprint('gone')\n"
        seen = []
        for popen in (subprocess.Popen, template.popen):
            seen.append(self.seen(popen, [self.script("bin/once", f"#!{PYTHON}", text)])[0])
        self.assertEqual(seen[0], (0, b"gone\n", b""))
        self.assertEqual(seen[1], seen[0])

    @warm_only
    def test_a_script_is_explained_and_run_by_a_template_of_its_interpreter(self):
        """Which has the interpreter's options, where no other template is asked for."""
        paths = [self.script("warm", f"#!{PYTHON} -Es"), self.script("cold", "#!/bin/sh")]
        done = run("explain", "--", paths[0])
        self.assertEqual((done.returncode, done.stdout), (0, "warm\n"), done.stderr)
        done = run("explain", "--python", PYTHON, "--", paths[1])
        self.assertEqual(done.returncode, 2)
        self.assertIn("/bin/sh is not the template's program", done.stdout)

        expected = self.seen(subprocess.Popen, [paths[0], "x"])[0]
        seen = self.seen(subprocess.Popen, [CLI, "run", "--explain", "--", paths[0], "x"])[0]
        self.assertEqual(seen, (*expected[:2], b"warmfork: served warm\n"))


if __name__ == "__main__":
    unittest.main()
