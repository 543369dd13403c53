"""A stand-in for tractor: as much of its contract with a spawn method as warmfork.tractor relies on. Not
tractor, and nothing of it; the real one needs Python 3.13 and is in no registry of Debian's."""

import contextlib

import trio

from .ipc import Portal, Server
from .spawn import _spawn

_current_actor = None


class Aid:
    def __init__(self, name, number):
        self.uid = (name, str(number))


class Actor:
    loglevel = None
    _parent_main_data = {}
    reg_addrs = ()

    def __init__(self, name, number, modules=()):
        self.aid = Aid(name, number)
        self.enable_modules = list(modules)
        self._actoruid2nursery = {}
        self.ipc_server = Server()


def current_actor():
    return _current_actor


class ActorNursery:
    """Without _cancel_after_result_on_exit, which some versions have."""

    def __init__(self, actor, tasks):
        self._actor = actor
        self._tasks = tasks
        self._children = {}
        self._join_procs = trio.Event()
        self.errors = {}

    async def start_actor(self, name, enable_modules=(), loglevel=None, infect_asyncio=False, **options):
        subactor = Actor(name, len(self._children), enable_modules)
        subactor.loglevel = loglevel
        method = _spawn._methods[_spawn._spawn_method]
        run = lambda task_status: method(
            name, self, subactor, self.errors, [], self._actor.ipc_server.address, {}, task_status=task_status,
            infect_asyncio=infect_asyncio, proc_kwargs=options,
        )
        return await self._tasks.start(run)


@contextlib.asynccontextmanager
async def open_nursery(start_method=None):
    """In an actor the method is what it is, and the server runs."""
    global _current_actor
    if start_method is not None:
        _spawn.try_set_start_method(start_method)
    async with trio.open_nursery() as tasks:
        is_root = _current_actor is None or _current_actor.aid.uid[0] == "root"
        if is_root:
            _current_actor = Actor("root", 0)
            await _current_actor.ipc_server.listen(tasks)
        try:
            async with trio.open_nursery() as actors:
                nursery = ActorNursery(_current_actor, actors)
                try:
                    yield nursery
                finally:
                    nursery._join_procs.set()
        finally:
            if is_root:
                _current_actor.ipc_server.stop()
