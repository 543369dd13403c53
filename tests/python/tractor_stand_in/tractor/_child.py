"""The entry of an actor's process."""

import importlib

import trio

from . import _root  # noqa: F401
from .ipc import Channel


def _actor_child_main(uid, loglevel, parent_addr, infect_asyncio, spawn_method="trio"):
    assert spawn_method == "trio" and loglevel is None and not infect_asyncio
    trio.run(_serve, uid, parent_addr)


async def _serve(uid, parent_addr):
    channel = Channel(await trio.open_tcp_stream(*parent_addr))
    await channel.send(uid)
    spec = await channel.receive()
    while (call := await channel.receive()) is not None:
        module, name, arguments = call
        assert module in spec.enable_modules
        await channel.send(await getattr(importlib.import_module(module), name)(**arguments))
