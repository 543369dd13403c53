"""Children for asyncio, from a template.

    process = await warmfork.aio.create_subprocess_exec(
        sys.executable, "script.py", template=template, stdout=asyncio.subprocess.PIPE)

What comes back is asyncio's own Process. Its end is noticed through a pidfd: no thread, no child watcher, in
any thread's loop.
"""

import asyncio
import os
from asyncio import base_subprocess
from asyncio.subprocess import Process, SubprocessStreamProtocol

from ._popen import Popen

__all__ = ["create_subprocess_exec"]

_LIMIT = 2**16  # of a stream's buffer, in bytes: asyncio's
_UNKNOWN = 255  # a status that was lost, as asyncio's own watchers tell it


class _Transport(base_subprocess.BaseSubprocessTransport):
    """asyncio's transport over a warmfork.Popen."""

    def _start(self, args, shell, stdin, stdout, stderr, bufsize, **options):
        self._proc = Popen(
            args, stdin=stdin, stdout=stdout, stderr=stderr, bufsize=bufsize, **options
        )
        self._pidfd = self._proc._open_pidfd()
        self._loop.add_reader(self._pidfd, self._child_ended)

    def _child_ended(self):
        self._stop_watching()
        try:
            status = self._proc.wait()
        except ChildProcessError as error:
            self._lost, status = error, _UNKNOWN
        self._process_exited(status)

    async def _wait(self):
        status = await super()._wait()
        if self._lost is not None:
            raise self._lost
        return status

    def _stop_watching(self):
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    _pidfd = None
    _lost = None  # why the status is not known


def _refuse_text(universal_newlines, shell, bufsize, encoding, errors, text):
    """What asyncio's loops refuse, as they do it."""
    for name, value in (("universal_newlines", universal_newlines), ("shell", shell)):
        if value:
            raise ValueError(f"{name} must be False")
    if bufsize != 0:
        raise ValueError("bufsize must be 0")
    if text:
        raise ValueError("text must be False")
    for name, value in (("encoding", encoding), ("errors", errors)):
        if value is not None:
            raise ValueError(f"{name} must be None")


async def create_subprocess_exec(
    program, *args, stdin=None, stdout=None, stderr=None, limit=_LIMIT, universal_newlines=False, shell=False,
    bufsize=0, encoding=None, errors=None, text=None, **options,
):
    """As asyncio.create_subprocess_exec, with the parameters of warmfork.Popen beside those of
    subprocess.Popen: template, backend, lifetime and so on.

    Returns an asyncio.subprocess.Process. Raises what asyncio's raises, and warmfork.Error; its wait() raises
    ChildProcessError where the status was lost (its returncode is then 255)."""
    _refuse_text(universal_newlines, shell, bufsize, encoding, errors, text)
    loop = asyncio.get_running_loop()
    protocol = SubprocessStreamProtocol(limit=limit, loop=loop)
    waiter = loop.create_future()
    transport = _Transport(
        loop, protocol, (program, *args), False, stdin, stdout, stderr, 0, waiter=waiter, **options
    )
    try:
        await waiter
    except BaseException:
        transport.close()
        await transport._wait()
        raise
    return Process(transport, protocol, loop)
