import sys
from typing import Literal

import trio

SpawnMethodKey = Literal["trio"]
_spawn_method = "trio"
# How long a process has between the request to end and SIGKILL.
patience = 60


async def _cold_process(
    name, actor_nursery, subactor, errors, bind_addrs, parent_addr, _runtime_vars, *, infect_asyncio=False,
    task_status=trio.TASK_STATUS_IGNORED, proc_kwargs={},
):
    """The method of the package itself, for a comparison."""
    from .. import Portal
    from ..msg.types import SpawnSpec

    uid, server = subactor.aid.uid, actor_nursery._actor.ipc_server
    server.expect(uid)
    command = [sys.executable, "-m", "tractor._child", "--uid", str(uid), "--parent_addr", str(parent_addr)]
    command += ["--loglevel", subactor.loglevel] if subactor.loglevel else []
    command += ["--asyncio"] if infect_asyncio else []
    process = await trio.lowlevel.open_process(command, **proc_kwargs)
    try:
        _, channel = await server.wait_for_peer(uid)
        portal = Portal(channel)
        actor_nursery._children[uid] = (subactor, process, portal)
        await channel.send(SpawnSpec(enable_modules=subactor.enable_modules))
        task_status.started(portal)
        with trio.CancelScope(shield=True):
            await actor_nursery._join_procs.wait()
        await soft_kill(process, trio.Process.wait, portal)
    finally:
        with trio.CancelScope(shield=True):
            if process.poll() is None:
                await hard_kill(process)
            actor_nursery._children.pop(uid, None)


_methods = {"trio": _cold_process}


def try_set_start_method(key):
    global _spawn_method
    if key != "trio":
        raise ValueError(f"unknown method {key}")
    _spawn_method = key


async def soft_kill(proc, wait, portal):
    try:
        await wait(proc)
    except trio.Cancelled:
        with trio.CancelScope(shield=True):
            await portal.cancel_actor()
        raise


async def hard_kill(proc, bind_addrs=None, subactor=None):
    with trio.move_on_after(patience):
        await proc.wait()
        return
    proc.kill()
    await proc.wait()
