"""What `cmake --install` makes: a tree that works wherever it lies, without the build beside it."""

import json
import os
import shutil
import tempfile
import unittest

from support import BUILD, PYTHON, SOURCE, find, run


class InstalledTree(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        first = os.path.join(folder.name, "installed")
        run(["cmake", "--install", BUILD, "--prefix", first])
        # It is moved, so that no path of the installation can be what makes it work.
        cls.root = os.path.join(folder.name, "moved")
        os.rename(first, cls.root)
        cls.packages = os.path.dirname(find(os.path.join(cls.root, "lib"), "_native.abi3.so"))
        cls.scratch = os.path.join(folder.name, "scratch")
        os.mkdir(cls.scratch)

    def pkg_config(self, *options):
        folder = os.path.dirname(find(self.root, "warmfork.pc"))
        return run(["pkg-config", f"--define-variable=prefix={self.root}", *options, "warmfork"],
                   env={"PKG_CONFIG_PATH": folder}).split()

    def library_path(self):
        return {"LD_LIBRARY_PATH": os.path.dirname(find(self.root, "libwarmfork.so.0"))}

    def test_a_c_program_is_compiled_with_pkg_config_and_spawns_warm(self):
        program = os.path.join(self.scratch, "spawn")
        run(["cc", "-Wall", "-Wextra", "-Werror", "-pedantic", f"{SOURCE}/shim/examples/spawn.c", "-o", program,
             *self.pkg_config("--cflags", "--libs")])
        shown = run([program], env=self.library_path())
        self.assertEqual(shown.count("warm \n"), 3, shown)

    def test_a_cpp_program_is_built_with_the_cmake_package(self):
        project = os.path.join(self.scratch, "project")
        os.mkdir(project)
        shutil.copy(f"{SOURCE}/shim/examples/native_template.cpp", project)
        with open(os.path.join(project, "CMakeLists.txt"), "w") as file:
            file.write("cmake_minimum_required(VERSION 3.25)\nproject(user CXX)\n"
                       "find_package(warmfork 0.1 REQUIRED)\n"
                       "add_executable(user native_template.cpp)\ntarget_compile_features(user PRIVATE cxx_std_20)\n"
                       "target_link_libraries(user PRIVATE warmfork::warmfork)\n")
        run(["cmake", "-G", "Ninja", "-S", project, "-B", f"{project}/build", f"-DCMAKE_PREFIX_PATH={self.root}"])
        run(["cmake", "--build", f"{project}/build"])
        run([f"{project}/build/user"])  # a program of this very moment may have been changed since: served cold
        self.assertEqual(run([f"{project}/build/user"]).count("warm spawn"), 3)

    def test_the_library_exports_the_c_interface_and_nothing_else(self):
        symbols = run(["nm", "-D", "--defined-only", find(self.root, "libwarmfork.so.0")]).splitlines()
        names = {line.split()[2].partition("@")[0] for line in symbols} - {"WARMFORK_0"}
        self.assertIn("warmfork_spawn", names)
        self.assertEqual({name for name in names if not name.startswith("warmfork_")}, set())

    def test_nothing_that_is_installed_has_stopping_points(self):
        found = 0
        for folder, _, names in os.walk(self.root):
            for name in names:
                with open(os.path.join(folder, name), "rb") as file:
                    content = file.read()
                found += content.startswith(b"\x7fELF")
                for word in (b"WARMFORK_STOPPING_POINTS", b"before-user-code"):
                    self.assertNotIn(word, content, name)
        self.assertGreaterEqual(found, 5)

    def test_the_command_line_runs_a_warm_child(self):
        command = [f"{self.root}/bin/warmfork", "run", "--explain", "--backend", "warm", "--preload", "json", "--",
                   PYTHON, "-c", "import json; print(json.dumps('warm'))"]
        self.assertEqual(run(command), '"warm"\n')

    def test_the_benchmark_belongs_to_it(self):
        shown = run([f"{self.root}/bin/warmfork", "bench", "--python", PYTHON, "serial", "--count", "1",
                     "--preload", "json", "--json"])
        self.assertIn("warm-spare", json.loads(shown)["rows"])

    def test_type_checkers_find_what_they_read(self):
        for name in ("py.typed", "__init__.pyi", "_native.pyi", "_types.pyi"):
            self.assertTrue(os.path.exists(os.path.join(self.packages, name)), name)

    def test_others_find_what_the_package_offers_them(self):
        program = ("from importlib.metadata import distribution\n"
                   "print([entry.value for entry in distribution('warmfork').entry_points])\n")
        shown = run([PYTHON, "-c", program], env={"PYTHONPATH": os.path.dirname(self.packages)})
        self.assertEqual(shown, "['warmfork.jupyter:WarmforkProvisioner']\n")

    def test_python_spawns_from_where_its_package_lies(self):
        program = ("import sys, warmfork\n"
                   "with warmfork.Template(['json']) as template:\n"
                   "    print(template.run([sys.executable, '-c', 'import json; print(json)'], backend='warm',"
                   " capture_output=True, text=True).stdout)\n"
                   "    print(warmfork.__file__)\n")
        shown = run([PYTHON, "-c", program], env={"PYTHONPATH": os.path.dirname(self.packages)})
        self.assertIn("json/__init__.py", shown)
        self.assertIn(self.packages, shown)

    def test_processes_of_multiprocessing_find_the_package_where_their_parent_did(self):
        program = os.path.join(self.scratch, "program.py")
        with open(program, "w") as file:
            file.write("import warmfork\n"
                       "def place(_):\n"
                       "    return warmfork.__file__\n"
                       "if __name__ == '__main__':\n"
                       "    with warmfork.get_context().Pool(1) as pool:\n"
                       "        print(pool.map(place, [0]) == [warmfork.__file__])\n")
        self.assertEqual(run([PYTHON, program], env={"PYTHONPATH": os.path.dirname(self.packages)}), "True\n")

    def test_children_can_spawn_too(self):
        inner = ("import sys, warmfork\n"
                 "with warmfork.Template(['csv']) as template:\n"
                 "    sys.exit(template.run([sys.executable, '-c', 'pass'], backend='warm').returncode)\n")
        run([f"{self.root}/bin/warmfork", "run", "--backend", "warm", "--preload", "json", "--", PYTHON, "-c", inner],
            env={"PYTHONPATH": os.path.dirname(self.packages)})

    def test_a_template_does_not_see_what_lies_beside_the_package(self):
        beside = os.path.join(os.path.dirname(self.packages), "lies_beside.py")
        with open(beside, "w"):
            pass
        self.addCleanup(os.remove, beside)
        command = [f"{self.root}/bin/warmfork", "run", "--backend", "warm", "--preload", "json", "--", PYTHON, "-c",
                   "import importlib.util; print(importlib.util.find_spec('lies_beside'))"]
        self.assertEqual(run(command), "None\n")

    def test_no_file_names_the_build_or_the_source(self):
        for folder, _, files in os.walk(self.root):
            for name in files:
                if ".so" in name or "." not in name:
                    continue  # debug information
                with open(os.path.join(folder, name), "rb") as file:
                    content = file.read()
                for path in (BUILD, SOURCE):
                    self.assertNotIn(path.encode(), content, os.path.join(folder, name))


if __name__ == "__main__":
    unittest.main()
