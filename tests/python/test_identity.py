"""What preloaded modules take from the process that imports them, or do beyond it: children have their own, or are
cold, and the module is named."""

import contextlib
import importlib.util
import json
import os
import re
import subprocess
import time
import types
import unittest
import unittest.mock

import warmfork
from support import BACKEND, PYTHON, TestCase, warm_only

HAS_NUMPY = importlib.util.find_spec("numpy") is not None
HAS_TITLES = importlib.util.find_spec("setproctitle") is not None

# Modules that each cold child would have otherwise: (source, name by which they are allowed, word of the reason).
KEPT = {
    "process id": ("import os\nID = os.getpid()", "identity:kept", "process id in kept.ID"),
    "process id in a text": ("import os\nclass Log:\n    path = f'/tmp/log-{os.getpid()}'", "identity:kept", "kept.Log"),
    "process id in a default": ("import os\ndef f(me=os.getpid()): return me", "identity:kept", "kept.f"),
    "thread id": ("import threading\nID = [threading.get_native_id()]", "identity:kept", "process id in kept.ID"),
    "time": ("import time\nBEGAN = time.time()", "identity:kept", "time in kept.BEGAN"),
    "date": ("import datetime\nBEGAN = {'at': datetime.datetime.utcnow()}", "identity:kept", "time in kept.BEGAN"),
    "clock": ("import time\nBEGAN = time.monotonic()", "identity:kept", "time in kept.BEGAN"),
    "token": ("import secrets\nTOKEN = secrets.token_hex()", "identity:kept", "random bytes in kept.TOKEN"),
    "id": ("import uuid\nID = uuid.uuid4()", "identity:kept", "random bytes in kept.ID"),
    "arguments": ("import sys\nGIVEN = list(sys.argv)", "identity:kept", "arguments in kept.GIVEN"),
    "arguments in a default": (
        "import sys\ndef main(argv=sys.argv[1:]): print(argv)", "identity:kept", "arguments in kept.main"
    ),
    "list of arguments in a tuple": ("import sys\nGIVEN = (sys.argv, 1)", "identity:sys", "keeps sys.argv"),
    "encoded arguments": ("import os, sys\nGIVEN = [os.fsencode(a) for a in sys.argv]", "identity:kept", "kept.GIVEN"),
    "program's name": ("import argparse\nparser = argparse.ArgumentParser()", "identity:kept", "arguments in kept.parser"),
    "output": ("print('hello from', __name__)", "output:kept", "hello from kept"),
    "unbuffered output": ("import os\nos.write(2, b'oh')", "output:kept", "'oh'"),
    "output of a library in C": (
        # Python has it unbuffered where PYTHONUNBUFFERED is set.
        "import ctypes\nc, room = ctypes.CDLL(None), ctypes.create_string_buffer(4096)\n"
        "c.setvbuf(ctypes.c_void_p.in_dll(c, 'stdout'), room, 0, 4096)\nc.puts(b'from C')", "output:kept", "'from C'",
    ),
    "output by the name of the stream": ("open('/dev/stdout', 'w').write('hello anew')", "output:kept", "hello anew"),
    "output that is gone": ("with open('/dev/stdout', 'w'): pass", "output:kept", "kept wrote"),
    "program": ("import subprocess\nOUT = subprocess.run(['true'])", "program:kept", "a program was started"),
    "program without a wait": ("import os\nos.posix_spawn('/bin/true', ['true'], {})", "program:", "still runs: "),
    "temporary directory": (
        "import tempfile\nFOLDER = tempfile.TemporaryDirectory(dir='.')", "identity:kept", "kept has made /",
    ),
    "directory with a temporary name": (
        "from tempfile import mkdtemp\nFOLDER = mkdtemp(dir='.', prefix='mine')", "identity:kept", "/mine",
    ),
    "named temporary file": (
        "import tempfile\nFILE = tempfile.NamedTemporaryFile(delete=False, dir='.')\nFILE.close()", "identity:kept",
        "kept has made /",
    ),
    "name of a temporary file": (
        "import os, tempfile\nfile, NAME = tempfile.mkstemp(dir='.')\nos.close(file)", "identity:kept", "kept has made /",
    ),
    "file": ("F = open('kept.log', 'w')", "descriptor:/", "kept.log"),
    "closed file": ("open('out.log', 'w').close()", "directory:./out.log", "when kept was imported"),
    "file in a directory that it makes": (
        "import pathlib\nf = pathlib.Path('d/f')\nf.parent.mkdir()\nf.write_text('x')", "directory:./d/f", "d/f was",
    ),
    "file that is opened by number": (
        "import os\nos.close(os.open('q', os.O_CREAT | os.O_WRONLY))", "directory:./q", "q was made",
    ),
    "file under a new name": ("import os\nopen('a', 'a').close()\nos.rename('a', 'b')", "directory:./b", "b was made"),
    "file under a new name, by another call": (
        "import ctypes\nopen(__file__ + '.t', 'w').close()\n"
        "ctypes.CDLL(None).renameat2(-100, (__file__ + '.t').encode(), -100, b'r', 0)", "directory:./r", "r was made",
    ),
    "file of mknod": ("import os\nos.mknod('n')", "directory:./n", "n was made"),
    "file whose mode is changed": (
        "import os\nopen(os.path.abspath('m'), 'w').close()\nos.chmod('m', 0o600)", "directory:./m", "m was made",
    ),
    "more files than are noted": (
        "import os\nfor number in range(300): open(f'{number}', 'w').close()\n"
        "for number in range(256): os.remove(f'{number}')", "directory:./*", "more than can be noted was",
    ),
    "symbolic link": ("import os\nos.symlink('/nowhere', 'l')", "directory:./l", "l was made"),
    "file of a library in C": (
        "import ctypes\nc = ctypes.CDLL(None)\nc.fopen.restype = ctypes.c_void_p\n"
        "c.fclose.argtypes = [ctypes.c_void_p]\nc.fclose(c.fopen(b'c', b'w'))", "directory:./c", "c was made",
    ),
}
KEPT.update({
    name: (source, "identity:kept", "random bytes in kept.VALUE") for name, source in {
        "token after many draws": "import os\nfor _ in range(2000): os.urandom(4)\nVALUE = os.urandom(16)",
        "token after a large draw": "import os\nos.urandom(1 << 16)\nVALUE = os.urandom(16)",
        "large token": "import os\nVALUE = [os.urandom(300)]",
        "long text": "import secrets\nVALUE = secrets.token_hex(150)",
        "text with a token": "import secrets\nVALUE = 'run' + secrets.token_hex(8)",
        "text with an id": "import uuid\nVALUE = f'of-{uuid.uuid4()}.log'",
        "part of an id": "import uuid\nVALUE = 'id' + uuid.uuid4().hex[:8]",
        "base64": "import base64, os\nVALUE = base64.b64encode(os.urandom(24))",
        "text with base64": "import secrets\nVALUE = 'token=' + secrets.token_urlsafe()",
        "random fraction": "import random\nVALUE = random.SystemRandom().random()",
        "random number": "import secrets\nVALUE = secrets.randbits(61)",
    }.items()
})
KEPT.update({
    name: (source, "identity:kept", "kept has had random bytes") for name, source in {
        "random bytes of a file": "with open('/dev/urandom', 'rb', 0) as file: VALUE = file.read(16)",
        "id of a file": "VALUE = open('/proc/sys/kernel/random/uuid').read()",
        "too many random bytes": "import os\nVALUE = os.urandom(1 << 21)[:16]",
        "random bytes of a file in an open directory": (
            "import os\nVALUE = os.read(os.open('urandom', os.O_RDONLY, dir_fd=os.open('/dev', os.O_RDONLY)), 16)"
        ),
        "random bytes of a file by a link": (
            "import os\nos.symlink('/dev/random', 'link')\nVALUE = open('link', 'rb', 0).read(16)\nos.remove('link')"
        ),
    }.items()
})
# Shorter ones are too often a part of other numbers.
KEPT["process id in front of other digits"] = (
    "import os\nPATH = f'/tmp/log-{os.getpid()}' + '7' * (os.getpid() >= 1000)", "identity:kept", "kept.PATH",
)

AT_START = {
    "open('startup.log', 'a').write('started')": "startup.log",
    "import subprocess; subprocess.run(['/bin/true'])": "has a program run",
    "print('started')": "writes something",
}

# They ask, and keep nothing of it.
HARMLESS = {
    "asks for the process id": "import os\nHAS_PID = os.getpid() > 0\nNUMBER = 3",
    "asks for the time": "import time\nif time.time() < 0: raise SystemExit\nLIMIT = 5.0",
    "has the list of arguments": "from sys import argv",
    "has and looks at the list of arguments": "import sys\ndef main(argv=sys.argv): pass\nlen(sys.argv)",
    "looks at the arguments": "import sys\nIS_TEST = 'test' in sys.argv or '-x' in sys.argv[1:]",
    "draws random bytes": "import os, random\nos.urandom(16)\nrandom.random()",
    "looks whether there are random bytes": "import os\nHAS_FILE = os.path.exists('/dev/urandom')",
    "draws random bytes, and has texts": "import os\nos.urandom(16)\nWORDS = 'deadbeef' * 20, 'an_identifier_of_ours'",
    "asks for the machine": "import platform\nPROCESSOR = platform.processor()",
    "looks for a library": "import ctypes.util\nHAS_LIBRARY = ctypes.util.find_library('c') is not None",
    "writes and closes a file": "import tempfile\nwith tempfile.TemporaryFile() as file: file.write(b'x')",
    "asks for the directory of temporary files": "import tempfile\nWHERE = tempfile.gettempdir()",
    "tries a lock": "import multiprocessing\nmultiprocessing.get_context('spawn').Lock()",
    "removes what it has made": (
        "import tempfile\n"
        "with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile(dir=folder): pass"
    ),
    "removes what it has made in its directory": "import os\nopen('gone', 'w').close()\nos.remove('gone')",
    "calls functions of C without a path or a name": (
        "import ctypes\nc = ctypes.CDLL(None)\nc.open(None, 0), c.openat(-100, None, 0), c.fopen(None, b'r')\n"
        "c.setenv(None, b'', 0), c.unsetenv(None)"
    ),
    "makes what has an absolute path": "import os\nos.mkdir(__file__ + '.d')\nopen(__file__ + '.f', 'w').close()",
}


class Importing(TestCase):
    files = {}

    def importing(self, source, **options):
        """A template of the module kept, in a directory with `files`, and the environment for its children."""
        folder = self.folder({"kept.py": source + "\n"})
        self.work = self.folder(self.files)
        env = {**os.environ, "PYTHONPATH": folder}
        return self.template(["kept"], env=env, cwd=self.work, **options), env

    def run_in(self, template, program, env, *arguments, **options):
        return template.run(
            [PYTHON, "-c", "import kept\n" + program, *arguments], env=env, capture_output=True, text=True, **options
        )


class Kept(Importing):
    def test_what_is_kept_is_refused_by_name_and_can_be_allowed(self):
        for name, (source, allowed, reason) in KEPT.items():
            with self.subTest(name):
                template, _ = self.importing(source)
                with self.assertRaises(warmfork.TemplateError) as caught:
                    template.wait_ready()
                self.assertEqual(caught.exception.stage, "gate")
                # What is said where the template's own id is a small number.
                told = re.sub(r" \(\d+, which may be there by chance\)", "", str(caught.exception))
                self.assertIn(reason, told)
                if ":/" not in allowed:
                    self.assertIn(f'"{allowed}"', str(caught.exception))
                template, _ = self.importing(source, allow=[allowed])
                template.wait_ready()
                found = template.report()["findings"]
                self.assertEqual([entry["allow"] for entry in found], [] if ":/" in allowed else [allowed])

    def test_a_process_that_holds_what_another_one_waits_for_is_named(self):
        source = (
            "import multiprocessing, os, time\nmultiprocessing.get_context('spawn').Lock()\nparent = os.getpid()\n"
            "if os.fork() == 0:\n    while os.getppid() == parent: time.sleep(0.05)\n    os._exit(0)\n"
        )
        template, _ = self.importing(source, waits=False)
        with self.assertRaisesRegex(warmfork.TemplateError, "still runs: .*multiprocessing"):
            template.wait_ready(timeout=60)

    def test_what_is_imported_when_the_interpreter_starts_is_looked_through_as_well(self):
        sources = "import os\nVALUE = os.getpid()", "import time\nVALUE = time.time()", "import uuid\nVALUE = [uuid.uuid4()]"
        for source in sources:
            with self.subTest(source):
                env = {**os.environ, "PYTHONPATH": self.folder({"sitecustomize.py": source + "\n"})}
                if "pid" not in source or os.getpid() >= 1000:  # smaller ones may be there by chance
                    with self.assertRaisesRegex(warmfork.TemplateError, "sitecustomize.VALUE"):
                        self.template(["json"], env=env).wait_ready()
                self.template(["json"], env=env, allow=["identity:sitecustomize"]).wait_ready()

    def test_on_a_machine_that_has_just_started_small_numbers_are_no_times(self):
        program = (
            "import sys, warmfork\n"
            "with warmfork.Template(['json']) as template:\n"
            "    try: template.wait_ready()\n"
            "    except warmfork.TemplateError as error: print('sitecustomize.VALUE' in str(error))\n"
            "    else: print(template.run([sys.executable, '-c', ''], backend='warm').returncode)\n"
        )
        began = 10 - int(time.clock_gettime(time.CLOCK_BOOTTIME)), 10 - int(time.monotonic())
        confine = ["unshare", "--time", f"--boottime={began[0]}", f"--monotonic={began[1]}", "--fork"]
        if subprocess.run([*confine, "true"], stderr=subprocess.DEVNULL).returncode:
            self.skipTest("a namespace of clocks cannot be made here")
        for source, expected in (("VALUE = 1.5", "0"), ("import time\nVALUE = time.monotonic()", "True")):
            with self.subTest(source):
                path = f"{self.folder({'sitecustomize.py': source})}:{os.path.dirname(os.path.dirname(warmfork.__file__))}"
                command = [*confine, PYTHON, "-c", program]
                done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
                self.assertEqual((done.stdout, done.stderr), (expected + "\n", ""))

    @warm_only
    def test_children_are_cold_then(self):
        template, env = self.importing(KEPT["process id"][0])
        done = self.run_in(template, "import os; print(kept.ID == os.getpid())", env)
        self.assertEqual(done.stdout, "True\n")
        self.assertEqual(template.counts["reasons"], {"gate": 1})

    def test_what_site_does_is_what_each_interpreter_would_do(self):
        for source, reason in AT_START.items():
            with self.subTest(source):
                folder = self.folder({"sitecustomize.py": source})
                env = {**os.environ, "PYTHONPATH": folder}
                template = self.template(["json"], env=env, cwd=self.folder({}), waits=False)
                with self.assertRaisesRegex(warmfork.TemplateError, reason):
                    template.wait_ready()

    def test_each_child_has_a_temporary_directory_of_its_own(self):
        template, env = self.importing("import tempfile\nKEEPER = tempfile.TemporaryDirectory(dir='.')")
        names = set()
        for _ in range(3):
            program = "import os; print(kept.KEEPER.name, os.path.isdir(kept.KEEPER.name))"
            name, is_there = self.run_in(template, program, env, cwd=self.work).stdout.split()
            names.add(name)
            self.assertEqual(is_there, "True")
        self.assertEqual(len(names), 3)
        template.close()
        self.assertEqual(os.listdir(self.work), [])

    def test_a_package_is_allowed_with_all_that_is_in_it(self):
        folder = self.folder({"parts/__init__.py": "", "parts/deep.py": "import os\nID = os.getpid()\n"})
        env = {**os.environ, "PYTHONPATH": folder}
        self.template(["parts.deep"], env=env, allow=["identity:parts"]).wait_ready()
        with self.assertRaisesRegex(warmfork.TemplateError, "identity:parts.deep"):
            self.template(["parts.deep"], env=env, allow=["identity:part"]).wait_ready()

    def test_who_only_asks_is_preloaded(self):
        for name, source in HARMLESS.items():
            with self.subTest(name):
                template, env = self.importing(source, backend="warm")
                self.assertEqual(self.run_in(template, "print('ran')", env).stdout, "ran\n")

    def test_a_number_of_the_package_itself_is_no_process_id_however_small_that_is(self):
        from warmfork import _owner
        from warmfork._in_template import _kept, _observer

        seen = {"warmfork._owner": _observer.Seen([1] * len(_observer.KINDS), (0, 0), (0, 0), 0)}
        with unittest.mock.patch("os.getpid", return_value=_owner._READY_PATIENCE):
            self.assertEqual(_kept.find_kept(seen, "", []), {})

    def test_more_objects_than_are_looked_at_are_told(self):
        from warmfork._in_template import _kept, _observer

        module = types.ModuleType("many")
        module.__file__ = "many.py"  # by which older interpreters tell the standard library
        module.first, module.second = [[], [], []], [[]]
        seen = {"many": _observer.Seen([1] * len(_observer.KINDS), (0, 0), (0, 0), 0)}
        with unittest.mock.patch.dict("sys.modules", many=module):
            self.assertEqual(_kept.find_kept(seen, "", []), {})
            with unittest.mock.patch.object(_kept, "_MOST_OBJECTS", 3):
                self.assertEqual(_kept.find_kept(seen, "", []), {"many": {"first": _kept.UNSEARCHED}})

    def test_the_report_tells_who_has_asked(self):
        template, _ = self.importing(HARMLESS["asks for the process id"])
        template.wait_ready()
        self.assertIn({"module": "kept", "for": ["process id"]}, template.report()["host"]["asked"])

    def test_who_has_the_list_of_arguments_sees_the_childs(self):
        template, env = self.importing("from sys import argv", backend="warm")
        program = "import sys; print(kept.argv is sys.argv, type(kept.argv), kept.argv)"
        self.assertEqual(self.run_in(template, program, env, "x").stdout, "True <class 'list'> ['-c', 'x']\n")

    def test_the_list_of_arguments_is_the_childs_wherever_a_module_has_it(self):
        source = (
            "import sys\n"
            "def outer(argv):\n"
            "    return lambda: argv\n"
            "def main(argv=sys.argv, *, more=sys.argv): return argv, more\n"
            "class Command:\n"
            "    argv = sys.argv\n"
            "    def __init__(self): self.own = sys.argv\n"
            "inner, command, parts, by_name = outer(sys.argv), Command(), [1, sys.argv], {'argv': sys.argv}\n"
            "Command.argv\n"
        )
        program = (
            "import sys; found = [*kept.main(), kept.Command.argv, kept.command.argv, kept.command.own, kept.inner(),"
            " kept.parts[1], kept.by_name['argv']]\n"
            "print([argv is sys.argv for argv in found].count(True), len(found), found[0])"
        )
        template, env = self.importing(source, backend="warm")
        self.assertEqual(self.run_in(template, program, env, "x").stdout, "8 8 ['-c', 'x']\n")

    def test_nothing_of_a_main_module_is_kept(self):
        main = (
            "import multiprocessing, os, sys, warmfork.multiprocessing\n"
            "ID = os.getpid()\n"
            "def target(pipe): pipe.send((ID == os.getpid(), warmfork.multiprocessing is not None))\n"
            "if __name__ == '__main__':\n"
            "    context = warmfork.get_context()\n"
            "    context.template.wait_ready()\n"
            "    ours, theirs = context.Pipe()\n"
            "    process = context.Process(target=target, args=(theirs,))\n"
            "    process.start()\n"
            "    print(ours.recv(), process.backend)\n"
            "    process.join()\n"
        )
        folder = self.folder({"main.py": main})
        done = subprocess.run([PYTHON, os.path.join(folder, "main.py")], capture_output=True, text=True, timeout=60)
        self.assertEqual((done.stdout, done.stderr), (f"(True, True) {BACKEND}\n", ""))


# Modules that are other ones where they are imported in another directory: (source, name by which that is allowed).
IN_DIRECTORY = {
    "the directory": ("import os\nVALUE = os.getcwd()", "directory:kept"),
    "in bytes": ("import os\nVALUE = os.fsdecode(os.getcwdb())\nOTHER = [os.getcwdb()]", "directory:kept"),
    "a path in it": ("import os\nVALUE = os.path.abspath('log')", "directory:kept"),
    "a path object in it": ("import pathlib\nPATH = pathlib.Path('log').absolute()\nVALUE = str(PATH)[1:]", "directory:kept"),
    "a default": ("import os\ndef f(where=os.getcwd()): return where\nVALUE = f()[1:]", "directory:kept"),
    "a file that is there": ("VALUE = open('file').read()", "directory:./file"),
    "a file by the kernel's link": ("VALUE = open('/proc/self/cwd/file').read()", "directory:./file"),
    "whether a file is there": ("import os\nVALUE = os.path.exists('only')", "directory:./only"),
    "a directory that it makes": (
        "import os\nos.makedirs('made', exist_ok=True)\nVALUE = os.path.isdir('made')", "directory:./made",
    ),
    "a listing": ("import os\nVALUE = sorted(os.listdir())", "directory:./."),
}


class Directory(Importing):
    files = {"file": "of the template"}

    def setUp(self):
        super().setUp()
        self.other = self.folder({"file": "of another", "only": ""})

    def served(self, template, env, directory):
        """How the spawn was served, and what the child has."""
        command = [PYTHON, "-c", "import kept; print(kept.VALUE)"]
        with template.popen(command, env=env, cwd=directory, stdout=subprocess.PIPE, text=True) as child:
            return child.backend, child.communicate()[0], child.reason_code, child.reason

    @warm_only
    def test_a_child_has_what_is_in_its_own(self):
        for name, (source, allowed) in IN_DIRECTORY.items():
            with self.subTest(name):
                template, env = self.importing(source)
                value = {
                    directory: subprocess.run(
                        [PYTHON, "-c", "import kept; print(kept.VALUE)"], env=env, cwd=directory, capture_output=True,
                        text=True,
                    ).stdout
                    for directory in (self.work, self.other)
                }
                self.assertEqual(self.served(template, env, self.work), ("warm", value[self.work], "none", ""))
                *served, reason = self.served(template, env, self.other)
                self.assertEqual(served, ["cold", value[self.other], "shadowed"])
                self.assertIn("kept" if allowed == "directory:kept" else allowed[len("directory:./"):], reason)
                self.assertEqual(template.report()["directory"], [allowed])
                template, env = self.importing(source, allow=[allowed])
                self.assertEqual(self.served(template, env, self.other)[0], "warm")

    @warm_only
    def test_where_nothing_differs_it_is_warm(self):
        for source in (
            "import os\nVALUE = os.path.exists('neither')",
            "import os\nos.getcwd()\nVALUE = os.path.dirname(__file__)",
            "VALUE = open('same').read()",
        ):
            with self.subTest(source):
                template, env = self.importing(source)
                for directory in (self.work, self.other):
                    path = os.path.join(directory, "same")
                    if not os.path.lexists(path):
                        os.symlink(__file__, path)
                for directory in (self.work, self.other):
                    self.assertEqual(self.served(template, env, directory)[0], "warm")

    @warm_only
    def test_what_would_be_removed_in_another_directory_is_not_left_there(self):
        template, env = self.importing("import os\nopen('only', 'w').close()\nos.remove('only')\nVALUE = 'ran'")
        self.assertEqual(self.served(template, env, self.work)[0], "warm")
        self.assertEqual(self.served(template, env, self.other)[:3], ("cold", "ran\n", "shadowed"))
        self.assertEqual(os.listdir(self.other), ["file"])
        self.assertEqual(self.served(template, env, self.other)[0], "warm")

    @warm_only
    def test_made_files_that_cannot_be_looked_at_are_not_said_to_be_none(self):
        from warmfork._in_template import _findings

        made = [("/made", "made")], True
        with unittest.mock.patch.multiple(
            _findings._native, made=lambda: made, descriptors_in_the_way=unittest.mock.Mock(side_effect=OSError)
        ), self.assertRaises(OSError):
            _findings.made_files()

    def test_each_child_makes_the_files_of_its_own_directory(self):
        template, env = self.importing("open('log', 'a').write('x')\nVALUE = 'ran'")
        for directory, length in ((self.work, 2), (self.other, 1), (self.other, 2)):
            self.assertEqual(self.served(template, env, directory)[:3], ("cold", "ran\n", "gate"))
            self.assertEqual(os.stat(os.path.join(directory, "log")).st_size, length)

    def test_what_is_known_to_keep_it_has_the_childs(self):
        folder = self.folder({"rich.py": "import os\n_IMPORT_CWD = os.path.abspath(os.getcwd())\n"})
        env = {**os.environ, "PYTHONPATH": folder}
        template = self.template(["rich"], env=env, backend="warm")
        command = [PYTHON, "-c", "import rich; print(rich._IMPORT_CWD)"]
        self.assertEqual(template.run(command, env=env, cwd="/usr", capture_output=True, text=True).stdout, "/usr\n")

    def test_arguments_that_a_module_is_known_to_keep_are_the_childs(self):
        folder = self.folder({"mercurial/__init__.py": "", "mercurial/pycompat.py":
                              "import os, sys\nsysargv = [os.fsencode(argument) for argument in sys.argv]\n"})
        env = {**os.environ, "PYTHONPATH": folder}
        template = self.template(["mercurial.pycompat"], env=env, backend="warm")
        command = [PYTHON, "-c", "from mercurial.pycompat import sysargv; print(sysargv)", "log", "\udcff"]
        expected = subprocess.run(command, env=env, capture_output=True).stdout
        self.assertEqual(template.run(command, env=env, capture_output=True).stdout, expected)

    @warm_only
    def test_a_key_that_a_module_is_known_to_keep_is_another_in_each_child(self):
        source = "import os\ndef new_id_bytes(): return os.urandom(16).hex().encode()\nsession_flags = {{'secure': ({}, '')}}\n"
        settings = "{'Session': {'key': new_id_bytes()}}"
        for kept, expected in ((settings, (2, "warm")), (f"[{settings}]", (2, "cold"))):
            with self.subTest(kept=kept):
                folder = self.folder({"jupyter_client/__init__.py": "", "jupyter_client/session.py": source.format(kept)})
                env = {**os.environ, "PYTHONPATH": folder}
                template = self.template(["jupyter_client.session"], env=env)
                with contextlib.suppress(warmfork.TemplateError):  # as it keeps the key where nobody looks for it
                    template.wait_ready()
                command = [PYTHON, "-c", "from jupyter_client import session; print(session.session_flags)"]
                children = [template.popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
                shown = {child.communicate()[0] for child in children}
                self.assertEqual((len(shown), children[1].backend), expected)

    @warm_only
    def test_a_template_in_the_root_directory(self):
        folder = self.folder({"kept.py": "import os\nVALUE = os.path.abspath('log')\n"})
        env = {**os.environ, "PYTHONPATH": folder}
        template = self.template(["kept"], env=env, cwd="/")
        self.assertEqual(self.served(template, env, "/")[:2], ("warm", "/log\n"))
        self.assertEqual(self.served(template, env, self.other)[:2], ("cold", f"{self.other}/log\n"))


class Generators(Importing):
    def draws(self, source, program):
        """What each of three warm children and two cold ones prints, as lists."""
        template, env = self.importing(source, backend="warm")
        warm = [json.loads(self.run_in(template, program, env).stdout) for _ in range(3)]
        command = [PYTHON, "-c", "import kept\n" + program]
        cold = [json.loads(subprocess.run(command, env=env, capture_output=True).stdout) for _ in range(2)]
        return warm, cold

    def check(self, source, values):
        """values: expressions, by whether they are the same in all processes."""
        program = "import json; print(json.dumps([" + ", ".join(values) + "]))"
        warm, cold = self.draws(source, program)
        for number, (value, is_given) in enumerate(values.items()):
            of_warm, of_cold = ({repr(row[number]) for row in rows} for rows in (warm, cold))
            with self.subTest(value):
                if is_given:
                    self.assertEqual(of_warm, of_cold)
                self.assertEqual((len(of_warm), len(of_cold)), (1, 1) if is_given else (3, 2))

    def test_of_the_standard_library(self):
        self.check(
            "import os, random, secrets, time\n"
            "class Dice(random.Random): pass\n"
            "one, two, given, dice = random.Random(), Dice(), random.Random(42), [Dice(5)]\n"
            "for _ in range(2000): one.random(); given.random()\n"
            "of_bytes, of_time = random.Random(os.urandom(16)), random.Random(int(time.time()))\n"
            "of_number = random.Random(secrets.randbits(64))\n"
            "restored = random.Random(); restored.setstate(given.getstate())\n"
            "copied = random.Random(); copied.setstate(one.getstate())\n",
            {"kept.one.random()": False, "kept.two.random()": False, "kept.given.random()": True,
             "kept.dice[0].random()": True, "kept.of_bytes.random()": False,
             "kept.of_number.random()": False, "kept.restored.random()": True, "kept.copied.random()": False},
        )

    def test_seeded_by_what_the_process_has_given_in_another_form(self):
        self.check(
            "import gc, random, time, uuid\n"
            "class Bare(random.Random): __slots__ = ()\n"
            "of_clock, of_nanoseconds = random.Random(time.time()), random.Random(time.time_ns())\n"
            "of_monotonic, of_text = random.Random(time.monotonic()), random.Random(f'run {time.time()}')\n"
            "of_id, bare = random.Random(str(uuid.uuid4())), Bare()\n"
            "far = random.Random()\n"
            "for _ in range(100): far.randbytes(4 * 624)\n"
            "gc.freeze()\n",
            {f"kept.{name}.random()": False for name in (
                "of_clock", "of_nanoseconds", "of_monotonic", "of_text", "of_id", "bare", "far",
            )},
        )

    def test_seeded_by_what_somebody_has_written_down(self):
        self.check(
            "import os, random, time\n"
            "os.getpid(), time.time(), os.urandom(16), random.random()\n"
            "large, negative, fraction = random.Random(123456789), random.Random(-20240131), random.Random(0.75)\n"
            "text, data, small = random.Random('some täxt'), random.Random(b'some bytes'), random.Random(42)\n"
            "empty = random.Random('')\n"
            "long = random.Random(122807528840384100672342137672332424406)\n"
            "for _ in range(100): small.getrandbits(32 * 624)\n",
            {f"kept.{name}.random()": True for name in (
                "large", "negative", "fraction", "text", "data", "small", "empty", "long",
            )},
        )

    def test_one_that_may_have_been_seeded_by_what_the_process_has_given_is_named(self):
        sources = [
            "import os, random, time\nR = random.Random(1_000_003 * (os.getpid() + int(time.time())))",
            "import random\nR = random.Random()\nR.seed(R.random())",
            "import random\nrandom.seed(random.getrandbits(64))",
            "import random\nR = random.Random(1)\nR.setstate((3, (*range(1, 625), 624), None))",
            "import datetime, random\nR = random.Random(str(datetime.datetime.now()))",
            "import hashlib, os, random\nR = random.Random(hashlib.sha256(os.urandom(16)).hexdigest())",
            "import os, random\nR = random.Random('worker-%x' % os.getpid())",
            "import random, sys\nif hasattr(sys, 'set_int_max_str_digits'): sys.set_int_max_str_digits(640)\n"
            "R = random.Random(3**2500)\nS = random.Random('7' * 400 + str(random))",
        ]
        if HAS_NUMPY:
            sources += [
                "import numpy, os, time\nnumpy.random.seed(os.getpid() * int(time.time()) % 2**32 | 1 << 31)",
                "import numpy, random\nR = numpy.random.RandomState(random.getrandbits(31) | 1 << 31)",
                "import numpy, random\nR = numpy.random.default_rng(random.getrandbits(128))",
                "from numpy import random\nR = random.default_rng(3**10000)",
                "from numpy import random\nR = random.MT19937()\nR.state = random.MT19937().jumped().state",
                "from numpy import random\nclass Own(random.BitGenerator): pass\nR = Own()",
                *(f"from numpy import random\nR, other = random.{kind}(5), random.{kind}()\nR.state = other.state"
                  for kind in ("PCG64", "PCG64DXSM", "SFC64", "Philox")),
            ]
        for source in sources:
            with self.subTest(source):
                template, _ = self.importing(source)
                with self.assertRaisesRegex(warmfork.TemplateError, '"identity:random"'):
                    template.wait_ready()
                self.importing(source, allow=["identity:random"])[0].wait_ready()

    def test_the_shared_one_with_a_seed(self):
        self.check("import random\nrandom.seed(7)", {"kept.random.random()": True})
        self.check("import random\nrandom.random()", {"kept.random.random()": False})

    @unittest.skipUnless(HAS_NUMPY, "not installed: numpy")
    def test_of_numpy(self):
        self.check(
            "import numpy, secrets\nfrom numpy import random\n"
            "a, b, c = random.default_rng(), random.RandomState(), random.Generator(random.Philox())\n"
            "legacy = random.RandomState(random.MT19937())\n"
            "b.standard_normal()\n"
            "given, legacy_given = random.default_rng(42), random.RandomState(42)\n"
            "parts = [random.default_rng(part) for part in random.SeedSequence().spawn(2)]\n"
            "of_number = random.default_rng(secrets.randbits(128))\n",
            {"kept.a.random()": False, "kept.b.standard_normal()": False, "kept.c.random()": False,
             "kept.legacy.random_sample()": False, "kept.given.random()": True,
             "kept.legacy_given.random_sample()": True, "kept.parts[0].random()": False,
             "kept.parts[1].random()": False, "kept.of_number.random()": False, "kept.random.rand()": False,
             "int(kept.a.bit_generator._seed_seq.spawn(1)[0].generate_state(1)[0])": False},
        )

    @unittest.skipUnless(HAS_NUMPY, "not installed: numpy")
    def test_of_numpy_with_a_state_that_was_set(self):
        self.check(
            "import copy\nfrom numpy import random\n"
            "given = random.RandomState()\ngiven.set_state(random.RandomState(42).get_state())\n"
            "copied, drawn_copy = copy.deepcopy(random.RandomState(7)), copy.deepcopy(random.RandomState())\n"
            "random.set_state(random.RandomState(3).get_state())\n"
            "mersenne = random.Generator(random.MT19937(5))\nmersenne.bit_generator.state = random.RandomState(9).get_state(False)\n"
            "of_key = random.Generator(random.Philox(key=77))\n",
            {"kept.given.rand()": True, "kept.copied.rand()": True, "kept.drawn_copy.rand()": False,
             "kept.random.rand()": True, "kept.mersenne.random()": True, "kept.of_key.random()": True},
        )

    @unittest.skipUnless(HAS_NUMPY, "not installed: numpy")
    def test_of_numpy_after_many_numbers(self):
        kinds = "PCG64", "PCG64DXSM", "SFC64", "Philox", "MT19937"
        self.check(
            "from numpy import random\n"
            f"drawn, given = ([random.Generator(kind(*seed)) for kind in ({', '.join(f'random.{kind}' for kind in kinds)})]\n"
            "                for seed in ((), (5,)))\n"
            "for generator in drawn + given: generator.random(300_001), generator.integers(9, dtype='i4')\n",
            {f"kept.{name}[{number}].random()": name == "given" for name in ("drawn", "given") for number in range(len(kinds))},
        )

    def test_where_not_all_that_was_drawn_is_known_the_shared_ones_are_taken_for_drawn(self):
        source = "import os\nfor _ in range(1 << 14): os.urandom(1)\nimport random\n"
        values = ["kept.random.random()"]
        if HAS_NUMPY:
            source += "import numpy\n"
            values.append("kept.numpy.random.rand()")
        template, env = self.importing(source, backend="warm", allow=["identity:kept", "identity:numpy"])
        shown = [self.run_in(template, f"print({', '.join(values)})", env).stdout.split() for _ in range(3)]
        self.assertEqual([len(set(column)) for column in zip(*shown)], [3] * len(values))

    def test_however_much_is_drawn_there_is_room_for_what_is_read(self):
        source = (
            "import os\nfor size, count in (1 << 20, 70), (1 << 10, 1100), (16, 1100):\n"
            "    for _ in range(count): os.urandom(size)\n"
            "import colorsys"
        )
        template, env = self.importing(source, backend="warm", allow=["identity:kept"])
        for _ in range(2):
            self.assertEqual(self.run_in(template, "print('ran')", env).stdout, "ran\n")
        self.assertEqual(template.counts["template_starts"], 1)

    @unittest.skipUnless(HAS_NUMPY, "not installed: numpy")
    def test_the_shared_one_of_numpy_with_a_seed(self):
        self.check("import numpy\nnumpy.random.seed(7)", {"kept.numpy.random.rand()": True})
        self.check("import numpy\nnumpy.random.seed([123456, 5])", {"kept.numpy.random.rand()": True})

    @unittest.skipUnless(HAS_NUMPY, "not installed: numpy")
    def test_of_numpy_seeded_by_what_the_process_has_given_in_another_form(self):
        self.check(
            "import os, time, numpy\n"
            "numpy.random.seed(os.getpid() + 0)\n"
            "of_nanoseconds = numpy.random.default_rng(time.time_ns())\n"
            "given = numpy.random.RandomState(numpy.random.MT19937(5))\n"
            "for _ in range(100): numpy.random.bytes(4 * 624)\n",
            {"kept.numpy.random.rand()": False, "kept.of_nanoseconds.random()": False, "kept.given.rand()": True},
        )
        # In cold processes of one second it is the same.
        template, env = self.importing(
            "import time, numpy\nR = numpy.random.RandomState(int(time.time()))", backend="warm",
        )
        self.assertEqual(len({self.run_in(template, "print(kept.R.rand())", env).stdout for _ in range(3)}), 3)


# What pybind11 does: a key of the thread's that has its state.
THREAD_STATE = """
import ctypes
state = ctypes.pythonapi.PyThreadState_Get
keys = ctypes.PyDLL(None)
state.restype = keys.pthread_getspecific.restype = ctypes.c_void_p
key = ctypes.c_uint()
keys.pthread_key_create(ctypes.byref(key), None)
keys.pthread_setspecific(key, ctypes.c_void_p(state()))
"""


class ThreadState(Importing):
    def test_a_library_that_keeps_it_by_a_key_of_the_thread_has_the_childs(self):
        template, env = self.importing(THREAD_STATE, backend="warm")
        program = "print(kept.keys.pthread_getspecific(kept.key) == kept.state())"
        self.assertEqual(self.run_in(template, program, env).stdout, "True\n")


class Start(TestCase):
    @unittest.skipUnless(HAS_TITLES, "not installed: setproctitle")
    def test_a_program_can_change_its_title(self):
        program = (
            "import setproctitle; before = setproctitle.getproctitle(); setproctitle.setproctitle('a title')\n"
            "print(before, open('/proc/self/cmdline').read()[:7], open('/proc/self/comm').read())"
        )
        for more in ([], ["an argument"], ["x"] * 30):
            command = [PYTHON, "-c", program, *more]
            cold = subprocess.run(command, capture_output=True, text=True)
            warm = self.template(["json"]).run(command, capture_output=True, text=True, backend="warm")
            self.assertEqual((warm.stdout, warm.stderr), (cold.stdout, cold.stderr))

    def test_the_interpreter_knows_the_arguments_of_the_child(self):
        program = (
            "import ctypes; n, v = ctypes.c_int(), ctypes.POINTER(ctypes.c_wchar_p)()\n"
            "ctypes.pythonapi.Py_GetArgcArgv(ctypes.byref(n), ctypes.byref(v)); print(v[:n.value])"
        )
        command = [PYTHON, "-c", program, "ä", b"\xff"]
        cold = subprocess.run(command, capture_output=True)
        warm = self.template(["json"]).run(command, capture_output=True, backend="warm")
        self.assertEqual((warm.stdout, warm.stderr), (cold.stdout, cold.stderr))
        self.assertIn(b"udcff", cold.stdout)

    def test_the_standard_library_begins_with_the_child(self):
        program = (
            "import logging, multiprocessing.process, os, time\n"
            "began = logging._startTime / (1e9 if type(logging._startTime) is int else 1)\n"
            "print(began > float(os.environ['BEGAN']), multiprocessing.process.ORIGINAL_DIR == os.getcwd())"
        )
        template = self.template(["logging", "multiprocessing"])
        template.wait_parked()
        for _ in range(2):
            env = {**os.environ, "BEGAN": str(time.time())}
            done = template.run([PYTHON, "-c", program], env=env, cwd="/", capture_output=True, text=True)
            self.assertEqual((done.stdout, done.stderr), ("True True\n", ""))


class Path(TestCase):
    def layout(self):
        return self.folder({f"{name}/dep.py": f"NAME = '{name}'\n" for name in "ab"})

    def test_another_python_path_finds_another_module(self):
        folder = self.layout()
        env = {**os.environ, "PYTHONPATH": os.path.join(folder, "a")}
        other = {**env, "PYTHONPATH": os.path.join(folder, "b")}
        both = {**env, "PYTHONPATH": f"{folder}/a:{folder}/b"}
        template = self.template(["dep"], env=env)
        command = [PYTHON, "-c", "import dep; print(dep.NAME)"]
        for variables, name in ((env, "a"), (other, "b"), (both, "a"), (other, "b")):
            for backend in ("auto", "warm"):
                done = template.run(command, env=variables, capture_output=True, text=True, backend=backend)
                self.assertEqual(done.stdout, name + "\n", (variables["PYTHONPATH"], backend))

    @warm_only
    def test_a_module_that_only_the_owner_finds_first_is_shadowed(self):
        folder = self.layout()
        env = {**os.environ, "PYTHONPATH": os.path.join(folder, "b")}
        program = (
            "import sys, warmfork\n"
            f"sys.path.insert(0, {os.path.join(folder, 'a')!r})\n"
            "with warmfork.Template(['dep']) as template:\n"
            "    template.wait_ready()\n"
            "    with template.popen([sys.executable, '-c', 'import dep; print(dep.NAME)'], stdout=-1) as process:\n"
            "        print(process.communicate()[0], process.reason_code)\n"
        )
        path = os.pathsep.join([env["PYTHONPATH"], *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
        done = subprocess.run([PYTHON, "-c", program], env={**env, "PYTHONPATH": path}, capture_output=True, text=True)
        self.assertEqual((done.stdout, done.stderr), ("b'b\\n' shadowed\n", ""))

    def test_a_process_follows_the_search_path_of_its_parent(self):
        folder = self.layout()
        main = (
            "import sys, warmfork\n"
            "def target(pipe):\n"
            "    import dep\n"
            "    pipe.send(dep.NAME)\n"
            "def ask(context):\n"
            "    ours, theirs = context.Pipe()\n"
            "    process = context.Process(target=target, args=(theirs,))\n"
            "    process.start()\n"
            "    print(ours.recv(), process.backend, 'instead of a preloaded' in process.reason)\n"
            "    process.join()\n"
            "if __name__ == '__main__':\n"
            f"    sys.path.insert(0, {folder + '/a'!r})\n"
            "    context = warmfork.get_context(preload=['dep'])\n"
            "    context.template.wait_ready()\n"
            "    ask(context)\n"
            f"    sys.path.insert(0, {folder + '/b'!r})\n"
            "    ask(context)\n"
            "    del sys.path[0]\n"
            f"    sys.path.append({folder + '/b'!r})\n"
            "    ask(context)\n"
        )
        script = os.path.join(self.folder({"main.py": main}), "main.py")
        done = subprocess.run([PYTHON, script], capture_output=True, text=True, timeout=60)
        expected = [f"a {BACKEND} False", f"b cold {BACKEND == 'warm'}", f"a {BACKEND} False"]
        self.assertEqual(done.stdout.splitlines(), expected, done.stderr)


# In other folders of one name: a namespace package, of which a child would find another part first, or one more.
NAMESPACE = {
    "one/space/part.py": "NAME = 'one'\n", "two/space/part.py": "NAME = 'two'\n", "two/script.py": "",
    "more/space/other.py": "", "module/space.py": "", "package/space/__init__.py": "", "else/other/part.py": "",
}
ASK_NAMESPACE = "import space; print([*map(__import__('os').path.dirname, getattr(space, '__path__', ''))])"


class Namespace(TestCase):
    def setUp(self):
        super().setUp()
        self.root = self.folder({**NAMESPACE, "two/script.py": ASK_NAMESPACE})

    def path(self, name):
        return os.path.join(self.root, name)

    def served(self, template, env, *arguments, cwd="/"):
        """Warm, or cold and shadowed; what it prints is what the cold command does."""
        command = [PYTHON, *(arguments or ("-c", ASK_NAMESPACE))]
        cold = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True)
        with template.popen(command, env=env, cwd=cwd, stdout=subprocess.PIPE, text=True) as child:
            self.assertEqual(child.communicate()[0], cold.stdout)
            self.assertIn((child.backend, child.reason_code), (("warm", "none"), ("cold", "shadowed")))
            return child.backend

    @warm_only
    def test_another_part_in_front_is_a_shadow(self):
        env = {**os.environ, "PYTHONPATH": self.path("one")}
        template = self.template(["space.part"], env=env)
        for name in ("two", "more", "module", "package"):
            with self.subTest(name):
                self.assertEqual(self.served(template, env, cwd=self.path(name)), "cold")
        self.assertEqual(self.served(template, env, self.path("two/script.py")), "cold")
        for name in ("one", "else"):
            with self.subTest(name):
                self.assertEqual(self.served(template, env, cwd=self.path(name)), "warm")

    @warm_only
    def test_a_package_of_several_parts_is_no_shadow_of_itself(self):
        env = {**os.environ, "PYTHONPATH": f"{self.path('one')}:{self.path('two')}"}
        template = self.template(["space.part"], env=env)
        self.assertEqual(self.served(template, env, cwd=self.path("else")), "warm")
        self.assertEqual(self.served(template, env, cwd=self.path("one")), "warm")
        self.assertEqual(self.served(template, env, cwd=self.path("two")), "cold")

    def test_a_process_follows_its_parents_parts(self):
        main = (
            "import sys, warmfork\n"
            "def target(pipe):\n"
            "    import space.part\n"
            "    pipe.send((space.part.NAME, len(list(space.__path__))))\n"
            "def ask(context, *path):\n"
            "    sys.path[:] = *path, *base\n"
            "    ours, theirs = context.Pipe()\n"
            "    process = context.Process(target=target, args=(theirs,))\n"
            "    process.start()\n"
            "    print(*ours.recv(), process.backend)\n"
            "    process.join()\n"
            "if __name__ == '__main__':\n"
            "    base, one, two = sys.path[:], *sys.argv[1:]\n"
            "    sys.path.insert(0, one)\n"
            "    context = warmfork.get_context(preload=['space.part'])\n"
            "    context.template.wait_ready()\n"
            "    for path in ((one,), (two, one), (one, two), (two,)): ask(context, *path)\n"
        )
        script = os.path.join(self.folder({"main.py": main}), "main.py")
        command = [PYTHON, script, self.path("one"), self.path("two")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        expected = [f"one 1 {BACKEND}", "two 2 cold", "one 2 cold", "two 1 cold"]
        self.assertEqual(done.stdout.splitlines(), expected, done.stderr)


if __name__ == "__main__":
    unittest.main()
