"""What sys.path children have: what preloading has made of it, and where packages have their parts."""

import os
import subprocess
import unittest

from support import BACKEND, PYTHON, TestCase, warm_only


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
