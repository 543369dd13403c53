"""The examples run, and are warm."""

import os
import signal
import socket
import subprocess
import unittest

from support import PYTHON, TestCase, warm_only

EXAMPLES = os.path.join(os.path.dirname(__file__), "../../shim/python/examples")


def has_numpy():
    try:
        import numpy  # noqa: F401
    except ImportError:
        return False
    return True


class Examples(TestCase):
    def run_example(self, name, *args):
        done = subprocess.run(
            [PYTHON, os.path.join(EXAMPLES, name), *args], stdout=subprocess.PIPE, text=True, timeout=60
        )
        self.assertEqual(done.returncode, 0)
        return done.stdout.splitlines()

    @unittest.skipUnless(has_numpy(), "numpy is not installed")
    @warm_only
    def test_a_process_for_each_core(self):
        for args in ((), ("--concurrent",)):
            lines = self.run_example("process_per_core.py", *args)
            self.assertEqual(len({line.split()[0] for line in lines[:-1]}), os.cpu_count())
            self.assertIn(", 0 of them cold", lines[-1])

    @unittest.skipUnless(has_numpy(), "numpy is not installed")
    def test_a_pool_over_numpy(self):
        lines = self.run_example("pool_over_numpy.py", "2")
        self.assertEqual(lines[0], "Hilbert matrix of 2: 1.267592")

    def test_a_server_of_children(self):
        command = [PYTHON, os.path.join(EXAMPLES, "server_of_children.py")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                port = int(server.stdout.readline().split()[-1])
                answers = []
                for request in (b"2 + 3\n", b"sqrt(16)\n", b"1 / 0\n"):
                    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                        connection.sendall(request)
                        answers.append(connection.makefile().read().strip())
                self.assertEqual(answers, ["5", "4.0", "ZeroDivisionError: division by zero"])
            finally:
                server.send_signal(signal.SIGINT)
        self.assertEqual(server.returncode, 0)


if __name__ == "__main__":
    unittest.main()
