"""What the tools that read sources say of them: .clang-format, packaging/python-style.cfg."""

import ast
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

from support import BUILD, SOURCE, environment

PACKAGE = f"{SOURCE}/shim/python/warmfork"
PYTHON_STYLE = f"{SOURCE}/packaging/python-style.cfg"

# Versions of clang-format lay the same settings out differently: the sources are as this one has them (Debian 12).
FORMATTER_VERSION = "14"


def formatter():
    """A clang-format of the version that the sources were formatted with, or None."""
    for name in (f"clang-format-{FORMATTER_VERSION}", "clang-format"):
        if path := shutil.which(name, path="/usr/bin:/bin"):
            said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
            if re.search(rf"version {FORMATTER_VERSION}\.", said):
                return path
    return None


def cpp_sources():
    return [path for top in ("forkserver", "shim", "bench", "tests") for suffix in ("cpp", "hpp")
            for path in glob.glob(f"{SOURCE}/{top}/**/*.{suffix}", recursive=True)]


class Format(unittest.TestCase):
    def test_the_formatter_would_change_nothing(self):
        path = formatter()
        if not path:
            self.skipTest(f"there is no clang-format {FORMATTER_VERSION}, and others lay out differently")
        sources = cpp_sources()
        self.assertGreater(len(sources), 300)
        done = subprocess.run([path, "--dry-run", "-Werror", *sources], capture_output=True, text=True, cwd=SOURCE,
                              env=environment())
        changed = re.findall(r"^(\S+?):(\d+):", done.stderr, re.M)
        self.assertEqual((done.returncode, changed[:20]), (0, []),
                         f"mend it with: clang-format -i {' '.join(sorted({file for file, _ in changed}))}")


@unittest.skipUnless(shutil.which("flake8", path="/usr/bin:/bin"), "flake8 is not installed")
class Lint(unittest.TestCase):
    def test_the_linter_finds_nothing(self):
        tops = [os.path.join(SOURCE, name) for name in ("bench", "packaging", "shim", "tests")]
        done = subprocess.run(["flake8", "--config", PYTHON_STYLE, *tops], capture_output=True, text=True, cwd=SOURCE, env=environment())
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))


@unittest.skipUnless(shutil.which("mypy", path="/usr/bin:/bin"), "mypy is not installed")
class Types(unittest.TestCase):
    def check(self, *arguments):
        with tempfile.TemporaryDirectory() as cache:
            return subprocess.run(
                ["mypy", "--no-error-summary", "--config-file", PYTHON_STYLE, "--cache-dir", cache, *arguments],
                capture_output=True, text=True, cwd=SOURCE, env=environment(),
            )

    def test_the_package_is_sound_for_the_oldest_interpreter(self):
        done = self.check("-p", "warmfork")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def test_a_program_that_uses_the_package_is_checked_by_it(self):
        program = (
            "import warmfork\n"
            "with warmfork.Template(preload=['json'], on_stale='wait') as template:\n"
            "    child = template.popen(['python3', '-c', 'pass'])\n"
            "    reveal_type(child.wait())\n"
            "    warmfork.get_context().counts.wrong\n"
            "warmfork.Template(on_stale='sometimes')\n"
        )
        done = self.check("-c", program)
        said = re.findall(r'^<string>:(\d+): (\w+)(: Revealed type is "builtins.int")?', done.stdout, re.M)
        self.assertEqual([(int(line), kind, bool(revealed)) for line, kind, revealed in said],
                         [(4, "note", True), (5, "error", False), (6, "error", False)], done.stdout + done.stderr)


def names_of_stub(path):
    """{name: parameters of a function, else None} of what a stub has; not what is for annotations alone."""
    with open(path) as file:
        body = ast.parse(file.read()).body
    names = {}
    for node in body:
        if isinstance(node, ast.FunctionDef):
            of_function = node.args
            names[node.name] = [arg.arg for arg in of_function.posonlyargs + of_function.args + of_function.kwonlyargs]
        elif isinstance(node, ast.AnnAssign):
            names[node.target.id] = None
        elif isinstance(node, ast.ImportFrom):
            names.update((alias.asname, None) for alias in node.names if alias.asname)
    return names


def ask_package(program):
    """What a program prints that has the package from the build, in the interpreter that runs the tests."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                          env=environment(PYTHONPATH=f"{BUILD}/python"))
    return ast.literal_eval(done.stdout)


class Stubs(unittest.TestCase):
    def test_the_stub_of_the_extension_has_its_names(self):
        real = ask_package("from warmfork import _native; print({name for name in vars(_native)})")
        of_every_module = {"__doc__", "__file__", "__loader__", "__name__", "__package__", "__spec__"}
        self.assertEqual(set(names_of_stub(f"{PACKAGE}/_native.pyi")), real - of_every_module)

    def test_the_stub_of_the_extension_has_its_keywords(self):
        stub, found = names_of_stub(f"{PACKAGE}/_native.pyi"), 0
        for folder in ("shim", "forkserver"):
            for path in glob.glob(f"{SOURCE}/{folder}/python/*.cpp"):
                with open(path) as file:
                    text = file.read()
                for keywords in re.finditer(r"keywords\[\] = \{(.*?)\}", text, re.S):
                    names = re.findall(r'"(\w+)"', keywords[1])
                    self.assertIn(names, stub.values(), path)
                    found += 1
        self.assertEqual(found, 3)

    def test_the_stub_of_the_package_has_its_names(self):
        real = ask_package("import warmfork; print({*warmfork._HOMES, *warmfork._MODULES})")
        self.assertEqual(set(names_of_stub(f"{PACKAGE}/__init__.pyi")), real)


if __name__ == "__main__":
    unittest.main()
