"""The entry of an actor's process: python -m tractor._child."""

import argparse
import importlib
import os
import sys
from ast import literal_eval

import trio

from . import _root  # noqa: F401
from .ipc import Channel


def _actor_child_main(uid, loglevel, parent_addr, infect_asyncio, spawn_method="trio"):
    import tractor

    actor = tractor._current_actor = tractor.Actor(*uid)
    actor.loglevel, actor.is_of_asyncio, actor._spawn_method = loglevel, infect_asyncio, spawn_method
    trio.run(_serve, actor, parent_addr)


async def _serve(actor, parent_addr):
    if os.environ.get("LEAVE_EARLY"):
        sys.exit(int(os.environ["LEAVE_EARLY"]))
    channel = Channel(await trio.open_tcp_stream(*parent_addr))
    await channel.send(actor.aid.uid)
    spec = await channel.receive()
    async with trio.open_nursery() as tasks:
        await actor.ipc_server.listen(tasks)
        async with trio.open_nursery() as calls:
            while (call := await channel.receive()) is not None:
                calls.start_soon(_answer, channel, spec, *call)
            calls.cancel_scope.cancel()
        actor.ipc_server.stop()


async def _answer(channel, spec, module, name, arguments):
    """Of one call at a time; what it raises is for the caller."""
    assert module in spec.enable_modules
    try:
        answer = await getattr(importlib.import_module(module), name)(**arguments), None
    except Exception as error:
        answer = None, error
    await channel.send(answer)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--uid", type=literal_eval)
    parser.add_argument("--loglevel")
    parser.add_argument("--parent_addr", type=literal_eval)
    parser.add_argument("--asyncio", action="store_true")
    given = parser.parse_args()
    _actor_child_main(given.uid, given.loglevel, given.parent_addr, given.asyncio, spawn_method="trio")
