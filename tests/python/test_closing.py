"""The end of a template that is stopped, which is waited for until it is killed: Python's signals are heard meanwhile."""

import os
import signal

import warmfork
from support import TestCase


class Interrupted(Exception):
    pass


class Closing(TestCase):
    def stopped_template(self, handle):
        """A template that is stopped. Calls handle(pid) in a moment, if whatever is done meanwhile lets it."""
        template = warmfork.Template(["json"], backend="warm")
        template.wait_ready(timeout=60)
        pid = template.pid
        os.kill(pid, signal.SIGSTOP)
        before = signal.signal(signal.SIGALRM, lambda *_: handle(pid))
        self.addCleanup(signal.signal, signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        return template

    def let_go_on(self, pid):
        os.kill(pid, signal.SIGCONT)  # an error where it has been given up and reaped

    def interrupt(self, pid):
        self.assertTrue(os.path.exists(f"/proc/{pid}"))
        self.interrupted = pid
        raise Interrupted

    def assert_ended(self):
        self.assertFalse(os.path.exists(f"/proc/{self.interrupted}"))

    def test_signals_are_heard_while_it_is_closed(self):
        self.stopped_template(self.let_go_on).close()

    def test_a_handler_that_raises_ends_the_wait_and_the_template(self):
        template = self.stopped_template(self.interrupt)
        with self.assertRaises(Interrupted):
            template.close()
        self.assert_ended()

    def test_what_a_handler_raises_while_it_is_let_go_of_comes_a_moment_later(self):
        template = self.stopped_template(self.interrupt)
        with self.assertRaises(Interrupted):
            del template
            for _ in range(1000):
                pass
        self.assert_ended()
