"""Layers of the service whose base, or who themselves, die."""

import os
import select
import subprocess
import unittest

import warmfork
from support import PYTHON
from test_layers import CLI, SHOW, Layers, cli


class Deaths(Layers):
    def test_a_layer_does_without_its_base(self):
        self.start_service()
        template = self.open()
        self.assertEqual(self.run_python(template, SHOW), "old old")
        self.kill(self.pid_of("base"))
        self.assertEqual(self.run_python(template, SHOW), "old old")
        self.assertEqual(self.imports("top_part"), 1)
        self.write_module("top_part", "new")
        self.assertEqual(self.run_python(template, SHOW), "old new")

    def test_a_layer_that_was_killed_comes_back_from_its_base(self):
        self.start_service()
        template = self.open()
        self.assertEqual(self.run_python(template, SHOW), "old old")
        self.kill(self.pid_of("top"))
        self.assertEqual(self.run_python(template, "import sys; print('top_part' in sys.modules)", backend="warm"), "True")
        while self.imports("top_part") < 2:
            self.assertEqual(self.run_python(template, SHOW), "old old")
        self.assertEqual(self.imports("base_part"), 1)

    def test_a_base_that_cannot_be_preloaded_fails_its_layers(self):
        self.write("modules/base_part.py", "raise RuntimeError('no base today')")
        self.start_service()
        with self.assertRaisesRegex(warmfork.TemplateError, "(?s)base.*no base today"):
            self.open().run([PYTHON, "-c", ""], backend="warm")

    def test_a_layer_that_cannot_be_preloaded_says_why(self):
        self.write("modules/top_part.py", "raise RuntimeError('no top today')")
        self.start_service()
        with self.assertRaisesRegex(warmfork.TemplateError, "no top today"):
            self.open().run([PYTHON, "-c", ""], backend="warm")
        self.assertEqual(self.run_python(self.open("base"), "print(1)"), "1")

    def test_a_layer_is_checked_for_fork_safety(self):
        self.write_module("top_part", "old", "import threading, time; threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n")
        self.start_service()
        with self.assertRaisesRegex(warmfork.TemplateError, "not safe to fork"):
            self.open().run([PYTHON, "-c", ""], backend="warm")

    def test_a_service_that_execs_itself_has_its_layers_again(self):
        self.start_service()
        template = self.open()
        self.assertEqual(self.run_python(template, SHOW), "old old")
        self.assertEqual(cli("template", "reload").returncode, 0)
        self.assertEqual(self.run_python(template, SHOW), "old old")

    def test_layers_end_with_a_service_that_is_killed(self):
        self.start_service()
        self.assertEqual(self.run_python(self.open(), SHOW), "old old")
        ended = [os.pidfd_open(self.pid_of(name)) for name in ("base", "top")]
        self.service.kill()
        for pidfd in ended:
            self.assertTrue(select.select([pidfd], [], [], 10)[0])
            os.close(pidfd)

    def test_a_layer_that_preloads_ends_with_a_service_that_is_killed_whatever_it_has_closed(self):
        os.mkfifo(self.path("pids"))
        self.write_module("top_part", "old", f"import os, time\nos.closerange(3, 65536)\nopen({self.path('pids')!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)\n")
        self.start_service()
        start = subprocess.Popen([CLI, "template", "start", "top"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with open(self.path("pids")) as pids:
            pidfd = os.pidfd_open(int(pids.read()))
        start.kill()  # it would start another service
        start.wait()
        self.service.kill()
        self.assertTrue(select.select([pidfd], [], [], 10)[0])
        os.close(pidfd)


if __name__ == "__main__":
    unittest.main()
