"""What preloaded modules take from the process that imports them, or do beyond it: children have their own, or are
cold, and the module is named."""

import importlib
import importlib.util
import os
import re
import subprocess
import sys
import time
import types
import unittest
import unittest.mock

import warmfork
from support import BACKEND, PYTHON, TestCase, warm_only

HAS_TITLES = importlib.util.find_spec("setproctitle") is not None

# Modules that each cold child would have otherwise: (source, name by which they are allowed, word of the reason).
KEPT = {
    "process id": ("import os\nID = os.getpid()", "identity:kept", "process id in kept.ID"),
    "process id in a text": ("import os\nclass Log:\n    path = f'/tmp/log-{os.getpid()}'", "identity:kept", "kept.Log"),
    "process id in a default": ("import os\ndef f(me=os.getpid()): return me", "identity:kept", "kept.f"),
    "process group": ("import os\nGROUP = os.getpgrp()", "identity:kept", "process id in kept.GROUP"),
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
        "token of a derived class": "import os\nclass Key(bytes): pass\nVALUE = Key(os.urandom(16))",
        "number of a derived class": "import secrets\nclass Id(int): pass\nVALUE = Id(secrets.randbits(61))",
        "text of a derived class": "import secrets\nclass Id(str): pass\nVALUE = Id(secrets.token_hex())",
        "id of a derived class": "import uuid\nclass Id(uuid.UUID): pass\nVALUE = Id(bytes=uuid.uuid4().bytes)",
        "array": "import array, os\nVALUE = array.array('B', os.urandom(16))",
        "buffer of a C type": "import ctypes, os\nVALUE = ctypes.create_string_buffer(os.urandom(16), 16)",
        "stream in memory": "import io, os\nVALUE = io.BytesIO(os.urandom(16))",
        "what the thread has": "import os, threading\nVALUE = threading.local()\nVALUE.key = os.urandom(16)",
        "what the thread has in a derived class": (
            "import os, threading\nclass Local(threading.local): pass\nVALUE = Local()\nVALUE.key = os.urandom(16)"
        ),
        "what the context has": "import contextvars, os\nVALUE = contextvars.ContextVar('key')\nVALUE.set(os.urandom(16))",
        "count": "import itertools, secrets\nVALUE = itertools.count(secrets.randbits(61))",
        "decimal number": "import decimal, secrets\nVALUE = decimal.Decimal(secrets.randbits(61))",
        "two keys in one": "import os\nKEY = os.urandom(32)\nVALUE = KEY[:16], KEY[16:]\ndel KEY",
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
KEPT["moment of a derived class"] = (
    "import datetime\nclass Moment(datetime.datetime): pass\nVALUE = Moment.now()", "identity:kept", "time in kept.VALUE",
)
KEPT.update({
    name: (source, "identity:kept", "does not tell what it holds in kept.VALUE") for name, source in {
        "moment without a working time zone": (
            "import datetime, time\ntime.time()\nclass Zone(datetime.tzinfo): pass\n"
            "VALUE = datetime.datetime(2020, 1, 1, tzinfo=Zone())"
        ),
        "id without its number": (
            "import os, uuid\nos.urandom(16)\nclass Id(uuid.UUID): int = property(lambda self: 1 / 0)\nVALUE = Id.__new__(Id)"
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
    "asks, and has a class that raises what it likes": (
        "import os\nos.urandom(16)\n"
        "class Kind(type):\n    def __getattr__(kind, name): raise SystemExit(3)\nclass Thing(metaclass=Kind): pass\nTHING = Thing()"
    ),
    "draws random bytes, and sees a file that has become shorter": (
        "import mmap, os, tempfile\nos.urandom(16)\nclass Own(mmap.mmap): pass\n"
        "with tempfile.NamedTemporaryFile() as file:\n    file.write(b'x' * 4096)\n    file.flush()\n"
        "    with open(file.name, 'rb') as reader:\n"
        "        MAP = memoryview(Own(reader.fileno(), 4096, mmap.MAP_PRIVATE, mmap.PROT_READ))\n    file.truncate(0)"
    ),
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

    def test_a_number_in_what_is_written_in_the_code_is_no_process_id(self):
        from warmfork._in_template import _kept, _observer

        folder = self.folder({"written.py": "import os\ndef function(): 'Waits for 31415 times.'\nTEXT = f'Waits for {os.getpid()}.'\n"})
        seen = {"written": _observer.Seen([1] * len(_observer.KINDS), (0, 0), (0, 0), 0)}
        self.addCleanup(sys.modules.pop, "written", None)
        with unittest.mock.patch("os.getpid", return_value=31415), unittest.mock.patch.object(sys, "path", [folder, *sys.path]):
            importlib.import_module("written")
            self.assertEqual(_kept.find_kept(seen, "", []), {"written": {"TEXT": "process id"}})

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


if __name__ == "__main__":
    unittest.main()
