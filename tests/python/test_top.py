"""warmfork top at a terminal, over a board that a test program writes."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import unittest

from support import PYTHON, TestCase
from test_status import CLI, Board, fill, needs_writer, run

ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"


class Terminal:
    """`warmfork top` at a terminal of its own; `by` stands before it in the command line."""

    def __init__(self, test, board, by=(), size=(24, 200)):
        self.screen, theirs = pty.openpty()
        test.addCleanup(os.close, self.screen)
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        self.modes = termios.tcgetattr(theirs)
        self.theirs = theirs
        test.addCleanup(os.close, theirs)
        self.process = subprocess.Popen(
            [*by, CLI, "top", board.name], stdin=theirs, stdout=theirs, stderr=theirs,
            env={**os.environ, "TERM": "xterm"}, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        self.shown = b""
        test.addCleanup(self.end)

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def wait_for(self, pattern):
        """Reads until the pattern stands in what was not looked at before; what came up to it."""
        while not (match := re.search(pattern, self.shown, re.DOTALL)):
            if not select.select([self.screen], [], [], 30)[0]:
                raise AssertionError(f"{pattern} is not in {self.shown}")
            self.shown += os.read(self.screen, 65536)
        seen, self.shown = self.shown[: match.end()], self.shown[match.end() :]
        return seen

    def type(self, keys):
        os.write(self.screen, keys)

    def is_as_before(self):
        return termios.tcgetattr(self.theirs) == self.modes


@needs_writer
class Top(TestCase):
    def start(self, **options):
        board = Board(self)
        board.write("template num\nstate num ready\npopulation num 4 2 3\ncold num stale")
        return board, Terminal(self, board, **options)

    def assert_restored(self, terminal):
        terminal.wait_for(re.escape(LEAVE))
        terminal.process.wait()
        self.assertTrue(terminal.is_as_before())

    def test_what_changes_is_redrawn(self):
        board, terminal = self.start()
        terminal.wait_for(re.escape(ENTER))
        first = terminal.wait_for(rb"num[^\n]*stale 1")
        self.assertIn(b"\x1b[32mready", first)
        self.assertFalse(terminal.is_as_before())
        board.write("state num stale\nspawn num 61 500")
        seen = terminal.wait_for(rb"num[^\n]* 500 [^\n]*stale 1").splitlines()[-1].decode()
        # In the period in which they came: a rate, and the latency of the last seconds.
        rate = re.search(r"num +\x1b\[33mstale.* 500 +(\S+)  62 µs  62 µs  62 µs", seen)[1]
        self.assertGreater(float(rate), 0)
        terminal.type(b"q")
        self.assert_restored(terminal)
        self.assertEqual(terminal.process.returncode, 0)

    def test_ctrl_c_ends_it(self):
        _, terminal = self.start()
        terminal.wait_for(b"ready")
        terminal.type(b"\x03")
        self.assert_restored(terminal)
        self.assertEqual(terminal.process.returncode, 0)

    def test_signals_end_it_and_show_in_its_status(self):
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGABRT):
            with self.subTest(number):
                _, terminal = self.start()
                terminal.wait_for(b"ready")
                terminal.process.send_signal(number)
                self.assert_restored(terminal)
                self.assertEqual(terminal.process.returncode, -number)

    def test_ctrl_z_gives_the_terminal_back_until_it_goes_on(self):
        # A shell in miniature, because who leads a session cannot be stopped.
        shell = (
            "import os, signal, subprocess, sys, termios\n"
            "signal.signal(signal.SIGTTOU, signal.SIG_IGN)\n"
            "before = termios.tcgetattr(0)\n"
            "def start():\n"
            "    signal.signal(signal.SIGTTOU, signal.SIG_IGN); os.setpgid(0, 0)\n"
            "    os.tcsetpgrp(0, os.getpgrp()); signal.signal(signal.SIGTTOU, signal.SIG_DFL)\n"
            "top = subprocess.Popen(sys.argv[1:], preexec_fn=start)\n"
            "_, status = os.waitpid(top.pid, os.WUNTRACED)\n"
            "os.tcsetpgrp(0, os.getpgrp())\n"
            "print('stopped', os.WIFSTOPPED(status), termios.tcgetattr(0) == before, flush=True)\n"
            "os.tcsetpgrp(0, top.pid)\n"
            "os.kill(top.pid, signal.SIGCONT)\n"
            "sys.exit(top.wait())\n"
        )
        _, terminal = self.start(by=(PYTHON, "-c", shell))
        terminal.wait_for(b"ready")
        terminal.type(b"\x1a")
        terminal.wait_for(re.escape(LEAVE))
        terminal.wait_for(b"stopped True True")
        terminal.wait_for(re.escape(ENTER))
        terminal.wait_for(b"ready")
        terminal.type(b"q")
        self.assert_restored(terminal)
        self.assertEqual(terminal.process.returncode, 0)

    def test_lines_are_cut_to_the_terminals_height_as_it_changes(self):
        board, terminal = self.start(size=(4, 80))
        for i in range(20):
            board.write(f"template t{i:02}")
        frame = terminal.wait_for(rb"\x1b\[J")
        self.assertEqual(frame.count(b"\r\n"), 3)
        fcntl.ioctl(terminal.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
        terminal.wait_for(b"t19")
        terminal.type(b"q")
        self.assert_restored(terminal)

    def test_a_daemon_that_ends_is_waited_for(self):
        board, terminal = self.start()
        terminal.wait_for(b"ready")
        board.close()
        terminal.wait_for(b"waiting for it")
        again = Board(self, board.name)
        again.write("template other")
        terminal.wait_for(b"other")
        terminal.type(b"q")
        self.assert_restored(terminal)

    def test_elsewhere_it_is_one_plain_table(self):
        board = Board(self)
        fill(board)
        done = run("top", board.name)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertNotIn("\x1b", done.stdout)
        row = next(line for line in done.stdout.splitlines() if line.startswith("num"))
        self.assertEqual(
            row.split(), "num ready 4 2 3 1000 0.0 62 µs 62 µs 4.9 ms 3 environment 2, stale 1".split()
        )
        self.assertIn("ModuleNotFoundError", done.stdout)

    def test_keys_are_not_taken_from_what_is_no_terminal(self):
        from_nothing = "import os, sys; os.dup2(os.open('/dev/null', 0), 0); os.execv(sys.argv[1], sys.argv[1:])"
        board, terminal = self.start(by=(PYTHON, "-c", from_nothing))
        terminal.wait_for(b"ready")
        board.write("state num stale")
        terminal.wait_for(b"stale")
        terminal.process.terminate()
        self.assert_restored(terminal)


if __name__ == "__main__":
    unittest.main()
