"""The spawn method "warmfork" for tractor: actors that begin with their imports behind them.

    import tractor, warmfork.tractor

    warmfork.tractor.register()
    async with tractor.open_nursery(start_method="warmfork") as nursery: ...

or, with TRACTOR_SPAWN_METHOD=warmfork in the environment, nothing but the registration. Each actor is a child
of its parent actor, from a template which has imported tractor and never run it, and which learns what actors
go on to import. What cannot be warm is started cold: the command line is tractor's own.
"""

from __future__ import annotations

import marshal
import os
import sys
from typing import Literal, get_args

import tractor
import trio
from tractor import _root
from tractor.devx import debug
from tractor.msg.types import SpawnSpec
from tractor.spawn import _spawn

from ._owner import Template, _main_file
from .trio import open_process

# It is the same as typing's, whose import would cost every start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

__all__ = ["register"]

_METHOD = "warmfork"
_MODULES = ("tractor", "argparse")  # as tractor._child has them, which `python -m` runs

_template: Template | None = None
_owner: int | None = None  # who has opened it
_definition: tuple[tuple[str, ...], dict[str, Any]] = (_MODULES, {})


def register(preload: Iterable[str] = (), **options: Any) -> None:
    """Makes start_method="warmfork" known to tractor, and begins to open the template, which nothing waits for.
    Again is fine: other arguments open another one.

    preload: names of modules that actors begin with, beside tractor.
    options: those of warmfork.Template; learn is True. With nested=True actors know the method too, and what they start is
    as warm as they are.

    Errors are those of warmfork.Template; those of a spawn come from tractor's start_actor.
    """
    options = {"learn": True, "name": _main_file(), **options}
    _follow((*_MODULES, *preload), options)
    _the_template()


def _follow(preload: tuple[str, ...], options: dict[str, Any]) -> None:
    global _definition
    if _definition != (preload, options):
        _close()
    _definition = preload, options
    if _METHOD in _spawn._methods:
        return
    _spawn._methods[_METHOD] = _run_actor
    _spawn.SpawnMethodKey = Literal[(*get_args(_spawn.SpawnMethodKey), _METHOD)]
    if (testing := sys.modules.get("tractor._testing.pytest")) is not None:
        testing.SpawnMethodKey = _spawn.SpawnMethodKey  # type: ignore[attr-defined]
    _root._DEBUG_COMPATIBLE_BACKENDS = (*_root._DEBUG_COMPATIBLE_BACKENDS, _METHOD)
    known_only = _spawn.try_set_start_method

    def try_set_start_method(key: str) -> Any:
        # To everything else an actor of this method is one of the method "trio".
        context = known_only("trio" if key == _METHOD else key)
        _spawn._spawn_method = key
        return context

    _spawn.try_set_start_method = try_set_start_method


def preload(definition: str) -> None:
    """Preloads for nested actors, in their template: the method is theirs as well. definition: as `_the_template` gives
    it."""
    _follow(*marshal.loads(bytes.fromhex(definition)))
    _spawn._spawn_method = _METHOD


def _the_template() -> Template:
    global _template, _owner
    if _template is None or _owner != os.getpid():
        modules, options = _definition
        if options.get("nested"):
            modules = (*modules, f"{__name__}={marshal.dumps(_definition, 2).hex()}")
        _template, _owner = Template(modules, **options), os.getpid()
    return _template


def _close() -> None:
    global _template
    if _template is not None and _owner == os.getpid():
        _template.close()
    _template = None


def _command(subactor: Any, parent_addr: Any, infect_asyncio: bool) -> list[str]:
    """Returns tractor's own command line."""
    command = [sys.executable, "-m", "tractor._child", "--uid", str(tuple(subactor.aid.uid))]
    command += ["--parent_addr", str(parent_addr)]
    if subactor.loglevel:
        command += ["--loglevel", subactor.loglevel]
    if infect_asyncio:
        command.append("--asyncio")
    return command


class _Ended(Exception):
    """An actor's process has ended before it connected."""


async def _connect(
    server: Any, uid: tuple[str, str], command: list[str], options: Mapping[str, Any], ret_process: list[Any],
) -> Any:
    """Starts a process and waits until it has connected. ret_process: a list, for a caller that is cancelled."""
    channels: list[Any] = []
    errors: list[Exception] = []
    async with trio.open_nursery() as nursery:

        async def wait_for_peer() -> None:
            try:
                _, channel = await server.wait_for_peer(uid)
                channels.append(channel)
            except Exception as error:
                errors.append(error)
            nursery.cancel_scope.cancel()

        # This comes ahead of the spawn: a warm child connects before this task runs again.
        nursery.start_soon(wait_for_peer)
        await trio.lowlevel.checkpoint()
        try:
            with trio.CancelScope(shield=True):  # or a child that is just born would be lost
                ret_process.append(await open_process(command, template=_the_template(), **options))
            await ret_process[0].wait()
        except Exception as error:
            errors.append(error)
        nursery.cancel_scope.cancel()
    if errors:
        raise errors[0]  # bare, as tractor's own methods do, and not in a group of the nursery's
    if not channels:
        raise _Ended(f"the actor {uid[0]} ended with status {ret_process[0].returncode} before it connected")
    return channels[0]


async def _run_actor(
    name: str, actor_nursery: Any, subactor: Any, errors: Any, bind_addrs: Any, parent_addr: Any,
    _runtime_vars: dict[str, Any], *, infect_asyncio: bool = False, task_status: Any = trio.TASK_STATUS_IGNORED,
    proc_kwargs: Mapping[str, Any] = {},
) -> None:
    """Runs one actor from its start to its end, as tractor's own methods do."""
    uid = subactor.aid.uid
    process: list[Any] = []
    try:
        channel = await _connect(
            actor_nursery._actor.ipc_server, uid, _command(subactor, parent_addr, infect_asyncio),
            proc_kwargs, process,
        )
        portal = tractor.Portal(channel)
        actor_nursery._children[uid] = (subactor, process[0], portal)
        await channel.send(
            SpawnSpec(
                _parent_main_data=subactor._parent_main_data,
                enable_modules=subactor.enable_modules,
                reg_addrs=subactor.reg_addrs,
                bind_addrs=bind_addrs,
                _runtime_vars=_runtime_vars,
            )
        )
        tractor.current_actor()._actoruid2nursery[uid] = actor_nursery
        task_status.started(portal)

        with trio.CancelScope(shield=True):
            await actor_nursery._join_procs.wait()
        async with trio.open_nursery() as nursery:
            # Not every version of tractor has it.
            if portal in getattr(actor_nursery, "_cancel_after_result_on_exit", ()):
                nursery.start_soon(_spawn.cancel_on_completion, portal, subactor, errors)
            await _spawn.soft_kill(process[0], trio.Process.wait, portal)
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await _end(process, bind_addrs, subactor, _runtime_vars)
            actor_nursery._children.pop(uid, None)


async def _end(process: list[Any], bind_addrs: Any, subactor: Any, runtime_vars: dict[str, Any]) -> None:
    if not process:
        return
    if process[0].poll() is None:
        await debug.maybe_wait_for_debugger(child_in_debug=runtime_vars.get("_debug_mode", False))
        await _spawn.hard_kill(process[0], bind_addrs=bind_addrs, subactor=subactor)
