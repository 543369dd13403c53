"""Modules with fork handlers: what they start in a child is as in a cold one, and what blocks hinders nobody."""

import os
import signal
import sys
import unittest

from support import PYTHON, TestCase

PUMP = """
import os, threading

def start():
    global end, thread
    end = threading.Event()
    thread = threading.Thread(target=end.wait, daemon=True)
    thread.start()

def stop():
    end.set()
    thread.join()

start()
os.register_at_fork(before=stop, after_in_parent=start, after_in_child=start)
"""

SHOW_THREADS = """
import os, pump
for thread in sorted(map(int, os.listdir("/proc/self/task"))):
    with open(f"/proc/self/task/{thread}/status") as file:
        fields = dict(line.split(":\\t", 1) for line in file)
    print(
        sorted(os.sched_getaffinity(thread)), os.getpriority(os.PRIO_PROCESS, thread),
        fields["SigBlk"].strip(), fields["NoNewPrivs"].strip(),
    )
"""


class Modules(TestCase):
    def template_of(self, source, name="pump", **options):
        folder = self.folder({f"{name}.py": source})
        self.search(folder)
        return self.template([name], **options)

    def search(self, folder):
        """The folder is searched for modules by this process and by what it starts."""
        before = os.environ.get("PYTHONPATH")
        sys.path.insert(0, folder)
        self.addCleanup(sys.path.remove, folder)
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (folder, before)))
        self.addCleanup(
            lambda: os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)
        )


class Threads(Modules):
    """A fork handler that starts a thread in each child."""

    def show(self, template, **keywords):
        process = template.popen([PYTHON, "-c", SHOW_THREADS], stdout=-1, stderr=-1, text=True, **keywords)
        output, errors = process.communicate(timeout=60)
        self.assertEqual(errors, "")
        return process, output.splitlines()

    def test_have_the_affinity_nice_value_and_mask_of_the_spawn(self):
        cpu = min(os.sched_getaffinity(0))
        for spares in (0, 1):
            template = self.template_of(PUMP, spares=spares, backend="warm")
            process, threads = self.show(template, affinity={cpu}, nice=5)
            self.assertEqual(threads, [f"[{cpu}] 5 {0:016x} 0"] * 2)
            self.assertEqual(process.backend, "warm")

    def test_go_cold_where_only_a_thread_itself_could_follow(self):
        template = self.template_of(PUMP)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        self.addCleanup(signal.pthread_sigmask, signal.SIG_UNBLOCK, {signal.SIGUSR1})
        process, threads = self.show(template)
        self.assertEqual((process.backend, process.reason_code), ("cold", "gate"))
        self.assertIn("thread", process.reason)
        self.assertEqual({thread.split()[-2] for thread in threads}, {f"{1 << signal.SIGUSR1 - 1:016x}"})


if __name__ == "__main__":
    unittest.main()
