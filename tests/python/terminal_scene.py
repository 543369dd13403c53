"""A person at a terminal, for tests of what is run there."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios

from support import PYTHON, ServiceTestCase

CLI = os.environ["WARMFORK_CLI"]
PATIENCE = 60  # seconds: only who waits in vain waits so long
CAP_SYS_ADMIN = 21


class Person:
    """Somebody at a terminal, who types and reads."""

    def __init__(self, test, *command, size=(24, 80)):
        environment = {**os.environ, "PS1": "prompt> ", "TERM": "xterm", "HISTFILE": "", "NAME": "person",
                       "PATH": f"{os.path.dirname(PYTHON)}:/usr/bin:/bin"}
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            try:
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
                os.execvpe(command[0], command, environment)
            finally:
                os._exit(99)
        self.shown = b""
        test.addCleanup(self.leave)

    def leave(self):
        self.hang_up()
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def hang_up(self):
        if self.terminal is not None:
            os.close(self.terminal)
            self.terminal = None

    def type(self, keys):
        os.write(self.terminal, keys)

    def resize(self, *size):
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))

    def wait_for(self, pattern):
        """Reads until this stands in what has not been looked at; returns the match."""
        while not (match := re.search(pattern, self.shown)):
            if not select.select([self.terminal], [], [], PATIENCE)[0]:
                raise AssertionError(f"{pattern} is not in {self.shown}")
            try:
                self.shown += os.read(self.terminal, 65536)
            except OSError:
                raise AssertionError(f"{pattern} is not in {self.shown}, and that is the end") from None
        self.shown = self.shown[match.end():]
        return match

    def wait(self):
        """The status of what it was that was started at the terminal, as subprocess has it."""
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)


def state(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def wait_until(condition):
    while not condition():
        os.sched_yield()


def may_put_keys_back():
    """The owner of a terminal."""
    try:
        with open("/proc/sys/dev/tty/legacy_tiocsti") as file:
            if file.read().strip() == "1":
                return True
    except OSError:
        return True  # an older kernel
    with open("/proc/self/status") as file:
        effective = next(line.split()[1] for line in file if line.startswith("CapEff"))
    return bool(int(effective, 16) >> CAP_SYS_ADMIN & 1)


# What a program sees of its terminal. In plain words of one line each, for a person to read.
SEEN = """
import os, sys
print("streams", *(os.isatty(number) for number in (0, 1, 2)))
print("leads", os.getsid(0) == os.getpid(), os.tcgetpgrp(0) == os.getpgrp())
print("own", open("/dev/tty").isatty())
print("size", *os.get_terminal_size(), "parent", os.getppid(), "warm", "csv" in sys.modules, "end")
"""


class AtTerminal(ServiceTestCase):
    def setUp(self):
        super().setUp()
        self.write("config/templates.d/num.toml", f'python = "{PYTHON}"\npreload = ["csv"]\nlinks = ["python3"]\n')
        self.service = self.start_service()
        done = subprocess.run([CLI, "template", "start", "num"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)

    def file(self, text):
        """A program's file, as a shell's word."""
        self.programs = getattr(self, "programs", 0) + 1
        self.write(f"program{self.programs}.py", text)
        return self.path(f"program{self.programs}.py")

    def command(self, program, *arguments, backend="warm"):
        words = [CLI, "run", "-t", "num", "--backend", backend, "--", PYTHON, self.file(program), *arguments]
        return " ".join(words).encode()

    def run_at_terminal(self, program, **options):
        return Person(self, CLI, "run", "-t", "num", "--backend", "warm", "--", PYTHON, self.file(program), **options)

    def shell(self):
        """With job control."""
        person = Person(self, "bash", "--norc", "--noprofile", "--noediting", "-i")
        person.wait_for(b"prompt> ")
        return person

    def modes(self, person):
        person.type(b"echo modes: $(stty -g) :\n")
        return person.wait_for(rb"modes: (\S+) :")[1]

    def fifo(self):
        """A place where a child leaves word; returns what waits for it."""
        os.mkfifo(self.path("fifo"))
        reader = os.open(self.path("fifo"), os.O_RDWR)
        self.addCleanup(os.close, reader)

        def wait_for_word():
            self.assertTrue(select.select([reader], [], [], PATIENCE)[0], "no word came")
            return os.read(reader, 100)

        return wait_for_word
