"""The start method "warmfork": a context with everything that multiprocessing's have."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import unittest
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import context, process, resource_tracker, util

import warmfork
import warmfork.multiprocessing
from support import PYTHON, TestCase, warm_only


def square(number):
    return number * number


def parents(_):
    return os.getpid(), os.getppid()


def put_state(queue):
    queue.put((os.getcwd(), os.environ.get("WARMFORK_TEST_MP"), os.getppid(), sys.modules["__main__"].__name__))


def hold(lock, value):
    for _ in range(100):
        with lock:
            value.value += 1


def sleep():
    time.sleep(100)


def start_one_of_its_own(connection):
    child = multiprocessing.get_context("warmfork").Process(target=connection.send, args=("from below",))
    child.start()
    child.join()
    connection.send(child.exitcode)


def fail():
    raise ValueError("on purpose")


def fork_by_hand(connection):
    copy = os.fork()
    if copy == 0:
        connection.send(("copy", os.getppid()))
        os._exit(7)
    connection.send(("child", os.getpid(), os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])))


def fork_by_multiprocessing(connection):
    child = multiprocessing.get_context("fork").Process(target=connection.send, args=("from a fork",))
    child.start()
    child.join()
    connection.send(child.exitcode)


def square_in_a_pool_of_its_own(number):
    with multiprocessing.get_context("warmfork").Pool(2) as pool:
        return pool.map(square, range(number))


class Context(TestCase):
    @classmethod
    def setUpClass(cls):
        cls.context = warmfork.multiprocessing.WarmforkContext(["json"])

    def setUp(self):
        # What lives as long as the method: the template, and the tracker of shared resources.
        self.context.template.wait_ready()
        multiprocessing.resource_tracker.ensure_running()
        super().setUp()

    def _check_leaks(self):
        """Processes of the context are joined by the tests themselves."""
        self.assertEqual(multiprocessing.active_children(), [])

    @classmethod
    def tearDownClass(cls):
        cls.context.template.close()

    def start(self, target, *args, **options):
        process = self.context.Process(target=target, args=args, **options)
        process.start()
        self.addCleanup(process.join)
        return process

    @warm_only
    def test_a_process_is_warm_and_the_callers_own_child(self):
        queue = self.context.Queue()
        os.environ["WARMFORK_TEST_MP"] = "of this moment"
        self.addCleanup(os.environ.pop, "WARMFORK_TEST_MP")
        before = os.getcwd()
        os.chdir("/")
        try:
            process = self.start(put_state, queue)
        finally:
            os.chdir(before)
        self.assertEqual(queue.get(timeout=30)[:3], ("/", "of this moment", os.getpid()))
        process.join()
        self.assertEqual((process.exitcode, process.backend, process.reason), (0, "warm", ""))

    def test_pools(self):
        with self.context.Pool(3) as pool:
            self.assertEqual(pool.map(square, range(10)), [n * n for n in range(10)])
            self.assertEqual({parent for _, parent in pool.map(parents, range(10))}, {os.getpid()})
            pool.close()
            pool.join()

    def test_executors(self):
        with ProcessPoolExecutor(2, mp_context=self.context) as executor:
            self.assertEqual(list(executor.map(square, range(5))), [0, 1, 4, 9, 16])

    def test_locks_and_shared_values(self):
        lock, value = self.context.Lock(), self.context.Value("i", 0)
        holders = [self.start(hold, lock, value) for _ in range(3)]
        for holder in holders:
            holder.join()
        self.assertEqual(value.value, 300)

    def test_managers(self):
        with self.context.Manager() as manager:
            self.assertEqual(list(manager.list([1, 2])), [1, 2])

    def test_signals_and_sentinels(self):
        process = self.start(sleep, daemon=True)
        self.assertEqual(multiprocessing.connection.wait([process.sentinel], 0), [])
        process.terminate()
        self.assertEqual(multiprocessing.connection.wait([process.sentinel], 30), [process.sentinel])
        process.join()
        self.assertEqual(process.exitcode, -signal.SIGTERM)

    def test_an_exception_ends_with_status_one(self):
        process = self.start(fail)
        process.join()
        self.assertEqual(process.exitcode, 1)

    def test_children_of_children(self):
        near, far = self.context.Pipe()
        process = self.start(start_one_of_its_own, far)
        self.assertTrue(near.poll(30))
        self.assertEqual([near.recv(), near.recv()], ["from below", 0])
        process.join()
        near.close()
        far.close()

    def test_fork_in_a_child(self):
        near, far = self.context.Pipe()
        with near, far:
            self.start(fork_by_hand, far).join()
            (_, parent), (_, child, status) = sorted((near.recv(), near.recv()), reverse=True)
            self.assertEqual((parent, status), (child, 7))
            self.start(fork_by_multiprocessing, far).join()
            self.assertEqual([near.recv(), near.recv()], ["from a fork", 0])

    def test_nested_pools(self):
        with ProcessPoolExecutor(2, mp_context=self.context) as executor:
            self.assertEqual(list(executor.map(square_in_a_pool_of_its_own, range(3))), [[], [0], [0, 1]])

    @warm_only
    def test_a_module_that_only_the_owner_has(self):
        module = type(sys)("only_here")
        exec("def target(): pass", module.__dict__)
        sys.modules["only_here"] = module
        self.addCleanup(sys.modules.pop, "only_here")
        process = self.start(module.target)  # by name, as everywhere: the child has to find it
        process.join()
        self.assertEqual((process.exitcode, process.backend), (1, "warm"))
        other = warmfork.multiprocessing.WarmforkContext(["only_here"])
        with self.assertRaisesRegex(warmfork.TemplateError, "only_here"):
            other.template.wait_ready()
        with self.assertRaisesRegex(warmfork.TemplateError, "only_here"):
            other.Process(target=square, args=(1,)).start()
        other.template.close()

    def test_a_target_that_cannot_be_pickled(self):
        with self.assertRaises((pickle.PicklingError, AttributeError)):
            self.context.Process(target=lambda: None).start()

    @warm_only
    def test_a_module_that_cannot_be_imported_is_named(self):
        other = warmfork.multiprocessing.WarmforkContext(["no_such_module_anywhere"])
        with self.assertRaisesRegex(warmfork.TemplateError, "no_such_module_anywhere"):
            other.template.wait_ready()
        with self.assertRaisesRegex(warmfork.TemplateError, "no_such_module_anywhere"):
            other.Process(target=square, args=(1,)).start()
        other.template.close()

    def test_a_template_that_dies_comes_back(self):
        with self.context.Pool(2, maxtasksperchild=1) as pool:
            results = [pool.apply_async(square, (number,)) for number in range(10)]
            os.kill(self.context.template.pid, signal.SIGKILL)
            self.assertEqual([result.get(30) for result in results], [n * n for n in range(10)])
            pool.close()
            pool.join()

    def test_equal_arguments_give_the_same_context(self):
        self.assertIs(warmfork.get_context(["json"]), warmfork.get_context(["json"]))
        self.assertIsNot(warmfork.get_context(["json"]), warmfork.get_context(["csv"]))
        self.assertEqual(warmfork.get_context(["json"]).get_start_method(), "warmfork")


# What main still has at the interpreter's end.
LEFT_TO_THE_END = {
    "an executor": "left = concurrent.futures.ProcessPoolExecutor(2, context); left.submit(time.sleep, 0.2)",
    "an executor that is done": "left = concurrent.futures.ProcessPoolExecutor(2, context); left.submit(int).result()",
    "a pool": "left = context.Pool(2); left.map(int, [1, 2])",
    "a manager": "left = context.Manager(); names = left.dict(a=1)",
    "a queue": "left = context.Queue(); left.put(1)",
    "a process": "left = context.Process(target=time.sleep, args=(0.2,)); left.start()",
}

PROGRAM = """
import multiprocessing, os, sys, warmfork.multiprocessing
class Own(multiprocessing.Process):
    def run(self):
        print("own", os.getppid() == int(sys.argv[1]) if len(sys.argv) > 1 else "", multiprocessing.get_start_method(), flush=True)
if __name__ == "__main__":
    multiprocessing.set_start_method("warmfork")
    warmfork.multiprocessing._default.template.wait_ready()
    for _ in range(2):
        child = Own(); child.start(); child.join(); print(child.exitcode, flush=True)
    child = multiprocessing.get_context("spawn").Process(target=print, args=("spawned",)); child.start(); child.join()
    print(multiprocessing.get_start_method(), child.exitcode, warmfork.multiprocessing._default.counts)
    host = warmfork.multiprocessing._default.template.report()["host"]
    print([entry["module"] for entry in host["imports"]].count("__main__"), host["failed"])
"""


class Method(TestCase):
    def run_program(self, text):
        folder = self.folder({"program.py": text})
        done = subprocess.run([PYTHON, "program.py"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
        return done.stdout.splitlines()

    @warm_only
    def test_main_is_imported_once_in_the_template_and_the_name_reaches_other_methods(self):
        self.assertEqual(
            self.run_program(PROGRAM),
            ["own  warmfork", "0", "own  warmfork", "0", "spawned", "warmfork 0 {'warm': 2, 'cold': 0}", "1 []"],
        )

    def test_what_a_program_leaves_to_the_interpreters_end_ends_without_a_word(self):
        for name, text in LEFT_TO_THE_END.items():
            for method in "spawn", "warmfork":
                with self.subTest(name, method=method):
                    output = self.run_program(
                        "import concurrent.futures, multiprocessing, time, warmfork.multiprocessing\n"
                        "if __name__ == '__main__':\n"
                        f"    context = multiprocessing.get_context('{method}')\n    {text}\n"
                    )
                    self.assertEqual(output, [])

    def test_a_main_module_that_raises_when_it_is_imported(self):
        output = self.run_program(
            "import multiprocessing, os, warmfork.multiprocessing as m\n"
            "if __name__ == '__mp_main__': raise RuntimeError('not importable')\n"
            "if __name__ == '__main__':\n"
            "    p = multiprocessing.get_context('warmfork').Process(target=print, args=('never',))\n"
            "    p.start(); p.join(); print(p.exitcode)\n"
        )
        self.assertIn("RuntimeError: not importable", output)
        self.assertEqual(output[-1], "1")

    def test_a_main_module_without_a_guard_is_told_so(self):
        output = self.run_program(
            "import multiprocessing, warmfork.multiprocessing\n"
            "p = multiprocessing.get_context('warmfork').Process(target=print, args=('x',))\n"
            "p.start(); p.join(); print(p.exitcode)\n"
        )
        self.assertTrue(any("bootstrapping phase" in line for line in output), output)
        self.assertEqual(output[-1], "1")

    def test_without_select_poll(self):
        """Green-thread libraries take it away, as well as epoll."""
        for backend in ("warm", "cold"):
            output = self.run_program(
                "import multiprocessing, os, select\n"
                "del select.poll, select.epoll\n"
                "import warmfork.multiprocessing\n"
                "def take(lock): lock.acquire(); lock.release()\n"
                "if __name__ == '__main__':\n"
                f"    os.environ['WARMFORK_BACKEND'] = '{backend}'\n"
                "    context = multiprocessing.get_context('warmfork')\n"
                "    lock = context.Lock()\n"
                "    for _ in range(2):\n"
                "        child = context.Process(target=take, args=(lock,)); child.start(); child.join()\n"
                "        print(child.exitcode, child.backend)\n"
            )
            self.assertEqual(output, [f"0 {backend}"] * 2)


class Rehearsals(TestCase):
    """What a spare does before it parks, here in this process."""

    def test_it_works_and_leaves_nothing(self):
        def state():
            current = process.current_process()
            return (
                sys.path, sys.path[:], sys.argv, sys.stdin, sys.modules["__main__"], os.getcwd(), list(sys.modules),
                current, current.name, bytes(current.authkey), hasattr(current, "_inheriting"),
                process.parent_process(), process.ORIGINAL_DIR, repr(process._process_counter), process._children,
                context._default_context._actual_context, context.get_spawning_popen(), list(process._dangling),
                util._exit_function, threading._shutdown, resource_tracker._resource_tracker._fd,
                dict(warmfork.multiprocessing._contexts), warmfork.multiprocessing._default.definition,
                os.listdir("/proc/self/fd"),
            )

        main = sys.modules["__main__"]
        self.addCleanup(sys.modules.__setitem__, "__main__", main)
        sys.modules["__main__"] = type(sys)("__main__")  # a template's comes from no file
        warmfork.multiprocessing.prepare_rehearsal()
        current, key = process.current_process(), process.current_process().authkey
        self.addCleanup(setattr, current, "authkey", key)
        current.authkey = b"another one since"
        before = state()
        warmfork.multiprocessing.rehearse()
        self.assertEqual(state(), before)


if __name__ == "__main__":
    unittest.main()
