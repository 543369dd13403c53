"""Files that come in place of preloaded modules, beside a script or earlier on the search path."""

import os
import sys
import unittest

from support import PYTHON, TestCase, warm_only


@warm_only
class Shadows(TestCase):
    def test_a_file_beside_the_script_comes_before_a_preloaded_module(self):
        folder = self.folder({"script.py": "import colorsys; print(colorsys.__file__)"})
        template = self.template(["colorsys"])
        template.wait_ready()
        script = os.path.join(folder, "script.py")
        done = lambda: template.popen([PYTHON, script], stdout=-1, stderr=-2)
        process = done()
        self.assertEqual((process.wait(), process.backend), (0, "warm"))
        process.stdout.close()
        for kind in ("colorsys.py", "colorsys/__init__.py"):
            path = os.path.join(folder, kind)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w"):
                pass
            process = done()
            self.assertEqual(process.communicate()[0].decode().strip(), path)
            self.assertEqual(process.reason_code, "shadowed")
            os.unlink(path)
        os.rmdir(os.path.join(folder, "colorsys"))
        process = done()
        process.communicate()
        self.assertEqual(process.backend, "warm")

    def test_so_does_one_in_the_directory_of_c_and_m(self):
        folder = self.folder({"colorsys.py": "VALUE = 7", "main.py": "import colorsys; print(colorsys.VALUE)"})
        template = self.template(["colorsys"])
        template.wait_ready()
        for command in (["-c", "import colorsys; print(colorsys.VALUE)"], ["-m", "main"]):
            process = template.popen([PYTHON, *command], stdout=-1, cwd=folder)
            self.assertEqual((process.communicate()[0], process.reason_code), (b"7\n", "shadowed"))
        process = template.popen([PYTHON, "-I", "-c", "import colorsys"], cwd=folder, backend="warm")
        self.assertEqual((process.wait(), process.backend), (0, "warm"))

    def test_a_preloaded_module_does_not_shadow_itself(self):
        folder = self.folder({
            "beside.py": "VALUE = 3", "pack/__init__.py": "", "script.py": "import beside, pack; print(beside.VALUE)",
        })
        sys.path.insert(0, folder)
        self.addCleanup(sys.path.remove, folder)
        template = self.template(["beside", "pack"])
        template.wait_ready()
        process = template.popen([PYTHON, "script.py"], stdout=-1, cwd=folder)
        self.assertEqual((process.communicate()[0], process.backend), (b"3\n", "warm"), process.reason)
        with open(os.path.join(folder, "beside.so"), "w"):
            pass  # comes before beside.py
        process = template.popen([PYTHON, "script.py"], stdout=-1, stderr=-3, cwd=folder)
        process.communicate()
        self.assertEqual(process.backend, "cold")

    def test_modules_that_every_interpreter_has_loaded_are_not_shadowed(self):
        folder = self.folder({"os.py": "1/0", "script.py": "import os; print(os.sep)"})
        process = self.template(["json"]).popen(
            [PYTHON, os.path.join(folder, "script.py")], stdout=-1, backend="warm"
        )
        self.assertEqual((process.communicate()[0], process.backend), (b"/\n", "warm"))


if __name__ == "__main__":
    unittest.main()
