"""What is started as a template's interpreter and is none: a frozen program, a wrapper, an embedding."""

import contextlib
import errno
import os
import select
import subprocess
import sys
import unittest

import warmfork
from support import PYTHON, TestCase, warm_only


class Launches(TestCase):
    def program(self, name, text):
        folder = self.folder({name: text})
        path = os.path.join(folder, name)
        os.chmod(path, 0o755)
        return path

    def check_unresponsive(self, template, program, *words):
        """The template's program, with an argument that makes it print a line."""
        process = template.popen([program, "hello"], stdout=-1, text=True)
        self.assertEqual(process.communicate(timeout=60)[0], "hello\n")
        self.assertEqual((process.backend, process.reason_code), ("cold", "unresponsive"))
        for word in (program, *words):
            self.assertIn(word, process.reason)

    @warm_only
    def test_a_program_that_runs_another_one_is_no_template(self):
        program = self.program("other", '#!/bin/sh\n[ "$1" != hello ] || exec echo hello\nexec sleep 1000\n')
        template = self.template(python=program)
        self.check_unresponsive(template, program, "none", "python=")
        # Nor is it started again by the next.
        self.check_unresponsive(template, program)
        self.assertEqual(template.counts["template_starts"], 1)

    @warm_only
    def test_a_program_that_ends_is_no_template(self):
        program = self.program("brief", '#!/bin/sh\n[ "$1" != hello ] || exec echo hello\necho no such option\n')
        template = self.template(python=program)
        self.check_unresponsive(template, program, "exited with status 0", "no such option")
        with self.assertRaises(warmfork.TemplateError):
            template.popen([program, "hello"], backend="warm")

    @warm_only
    def test_what_such_a_program_has_started_ends_with_it(self):
        folder = self.folder({})
        program = self.program(
            "loader",
            f'#!/bin/sh\n[ "$1" != hello ] || exec echo hello\nsleep 1000 &\necho $! >{folder}/pid\n'
            "exec sleep 1000\n",
        )
        self.check_unresponsive(self.template(python=program), program)
        with open(f"{folder}/pid") as file:
            pid = int(file.read())
        try:
            ended = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        # It has been killed; when it gets there is the scheduler's to say.
        self.assertTrue(select.select([ended], [], [], 60)[0])
        os.close(ended)

    @unittest.skipUnless(hasattr(os, "SCHED_IDLE"), "every process gets its share")
    def test_an_interpreter_that_gets_no_processor_is_no_other_program(self):
        """Others have the processor until it is later than such a program would be given up."""
        processor = {min(os.sched_getaffinity(0))}
        with contextlib.ExitStack() as others:
            for _ in range(4):
                other = others.enter_context(subprocess.Popen([PYTHON, "-c", "while True: pass"]))
                others.callback(other.kill)
                os.sched_setaffinity(other.pid, processor)
            template = self.template()
            pid = template.pid
            os.sched_setaffinity(pid, processor)
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
            try:
                template.wait_ready(timeout=12)
            except warmfork.TemplateError as error:
                self.assertEqual(error.errno, errno.ETIMEDOUT, error)
        os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))
        template.wait_ready()
        self.assertEqual(template.pid, pid)

    def start_itself(self, start):
        """Runs a program that is its own interpreter: how often it has been started, and what it says."""
        folder = self.folder({})
        program = os.path.join(folder, "application")
        source = (
            "import os, sys\n"
            f"log = os.open({folder + '/log'!r}, os.O_CREAT | os.O_RDWR | os.O_APPEND)\n"
            "os.write(log, b'x')\n"
            "if os.fstat(log).st_size > 6: os._exit(9)\n"
            "os.close(log)\n"
            f"sys.executable = {program!r}\n"
            "import warmfork\n"
            "with warmfork.Template(['json']) as template:\n"
            f"    print(template.run([{PYTHON!r}, '-c', 'print(1)'], capture_output=True).stdout)\n"
            "    template.wait_ready()\n"
        )
        with open(os.path.join(folder, "application.py"), "w") as file:
            file.write(source)
        with open(program, "w") as file:
            file.write(f'#!/bin/sh\n{start} {PYTHON} {folder}/application.py "$@"\n')
        os.chmod(program, 0o755)
        done = subprocess.run([program], capture_output=True, text=True, timeout=60)
        with open(os.path.join(folder, "log")) as file:
            return len(file.read()), program, done

    def test_a_program_that_is_its_own_interpreter_does_not_start_itself_again_and_again(self):
        for start in ("exec", ""):  # in place of the wrapper, or beside it
            starts, program, done = self.start_itself(start)
            self.assertEqual(starts, 2)
            self.assertEqual(done.stdout, "b'1\\n'\n")
            self.assertIn(f"{program} was started as a template and is none", done.stderr)
            self.assertIn("has started this program as its template", done.stderr)

    @warm_only
    def test_a_module_that_opens_a_template_when_it_is_imported_does_not_go_on_for_ever(self):
        folder = self.folder({"opener.py": "import warmfork\nwarmfork.Template(['opener'])\n"})
        sys.path.insert(0, folder)
        self.addCleanup(sys.path.remove, folder)
        template = self.template(["opener"])
        with self.assertRaisesRegex(warmfork.TemplateError, "while another one preloads"):
            template.wait_ready()

    @warm_only
    def test_children_are_cold_while_something_kills_the_first_template(self):
        folder = self.folder({"killed.py": "import os\nif 'KILLS' in os.environ: os.kill(os.getpid(), 9)\n"})
        env = {**os.environ, "PYTHONPATH": folder, "KILLS": "1"}
        template = self.template(["killed"], env=env)  # it has been killed once
        done = template.popen([PYTHON, "-c", "print(1)"], stdout=-1, env=env)
        self.assertEqual(done.communicate(timeout=60)[0], b"1\n")
        self.assertEqual((done.backend, done.reason_code), ("cold", "restarting"))
        self.assertIn("killed by signal 9", done.reason)
        with self.assertRaisesRegex(warmfork.TemplateError, "killed by signal 9"):
            template.popen([PYTHON, "-c", "print(1)"], backend="warm", env=env)

    def test_one_that_was_killed_is_started_again(self):
        folder = self.folder({
            "killed.py": f"import os\nif not os.path.exists(mark := {self.folder({})!r} + '/mark'):\n"
                         "    open(mark, 'w').close()\n    os.kill(os.getpid(), 9)\n",
        })
        env = {**os.environ, "PYTHONPATH": folder}
        template = self.template(["killed"], env=env)
        template.wait_ready(timeout=60)
        self.assertEqual(template.run([PYTHON, "-c", "raise SystemExit(4)"], backend="warm", env=env).returncode, 4)


if __name__ == "__main__":
    unittest.main()
