"""The package itself."""

import subprocess
import unittest

from support import PYTHON, TestCase


class Import(TestCase):
    def test_import_is_light(self):
        program = (
            "import sys; before = set(sys.modules); import warmfork; "
            "print(*sorted(set(sys.modules) - before))"
        )
        loaded = subprocess.run([PYTHON, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
        self.assertEqual(loaded.stdout.split(), ["warmfork"])

    def test_types_cost_no_import(self):
        program = (
            "import sys; before = set(sys.modules); import warmfork; warmfork.Template, warmfork.Popen; "
            "print(*sorted(set(sys.modules) - before))"
        )
        loaded = subprocess.run([PYTHON, "-c", program], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
        self.assertIn("warmfork._owner", loaded)
        self.assertNotIn("typing", loaded)

    def test_names_are_loaded_on_first_use(self):
        import warmfork

        self.assertIn("Template", dir(warmfork))
        self.assertTrue(issubclass(warmfork.Popen, subprocess.Popen))
        self.assertTrue(issubclass(warmfork.TemplateError, warmfork.Error))
        with self.assertRaises(AttributeError):
            warmfork.no_such_name


if __name__ == "__main__":
    unittest.main()
