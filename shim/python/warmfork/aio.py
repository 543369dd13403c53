"""Children for asyncio, from a template.

    process = await warmfork.aio.create_subprocess_exec(
        sys.executable, "script.py", template=template, stdout=asyncio.subprocess.PIPE)

What comes back is asyncio's own Process. Its end is noticed through a pidfd: no thread, no child watcher, in
any thread's loop.
"""

from __future__ import annotations

import asyncio
import os
from asyncio import base_subprocess
from asyncio.subprocess import Process, SubprocessStreamProtocol
from signal import SIGKILL, SIGTERM

from ._popen import Popen

# It is the same as typing's, whose import would cost every start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._types import Path, Stream

__all__ = ["create_subprocess_exec"]

_LIMIT = 2**16  # of a stream's buffer, in bytes: asyncio's
_UNKNOWN = 255  # a status that was lost, as asyncio's own watchers tell it
# The time between two looks for the status of a child that has ended, in seconds: it grows from look to look.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.0005, 0.1


class _Transport(base_subprocess.BaseSubprocessTransport):
    """asyncio's transport over a warmfork.Popen."""

    def _start(
        self, args: Any, shell: bool, stdin: Stream, stdout: Stream, stderr: Stream, bufsize: int, **options: Any,
    ) -> None:
        self._proc = self._child = Popen(
            args, stdin=stdin, stdout=stdout, stderr=stderr, bufsize=bufsize, **options
        )
        self._pidfd = self._child._open_pidfd()
        self._loop.add_reader(self._pidfd, self._child_ended)

    def _child_ended(self) -> None:
        self._take_status(_FIRST_PAUSE)

    def _take_status(self, pause: float) -> None:
        """A service tells the status a moment later, or, where it hangs, after seconds: the loop runs meanwhile."""
        if self._pidfd is None:  # it is known
            return
        # It comes first, as a signal's handler may raise out of what follows.
        next_look = self._loop.call_later(pause, self._take_status, min(2 * pause, _LONGEST_PAUSE))
        self._loop.remove_reader(self._pidfd)
        status: int | None
        try:
            status = self._child.poll()
        except TimeoutError:  # nobody knows it until the service goes on
            return
        except ChildProcessError as error:
            self._lost, status = error, _UNKNOWN
        if status is not None:
            next_look.cancel()
            self._stop_watching()
            self._process_exited(status)

    # asyncio's own signal by number, from 3.12.8 on.

    def send_signal(self, signal: int) -> None:
        self._check_proc()
        self._child.send_signal(signal)

    def terminate(self) -> None:
        self.send_signal(SIGTERM)

    def kill(self) -> None:
        self.send_signal(SIGKILL)

    async def _wait(self) -> int:
        status = await super()._wait()
        if self._lost is not None:
            raise self._lost
        return status

    def _stop_watching(self) -> None:
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    _pidfd: int | None = None
    _lost: ChildProcessError | None = None  # why the status is not known


def _refuse_text(universal_newlines: Any, shell: Any, bufsize: int, encoding: Any, errors: Any, text: Any) -> None:
    """Refuses what asyncio's loops refuse, as they do it."""
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
    program: Path, *args: Path, stdin: Stream = None, stdout: Stream = None, stderr: Stream = None, limit: int = _LIMIT,
    universal_newlines: bool = False, shell: bool = False, bufsize: int = 0, encoding: str | None = None,
    errors: str | None = None, text: bool | None = None, **options: Any,
) -> Process:
    """Starts a child and returns asyncio's own Process, as asyncio.create_subprocess_exec does. A spawn that waits for the
    template blocks the loop: await asyncio.to_thread(template.wait_ready) first.

    limit: of each stream's buffer, in bytes.
    options: template, backend, lifetime and the others of warmfork.Popen.

    ValueError: an option that asyncio refuses too (text, encoding, shell, a bufsize other than 0).
    ChildProcessError: of the Process's wait(): the status was lost; its returncode is 255 then.
    Others are those of warmfork.Popen.
    """
    _refuse_text(universal_newlines, shell, bufsize, encoding, errors, text)
    loop = asyncio.get_running_loop()
    protocol = SubprocessStreamProtocol(limit=limit, loop=loop)
    waiter = loop.create_future()
    transport = _Transport(
        loop, protocol, (program, *args), False, stdin, stdout, stderr, 0,  # type: ignore[arg-type]
        waiter=waiter, **options,
    )
    try:
        await waiter
    except BaseException:
        transport.close()
        await transport._wait()
        raise
    return Process(transport, protocol, loop)
