from typing import Literal

import trio

SpawnMethodKey = Literal["trio"]
_spawn_method = "trio"
_methods = {}


def try_set_start_method(key):
    global _spawn_method
    if key != "trio":
        raise ValueError(f"unknown method {key}")
    _spawn_method = key


async def cancel_on_completion(portal, actor, errors):
    await portal.cancel_actor()


async def soft_kill(proc, wait, portal):
    await wait(proc)


async def hard_kill(proc, bind_addrs, subactor):
    proc.kill()
    await proc.wait()
