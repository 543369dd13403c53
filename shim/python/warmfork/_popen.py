"""Popen objects for children from templates."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

from . import _native, _request, _subprocess
from ._children import Child
from ._errors import Error

# It is the same as typing's, whose import would cost every start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from typing import Any

    from ._owner import Template
    from ._types import Backend, Command, Environment, Handles, Lifetime, Limits, Path, Spawned, Status, Stream

    _Own = subprocess.Popen[Any]
else:
    _Own = _subprocess.BASES[0]
_OTHERS = _subprocess.BASES[1:]

# subprocess does this first in each Popen: it reaps children that had not ended when their object was dropped.
_reap_abandoned: Callable[[], object] = getattr(_subprocess.module, "_cleanup", lambda: None)

# The standard streams of a child, where a library of green threads has made them non-blocking.
_let_block: Callable[[tuple[int, int, int]], None] = getattr(_subprocess.library, "let_block", lambda _: None)

_LIFETIMES = {"owner": 0, "detached": _native.DETACHED}

# Parameters with which subprocess raises nothing once it has the pipes, whatever their values.
_UNFAILING = {"executable", "stdin", "stdout", "stderr", "cwd", "env", "start_new_session", "text"}

_LONGEST_POLL = 1_000_000  # seconds; a C library's int does not take many more, in milliseconds

_UNKNOWN = "the interpreter's subprocess is another one than warmfork knows"


def end_spawned(spawned: list[Spawned]) -> None:
    """Ends the child of a spawn that was interrupted when it was there. spawned: _native.spawn's list."""
    for *_, handle, _ in spawned:
        with suppress(ProcessLookupError, ChildProcessError):  # somebody else has reaped it
            _native.send_signal(handle, signal.SIGKILL)
            _native.wait(handle, 0, [])
    del spawned[:]


class Popen(_Own, *_OTHERS):  # type: ignore[misc]
    """A subprocess.Popen whose child comes from a template.

    The parameters are those of subprocess.Popen, and:

    template: a Template; without one the child is started cold.
    backend: "auto" (warm where it can be, else cold), "warm" (or an error) or "cold". None: as the template says, else
    WARMFORK_BACKEND of the environment, else "auto".
    lifetime: "owner" (the child ends with this process: SIGTERM, three seconds, SIGKILL) or "detached".
    nice: the child's nice value, -20 to 19; None: this process's.
    affinity: numbers of the processors that it may use; None: this process's.
    limits: {resource.RLIMIT_...: (soft, hard)}; the others are this process's.

    The attributes are those of subprocess.Popen, and:

    backend: "warm" or "cold".
    reason: why it was cold, a sentence; "" if it is warm.
    reason_code: the same as one word ("environment", "gate", ...); "none" if it is warm.

    What subprocess.Popen raises is raised for the same (FileNotFoundError, PermissionError and so on). And:

    Error: the child could not be made or set up; its stage says where.
    TemplateError: with backend="warm", it cannot be warm (ENOTSUP), or the template did not start.
    OSError: with backend="warm", there is a parameter that only a cold child can have (ENOTSUP): shell, preexec_fn,
    close_fds=False, user, group, extra_groups.
    ValueError: there is such a parameter together with nice, affinity or limits; or the template is closed.
    ChildProcessError: of wait and poll: somebody else has taken the status (ECHILD, a wait for any child), or it died with
    the service, which was killed (EOWNERDEAD).
    """

    backend: str | None = None
    reason: str = ""
    reason_code: str = "none"

    _spawned: list[Spawned] = ()  # type: ignore[assignment]  # one, once it is there
    _child: Child | None = None  # the Child, once its end is of interest
    _early_handles: Handles | None = None  # until subprocess asks for them

    def __init__(
        self,
        args: Command,
        *positional: Any,
        template: Template | None = None,
        backend: Backend | None = None,
        lifetime: Lifetime = "owner",
        nice: int | None = None,
        affinity: Iterable[int] | None = None,
        limits: Limits | None = None,
        **keywords: Any,
    ) -> None:
        _reap_abandoned()
        self._template = template
        self._backend_number, self._wanted_backend = _request.backend_number(backend), backend
        if lifetime not in _LIFETIMES:
            raise ValueError(f"lifetime must be owner or detached, not {lifetime!r}")
        self._flags = _LIFETIMES[lifetime] | (0 if nice is None else _native.NICE)
        self._nice = nice or 0
        self._affinity = _request.affinity_mask(affinity)
        self._limits = _request.flat_limits(limits)
        if not _subprocess.IS_KNOWN:
            self._refuse(_UNKNOWN)
            _subprocess.initialize(self, args, *positional, **keywords)
            self._note_cold(_UNKNOWN)
            return
        is_refused = keywords.get("stdout") is subprocess.STDOUT
        is_late = positional or not template or not keywords.keys() <= _UNFAILING or is_refused or self._is_altered()
        try:
            if not is_late:  # the child starts ahead of what subprocess does for this process alone
                self._spawn_early(args, **keywords)
            _subprocess.initialize(self, args, *positional, **keywords)
        except BaseException:  # no memory, Ctrl-C
            self._take_back()
            raise
        self._spawned = ()  # type: ignore[assignment]  # the child's handle is its Child's alone

    def _is_altered(self) -> bool:
        """Is this a subclass that has a say in what follows?"""
        kind = type(self)
        return kind._get_handles is not Popen._get_handles or kind._execute_child is not Popen._execute_child

    def _spawn_early(
        self, args: Command, executable: Path | None = None, stdin: Stream = None, stdout: Stream = None,
        stderr: Stream = None, cwd: Path | None = None, env: Environment | None = None,
        start_new_session: bool = False, text: bool | None = None,
    ) -> None:
        handles = _native.make_pipes(stdin, stdout, stderr)
        if handles is None:  # something else than pipes is asked for
            self.pipesize = -1  # as subprocess sets it
            handles = super()._get_handles(stdin, stdout, stderr)
        self._early_handles = handles
        try:
            self._spawn(args, executable, cwd, env, handles, start_new_session=start_new_session)
        except BaseException:
            self._close_early_handles(handles)
            raise

    def _close_early_handles(self, handles: Handles) -> None:
        self._early_handles = None
        self._close_pipe_fds(*handles)
        for number in (handles[1], handles[2], handles[4]):
            if number != -1:
                os.close(number)

    def _take_back(self) -> None:
        """Ends a child whose Popen could not be finished."""
        if self._early_handles:
            self._close_early_handles(self._early_handles)
        if self._spawned:
            end_spawned(self._spawned)
            self._child_created = False

    def _get_handles(self, stdin: Stream, stdout: Stream, stderr: Stream) -> Handles:
        handles, self._early_handles = self._early_handles, None
        if handles is None:
            handles = super()._get_handles(stdin, stdout, stderr)
        return handles

    def _close_pipe_fds(
        self, p2cread: int, p2cwrite: int, c2pread: int, c2pwrite: int, errread: int, errwrite: int,
    ) -> None:
        if -1 in (p2cwrite, c2pread, errread):
            super()._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)
            return
        # Three pipes, without the stack of callbacks that subprocess closes them by: the child may be waiting
        # for the processor that this runs on.
        self._closed_child_pipe_fds = True
        for number in (p2cread, c2pwrite, errwrite):
            os.close(number)

    # The parameters of subprocess's own, which passes them by position: alike from 3.9 on, the last one
    # since 3.11.
    def _execute_child(
        self, args: Command, executable: Path | None, preexec_fn: Any, close_fds: bool, pass_fds: Collection[int],
        cwd: Path | None, env: Environment | None, startupinfo: Any, creationflags: int, shell: bool,
        p2cread: int, p2cwrite: int, c2pread: int, c2pwrite: int, errread: int, errwrite: int,
        restore_signals: bool, gid: Any, gids: Any, uid: Any, umask: int, start_new_session: bool, *process_group: int,
    ) -> None:
        handles = p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite
        obstacle = ""
        if self._spawned:
            pass  # it was started early, and is never again, whatever is asked for here
        elif shell:
            obstacle = "shell=True runs a shell"
        elif preexec_fn is not None:
            obstacle = "preexec_fn runs in a forked copy of the caller"
        elif not close_fds:
            obstacle = "close_fds=False hands over every inheritable descriptor"
        elif uid is not None or gid is not None or gids is not None:
            obstacle = "another user or group is set at exec"
        if obstacle:
            self._refuse(obstacle)
            _let_block((p2cread, c2pwrite, errwrite))
            super()._execute_child(
                args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo,
                creationflags, shell, *handles, restore_signals, gid, gids, uid, umask,
                start_new_session, *process_group,
            )
            self._note_cold(obstacle)
            return

        try:
            if not self._spawned:
                self._spawn(
                    args, executable, cwd, env, handles, pass_fds, restore_signals, umask,
                    start_new_session, *process_group,
                )
            self.pid, self.backend, self.reason_code, self.reason, handle, is_served = self._spawned[0]
            self._child = Child(self.pid, handle, is_served)
            self._child_created = True
        finally:
            self._close_pipe_fds(*handles)

    def _note_cold(self, obstacle: str) -> None:
        """Notes a child that subprocess has started."""
        self.backend, self.reason, self.reason_code = "cold", obstacle, "command-line"
        try:
            child = self._awaited()
            if not self._flags & _native.DETACHED:
                child.give_to_keeper()
        except BaseException:
            self.kill()
            self.wait()
            raise

    def _spawn(
        self, args: Command, executable: Path | None, cwd: Path | None, env: Environment | None, handles: Handles,
        pass_fds: Collection[int] = (), restore_signals: bool = True, umask: int = -1,
        start_new_session: bool = False, process_group: int = -1,
    ) -> None:
        if self._template and self._chosen_backend() != "cold":
            self._template._wait_first()
        if type(args) is not list:
            args = [args] if isinstance(args, (str, bytes, os.PathLike)) else list(args)
        program = args[0] if executable is None else executable
        sys.audit("subprocess.Popen", program, args, cwd, env)
        if cwd is not None and not os.fspath(cwd):
            raise _request.system_error(errno.ENOENT, cwd)
        _let_block((handles[0], handles[3], handles[5]))
        descriptors = _request.descriptor_pairs(handles, pass_fds)
        flags = _request.flag_bits(self._flags, restore_signals, umask, start_new_session, process_group)
        self._spawned = []
        try:
            _native.spawn(
                self._template._handle if self._template else None, args, self._spawned,
                executable=executable, environment=env, directory=cwd, descriptors=descriptors, flags=flags,
                backend=self._backend_number, process_group=process_group, umask=umask,
                signals_default=_request.PYTHON_IGNORES, nice=self._nice, affinity=self._affinity,
                limits=self._limits,
            )
            if self._template:
                self._template._warn_after(self._spawned)
        except Error as error:
            _request.raise_familiar(error, cwd, program)
        except BaseException:  # Ctrl-C, behind the child's back
            end_spawned(self._spawned)
            raise

    def _refuse(self, obstacle: str) -> None:
        """Refuses what does not go together: what subprocess alone can do is cold, and has none of warmfork's own
        parameters."""
        if self._chosen_backend() == "warm":
            raise OSError(errno.ENOTSUP, f"cannot be served warm: {obstacle}")
        if self._flags & _native.NICE or self._affinity or self._limits:
            raise ValueError(f"nice, affinity and limits cannot be given here: {obstacle}")

    def _chosen_backend(self) -> str:
        if self._wanted_backend:
            return self._wanted_backend
        if self._template and self._template.backend:
            return self._template.backend
        return os.environ.get("WARMFORK_BACKEND", "auto")

    # A status is never made up: subprocess takes one that was lost for zero.

    def _internal_poll(self, _deadstate: int | None = None, *_: Any) -> int | None:
        if self.returncode is None and _deadstate is None:
            self._awaited().let_reap()
        if self.returncode is None and self._waitpid_lock.acquire(False):
            try:
                if self.returncode is None:
                    pid, status = self._try_wait(os.WNOHANG)
                    if pid == self.pid:
                        self._handle_exitstatus(status)
            except ChildProcessError:
                if _deadstate is None:
                    raise
                self.returncode = _deadstate
            finally:
                self._waitpid_lock.release()
        return self.returncode

    def _awaited(self) -> Child:
        """Returns the Child, which is made here where subprocess has started it."""
        if self._child is None:
            self._child = Child(self.pid, _native.adopt(self.pid))
        return self._child

    def _try_wait(self, wait_flags: int) -> Status:
        return self._awaited().take_status(wait_flags)

    def _wait(self, timeout: float | None) -> int:
        child = self._awaited()
        if child.green is None:
            status: int = super()._wait(timeout)
            return status
        # No lock is held while others run: they may wait for the same child.
        found = child.wait_green(self._internal_poll, timeout)
        if found is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return found

    def _wait_pidfd(self, timeout: float) -> bool:
        """Waits, from 3.15 on, for a child that is then asked for its status; there by its number, which may be another
        process's. False where there is nothing to wait with."""
        try:
            pidfd = self._open_pidfd()
        except OSError:
            return False
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        deadline = time.monotonic() + timeout
        try:
            while not poller.poll(min(max(deadline - time.monotonic(), 0), _LONGEST_POLL) * 1000):
                if time.monotonic() >= deadline:
                    raise subprocess.TimeoutExpired(self.args, timeout)
        finally:
            os.close(pidfd)
        return True

    def send_signal(self, sig: int) -> None:
        """Sends a signal to the child, of the service too; nothing where it has been waited for, by whomever."""
        try:
            if self.poll() is None:
                sys.audit("os.kill", self.pid, sig)
                self._awaited().send_signal(sig)
        except (ChildProcessError, ProcessLookupError):
            pass  # its status was lost, or is about to come

    def _open_pidfd(self) -> int:
        """Opens a pidfd of the child, which is the caller's to close. It is readable when the child has ended."""
        return self._awaited().open_pidfd()


if not _subprocess.IS_KNOWN:
    for _name in _subprocess.INTERFACE.keys() & vars(Popen).keys():
        delattr(Popen, _name)
