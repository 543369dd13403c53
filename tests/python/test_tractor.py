"""The spawn method for tractor: against a stand-in of the contract, and the real one where there is one."""

import importlib.util
import os
import sys
import unittest
import unittest.mock

from support import PYTHON, TestCase

try:
    import trio
except ImportError:
    trio = None

STAND_IN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tractor_stand_in")

is_real = importlib.util.find_spec("tractor") is not None
if not is_real:
    sys.path.insert(0, STAND_IN)


async def where():
    return os.getpid(), os.getppid(), os.environ.get("OF_THIS_MOMENT"), "tractor" in sys.modules


async def leave():
    os._exit(7)


@unittest.skipUnless(trio, "trio is not installed")
class Actors(TestCase):
    def setUp(self):
        trio.run(trio.to_thread.run_sync, int)  # what trio keeps: its threads, and their wake-up
        super().setUp()
        patch = unittest.mock.patch.dict(os.environ, XDG_STATE_HOME=self.folder({}))
        patch.start()
        self.addCleanup(patch.stop)
        import tractor

        import warmfork.tractor

        self.tractor, self.module = tractor, warmfork.tractor
        warmfork.tractor.register(backend="warm")
        self.addCleanup(self.close)

    def close(self):
        if self.module._template is not None:
            self.module._template.close()
            self.module._template = None

    def test_an_actor_is_warm_and_its_parents_own_child(self):
        async def main():
            async with self.tractor.open_nursery(start_method="warmfork") as nursery:
                os.environ["OF_THIS_MOMENT"] = "yes"
                portal = await nursery.start_actor("one", enable_modules=[__name__])
                answer = await portal.run(where)
                (_, process, _), = nursery._children.values()
                await portal.cancel_actor()
            return answer, process

        answer, process = trio.run(main)
        self.assertEqual(answer, (process.pid, os.getpid(), "yes", True))
        self.assertEqual(process.returncode, 0)
        counts = self.module._template.counts
        self.assertEqual((counts["cold"], counts["handed_off"] + counts["forked"]), (0, 1))

    def test_many_at_once(self):
        async def main():
            pids = set()
            async with self.tractor.open_nursery(start_method="warmfork") as nursery:
                async def one(number):
                    portal = await nursery.start_actor(f"actor{number}", enable_modules=[__name__])
                    pids.add((await portal.run(where))[0])
                    await portal.cancel_actor()

                async with trio.open_nursery() as tasks:
                    for number in range(8):
                        tasks.start_soon(one, number)
            return pids

        self.assertEqual(len(trio.run(main)), 8)

    def test_cancellation_ends_the_actors(self):
        async def main():
            with trio.move_on_after(20) as scope:
                async with self.tractor.open_nursery(start_method="warmfork") as nursery:
                    portal = await nursery.start_actor("one", enable_modules=[__name__])
                    pid = (await portal.run(where))[0]
                    scope.cancel()
            return pid

        with self.assertRaises(ProcessLookupError):
            os.kill(trio.run(main), 0)

    def test_an_actor_that_ends_before_it_connects_is_an_error(self):
        async def main():
            with unittest.mock.patch.object(self.module, "_command", lambda *_: [PYTHON, "-c", "raise SystemExit(3)"]):
                async with self.tractor.open_nursery(start_method="warmfork") as nursery:
                    await nursery.start_actor("one")

        with self.assertRaises(BaseException) as caught:
            trio.run(main)
        text = repr(caught.exception) + "".join(map(repr, getattr(caught.exception, "exceptions", ())))
        self.assertIn("ended with status 3 before it connected", text)

    def test_other_methods_are_as_they_were(self):
        from tractor.spawn import _spawn

        self.assertIsNone(_spawn.try_set_start_method("trio"))
        self.assertEqual(_spawn._spawn_method, "trio")
        with self.assertRaises(BaseException):
            _spawn.try_set_start_method("no such method")
        self.module.register(backend="warm")  # again is fine
        self.assertEqual(list(_spawn._methods).count("warmfork"), 1)

    def test_siblings_of_trio_draw_other_numbers(self):
        template = self.template(["trio"], backend="warm")
        text = "import trio; print(trio._core._run._r.random())"
        drawn = {template.run([PYTHON, "-c", text], capture_output=True).stdout for _ in range(4)}
        self.assertEqual(len(drawn), 4)


if __name__ == "__main__":
    unittest.main()
