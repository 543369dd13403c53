"""multiprocessing.Pool for owners of green threads, whose threads must not block one another."""

from __future__ import annotations

from multiprocessing import pool

from . import _green

# It is the same as typing's, whose import would cost every start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._green import Library


def _library() -> Library:
    """The one that has made this process green: without one there are no such pools."""
    found = _green.library()
    assert found is not None
    return found


class Pool(pool.Pool):
    """A pool that lets other green threads run while it waits for results and for its end."""

    def _setup_queues(self) -> None:
        super()._setup_queues()
        receive, results = self._quick_get, self._outqueue._reader

        def receive_green() -> Any:
            _library().wait_readable(results.fileno(), None)
            return receive()

        self._quick_get = receive_green

    @staticmethod
    def _help_stuff_finish(inqueue: Any, task_handler: Any, _size: int) -> None:
        # This is what multiprocessing does; but a worker has the lock until the thread that hands out tasks has run.
        while not inqueue._rlock.acquire(False):
            _library().sleep(0.001)
        while task_handler.is_alive() and inqueue._reader.poll():
            inqueue._reader.recv()
            _library().sleep(0)
