"""Owners of green threads, gevent's and eventlet's: while one of them waits for a child, the others run.

Nothing is imported here that the owner has not: a library counts once it has patched subprocess.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from contextlib import suppress

from . import _native

# It is the same as typing's, whose import would cost every start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Protocol

    from ._types import Status

    class Library(Protocol):
        """What both classes below have."""

        close: Any
        sleep: Any
        open: Any
        selector: Any
        popen_bases: tuple[type, ...]

        def let_block(self, streams: tuple[int, int, int]) -> None: ...
        def wait_readable(self, descriptor: int, timeout: float | None) -> bool: ...
        def watch(self, pid: int, statuses: list[Status]) -> bool: ...
        def let_reap(self) -> None: ...

_POLLIN, _POLLOUT = 1, 4
# The time between two looks where nothing tells, in seconds, which is eventlet's own.
_PAUSE = 0.01


class _Gevent:
    def __init__(self) -> None:
        import gevent
        import gevent.event
        import gevent.fileobject
        import gevent.monkey
        import gevent.os
        import gevent.select
        import gevent.selectors

        self._gevent = gevent
        self.close = gevent.monkey.get_original("os", "close")
        self.sleep = gevent.sleep
        self.open = gevent.fileobject.FileObject
        self.selector = gevent.selectors.GeventSelector
        self.popen_bases = (self._make_awaited(),)

    def _make_awaited(self) -> type:
        class Awaited:
            """What the rawlink() of gevent's Popen asks for, and by it gevent's wait() and iwait()."""

            @functools.cached_property
            def result(popen: Any) -> Any:
                """Returns an AsyncResult that has the status, once it is known, or why it is not."""
                result = self._gevent.event.AsyncResult()

                def await_end() -> None:
                    try:
                        result.set(popen.wait())
                    except ChildProcessError as error:
                        result.set_exception(error)

                self._gevent.spawn(await_end)
                return result

        return Awaited

    def let_block(self, streams: tuple[int, int, int]) -> None:
        """gevent's files make what they are of non-blocking, also for a child that has it: its standard streams block
        again, as those of gevent's own Popen do. streams: their numbers in this process; -1: it has this process's."""
        for number, stream in enumerate(streams):
            with suppress(OSError):  # it is closed
                os.set_blocking(number if stream == -1 else stream, True)

    def wait_readable(self, descriptor: int, timeout: float | None) -> bool:
        return bool(self._gevent.select.select([descriptor], [], [], timeout)[0])

    def watch(self, pid: int, statuses: list[Status]) -> bool:
        """Has libev watch a child, whose (pid, status) comes into the list: it reaps every child of the process, and
        keeps the status only of those that it watches. Returns False where it does not see children, which is in all
        loops but that of the main thread."""
        if not self._gevent.get_hub().loop.default:
            return False

        def ended(_watcher: Any) -> None:
            # It is taken out of gevent's own list, in which another child of this number must not find it.
            statuses.append(self._gevent.os.waitpid(pid, os.WNOHANG))

        self._gevent.os.fork_and_watch(ended, fork=lambda: pid)
        return True

    def let_reap(self) -> None:
        """Lets the loop look for children that have ended. From the loop itself nothing can."""
        if self._gevent.getcurrent() is not self._gevent.get_hub():
            self._gevent.sleep(0.00001)  # with none the loop only runs what is ready


class _Eventlet:
    def __init__(self) -> None:
        import selectors

        import eventlet
        import eventlet.greenio

        class Selector(selectors.SelectSelector):
            """The selector of those who wait for several descriptors: communicate(), and multiprocessing's
            connections."""

            def _select(
                _self, readers: Iterable[int], writers: Iterable[int], _exceptional: Any, timeout: float | None = None,
            ) -> tuple[list[int], list[int], list[int]]:
                return (*self._wait_any(readers, writers, timeout), [])

        self.close = os.close
        self.sleep = eventlet.sleep
        self.open = eventlet.greenio.GreenPipe
        self.selector = Selector
        self.popen_bases = ()

    def let_block(self, streams: tuple[int, int, int]) -> None:
        """eventlet leaves them as they are."""

    def wait_readable(self, descriptor: int, timeout: float | None) -> bool:
        return bool(self._wait_any([descriptor], [], timeout)[0])

    def _wait_any(
        self, readers: Iterable[int], writers: Iterable[int], timeout: float | None,
    ) -> tuple[list[int], list[int]]:
        # This does not use its hub, which has one reader a number, also of files that were closed long ago. A pool has
        # two of its results: one handles them, the other looks after the workers.
        deadline = None if timeout is None else time.monotonic() + timeout
        self.sleep(0)  # a thread that asks again and again for what another reads lets that one run
        while True:
            readable = [descriptor for descriptor in readers if _native.poll_now(descriptor, _POLLIN)]
            writable = [descriptor for descriptor in writers if _native.poll_now(descriptor, _POLLOUT)]
            if readable or writable or (deadline is not None and time.monotonic() >= deadline):
                return readable, writable
            self.sleep(_PAUSE)

    def watch(self, _pid: int, _statuses: list[Status]) -> bool:
        """eventlet leaves children to whoever has started them."""
        return False


_libraries: dict[type, Any] = {}


def library() -> Library | None:
    """The library that has made this process's subprocess green, or None."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    kind: type
    if gevent is not None and gevent.is_module_patched("subprocess"):
        kind = _Gevent
    elif eventlet is not None and eventlet.is_monkey_patched("subprocess"):
        kind = _Eventlet
    else:
        return None
    if kind not in _libraries:
        _libraries[kind] = kind()
    return _libraries[kind]
