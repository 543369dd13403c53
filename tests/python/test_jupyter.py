"""Kernels by a provisioner of Jupyter, with ipykernel and jupyter_client as they are installed."""

import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import unittest

from support import PYTHON, TestCase

# Starts a kernel as a server does; {0} is what it does with it, {1!r} the interpreter.
PROGRAM = """\
import os, sys, time
from jupyter_client import KernelManager

def run(text):
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    reply = client.execute_interactive(text, timeout=60, output_hook=collect)
    client.stop_channels()
    return reply["content"]["status"]

def collect(message):
    if message["msg_type"] == "stream": print(message["content"]["text"], end="", flush=True)

def backend():
    return manager.provisioner.process.backend

# A first one would not wait for the image.
from warmfork import jupyter
jupyter._template_of({1!r}, ("colorsys", "wave")).wait_ready()
manager = KernelManager(kernel_name="warm")
manager.start_kernel()
try:
    print(backend(), flush=True)
{0}
finally:
    if manager.has_kernel: manager.shutdown_kernel()
"""


@unittest.skipUnless(
    all(importlib.util.find_spec(name) for name in ("jupyter_client", "ipykernel")), "Jupyter is not installed"
)
class Kernels(TestCase):
    def setUp(self):
        super().setUp()
        kernel = {
            "argv": [PYTHON, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "warm",
            "language": "python",
            "metadata": {"kernel_provisioner": {"provisioner_name": "warmfork", "config": {"preload": "colorsys, wave"}}},
        }
        self.data = self.folder({
            "kernels/warm/kernel.json": json.dumps(kernel),
        })
        self.environment = {
            **os.environ, "JUPYTER_PATH": self.data, "JUPYTER_RUNTIME_DIR": self.data,
            "IPYTHONDIR": self.data, "JUPYTER_CONFIG_DIR": self.data, "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        }

    def server(self, text):
        program = PROGRAM.replace("{0}", "".join(f"    {line}\n" for line in text.splitlines()))
        program = program.replace("{1!r}", repr(PYTHON))
        return subprocess.Popen([sys.executable, "-c", program], env=self.environment, stdout=subprocess.PIPE, text=True)

    def run_server(self, text):
        with self.server(text) as server:
            output, _ = server.communicate(timeout=120)
        self.assertEqual(server.returncode, 0, output)
        return output.splitlines()

    def test_a_kernel_runs_with_what_was_preloaded(self):
        shown = self.run_server(
            "run('import os, sys; print(os.getppid(), \"wave\" in sys.modules, os.environ[\"JPY_PARENT_PID\"])')\n"
            "print(os.getpid())"
        )
        self.assertEqual(shown[0], "warm")
        pid = shown[-1]
        self.assertEqual(shown[1:-1], [f"{pid} True {pid}"])

    def test_a_kernel_is_interrupted_and_goes_on(self):
        shown = self.run_server(
            "def interrupt(message):\n"
            "    if message['msg_type'] == 'stream': manager.interrupt_kernel()\n"
            "client = manager.client(); client.start_channels(); client.wait_for_ready(timeout=60)\n"
            "text = 'print(1, flush=True)\\nimport time\\nwhile True: time.sleep(0.01)'\n"
            "print(client.execute_interactive(text, timeout=60, output_hook=interrupt)['content']['ename'], flush=True)\n"
            "client.stop_channels()\n"
            "run('print(2)')"
        )
        self.assertEqual(shown, ["warm", "KeyboardInterrupt", "2"])

    def test_a_kernel_is_started_again(self):
        shown = self.run_server(
            "run('import os; kept = 1; print(os.getpid())')\n"
            "manager.restart_kernel()\n"
            "print(backend(), flush=True)\n"
            "run('print(os.getpid() if \"kept\" in globals() else \"anew\")')"
        )
        self.assertEqual([shown[0], *shown[2:]], ["warm", "warm", "anew"])

    def test_a_kernel_ends_where_it_is_shut_down(self):
        (backend, ended) = self.run_server(
            "process = manager.provisioner.process\nmanager.shutdown_kernel()\nprint(process.returncode is not None)"
        )
        self.assertEqual((backend, ended), ("warm", "True"))

    def test_a_kernel_ends_when_its_server_is_killed(self):
        with self.server("run('import os; print(os.getpid())')\nprint('ready', flush=True)\ntime.sleep(600)") as server:
            lines = [server.stdout.readline().strip() for _ in range(3)]
            kernel = os.pidfd_open(int(lines[1]))
            self.addCleanup(os.close, kernel)
            server.send_signal(signal.SIGKILL)
            self.assertEqual(lines[2], "ready")
        poll = select.poll()
        poll.register(kernel)
        self.assertTrue(poll.poll(60_000))  # it looks once a second


if __name__ == "__main__":
    unittest.main()
