"""A service that does not answer: spawns are cold in time, and warm again when it goes on."""

import asyncio
import errno
import os
import select
import signal
import subprocess
import time
import unittest

import warmfork
from support import PYTHON
from test_service import WAITING, Service


class Hanging(Service):
    """A service that is stopped: it answers nothing, and its connections stay."""

    def setUp(self):
        super().setUp()
        self.service = self.start_service()
        self._template = self.open()
        self.assertEqual(self.run_python(self._template, "pass").returncode, 0)

    def stop(self):
        os.kill(self.service.pid, signal.SIGSTOP)
        self.addCleanup(os.kill, self.service.pid, signal.SIGCONT)

    def until_cold(self):
        """What was leased ahead of need is warm."""
        for _ in range(20):
            child = self._template.popen([PYTHON, "-c", "pass"])
            self.assertEqual(child.wait(), 0)
            if child.backend == "cold":
                return child
        self.fail("always warm")

    def test_spawns_are_cold_and_warm_again_when_it_answers(self):
        self.stop()
        child = self.until_cold()
        self.assertEqual(child.reason_code, "unresponsive")
        self.assertIn("does not answer", child.reason)
        self.assertEqual(self.until_cold().reason_code, "unresponsive")
        with self.assertRaises(warmfork.Error) as caught:
            self._template.popen([PYTHON, "-c", "pass"], backend="warm")
        self.assertEqual(caught.exception.errno, errno.ETIMEDOUT)
        os.kill(self.service.pid, signal.SIGCONT)
        backend = "cold"  # until it has said something
        while backend == "cold":
            child = self._template.popen([PYTHON, "-c", "pass"])
            self.assertEqual(child.wait(), 0)
            backend = child.backend

    def test_statuses_of_children_that_end_meanwhile_are_told(self):
        children = [
            self._template.popen([PYTHON, "-c", "import sys; sys.stdin.read(); " + end], stdin=subprocess.PIPE, backend="warm")
            for end in ("sys.exit(3)", "import os; os.kill(os.getpid(), 10)", "pass")
        ]
        self.stop()
        for child in children:
            child.stdin.close()
        self.assertEqual([child.wait() for child in children], [3, -10, 0])

    def test_opening_a_template_ends_with_an_error(self):
        self.stop()
        program = "import warmfork\ntry: warmfork.Template('num')\nexcept OSError as error: print(error.errno, error)"
        done = subprocess.run([PYTHON, "-c", program], capture_output=True, text=True)
        self.assertIn(f"{errno.ETIMEDOUT} ", done.stdout, done.stderr)

    def stop_until_heard(self, handler):
        """Stops the service. Python's handler of a signal is called in a moment, if whatever is done meanwhile lets it."""
        before = signal.signal(signal.SIGALRM, lambda *_: handler())
        self.addCleanup(signal.signal, signal.SIGALRM, before)
        self.stop()
        signal.setitimer(signal.ITIMER_REAL, 0.2)

    def go_on(self):
        os.kill(self.service.pid, signal.SIGCONT)

    def test_python_hears_signals_while_a_template_is_opened(self):
        # Where the handler runs only when the service has been given up, that is an error.
        self.stop_until_heard(self.go_on)
        self.assertEqual(self.run_python(self.open(), "raise SystemExit(3)").returncode, 3)

    def test_python_hears_signals_while_it_connects(self):
        self.stop()
        program = (
            "import os, signal, warmfork\nopen_template = warmfork.Template\n"
            f"signal.signal(signal.SIGALRM, lambda *_: os.kill({self.service.pid}, signal.SIGCONT))\n"
            "signal.setitimer(signal.ITIMER_REAL, 0.2)\n"
            "open_template('num').close()"
        )
        done = subprocess.run([PYTHON, "-c", program], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_python_hears_signals_while_it_is_waited_how_a_child_has_ended(self):
        child = self.waiting_child(self._template, backend="warm")
        child.stdin.write("end")
        heard = []
        self.stop_until_heard(lambda: heard.append(time.monotonic()))
        began = time.monotonic()
        child.stdin.close()
        self.assertEqual(child.wait(), 0)
        # In the first half: not when the wait was over.
        self.assertLess(2 * (heard[0] - began), time.monotonic() - began)

    def test_a_loop_runs_on_while_nobody_tells_how_a_child_has_ended(self):
        seen = []

        async def main():
            process = await warmfork.aio.create_subprocess_exec(
                PYTHON, "-c", WAITING, template=self._template, backend="warm", stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            await process.stdout.readline()
            self.addCleanup(signal.signal, signal.SIGALRM, signal.getsignal(signal.SIGALRM))
            asyncio.get_running_loop().add_signal_handler(
                signal.SIGALRM, lambda: (seen.append(process.returncode), self.go_on())
            )
            self.stop()
            child = os.pidfd_open(process.pid)
            self.addCleanup(os.close, child)
            process.stdin.close()
            await process.stdin.wait_closed()
            select.select([child], [], [])  # the loop is about to see that
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            return await process.wait()

        self.assertEqual(asyncio.run(main()), 0)
        self.assertEqual(seen, [None])

    def test_a_handler_that_raises_breaks_the_wait_off(self):
        class Interrupted(Exception):
            pass

        def interrupt():
            raise Interrupted

        self.stop_until_heard(interrupt)
        self._template.close()  # with what it has leased ahead
        with self.assertRaises(Interrupted):
            self.open()
        self.go_on()
        self.assertEqual(self.run_python(self.open(), "raise SystemExit(3)").returncode, 3)


if __name__ == "__main__":
    unittest.main()
