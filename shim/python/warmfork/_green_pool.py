"""multiprocessing.Pool for owners of green threads, whose threads must not block one another."""

from multiprocessing import pool

from ._green import library


class Pool(pool.Pool):
    """A pool that lets other green threads run while it waits for results and for its end."""

    def _setup_queues(self):
        super()._setup_queues()
        receive, results = self._quick_get, self._outqueue._reader

        def receive_green():
            library().wait_readable(results.fileno(), None)
            return receive()

        self._quick_get = receive_green

    @staticmethod
    def _help_stuff_finish(inqueue, task_handler, _size):
        # This is what multiprocessing does; but a worker has the lock until the thread that hands out tasks has run.
        while not inqueue._rlock.acquire(False):
            library().sleep(0.001)
        while task_handler.is_alive() and inqueue._reader.poll():
            inqueue._reader.recv()
            library().sleep(0)
