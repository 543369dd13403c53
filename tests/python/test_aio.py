"""Children for asyncio."""

import asyncio
import os
import sys
import threading
import unittest

import warmfork
from support import PYTHON, TestCase

PIPE = asyncio.subprocess.PIPE


class Processes(TestCase):
    def setUp(self):
        super().setUp()
        self.warm = self.template(["json"], backend="warm")

    async def spawn(self, text, *args, **options):
        return await warmfork.aio.create_subprocess_exec(
            PYTHON, "-c", text, *args, template=self.warm, **options
        )

    def test_streams_and_status(self):
        async def main():
            process = await self.spawn("import sys; print(sys.stdin.read()); sys.exit(3)", stdin=PIPE, stdout=PIPE)
            self.assertIsInstance(process, asyncio.subprocess.Process)
            output, _ = await process.communicate(b"text")
            return output, process.returncode

        self.assertEqual(asyncio.run(main()), (b"text\n", 3))

    def test_signals_and_wait(self):
        async def main():
            process = await self.spawn("import signal; print('up', flush=True); signal.pause()", stdout=PIPE)
            await process.stdout.readline()
            process.terminate()
            return await process.wait()

        self.assertEqual(asyncio.run(main()), -15)

    def test_many_at_once(self):
        async def one(number):
            process = await self.spawn(f"print({number})", stdout=PIPE)
            return int((await process.communicate())[0])

        async def main():
            return await asyncio.gather(*map(one, range(20)))

        self.assertEqual(asyncio.run(main()), list(range(20)))

    def test_in_the_loop_of_another_thread(self):
        seen = []

        async def main():
            process = await self.spawn("raise SystemExit(4)")
            seen.append(await process.wait())

        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start()
        thread.join()
        self.assertEqual(seen, [4])

    def test_cancellation_and_timeouts_leave_no_process(self):
        async def main():
            process = await self.spawn("import signal; signal.pause()")
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(process.wait(), 0.05)
            process.kill()
            await process.wait()

        asyncio.run(main())

    def test_a_program_that_does_not_exist(self):
        async def main():
            await warmfork.aio.create_subprocess_exec("/no/such/program")

        with self.assertRaises(FileNotFoundError):
            asyncio.run(main())

    def test_importing_warmfork_does_not_import_asyncio(self):
        done = self.warm.run([PYTHON, "-c", "import sys, warmfork; print('asyncio' in sys.modules)"], capture_output=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
        self.assertEqual(done.stdout, b"False\n")


if __name__ == "__main__":
    unittest.main()
