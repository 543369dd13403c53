"""What is new in some version of CPython, and so is skipped in others."""

import os
import subprocess
import sys
import unittest
import unittest.mock

from support import PYTHON, TestCase

TOOL = """
import sys
sys.monitoring.use_tool_id(sys.monitoring.PROFILER_ID, "a profiler")
"""


class OnThePath(TestCase):
    def on_the_path(self, files):
        folder = self.folder(files)
        sys.path.insert(0, folder)
        self.addCleanup(sys.path.remove, folder)
        return folder


class Interpreters(OnThePath):
    def test_a_free_threaded_build_is_refused_with_a_sentence(self):
        text = "import sys; sys.abiflags = 't'\ntry: import warmfork\nexcept ImportError as error: print(error)"
        done = subprocess.run([PYTHON, "-c", text], capture_output=True, text=True)
        self.assertRegex(done.stdout, "cannot be used in a free-threaded build of Python .*stable ABI")

    @unittest.skipUnless(hasattr(sys, "monitoring"), "sys.monitoring is new in 3.12")
    def test_tools_that_monitor_the_template_make_children_cold(self):
        self.on_the_path({"watcher.py": TOOL})
        template = self.template(["watcher"])
        process = template.popen([PYTHON, "-c", "import sys; print(sys.monitoring.get_tool(2))"], stdout=-1)
        with process:
            self.assertEqual(process.stdout.read(), b"None\n")
        self.assertEqual((process.backend, process.reason_code), ("cold", "gate"))
        self.assertIn("'a profiler' with sys.monitoring", process.reason)


@unittest.skipUnless(sys.version_info >= (3, 15), "lazy imports are new in 3.15")
class LazyImports(OnThePath):
    FILES = {
        "lazy_top.py": "lazy import lazy_below\nlazy from colorsys import rgb_to_hsv\nlazy import no_such_module\n",
        "lazy_below.py": "lazy import wave as other\n",
    }
    CHECK = "import sys; print([name for name in ('lazy_below', 'colorsys', 'wave') if name in sys.modules])"

    def setUp(self):
        super().setUp()
        patch = unittest.mock.patch.dict(os.environ, PYTHONPATH=":".join((self.on_the_path(self.FILES), *sys.path)))
        patch.start()
        self.addCleanup(patch.stop)

    def test_what_a_preloaded_module_imports_lazily_is_preloaded(self):
        template = self.template(["lazy_top"], backend="warm")
        run = lambda text: template.run([PYTHON, "-c", text], capture_output=True, text=True)
        self.assertEqual(run(self.CHECK).stdout, "['lazy_below', 'colorsys', 'wave']\n")
        used = run("import lazy_top as t; print(t.lazy_below.other.__name__, t.rgb_to_hsv.__name__)")
        self.assertEqual((used.stdout, used.stderr), ("wave rgb_to_hsv\n", ""))

    def test_what_cannot_be_imported_is_told_and_fails_where_it_is_used(self):
        template = self.template(["lazy_top"], backend="warm")
        (failed,) = template.report()["host"]["failed"]
        self.assertEqual(failed["module"], "lazy_top.no_such_module")
        text = "import lazy_top\ntry: lazy_top.no_such_module\nexcept ImportError as error: print(error.name)"
        done = template.run([PYTHON, "-c", text], capture_output=True, text=True)
        self.assertEqual((done.stdout, done.stderr), ("no_such_module\n", ""))

    def test_with_all_imports_lazy_children_are_right_too(self):
        text = "import json, lazy_top; print(json.dumps(1), lazy_top.rgb_to_hsv.__name__)"
        command = [PYTHON, "-X", "lazy_imports=all", "-c", text]
        template = self.template(["lazy_top", "json"], options=["-X", "lazy_imports=all"])
        for popen in subprocess.Popen, template.popen:
            with popen(command, stdout=subprocess.PIPE) as process:
                self.assertEqual(process.stdout.read(), b"1 rgb_to_hsv\n")
        self.assertEqual(process.reason, "")


if __name__ == "__main__":
    unittest.main()
