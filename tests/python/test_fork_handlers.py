"""Modules with fork handlers: what they start in a child is as in a cold one, and what blocks hinders nobody."""

import errno
import os
import select
import signal
import subprocess
import sys
import threading
import unittest

import warmfork
from support import PYTHON, TestCase, children, warm_only

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

    @warm_only
    def test_go_cold_where_only_a_thread_itself_could_follow(self):
        template = self.template_of(PUMP)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        self.addCleanup(signal.pthread_sigmask, signal.SIG_UNBLOCK, {signal.SIGUSR1})
        process, threads = self.show(template)
        self.assertEqual((process.backend, process.reason_code), ("cold", "gate"))
        self.assertIn("thread", process.reason)
        self.assertEqual({thread.split()[-2] for thread in threads}, {f"{1 << signal.SIGUSR1 - 1:016x}"})


def spares():
    """Of this process, parked."""
    found = []
    for child in children():
        with open(f"/proc/{child}/comm") as file:
            if file.read() == "warmfork-spare\n":
                found.append(child)
    return found


class Blocking(Modules):
    """What does not answer: no spawn waits for it without end, and none runs twice."""

    def run_once(self, template, **keywords):
        """Returns the process, which has ended and has run once."""
        folder = self.folder({})
        mark = os.path.join(folder, "mark")
        program = "import os, sys; os.write(os.open(sys.argv[1], os.O_CREAT | os.O_APPEND | os.O_WRONLY), b'x')"
        process = template.popen([PYTHON, "-c", program, mark], **keywords)
        self.assertEqual(process.wait(60), 0)
        with open(mark) as file:
            self.assertEqual(file.read(), "x")
        return process

    def check_unresponsive(self, process, *words):
        self.assertEqual((process.backend, process.reason_code), ("cold", "unresponsive"))
        for word in words:
            self.assertIn(word, process.reason)

    @warm_only
    def test_children_in_which_a_handler_blocks_are_told_of(self):
        template = self.template_of("import os, signal\nos.register_at_fork(after_in_child=signal.pause)\n")
        for _ in range(3):  # only the first waits for one
            self.check_unresponsive(self.run_once(template), "fork handler")
        self.assertIn(False, [spare["parked"] for spare in template.report()["spares"]])
        self.assertEqual(template.counts["template_starts"], 1)
        with self.assertRaises(warmfork.Error) as caught:
            template.popen([PYTHON, "-c", "pass"], backend="warm")
        self.assertEqual(caught.exception.errno, errno.ETIMEDOUT)

    @warm_only
    def test_a_child_on_command_in_which_a_handler_blocks_is_ended(self):
        template = self.template_of(
            "import os, signal\nos.register_at_fork(after_in_child=signal.pause)\n", spares=0
        )
        self.check_unresponsive(self.run_once(template), "fork handler")
        self.assertEqual(set(children()) - {template.pid}, set())

    @warm_only
    def test_a_template_in_which_a_handler_blocks_is_replaced(self):
        # Not at the gate, which is the first time.
        template = self.template_of(
            "import os, signal\nruns = []\n"
            "os.register_at_fork(before=lambda: signal.pause() if runs else runs.append(1))\n",
            spares=0,
        )
        template.wait_ready()
        first = template.pid
        self.check_unresponsive(self.run_once(template))
        self.assertNotEqual(template.pid, first)
        self.assertFalse(os.path.exists(f"/proc/{first}"))

    @warm_only
    def test_a_template_that_blocks_at_its_gate_is_not_waited_for(self):
        template = self.template_of("import os, signal\nos.register_at_fork(before=signal.pause)\n", waits=False)
        while (process := self.run_once(template)).reason_code == "restarting":
            pass  # the first need not wait for the image
        self.check_unresponsive(process, "not ready")
        self.check_unresponsive(self.run_once(template), "not ready")
        with self.assertRaises(warmfork.TemplateError) as caught:
            template.wait_ready(0)
        self.assertEqual(caught.exception.errno, errno.ETIMEDOUT)

    @warm_only
    def test_a_stopped_spare_makes_way_for_the_next(self):
        template = self.template(spares=2)
        template.wait_parked(2)
        stopped = spares()[0]
        os.kill(stopped, signal.SIGSTOP)
        while stopped in children():
            self.assertLess(template.counts["handed_off"], 3)
            self.assertEqual(self.run_once(template).backend, "warm")
        template.wait_parked(2)
        self.assertEqual(self.run_once(template).backend, "warm")

    @warm_only
    def test_a_stopped_template_is_replaced(self):
        template = self.template(spares=0)
        template.wait_ready()
        first = template.pid
        os.kill(first, signal.SIGSTOP)
        self.check_unresponsive(self.run_once(template))
        template.wait_ready()
        self.assertNotEqual(template.pid, first)
        self.assertEqual(self.run_once(template).backend, "warm")

    def test_a_template_that_closes_and_blocks_all_that_it_can_ends_with_its_owner(self):
        module = (
            "import os, signal\n"
            "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n"
            "os.closerange(3, 65536)\n"
            "with open(os.path.join(os.path.dirname(__file__), 'pipe'), 'w') as pipe: print(os.getpid(), file=pipe)\n"
            "while True: signal.pause()\n"
        )
        folder = self.folder({"stuck.py": module})
        self.search(folder)
        os.mkfifo(os.path.join(folder, "pipe"))
        owner = subprocess.Popen(
            [PYTHON, "-c", "import warmfork, signal\ntemplate = warmfork.Template(['stuck'])\nsignal.pause()"]
        )
        self.addCleanup(owner.wait)
        self.addCleanup(owner.kill)
        with open(os.open(os.path.join(folder, "pipe"), os.O_RDWR)) as pipe:
            self.assertTrue(select.select([pipe], [], [], 60)[0])
            stuck = os.pidfd_open(int(pipe.readline()))
        self.addCleanup(os.close, stuck)
        owner.kill()
        has_ended = select.select([stuck], [], [], 60)[0]
        if not has_ended:
            signal.pidfd_send_signal(stuck, signal.SIGKILL)
        self.assertTrue(has_ended)

    def test_a_stopped_template_gives_no_report(self):
        template = self.template()
        template.wait_ready()
        os.kill(template.pid, signal.SIGSTOP)
        with self.assertRaises(warmfork.TemplateError) as caught:
            template.report()
        self.assertEqual(caught.exception.errno, errno.ETIMEDOUT)
        os.kill(template.pid, signal.SIGCONT)

    @warm_only
    def test_a_spawn_that_a_handler_breaks_off_is_held_against_nobody(self):
        def handle(_, frame):
            while frame is not None and frame.f_code.co_name != "popen":
                frame = frame.f_back
            if frame is not None:
                raise InterruptedError("by the test")

        self.addCleanup(signal.signal, signal.SIGALRM, signal.signal(signal.SIGALRM, handle))
        self.addCleanup(signal.setitimer, signal.ITIMER_REAL, 0)
        template = self.template(spares=1)
        for _ in range(5):
            template.wait_parked(1)
            stopped = spares()[0]
            os.kill(stopped, signal.SIGSTOP)
            signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
            while stopped in children():
                with self.assertRaisesRegex(InterruptedError, "by the test"):
                    template.popen([PYTHON, "-c", "pass"])
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.assertEqual(self.run_once(template).backend, "warm")
        self.assertEqual(template.counts["reasons"], {})

    def test_who_waits_for_a_template_that_another_thread_closes_is_told(self):
        never = "import threading\nthreading.Event().wait()\n"
        for call in (warmfork.Template.wait_ready, warmfork.Template.wait_parked, warmfork.Template.report):
            template = self.template_of(never, waits=False)
            raised, begins = [], threading.Event()

            def wait():
                begins.set()
                try:
                    call(template)
                except Exception as error:
                    raised.append(repr(error))

            thread = threading.Thread(target=wait, daemon=True)
            thread.start()
            begins.wait()
            template.close()
            thread.join(60)
            self.assertEqual(raised, ["ValueError('the template is closed')"])

    def test_signals_are_heard_meanwhile(self):
        never = "import threading\nthreading.Event().wait()\n"
        calls = [lambda template: template.popen([PYTHON, "-c", "pass"], backend="warm"), warmfork.Template.wait_ready,
                 warmfork.Template.wait_parked, warmfork.Template.report]
        for call in calls:
            heard = []

            def handle(*_):
                heard.append(1)
                if len(heard) == 3:
                    raise InterruptedError("by the test")

            before = signal.signal(signal.SIGALRM, handle)
            self.addCleanup(signal.signal, signal.SIGALRM, before)
            template = self.template_of(never, waits=False)
            signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
            self.addCleanup(signal.setitimer, signal.ITIMER_REAL, 0)
            with self.assertRaisesRegex(InterruptedError, "by the test"):
                call(template)
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.assertEqual(children(), [template.pid])
            template.close()


if __name__ == "__main__":
    unittest.main()
