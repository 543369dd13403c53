"""`warmfork run -t` at a terminal: the child has a pseudo-terminal, and a person sees no difference to the plain command."""

import os
import select
import signal
import subprocess
import unittest

from support import PYTHON
from terminal_scene import CLI, PATIENCE, SEEN, AtTerminal, may_put_keys_back, state, wait_until


class OneProgram(AtTerminal):
    def test_the_child_leads_a_session_whose_terminal_it_has(self):
        person = self.run_at_terminal(SEEN, size=(33, 111))
        person.wait_for(rb"streams True True True")
        person.wait_for(rb"leads True True")
        person.wait_for(rb"own True")
        seen = person.wait_for(rb"size (\d+) (\d+) parent (\d+) warm (\w+) end")
        self.assertEqual(seen.groups(), (b"111", b"33", str(self.service.pid).encode(), b"True"))
        self.assertEqual(person.wait(), 0)

    def test_all_that_was_written_is_shown_in_its_order(self):
        person = self.run_at_terminal("import os\nfor i in range(20000): print(i)\nos.write(2, b'last words')")
        expected = "".join(f"{i}\r\n" for i in range(20000)).encode() + b"last words"
        person.wait_for(b"^" + expected)
        self.assertEqual(person.wait(), 0)

    def test_the_size_of_the_window_follows(self):
        person = self.run_at_terminal(
            "import os, signal\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGWINCH})\n"
            "print('ready', flush=True)\n"
            "signal.sigwait({signal.SIGWINCH})\n"
            "print('size', *os.get_terminal_size(), 'end')\n"
        )
        person.wait_for(b"ready")
        person.resize(44, 155)
        self.assertEqual(person.wait_for(rb"size (\d+) (\d+) end").groups(), (b"155", b"44"))
        self.assertEqual(person.wait(), 0)

    def test_a_password_is_asked_for_and_not_shown(self):
        person = self.run_at_terminal("import getpass; print(getpass.getpass('Secret: ')[::-1])")
        person.wait_for(b"Secret: ")
        person.type(b"opensesame\n")
        self.assertNotIn(b"opensesame", person.wait_for(b"emasesnepo").string)
        self.assertEqual(person.wait(), 0)

    def test_what_the_child_starts_can_ask_at_the_terminal(self):
        person = self.run_at_terminal(
            "import subprocess\n"
            "subprocess.run(['sh', '-c', 'echo question >/dev/tty; read word </dev/tty; echo got $word $(tty)'], check=True)\n"
        )
        person.wait_for(b"question")
        person.type(b"answer\n")
        person.wait_for(rb"got answer /dev/pts/\d+")
        self.assertEqual(person.wait(), 0)

    def test_keys_go_through_as_they_are(self):
        person = self.run_at_terminal(
            "import os, tty\ntty.setraw(0)\nos.write(1, b'ready')\nkeys = b''\n"
            "while len(keys) < 256: keys += os.read(0, 256)\n"
            "os.write(1, b'right' if keys == bytes(range(256)) else keys.hex().encode())\n"
        )
        person.wait_for(b"ready")
        person.type(bytes(range(256)))
        person.wait_for(b"right")
        self.assertEqual(person.wait(), 0)

    def test_much_that_is_typed_and_not_read_at_once_is_not_lost(self):
        os.mkfifo(self.path("fifo"))
        person = self.run_at_terminal(
            "import os, tty\n"
            "tty.setraw(0)\n"
            "os.write(1, b'ready')\n"
            f"open({self.path('fifo')!r}).read()\n"
            "size = 0\n"
            "while size < 30000: size += len(os.read(0, 4096))\n"
            "print('read', size)\n"
        )
        person.wait_for(b"ready")
        person.type(b"x" * 6000)  # more than a terminal holds
        open(self.path("fifo"), "w").close()
        person.type(b"x" * 24000)
        person.wait_for(b"read 30000")
        self.assertEqual(person.wait(), 0)

    def test_the_end_of_a_text_that_was_typed_before_the_child_ran_is_an_end(self):
        person = self.run_at_terminal("import sys; print('got', repr(sys.stdin.read()))")
        person.type(b"abc\n\x04")
        person.wait_for(rb"got 'abc\\n'")
        self.assertEqual(person.wait(), 0)

    def test_the_end_of_the_terminal_is_told_to_the_child(self):
        word = self.fifo()
        person = self.run_at_terminal(
            "import os, signal\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})\n"
            "print('ready', flush=True)\n"
            "signal.sigwait({signal.SIGHUP})\n"
            f"open({self.path('fifo')!r}, 'w').write('hung up')\n"
        )
        person.wait_for(b"ready\r\n")  # all that it writes to a terminal that is there
        person.hang_up()
        self.assertEqual(word(), b"hung up")
        self.assertEqual(person.wait(), 0)

    def test_the_end_of_the_client_is_told_to_the_child(self):
        word = self.fifo()
        person = self.run_at_terminal(
            "import os, signal\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGTERM})  # the service's\n"
            "print('ready', flush=True)\n"
            "signal.sigwait({signal.SIGHUP})\n"
            f"open({self.path('fifo')!r}, 'w').write('hung up')\n"
        )
        person.wait_for(b"ready\r\n")  # all that it writes to a terminal that is there
        os.kill(person.pid, signal.SIGKILL)
        self.assertEqual(word(), b"hung up")
        self.assertEqual(person.wait(), -signal.SIGKILL)

    def test_two_terminals_have_a_child_each(self):
        echo = "print('ready', flush=True); print('got', input()[::-1], flush=True)"
        first, second = self.run_at_terminal(echo), self.run_at_terminal(echo)
        for person in (first, second):
            person.wait_for(b"ready")
        second.type(b"second\n")
        second.wait_for(b"got dnoces")
        first.type(b"first\n")
        first.wait_for(b"got tsrif")
        self.assertEqual((first.wait(), second.wait()), (0, 0))

    def test_no_process_is_left_and_no_wait_of_the_child_sees_one(self):
        person = self.run_at_terminal(
            "import os\ntry: os.waitpid(-1, 0)\nexcept ChildProcessError: print('no child')\n"
            "print('group', os.getpgrp(), flush=True)\n"
            "input()\n"
        )
        person.wait_for(b"no child")
        group = int(person.wait_for(rb"group (\d+)\r")[1])
        self.assertGreater(len(members(group)), 1)
        person.type(b"\n")
        self.assertEqual(person.wait(), 0)
        wait_until(lambda: not members(group))


def members(group):
    """Processes of this group, or of the session that its leader leads."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        if str(group) in fields[2:4] and fields[0] != "Z":
            found.append(int(pid))
    return found


class JobControl(AtTerminal):
    """As of a command that the shell has started itself."""

    def test_ctrl_c_ends_both_by_the_signal(self):
        shell = self.shell()
        shell.type(self.command("import time; print('rea' + 'dy', flush=True)\nwhile True: time.sleep(0.05)")
                   + b"; echo status: $? :\n")
        shell.wait_for(b"ready")
        shell.type(b"\x03")
        shell.wait_for(b"KeyboardInterrupt")
        # A shell that sees a death by SIGINT ends the line.
        shell.wait_for(b"prompt> ")
        shell.type(b"echo status: $? :\n")
        shell.wait_for(rb"status: 130 :")

    def test_ctrl_z_stops_both_and_fg_continues_both(self):
        shell = self.shell()
        modes = self.modes(shell)
        shell.type(self.command("import os; print('pid', os.getpid(), flush=True); print('got', input()[::-1])") + b"\n")
        child = int(shell.wait_for(rb"pid (\d+)\r")[1])
        shell.type(b"\x1a")
        shell.wait_for(rb"Stopped.*\r\n[^\n]*prompt> ")
        self.assertEqual(state(child), "T")
        self.assertEqual(self.modes(shell), modes)
        shell.type(b"fg\n")
        shell.wait_for(b"program1.py\r\n")
        shell.type(b"words\n")
        shell.wait_for(b"got sdrow")
        shell.wait_for(b"prompt> ")
        self.assertEqual(self.modes(shell), modes)

    def test_a_full_screen_program_puts_the_screen_back_when_it_stops(self):
        shell = self.shell()
        modes = self.modes(shell)
        shell.type(self.command(
            "import curses, os\n"
            "def show(screen):\n"
            "    key = 0\n"
            "    while key != ord('q'):\n"
            "        screen.erase()\n"
            "        screen.addstr(2, 3, f'Size {curses.LINES} {curses.COLS} .' if key != ord('x') else 'Pressed')\n"
            "        screen.refresh()\n"
            "        os.write(1, b'\\a')\n"  # while it refreshes, curses ignores Ctrl-Z
            "        key = screen.getch()\n"
            "os.system('stty noflsh')\n"  # Ctrl-Z would clear the output, perhaps what it leads to
            "curses.wrapper(show)\n"
        ) + b"\n")
        shell.wait_for(rb"Size 24 80 \.[^\a]*\a")
        shell.type(b"\x1a")
        shell.wait_for(rb"\x1b\[\?1049l")  # it has left the screen
        shell.wait_for(rb"Stopped.*\r\n[^\n]*prompt> ")
        self.assertEqual(self.modes(shell), modes)
        shell.type(b"fg\n")
        shell.wait_for(rb"\x1b\[\?1049h")
        shell.type(b"x")
        shell.wait_for(rb"Pressed")
        shell.type(b"q")
        shell.wait_for(b"prompt> ")
        self.assertEqual(self.modes(shell), modes)

    def test_what_is_stopped_goes_on_in_the_background(self):
        shell = self.shell()
        word = self.fifo()
        shell.type(self.command(
            f"import os, signal; print('pid', os.getpid(), flush=True)\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCONT})\n"
            "print('rea' + 'dy', flush=True)\n"
            "signal.sigwait({signal.SIGCONT})\n"
            f"open({self.path('fifo')!r}, 'w').write('went on')\n"
        ) + b"\n")
        shell.wait_for(b"ready")
        shell.type(b"\x1a")
        shell.wait_for(rb"Stopped.*\r\n[^\n]*prompt> ")
        shell.type(b"bg\n")
        self.assertEqual(word(), b"went on")

    @unittest.skipUnless(may_put_keys_back(), "the kernel does not let a program put keys back")
    def test_what_is_typed_ahead_is_for_the_shell(self):
        os.mkfifo(self.path("fifo"))
        shell = self.shell()
        shell.type(self.command(f"print('rea' + 'dy', flush=True); open({self.path('fifo')!r}).read()") + b"\n")
        shell.wait_for(b"ready")
        # One line that is whole, and one that is not yet.
        shell.type(b"echo first $((40 + 2))\necho sec")
        shell.wait_for(b"echo sec")  # it has arrived
        open(self.path("fifo"), "w").close()
        shell.wait_for(b"first 42")
        shell.type(b"ond $((50 + 5))\n")
        shell.wait_for(b"second 55")


class JobControlOfThePlainCommand(JobControl):
    """What is asked of a warm child is what a person has without it."""

    def command(self, program, *arguments, backend=None):
        return " ".join([PYTHON, self.file(program), *arguments]).encode()


class Linked(AtTerminal):
    """A link, of a person who has chosen that links are warm at a terminal."""

    def setUp(self):
        super().setUp()
        os.mkdir(self.path("links"))
        done = subprocess.run([CLI, "install-links", "--dir", self.path("links"), "python3"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)

    def command(self, program, *arguments, backend=None):
        words = ["WARMFORK_LINKS_AT_TERMINAL=warm", self.path("links/python3"), self.file(program), *arguments]
        return " ".join(words).encode()


class JobControlOfALink(Linked, JobControl):
    """It is the same whether the service has answered in time or not."""


class Links(Linked):
    TERMINAL = "import os, sys; print('on', os.ttyname(0), 'csv' in sys.modules, '.', flush=True)"

    def seen(self, shell, line):
        """On another terminal than the shell's? And with what is preloaded?"""
        shell.type(b"tty\n")
        terminal = shell.wait_for(rb"(/dev/pts/\d+)\r")[1]
        shell.type(line + b"\n")
        found, warm = shell.wait_for(rb"on (/dev/\S+) (\w+) \.").groups()
        return found != terminal, warm == b"True"

    def test_a_whole_job_has_a_warm_child_with_a_terminal_of_its_own(self):
        shell = self.shell()
        line = self.command(self.TERMINAL)
        for _ in range(50):  # the service answers within a tenth of a second, or the command is cold
            own, warm = self.seen(shell, line)
            self.assertEqual(own, warm)
            if warm:
                return
        self.fail("it was never warm")

    def test_what_shares_the_terminal_is_the_real_command(self):
        shell = self.shell()
        line = self.command(self.TERMINAL)
        script = b"sh -c '" + line + b"; true'"
        for shared in (line + b" | cat", line + b" 2>/dev/null", script):
            self.assertEqual(self.seen(shell, shared), (False, False), shared)

    def test_it_is_the_real_command_unless_that_was_chosen(self):
        shell = self.shell()
        line = self.command(self.TERMINAL).partition(b" ")[2]
        self.assertEqual(self.seen(shell, line), (False, False))
        self.assertEqual(self.seen(shell, b"WARMFORK_LINKS_AT_TERMINAL=cold " + line), (False, False))


class InShell(AtTerminal):
    """What is the shell's afterwards, and meanwhile."""

    def test_in_the_background_it_leaves_the_keys_to_the_shell(self):
        shell = self.shell()
        shell.type(self.command("print('rea' + 'dy', flush=True); print('got', input()[::-1])") + b" &\n")
        shell.wait_for(b"ready")
        shell.type(b"echo $((40 + 2)) $NAME\n")
        shell.wait_for(b"\n42 person")
        shell.type(b"fg\n")
        shell.wait_for(b"program1.py\r\n")
        shell.type(b"words\n")
        shell.wait_for(b"got sdrow")
        shell.wait_for(b"prompt> ")

    def test_what_reads_in_the_background_ends_with_the_terminal(self):
        word = self.fifo()
        shell = self.shell()
        shell.type(self.command(
            f"import os, sys; file = open({self.path('fifo')!r}, 'w'); print(os.getpid(), file=file, flush=True)\n"
            "sys.stdin.read(1)\n") + b" & disown\n")
        ended = os.pidfd_open(int(word()))
        self.addCleanup(os.close, ended)
        shell.hang_up()
        self.assertTrue(select.select([ended], [], [], PATIENCE)[0])

    def test_a_window_that_was_resized_in_the_background_is_known_in_the_foreground(self):
        os.mkfifo(self.path("fifo"))
        shell = self.shell()
        shell.type(self.command(
            f"import os; print('rea' + 'dy', flush=True); open({self.path('fifo')!r}).read()\n"
            "while os.get_terminal_size() != (121, 41): pass\nprint('kno' + 'wn')") + b" &\n")
        shell.wait_for(b"ready")
        shell.resize(41, 121)
        shell.type(b"fg\n")
        shell.wait_for(b"program1.py\r\n")
        open(self.path("fifo"), "w").close()
        shell.wait_for(b"known")

    def test_the_terminal_is_as_it_was_when_the_child_is_killed(self):
        shell = self.shell()
        modes = self.modes(shell)
        shell.type(self.command(
            "import os, tty\ntty.setraw(0)\nprint('pid', os.getpid(), end=' .', flush=True)\nos.read(0, 1)\n") + b"\n")
        os.kill(int(shell.wait_for(rb"pid (\d+) \.")[1]), signal.SIGKILL)
        shell.wait_for(rb"Killed.*\r\n[^\n]*prompt> ")
        self.assertEqual(self.modes(shell), modes)

    def test_the_terminal_is_as_it_was_when_the_client_is_told_to_end(self):
        shell = self.shell()
        modes = self.modes(shell)
        command = self.command("import tty, signal\ntty.setraw(0)\nprint('rea' + 'dy', flush=True)\nsignal.pause()\n")
        for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGUSR1, signal.SIGXCPU, signal.SIGIO, signal.SIGRTMIN):
            shell.type(command + b"; echo status: $? :\n")
            shell.wait_for(b"ready")
            client, = children_of(shell.pid)
            os.kill(client, number)
            self.assertEqual(int(shell.wait_for(rb"status: (\d+) :")[1]), 128 + number)
            self.assertEqual(self.modes(shell), modes, number)

    def test_the_terminal_is_as_it_was_when_the_service_is_killed(self):
        shell = self.shell()
        modes = self.modes(shell)
        shell.type(self.command("import os, tty\ntty.setraw(0)\nprint('rea' + 'dy', flush=True)\nos.read(0, 1)\n") + b"\n")
        shell.wait_for(b"ready")
        self.service.kill()
        shell.type(b"x")
        shell.wait_for(b"prompt> ")
        self.assertEqual(self.modes(shell), modes)

    def test_a_continuation_alone_does_not_lose_the_modes(self):
        shell = self.shell()
        modes = self.modes(shell)
        shell.type(self.command("print('rea' + 'dy', flush=True); print('got', input()[::-1])") + b"\n")
        shell.wait_for(b"ready")
        client, = children_of(shell.pid)
        os.kill(client, signal.SIGCONT)
        shell.type(b"words\n")
        shell.wait_for(b"got sdrow")
        shell.wait_for(b"prompt> ")
        self.assertEqual(self.modes(shell), modes)


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


class Without(AtTerminal):
    """Where others have to do with the terminal, or the child is cold, the streams are the caller's."""

    TERMINAL = "import os, sys; print('on', os.ttyname(0), 'csv' in sys.modules, '.', flush=True)"

    def assert_shared(self, shell, line, warm=b"True"):
        shell.type(b"tty\n")
        terminal = shell.wait_for(rb"(/dev/pts/\d+)\r")[1]
        shell.type(line + b"\n")
        self.assertEqual(shell.wait_for(rb"on (/dev/\S+) (\w+) \.").groups(), (terminal, warm))

    def test_in_a_pipeline(self):
        self.assert_shared(self.shell(), self.command(self.TERMINAL) + b" | cat")

    def test_with_another_descriptor_on_the_terminal(self):
        self.assert_shared(self.shell(), self.command(self.TERMINAL) + b" 3<&0")

    def test_with_output_to_a_file(self):
        self.assert_shared(self.shell(), self.command(self.TERMINAL) + b" 2>/dev/null")

    def test_in_a_script(self):
        shell = self.shell()
        self.assert_shared(shell, b"sh -c '" + self.command(self.TERMINAL) + b"; true'")

    def test_of_a_cold_child(self):
        shell = self.shell()
        self.assert_shared(shell, self.command(self.TERMINAL, backend="cold"), warm=b"False")
        self.assert_shared(shell, f"{CLI} run -t num -- sh -c 'echo on $(tty) False .'".encode(), warm=b"False")


if __name__ == "__main__":
    unittest.main()
