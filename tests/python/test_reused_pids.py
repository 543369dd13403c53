"""Children that somebody else has waited for, and whose numbers are then those of other children of this process: nothing
signals these or waits for them."""

import asyncio
import contextlib
import ctypes
import errno
import gc
import multiprocessing
import multiprocessing.resource_tracker
import os
import resource
import signal
import subprocess
import threading
import unittest
import unittest.mock
import warnings

import warmfork
from support import PYTHON, TestCase
from warmfork._children import Child

SLEEP = [PYTHON, "-c", "import time; time.sleep(3600)"]
BACKENDS = ("cold",) if os.environ.get("WARMFORK_BACKEND") == "cold" else ("warm", "cold")
KINDS = (*BACKENDS, "owner", "detached")

_SYS_CLONE3 = 435
_system_call = ctypes.PyDLL(None).syscall  # with the GIL, which a copy of this thread needs


class _CloneArguments(ctypes.Structure):
    """struct clone_args of linux/sched.h."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in ("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls", "set_tid",
                     "set_tid_size")
    ]


class Stranger:
    """Kills a child and waits for it behind everybody's back. Another child of this process has the number then, which must
    be there at the end, running, and not waited for; unless no process may choose a number here."""

    _has_ended = False  # as the test wants it

    def __init__(self, pid):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        wanted = ctypes.c_int(pid)
        arguments = _CloneArguments(exit_signal=signal.SIGCHLD, set_tid=ctypes.addressof(wanted), set_tid_size=1)
        self._pid = _system_call(_SYS_CLONE3, ctypes.byref(arguments), ctypes.c_size_t(ctypes.sizeof(arguments)))
        if self._pid == 0:
            os.execv("/bin/sleep", ["sleep", "3600"])

    def __enter__(self):
        return self

    def end(self):
        if self._pid > 0:
            os.kill(self._pid, signal.SIGUSR1)
            os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)

    def __exit__(self, *_):
        if self._pid > 0:
            # Of two signals that end it the first shows in its status, also when it had no time to die before the second.
            os.kill(self._pid, signal.SIGUSR1)
            status = os.waitpid(self._pid, 0)[1]
            assert status == signal.SIGUSR1, f"it was ended by {status}"


@contextlib.contextmanager
def no_descriptor_free():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024), hard))
    taken = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for number in taken:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Popens(TestCase):
    def setUp(self):
        super().setUp()
        self._template = self.template()

    def start(self, kind):
        """A sleeping child."""
        if kind in BACKENDS:
            return self._template.popen(SLEEP, backend=kind)
        # Started by subprocess.
        return self._template.popen("exec sleep 3600", shell=True, lifetime=kind)

    def check_lost(self, child):
        # In this order: who takes the stranger for the child ends here, and does not hang.
        with self.assertRaises(ChildProcessError):
            child.poll()
        child.send_signal(signal.SIGTERM)
        child.terminate()
        child.kill()
        with self.assertRaises(ChildProcessError):
            child.wait(0.01)
        with self.assertRaises(ChildProcessError):
            child.wait()
        child.returncode = 0  # so that its destructor does not mind

    def test_a_popen_neither_signals_nor_waits_for_a_successor(self):
        for kind in KINDS:
            with self.subTest(kind):
                child = self.start(kind)
                with Stranger(child.pid):
                    self.check_lost(child)

    def test_nor_does_one_that_is_dropped(self):
        for kind in KINDS:
            with self.subTest(kind), warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                child = self.start(kind)
                with Stranger(child.pid) as stranger:
                    del child
                    gc.collect()
                    stranger.end()
                    self._template.run([PYTHON, "-c", "pass"], check=True)  # reaps what was dropped

    def test_run_leaves_it_alone_when_it_gives_up(self):
        for backend in BACKENDS:
            with self.subTest(backend), contextlib.ExitStack() as strangers, warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)

                def take_status(child, flags, take_status=Child.take_status):
                    if child.pid not in taken:
                        taken.append(child.pid)
                        strangers.enter_context(Stranger(child.pid))
                    return take_status(child, flags)

                taken = []
                with unittest.mock.patch.object(Child, "take_status", take_status), self.assertRaises(ChildProcessError):
                    self._template.run(SLEEP, backend=backend, timeout=2)
                self.assertEqual(len(taken), 1)

    def test_where_no_descriptor_is_free_children_are_signalled_and_waited_for_all_the_same(self):
        for kind in KINDS:
            with self.subTest(kind):
                child = self.start(kind)
                with no_descriptor_free():
                    self.assertIsNone(child.poll())
                    child.terminate()
                    self.assertEqual(child.wait(), -signal.SIGTERM)
                child = self.start(kind)
                with no_descriptor_free():
                    child.kill()
                    self.assertEqual(child.wait(600), -signal.SIGKILL)
                child = self.start(kind)
                with Stranger(child.pid), no_descriptor_free():
                    self.check_lost(child)

    def test_where_no_descriptor_is_free_a_wait_is_not_for_a_successor(self):
        def give_up(*_):
            raise AssertionError("it waits for the stranger")

        self.addCleanup(signal.signal, signal.SIGALRM, signal.signal(signal.SIGALRM, give_up))
        self.addCleanup(signal.alarm, 0)
        for kind in KINDS:
            with self.subTest(kind):
                child = self.start(kind)
                child.send_signal(0)  # so that there is a handle of it
                with Stranger(child.pid), no_descriptor_free(), self.assertRaises(ChildProcessError):
                    signal.alarm(60)
                    child.wait()
                child.returncode = 0

    def test_threads_with_little_stack_signal_children(self):
        before = threading.stack_size(65536)
        self.addCleanup(threading.stack_size, before)
        for kind in KINDS:
            with self.subTest(kind):
                child = self.start(kind)
                thread = threading.Thread(target=child.terminate)
                thread.start()
                thread.join()
                self.assertEqual(child.wait(), -signal.SIGTERM)

    def test_a_wait_with_a_timeout_waits_by_the_handle(self):
        # subprocess itself calls it from 3.15 on.
        for kind in KINDS:
            with self.subTest(kind):
                child = self.start(kind)
                with self.assertRaises(subprocess.TimeoutExpired):
                    child._wait_pidfd(0.01)
                child.kill()
                self.assertTrue(child._wait_pidfd(float("inf")))
                self.assertEqual(child.wait(60), -signal.SIGKILL)
                self.assertFalse(child._wait_pidfd(60))

    def test_a_child_holds_no_descriptor_once_it_has_been_waited_for(self):
        for kind in KINDS:
            with self.subTest(kind):
                child = self.start(kind)
                before = os.listdir("/proc/self/fd")
                child.kill()
                self.assertEqual(child.wait(), -signal.SIGKILL)
                self.assertEqual(os.listdir("/proc/self/fd"), before)


class OwnWaits(TestCase):
    """An application, or a library of it, that reaps all children and lets os.waitpid tell their statuses."""

    def setUp(self):
        super().setUp()
        self._template = self.template()
        self._statuses = {}
        self._waitpid = os.waitpid
        patch = unittest.mock.patch("os.waitpid", self.waitpid)
        patch.start()
        self.addCleanup(patch.stop)

    def waitpid(self, pid, options):
        if pid in self._statuses:
            return pid, self._statuses.pop(pid)
        return self._waitpid(pid, options)

    def test_it_is_asked_for_the_status(self):
        for backend in BACKENDS:
            child = self._template.popen([PYTHON, "-c", "raise SystemExit(3)"], backend=backend)
            self._statuses[child.pid] = self._waitpid(child.pid, 0)[1]
            self.assertEqual(child.wait(), 3)

    def test_it_is_not_asked_where_nobody_can_tell_whether_there_is_a_successor(self):
        for backend in BACKENDS:
            child = self._template.popen([PYTHON, "-c", "raise SystemExit(3)"], backend=backend)
            self._statuses[child.pid] = self._waitpid(child.pid, 0)[1]
            no_memory = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
            with unittest.mock.patch("os.waitid", side_effect=no_memory), self.assertRaises(ChildProcessError):
                child.wait()
            child.returncode = 0
            self.assertIn(child.pid, self._statuses)

    def test_it_is_not_asked_where_it_would_answer_of_a_successor(self):
        for backend in BACKENDS:
            child = self._template.popen(SLEEP, backend=backend)
            with Stranger(child.pid), self.assertRaises(ChildProcessError):
                child.poll()
            child.returncode = 0


class Loops(TestCase):
    def setUp(self):
        super().setUp()
        self._template = self.template()

    def test_asyncio(self):
        async def main(backend):
            child = await warmfork.aio.create_subprocess_exec(*SLEEP, template=self._template, backend=backend)
            with Stranger(child.pid):
                child.send_signal(signal.SIGTERM)
                child.terminate()
                child.kill()
                with self.assertRaises(ChildProcessError):
                    await child.wait()

        for backend in BACKENDS:
            with self.subTest(backend):
                asyncio.run(main(backend))

    def test_trio(self):
        try:
            import trio

            import warmfork.trio
        except ImportError:
            self.skipTest("trio is not installed")

        async def main(backend):
            child = await warmfork.trio.open_process(SLEEP, template=self._template, backend=backend)
            with Stranger(child.pid):
                child.terminate()
                child.kill()
                with self.assertRaises(ChildProcessError):
                    await child.wait()
            child._close_pidfd()
            child._proc.returncode = 0

        for backend in BACKENDS:
            with self.subTest(backend):
                trio.run(main, backend)


class Processes(TestCase):
    def setUp(self):
        multiprocessing.resource_tracker.ensure_running()  # it lives as long as the method
        super().setUp()

    def test_multiprocessing(self):
        import time

        context = warmfork.get_context()
        context.template.wait_ready()
        self.addCleanup(context.template.close)
        for backend in BACKENDS:
            with self.subTest(backend), unittest.mock.patch.dict(os.environ, WARMFORK_BACKEND=backend):
                child = context.Process(target=time.sleep, args=(3600,))
                child.start()
                self.assertEqual(child.backend, backend)
                with Stranger(child.pid):
                    self.assertTrue(child.is_alive())  # as multiprocessing says of what it cannot tell
                    child.terminate()
                    child.kill()
                    child.join(600)
                    child.join()
                    self.assertIsNone(child.exitcode)
                multiprocessing.process._children.discard(child)
                del child
                gc.collect()

    def test_a_join_does_not_return_where_a_child_cannot_be_looked_at(self):
        context = warmfork.get_context(["json"])  # not the other test's, which is closed
        context.template.wait_ready()
        self.addCleanup(context.template.close)
        reader, writer = context.Pipe(duplex=False)
        child = context.Process(target=reader.recv)
        child.start()

        def refuse(*_):
            raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))

        with unittest.mock.patch("warmfork._native.wait", refuse):
            self.assertTrue(child.is_alive())
            with self.assertRaises(OSError):
                child.join()
        writer.send("end")
        child.join()
        self.assertEqual(child.exitcode, 0)
        reader.close()
        writer.close()
        child.close()


if __name__ == "__main__":
    unittest.main()
