"""Children for trio."""

import subprocess
import unittest

import warmfork
from support import PYTHON, TestCase, descriptors

try:
    import trio
except ImportError:
    trio = None


@unittest.skipUnless(trio, "trio is not installed")
class Processes(TestCase):
    def setUp(self):
        # What trio keeps for the life of the process: its worker threads and their wake-up.
        trio.run(trio.to_thread.run_sync, int)
        super().setUp()
        self.warm = self.template(["json"], backend="warm")

    def command(self, text):
        return [PYTHON, "-c", text]

    def test_streams_and_status(self):
        async def main():
            process = await warmfork.trio.open_process(
                self.command("print(input()); raise SystemExit(3)"), template=self.warm, stdin=-1, stdout=-1
            )
            self.assertIsInstance(process, trio.Process)
            async with process.stdin, process.stdout:
                await process.stdin.send_all(b"text\n")
                output = b"".join([chunk async for chunk in process.stdout])
                return output, await process.wait()

        self.assertEqual(trio.run(main), (b"text\n", 3))

    def test_run(self):
        async def main():
            return await warmfork.trio.run_process(
                self.command("import sys; print(sys.stdin.read()); print('e', file=sys.stderr)"),
                template=self.warm, stdin=b"in", capture_stdout=True, capture_stderr=True,
            )

        done = trio.run(main)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"in\n", b"e\n"))

    def test_a_status_that_is_not_zero_raises(self):
        async def main():
            await warmfork.trio.run_process(self.command("raise SystemExit(2)"), template=self.warm)

        with self.assertRaises(BaseException) as caught:
            trio.run(main)
        errors = getattr(caught.exception, "exceptions", [caught.exception])
        self.assertIsInstance(errors[0], subprocess.CalledProcessError)

    def test_cancellation_leaves_no_process(self):
        async def main():
            with trio.move_on_after(0.2) as scope:
                await warmfork.trio.run_process(
                    self.command("import signal; signal.pause()"), template=self.warm
                )
            return scope.cancelled_caught

        self.assertTrue(trio.run(main))

    def test_a_program_that_does_not_exist(self):
        async def main():
            await warmfork.trio.open_process(["/no/such/program"], stdin=-1, stdout=-1)

        with self.assertRaises(FileNotFoundError):
            trio.run(main)

    def test_a_child_that_cannot_be_started_leaves_no_pipe_for_as_long_as_the_error_is_kept(self):
        async def main():
            before, errors = descriptors(), []
            for template in (self.warm, None):
                try:
                    await warmfork.trio.open_process(
                        self.command("pass"), template=template, cwd="/no/such/place", stdin=-1, stdout=-1
                    )
                except OSError as error:  # with the frames that it has gone through
                    errors.append(error)
            self.assertEqual((len(errors), descriptors()), (2, before))

        trio.run(main)


if __name__ == "__main__":
    unittest.main()
