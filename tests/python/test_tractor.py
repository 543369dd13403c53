"""The spawn method for tractor: against a stand-in of the contract, and the real one where there is one."""

import contextlib
import importlib.util
import os
import signal
import sys
import time
import unittest
import unittest.mock
from functools import partial

from support import PYTHON, TestCase, warm_only

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


async def arguments():
    return sys.argv, sys.orig_argv[1:]


async def options_of_this_actor():
    import tractor

    actor = tractor.current_actor()
    return actor.loglevel, actor.is_of_asyncio, actor._spawn_method


async def nest(depth):
    """Whether each of a chain of actors, each the child of the one before, is warm and its parent's own child."""
    import tractor

    if depth == 0:
        return []
    async with tractor.open_nursery() as nursery:
        portal = await nursery.start_actor("below", enable_modules=[__name__])
        (_, process, _), = nursery._children.values()
        below = await portal.run(nest, depth=depth - 1)
        pid, parent, *_ = await portal.run(where)
        await portal.cancel_actor()
    backend = getattr(process._proc, "backend", "another method's")
    return [(backend, pid == process.pid, parent == os.getpid()), *below]


async def fail():
    raise LookupError("of an actor")


async def hold(depth, path):
    """Opens a chain of actors, each of which waits for its end; each adds its process id to a file."""
    import tractor

    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    async with tractor.open_nursery() as nursery:
        if depth:
            portal = await nursery.start_actor("below", enable_modules=[__name__])
            await portal.run(hold, depth=depth - 1, path=path)
        await trio.sleep_forever()


# How the nursery of some actors comes to its end; with a portal of one of them.


async def told_to_end(portal, scope):
    scope.cancel()
    await trio.lowlevel.checkpoint()


async def error_of_an_actor(portal, scope):
    await portal.run(fail)


async def error_of_the_parent(portal, scope):
    raise LookupError("here")


async def interrupt_of_the_parent(portal, scope):
    os.kill(os.getpid(), signal.SIGINT)
    await trio.sleep_forever()


def errors_of(error):
    """The types of those that a group holds, however deep."""
    parts = getattr(error, "exceptions", None)
    return [type(error)] if parts is None else [kind for part in parts for kind in errors_of(part)]


def end_of(tractor, method, count, way=told_to_end):
    """Starts actors and ends their nursery. Returns their statuses, what was raised, and the seconds of their end."""
    processes, began, raised = [], 0, []

    async def main():
        nonlocal processes, began
        with trio.CancelScope() as scope:
            async with tractor.open_nursery(start_method=method) as nursery:
                for number in range(count):
                    portal = await nursery.start_actor(f"actor{number}", enable_modules=[__name__])
                processes = [process for _, process, _ in nursery._children.values()]
                began = time.monotonic()
                await way(portal, scope)

    try:
        trio.run(main)
    except BaseException as error:
        raised = errors_of(error)
    return [process.returncode for process in processes], raised, time.monotonic() - began


def pids_in(path):
    with open(path) as file:
        return [int(line) for line in file if line.endswith("\n")]


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@unittest.skipUnless(trio, "trio is not installed")
class Actors(TestCase):
    def setUp(self):
        trio.run(trio.to_thread.run_sync, int)  # what trio keeps: its threads, and their wake-up
        super().setUp()
        patch = unittest.mock.patch.dict(os.environ, XDG_STATE_HOME=self.folder({}), PYTHONPATH=":".join(sys.path))
        patch.start()
        self.addCleanup(patch.stop)
        import tractor

        import warmfork.tractor

        self.tractor, self.module = tractor, warmfork.tractor
        warmfork.tractor.register(backend="warm")
        self.addCleanup(self.close)

    def close(self):
        self.module._close()

    def one_actor(self, function, **options):
        """What the function returns in an actor of that method."""
        async def main():
            async with self.tractor.open_nursery(start_method=options.pop("start_method", "warmfork")) as nursery:
                portal = await nursery.start_actor("one", enable_modules=[__name__], **options)
                answer = await portal.run(function)
                await portal.cancel_actor()
            return answer

        return trio.run(main)

    def test_an_actor_is_warm_and_its_parents_own_child(self):
        async def main():
            async with self.tractor.open_nursery(start_method="warmfork") as nursery:
                os.environ["OF_THIS_MOMENT"] = "yes"
                portal = await nursery.start_actor("one", enable_modules=[__name__])
                answer = tuple(await portal.run(where))  # the package itself makes a list of it
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

    @unittest.skipIf(is_real, "the environment does not come to a method of the package itself")
    def test_an_actor_that_ends_before_it_connects_is_an_error(self):
        async def main():
            async with self.tractor.open_nursery(start_method="warmfork") as nursery:
                with self.assertRaisesRegex(Exception, "ended with status 3 before it connected"):
                    await nursery.start_actor("one", env={**os.environ, "LEAVE_EARLY": "3"})

        trio.run(main)

    def raised(self, method, **options):
        """What start_actor() itself raises, which is in no group."""
        async def main():
            async with self.tractor.open_nursery(start_method=method) as nursery:
                try:
                    await nursery.start_actor("one", **options)
                except Exception as error:
                    return type(error)

        return trio.run(main)

    def test_what_cannot_be_started_is_raised_as_by_the_package_itself(self):
        if is_real:
            self.skipTest("proc_kwargs do not come to a method of the package itself")
        self.module.register()  # another executable is never warm
        for options, kind in (
            ({"cwd": "/no/such/directory"}, FileNotFoundError), ({"cwd": "/dev/null"}, NotADirectoryError),
            ({"text": True}, TypeError), ({"no_such_option": 1}, TypeError), ({"stdin": "x"}, AttributeError),
            ({"env": {"A\0B": "x"}}, ValueError), ({"executable": "/no/such/program"}, FileNotFoundError),
            ({"executable": "/dev/null"}, PermissionError),
        ):
            with self.subTest(options):
                self.assertIs(self.raised("trio", **options), kind)
                self.assertIs(self.raised("warmfork", **options), kind)

    def test_the_command_line_is_the_packages_own(self):
        if is_real:
            self.skipTest("the functions of the test are for the stand-in")
        warm, cold = self.one_actor(arguments), self.one_actor(arguments, start_method="trio")
        for arguments_of in (warm, cold):
            for line in arguments_of:
                line[line.index("--parent_addr") + 1] = "an address"
        self.assertEqual(warm, cold)
        options = {"loglevel": "info", "infect_asyncio": True}
        self.assertEqual(self.one_actor(options_of_this_actor, **options), ("info", True, "trio"))
        self.assertEqual(self.one_actor(options_of_this_actor), (None, False, "trio"))

    def test_actors_end_as_cold_ones_do_however_their_nursery_ends(self):
        if is_real:
            self.skipTest("the functions of the test are for the stand-in")
        for way, kinds in (
            (told_to_end, []), (error_of_an_actor, [LookupError]), (error_of_the_parent, [LookupError]),
            (interrupt_of_the_parent, [KeyboardInterrupt]),
        ):
            for method in ("trio", "warmfork"):
                with self.subTest(way.__name__, method=method):
                    statuses, raised, _ = end_of(self.tractor, method, 2, way)
                    self.assertEqual((statuses, raised), ([0, 0], kinds))

    def test_cancelled_actors_end_in_the_time_that_cold_ones_need(self):
        if is_real:
            self.skipTest("the functions of the test are for the stand-in")
        seconds = {"trio": [], "warmfork": []}
        for _ in range(5):  # by turns, so that what else runs is beside both
            for method, taken in seconds.items():
                statuses, _, time_taken = end_of(self.tractor, method, 3)
                self.assertEqual(statuses, [0, 0, 0])
                taken.append(time_taken)
        # The package ends what is there half a second later. A cold actor needs a small part of that.
        self.assertLess(min(seconds["warmfork"]), 2.5 * min(seconds["trio"]), seconds)

    def test_actors_of_actors_end_with_those_above_them(self):
        if is_real:
            self.skipTest("the functions of the test are for the stand-in")
        from tractor.spawn import _spawn

        self.module.register(nested=True, backend="warm")
        for method in ("trio", "warmfork"):
            with self.subTest(method):
                path = os.path.join(self.folder({"pids": ""}), "pids")

                async def main():
                    async with self.tractor.open_nursery(start_method=method) as nursery:
                        portal = await nursery.start_actor("first", enable_modules=[__name__])
                        (_, process, _), = nursery._children.values()
                        async with trio.open_nursery() as tasks:
                            tasks.start_soon(partial(portal.run, hold, depth=2, path=path))
                            while len(pids_in(path)) < 3:
                                await trio.sleep(0.01)
                            tasks.cancel_scope.cancel()
                        await portal.cancel_actor()
                    return process.returncode

                with unittest.mock.patch.object(_spawn, "_spawn_method", method):
                    self.assertEqual(trio.run(main), 0)
                self.assertEqual([pid for pid in pids_in(path) if is_there(pid)], [])

    @warm_only
    def test_a_template_that_somebody_has_killed_comes_back(self):
        self.module.register()
        for _ in range(2):
            self.module._template.wait_ready()
            with contextlib.suppress(ProcessLookupError):
                if pid := self.module._template.pid:  # 0: the last round's kill is only seen now
                    os.kill(pid, signal.SIGKILL)
            pid, parent, *_ = self.one_actor(where)  # warm or cold, as it happens
            self.assertEqual(parent, os.getpid())
        self.module._template.wait_ready()
        before = self.module._template.counts["cold"]
        self.one_actor(where)
        self.assertEqual(self.module._template.counts["cold"], before)

    def test_nested_actors_are_warm_at_any_depth(self):
        if is_real:
            self.skipTest("the functions of the test are for the stand-in")
        from tractor.spawn import _spawn

        self.module.register(nested=True, backend="warm")

        async def main():
            _spawn.try_set_start_method("warmfork")
            return await nest(3)

        self.assertEqual(trio.run(main), [("warm", True, True)] * 3)

    def test_without_nested_actors_below_are_cold(self):
        if is_real:
            self.skipTest("the functions of the test are for the stand-in")
        from tractor.spawn import _spawn

        async def main():
            _spawn.try_set_start_method("warmfork")
            return await nest(2)

        self.assertEqual(trio.run(main), [("warm", True, True), ("another method's", True, True)])

    def test_registering_opens_the_template_and_again_with_other_arguments_another(self):
        first = self.module._template
        self.assertIsNotNone(first)
        self.module.register(backend="warm")
        self.assertIs(self.module._template, first)
        self.module.register(["colorsys"], backend="warm")
        self.assertIsNot(self.module._template, first)
        self.module._template.wait_ready()
        imports = [entry["module"] for entry in self.module._template.report()["host"]["imports"]]
        self.assertIn("colorsys", imports)

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
