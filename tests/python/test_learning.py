"""Templates that learn: what most children go on to import is preloaded in the next image."""

import json
import os
import subprocess
import sys
import unittest
import unittest.mock

from support import PYTHON, TestCase

# Prints what two images have learned on a disk that is full by then: of a log that is to be cut, and anew.
ON_A_FULL_DISK = """
import json, os, sys, warmfork

def image(*texts):
    with warmfork.Template(["json"], learn=True, backend="warm", python=sys.executable) as template:
        for text in texts:
            assert template.run([sys.executable, "-c", text]).returncode == 0
        return template.report()["host"]["learned"]

image("import colorsys")
image("import wave")
image("import wave", "import wave")
(folder,) = os.scandir(os.environ["XDG_STATE_HOME"] + "/warmfork/learned")
with open(folder.path + "/children", "a") as log:
    log.write(" wave=5\\n" * 1500)
with open(folder.path + "/modules", "a") as modules:  # to the end of a page
    modules.write("no x ".ljust(4095 - modules.tell(), "x") + "\\n")
with open(os.environ["XDG_STATE_HOME"] + "/other", "wb", buffering=0) as other:
    try:
        while other.write(bytes(1000)): pass
    except OSError: pass
for _ in range(2):
    print(json.dumps(image("import bz2")))
"""


class Learning(TestCase):
    def setUp(self):
        super().setUp()
        environment = unittest.mock.patch.dict(os.environ)
        environment.start()
        self.addCleanup(environment.stop)
        self.state = os.environ["XDG_STATE_HOME"] = self.folder({})

    def on_the_path(self, files):
        """For the template, and for its children."""
        folder = self.folder(files)
        sys.path.insert(0, folder)
        self.addCleanup(sys.path.remove, folder)
        os.environ["PYTHONPATH"] = folder
        return folder

    def children(self, *texts, **options):
        """One run of an application: a template, and a child for each text. Returns what it had learned."""
        with self.template(["json"], learn=True, backend="warm", **{"name": "tests", **options}) as template:
            learned = template.report()["host"]["learned"]
            for text in texts:
                self.assertEqual(template.run([PYTHON, "-c", text]).returncode, 0)
        self.assertEqual(learned["error"], "")
        return learned

    @staticmethod
    def names(learned):
        return [module["module"] for module in learned["modules"]]

    def test_what_most_children_import_is_in_the_next_image(self):
        first = self.children("import colorsys", "import colorsys, wave", "def f(): import colorsys\nf()")
        self.assertEqual((first["children"], first["modules"]), (0, []))
        second = self.children("import sys; assert 'colorsys' in sys.modules and 'wave' not in sys.modules")
        self.assertEqual((second["children"], self.names(second)), (3, ["colorsys"]))
        self.assertGreater(second["modules"][0]["seconds"], 0)
        self.assertEqual(self.names(self.children()), ["colorsys"])  # though nobody imports it any more

    def test_what_a_module_imports_is_reported_too(self):
        self.children("import xml.dom.minidom", "import xml.dom.minidom")
        self.assertIn("xml.dom", self.names(self.children()))

    def run_program(self, folder, name, *texts):
        """Runs a program with that main file; returns the names that its image had learned."""
        path = os.path.join(folder, name)
        with open(path, "w") as file:
            file.write(
                "import sys, warmfork\n"
                "with warmfork.Template(['json'], learn=True, backend='warm') as template:\n"
                f"    for text in {texts!r}: template.run([sys.executable, '-c', text])\n"
                "    print(*(entry['module'] for entry in template.report()['host']['learned']['modules']))"
            )
        environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
        done = subprocess.run([PYTHON, path], capture_output=True, text=True, env=environment)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout.split()

    def test_what_a_program_loads_in_a_way_of_its_own_is_left_to_it(self):
        self.on_the_path({"rewritten.py": "", "plain.py": "", "spaces/part.py": ""})
        program = (
            "import importlib.machinery, importlib.util, sys\n"
            "class Loader(importlib.machinery.SourceFileLoader): pass\n"
            "class Finder:\n"
            "    def find_spec(name, path, target=None):\n"
            "        if name != 'rewritten': return None\n"
            "        where = importlib.machinery.PathFinder.find_spec(name, path).origin\n"
            "        return importlib.util.spec_from_file_location(name, where, loader=Loader(name, where))\n"
            "sys.meta_path.insert(0, Finder)\n"
            "import rewritten, plain, spaces.part\n"
            "assert type(rewritten.__spec__.loader) is Loader\n"
        )
        self.children(program)
        learned = set(self.names(self.children(program)))
        self.assertLessEqual({"plain", "spaces", "spaces.part"}, learned)
        self.assertNotIn("rewritten", learned)

    def test_what_children_of_another_program_import_is_not_preloaded(self):
        folder = self.folder({})
        self.run_program(folder, "one.py", "import colorsys")
        self.assertEqual(self.run_program(folder, "other.py"), [])
        self.assertEqual(self.run_program(folder, "one.py"), ["colorsys"])

    def test_programs_of_one_name_learn_from_each_other(self):
        self.children("import colorsys", name="both")
        self.assertEqual(self.names(self.children(name="another")), [])
        self.assertEqual(self.names(self.children(name="both")), ["colorsys"])

    def test_no_more_is_learned_than_the_first_child_gains(self):
        # The first is what is late on a busy machine, and may be without being too much itself.
        self.on_the_path({f"{name}.py": f"import time\ntime.sleep({0.1 if name == 'a' else 0.5})" for name in "abc"})
        # Each of them in most children, and in none all of them.
        self.children("import a, b", "import b, c", "import a, c")
        learned = self.children()
        self.assertEqual(len(self.names(learned)), 2)
        (refused,) = learned["refused"]
        self.assertIn("the image would start later", refused["reason"])
        self.assertEqual(self.names(self.children()), self.names(learned))

    def test_when_the_time_is_up_what_is_known_is_learned_and_no_more_is_tried(self):
        from warmfork._in_template import _learning

        self.children("import colorsys", "import colorsys")
        folder = self.children("import colorsys, wave", "import colorsys, wave", "import colorsys, wave")["folder"]
        said = []
        # On a busy machine a module may have taken a child longer than it may take the image, and is refused by that.
        with unittest.mock.patch.multiple(_learning, _ENOUGH=-1, _MOST_MICROSECONDS_MORE=60_000_000):
            _learning._decide(folder, lambda *words: said.append(words[:2]), None, ())
        self.assertEqual(said, [("children", 5), ("ok", "colorsys")])

    def test_what_a_refused_module_leaves_behind_is_no_reason_to_refuse_others(self):
        self.on_the_path({"a.py": "import subprocess\nleft = subprocess.Popen(['cat'], stdin=subprocess.PIPE)",
                          "b.py": "import threading\nend = threading.Event()\nthreading.Thread(target=end.wait).start()",
                          "c.py": ""})
        text = "import a, b, c; a.left.communicate(); b.end.set()"
        self.children(text, text)
        learned = self.children()
        self.assertIn("c", self.names(learned))
        refused = {entry["module"]: entry["reason"] for entry in learned["refused"]}
        self.assertEqual(sorted(refused), ["a", "b"])
        self.assertIn("program", refused["a"])
        self.assertIn("threads", refused["b"])

    def test_generators_of_random_numbers_are_those_of_the_modules_that_have_seeded_them(self):
        self.on_the_path({"drawn.py": "import random\nR = random.Random()\nrandom.random()",
                          "given.py": "import random\nR = random.Random(7)",
                          "doubtful.py": "import random\nR = random.Random(random.getrandbits(90))",
                          "shared.py": "import random\nrandom.seed(random.getrandbits(90))",
                          "again.py": "import drawn, random\ndrawn.R.seed(random.getrandbits(90))",
                          "last.py": "import drawn\ndrawn.R.random()"})
        text = "import random, drawn, given, doubtful, shared, again, last"
        self.children(text, text)
        learned = self.children()
        self.assertLessEqual({"random", "drawn", "given", "last"}, set(self.names(learned)))
        refused = {entry["module"]: entry["reason"] for entry in learned["refused"]}
        self.assertEqual(set(refused), {"doubtful", "shared", "again"})
        for name, generator in (("doubtful", "doubtful.R"), ("shared", "random._inst"), ("again", "drawn.R")):
            self.assertIn(f"{generator}, a random.Random, has the seed ", refused[name])

    def test_a_module_that_opens_what_children_may_share_is_learned(self):
        self.on_the_path({"null.py": "import os\nnull = open(os.devnull, 'w')\nown = open(__file__)",
                          "pipe.py": "import os\nends = os.pipe()"})
        text = "import null, pipe"
        self.children(text, text)
        learned = self.children(text)
        self.assertEqual((self.names(learned), [entry["module"] for entry in learned["refused"]]), (["null"], ["pipe"]))

    def test_a_module_that_makes_shared_memory_is_left_to_children(self):
        self.on_the_path({"locked.py": "import mmap\nmemory = mmap.mmap(-1, 4096)"})
        self.children("import locked, colorsys", "import locked, colorsys")
        learned = self.children("import locked")
        self.assertEqual(self.names(learned).count("colorsys"), 1)
        (refused,) = learned["refused"]
        self.assertEqual(refused["module"], "locked")
        self.assertIn("memory that children would share", refused["reason"])

    def test_it_opens_in_the_background(self):
        self.on_the_path({"held.py": "import os\nwith open(os.environ['GATE']) as gate: gate.read()"})
        os.environ["GATE"] = gate = os.path.join(self.state, "gate")
        os.mkfifo(gate)
        with self.template(["held"], learn=True, waits=False) as template:
            early = template.popen([PYTHON, "-c", ""])
            early.wait()
            open(gate, "w").close()
            template.wait_ready()
            late = template.popen([PYTHON, "-c", ""])
            late.wait()
        self.assertEqual((early.backend, early.reason_code), ("cold", "restarting"))
        self.assertIn("is being preloaded", early.reason)
        self.assertEqual(late.backend, "warm")

    def test_a_running_image_learns_nothing(self):
        with self.template(["json"], learn=True, backend="warm", spares=1) as template:
            for _ in range(3):
                text = "import sys; assert 'colorsys' not in sys.modules; import colorsys"
                self.assertEqual(template.run([PYTHON, "-c", text]).returncode, 0)

    def test_modules_that_cannot_be_preloaded_are_remembered_with_the_reason(self):
        bad = {
            "thread.py": "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
            "descriptor.py": "import os\nos.pipe()",
            "fatal.py": "import os\nif 'CHILD' not in os.environ: os._exit(3)",
            "failing.py": "import os\nos.environ['CHILD']",
        }
        self.on_the_path(bad)
        self.children("import os; os.environ['CHILD'] = '1'; import thread, descriptor, failing, fatal")
        for _ in range(2):  # in the first of them `fatal` ends the trial
            refused = {entry["module"]: entry["reason"] for entry in self.children()["refused"]}
        self.assertIn("threads", refused["thread"])
        self.assertIn("descriptors", refused["descriptor"])
        self.assertIn("KeyError", refused["failing"])
        self.assertIn("exit status 3", refused["fatal"])

    def test_what_imports_a_module_that_cannot_be_preloaded_is_not_learned_either(self):
        self.on_the_path({
            "keeps.py": "import sys\nGIVEN = list(sys.argv)", "user.py": "import keeps", "fails.py": "import keeps\n1 / 0",
            "last.py": "import user", "innocent.py": "",
            "pack/__init__.py": "", "pack/part.py": "import keeps", "pack/other.py": "from . import part",
        })
        program = "import innocent, last, pack.part, pack.other\ntry: import fails\nexcept ZeroDivisionError: pass"
        self.children(*[program] * 2)
        learned = self.children(program)  # is warm
        self.assertEqual(set(self.names(learned)), {"innocent", "pack"})
        reasons = dict((module["module"], module["reason"]) for module in learned["refused"])
        for name in ("keeps", "user", "last", "pack.part", "pack.other"):
            self.assertIn("arguments in keeps.GIVEN", reasons[name])
        self.children(program)

    def learn_in_the_root(self, **options):
        """What a template in a directory of no child's has learned from one, and what a child prints whose image has."""
        self.on_the_path({"bound.py": "import os\nPLACE = os.getcwd()", "free.py": ""})
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir("/")
        command = [PYTHON, "-c", "import bound, free, os; print(bound.PLACE == os.getcwd())"]
        for _ in range(2):
            with self.template(["json"], learn=True, backend="warm", name="tests", **options) as template:
                learned = template.report()["host"]["learned"]
                done = template.run(command, cwd=self.folder({}), capture_output=True, text=True)
        return sorted(self.names(learned)), done.stdout

    def test_what_depends_on_the_directory_is_left_to_children_that_are_started_elsewhere(self):
        self.assertEqual(self.learn_in_the_root(), (["free"], "True\n"))

    def test_what_may_depend_on_the_directory_is_learned(self):
        self.assertEqual(self.learn_in_the_root(allow=["directory:bound"]), (["bound", "free"], "False\n"))

    def test_a_module_that_has_changed_is_tried_again(self):
        folder = self.on_the_path({"subject.py": "VALUE = 1"})
        self.children("import subject")
        self.assertEqual(self.names(self.children()), ["subject"])
        with open(os.path.join(folder, "subject.py"), "w") as file:
            file.write("import threading\nlock = threading.Event()\nthreading.Thread(target=lock.wait, daemon=True).start()")
        learned = self.children()
        self.assertEqual([entry["module"] for entry in learned["refused"]], ["subject"])

    def test_a_module_that_was_refused_is_tried_again_when_it_has_changed(self):
        folder = self.on_the_path({
            "subject.py": "import threading\nend = threading.Event()\nthreading.Thread(target=end.wait).start()",
            "user.py": "import subject", "other.py": "import os\nos.pipe()"})
        text = "import user, other, subject\nif hasattr(subject, 'end'): subject.end.set()"
        self.children(text)
        learned = self.children(text)
        refused = {entry["module"]: entry["reason"] for entry in learned["refused"]}
        self.assertEqual(refused.keys(), {"subject", "user", "other"})

        def tried():
            with open(f"{learned['folder']}/modules") as file:
                lines = [line.split()[:2] for line in file]
            # A child that has taken longer than those before adds a line of what is gained.
            return [name for verdict, name in lines if verdict != "gain"]
        before = tried()
        self.children(text)
        self.assertEqual(tried(), before)  # they are what they were
        with open(os.path.join(folder, "subject.py"), "w") as file:
            file.write("VALUE = 1")
        # What imports it, and has not changed itself, was refused because of it.
        learned = self.children(text)
        self.assertLessEqual({"subject", "user"}, set(self.names(learned)))
        self.assertIn("other", [entry["module"] for entry in learned["refused"]])

    def test_a_module_of_a_package_that_was_refused_is_tried_again_when_it_has_changed(self):
        folder = self.on_the_path({"pack/__init__.py": "", "pack/part.py": "import os\nos.environ['CHILD']"})
        text = "import os; os.environ['CHILD'] = '1'; import pack.part"
        self.children(text)
        (refused,) = self.children(text)["refused"]
        self.assertEqual(refused["module"], "pack.part")
        with open(os.path.join(folder, "pack/part.py"), "w") as file:
            file.write("")
        self.assertIn("pack.part", self.names(self.children()))

    def test_children_see_no_trace(self):
        text = (
            "import os, sys\n"
            "print(sorted(os.listdir('/proc/self/fd')), [type(f).__name__ for f in sys.meta_path], sorted(n for n in sys.modules if 'warm' in n))\n"
            "try: import no_such_module\n"
            "except ImportError as error:\n    import traceback; traceback.print_exc()\n"
        )
        outputs = []
        for learn in (False, True):
            with self.template(["json", "traceback"], learn=learn, backend="warm") as template:
                outputs.append(template.run([PYTHON, "-c", text], capture_output=True))
        plain, learning = outputs
        self.assertEqual((plain.stdout, plain.stderr), (learning.stdout, learning.stderr))

    def test_children_that_are_killed_or_fork_do_not_disturb_the_record(self):
        self.children(
            "import colorsys, os\nif os.fork() == 0: import wave; raise SystemExit(0)\nos.wait()",
            "import colorsys",
        )
        with self.template(["json"], learn=True, name="tests", backend="warm") as template:
            process = template.popen([PYTHON, "-c", "import wave, time; time.sleep(60)"])
            process.kill()
            process.wait()
        self.assertEqual(self.children()["children"], 2)
        self.assertEqual(self.names(self.children()), ["colorsys"])

    def test_without_a_place_to_remember_it_works_and_says_so(self):
        os.environ["XDG_STATE_HOME"] = "/proc/no/such/place"
        with self.template(["json"], learn=True, backend="warm") as template:
            self.assertEqual(template.run([PYTHON, "-c", "import colorsys"]).returncode, 0)
            self.assertIn("/proc/no", template.report()["host"]["learned"]["error"])

    def test_nothing_is_learned_where_others_may_write(self):
        self.children("import colorsys")
        (folder,) = os.scandir(os.path.join(self.state, "warmfork/learned"))
        for path in (self.state, folder.path, os.path.join(folder.path, "children")):
            with self.subTest(path):
                mode = os.stat(path).st_mode
                os.chmod(path, 0o777)
                with self.template(["json"], learn=True, backend="warm", name="tests") as template:
                    self.assertEqual(template.run([PYTHON, "-c", "import wave"]).returncode, 0)
                    learned = template.report()["host"]["learned"]
                os.chmod(path, mode)
                self.assertIn(f"others may write to {os.path.realpath(path)}", learned["error"])
                self.assertEqual(learned["modules"], [])
        learned = self.children()
        self.assertEqual((self.names(learned), learned["children"]), (["colorsys"], 1))

    def test_what_it_makes_is_its_users_alone(self):
        self.addCleanup(os.umask, os.umask(0))
        os.environ["XDG_STATE_HOME"] = os.path.join(self.state, "of", "mine")
        self.children("import colorsys")
        self.assertEqual(self.names(self.children()), ["colorsys"])

    def test_a_full_disk_is_told_and_what_is_known_stays_in_the_image(self):
        """On a file system of its own, in a mount namespace."""
        confine = ["unshare", "--user", "--map-root-user", "--mount"]
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", self.state]
        if subprocess.run([*confine, *mount], stderr=subprocess.DEVNULL).returncode:
            self.skipTest("user namespaces cannot be made here")
        if subprocess.run([*confine, "test", "-O", "/"]).returncode:
            self.skipTest("there / would be nobody's, and what lies in it could be anybody's")
        environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
        command = [*confine, "sh", "-c", '"$@" && exec "$PYTHON" -c "$ON_A_FULL_DISK"', "sh", *mount]
        environment.update(PYTHON=PYTHON, ON_A_FULL_DISK=ON_A_FULL_DISK)
        done = subprocess.run(command, capture_output=True, env=environment, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for learned in map(json.loads, done.stdout.splitlines()):
            self.assertIn("No space left on device", learned["error"])
            self.assertEqual(sorted(self.names(learned)), ["colorsys", "wave"])  # the second is new

    def test_a_line_cut_short_costs_no_more_than_itself(self):
        self.children("import colorsys", "import colorsys")
        self.assertEqual(self.names(self.children()), ["colorsys"])
        (folder,) = os.listdir(os.path.join(self.state, "warmfork/learned"))
        modules = os.path.join(self.state, "warmfork/learned", folder, "modules")
        for line in ("ok", "ok wave", "ok wave 12 30", "no", "no wav"):
            with open(modules, "a") as file:
                file.write(line)  # and what comes next is written behind it
            self.assertEqual(self.names(self.children("import colorsys")), ["colorsys"])

    def test_a_log_that_grows_is_cut(self):
        self.children("import colorsys")
        (folder,) = os.listdir(os.path.join(self.state, "warmfork/learned"))
        log = os.path.join(self.state, "warmfork/learned", folder, "children")
        with open(log, "a") as file:
            file.write(" wave=5\n" * 1500)
        learned = self.children()
        self.assertEqual((learned["children"], self.names(learned)[-1]), (500, "wave"))
        with open(log) as file:
            self.assertEqual(len(file.readlines()), 500)

    def test_doctor_shows_what_was_learned(self):
        self.children("import colorsys", "import colorsys")
        command = [os.environ["WARMFORK_CLI"], "doctor", "--learn", "--name", "tests", "--python", PYTHON, "--preload", "json"]
        done = subprocess.run(command, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("learned from 2 children", done.stdout)
        self.assertIn("colorsys", done.stdout)


if __name__ == "__main__":
    unittest.main()
