"""Each face of a spawn against the original that it stands in for: the same call returns or raises the same."""

import asyncio
import gc
import multiprocessing
import os
import pathlib
import reprlib
import subprocess
import sys
import unittest
import warnings
from copy import copy
from functools import partial
from unittest import mock

import warmfork
import warmfork.multiprocessing
from support import PYTHON, TestCase, descriptors

try:
    import trio
except ImportError:
    trio = None

PIPE, STDOUT, DEVNULL = subprocess.PIPE, subprocess.STDOUT, subprocess.DEVNULL
COMMAND = [PYTHON, "-c", "print('ran')"]


def raise_error():
    raise ValueError("on purpose")


class Odd:
    """Of no use as any parameter."""


# Keyword arguments beside those of the command; "args" replaces the command.
STREAMS = [
    {"stdin": DEVNULL}, {"stderr": STDOUT}, {"stdin": STDOUT}, {"stdin": 9999}, {"stdin": -5}, {"stdin": "text"},
    {"stdin": 1.5}, {"stderr": 9999}, {"stderr": Odd()},
]
COMMANDS = [
    {"args": []}, {"args": ()}, {"args": ""}, {"args": b""}, {"args": None}, {"args": 5}, {"args": [5]}, {"args": [None]},
    {"args": [PYTHON, 1]}, {"args": [PYTHON, None]}, {"args": [PYTHON, "-c", "a\0b"]}, {"args": ["a\0b"]},
    {"args": [PYTHON.encode(), b"-c", b"print('ran')"]}, {"args": [pathlib.Path(PYTHON), "-c", "print('ran')"]},
    {"args": pathlib.Path("/bin/true")}, {"args": "/bin/true"}, {"args": b"/bin/true"}, {"args": lambda: iter(COMMAND)},
    {"args": "true false"}, {"args": ["/no/such/program"]}, {"args": ["no-such-program"]}, {"args": [""]},
    {"args": [b"/no/such/program"]}, {"args": [pathlib.Path("/no/such/program")]}, {"args": ["/etc/passwd"]},
    {"args": ["/etc"]}, {"args": ["/etc/passwd/x"]}, {"args": [PYTHON, "-c", "pass", "x" * 200_000]},
    {"executable": PYTHON}, {"executable": PYTHON.encode()}, {"executable": pathlib.Path(PYTHON)}, {"executable": ""},
    {"executable": "/no/such/program"}, {"executable": b"/no/such/program"}, {"executable": 5}, {"executable": "a\0b"},
]
SURROUNDINGS = [
    {"cwd": "/"}, {"cwd": b"/"}, {"cwd": pathlib.Path("/")}, {"cwd": ""}, {"cwd": "/nowhere"}, {"cwd": b"/nowhere"},
    {"cwd": pathlib.Path("/nowhere")}, {"cwd": "/etc/passwd"}, {"cwd": 5}, {"cwd": "a\0b"}, {"cwd": Odd()},
    {"cwd": "/nowhere", "args": ["/no/such/program"]},
    {"env": {}}, {"env": {"A": "b"}}, {"env": {b"A": b"b"}}, {"env": {"A": 1}}, {"env": {1: "a"}}, {"env": {"A": None}},
    {"env": {"a=b": "c"}}, {"env": {"": "x"}}, {"env": {"A": "b\0"}}, {"env": {"A\0": "b"}}, {"env": [("A", "b")]},
    {"env": 5}, {"env": "text"}, {"env": {"A": pathlib.Path("/")}},
    {"pass_fds": ()}, {"pass_fds": [1]}, {"pass_fds": 5}, {"pass_fds": (9999,)}, {"pass_fds": (-1,)},
    {"pass_fds": ("text",)}, {"pass_fds": (1, 1)}, {"pass_fds": (1.5,)}, {"pass_fds": None},
    {"close_fds": False}, {"close_fds": False, "pass_fds": (1,)}, {"close_fds": "yes"},
    {"start_new_session": True}, {"start_new_session": 1}, {"start_new_session": Odd()}, {"start_new_session": "yes"},
    {"restore_signals": False}, {"restore_signals": "yes"}, {"umask": 0o22}, {"umask": -1}, {"umask": -2},
    {"umask": "x"}, {"umask": None}, {"umask": 1.5}, {"umask": 0o7777777}, {"umask": 2**40},
    {"umask": -(2**40)}, {"preexec_fn": int}, {"preexec_fn": 5},
    {"preexec_fn": raise_error}, {"startupinfo": 1}, {"creationflags": 1}, {"no_such_option": 1},
    {"user": "no-such-user"}, {"user": -1}, {"user": 1.5}, {"user": os.getuid()}, {"group": "no-such-group"},
    {"group": -1}, {"group": []}, {"extra_groups": "root"}, {"extra_groups": [-1]}, {"extra_groups": [Odd()]},
    {"extra_groups": 5},
]
if sys.version_info >= (3, 10):
    SURROUNDINGS += [{"pipesize": 4096}, {"pipesize": "x"}]
if sys.version_info >= (3, 11):
    SURROUNDINGS += [
        {"process_group": 0}, {"process_group": None}, {"process_group": -2}, {"process_group": "x"},
        {"process_group": 2**22 + 1}, {"process_group": 1.5}, {"process_group": 2**70},
        {"process_group": -(2**70)},
        {"process_group": 0, "start_new_session": True},
    ]
TEXT = [
    {"text": True}, {"text": False}, {"text": "yes"}, {"universal_newlines": True}, {"universal_newlines": False},
    {"text": True, "universal_newlines": False}, {"encoding": "utf-8"}, {"encoding": "no-such-encoding"},
    {"encoding": 5}, {"encoding": ""}, {"errors": "strict"}, {"errors": "no-such-handler"}, {"errors": 5}, {"bufsize": 0},
    {"bufsize": 1}, {"bufsize": 1, "text": True}, {"bufsize": -1}, {"bufsize": None}, {"bufsize": "large"},
    {"bufsize": 1.5}, {"bufsize": True},
]
SHELLS = [
    {"shell": False}, {"shell": True, "args": "echo ran"}, {"shell": True, "args": b"echo ran"},
    {"shell": True, "args": ["echo ran", "x"]}, {"shell": True, "args": "exit 3"}, {"shell": True, "args": []},
    {"shell": True, "args": pathlib.Path("/bin/true")}, {"shell": True, "args": "echo ran", "executable": "/bin/bash"},
    {"shell": True, "args": "echo ran", "executable": "/no/such/shell"}, {"shell": True, "args": 5},
    {"shell": True, "args": "echo ran", "cwd": "/nowhere"},
]
RUNS = [
    {"input": b"text"}, {"input": "text"}, {"input": "text", "text": True}, {"input": b"text", "text": True}, {"input": 5},
    {"input": b"", "stdin": PIPE}, {"capture_output": True, "stdout": None}, {"capture_output": True, "stdout": PIPE},
    {"capture_output": True, "stderr": PIPE}, {"check": True, "args": [PYTHON, "-c", "raise SystemExit(3)"]},
    {"check": True, "args": [PYTHON, "-c", "import os; os.kill(os.getpid(), 9)"]}, {"timeout": "soon"}, {"timeout": -1},
    {"timeout": 60}, {"timeout": 0.05, "args": [PYTHON, "-c", "import time; time.sleep(60)"]},
]


def described(error):
    """What a caller can tell an exception by. Texts are compared where they are the system's own."""
    found = [type(error).__mro__]
    if isinstance(error, getattr(warmfork, "Error", ())):
        return [*found, str(error)]
    if isinstance(error, OSError):
        return [*found, error.errno, error.filename, error.filename2, str(error)]
    if isinstance(error, subprocess.CalledProcessError):
        return [*found, error.returncode, error.cmd, error.output, error.stderr]
    if isinstance(error, subprocess.TimeoutExpired):
        return [*found, round(error.timeout, 2), error.cmd, error.output]
    if type(error).__name__.endswith("Group"):
        return [*found, *map(described, error.exceptions)]
    return found


def open_pipes():
    """Not a template's descriptors, which come and go, and have high numbers."""
    return {number for number, target in descriptors().items() if number < 500 and target.startswith("pipe:")}


class Outcome:
    """What a call returned or raised, the warnings, and how many pipes it forgot to close."""

    def __init__(self, call):
        before = open_pipes()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                self.result = call()
            except Exception as error:
                self.result = described(error)
        self.warnings = [warning.category for warning in caught if warning.category is not ResourceWarning]
        gc.collect()
        left = open_pipes() - before
        self.left = len(left)
        for number in left:
            os.close(number)


def finished(completed):
    return completed.returncode, completed.stdout, completed.stderr


class Faces(TestCase):
    def setUp(self):
        if trio is not None:
            trio.run(trio.to_thread.run_sync, int)  # its thread, which stays
        super().setUp()
        # Since 3.13 subprocess starts most children by posix_spawn(3), which tells less of what was wrong.
        patch = mock.patch("subprocess._USE_POSIX_SPAWN", False)
        patch.start()
        self.addCleanup(patch.stop)
        self.warm = self.template(["json"])
        self.warm.wait_ready()

    def compare(self, rows, original, ours, backends=("auto",)):
        """Calls both with the command and keyword arguments of each row."""
        for row in rows:
            make_command = row.get("args", COMMAND)
            if not callable(make_command):
                make_command = partial(copy, make_command)
            more = {name: value for name, value in row.items() if name != "args"}
            expected = Outcome(lambda: original(make_command(), **more))
            for backend in backends:
                with self.subTest(reprlib.repr(row), backend=backend):
                    found = Outcome(lambda: ours(make_command(), **more, template=self.warm, backend=backend))
                    self.assertEqual((found.result, found.warnings), (expected.result, expected.warnings))
                    self.assertLessEqual(found.left, expected.left)

    def test_run(self):
        def original(command, **options):
            return finished(subprocess.run(command, **options))

        def ours(command, *, template, **options):
            return finished(template.run(command, **options))

        rows = STREAMS + COMMANDS + SURROUNDINGS + TEXT + SHELLS
        rows += [{"stdout": STDOUT}, {"stdout": 9999}, {"stdout": Odd()}, *RUNS]
        rows = [row if "capture_output" in row else {"stdout": PIPE, **row} for row in rows]
        self.compare(rows, original, ours, ("auto", "cold"))

    def test_asyncio(self):
        def call(create):
            async def main(command, **options):
                process = await create(*command, **options)
                output = await process.communicate()
                return process.returncode, output

            return lambda command, **options: asyncio.run(main(command, **options))

        rows = [row for row in COMMANDS + SHELLS if isinstance(row.get("args", []), (list, tuple))]
        more = [{"limit": 0}, {"extra": {}}, {"loop": None}, {"waiter": 1}, {"args": ()}]
        rows = [{"stdout": PIPE, **row} for row in STREAMS + rows + SURROUNDINGS + TEXT + more]
        self.compare(
            [*rows, {"stdout": STDOUT}, {"stdout": 9999}], call(asyncio.create_subprocess_exec),
            call(warmfork.aio.create_subprocess_exec),
        )

    @unittest.skipUnless(trio, "trio is not installed")
    def test_trio(self):
        def call(run):
            return lambda command, **options: finished(trio.run(partial(run, command, **options)))

        async def read(open_process, command, **options):
            process = await open_process(command, **options)
            output = None
            if process.stdout is not None:
                async with process.stdout:
                    output = b"".join([chunk async for chunk in process.stdout])
            return subprocess.CompletedProcess(command, await process.wait(), output)

        rows = STREAMS + COMMANDS + SURROUNDINGS + TEXT + SHELLS
        self.compare(
            [{"stdout": PIPE, **row} for row in rows] + [{"stdout": STDOUT}, {"stdout": 9999}],
            call(partial(read, trio.lowlevel.open_process)), call(partial(read, warmfork.trio.open_process)),
        )
        streams = [
            {"stdin": "text"}, {"stdin": b"text"}, {"stdin": bytearray(b"x")}, {"stdin": None}, {"stdin": PIPE},
            {"stdin": DEVNULL}, {"stdin": 5.5}, {"stdout": PIPE}, {"stderr": PIPE}, {"stderr": STDOUT},
            {"stdout": None}, {"stdout": DEVNULL, "capture_stdout": False}, {"stderr": None, "capture_stderr": True},
            {"capture_stderr": True}, {"check": False, "args": [PYTHON, "-c", "raise SystemExit(3)"]},
            {"args": [PYTHON, "-c", "raise SystemExit(3)"]}, {"args": [PYTHON, "-c", "import os; os.kill(os.getpid(), 9)"]},
            {"deliver_cancel": 5}, {"no_such_option": 1}, {"args": ["/no/such/program"]}, {"args": "/bin/true"},
            {"args": "echo ran", "shell": True}, {"args": COMMAND, "shell": True}, {"text": True}, {"cwd": "/nowhere"},
        ]
        rows = [{"capture_stdout": True, **row} for row in streams]
        self.compare(rows + [{"stdout": PIPE}], call(trio.run_process), call(warmfork.trio.run_process))


def fail():
    raise SystemExit(3)


def started(context, **options):
    process = context.Process(**options)
    process.start()
    process.join()
    return process.exitcode


def twice(context):
    process = context.Process(target=int)
    process.start()
    try:
        process.start()
    finally:
        process.join()


def in_a_pool(context, *positional, **options):
    with context.Pool(*positional, **options) as pool:
        return pool.map(abs, [-1])


class Contexts(TestCase):
    CALLS = [
        lambda context: context.Process(1), lambda context: context.Process(target=int, args=5),
        lambda context: context.Process(target=int, kwargs=5), lambda context: context.Process(no_such_option=1),
        lambda context: context.Process(target=int).join(), lambda context: context.Process(target=int).is_alive(),
        lambda context: context.Process(target=int).terminate(), lambda context: context.Process(target=int).close(),
        lambda context: context.Process(target=int, name=5).name, lambda context: context.Process(daemon="yes").daemon,
        lambda context: started(context, target=5), lambda context: started(context, target=lambda: None),
        lambda context: started(context, target=int, args=(open_pipes.__code__,)), twice,
        lambda context: started(context, target=fail), lambda context: started(context, target=int, args=("x",)),
        lambda context: in_a_pool(context, 0), lambda context: in_a_pool(context, "x"),
        lambda context: in_a_pool(context, 1, 5), lambda context: in_a_pool(context, 1, maxtasksperchild=0),
        lambda context: in_a_pool(context, 1, no_such_option=1), lambda context: in_a_pool(context, 1),
        lambda context: context.get_context("no such method"), lambda context: context.get_context("fork")._name,
    ]

    def setUp(self):
        multiprocessing.resource_tracker.ensure_running()
        super().setUp()

    def test_a_context_is_as_that_of_spawn(self):
        context = warmfork.multiprocessing.WarmforkContext(["json"])
        self.addCleanup(lambda: context.template.close())
        stderr = os.dup(2)
        self.addCleanup(lambda: (os.dup2(stderr, 2), os.close(stderr)))
        with open(os.devnull, "w") as null:  # tracebacks of children
            os.dup2(null.fileno(), 2)
        context.template.wait_ready()
        for number, call in enumerate(self.CALLS):
            with self.subTest(number):
                expected, found = (
                    Outcome(partial(call, each)).result for each in (multiprocessing.get_context("spawn"), context)
                )
                self.assertEqual(found, expected)


if __name__ == "__main__":
    unittest.main()
