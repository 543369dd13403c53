"""Links in place of commands: what is run by them where nothing is warm is the real command, as if they were not there."""

import os
import shutil
import signal
import subprocess
import threading
import unittest

import warmfork
from support import PYTHON, TestCase

CLI = os.environ["WARMFORK_CLI"]
PROGRAM = os.path.join(os.path.dirname(warmfork.__file__), "_libexec", "warmfork-exec")

# Calls the next one of five.
NEXT = "#!/bin/sh\necho $0 | sed 's,.*/,,'\n[ {next} = none ] || {next}\n"


class LinksTestCase(TestCase):
    """Links in `links`, real commands in `bin`; nobody listens where a service would."""

    def setUp(self):
        super().setUp()
        self.root = self.folder({})
        for name in ("links", "bin"):
            os.mkdir(self.path(name))
        self.environment = {"PATH": f"{self.path('links')}:{self.path('bin')}:/usr/bin:/bin", "HOME": self.root,
                            "WARMFORK_SOCKET": self.path("socket")}

    def path(self, *names):
        return os.path.join(self.root, *names)

    def write(self, name, text, mode=0o755):
        with open(self.path(name), "w", newline="") as file:
            file.write(text)
        os.chmod(self.path(name), mode)
        return self.path(name)

    def install(self, *names, folder="links"):
        done = subprocess.run([CLI, "install-links", "--dir", self.path(folder), *names], env=self.environment,
                              capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def script(self, name, text, **options):
        """A real command and a link in front of it."""
        self.write(f"bin/{name}", text, **options)
        self.install(name)

    def run_it(self, *command, plain=False, **options):
        """By a program that looks it up in PATH; `plain`: without the links."""
        environment = {**self.environment, **options.pop("env", {})}
        if plain:
            environment["PATH"] = environment["PATH"].replace(self.path("links") + ":", "")
        return subprocess.run(["/usr/bin/env", *command], env=environment, capture_output=True, text=True, timeout=120,
                              **options)

    def assert_as_plain(self, *command, **options):
        linked, plain = (self.run_it(*command, plain=plain, **options) for plain in (False, True))
        self.assertEqual((linked.returncode, linked.stdout), (plain.returncode, plain.stdout), linked.stderr)
        return linked


class RealCommand(LinksTestCase):
    def test_it_gets_arguments_streams_and_status(self):
        self.script("tool", '#!/bin/sh\necho "$# $2"; cat; echo bad >&2; exit 3\n')
        done = self.assert_as_plain("tool", "a", "b c", "", input="in")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (3, "3 b c\nin", "bad\n"))

    def test_its_first_argument_and_environment_are_unchanged(self):
        self.install("cat")
        shown = self.run_it("bash", "-c", "exec -a odd cat /proc/self/cmdline").stdout
        self.assertEqual(shown, "odd\0/proc/self/cmdline\0")
        self.assert_as_plain("sh", "-c", "cat /proc/self/cmdline")
        self.install("env")
        self.assertEqual(set(self.run_it("env").stdout.split("\n")) - {""},
                         {f"{name}={value}" for name, value in self.environment.items()})

    def test_it_is_called_by_the_path_of_the_link(self):
        self.script("tool", "#!/bin/sh\necho real\n")
        self.assertEqual(self.run_it(self.path("links/tool")).stdout, "real\n")
        self.assertEqual(self.run_it(self.path("links/tool"), plain=True).stdout, "real\n")

    def test_a_script_has_a_link_for_its_interpreter(self):
        self.install("python3")
        script = self.write("script", f"#!{self.path('links/python3')}\nimport sys; print(sys.argv, sys.executable)\n")
        self.assertEqual(self.run_it(script, "x").stdout, f"{[script, 'x']} {shutil.which('python3', path='/usr/bin')}\n")

    def test_it_dies_by_a_signal(self):
        self.script("tool", "#!/bin/sh\nkill -TERM $$\n")
        self.assertEqual(self.run_it("tool").returncode, -signal.SIGTERM)

    def test_it_keeps_its_process(self):
        self.script("tool", "#!/bin/sh\necho $$\n")
        self.assertEqual(*self.run_it("sh", "-c", "echo $$; exec tool").stdout.split())

    def test_cold_is_asked_for(self):
        self.script("tool", "#!/bin/sh\necho $WARMFORK_BACKEND\n")
        self.assertEqual(self.run_it("tool", env={"WARMFORK_BACKEND": "cold"}).stdout, "cold\n")

    def test_an_interpreter_finds_its_own_installation(self):
        self.install("python3")
        shown = "import sys; print(sys.executable, sys.prefix, sys.base_prefix, sys.path[1:])"
        self.assert_as_plain("python3", "-c", shown)
        self.assert_as_plain("bash", "-c", "exec -a '' python3 -c \"$0\"", shown)  # it looks for python3
        subprocess.run([PYTHON, "-m", "venv", "--without-pip", self.path("venv")], check=True)
        path = f"{self.path('links')}:{self.path('venv/bin')}:/usr/bin:/bin"
        done = self.assert_as_plain("python3", "-c", shown, env={"PATH": path})
        self.assertTrue(done.stdout.startswith(f"{self.path('venv/bin/python3')} {self.path('venv')} "), done.stdout)


class NeverALoop(LinksTestCase):
    def test_the_directory_is_twice_in_path(self):
        self.script("tool", "#!/bin/sh\necho real\n")
        links, real = self.path("links"), self.path("bin")
        for entries in ((links, links, real), (links, real, links), (links, links + "/.", links + "/", real)):
            self.assertEqual(self.run_it("tool", env={"PATH": ":".join(entries)}).stdout, "real\n", entries)

    def test_a_link_leads_to_a_link(self):
        self.script("tool", "#!/bin/sh\necho real\n")
        os.mkdir(self.path("more"))
        os.symlink(self.path("links/tool"), self.path("more/tool"))
        os.symlink(self.path("more/tool"), self.path("more/other"))
        environment = {"PATH": f"{self.path('more')}:{self.environment['PATH']}"}
        self.assertEqual(self.run_it("tool", env=environment).stdout, "real\n")
        self.assertEqual(self.run_it("other", env=environment).returncode, 127)

    def test_a_link_leads_to_itself(self):
        os.symlink("tool", self.path("links/tool"))
        self.write("bin/tool", "#!/bin/sh\necho real\n")
        os.mkdir(self.path("more"))
        self.install("tool", folder="more")
        path = f"{self.path('more')}:{self.environment['PATH']}"
        self.assertEqual(self.run_it("tool", env={"PATH": path}).stdout, "real\n")

    def test_there_are_links_of_two_installations(self):
        self.script("tool", "#!/bin/sh\necho real\n")
        os.mkdir(self.path("other"))
        shutil.copy(PROGRAM, self.path("warmfork-exec"))
        os.symlink(self.path("warmfork-exec"), self.path("other/tool"))
        links, other = self.path("links"), self.path("other")
        for path in (f"{links}:{other}:{links}", f"{other}:{links}:{other}:{links}"):
            self.assertEqual(self.run_it("tool", env={"PATH": f"{path}:{self.path('bin')}:/bin"}).stdout, "real\n")
            self.assertEqual(self.run_it("tool", env={"PATH": path}).returncode, 127)

    def test_a_wrapper_before_the_links_calls_one_by_its_path(self):
        self.script("tool", "#!/bin/sh\necho real\n")
        os.mkdir(self.path("wrappers"))
        self.write("wrappers/tool", f"#!/bin/sh\nexec {self.path('links/tool')}\n")
        path = f"{self.path('wrappers')}:{self.environment['PATH']}"
        self.assertEqual(self.run_it("tool", env={"PATH": path}).stdout, "real\n")

    def test_linked_commands_start_linked_commands(self):
        names = ["one", "two", "three", "four", "five"]
        for name, following in zip(names, [*names[1:], "none"]):
            self.script(name, NEXT.format(next=following))
        self.assertEqual(self.assert_as_plain("one").stdout.split(), names)

    def test_a_command_starts_itself(self):
        self.script("tool", '#!/bin/sh\necho $1\n[ $1 = 0 ] || tool $(($1 - 1))\n')
        self.assertEqual(self.assert_as_plain("tool", "5").stdout.split(), list("543210"))


class NoRealCommand(LinksTestCase):
    def assert_fails(self, status, text, *command, **options):
        done = self.run_it(*command, **options)
        self.assertEqual((done.returncode, done.stderr), (status, text))

    def test_there_is_none(self):
        self.assertIn("there is no such command", self.install("missing"))
        self.assert_fails(127, "warmfork: missing: command not found\n", "missing")
        self.assert_fails(127, "warmfork: missing: command not found\n", self.path("links/missing"),
                          env={"PATH": self.path("links")})

    def test_the_program_is_called_by_its_own_name(self):
        done = subprocess.run([PROGRAM], env=self.environment, capture_output=True, text=True)
        self.assertEqual(done.returncode, 127, done.stderr)

    def test_it_has_no_execute_permission(self):
        self.script("tool", "#!/bin/sh\necho real\n", mode=0o644)
        self.assert_fails(126, f"warmfork: {self.path('bin/tool')}: Permission denied\n", "tool")
        self.assertEqual(self.run_it("tool", plain=True).returncode, 126)

    def test_one_further_on_has_the_permission(self):
        self.script("tool", "#!/bin/sh\necho first\n", mode=0o644)
        os.mkdir(self.path("more"))
        self.write("more/tool", "#!/bin/sh\necho second\n")
        path = f"{self.environment['PATH']}:{self.path('more')}"
        self.assertEqual(self.assert_as_plain("tool", env={"PATH": path}).stdout, "second\n")

    def test_its_interpreter_is_missing(self):
        for name, line in (("gone", "#!/no/such/interpreter"), ("dos", "#!/bin/sh\r")):
            self.script(name, line + "\necho real\r\n")
            self.assert_fails(127, f"warmfork: {self.path('bin', name)}: cannot execute: required file not found\n", name)
            self.assertEqual(self.run_it(name, plain=True).returncode, 127)

    def test_its_first_line_is_too_long(self):
        self.script("long", "#!/" + "./" * 150 + "bin/sh\necho real\n")
        self.script("argument", "#!/bin/sh " + "-" * 300 + "\necho real\n")
        for name in ("long", "argument"):
            self.assert_as_plain(name)

    def test_it_has_no_first_line(self):
        self.script("tool", "echo real $1 $2\n")
        self.assertEqual(self.assert_as_plain("tool", "a", "b").stdout, "real a b\n")

    def test_it_is_a_directory(self):
        os.mkdir(self.path("bin/tool"))
        self.install("tool")
        self.assertEqual(self.run_it("tool").returncode, 127)

    def test_it_comes_and_goes_while_it_starts(self):
        self.script("tool", "#!/bin/sh\n")
        stop = threading.Event()

        def replace():
            while not stop.is_set():
                os.unlink(self.path("bin/tool"))
                self.write("bin/.new", "#!/bin/sh\n")
                os.rename(self.path("bin/.new"), self.path("bin/tool"))

        thread = threading.Thread(target=replace)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(stop.set)
        for _ in range(100):
            done = self.run_it("tool")
            # Of a script that has been opened by then its interpreter may say that it is gone.
            self.assertIn(done.returncode, (0, 2, 127), done.stderr)


class Surroundings(LinksTestCase):
    def setUp(self):
        super().setUp()
        self.script("tool", "#!/bin/sh\necho real $1\n")

    def test_there_is_no_environment(self):
        self.install("cat")
        done = subprocess.run([self.path("links/cat"), "/dev/null"], env={}, capture_output=True)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_there_is_no_runtime_directory(self):
        del self.environment["WARMFORK_SOCKET"]
        for more in ({}, {"XDG_RUNTIME_DIR": ""}, {"XDG_RUNTIME_DIR": self.path("none")},
                     {"XDG_RUNTIME_DIR": "x" * 300}):
            self.assertEqual(self.run_it("tool", env=more).stdout, "real\n", more)

    def test_it_is_started_by_others(self):
        for command in (("nohup", "tool"), ("setsid", "-w", "tool"), ("timeout", "100", "tool"), ("nice", "tool"),
                        ("sh", "-c", "tool <&-"), ("sh", "-c", "tool <&- 2>&-")):
            self.assertEqual(self.run_it(*command).stdout, "real\n", command)
        self.assertEqual(self.run_it("sh", "-c", "tool >&-", plain=True).returncode,
                         self.run_it("sh", "-c", "tool >&-").returncode)

    def test_many_at_once(self):
        numbers = [str(number) for number in range(40)]
        done = self.run_it("xargs", "-P", "8", "-n", "1", "tool", input="\n".join(numbers))
        self.assertEqual(sorted(done.stdout.split("\n")[:-1]), sorted(f"real {number}" for number in numbers))

    def test_nothing_is_open_that_was_not(self):
        self.install("ls")
        self.assert_as_plain("ls", "/proc/self/fd")


class Installing(LinksTestCase):
    def refused(self, *arguments):
        done = subprocess.run([CLI, "install-links", *arguments], env=self.environment, capture_output=True, text=True)
        self.assertEqual(done.returncode, 1, done.stdout)
        return done.stderr

    def test_it_says_what_stands_behind(self):
        self.write("bin/tool", "#!/bin/sh\n")
        shown = self.install("tool")
        self.assertEqual(shown, f"{self.path('links/tool')} -> {self.path('bin/tool')}\n")
        self.assertEqual(self.install("tool"), shown)  # again
        self.assertTrue(os.path.samefile(self.path("links/tool"), PROGRAM) or
                        os.path.basename(os.readlink(self.path("links/tool"))) == "warmfork-exec")

    def test_it_says_that_the_directory_is_not_first(self):
        self.write("bin/tool", "#!/bin/sh\n")
        self.assertIn(f"export PATH={self.path('more')}:$PATH", self.install("tool", folder="more"))

    def test_the_default_is_the_users_own(self):
        for more, folder in (({}, ".local/share"), ({"XDG_DATA_HOME": self.path("data")}, "data")):
            subprocess.run([CLI, "install-links", "tool"], env={**self.environment, **more}, check=True,
                           stdout=subprocess.DEVNULL)
            self.assertTrue(os.path.islink(self.path(folder, "warmfork/links/tool")))

    def test_names_are_names(self):
        for name in ("a/b", "", ".", "..", "warmfork"):
            self.refused("--dir", self.path("links"), name)
        self.assertEqual(os.listdir(self.path("links")), [])

    def test_other_files_are_left_alone(self):
        self.write("links/tool", "mine")
        self.assertIn(f"the link {self.path('links/tool')}", self.refused("--dir", self.path("links"), "tool"))
        self.assertEqual(os.path.getsize(self.path("links/tool")), len("mine"))
        self.assertIn("/proc/none", self.refused("--dir", "/proc/none", "tool"))


if __name__ == "__main__":
    unittest.main()
