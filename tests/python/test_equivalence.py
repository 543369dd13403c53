"""One behaviour a program, each run cold and warm with the same environment, directory and input: what it
writes, how it ends and what it sees of itself must be the same to the byte.

A child under `warm` is refused rather than served cold, so every one of these is warm."""

import os
import re
import shutil
import signal
import subprocess
import unittest

import warmfork
from equivalence_programs import EFFECTS, ENVIRONMENTS, OBSTACLES, PROGRAMS, TALKATIVE, TEXTS
from support import PYTHON, TestCase, warm_only


class Equivalence(TestCase):
    @classmethod
    def setUpClass(cls):
        # As a user's, whatever the tests are started with.
        cls.before = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("PYTHON") and name != "PYTHONPATH"}

    @classmethod
    def tearDownClass(cls):
        os.environ.update(cls.before)

    def setUp(self):
        super().setUp()
        self.folder_of = self.folder
        self.warm = self.template(
            ["json", "logging", "random", "threading", "decimal", "uuid", "tempfile", "argparse"],
            backend="warm", spares=1,
        )
        self.caches = self.folder_of({})
        self.folder = os.path.realpath(self.folder_of({}))

    def lay_out(self, files):
        for name in os.listdir(self.folder):
            path = os.path.join(self.folder, name)
            os.unlink(path) if os.path.islink(path) or not os.path.isdir(path) else shutil.rmtree(path)
        for name, content in files.items():
            if name.startswith("@"):
                continue
            path = os.path.join(self.folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content if isinstance(content, bytes) else content.encode())
            os.utime(path, (1_600_000_000, 1_600_000_000))  # their caches are the same
        if "@link" in files:
            os.symlink(files["@link"][0], os.path.join(self.folder, files["@link"][1]))
        if "@run" in files:
            subprocess.run([PYTHON, files["@run"]], cwd=self.folder, check=True)

    def files_left(self):
        """By name: all of them, with their content where it can be compared."""
        left = {}
        for directory, _, names in os.walk(self.folder):
            for name in names:
                path = os.path.join(directory, name)
                with open(path, "rb") as file:
                    # The names of caches only: marshal marks what happened to be shared.
                    left[path] = "" if path.endswith(".pyc") else file.read()
        return left

    def compare(self, name, files, args, variables=None):
        args = [
            arg.replace("{folder}", self.folder).replace("{caches}", self.caches) if isinstance(arg, str) else arg
            for arg in args
        ]
        env = {os.fsencode(key): os.fsencode(value) for key, value in os.environ.items()}
        for key, value in (variables or {}).items():
            env.pop(os.fsencode(key), None)
            if value is not None:
                env[os.fsencode(key)] = os.fsencode(value)
        seen = []
        for popen in (subprocess.Popen, self.warm.popen):
            self.lay_out(files)
            with popen(
                [PYTHON, *args], stdin=-1, stdout=-1, stderr=-1, cwd=self.folder, env=env
            ) as process:
                output = process.communicate(files.get("@input", b"a line\nanother\n"), timeout=60)
            # Where things lie in memory is each process's own.
            output = [re.sub(rb"0x[0-9a-f]{6,}", b"0x", text) for text in output]
            # So are the functions in C that have called the interpreter.
            output = [re.sub(rb"(?s)(C stack trace \(most recent call first\):\n).*", rb"\1", text) for text in output]
            seen.append((process.returncode, *output, self.files_left()))
        for what, cold, warm in zip(("status", "stdout", "stderr", "files"), *seen):
            self.assertEqual(warm, cold, f"{name}: {what}")

    def test_signals_that_the_owner_has_ignored_since_before_the_template_are_so_in_each_child(self):
        """As under nohup; also in spares that have rehearsed."""
        self.addCleanup(signal.signal, signal.SIGHUP, signal.signal(signal.SIGHUP, signal.SIG_IGN))
        template = self.template(["json"], backend="warm", spares=1)
        text = "import signal; print(*(int(signal.getsignal(number)) for number in (signal.SIGHUP, signal.SIGTERM)))"
        for _ in range(3):
            template.wait_parked()
            self.assertEqual(template.run([PYTHON, "-c", text], capture_output=True).stdout, b"1 0\n")

    def test_texts(self):
        for name, text in TEXTS.items():
            with self.subTest(name):
                self.compare(name, {}, ["-c", text, "argument"])

    def test_texts_are_dedented_as_by_newer_interpreters(self):
        from warmfork._in_template import _child

        for text, expected in (
            ("\n    if x:\n\t\n        y\n  \n", "\nif x:\n\n    y\n\n"),
            ("\t  x\n\t y\n", " x\ny\n"),
            ("  x\n\ty\n", "  x\n\ty\n"),
            ("  x\ny\n \n", "  x\ny\n \n"),
            (" \t\n \n", " \t\n \n"),
            ("  '\udcff'\n", "  '\udcff'\n"),
        ):
            with self.subTest(text):
                self.assertEqual(_child.dedented(text), expected)

    def test_programs(self):
        for name, (files, args) in PROGRAMS.items():
            with self.subTest(name):
                self.compare(name, files, args)

    def test_environments(self):
        for name, (variables, args) in ENVIRONMENTS.items():
            with self.subTest(name):
                self.compare(name, {}, args, variables)

    def importing(self, source, **options):
        folder = self.folder_of({"effect.py": source + "\n"})
        env = {**os.environ, "PYTHONPATH": folder, "ANY": "value", "PYTHONDONTWRITEBYTECODE": "1"}
        return self.template(["effect"], env=env, spares=1, **options), env

    def run_importing(self, popen, program, env):
        with popen([PYTHON, "-c", "import effect\n" + program], stdout=-1, stderr=-1, env=env) as process:
            output = process.communicate(timeout=60)
        return (process.returncode, *[re.sub(rb"0x[0-9a-f]{6,}", b"0x", text) for text in output]), process

    def test_what_importing_does(self):
        for name, (source, program) in EFFECTS.items():
            with self.subTest(name):
                template, env = self.importing(source, backend="warm")
                with template:
                    expected, _ = self.run_importing(subprocess.Popen, program, env)
                    for _ in range(2):
                        self.assertEqual(self.run_importing(template.popen, program, env)[0], expected)

    def test_a_preloaded_module_that_is_run_warns_where_a_cold_one_does(self):
        show = "if __name__ == '__main__': print('run', __spec__.name, __package__)\n"
        folder = self.folder_of({
            "left/__init__.py": "", "left/part.py": show,
            "taken/__init__.py": "import taken.part\n", "taken/part.py": show,
            "whole/__init__.py": "", "whole/__main__.py": show,
            "outer/__init__.py": "from .inner import part\n", "outer/inner/__init__.py": "", "outer/inner/part.py": show,
        })
        env = {**os.environ, "PYTHONPATH": folder}
        preload = ["left.part", "taken.part", "whole.__main__", "outer"]
        template = self.template(preload, backend="warm", env=env)
        for module in ("left.part", "taken.part", "whole", "outer.inner.part"):
            with self.subTest(module):
                seen = []
                for popen in (subprocess.Popen, template.popen):
                    with popen([PYTHON, "-m", module], stdout=-1, stderr=-1, env=env) as process:
                        seen.append((*process.communicate(timeout=60), process.returncode))
                self.assertEqual(seen[1], seen[0])

    @warm_only
    def test_what_children_could_not_go_on_with_is_cold(self):
        for name, (source, program) in OBSTACLES.items():
            with self.subTest(name):
                template, env = self.importing(source)
                with template:
                    expected, _ = self.run_importing(subprocess.Popen, program, env)
                    seen, process = self.run_importing(template.popen, program, env)
                    self.assertEqual((seen, process.reason_code), (expected, "gate"), process.reason)

    def test_an_interpreter_that_writes_when_it_starts_is_cold(self):
        for name, (variables, options, files) in TALKATIVE.items():
            with self.subTest(name), self.template(["json"]) as template:
                env = {**os.environ, "PYTHONPATH": self.folder_of(files), **variables}
                env = {key: value for key, value in env.items() if value is not None}
                command = [PYTHON, *options, "-c", "pass"]
                expected = subprocess.run(command, capture_output=True, env=env)
                self.assertTrue(expected.stdout + expected.stderr)
                with self.assertRaisesRegex(warmfork.TemplateError, "writes something"):
                    template.run(command, env=env, backend="warm")
                done = template.run(command, env=env, capture_output=True)
                self.assertEqual((done.stdout, done.stderr), (expected.stdout, expected.stderr))

    def test_a_directory_as_a_standard_stream_is_cold(self):
        for stream in ("stdin", "stdout", "stderr"):
            with self.subTest(stream):
                number = os.open("/", os.O_RDONLY)
                try:
                    seen = []
                    for popen, options in ((subprocess.Popen, {}), (self.warm.popen, {"backend": "auto"})):
                        with popen([PYTHON, "-c", "print(1)"], **{"stderr": -3, stream: number}, **options) as process:
                            process.wait()
                        seen.append(process.returncode)
                finally:
                    os.close(number)
                self.assertEqual(seen, [1, 1])
                self.assertEqual((process.backend, process.reason_code), ("cold", "command-line"))

    def test_there_are_many(self):
        self.assertGreaterEqual(sum(map(len, (TEXTS, PROGRAMS, ENVIRONMENTS, EFFECTS))), 150)


if __name__ == "__main__":
    unittest.main()
