"""Linked commands without a template in any file: the service makes one for those that are seen again."""

import contextlib
import json
import os
import subprocess
import time
import unittest

from support import PYTHON, ServiceTestCase, warm_only
from test_links_warm import CLI

# A tool: a module of its own on PYTHONPATH, and what it saw.
TOOL = "import os, sys\nwarm = 'tool_library' in sys.modules\nimport tool_library\nprint(warm, os.getppid())\n"


@warm_only
class AutomaticTestCase(ServiceTestCase):
    """Links for a service without templates; what it remembers lies in a directory of the test's own."""

    def setUp(self):
        super().setUp()
        for name in ("links", "bin", "library"):
            os.mkdir(self.path(name))
        for name in os.listdir(self.path("config/templates.d")):
            os.unlink(self.path(f"config/templates.d/{name}"))
        self.environment = {
            **os.environ, "PATH": f"{self.path('links')}:{self.path('bin')}:/usr/bin:/bin",
            "PYTHONPATH": self.path("library"),
        }
        self.write("library/tool_library.py", "import colorsys\n")

    def install(self, *names):
        self.cli("install-links", "--dir", self.path("links"), *names)

    def script(self, name, text=TOOL, interpreter=PYTHON):
        self.write(f"bin/{name}", f"#!{interpreter}\n{text}")
        os.chmod(self.path(f"bin/{name}"), 0o755)
        self.install(name)

    def cli(self, *arguments, status=0):
        done = subprocess.run([CLI, *arguments], env=self.environment, capture_output=True, text=True)
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stdout

    def start_service(self):
        self.service = super().start_service()
        return self.service

    def call(self, *command, env=None):
        done = subprocess.run(["/usr/bin/env", *command], env={**self.environment, **(env or {})}, text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def until(self, expected, attempt):
        """Again and again: a new image takes its time, and a link that is not answered at once is cold."""
        ends = time.monotonic() + 60
        while True:
            seen = attempt()
            if expected(seen) or time.monotonic() > ends:
                return seen

    def remembered(self):
        """What is known of each command, by the program's name; once it is written."""
        with open(self.path(f"state/warmfork/automatic-test-{os.getpid()}.json")) as file:
            return {os.path.basename(known.get("script", known.get("module"))): known
                    for known in json.load(file)["commands"]}

    def until_remembered(self, expected):
        def look():
            try:
                return self.remembered()
            except FileNotFoundError:
                return {}
        known = self.until(expected, look)
        self.assertTrue(expected(known), known)
        return known

    def make_warm(self, service, *command, **options):
        """Calls it until it is warm with what it imports."""
        seen = self.until(f"True {service.pid}\n".__eq__, lambda: self.call(*command, **options))
        self.assertEqual(seen, f"True {service.pid}\n")


class Automatic(AutomaticTestCase):
    def test_the_third_call_is_warm(self):
        self.script("tool")
        service = self.start_service()
        ours = f"{os.getpid()}\n"
        self.assertEqual(self.call("tool"), f"False {ours}")
        # The second is a child of the service, or cold where this machine was too busy for an answer in time.
        self.assertIn(self.call("tool"), (f"False {ours}", f"False {service.pid}\n"))
        self.make_warm(service, "tool")

    def test_what_is_known_survives_the_service(self):
        self.script("tool")
        first = self.start_service()
        self.make_warm(first, "tool")
        first.stop()
        self.assertGreater(self.remembered()["tool"]["runs"], 0)
        second = self.start_service()
        seen = []
        self.until(f"True {second.pid}\n".__eq__, lambda: seen.append(self.call("tool")) or seen[-1])
        self.assertEqual({*seen[:-1]} - {f"False {os.getpid()}\n"}, set())  # none that has preloaded nothing
        self.assertEqual(seen[-1], f"True {second.pid}\n")

    def test_what_is_known_survives_a_reload(self):
        self.script("tool")
        service = self.start_service()
        self.make_warm(service, "tool")
        service.reload()
        self.make_warm(service, "tool")

    def test_an_upgraded_tool_is_never_the_old_one(self):
        self.write("library/tool_library.py", "VERSION = 1\n")
        self.script("tool", TOOL + "print(tool_library.VERSION)\n")
        service = self.start_service()
        warm = f"True {service.pid}\n{{}}\n".format
        self.assertEqual(self.until(warm(1).__eq__, lambda: self.call("tool")), warm(1))
        self.write("library/tool_library.py", "VERSION = 22\n")
        seen = []
        self.until(warm(22).__eq__, lambda: seen.append(self.call("tool")) or seen[-1])
        self.assertEqual({text.split()[-1] for text in seen}, {"22"})
        self.assertEqual(seen[-1], warm(22))

    def test_each_environment_has_a_template_of_its_own(self):
        for name in ("one", "two"):
            self.write(f"{name}/pyvenv.cfg", "home = /usr/bin\n")
            os.mkdir(self.path(f"{name}/bin"))
            os.symlink(PYTHON, self.path(f"{name}/bin/python3"))
            self.script(name, TOOL + "print(sys.prefix)\n", self.path(f"{name}/bin/python3"))
        service = self.start_service()
        for name in ("one", "two"):
            warm = f"True {service.pid}\n{self.path(name)}\n"
            self.assertEqual(self.until(warm.__eq__, lambda: self.call(name)), warm)

    def test_modules_and_scripts_of_an_interpreter_are_told_apart(self):
        self.install("python3")
        self.write("library/program.py", TOOL)
        script = self.write("other.py", "import wave\n" + TOOL)
        service = self.start_service()
        self.make_warm(service, "python3", "-m", "program")
        self.assertEqual(self.call("python3", script), f"False {os.getpid()}\n")
        self.make_warm(service, "python3", script)
        self.until_remembered(lambda known: known.keys() == {"program", "other.py"})

    def test_another_value_of_what_was_read_is_warm_as_well(self):
        """Its first client's; and the first one of another is cold, as of any template."""
        self.write("library/tool_library.py", "import os\nVALUE = os.environ.get('TOOL_VALUE')\n")
        self.script("tool", TOOL + "print(tool_library.VALUE)\n")
        service = self.start_service()
        for value in ("one", "two"):
            warm = f"True {service.pid}\n{value}\n"
            seen = []
            self.until(warm.__eq__, lambda: seen.append(self.call("tool", env={"TOOL_VALUE": value})) or seen[-1])
            self.assertEqual({text.split()[-1] for text in seen}, {value})
            self.assertEqual(seen[-1], warm)
        self.until_remembered(lambda known: "TOOL_VALUE" in known.get("tool", {}).get("variables", ()))

    def test_what_cannot_be_preloaded_is_left_alone_until_it_is_another_one(self):
        threads = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        customize = self.write("library/sitecustomize.py", threads)
        self.script("tool")
        service = self.start_service()

        def refused(known):
            self.assertEqual(self.call("tool"), f"False {os.getpid()}\n")
            return known.get("tool", {}).get("stamp")
        known = self.until_remembered(refused)
        self.assertIn("thread", known["tool"]["refusal"])
        os.unlink(customize)
        self.assertEqual({self.call("tool") for _ in range(3)}, {f"False {os.getpid()}\n"})
        os.utime(self.path("bin/tool"))
        self.make_warm(service, "tool")

    def test_what_starts_threads_is_not_learned(self):
        self.write("library/threads.py",
                   "import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n")
        self.script("tool", TOOL + "import threads\n")
        service = self.start_service()
        self.make_warm(service, "tool")

    def test_files_that_are_no_memory_of_commands_are_passed_over(self):
        self.script("tool")
        for text in ("", "[]", "{", '{"commands": [1, {}, {"interpreter": 5, "script": "/x"}, {"script": []}]}', "\0" * 9):
            self.write(f"state/warmfork/automatic-test-{os.getpid()}.json", text)
            service = self.start_service()
            for calls in range(1, 50):  # a service that is slow to answer may not have looked when it is to end
                self.call("tool")
                with contextlib.suppress(ValueError, TypeError, AttributeError, KeyError):
                    if "tool" in self.remembered():
                        break
            service.stop()
            self.assertIn(self.remembered()["tool"]["sightings"], range(1, calls + 1))

    def test_what_others_could_have_written_is_neither_read_nor_replaced(self):
        self.script("tool")
        service = self.start_service()
        self.make_warm(service, "tool")
        self.assertIn("tool_library", [module["module"] for module in self.automatic()["modules"]])
        os.chmod(self.path("state/warmfork/learned"), 0o777)
        self.assertIsNone(self.automatic()["modules"])
        service.stop()
        known = self.remembered()
        os.chmod(self.path("state/warmfork"), 0o777)
        self.start_service()
        for _ in range(3):
            self.call("tool")
        self.service.stop()
        self.assertEqual(self.remembered(), known)

    def test_commands_that_are_not_the_same_each_time_are_not_remembered(self):
        self.install("python3", "sh")
        self.script("tool", "#!/bin/sh\n", "/bin/sh")
        self.start_service()
        for _ in range(3):
            self.call("python3", "-c", "pass")
            self.call("python3", "-i", "/dev/null")
            self.call("python3", "/dev/null")
            self.call("sh", "-c", ":")
            self.call("tool")
        self.service.stop()
        self.assertFalse(os.path.exists(self.path("state")))

    def templates(self):
        """Processes of templates and spares, by the program that they are for."""
        found = set()
        for pid in os.listdir("/proc"):
            try:
                with open(f"/proc/{pid}/cmdline") as file:
                    arguments = file.read().split("\0")
                with open(f"/proc/{pid}/stat") as file:
                    parent = int(file.read().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            found |= {argument[6:] for argument in arguments
                      if parent == self.service.pid and argument.startswith("learn=")}
        return {name.rpartition("-")[0] for name in found}

    def test_the_least_recently_used_one_goes_first(self):
        self.write("config/warmforkd.toml", "limits_of_automatic.templates = 2\n")
        service = self.start_service()
        for name in ("one", "two"):
            self.script(name)
            self.make_warm(service, name)
        self.assertEqual(self.templates(), {"one", "two"})
        self.make_warm(service, "one")
        self.script("three")
        self.make_warm(service, "three")
        self.assertEqual(self.until({"one", "three"}.__eq__, self.templates), {"one", "three"})
        self.make_warm(service, "two")  # it comes back

    def test_one_that_runs_can_be_ended_by_its_name(self):
        service = self.start_service()
        self.script("one")
        self.make_warm(service, "one")
        name, = (found["name"] for found in json.loads(self.cli("template", "list", "--json"))["automatic"])
        self.cli("template", "stop", name)
        self.assertEqual(self.templates(), set())
        for verb in ("stop", "start", "reload"):  # there is none to be ended or started now
            done = subprocess.run([CLI, "template", verb, name], env=self.environment, capture_output=True, text=True)
            self.assertEqual(done.returncode, 1)
            self.assertIn(f"{self.path('bin/one')}. `warmfork template adopt {name}`", done.stderr)
        self.make_warm(service, "one")  # it comes back

    def test_what_takes_too_much_memory_goes(self):
        self.write("config/warmforkd.toml", 'limits_of_automatic.memory = "1M"\n')
        self.script("tool")
        self.start_service()
        self.until(lambda text: text != f"False {os.getpid()}\n", lambda: self.call("tool"))
        self.assertEqual(self.until(set().__eq__, self.templates), set())

    def first_run_of_an_empty_one(self):
        """The name of a tool that imports nothing, and has been a child of the service for the first time."""
        for number in range(20):  # a link that is not answered at once counts as a call as well
            name = f"tool{number}"
            self.script(name, "import os, sys\nprint(os.getppid())\n")
            if f"{self.service.pid}\n" in (self.call(name) for _ in range(4)):
                return name
        self.fail("no link was answered")

    def test_what_imports_nothing_has_a_template_only_when_it_is_called_often(self):
        service = self.start_service()
        name = self.first_run_of_an_empty_one()
        entry = self.until(lambda entry: entry["reason"], lambda: self.automatic(name))
        self.assertEqual((entry["state"], entry["age_seconds"]), ("cold", None))
        self.assertIn("imports nothing", entry["reason"])
        while self.automatic(name)["calls"] < 7:
            self.assertEqual(self.call(name), f"{os.getpid()}\n")
        self.assertEqual(self.templates(), set())
        warm = f"{service.pid}\n"
        self.assertEqual(self.until(warm.__eq__, lambda: self.call(name)), warm)

    def test_run_has_its_child_from_there(self):
        self.write("bin/tool", f"#!{PYTHON}\n{TOOL}")
        os.chmod(self.path("bin/tool"), 0o755)
        service = self.start_service()
        self.make_warm(service, CLI, "run", "--", "tool")
        self.make_warm(service, CLI, "run", "--", self.path("bin/tool"))
        self.assertEqual(self.automatic()["command"], f"{PYTHON} {self.path('bin/tool')}")
        # Who says what is to be preloaded, or which backend, has a template of its own, or none.
        for options in ("--preload", "json"), ("--python", PYTHON), ("--backend", "warm"), ("--backend", "cold"):
            seen = self.call(CLI, "run", *options, "--", "tool")
            self.assertNotEqual(seen.split()[1], str(service.pid), options)

    def automatic(self, name="tool"):
        """What `template list` says of it."""
        listed = json.loads(self.cli("template", "list", "--json"))["automatic"]
        entries = [entry for entry in listed if entry["name"].startswith(f"{name}-")]
        self.assertLessEqual(len(entries), 1)
        return entries[0] if entries else None

    def test_it_is_listed_with_what_it_preloads_and_costs(self):
        self.script("tool")
        self.script("other")
        service = self.start_service()
        began = int(time.time())
        self.call("other")
        self.make_warm(service, "tool")
        entry = self.until(lambda entry: entry["memory_kb"], self.automatic)  # measured once in a while
        self.assertEqual((entry["command"], entry["python"]), (f"{PYTHON} {self.path('bin/tool')}", PYTHON))
        self.assertEqual((entry["state"], entry["reason"]), ("ready", ""))
        modules = {module["module"]: module["seconds"] for module in entry["modules"]}
        self.assertLessEqual({"tool_library", "colorsys"}, modules.keys())
        self.assertAlmostEqual(entry["saves_seconds"], sum(modules.values()), delta=1e-5)
        self.assertGreater(entry["memory_kb"], 0)
        self.assertGreater(entry["age_seconds"], 0)
        self.assertGreaterEqual(entry["last_use"], began)
        self.assertRegex(self.cli("template", "list"), r"(?m)^tool-\w+ +ready .*tool_library.*bin/tool$")
        # What has been called once has none.
        self.assertNotIn("other-", self.cli("template", "list"))
        service.stop()
        self.start_service()
        entry = self.automatic()
        self.assertEqual((entry["state"], entry["age_seconds"], entry["memory_kb"]), ("idle", None, None))
        self.assertIn("tool_library", [module["module"] for module in entry["modules"]])

    def test_the_list_says_what_cannot_be_preloaded(self):
        self.write("library/threads.py",
                   "import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n")
        self.script("tool", TOOL + "import threads\n")
        self.make_warm(self.start_service(), "tool")
        (refused,) = [refused for refused in self.automatic()["refused"] if refused["module"] == "threads"]
        self.assertEqual(refused["reason"], "it starts threads")

    def test_the_list_says_why_a_command_is_cold(self):
        self.write("library/sitecustomize.py",
                   "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n")
        self.script("tool")
        self.start_service()
        self.call("tool")
        entry = self.until(lambda entry: entry and entry["reason"], lambda: self.call("tool") and self.automatic())
        self.assertEqual((entry["state"], entry["parked"]), ("cold", 0))
        self.assertIn("thread", entry["reason"])
        self.assertRegex(self.cli("template", "list"), r"(?m)^tool-\w+ +cold .*thread.*bin/tool$")

    def test_the_list_says_why_nothing_is_learned(self):
        """As on a full disk. Once there is room the next run is learned from."""
        learned = self.write("state/warmfork/learned", "")  # where there should be a folder
        self.script("tool")
        service = self.start_service()
        entry = self.until(lambda entry: entry and entry["reason"], lambda: self.call("tool") and self.automatic())
        self.assertEqual(entry["state"], "ready")
        self.assertIn(f"{learned}: Not a directory", entry["reason"])
        self.assertRegex(self.cli("template", "list"), r"(?m)^tool-\w+ +ready .*Not a directory.*bin/tool$")
        os.unlink(learned)
        self.make_warm(service, "tool")
        self.assertEqual(self.automatic()["reason"], "")

    def test_an_adopted_one_is_a_file_that_serves_the_same_command(self):
        self.script("tool")
        service = self.start_service()
        self.make_warm(service, "tool")
        name = self.automatic()["name"]
        file = self.path(f"config/templates.d/{name}.toml")
        self.assertEqual(self.cli("template", "adopt", name), f"{file}\n")
        with open(file) as written:
            text = written.read()
        self.assertRegex(text, r'(?m)^preload = \[.*"tool_library"')
        self.assertIn(f'python = "{PYTHON}"\n', text)
        self.assertEqual(json.loads(self.cli("template", "list", "--json"))["automatic"], [])
        self.make_warm(service, "tool")
        with open(file, "a") as written:
            written.write('links = ["other"]\n')
        self.script("other")
        self.cli("template", "reload", name)
        self.make_warm(service, "other")
        os.unlink(file)
        service.reload()
        self.assertEqual(self.automatic()["name"], name)
        self.make_warm(service, "tool")

    def test_what_cannot_be_adopted_leaves_no_file(self):
        self.write("library/sitecustomize.py",
                   "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n")
        self.script("tool")
        self.start_service()
        self.cli("template", "adopt", "tool", status=1)
        self.call("tool")
        self.until(lambda entry: entry and entry["state"] == "cold", lambda: self.call("tool") and self.automatic())
        self.cli("template", "adopt", self.automatic()["name"], status=1)
        self.assertEqual(os.listdir(self.path("config/templates.d")), [])

    def test_it_is_off_where_the_configuration_says_so(self):
        self.write("config/warmforkd.toml", "automatic = false\n")
        self.script("tool")
        self.start_service()
        self.assertEqual({self.call("tool") for _ in range(4)}, {f"False {os.getpid()}\n"})
        self.assertFalse(os.path.exists(self.path("state")))


if __name__ == "__main__":
    unittest.main()
