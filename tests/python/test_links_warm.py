"""Links in place of commands, with a service: warm where there is a template for the command, else the real one."""

import importlib.util
import json
import os
import signal
import subprocess
import unittest

from support import PYTHON, ServiceTestCase, warm_only

CLI = os.environ["WARMFORK_CLI"]


class WarmTestCase(ServiceTestCase):
    """Links for a service with the template `tool`, which has csv imported."""

    def setUp(self):
        super().setUp()
        for name in ("links", "bin"):
            os.mkdir(self.path(name))
        self.configure("tool", 'links = ["python3", "other"]\n')
        self.environment = {**os.environ, "PATH": f"{self.path('links')}:{self.path('bin')}:/usr/bin:/bin"}

    def configure(self, name, more=""):
        self.write(f"config/templates.d/{name}.toml", f'python = "{PYTHON}"\npreload = ["csv"]\n{more}')

    def install(self, *names):
        self.cli("install-links", "--dir", self.path("links"), *names)

    def script(self, name, text):
        self.write(f"bin/{name}", f"#!{PYTHON}\n{text}")
        os.chmod(self.path(f"bin/{name}"), 0o755)
        self.install(name)

    def cli(self, *arguments):
        done = subprocess.run([CLI, *arguments], env=self.environment, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def start_ready(self, *templates):
        service = self.start_service()
        for template in templates or ("tool",):
            self.cli("template", "start", template)
        return service

    def run_it(self, *command, env=None, **options):
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)  # no terminal
        return subprocess.run(["/usr/bin/env", *command], env={**self.environment, **(env or {})}, capture_output=True,
                              text=True, timeout=120, **options)

    def until(self, expected, attempt):
        """Again and again: a link waits for the service's answer a tenth of a second, and a busy machine may take longer.
        Returns what attempt() has returned last."""
        for _ in range(50):
            seen = attempt()
            if expected(seen):
                break
        return seen


# Is it warm, and what does it see?
SEEN = "import os, sys; print('csv' in sys.modules, os.getppid(), sys.argv, sys.orig_argv, sys.executable, sys.path[0])"


@warm_only
class Warm(WarmTestCase):
    def assert_warm(self, service, *command, warm=True, **options):
        def is_as_expected(done):
            return done.returncode or done.stdout.startswith(f"True {service.pid} ") == warm

        done = self.until(is_as_expected, lambda: self.run_it(*command, **options))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.startswith(f"True {service.pid} "), warm, done.stdout)
        return done.stdout.split(" ", 2)[2]

    def test_an_interpreter_sees_what_it_would_without_the_link(self):
        self.install("python3")
        cold = self.run_it("/usr/bin/env", f"PATH={self.path('bin')}:/usr/bin:/bin", "python3", "-c", SEEN, "x")
        service = self.start_ready()
        self.assertEqual(self.assert_warm(service, "python3", "-c", SEEN, "x"), cold.stdout.split(" ", 2)[2])

    def test_where_a_stream_is_a_terminal_the_real_command_has_it(self):
        """It is the shell's job, with the controlling terminal, and can be stopped as one."""
        self.install("python3")
        self.start_ready()
        program = (
            "import os, pty, sys\n"
            "shown = 'import os, sys; print(os.getppid(), os.tcgetpgrp(0) == os.getpgrp(), open(\"/dev/tty\").isatty())'\n"
            "pid, master = pty.fork()\n"
            "if pid == 0: os.execvp('sh', ['sh', '-c', f'python3 -c {shown!r}; true'])\n"
            "text = b''\n"
            "try:\n"
            "    while part := os.read(master, 1000): text += part\n"
            "except OSError: pass\n"
            "os.waitpid(pid, 0)\n"
            "print(pid, text.decode())\n"
        )
        done = self.run_it(PYTHON, "-c", program)
        shell, parent, *rest = done.stdout.split()
        self.assertEqual((parent, rest), (shell, ["True", "True"]), done.stderr)

    def test_the_interpreter_is_called_by_the_path_of_the_link(self):
        self.install("python3")
        service = self.start_ready()
        shown = self.assert_warm(service, self.path("links/python3"), "-c", SEEN)
        self.assertEqual(shown.split()[-1], PYTHON)

    def test_a_script_is_served_by_the_template_of_its_name(self):
        self.script("tool", SEEN)
        service = self.start_ready()
        real = self.path("bin/tool")
        shown = self.assert_warm(service, "tool", "a b", "")
        self.assertEqual(shown, f"{[real, 'a b', '']} {[PYTHON, real, 'a b', '']} {PYTHON} {self.path('bin')}\n")

    def test_a_script_is_served_by_the_template_that_names_it(self):
        self.script("other", SEEN)
        self.script("third", SEEN)
        self.configure("another", 'links = ["other"]\n')  # comes first by its name
        self.write("config/templates.d/another.toml", f'python = "{PYTHON}"\npreload = ["csv", "json"]\n'
                                                      'links = ["other"]\n')
        service = self.start_ready("another", "tool")
        self.assert_warm(service, "other")
        self.script("other", "import sys; print('json' in sys.modules)")
        seen = self.until("True\n".__eq__, lambda: self.run_it("other").stdout)
        self.assertEqual(seen, "True\n")
        self.assert_warm(service, "third", warm=False)  # nobody's

    def test_streams_status_and_descriptors_are_the_callers(self):
        self.script("tool", "import os, sys; os.write(9, b'nine'); print(sys.stdin.read()); sys.exit(7)")
        self.start_ready()
        done = self.run_it("sh", "-c", "tool 9>nine", input="in", cwd=self.path("."))
        self.assertEqual((done.returncode, done.stdout, done.stderr), (7, "in\n", ""))
        with open(self.path("nine")) as file:
            self.assertEqual(file.read(), "nine")

    def test_a_server_answers_over_its_streams(self):
        """As a client of tool servers has it: the link's path and arguments, and a line for each message."""
        self.install("python3")
        server = self.write("server.py", "import json, os, sys\nfor line in sys.stdin:\n"
                                         "    print(json.dumps({'id': json.loads(line)['id'], 'result': os.getppid()}),"
                                         " flush=True)\n")
        service = self.start_ready()
        expected = [{"id": number, "result": service.pid} for number in range(3)]

        def ask():
            answers = []
            with subprocess.Popen([self.path("links/python3"), server], env=self.environment, text=True,
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
                for number in range(3):
                    process.stdin.write(json.dumps({"id": number}) + "\n")
                    process.stdin.flush()
                    answers.append(json.loads(process.stdout.readline()))
                process.stdin.close()
                self.assertEqual(process.wait(60), 0)
            return answers

        self.assertEqual(self.until(expected.__eq__, ask), expected)

    @unittest.skipUnless(importlib.util.find_spec("xdist"), "pytest-xdist is not installed")
    def test_workers_of_a_test_runner_are_warm(self):
        self.install("python3")
        service = self.start_ready()
        self.write("tests/test_seen.py", "import os, sys\ndef test_seen():\n"
                                         "    with open('seen', 'w') as file: print(os.getppid(), 'csv' in sys.modules, file=file)\n")
        runner = f"--tx=popen//python={self.path('links/python3')}"

        def run_tests():
            command = [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--dist=load", runner, "test_seen.py"]
            done = subprocess.run(command, cwd=self.path("tests"), env=self.environment, capture_output=True, text=True,
                                  stdin=subprocess.DEVNULL, timeout=120)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            with open(self.path("tests/seen")) as file:
                return file.read()

        expected = f"{service.pid} True\n"
        self.assertEqual(self.until(expected.__eq__, run_tests), expected)

    def test_it_dies_by_a_signal(self):
        self.script("tool", "import os; os.kill(os.getpid(), 15)")
        self.start_ready()
        self.assertEqual(self.run_it("tool").returncode, -15)

    def test_linked_commands_start_linked_commands(self):
        self.script("tool", "import subprocess, sys, os\nprint(os.getppid(), flush=True)\n"
                            "n = int(sys.argv[1])\nn and subprocess.run(['tool', str(n - 1)], check=True)\n")
        service = self.start_ready()
        expected = [str(service.pid)] * 5
        self.assertEqual(self.until(expected.__eq__, lambda: self.run_it("tool", "4").stdout.split()), expected)

    def test_different_linked_commands_start_each_other(self):
        names = ["one", "two", "three", "four", "five"]
        self.configure("tool", f"links = {json.dumps(names)}\n")
        for name, following in zip(names, [*names[1:], ""]):
            self.script(name, "import csv, os, subprocess, sys\nprint(os.path.basename(sys.argv[0]), os.getppid(), flush=True)\n"
                              f"'{following}' and subprocess.run(['{following}'], check=True)\n")
        service = self.start_ready()
        expected = [f"{name} {service.pid}" for name in names]
        self.assertEqual(self.until(expected.__eq__, lambda: self.run_it("one").stdout.splitlines()), expected)

    def test_it_is_started_by_others(self):
        self.script("tool", SEEN)
        service = self.start_ready()
        for command in (("nohup", "tool"), ("timeout", "100", "tool"), ("setsid", "-w", "tool")):
            self.assert_warm(service, *command)
        # As cron and sudo have it, but for the place of the service.
        self.environment = {name: self.environment[name] for name in ("PATH", "WARMFORK_SOCKET")}
        self.assert_warm(service, "tool")

    def test_it_goes_on_when_its_client_was_suspended(self):
        self.script("tool", "import os\nprint(os.getppid(), flush=True)\nprint(input()[::-1])\n")
        service = self.start_ready()

        def run_and_suspend():
            with subprocess.Popen(["/usr/bin/env", "tool"], env=self.environment, stdin=subprocess.PIPE, text=True,
                                  stdout=subprocess.PIPE, preexec_fn=lambda: os.setpgid(0, 0)) as process:
                parent = int(process.stdout.readline())
                for number in (signal.SIGSTOP, signal.SIGTSTP):
                    os.killpg(process.pid, number)
                    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
                    os.killpg(process.pid, signal.SIGCONT)
                    os.waitid(os.P_PID, process.pid, os.WCONTINUED)
                output, _ = process.communicate("words\n", timeout=60)
            self.assertEqual((output, process.returncode), ("sdrow\n", 0))
            return parent

        self.assertEqual(self.until(service.pid.__eq__, run_and_suspend), service.pid)

    def assert_as_real(self, service, line):
        """A shell's line with the tool, which leaves its parent's pid in the file `seen`."""
        real = self.run_it("sh", "-c", line, env={"WARMFORK_BACKEND": "cold"}, cwd=self.path("."))

        def run_once():
            done = self.run_it("sh", "-c", line, cwd=self.path("."))
            with open(self.path("seen")) as file:
                return int(file.read()), (done.returncode, done.stdout, done.stderr)

        parent, linked = self.until(lambda seen: seen[0] == service.pid, run_once)
        self.assertEqual(parent, service.pid, line)
        self.assertEqual(linked, (real.returncode, real.stdout, real.stderr), line)

    def test_streams_are_closed_or_full(self):
        self.script("tool", "import os, sys\nwith open('seen', 'w') as file: print(os.getppid(), file=file)\n"
                            "print(sys.stdin is None)\nprint('bad', file=sys.stderr)\n")
        service = self.start_ready()
        for line in ("tool <&-", "tool >&-", "tool 2>&-", "tool >&- 2>&-", "tool <&- >&- 2>&-", "tool >/dev/full",
                     "tool 2>/dev/full", "tool >/dev/full 2>&1"):
            self.assert_as_real(service, line)

    def test_scripts_that_are_broken(self):
        self.script("tool", "pass")
        self.start_ready()
        first = f"#!{PYTHON}\n".encode()
        for text, mode in (
            (first + b"x = = 1\n", 0o755), (first + b"import nonesuch\n", 0o755), (first + b"1/0\n", 0o755),
            (first + b"raise SystemExit('text')\n", 0o755), (first + b"x = '\xff'\n", 0o755), (first + b"\0", 0o755),
            (first + b"if True:\n", 0o755), (first, 0o755), (b"", 0o755), (first.replace(b"\n", b"\r\n") + b"1/0\r\n", 0o755),
            (first + b"1/0\n", 0o644), (first + b"1/0\n", 0o311), (b"#!/none/python3\n", 0o755),
        ):
            with open(self.path("bin/tool"), "wb") as file:
                file.write(text)
            os.chmod(self.path("bin/tool"), mode)
            linked, real = (self.run_it("tool", env=env) for env in ({}, {"WARMFORK_BACKEND": "cold"}))
            self.assertEqual((linked.returncode, linked.stdout, linked.stderr),
                             (real.returncode, real.stdout, real.stderr), (text, mode))

    def test_many_at_once(self):
        # Where the streams are unbuffered, print() writes the end of the line by itself, and other lines come between.
        self.script("tool", "import os, sys; os.write(1, (sys.argv[1] + '\\n').encode())")
        self.start_ready()
        numbers = [str(number) for number in range(24)]
        done = self.run_it("xargs", "-P", "8", "-n", "1", "tool", input="\n".join(numbers))
        self.assertEqual((done.returncode, sorted(done.stdout.split())), (0, sorted(numbers)), done.stderr)


@warm_only
class Counted(WarmTestCase):
    def counts(self):
        return {link["name"]: (link["warm"], link["cold"]) for link in json.loads(self.cli("links", "--json"))}

    def test_warm_and_cold_are_counted(self):
        self.script("tool", "pass")
        self.script("untouched", "pass")
        self.assertEqual(self.counts(), {"tool": (0, 0), "untouched": (0, 0)})
        self.start_ready()
        self.run_it("tool", env={"WARMFORK_BACKEND": "cold"})  # the link itself
        runs = []

        def run_and_count():
            runs.append(self.run_it("tool"))
            return self.counts()["tool"][0]

        self.assertEqual(self.until((2).__eq__, run_and_count), 2)
        self.run_it("tool", env={"PYTHONHASHSEED": "random"}, stdin=subprocess.DEVNULL)  # refused by what it calls
        self.assertEqual(self.counts(), {"tool": (2, len(runs)), "untouched": (0, 0)})
        self.assertRegex(self.cli("links"), rf"tool +2 +{len(runs)}  {self.path('bin/tool')}\n")

    def test_many_at_once_are_all_counted(self):
        self.script("tool", "#!/bin/sh\n")
        environment = {"WARMFORK_BACKEND": "cold"}
        self.run_it("tool", env=environment)
        self.run_it("xargs", "-P", "8", "-n", "1", "tool", input="\n".join(["x"] * 40), env=environment)
        self.assertEqual(self.counts()["tool"], (0, 41))

    def test_files_that_are_no_counts_are_left_alone(self):
        self.script("tool", "print('real')")
        os.mkdir(self.path("socket.links"))
        os.symlink(self.write("elsewhere", ""), self.path("socket.links/tool"))
        self.assertEqual(self.run_it("tool").stdout, "real\n")
        self.assertEqual(os.path.getsize(self.path("elsewhere")), 0)
        os.unlink(self.path("socket.links/tool"))
        for text in ("", "short", "x" * 100):
            self.write("socket.links/tool", text)
            self.assertEqual(self.run_it("tool").stdout, "real\n")
            self.cli("links")

    def test_links_are_shown_as_they_are_found(self):
        self.script("tool", "pass")
        self.install("nothing")
        os.mkdir(self.path("more"))
        os.symlink(self.path("links/tool"), self.path("more/tool"))
        self.environment["PATH"] += f":{self.path('more')}:{self.path('gone')}"
        shown = {link["link"]: (link["command"], link["first"]) for link in json.loads(self.cli("links", "--json"))}
        real = self.path("bin/tool")
        self.assertEqual(shown, {self.path("links/tool"): (real, True), self.path("links/nothing"): (None, True),
                                 self.path("more/tool"): (real, False)})
        self.environment["PATH"] = "/usr/bin:/bin"
        self.assertIn("install-links", self.cli("links"))
        self.assertEqual(self.cli("links", "--json"), "[]\n")


if __name__ == "__main__":
    unittest.main()
