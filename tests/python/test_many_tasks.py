"""Each task in a fresh child, eight at a time: none is lost, and nothing stays behind.

WARMFORK_TEST_TASKS=10000 makes it that many tasks instead of 200."""

import asyncio
import concurrent.futures
import gc
import multiprocessing.resource_tracker
import os
import sys
import time
import unittest

import warmfork
import warmfork.multiprocessing
from support import PYTHON, TestCase, warm_only

try:
    import trio
except ImportError:
    trio = None

TASKS = int(os.environ.get("WARMFORK_TEST_TASKS", "200"))
WIDTH = 8


def answer(number):
    # The executor looks for a process that has ended in its books, where it enters it after the start: in a thread of
    # its own, beside which the first ones are started by the caller.
    time.sleep(1 if number < WIDTH else 0.01)
    return number, os.getpid()


def wait_for_ever():
    import signal

    signal.pause()


def command(number):
    return [PYTHON, "-c", f"print({number})"]


class ManyTasks(TestCase):
    def setUp(self):
        multiprocessing.resource_tracker.ensure_running()  # lives as long as this process
        super().setUp()

    def check_processes(self, template):
        """Of all that was started only the template and its spares live."""
        for _ in range(1000):  # spares come and go
            template.report()  # a turn of the template's loop
            spares = template.parked
            with open(f"/proc/self/task/{os.getpid()}/children") as file:
                children = file.read().split()
            if len(children) <= spares + 2:
                return
        self.fail(f"{len(children)} children, {spares} of them spares")

    @unittest.skipIf(sys.version_info < (3, 11), "max_tasks_per_child is new in 3.11")
    @warm_only
    def test_executors(self):
        context = warmfork.multiprocessing.WarmforkContext([__name__])  # where the tasks are
        self.addCleanup(context.template.close)
        context.template.wait_ready()
        with concurrent.futures.ProcessPoolExecutor(WIDTH, mp_context=context, max_tasks_per_child=1) as executor:
            answers = list(executor.map(answer, range(TASKS)))
        self.assertEqual([number for number, _ in answers], list(range(TASKS)))
        self.assertGreaterEqual(len({pid for _, pid in answers}), min(TASKS, 30_000) * 0.9)  # pids come again
        self.assertEqual(context.counts["cold"], 0)

    def test_asyncio(self):
        template = self.template(["json"], backend="warm")

        async def run(number, turn):
            async with turn:
                process = await warmfork.aio.create_subprocess_exec(*command(number), template=template, stdout=-1)
                output, _ = await process.communicate()
                return int(output), process.returncode

        async def main():
            turn = asyncio.Semaphore(WIDTH)
            return await asyncio.gather(*(run(number, turn) for number in range(TASKS)))

        self.assertEqual(asyncio.run(main()), [(number, 0) for number in range(TASKS)])
        self.check_processes(template)

    @unittest.skipUnless(trio, "trio is not installed")
    def test_trio(self):
        template = self.template(["json"], backend="warm")
        answers = {}

        async def run(number, limiter):
            async with limiter:
                done = await warmfork.trio.run_process(command(number), template=template, capture_stdout=True)
                answers[number] = int(done.stdout), done.returncode

        async def main():
            limiter = trio.CapacityLimiter(WIDTH)
            async with trio.open_nursery() as nursery:
                for number in range(TASKS):
                    nursery.start_soon(run, number, limiter)

        trio.run(main)
        self.assertEqual(answers, {number: (number, 0) for number in range(TASKS)})
        self.check_processes(template)

    def test_cancelled_tasks_leave_no_process(self):
        template = self.template(["json"], backend="warm")
        started = []

        async def run():
            process = await warmfork.aio.create_subprocess_exec(
                PYTHON, "-c", "import signal; signal.pause()", template=template
            )
            started.append(process.pid)
            try:
                await process.wait()
            finally:
                process.kill()
                await process.wait()

        async def main():
            tasks = [asyncio.ensure_future(run()) for _ in range(WIDTH)]
            while len(started) < WIDTH:
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

        asyncio.run(main())
        self.assertEqual(len(started), WIDTH)
        for pid in started:
            with self.assertRaises(ProcessLookupError):
                os.kill(pid, 0)

    def test_a_pool_that_is_terminated_leaves_no_process(self):
        context = warmfork.multiprocessing.WarmforkContext([__name__])  # where the tasks are
        self.addCleanup(context.template.close)
        context.template.wait_ready()
        with context.Pool(WIDTH) as pool:
            pids = {process.pid for process in pool._pool}
            pool.apply_async(wait_for_ever)
        pool.join()
        del pool  # in a circle of references, with the pipes of its processes
        gc.collect()
        for pid in pids:
            with self.assertRaises(ProcessLookupError):
                os.kill(pid, 0)


if __name__ == "__main__":
    unittest.main()
