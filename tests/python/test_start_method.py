"""The method's name, where libraries ask for one: what multiprocessing lists, PyTorch, joblib, dask."""

import importlib.util
import os
import subprocess
import sys
import unittest

from support import BACKEND, PYTHON, TestCase


class Names(TestCase):
    def run_text(self, text, **environment):
        """What a program prints, less the last newline."""
        folder = self.folder({"program.py": text})
        environment = {**os.environ, "PYTHONPATH": ":".join(sys.path), **environment}
        command = [PYTHON, os.path.join(folder, "program.py")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr, "")
        return done.stdout.strip()

    def test_multiprocessing_lists_the_method_behind_its_own(self):
        text = (
            "import multiprocessing, multiprocessing.context\n"
            "before = multiprocessing.get_all_start_methods()\n"
            "{import_}\n"
            "import warmfork.multiprocessing as ours\nours.install()\n"
            "for names in multiprocessing.get_all_start_methods(), {name}():\n"
            "    assert names == [*before, 'warmfork'], names\n"
        )
        for name, import_ in (
            ("multiprocessing.get_all_start_methods", ""),
            ("get_all_start_methods", "from multiprocessing import get_all_start_methods"),
        ):
            with self.subTest(name):
                self.run_text(text.format(name=name, import_=import_))

    def test_a_child_knows_it_whatever_its_method(self):
        text = (
            "import multiprocessing as mp\n"
            "def names(pipe): pipe.send(mp.get_all_start_methods().count('warmfork'))\n"
            "if __name__ == '__main__':\n"
            "    import warmfork.multiprocessing\n"
            "    mp.set_start_method('warmfork')\n"
            "    for method in 'fork', 'spawn', 'forkserver', 'warmfork':\n"
            "        ours, theirs = mp.Pipe()\n"
            "        child = mp.get_context(method).Process(target=names, args=(theirs,))\n"
            "        child.start(); print(method, ours.recv()); child.join()\n"
        )
        self.assertEqual(self.run_text(text).split(), ["fork", "1", "spawn", "1", "forkserver", "1", "warmfork", "1"])

    def need(self, module):
        if importlib.util.find_spec(module) is None:
            self.skipTest(f"{module} is not installed")

    def test_joblib_takes_it_by_name_and_as_a_backend(self):
        self.need("joblib")
        plain = "import joblib; print(joblib.Parallel(2, backend='multiprocessing')([joblib.delayed(abs)(-1)]))"
        alone = subprocess.run([PYTHON, "-c", plain], capture_output=True, text=True, timeout=240)
        if (alone.stdout, alone.stderr) != ("[1]\n", ""):
            self.skipTest("this joblib does not work with this interpreter, whatever the method")
        text = (
            "import os, sys, warmfork, warmfork.multiprocessing\nimport joblib\n"
            "def work(number): return number * 2, 'warmfork.multiprocessing' in sys.modules, os.getppid()\n"
            "if __name__ == '__main__':\n"
            "    {context}.template.wait_ready()\n"
            "    with joblib.parallel_backend({backend}):\n"
            "        done = joblib.Parallel(2)(joblib.delayed(work)(number) for number in range(4))\n"
            "    assert done == [(number * 2, True, os.getpid()) for number in range(4)], done\n"
            "    counts = {context}.counts\n"
            f"    ours = counts[{BACKEND!r}]\n"
            "    print(ours >= 2, counts['warm'] + counts['cold'] - ours)\n"
        )
        by_name = text.format(backend="'multiprocessing'", context="warmfork.multiprocessing._default")
        # joblib starts interpreters of its own, which read the variable too.
        site = self.folder({"sitecustomize.py": "import warmfork.multiprocessing"})
        path = ":".join((site, *sys.path))
        self.assertEqual(self.run_text(by_name, JOBLIB_START_METHOD="warmfork", PYTHONPATH=path), "True 0")
        as_backend = text.replace("with joblib.parallel_backend({backend}):", "if True:").replace(
            "Parallel(2)", "Parallel(2, backend=warmfork.get_context())"
        ).format(context="warmfork.get_context()")
        self.assertEqual(self.run_text(as_backend), "True 0")

    def test_dask_takes_it_by_name(self):
        self.need("distributed")
        text = (
            "import os\nimport warmfork.multiprocessing\nimport dask, dask.distributed as distributed\n"
            "if __name__ == '__main__':\n"
            "    dask.config.set({'distributed.worker.multiprocessing-method': 'warmfork'})\n"
            "    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=':0') as cluster:\n"
            "        with distributed.Client(cluster) as client:\n"
            "            parents = client.run(os.getppid).values()\n"
            "            total = client.submit(sum, [1, 2, 3]).result(60)\n"
            "    print(set(parents) == {os.getpid()}, total, warmfork.multiprocessing._default.counts['cold'])\n"
        )
        self.assertEqual(self.run_text(text, DASK_LOGGING__DISTRIBUTED="error", WARMFORK_BACKEND="warm"), "True 6 0")

    def test_a_data_loader_of_pytorch_takes_it_by_name(self):
        self.need("torch")
        text = (
            "import torch, torch.utils.data\nimport warmfork.multiprocessing\n"
            "class Numbers(torch.utils.data.Dataset):\n"
            "    def __len__(self): return 8\n"
            "    def __getitem__(self, index): return torch.tensor([index * 2.0])\n"
            "if __name__ == '__main__':\n"
            "    loader = torch.utils.data.DataLoader(Numbers(), 4, num_workers=2, multiprocessing_context='warmfork')\n"
            "    print([batch.flatten().tolist() for batch in loader], warmfork.multiprocessing._default.counts)\n"
        )
        expected = "[[0.0, 2.0, 4.0, 6.0], [8.0, 10.0, 12.0, 14.0]]"
        self.assertTrue(self.run_text(text).startswith(expected))


if __name__ == "__main__":
    unittest.main()
