"""Whatever preloading reads of its environment decides which image serves a spawn."""

import contextlib
import os
import sys
import threading
import unittest

import warmfork
from support import PYTHON, TestCase, warm_only


@warm_only
class Environment(TestCase):
    def reading(self, source, **options):
        """A template that preloads a module of this source."""
        folder = self.folder({"reader.py": source})
        sys.path.insert(0, folder)
        self.addCleanup(sys.path.remove, folder)
        return self.template(["reader"], **options)

    def value(self, template, program="import sys; print(sys.modules['reader'].VALUE)", **variables):
        """What a warm child prints, and how it was served; a variable that is None is removed."""
        env = {**os.environ, **variables}
        env = {name: value for name, value in env.items() if value is not None}
        process = template.popen([PYTHON, "-c", program], stdout=-1, stderr=-2, env=env)
        return process.communicate()[0].decode().strip(), process

    def test_a_variable_that_was_read_selects_a_variant(self):
        for source in (
            "import os\nVALUE = os.environ.get('SETTING')",
            "import os\nVALUE = os.environb.get(b'SETTING')",
            "import os\nVALUE = os.getenv('SETTING')",
            "import os\nVALUE = 'SETTING' in os.environ",
            "import os\nVALUE = sorted(os.environ.items())[0] and os.environ.get('SETTING')",
            "import ctypes\nc = ctypes.CDLL(None)\nc.getenv.restype = ctypes.c_char_p\nVALUE = c.getenv(b'SETTING')",
        ):
            with self.subTest(source=source), self.reading(source) as template:
                template.wait_ready()
                unset, process = self.value(template, SETTING=None)
                self.assertEqual(process.backend, "warm", process.reason)
                _, process = self.value(template, SETTING="1")
                self.assertEqual((process.backend, process.reason_code), ("cold", "environment"))
                self.assertIn("SETTING was read while preloading", process.reason)
                template.backend = None
                one, process = self.value(self.insisting(template), SETTING="1")
                self.assertEqual(process.backend, "warm")
                self.assertNotEqual(one, unset)
                again, process = self.value(template, SETTING="1")
                self.assertEqual((again, process.backend), (one, "warm"))
                back, process = self.value(template, SETTING=None)
                self.assertEqual((back, process.backend), (unset, "warm"))

    def insisting(self, template):
        class Insisting:
            @staticmethod
            def popen(*args, **keywords):
                return template.popen(*args, backend="warm", **keywords)

        return Insisting

    def test_a_variable_that_nobody_read_costs_nothing(self):
        template = self.reading("VALUE = 1")
        template.wait_ready()
        _, process = self.value(template, NOBODY_READS_THIS="1")
        self.assertEqual(process.backend, "warm", process.reason)
        self.assertEqual(template.counts["template_starts"], 1)

    def test_what_breakpoint_asks_for_costs_nothing_and_is_the_childs(self):
        template = self.reading("def VALUE(): print('ours')")
        template.wait_ready()
        for variable, seen in ("reader.VALUE", "ours"), ("0", ""):
            printed, process = self.value(template, "breakpoint()", PYTHONBREAKPOINT=variable)
            self.assertEqual((printed, process.backend), (seen, "warm"), process.reason)
        reads = self.reading("import os\nVALUE = os.environ.get('PYTHONBREAKPOINT')")
        reads.wait_ready()
        self.assertEqual(self.value(reads, PYTHONBREAKPOINT="0")[1].reason_code, "environment")

    def test_what_preloading_wrote_is_replayed(self):
        template = self.reading(
            "import os, ctypes\nos.environ['WRITTEN'] = 'new'\nos.environ.pop('REMOVED', None)\n"
            "ctypes.CDLL(None).setenv(b'WRITTEN_BY_C', b'c', 1)\nVALUE = 1",
            backend="warm",
        )
        program = (
            "import os, ctypes; c = ctypes.CDLL(None); c.getenv.restype = ctypes.c_char_p\n"
            "print([os.environ.get(n) for n in ('WRITTEN', 'REMOVED', 'WRITTEN_BY_C')],"
            " [c.getenv(n) for n in (b'WRITTEN', b'REMOVED', b'WRITTEN_BY_C')])"
        )
        for _ in range(2):
            seen, _ = self.value(template, program, REMOVED="x", OTHER="1")
            self.assertEqual(seen, "['new', None, None] [b'new', None, b'c']")

    def test_a_secret_of_the_templates_time_is_nowhere_in_the_child(self):
        os.environ["SECRET_OF_THEN"] = "hunter2"
        try:
            template = self.template(["json"], backend="warm")
            template.wait_parked(1)
        finally:
            del os.environ["SECRET_OF_THEN"]
        program = (
            "import os, ctypes; c = ctypes.CDLL(None); c.getenv.restype = ctypes.c_char_p\n"
            "print(os.environ.get('SECRET_OF_THEN'), os.environb.get(b'SECRET_OF_THEN'),"
            " c.getenv(b'SECRET_OF_THEN'), b'hunter2' in open('/proc/self/environ', 'rb').read(),"
            " b'SECRET_OF_THEN' in __import__('posix').environ)"
        )
        self.assertEqual(self.value(template, program)[0], "None None None False False")

    def images_environments(self):
        """As it was given to each image and spare of this process that lives."""
        environments = []
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/children") as children:
                for pid in children.read().split():
                    with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as environment:
                        environments.append(environment.read())
        return environments

    def test_a_variant_has_of_a_request_what_counts_and_else_what_the_template_has(self):
        template = self.reading(
            "import os\nVALUE = os.environ.get('SETTING')",
            env={"PATH": os.environ["PATH"], "SETTING": "0", "PLAIN": "of the template"},
        )
        template.wait_ready()
        seen, process = self.value(self.insisting(template), SETTING="1", SECRET="of the first", PLAIN="of the first")
        self.assertEqual((seen, process.backend), ("1", "warm"))
        given = self.images_environments()
        self.assertTrue(any(b"SETTING=1" in environment for environment in given), given)
        for environment in filter(None, given):  # a spare that has ended has none
            self.assertNotIn(b"of the first", environment)
            self.assertIn(b"PLAIN=of the template", environment.split(b"\0"))
        # In a later child of the same image: what it was asked for itself, and no more.
        program = (
            "import ctypes, os, sys; c = ctypes.CDLL(None).getenv; c.restype = ctypes.c_char_p\n"
            "print(sys.modules['reader'].VALUE, c(b'SECRET'), os.environ['PLAIN'],"
            " b'of the first' in open('/proc/self/environ', 'rb').read())"
        )
        seen, process = self.value(template, program, SETTING="1", PLAIN="of the second")
        self.assertEqual((seen, process.backend), ("1 None of the second False", "warm"))

    def test_a_variant_that_reads_more_than_the_first_image_has_that_of_the_request_too(self):
        template = self.reading("import os\nVALUE = os.environ.get('SETTING') and os.environ.get('MORE')")
        template.wait_ready()
        for more in ("a", "b"):
            seen, process = self.value(self.insisting(template), SETTING="1", MORE=more)
            self.assertEqual((seen, process.backend), (more, "warm"))
        self.assertEqual(self.value(template, SETTING="1", MORE="a")[0], "a")

    def test_variants_are_bounded_and_the_least_recently_used_goes(self):
        template = self.reading("import os\nVALUE = os.environ.get('SETTING')", variants=2)
        insisting = self.insisting(template)
        for setting in ("1", "2", "1", "3"):  # 2 goes
            self.assertEqual(self.value(insisting, SETTING=setting)[0], setting)
        self.assertEqual(template.counts["template_starts"], 4)
        self.assertEqual(self.value(template, SETTING="1")[1].backend, "warm")
        self.assertEqual(self.value(template, SETTING="3")[1].backend, "warm")
        self.assertEqual(self.value(template, SETTING="2")[1].backend, "cold")

    def test_without_variants_it_is_cold_and_never_preloaded(self):
        template = self.reading("import os\nVALUE = os.environ.get('SETTING')", variants=0)
        template.wait_ready()
        for _ in range(2):
            self.assertEqual(self.value(template, SETTING="1")[1].reason_code, "environment")
        with self.assertRaises(warmfork.TemplateError):
            self.value(self.insisting(template), SETTING="1")
        self.assertEqual(template.counts["template_starts"], 1)

    def test_a_variant_that_fails_to_preload_is_cold_with_its_reason(self):
        template = self.reading("import os\nVALUE = 1 / int(os.environ.get('SETTING', '1'))")
        template.wait_ready()
        with self.assertRaises(warmfork.TemplateError) as caught:
            self.value(self.insisting(template), SETTING="0")
        self.assertIn("ZeroDivisionError", str(caught.exception))
        for _ in range(2):
            _, process = self.value(template, "print(1)", SETTING="0")
            self.assertEqual((process.backend, process.wait()), ("cold", 0))
            # After five seconds it is tried again.
            self.assertRegex(process.reason, "could not be preloaded|is being preloaded")
        self.assertEqual(self.value(template)[1].backend, "warm")

    def test_a_variable_that_preloading_wrote_counts_too(self):
        os.environ["SETTING"] = "3"
        self.addCleanup(os.environ.pop, "SETTING", None)
        template = self.reading("import os\nos.environ['SETTING'] = '3'")
        template.wait_ready()
        _, process = self.value(template, "import os", SETTING="7")
        self.assertEqual((process.backend, process.reason_code), ("cold", "environment"))
        seen, _ = self.value(self.insisting(template), "import os; print(os.environ['SETTING'])", SETTING="7")
        self.assertEqual(seen, "3")

    def test_what_fitted_an_image_before_is_asked_again_of_the_next(self):
        os.environ["SETTING"] = "1"
        self.addCleanup(os.environ.pop, "SETTING", None)
        template = self.reading("import os\nVALUE = os.environ.get('SETTING')")
        self.assertEqual(self.value(template, SETTING="1")[0], "1")
        os.environ["SETTING"] = "2"
        os.kill(template.pid, 9)
        self.assertEqual(self.value(self.insisting(template), SETTING="2")[0], "2")
        self.assertEqual(self.value(self.insisting(template), SETTING="1")[0], "1")

    def test_a_value_that_never_comes_again_drives_no_image_out(self):
        template = self.reading("import os\nVALUE = os.environ.get('SETTING')", variants=2)
        for setting in ("1", "2"):
            self.value(self.insisting(template), SETTING=setting)
        for number in range(20):
            self.assertEqual(self.value(template, "pass", SETTING=f"once {number}")[1].backend, "cold")
        self.assertEqual(template.counts["template_starts"], 3)
        self.assertEqual(self.value(template, SETTING="1")[1].backend, "warm")

    def test_the_time_zone_counts_as_read(self):
        template = self.template()
        template.wait_ready()
        _, process = self.value(template, "pass", TZ="Asia/Tokyo")
        self.assertEqual(process.reason[:37], "TZ was read while preloading and diff")
        seen, _ = self.value(
            self.insisting(template), "import time; print(time.tzname[0])", TZ="Asia/Tokyo"
        )
        self.assertEqual(seen, "JST")


@warm_only
class Options(TestCase):
    def test_options_select_a_variant_and_are_cold_until_it_is_warm(self):
        template = self.template()
        template.wait_ready()
        command = [PYTHON, "-O", "-c", "print(__debug__)"]
        process = template.popen(command, stdout=-1)
        self.assertEqual((process.communicate()[0], process.reason_code), (b"False\n", "command-line"))
        self.assertIn("-O", process.reason)
        process = template.popen(command, stdout=-1, backend="warm")
        self.assertEqual((process.communicate()[0], process.backend), (b"False\n", "warm"))
        self.assertEqual(template.counts["template_starts"], 2)

    def test_an_isolated_interpreter_does_not_see_the_owners_paths(self):
        folder = self.folder({"neighbour.py": "VALUE = 1"})
        sys.path.insert(0, folder)
        self.addCleanup(sys.path.remove, folder)
        template = self.template(["neighbour"])
        with self.assertRaises(warmfork.TemplateError) as caught:
            template.run([PYTHON, "-I", "-c", "pass"], backend="warm")
        self.assertIn("neighbour", str(caught.exception))
        self.assertEqual(template.run([PYTHON, "-I", "-c", "pass"]).returncode, 0)

    def test_the_hash_seed_selects_a_variant(self):
        template = self.template(backend="warm")
        program = [PYTHON, "-c", "print(hash('warmfork'))"]
        outputs = {template.run(program, env={**os.environ, "PYTHONHASHSEED": "7"}, capture_output=True).stdout for _ in range(2)}
        outputs.add(warmfork.Popen(program, env={**os.environ, "PYTHONHASHSEED": "7"}, stdout=-1).communicate()[0])
        self.assertEqual(len(outputs), 1)


@warm_only
class OddImages(TestCase):
    def preloading(self, files, *names):
        folder = self.folder(files)
        sys.path.insert(0, folder)
        self.addCleanup(sys.path.remove, folder)
        return self.template(list(names))

    def test_modules_that_are_not_what_they_seem(self):
        template = self.preloading(
            {
                "odd.py": "import sys, types\n"
                "class Lazy(types.ModuleType):\n    def __getattr__(self, name): raise ImportError(name)\n"
                "sys.modules['odd.lazy'] = Lazy('odd.lazy')\n"
                "m = types.ModuleType('odd.file'); m.__file__ = '_file.py'; sys.modules['odd.file'] = m\n"
                "m = types.ModuleType('odd_path'); m.__path__ = None; sys.modules['odd_path'] = m\n"
                "sys.modules['odd_path.below'] = m\nsys.modules['odd_none'] = None\n"
            },
            "odd",
        )
        process = template.popen([PYTHON, "-c", "pass"])
        self.assertEqual((process.wait(), process.backend), (0, "warm"), process.reason)

    def test_a_module_is_not_asked_for_attributes_of_no_name_of_its_own(self):
        template = self.preloading(
            {
                "choosy.py": "asked = []\n"
                "def __getattr__(name):\n    asked.append(name)\n    if name[0] == '_': raise AttributeError(name)\n"
                "    raise LookupError(name)\n",
            },
            "choosy",
        )
        program = [PYTHON, "-c", "import choosy; print([name for name in choosy.asked if name[:2] != '__'])"]
        process = template.popen(program, stdout=-1, backend="warm")
        self.assertEqual(process.communicate()[0], b"[]\n")

    def test_a_file_in_the_owners_directory_is_not_imported_by_the_template(self):
        before = os.getcwd()
        os.chdir(self.folder({"enum.py": "1/0", "runpy.py": "1/0"}))
        try:
            template = self.template(["json"])
            template.wait_ready()
        finally:
            os.chdir(before)

    def test_closing_while_other_threads_spawn(self):
        for _ in range(10):
            template = self.template(["json"], spares=1)
            template.wait_ready()
            ended = []

            def spawn():
                try:
                    while True:
                        ended.append(template.run([PYTHON, "-c", "pass"]).returncode)
                except (ValueError, OSError):
                    pass

            threads = [threading.Thread(target=spawn) for _ in range(4)]
            for thread in threads:
                thread.start()
            while not ended:
                threads[0].join(0.001)
            template.close()
            for thread in threads:
                thread.join()
            self.assertEqual(set(ended), {0})


class Hooks(TestCase):
    def test_hooks_run_before_the_fork_and_in_the_child(self):
        folder = self.folder({
            "hooks.py": "forks = []\nchildren = []\n"
            "def before(): forks.append(1)\n"
            "def inside(): import os; children.append(os.getpid())\n"
        })
        sys.path.insert(0, folder)
        self.addCleanup(sys.path.remove, folder)
        template = self.template(
            ["hooks"], backend="warm", before_fork="hooks:before", in_child="hooks:inside", spares=0
        )
        program = "import hooks, os; print(len(hooks.forks), hooks.children == [os.getpid()])"
        env = {**os.environ, "PYTHONPATH": folder}
        seen = [template.run([PYTHON, "-c", program], env=env, capture_output=True).stdout for _ in range(2)]
        # Once more than there were forks: the gate looks at the process as it is around a fork.
        self.assertEqual(seen, [b"2 True\n", b"3 True\n"])

    def test_a_hook_that_does_not_exist_fails_the_template(self):
        template = self.template(["json"], in_child="json:nothing")
        with self.assertRaisesRegex(warmfork.TemplateError, "nothing"):
            template.wait_ready()


if __name__ == "__main__":
    unittest.main()
