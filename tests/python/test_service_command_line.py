"""The command line with the service: warmfork run -t, warmfork template."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import unittest

from support import PYTHON
from test_service import CLI, Service, cli

# Prints which network namespace it is in.
NETWORK = "import os; print(os.readlink('/proc/self/ns/net'))"


def run_without_network(*args):
    """None: this process may not make a network namespace."""
    if subprocess.run(["unshare", "-n", "true"], stderr=subprocess.DEVNULL).returncode:
        return None
    return subprocess.run(["unshare", "-n", CLI, *args], capture_output=True, text=True)


class CommandLine(Service):
    def test_run_is_warm_and_ends_as_the_command(self):
        self.start_service()
        program = "import sys; print('csv' in sys.modules, sys.argv, sys.stdin.read()); sys.exit(9)"
        done = cli("run", "-t", "num", "--explain", "--", PYTHON, "-c", program, "--x", input="in")
        self.assertEqual((done.returncode, done.stdout), (9, "True ['-c', '--x'] in\n"), done.stderr)
        self.assertEqual(done.stderr, "warmfork: served warm\n")
        self.assertEqual(cli("run", "-t", "num", "--", PYTHON, "-c", "import os; os.kill(os.getpid(), 9)").returncode, -9)

    def test_run_in_another_network_namespace_is_cold_or_refused_and_stays_in_it(self):
        self.start_service()
        self.assertEqual(cli("run", "-t", "num", "--", PYTHON, "-c", "pass").returncode, 0)  # it is there
        for backend, status in (("auto", 0), ("warm", 125)):
            done = run_without_network("run", "-t", "num", "--explain", "--backend", backend, "--",
                                       PYTHON, "-c", NETWORK)
            if done is None:
                self.skipTest("no other network namespace can be made here")
            self.assertEqual(done.returncode, status, done.stderr)
            self.assertRegex(done.stderr, 'namespace "?net')
            self.assertNotIn(os.readlink("/proc/self/ns/net"), done.stdout)
            self.assertEqual("net:" in done.stdout, status == 0, done.stdout)

    def test_run_says_what_does_not_exist(self):
        self.start_service()
        done = cli("run", "-t", "nun", "--", PYTHON, "-c", "pass")
        self.assertEqual(done.returncode, 125)
        self.assertIn("num", done.stderr)
        self.assertEqual(cli("run", "-t", "num", "--", "no-such-program").returncode, 127)
        self.assertEqual(cli("run", "-t", "num", "--preload", "json", "--", PYTHON).returncode, 125)

    def test_signals_are_forwarded(self):
        self.start_service()
        program = (
            "import signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}); "
            "print('ready', flush=True); signal.sigwait({signal.SIGTERM}); sys.exit(33)"
        )
        with subprocess.Popen(
            [CLI, "run", "-t", "num", "--backend", "warm", "--", PYTHON, "-c", program], stdout=subprocess.PIPE
        ) as process:
            process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(), 33)

    def at_terminal(self, program):
        """A run of this at a terminal of its own; returns its pid, and the terminal."""
        pid, terminal = pty.fork()
        if pid == 0:
            try:
                os.execv(CLI, [CLI, "run", "-t", "num", "--backend", "warm", "--", PYTHON, "-c", program])
            finally:
                os._exit(99)
        self.addCleanup(os.close, terminal)
        return pid, terminal

    def read_until(self, terminal, *words):
        shown = b""
        while not all(word in shown for word in words):
            if not select.select([terminal], [], [], 60)[0]:
                break
            try:
                shown += os.read(terminal, 1000)
            except OSError:
                break
        for word in words:
            self.assertIn(word, shown)
        return shown

    def test_ctrl_c_at_the_terminal_interrupts_the_child(self):
        self.start_service()
        pid, terminal = self.at_terminal("import time; print('ready', flush=True)\nwhile True: time.sleep(0.05)")
        self.read_until(terminal, b"ready")
        os.write(terminal, b"\x03")
        self.read_until(terminal, b"KeyboardInterrupt")
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), -signal.SIGINT)

    def test_ctrl_z_at_the_terminal_stops_both_and_both_go_on(self):
        self.start_service()
        # A shell of job control's kind: it continues what has stopped.
        program = (
            "import os, signal, subprocess, sys; "
            "child = subprocess.Popen(sys.argv[1:], process_group=0); "
            "signal.signal(signal.SIGTTOU, signal.SIG_IGN); os.tcsetpgrp(0, child.pid); print('foreground', flush=True); "
            "_, status = os.waitpid(child.pid, os.WUNTRACED); os.tcsetpgrp(0, os.getpid()); print('stopped', os.WIFSTOPPED(status), flush=True); "
            "sys.stdin.readline(); os.killpg(child.pid, signal.SIGCONT); "
            "print('status', child.wait(), flush=True)"
        )
        inner = (
            "import os, signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCONT}); "
            "print('pid', os.getpid(), 'ready', flush=True); signal.sigwait({signal.SIGCONT}); os._exit(5)"
        )
        command = [CLI, "run", "-t", "num", "--backend", "warm", "--", PYTHON, "-c", inner]
        if sys.version_info < (3, 11):
            self.skipTest("process_group= is of Python 3.11")
        pid, terminal = pty.fork()
        if pid == 0:
            os.execv(PYTHON, [PYTHON, "-c", program, *command])
        self.addCleanup(os.close, terminal)
        shown = self.read_until(terminal, b"foreground", b"ready")
        child = int(shown.split(b"pid ")[1].split()[0])
        os.write(terminal, b"\x1a")
        self.read_until(terminal, b"stopped True")
        state = ""
        while state != "T":
            os.sched_yield()
            with open(f"/proc/{child}/stat") as file:
                state = file.read().rpartition(")")[2].split()[0]
        os.write(terminal, b"\n")
        self.read_until(terminal, b"status 5")
        os.waitpid(pid, 0)

    def test_explain(self):
        self.start_service()
        done = cli("explain", "-t", "num", "--", PYTHON, "-c", "print('never run')")
        self.assertEqual((done.returncode, done.stdout), (0, "warm\n"), done.stderr)
        done = cli("explain", "-t", "num", "--json", "--", "true")
        self.assertEqual((done.returncode, json.loads(done.stdout)["reason_code"]), (2, "program"))

    def states(self):
        listed = json.loads(cli("template", "list", "--json").stdout)
        return {entry["name"]: entry["state"] for entry in listed["templates"]}

    def test_templates_are_started_stopped_and_listed(self):
        self.start_service()
        self.assertEqual(self.states()["num"], "idle")
        done = cli("template", "start", "num")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(self.states()["num"], "ready")
        self.assertRegex(cli("template", "list").stdout, r"(?m)^num +ready +\d+ +/")
        self.assertEqual(cli("template", "stop", "num").returncode, 0)
        self.assertEqual(self.states()["num"], "idle")
        done = cli("template", "start", "nun")
        self.assertEqual(done.returncode, 1)
        self.assertIn("num", done.stderr)

    def test_a_template_that_does_not_start_says_why(self):
        self.write("config/templates.d/bad.toml", f"python = '{PYTHON}'\npreload = ['no_such_module']\n")
        self.start_service()
        done = cli("template", "start", "bad")
        self.assertEqual(done.returncode, 1)
        self.assertIn("no_such_module", done.stderr)

    def test_a_reload_reads_the_files_anew(self):
        self.start_service()
        self.write("config/templates.d/later.toml", f"python = '{PYTHON}'\npreload = ['csv']\n")
        done = cli("template", "reload")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("later", self.states())
        self.write("config/templates.d/later.toml", f"python = '{PYTHON}'\npreload = ['json']\n")
        self.assertEqual(cli("template", "reload", "later").returncode, 0)
        done = self.run_python(self.open("later"), "import sys; print('json' in sys.modules, 'csv' in sys.modules)", backend="warm")
        self.assertEqual(done.stdout, "True False\n")
        self.write("config/templates.d/later.toml", "prelode = []\n")
        done = cli("template", "reload")
        self.assertEqual(done.returncode, 1)
        self.assertIn("later.toml:1:1:", done.stderr)

    def test_show_needs_no_service(self):
        done = cli("template", "show", "--config", self.path("config"), "num")
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stdout, r'preload = \[.*"csv".*\] +# .*num\.toml:2:1')
        done = cli("template", "show", "--config", self.path("config"), "nun")
        self.assertEqual(done.returncode, 1)
        self.assertIn("num", done.stderr)

    def edit(self, name, text):
        """An edit by an editor that writes this."""
        editor = self.write("editor", f"#!/bin/sh\nprintf '%s' '{text}' >\"$1\"\n")
        os.chmod(editor, 0o700)
        return cli("template", "edit", "--config", self.path("config"), name, env={**os.environ, "VISUAL": editor})

    def test_edit_checks_what_was_written(self):
        own = self.path("config/templates.d/new.toml")
        done = self.edit("new", 'preload = ["csv"]\n')
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        with open(own) as file:
            self.assertEqual(file.read(), 'preload = ["csv"]\n')
        done = self.edit("new", "\nspares = true\n")
        self.assertEqual(done.returncode, 1)
        self.assertIn("new.toml:2:", done.stderr)
        self.assertEqual(self.edit("../new", "").returncode, 1)

    def test_a_new_file_that_nobody_changed_does_not_stay(self):
        done = cli("template", "edit", "--config", self.path("config"), "new", env={**os.environ, "VISUAL": "true"})
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertFalse(os.path.exists(self.path("config/templates.d/new.toml")))
        done = cli("template", "edit", "--config", self.path("config"), "new", env={**os.environ, "VISUAL": "false"})
        self.assertEqual(done.returncode, 1)

    def test_the_log_is_the_journals(self):
        folder = self.folder({"journalctl": "#!/bin/sh\nprintf '%s\\n' \"$@\"\n"})
        os.chmod(os.path.join(folder, "journalctl"), 0o700)
        done = cli("log", "-f", "-t", "num", "--", "-n", "3", env={**os.environ, "PATH": folder})
        user = [] if os.geteuid() == 0 else ["--user"]
        self.assertEqual(
            done.stdout.split("\n")[:-1],
            ["SYSLOG_IDENTIFIER=warmforkd", *user, "WARMFORK_TEMPLATE=num", "--follow", "-n", "3"],
        )
        done = cli("log", env={**os.environ, "PATH": "/nowhere"})
        self.assertEqual(done.returncode, 1)
        self.assertIn("no journalctl", done.stderr)


if __name__ == "__main__":
    unittest.main()
