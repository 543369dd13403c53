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
    def __init__(self, actor, tasks):
        self._actor = actor
        self._tasks = tasks
        self._children = {}
        self._join_procs = trio.Event()
        self._cancel_after_result_on_exit = set()
        self.errors = {}

    async def start_actor(self, name, enable_modules=(), **options):
        subactor = Actor(name, len(self._children), enable_modules)
        method = _spawn._methods[_spawn._spawn_method]
        run = lambda task_status: method(
            name, self, subactor, self.errors, [], self._actor.ipc_server.address, {}, task_status=task_status,
            proc_kwargs=options,
        )
        return await self._tasks.start(run)


@contextlib.asynccontextmanager
async def open_nursery(start_method="trio"):
    global _current_actor
    _spawn.try_set_start_method(start_method)
    async with trio.open_nursery() as tasks:
        _current_actor = Actor("root", 0)
        await _current_actor.ipc_server.listen(tasks)
        async with trio.open_nursery() as actors:
            nursery = ActorNursery(_current_actor, actors)
            yield nursery
            nursery._join_procs.set()
        tasks.cancel_scope.cancel()
