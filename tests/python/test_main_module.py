"""The program's main module in children of the method "warmfork": as those of "spawn" have it."""

import os
import subprocess
import sys
import unittest
import warnings

import warmfork
from support import BACKEND, PYTHON, TestCase

# Prints what children of both methods see, and what the template says of the import. METHODS and CHANGE are the
# tests'; main ends with them. BACKEND is for children of spawn, so that they compare equal.
START = """
def show(pipe):
    pipe.send(SEEN)

def ask(context, number):
    ours, theirs = context.Pipe()
    child = context.Process(target=show, args=(theirs,), name="child %d" % number)
    child.start()
    theirs.close()
    try:
        seen = ours.recv()
    except EOFError:
        seen = "nothing"
    child.join()
    return seen, child.exitcode, getattr(child, "backend", BACKEND)

if __name__ == "__main__":
    import multiprocessing, warmfork.multiprocessing
    context = warmfork.multiprocessing.WarmforkContext(**OPTIONS)
    context.template.wait_ready()
    spawn = multiprocessing.get_context("spawn")
    for number, change in enumerate(("pass", CHANGE)):
        exec(change)
        print(repr(ask(spawn, number)), repr(ask(context, number)), sep="\\n")
    print([entry["reason"] for entry in context.template.report()["host"]["failed"]])
    print([entry["module"] for entry in context.template.report()["host"]["imports"]].count("__main__"))
"""


class MainModules(TestCase):
    def run_main(self, beginning, change="pass", arguments=("a", "b"), options="{}"):
        """Returns what children saw of spawn and of warmfork, twice, why main was not preloaded, and how often it
        was."""
        text = f"OPTIONS, CHANGE, BACKEND = {options}, {change!r}, {BACKEND!r}\n{beginning}\n{START}"
        folder = self.folder({"program.py": text})
        environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
        command = [PYTHON, "program.py", *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, env=environment)
        self.assertEqual(done.returncode, 0, done.stderr)
        *seen, reasons, count = map(eval, done.stdout.splitlines()[-6:])
        return seen, reasons, count, done

    def assert_same(self, seen):
        self.assertEqual((seen[0], seen[2]), (seen[1], seen[3]))

    def test_the_template_imports_it_with_the_programs_arguments(self):
        seen, reasons, count, _ = self.run_main("import sys\nSEEN = sys.argv[1:], __name__, len(sys.path) > 0")
        self.assertEqual(seen[0][0], (["a", "b"], "__mp_main__", True))
        self.assert_same(seen)
        self.assertEqual((reasons, count), ([], 1))

    def test_one_that_writes_a_file_of_its_directory_is_left_to_the_children(self):
        seen, reasons, count, _ = self.run_main("open('log', 'w').close()\nSEEN = __name__")
        self.assert_same(seen)
        self.assertEqual((seen[1][2], reasons, count), (BACKEND, ["it makes files"], 0))

    def test_a_start_method_need_not_have_been_asked_for(self):
        # CPython tells its children so from 3.14.10 on.
        beginning = "import multiprocessing.spawn\nmultiprocessing.spawn.get_start_method = lambda **_: None\nSEEN = __name__"
        seen, reasons, count, _ = self.run_main(beginning)
        self.assert_same(seen)
        self.assertEqual((reasons, count), ([], 1))

    def test_starting_a_child_asks_for_no_start_method_where_that_of_spawn_does_not(self):
        text = (
            "import multiprocessing, sys, warmfork\nif __name__ == '__main__':\n"
            "    context = warmfork.get_context() if sys.argv[1:] else multiprocessing.get_context('spawn')\n"
            "    child = context.Process()\n    child.start()\n    child.join()\n"
            "    print(multiprocessing.get_start_method(allow_none=True))\n"
        )
        program = os.path.join(self.folder({"program.py": text}), "program.py")
        env = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
        shown = {subprocess.check_output([PYTHON, program, *ours], env=env, timeout=120) for ours in ([], ["ours"])}
        self.assertEqual(len(shown), 1, shown)

    def test_there_is_no_parent_yet_and_the_method_is_set(self):
        self.assert_same(self.run_main(
            "import multiprocessing as mp\nSEEN = mp.parent_process(), mp.current_process().daemon\n"
        )[0])

    def test_a_name_that_is_looked_at_is_each_childs_own(self):
        seen, reasons, count, _ = self.run_main(
            "import multiprocessing\nSEEN = multiprocessing.current_process().name"
        )
        self.assertEqual([value for (value, *_) in seen], ["child 0", "child 0", "child 1", "child 1"])
        self.assertEqual(count, 0)
        self.assertIn("name", reasons[0])

    def test_so_is_one_that_is_looked_at_in_another_way(self):
        seen = self.run_main("import multiprocessing\nSEEN = repr(multiprocessing.current_process())[:35]")[0]
        self.assert_same(seen)

    def test_arguments_that_change_later_reach_the_next_children(self):
        seen, _, count, _ = self.run_main("import sys\nSEEN = sys.argv[1:]", "sys.argv[1:] = ['c']")
        self.assertEqual([value for (value, *_) in seen], [["a", "b"], ["a", "b"], ["c"], ["c"]])
        self.assertEqual(count, 1)

    def test_so_does_another_directory(self):
        seen = self.run_main("import os\nSEEN = os.getcwd()", "os.chdir('/')")[0]
        self.assert_same(seen)
        self.assertEqual(seen[3][0], "/")

    def test_and_another_search_path(self):
        seen = self.run_main("import sys\nSEEN = sys.path[:]", "sys.path.insert(1, '/nowhere')")[0]
        self.assert_same(seen)

    def test_what_it_changes_is_changed_in_each_child(self):
        for change in (
            "sys.path.append('/nowhere')", "sys.argv.append('more')", "os.chdir('/')",
            "mp.current_process().authkey = b'own'", "mp.current_process().name += '!'",
        ):
            with self.subTest(change):
                seen, reasons, _, _ = self.run_main(
                    f"import multiprocessing as mp, os, sys\nBEFORE = os.getcwd()\n{change}\n"
                    "os.environ.setdefault('PYTHONPATH', ':'.join(sys.path))\n"
                    "SEEN = sys.path, sys.argv, os.getcwd(), mp.current_process().name\n"
                    "if __name__ == '__main__': os.chdir(BEFORE)"
                )
                self.assert_same(seen)
                self.assertEqual(len(reasons), 1)

    def test_one_that_cannot_be_imported_fails_in_each_child_and_is_told_in_the_report(self):
        for ending in ("raise ValueError('on purpose')", "sys.exit(3)"):
            with self.subTest(ending):
                seen, reasons, count, done = self.run_main(
                    f"import sys\nSEEN = 1\nif __name__ != '__main__':\n    {ending}"
                )
                self.assert_same(seen)
                self.assertEqual(seen[1][0], "nothing")
                self.assertEqual((len(reasons), count), (1, 0))
                self.assertNotIn("RuntimeWarning", done.stderr)

    def test_with_warn_the_owner_says_so_once(self):
        *_, done = self.run_main(
            "SEEN = 1\nif __name__ != '__main__': raise ValueError('on purpose')", options="{'on_error': 'warn'}"
        )
        self.assertEqual(done.stderr.count("RuntimeWarning: __main__ could not be preloaded: ValueError: on purpose"), 1)

    def test_with_fail_no_process_can_be_started(self):
        with self.assertRaisesRegex(AssertionError, "TemplateError(.|\n)*on purpose"):
            self.run_main(
                "SEEN = 1\nif __name__ != '__main__': raise ValueError('on purpose')", options="{'on_error': 'fail'}"
            )

    def test_the_command_line_of_the_template_does_not_tell_the_key(self):
        *_, done = self.run_main(
            "SEEN = None\nif __name__ == '__main__':\n    import multiprocessing\n"
            "    key = bytes(multiprocessing.current_process().authkey)",
            "print(key.hex() in open(f'/proc/{context.template.pid}/cmdline').read())",
        )
        self.assertIn("False", done.stdout.splitlines())


class ModulesThatFail(TestCase):
    BAD = {"raising.py": "raise ValueError('on purpose')", "ending.py": "raise SystemExit(0)"}

    def setUp(self):
        super().setUp()
        sys.path.insert(0, self.folder(self.BAD))
        self.addCleanup(sys.path.pop, 0)

    def test_they_are_an_error_by_default(self):
        for options in ({}, {"on_error": "fail"}):
            for name, text in (("raising", "on purpose"), ("ending", "ending ends the interpreter")):
                with self.subTest(name), self.assertRaisesRegex(warmfork.TemplateError, text):
                    self.template([name], **options).wait_ready()

    def test_ignored_they_are_left_out_and_named(self):
        with warnings.catch_warnings(record=True) as caught:
            template = self.template(["raising", "json", "ending"], on_error="ignore")
            template.wait_ready()
        self.assertEqual(caught, [])
        host = template.report()["host"]
        self.assertEqual([entry["module"] for entry in host["imports"]], ["json"])
        self.assertEqual([entry["module"] for entry in host["failed"]], ["raising", "ending"])
        self.assertIn("ValueError: on purpose", host["failed"][0]["reason"])
        done = template.run([PYTHON, "-c", "import raising"], capture_output=True, text=True, backend="warm")
        self.assertEqual(done.returncode, 1)

    def test_warned_of_they_are_named_once_on_the_first_use(self):
        template = self.template(["raising", "json"], waits=False, on_error="warn")
        with self.assertWarnsRegex(RuntimeWarning, "raising could not be preloaded: ValueError: on purpose"):
            template.run([PYTHON, "-c", ""], backend="warm")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.assertEqual(template.run([PYTHON, "-c", ""]).returncode, 0)

    def test_another_word_is_refused(self):
        with self.assertRaisesRegex(ValueError, "on_error must be one of ignore, warn, fail"):
            warmfork.Template(on_error="raise")


if __name__ == "__main__":
    unittest.main()
