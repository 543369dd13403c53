"""Children for trio, from a template.

    process = await warmfork.trio.open_process([sys.executable, "script.py"], template=template)
    done = await warmfork.trio.run_process([sys.executable, "-c", "print(1)"], template=template, capture_stdout=True)

What comes back is trio's own Process, and subprocess.CompletedProcess. The options are those of warmfork.Popen.
"""

from __future__ import annotations

import os
import subprocess
import warnings
from contextlib import ExitStack, suppress
from functools import partial

import trio

from ._popen import Popen

# It is the same as typing's, whose import would cost every start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Any

    from ._types import Command, Stream

__all__ = ["open_process", "run_process"]

_TEXT_OPTIONS = ("universal_newlines", "text", "encoding", "errors", "bufsize")
# trio takes this for a command that needs a shell, and not for one that does not.
_TEXT: tuple[type, ...] = (str, bytes) if tuple(map(int, trio.__version__.split(".")[:2])) >= (0, 27) else (str,)
# How long a cancelled child has between SIGTERM and SIGKILL, in seconds: trio's.
_PATIENCE = 5


class _Pipe:
    """A pipe of which one end is a stream of trio's."""

    def __init__(self, is_input: bool, child_ends: ExitStack, own_ends: ExitStack) -> None:
        read_end, write_end = os.pipe()
        self.child_end, own_end = (read_end, write_end) if is_input else (write_end, read_end)
        child_ends.callback(os.close, self.child_end)
        self.stream = trio.lowlevel.FdStream(own_end)
        own_ends.callback(self.stream.close)


def _refuse_text(options: Mapping[str, Any]) -> None:
    for name in _TEXT_OPTIONS:
        if options.get(name):
            raise TypeError(f"trio's processes have unbuffered byte streams only; {name!r} cannot be given")


async def open_process(
    command: Command, *, stdin: Stream = None, stdout: Stream = None, stderr: Stream = None, **options: Any,
) -> trio.Process:
    """Starts a child and returns trio's own Process, as trio.lowlevel.open_process does.

    options: template, backend, lifetime and the others of warmfork.Popen.

    TypeError: text streams are asked for, or a command is no sequence of words.
    Others are those of warmfork.Popen.
    """
    _refuse_text(options)
    if isinstance(command, _TEXT) and not options.get("shell"):
        raise TypeError("command must be a sequence (not a string) if shell=False")
    if not isinstance(command, _TEXT) and options.get("shell"):
        raise TypeError("command must be a string (not a sequence) if shell=True")
    wanted = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
    streams: dict[str, Any] = dict.fromkeys(wanted)
    with ExitStack() as child_ends, ExitStack() as own_ends:
        for name, value in wanted.items():
            if value == subprocess.PIPE:
                pipe = _Pipe(name == "stdin", child_ends, own_ends)
                wanted[name], streams[name] = pipe.child_end, pipe.stream
        if stderr == subprocess.STDOUT and stdout is not None:
            wanted["stderr"] = wanted["stdout"]
        # It runs in a thread, as trio does it: a spawn may wait for the template.
        child = await trio.to_thread.run_sync(partial(Popen, command, **wanted, **options))
        own_ends.pop_all()  # the process's from now on
    process = trio.Process._create(child, streams["stdin"], streams["stdout"], streams["stderr"])
    # What trio has opened by the number may be of another process already.
    process._close_pidfd()
    with suppress(ProcessLookupError):  # somebody else has reaped it, as the first poll says
        process._pidfd = open(child._open_pidfd())
    return process


async def _end(process: trio.Process) -> None:
    """Sends a cancelled child SIGTERM, and SIGKILL if that does not end it."""
    try:
        process.terminate()
        await trio.sleep(_PATIENCE)
        warnings.warn(RuntimeWarning(f"{process!r} has ignored SIGTERM for {_PATIENCE} seconds: now SIGKILL"))
        process.kill()
    except OSError as error:
        warnings.warn(RuntimeWarning(f"{process!r} could not be signalled: {error!r}"))


async def _feed(stream: Any, data: bytes | bytearray | memoryview) -> None:
    async with stream:
        try:
            await stream.send_all(data)
        except trio.BrokenResourceError:
            pass  # it ended, or does not read


async def _collect(stream: Any, chunks: list[bytes]) -> None:
    async with stream:
        async for chunk in stream:
            chunks.append(chunk)


def _refuse_unread_pipes(streams: Mapping[str, Any]) -> None:
    """run_process() itself returns when the process has ended: nobody could use these."""
    for name, value in streams.items():
        if value is subprocess.PIPE:
            raise ValueError(f"{name}=subprocess.PIPE can be used only where run_process is started by nursery.start")


async def _end_and_wait(
    nursery: trio.Nursery, process: trio.Process, deliver_cancel: Callable[[trio.Process], Awaitable[object]],
) -> None:
    """Delivers the cancellation, which is left when the process has ended."""
    with trio.CancelScope(shield=True):
        scope = trio.CancelScope(shield=True)

        async def deliver() -> None:
            with scope:
                await deliver_cancel(process)

        nursery.start_soon(deliver)
        await process.wait()
        scope.cancel()


async def run_process(
    command: Command, *, stdin: bytes | bytearray | memoryview | Stream = b"", capture_stdout: bool = False,
    capture_stderr: bool = False, check: bool = True,
    deliver_cancel: Callable[[trio.Process], Awaitable[object]] | None = None,
    task_status: Any = trio.TASK_STATUS_IGNORED, **options: Any,
) -> subprocess.CompletedProcess[bytes]:
    """Starts a child and waits for its end, as trio.run_process does; when it is cancelled it ends the child.

    stdin: what the child reads, bytes, or as of subprocess.Popen.
    capture_stdout, capture_stderr: they come back in the result.
    check: a status other than 0 raises subprocess.CalledProcessError.
    deliver_cancel: what ends the child; None: SIGTERM, and SIGKILL after five seconds.
    options: template, backend, lifetime and the others of warmfork.Popen.

    ValueError: a pipe that nobody could read, or one that is captured as well.
    Others are those of open_process.
    """
    if isinstance(stdin, str):
        raise UnicodeError("process stdin must be bytes, not str")
    if task_status is trio.TASK_STATUS_IGNORED:
        _refuse_unread_pipes({"stdin": stdin, "stdout": options.get("stdout"), "stderr": options.get("stderr")})
    data = None
    if isinstance(stdin, (bytes, bytearray, memoryview)):
        data, stdin = stdin, subprocess.PIPE
    captured: dict[str, list[bytes]] = {}
    for name, is_captured in (("stdout", capture_stdout), ("stderr", capture_stderr)):
        if is_captured:
            if name in options:
                raise ValueError(f"can't specify both {name} and capture_{name}")
            options[name], captured[name] = subprocess.PIPE, []

    process = await open_process(command, stdin=stdin, **options)
    async with trio.open_nursery() as nursery:
        try:
            if data is not None:
                nursery.start_soon(_feed, process.stdin, data)
                process.stdin = process.stdio = None
            for name, chunks in captured.items():
                nursery.start_soon(_collect, getattr(process, name), chunks)
                setattr(process, name, None)
            if capture_stdout:
                process.stdio = None
            task_status.started(process)
            await process.wait()
        except BaseException:
            await _end_and_wait(nursery, process, deliver_cancel or _end)
            raise
    outputs = {name: b"".join(chunks) for name, chunks in captured.items()}
    completed: subprocess.CompletedProcess[bytes] = subprocess.CompletedProcess(
        process.args, process.returncode, outputs.get("stdout"), outputs.get("stderr")
    )
    if check:
        completed.check_returncode()
    return completed
