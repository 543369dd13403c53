"""The keeper of cold children, which answers nothing for a while: it is stopped."""

import contextlib
import os
import select
import signal
import subprocess
import unittest

from support import PYTHON, TestCase, children


def keepers():
    """The keepers of this process, which are no children of it: each has a descriptor of its owner."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/comm") as name, open(f"/proc/{pid}/fdinfo/4") as owner:
            if name.read() == "warmfork-keeper\n" and f"\nPid:\t{os.getpid()}\n" in owner.read():
                found.append(int(pid))
    return found


class Interrupted(Exception):
    pass


# Starts a child in a signal's handler, while a keeper is told of another one; says its pid, and does nothing more.
OWNER = """
import os, signal, sys, test_keepers, warmfork
template = warmfork.Template(["json"], spares=0)
template.wait_ready()
children = []
def start(*_): children.append(template.popen("exec sleep 3600", shell=True))
def go_on(*_):
    start()
    for pid in stopped: os.kill(pid, signal.SIGCONT)
start()
stopped = test_keepers.keepers()
signal.signal(signal.SIGALRM, go_on)
for pid in stopped: os.kill(pid, signal.SIGSTOP)
signal.setitimer(signal.ITIMER_REAL, 0.2)
start()
print(*(child.pid for child in children), flush=True)
sys.stdin.read()
"""


class Keepers(TestCase):
    def setUp(self):
        super().setUp()
        self._template = self.template(spares=0)
        self.start()

    def start(self, *args, **options):
        """A child that the keeper is told of by this process, as subprocess has started it; with arguments a cold one, which
        tells it itself."""
        child = self._template.popen(args or "exec sleep 3600", shell=not args, **options)
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        return child

    def stop_until_heard(self, handler):
        """Stops the keepers. Python's handler of a signal is called in a moment, if whatever is done meanwhile lets it."""
        self.addCleanup(signal.signal, signal.SIGALRM, signal.signal(signal.SIGALRM, lambda *_: handler()))
        stopped = keepers()
        self.assertTrue(stopped)
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
            self.addCleanup(os.kill, pid, signal.SIGCONT)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        return stopped

    def test_python_hears_signals_while_a_keeper_is_told_of_a_child(self):
        started = []

        def go_on():
            # Nobody else can tell the keeper of this one now.
            started.append(self.start(PYTHON, "-c", "import time; time.sleep(3600)", backend="cold"))
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)

        stopped = self.stop_until_heard(go_on)
        self.assertIsNone(self.start().poll())
        # Where the handler runs only when the keeper has been given up, there is another one.
        self.assertEqual(keepers(), stopped)
        self.assertIsNone(started[0].poll())

    def test_a_child_of_a_handler_ends_with_its_owner_though_that_spawns_no_more(self):
        owner = subprocess.Popen([PYTHON, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(owner.__exit__, None, None, None)
        self.addCleanup(owner.kill)
        pidfds = [os.pidfd_open(int(pid)) for pid in owner.stdout.readline().split()]
        self.assertEqual(len(pidfds), 3)
        owner.kill()
        for pidfd in pidfds:
            self.addCleanup(os.close, pidfd)
            self.addCleanup(self.end, pidfd)
            self.assertTrue(select.select([pidfd], [], [], 60)[0])

    @staticmethod
    def end(pidfd):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    def test_a_handler_that_raises_breaks_it_off_and_the_child_is_ended(self):
        def interrupt():
            raise Interrupted

        stopped = self.stop_until_heard(interrupt)
        before = children()
        with self.assertRaises(Interrupted):
            self.start()
        self.assertEqual(children(), before)
        self.assertEqual(keepers(), stopped)  # which an end of the wait in time would have added to
        self.assertIsNone(self.start().poll())
        self.assertGreater(len(keepers()), len(stopped))


if __name__ == "__main__":
    unittest.main()
