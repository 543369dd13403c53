"""Templates with nested=True: the children of children come from the same image."""

import multiprocessing
import os
import subprocess
import sys
import unittest
import unittest.mock
from concurrent.futures import ProcessPoolExecutor

import warmfork
import warmfork.multiprocessing
from support import PYTHON, TestCase, warm_only

# Whose import has made the image, and what it depends on.
MODULE = """
import os
MAKER = -os.getpid()  # so that it is not taken for what a child would have otherwise
TEXT = os.environ.get("WARMFORK_TEST_NESTED", "")
VERSION = 1
try:
    import nested_option
except ImportError:
    nested_option = None
class Class:
    pass
"""

# Opens the template again, and runs itself from it.
PROGRAM = """
import os, sys, nested_module, warmfork
depth = int(sys.argv[1])
print(os.getpid(), os.getppid(), -nested_module.MAKER, flush=True)
if depth:
    with warmfork.Template(["nested_module"], nested=True) as template:
        child = template.popen([sys.executable, __file__, str(depth - 1)])
        sys.exit(child.wait() or child.backend != "warm")
"""

# Leaves what speaks when it ends to a preloaded module, and runs itself from the image.
LOUD_PROGRAM = """
import os, sys, nested_module, warmfork
class Loud:
    def __del__(self):
        os.write(1, b"%d ends. " % depth)
depth = int(sys.argv[1])
nested_module.Class.loud = Loud()
if depth:
    with warmfork.Template(["nested_module"], nested=True) as template:
        template.run([sys.executable, __file__, str(depth - 1)], check=True, backend="warm")
"""

# Starts a chain of processes, each of which says what its main module has found at its import.
PROGRAM_OF_PROCESSES = """
import multiprocessing, os, nested_module, warmfork
METHOD = {method}
def report(depth):
    print(os.getppid(), -nested_module.MAKER, METHOD, os.getpid(), flush=True)
    if depth:
        context = warmfork.get_context(["nested_module"], nested=True)
        context.template.wait_ready()
        process = context.Process(target=report, args=(depth - 1,))
        process.start()
        process.join()
if __name__ == "__main__":
    context = warmfork.get_context(["nested_module"], nested=True)
    context.template.wait_ready()
    print(context.template.pid)
    report(3)
"""

# Runs a line of input, opens a template, runs a program from it, and goes on with the next line.
STEPWISE = """
import os, sys, nested_module, warmfork
TEXT = "import nested_module as m; print(-m.MAKER, m.TEXT, m.VERSION, m.nested_option is not None)"
print(flush=True)
exec(sys.stdin.readline())
with warmfork.Template(["nested_module"], nested=True) as template:
    template.wait_ready()
    while True:
        child = template.popen([sys.executable, "-c", TEXT])
        child.wait()
        print(child.reason_code, flush=True)
        statement = sys.stdin.readline()
        if not statement:
            break
        exec(statement)
"""


def report(depth, connection):
    import nested_module

    connection.send((os.getpid(), os.getppid(), -nested_module.MAKER))
    if depth:
        context = warmfork.get_context(["nested_module"], nested=True)
        process = context.Process(target=report, args=(depth - 1, connection))
        process.start()
        process.join()
        assert process.backend == "warm" and process.exitcode == 0, process.reason


def report_by_method(connection):
    """The method's own context and the one of the same arguments have one template."""
    for context in (multiprocessing, warmfork.get_context(["nested_module"], nested=True)):
        process = context.Process(target=report, args=(0, connection))
        process.start()
        process.join()
    connection.send(context.template.counts["template_starts"])


def square(number):
    return number * number


def maker(_):
    import nested_module

    return -nested_module.MAKER


def squares_by_a_pool_of_its_own(number):
    with warmfork.get_context(["nested_module"], nested=True).Pool(2) as pool:
        numbers, makers = pool.map(square, range(number)), set(pool.map(maker, range(8)))
        return numbers, makers, {process.reason for process in pool._pool}


@warm_only
class Nested(TestCase):
    @classmethod
    def setUpClass(cls):
        multiprocessing.resource_tracker.ensure_running()

    def setUp(self):
        super().setUp()
        folder = self.modules = self.folder({"nested_module.py": MODULE})
        before = os.environ.get("PYTHONPATH", "")
        os.environ["PYTHONPATH"] = f"{folder}:{os.path.dirname(os.path.dirname(os.path.abspath(warmfork.__file__)))}"
        sys.path.insert(0, folder)
        self.addCleanup(sys.path.remove, folder)
        self.addCleanup(os.environ.__setitem__, "PYTHONPATH", before)

    def nested(self):
        template = self.template(["nested_module"], nested=True, spares=1)
        template.wait_parked()
        return template

    def stepwise(self, template):
        child = template.popen(
            [PYTHON, "-c", STEPWISE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.addCleanup(child.communicate)
        self.assertEqual(child.backend, "warm", child.reason)
        child.stdout.readline()
        return child

    def step(self, child, statement=""):
        """Runs it in the child; what its next child shows, and why that is cold."""
        print(statement, file=child.stdin)
        words = child.stdout.readline().split(" ")
        return int(words[0]), words[1], words[2], words[3].strip(), child.stdout.readline().strip()

    def test_the_image_of_the_first_template_serves_at_every_depth(self):
        template = self.nested()
        program = os.path.join(self.folder({"program.py": PROGRAM}), "program.py")
        done = template.run([PYTHON, program, "3"], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        parent = os.getpid()
        for line in done.stdout.splitlines():
            pid, seen_parent, maker = map(int, line.split())
            self.assertEqual((seen_parent, maker), (parent, template.pid))
            parent = pid
        self.assertEqual(len(done.stdout.splitlines()), 4)

    def test_one_that_learns_is_open_at_once_at_every_depth(self):
        learns = 'nested=True, learn=True, name="a chain"'
        program = os.path.join(self.folder({"program.py": PROGRAM.replace("nested=True", learns)}), "program.py")
        with unittest.mock.patch.dict(os.environ, XDG_STATE_HOME=self.folder({})):
            template = self.template(["nested_module"], nested=True, learn=True, name="a chain")
            template.wait_ready()
            done = template.run([PYTHON, program, "2"], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual({line.split()[2] for line in done.stdout.splitlines()}, {str(template.pid)})

    def test_what_hangs_on_the_image_ends_at_every_depth(self):
        template = self.nested()
        program = os.path.join(self.folder({"program.py": LOUD_PROGRAM}), "program.py")
        done = template.run([PYTHON, program, "2"], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "0 ends. 1 ends. 2 ends. ", ""))

    def test_another_definition_is_another_image(self):
        template = self.nested()
        for text, is_same in (
            ("['nested_module'], nested=True", True),
            ("['nested_module']", True),
            ("['nested_module', 'csv'], nested=True", False),
            ("['nested_module'], options=['-B']", False),
            ("['nested_module'], before_fork='gc:collect'", False),
            ("['nested_module'], cwd='/'", False),
            ("['nested_module'], env={**os.environ, 'WARMFORK_TEST_NESTED': 'x'}", False),
            ("['nested_module'], env={**os.environ, 'WARMFORK_TEST_OTHER': 'x'}", True),
        ):
            with self.subTest(text):
                program = (
                    f"import os, sys, warmfork\nwith warmfork.Template({text}) as template:\n"
                    "    template.run([sys.executable, *(['-B'] if 'options' in %r else []), '-c',"
                    " 'import nested_module as m; print(-m.MAKER)'])" % text
                )
                done = template.run([PYTHON, "-c", program], capture_output=True, text=True)
                self.assertEqual(int(done.stdout) == template.pid, is_same, done)

    def test_a_module_that_would_be_found_on_the_childs_own_path_only(self):
        template = self.nested()
        folder = self.folder({"nested_option.py": ""})
        child = self.stepwise(template)
        maker, _, _, has_option, _ = self.step(child, f"os.chdir({folder!r})")
        self.assertEqual((maker == template.pid, has_option), (False, "True"))

    def test_a_file_that_has_changed_since_the_first_template_preloaded_it(self):
        template = self.nested()
        child = self.stepwise(template)
        with open(os.path.join(self.modules, "nested_module.py"), "w") as file:
            file.write(MODULE.replace("VERSION = 1", "VERSION = 2"))
        _, _, version, _, reason = self.step(child)
        self.assertEqual((version, reason), ("2", "stale"))

    def test_a_module_that_has_appeared_since_the_first_template_looked_for_it(self):
        template = self.nested()
        child = self.stepwise(template)
        with open(os.path.join(self.modules, "nested_option.py"), "w"):
            pass
        self.assertEqual(self.step(child)[3:], ("True", "stale"))

    def test_a_file_that_changes_while_the_twin_serves(self):
        template = self.nested()
        child = self.stepwise(template)
        self.assertEqual(self.step(child), (template.pid, "", "1", "False", "none"))
        with open(os.path.join(self.modules, "nested_module.py"), "w") as file:
            file.write(MODULE.replace("VERSION = 1", "VERSION = 2"))
        self.assertEqual(self.step(child)[2:], ("2", "False", "stale"))

    def test_a_variable_that_preloading_has_read(self):
        template = self.nested()
        child = self.stepwise(template)
        maker, text, *_ = self.step(child, "os.environ['WARMFORK_TEST_NESTED'] = 'before'")
        self.assertEqual((maker == template.pid, text), (False, "before"))
        child = self.stepwise(template)
        self.step(child)
        _, text, _, _, reason = self.step(child, "os.environ['WARMFORK_TEST_NESTED'] = 'after'")
        self.assertEqual((text, reason), ("after", "environment"))

    def test_random_streams_and_keys_are_parted(self):
        text = "import multiprocessing.process as p, random; print(random.random(), p.current_process().authkey)"
        program = (
            "import sys, warmfork\n"
            "with warmfork.Template(['random', 'multiprocessing'], nested=True) as template:\n"
            f"    for _ in range(3): template.run([sys.executable, '-c', {text!r}])\n"
            f"    {text}\n"
        )
        template = self.template(["random", "multiprocessing"], nested=True)
        seen = []
        for _ in range(2):
            done = template.run([PYTHON, "-c", program], capture_output=True, text=True)
            seen += done.stdout.splitlines()
        self.assertEqual(len(seen), 8)
        for column in zip(*(line.split(" ", 1) for line in seen)):
            self.assertEqual(len(set(column)), 8, column)

    def test_a_forked_copy_of_a_child_leaves_the_twin_to_the_child(self):
        template = self.nested()
        program = (
            "import os, sys, nested_module, warmfork\n"
            "def look():\n"
            "    with warmfork.Template(['nested_module'], nested=True) as template:\n"
            "        template.run([sys.executable, '-c', 'import nested_module as m; print(-m.MAKER, flush=True)'])\n"
            "if os.fork() == 0: look(); os._exit(0)\n"
            "os.wait(); look()\n"
        )
        done = template.run([PYTHON, "-c", program], capture_output=True, text=True)
        copys, own = map(int, done.stdout.split())
        self.assertEqual((copys == template.pid, own), (False, template.pid), done)

    def context(self):
        context = warmfork.multiprocessing.WarmforkContext(["nested_module"], nested=True)
        self.addCleanup(lambda: context.template.close())
        context.template.wait_ready()
        return context

    def test_processes_of_multiprocessing_at_every_depth(self):
        context = self.context()
        near, far = context.Pipe()
        with near, far:
            process = context.Process(target=report, args=(3, far))
            process.start()
            process.join()
            self.assertEqual((process.exitcode, process.backend), (0, "warm"))
            parent = os.getpid()
            for _ in range(4):
                pid, seen_parent, maker = near.recv()
                self.assertEqual((seen_parent, maker), (parent, context.template.pid))
                parent = pid

    def reports(self, method):
        """Of the processes below a program whose main module evaluates `method`, the makers of their images and what
        their main modules have seen; and the first template."""
        source = PROGRAM_OF_PROCESSES.format(method=method)
        program = os.path.join(self.folder({"program.py": source}), "program.py")
        done = subprocess.run([PYTHON, program], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        first, *lines = (line.split(" ") for line in done.stdout.splitlines())
        self.assertEqual([line[0] for line in lines[1:]], [line[3] for line in lines[:-1]])
        return [line[1] for line in lines[1:]], [line[2] for line in lines[1:]], first[0]

    def test_a_program_whose_main_module_is_a_file_has_the_twin_at_every_depth(self):
        makers, _, first = self.reports("None")
        self.assertEqual(makers, [first] * 3)

    def test_a_main_module_that_asks_for_the_start_method_finds_that_of_its_parent(self):
        makers, methods, first = self.reports("multiprocessing.get_start_method()")
        self.assertEqual(methods, [multiprocessing.get_all_start_methods()[0], "warmfork", "warmfork"])
        self.assertEqual(makers[0], first)
        self.assertNotEqual(makers[1], first)
        self.assertEqual(makers[2], makers[1])

    def test_the_method_itself_and_equal_contexts_share_the_twin(self):
        context = self.context()
        near, far = context.Pipe()
        with near, far:
            process = context.Process(target=report_by_method, args=(far,))
            process.start()
            process.join()
            self.assertEqual(process.exitcode, 0)
            makers = {near.recv()[2], near.recv()[2]}
            self.assertEqual((makers, near.recv()), ({context.template.pid}, 1))

    def test_nested_pools(self):
        context = self.context()
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            for numbers, makers, reasons in executor.map(squares_by_a_pool_of_its_own, range(4)):
                self.assertEqual(numbers, [n * n for n in range(len(numbers))])
                self.assertEqual((reasons, makers), ({""}, {context.template.pid}))

    def test_processes_of_a_pool_may_have_no_children_as_everywhere(self):
        with self.context().Pool(1) as pool:
            with self.assertRaisesRegex(AssertionError, "daemonic"):
                pool.map(squares_by_a_pool_of_its_own, [1])
            pool.close()
            pool.join()


if __name__ == "__main__":
    unittest.main()
