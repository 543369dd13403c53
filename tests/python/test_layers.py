"""Layers of the service: templates that are forked from another one and preload on top of it."""

import json
import os
import random
import select
import signal
import subprocess
import time
import unittest

import warmfork
from support import PYTHON, ServiceTestCase, warm_only

CLI = os.environ["WARMFORK_CLI"]

# A module that counts how often it was imported.
MODULE = """
with open({count!r}, "a") as file:
    file.write("x")
VALUE = {value!r}
"""

SHOW = "import base_part, top_part; print(base_part.VALUE, top_part.VALUE)"


def cli(*args, **options):
    return subprocess.run([CLI, *args], capture_output=True, text=True, **options)


def private_kilobytes(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        fields = dict(line.split(":") for line in file if ":" in line)
    return int(fields["Private_Dirty"].split()[0]) + int(fields["Private_Clean"].split()[0])


@warm_only
class Layers(ServiceTestCase):
    """Templates: base (base_part), top on base (top_part), whole (both at once)."""

    def setUp(self):
        super().setUp()
        self.write_module("base_part", "old")
        self.write_module("top_part", "old")
        self.define("base", preload=["base_part"])
        self.define("top", extends="base", preload=["top_part"])
        self.define("whole", preload=["base_part", "top_part"])

    def define(self, name, **keys):
        if "extends" not in keys:
            keys = {"python": PYTHON, "cwd": self.path("modules"), **keys}
        text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
        self.write(f"config/templates.d/{name}.toml", text)

    def write_module(self, name, value, more=""):
        self.write(f"modules/{name}.py", MODULE.format(count=self.path(f"{name}.count"), value=value) + more)

    def imports(self, name):
        return os.path.getsize(self.path(f"{name}.count"))

    def open(self, name="top", **options):
        template = warmfork.Template(name, **options)
        self.addCleanup(template.close)
        return template

    def run_python(self, template, program, backend="warm", **options):
        done = template.run([PYTHON, "-c", program], capture_output=True, text=True, backend=backend, **options)
        self.assertEqual(done.stderr, "")
        return done.stdout.strip()

    def pid_of(self, name):
        """Of the template whose last module is called so; its spares have another name."""
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with open(f"/proc/{self.service.pid}/task/{self.service.pid}/children") as file:
                children = file.read().split()
            for pid in children:
                try:
                    with open(f"/proc/{pid}/comm") as comm, open(f"/proc/{pid}/cmdline") as command:
                        if comm.read() != "warmfork-spare\n" and command.read().endswith(f"\0{name}_part\0"):
                            return int(pid)
                except (FileNotFoundError, ProcessLookupError):
                    pass  # has been reaped
            select.select([], [], [], 0.01)
        self.fail(f"no template {name} runs")

    def start_service(self):
        self.service = super().start_service()
        return self.service

    def kill(self, pid):
        pidfd = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        select.select([pidfd], [], [], 10)
        os.close(pidfd)


class Freshness(Layers):
    def test_a_layer_has_what_its_base_has_and_more(self):
        self.start_service()
        self.assertEqual(self.run_python(self.open(), SHOW), "old old")
        self.assertEqual((self.imports("base_part"), self.imports("top_part")), (1, 1))

    def test_an_edit_of_a_layers_file_imports_the_layer_only(self):
        self.start_service()
        template = self.open()
        self.assertEqual(self.run_python(template, SHOW), "old old")
        for number in range(5):
            self.write_module("top_part", f"new{number}")
            self.assertEqual(self.run_python(template, SHOW), f"old new{number}")
        self.assertEqual(self.imports("base_part"), 1)

    def test_what_a_base_has_looked_for_in_its_directory_counts_for_a_layer(self):
        self.write_module("base_part", "old", "import os\nVALUE = os.path.exists('flag')\n")
        self.write("elsewhere/flag", "")
        self.start_service()
        top = self.open(backend="auto")
        self.assertEqual(self.run_python(top, "import base_part; print(base_part.VALUE)"), "False")
        with top.popen([PYTHON, "-c", "pass"], cwd=self.path("elsewhere")) as child:
            self.assertEqual((child.wait(), child.reason_code), (0, "shadowed"))

    def test_what_has_the_list_of_arguments_in_a_base_or_a_layer_has_the_childs(self):
        for name in ("base_part", "top_part"):
            self.write_module(name, "old", "from sys import argv\n")
        self.start_service()
        program = "import base_part, sys, top_part; print(base_part.argv is sys.argv is top_part.argv)"
        self.assertEqual(self.run_python(self.open(), program), "True")

    def test_an_edit_of_a_bases_file_imports_both(self):
        self.start_service()
        base, top = self.open("base"), self.open("top")
        self.assertEqual(self.run_python(top, SHOW), "old old")
        for number in range(5):
            self.write_module("base_part", f"new{number}")
            self.assertEqual(self.run_python(top, SHOW), f"new{number} old")
            self.assertEqual(self.run_python(base, "import base_part; print(base_part.VALUE)"), f"new{number}")

    def test_what_may_be_cold_is_never_old(self):
        self.start_service()
        top = self.open()
        self.assertEqual(self.run_python(top, SHOW), "old old")
        for number in range(20):
            name = ("base_part", "top_part")[number % 2]
            self.write_module(name, f"new{number}")
            program = f"import {name}; print({name}.VALUE)"
            self.assertEqual(self.run_python(top, program, backend="auto", cwd=self.path("modules")), f"new{number}")

    def test_a_layer_never_begins_as_the_old_image_that_its_base_may_serve(self):
        self.define("base", preload=["base_part"], on_stale="serve")
        self.define("top", extends="base", preload=["top_part"], on_stale="wait")
        self.start_service()
        base, top = self.open("base"), self.open("top")
        self.assertEqual(self.run_python(top, SHOW), "old old")
        for number in range(3):
            self.write_module("base_part", f"new{number}")
            # Perhaps the old one; it does not end for the layer's sake.
            self.run_python(base, "import base_part")
            self.assertEqual(self.run_python(top, SHOW), f"new{number} old")

    def test_a_new_file_that_is_found_earlier_counts(self):
        self.write_module("base_part", "old", f"import sys; sys.path.append({self.path('last')!r})\n")
        self.write("last/late_part.py", "VALUE = 1")
        self.define("top", extends="base", preload=["late_part"])
        self.start_service()
        template = self.open()
        program = "import late_part; print(late_part.VALUE)"
        self.assertEqual(self.run_python(template, program), "1")
        self.write("modules/late_part.py", "VALUE = 2")
        self.assertEqual(self.run_python(template, "import sys; print(sys.modules['late_part'].VALUE)"), "2")

    def test_layers_have_layers(self):
        self.write_module("third_part", "old")
        self.define("third", extends="top", preload=["third_part"])
        self.start_service()
        template = self.open("third")
        program = SHOW + "; import third_part; print(third_part.VALUE)"
        self.assertEqual(self.run_python(template, program), "old old\nold")
        self.write_module("third_part", "new")
        self.assertEqual(self.run_python(template, program), "old old\nnew")
        self.assertEqual((self.imports("base_part"), self.imports("top_part")), (1, 1))
        self.write_module("top_part", "new")
        self.assertEqual(self.run_python(template, program), "old new\nnew")
        self.assertEqual(self.imports("base_part"), 1)
        self.write_module("base_part", "new")
        self.assertEqual(self.run_python(template, program), "new new\nnew")


class Environment(Layers):
    def test_what_the_base_has_read_makes_a_variant(self):
        self.write_module("base_part", "old", "import os; READ = os.environ.get('BASE_READS')\n")
        self.start_service()
        template = self.open()
        program = "import base_part; print(base_part.READ, 'top_part' in __import__('sys').modules)"
        self.assertEqual(self.run_python(template, program), "None True")
        for value in ("one", "two"):
            environment = {**os.environ, "BASE_READS": value}
            self.assertEqual(self.run_python(template, program, env=environment), f"{value} True")
        self.assertEqual(self.run_python(template, program), "None True")

    def test_what_the_layer_has_read_makes_a_variant_of_the_layer_only(self):
        self.write_module("top_part", "old", "import os; READ = os.environ.get('TOP_READS')\n")
        self.start_service()
        template = self.open()
        program = "import top_part; print(top_part.READ)"
        self.assertEqual(self.run_python(template, program), "None")
        environment = {**os.environ, "TOP_READS": "one"}
        self.assertEqual(self.run_python(template, program, env=environment), "one")
        self.assertEqual((self.imports("base_part"), self.imports("top_part")), (1, 2))

    def test_what_the_base_has_written_is_there(self):
        self.write_module("base_part", "old", "import os; os.environ['WRITTEN'] = 'base'\n")
        self.write_module("top_part", "old", "import os; os.environ['WRITTEN'] += ' top'; SEEN = dict(os.environ)\n")
        self.start_service()
        template = self.open()
        program = (
            "import os, ctypes, top_part; getenv = ctypes.CDLL(None).getenv; getenv.restype = ctypes.c_char_p\n"
            "print(os.environ['WRITTEN'], getenv(b'WRITTEN').decode(), os.environ.get('OWN'),"
            " sorted(name for name in top_part.SEEN if 'WARMFORK_CHANNEL' in name or name == 'LD_PRELOAD'))"
        )
        self.assertEqual(self.run_python(template, program, env={**os.environ, "OWN": "x"}), "base top base top x []")

    def test_other_options_of_the_interpreter_are_those_of_the_base_too(self):
        self.start_service()
        template = self.open()
        self.assertEqual(self.run_python(template, SHOW), "old old")
        done = template.run(
            [PYTHON, "-O", "-c", "import sys; print(sys.flags.optimize, 'top_part' in sys.modules)"],
            capture_output=True, text=True, backend="warm",
        )
        self.assertEqual((done.stdout, done.stderr), ("1 True\n", ""))


class Images(Layers):
    """A child of a layer is as one of a template that has preloaded everything at once."""

    def both(self, program, **options):
        return [self.run_python(self.open(name), program, **options) for name in ("top", "whole")]

    def test_what_hangs_on_modules_of_either_layer_ends_as_in_a_cold_child(self):
        self.write_module("top_part", "old", "class Class:\n    def method(self): return Class\nkept = {}\n")
        self.write_module("base_part", "old", "class Class:\n    def method(self): return Class\n")
        self.start_service()
        template = self.open()
        loud = (
            "import os, base_part, top_part\nclass Loud:\n    def __init__(self, name): self.name = name\n"
            "    def __del__(self): os.write(1, self.name)\n"
        )
        for place in ("base_part.Class.x", "top_part.Class.x", "base_part.x", "top_part.kept['x']"):
            with self.subTest(place):
                program = f"{loud}{place} = Loud(b'end')"
                self.assertEqual(self.run_python(template, program), "end")
        self.assertEqual(self.run_python(template, loud), "")

    def test_state_of_the_interpreter(self):
        self.start_service()
        for what in (
            "sorted(sys.modules)", "sys.path", "sys.argv", "sys.orig_argv", "sys.executable", "dict(os.environ)",
            "os.getcwd()", "sorted(vars(sys.modules['__main__']))", "sys.warnoptions", "[thread.name for thread in threading.enumerate()]",
            "{n: signal.getsignal(n) for n in signal.valid_signals()}", "sorted(os.listdir('/proc/self/fd'))",
            "[type(f) for f in sys.meta_path]", "sorted(sys.path_importer_cache)", "os.getpgrp() == os.getpid()",
            "[(s.name, s.encoding, s.line_buffering) for s in (sys.stdin, sys.stdout, sys.stderr)]",
            "open('/proc/self/comm').read()", "open('/proc/self/cmdline').read()",
        ):
            with self.subTest(what):
                of_layer, of_whole = self.both(f"import os, signal, sys, threading\nprint({what})")
                self.assertEqual(of_layer, of_whole)

    def test_changes_of_the_path(self):
        self.write_module("base_part", "old", "import sys; sys.path.insert(0, '/base/first'); sys.path.append('/base/last')\n")
        self.write_module("top_part", "old", "import sys; sys.path.insert(0, '/top/first'); sys.path.append('/top/last')\n")
        self.start_service()
        of_layer, of_whole = self.both("import sys; print(sys.path)")
        self.assertEqual(of_layer, of_whole)

    def test_thread_locals_and_context_variables(self):
        state = (
            "import threading, contextvars\n"
            "local = threading.local(); local.value = 1\nvariable = contextvars.ContextVar('v'); variable.set(2)\n"
        )
        self.write_module("base_part", "old", state)
        self.write_module("top_part", "old", state + "import base_part; base_part.variable.set(3)\n")
        self.start_service()
        program = (
            "import base_part as b, top_part as t\n"
            "print(b.local.value, b.variable.get(), t.local.value, t.variable.get())"
        )
        self.assertEqual(self.both(program), ["1 3 1 2"] * 2)

    def test_siblings_share_no_random_stream(self):
        self.write_module("base_part", "old", "import random\nSTREAM = random.Random()\n")
        self.start_service()
        template = self.open()
        program = "import base_part, random; print(base_part.STREAM.random(), random.random())"
        seen = [self.run_python(template, program).split() for _ in range(4)]
        for streams in zip(*seen):
            self.assertEqual(len(set(streams)), 4)

    def test_a_seed_that_a_module_has_given_is_kept(self):
        self.write_module("base_part", "old", "import random; random.seed(1)\n")
        self.start_service()
        program = "import base_part, random; print(random.random())"
        self.assertEqual(self.both(program), [str(random.Random(1).random())] * 2)

    def test_what_getenv_has_returned_stays(self):
        more = (
            "import ctypes\ngetenv = ctypes.CDLL(None).getenv\ngetenv.restype = ctypes.c_void_p\n"
            "KEPT = getenv(b'PATH')\n"
        )
        self.write_module("top_part", "old", more)
        self.start_service()
        program = "import top_part, ctypes; print(ctypes.string_at(top_part.KEPT).decode())"
        environment = {"XXXX": "y" * 2000, **os.environ}
        self.assertEqual(self.run_python(self.open(), program, env=environment), os.environ["PATH"])

    def test_hooks_of_the_layer_replace_those_of_the_base(self):
        self.write_module("base_part", "old", "CALLS = []\ndef note(): CALLS.append('base')\n")
        self.write_module("top_part", "old", "import base_part\ndef note(): base_part.CALLS.append('top')\n")
        self.define("base", preload=["base_part"], in_child="base_part:note")
        self.define("plain", extends="base", preload=["top_part"])
        self.define("top", extends="base", preload=["top_part"], in_child="top_part:note")
        self.start_service()
        program = "import base_part; print(base_part.CALLS)"
        for name, calls in (("base", "['base']"), ("plain", "['base']"), ("top", "['top']")):
            with self.subTest(name):
                self.assertEqual(self.run_python(self.open(name), program), calls)

    def test_a_layer_may_have_another_directory(self):
        self.write("elsewhere/top_part.py", "import os; VALUE = os.getcwd()")
        self.define("top", extends="base", preload=["top_part"], cwd=self.path("elsewhere"))
        self.start_service()
        program = "import sys; print(sys.modules['top_part'].VALUE, sys.path)"
        expected = self.run_python(self.open("base"), "import sys; print(sys.path)")
        done = self.run_python(self.open(), program, cwd=self.path("elsewhere"))
        self.assertEqual(done, f"{self.path('elsewhere')} {expected}")

    def test_memory_is_the_bases(self):
        size = 64 << 20
        self.write_module("base_part", "old", f"TABLE = bytes(range(256)) * ({size} >> 8)\n")
        self.start_service()
        self.assertEqual(self.run_python(self.open(), "import base_part; print(len(base_part.TABLE))"), f"{size}")
        self.assertLess(private_kilobytes(self.pid_of("top")), size >> 12)

    def test_files_that_the_base_has_opened_stay_open(self):
        self.write_module("base_part", "old", "FILE = open(__file__)\n")
        self.write_module("top_part", "old", "FILE = open(__file__)\n")
        self.start_service()
        program = "import base_part, top_part; print(len(base_part.FILE.read()) > 9, len(top_part.FILE.read()) > 9)"
        self.assertEqual(self.run_python(self.open(), program), "True True")


class CommandLine(Layers):
    def test_a_reload_of_the_base_renews_its_layers(self):
        self.start_service()
        template = self.open()
        self.assertEqual(self.run_python(template, SHOW), "old old")
        self.define("base", preload=["base_part", "fractions"])
        self.assertEqual(cli("template", "reload", "base").returncode, 0)
        program = "import sys; print('fractions' in sys.modules, 'top_part' in sys.modules)"
        self.assertEqual(self.run_python(template, program), "True True")

    def test_a_stopped_base_leaves_its_layers_alone(self):
        self.start_service()
        template = self.open()
        self.assertEqual(self.run_python(template, SHOW), "old old")
        self.assertEqual(cli("template", "stop", "base").returncode, 0)
        self.assertEqual(self.run_python(template, SHOW), "old old")
        self.assertEqual(self.imports("base_part"), 1)

    def test_a_layer_is_started_ahead_of_need(self):
        self.start_service()
        done = cli("template", "start", "top")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.pid_of("top")

    def test_lists_show_what_a_template_extends(self):
        self.start_service()
        listed = {t["name"]: t["extends"] for t in json.loads(cli("template", "list", "--json").stdout)["templates"]}
        self.assertEqual((listed["top"], listed["base"]), ("base", ""))
        self.assertIn('extends = "base"', cli("template", "show", "--config", self.path("config"), "top").stdout)


if __name__ == "__main__":
    unittest.main()
