"""Popen objects for children from templates."""

import errno
import os
import signal
import subprocess
import sys

from . import _native, _request, _subprocess
from ._children import Child
from ._errors import Error

# What subprocess does first in each Popen: it reaps children that had not ended when their object was dropped.
_reap_abandoned = getattr(_subprocess.module, "_cleanup", lambda: None)

_LIFETIMES = {"owner": 0, "detached": _native.DETACHED}

# Parameters with which subprocess raises nothing once it has the pipes, whatever their values.
_UNFAILING = {"executable", "stdin", "stdout", "stderr", "cwd", "env", "start_new_session", "text"}

_UNKNOWN = "the interpreter's subprocess is another one than warmfork knows"


def end_spawned(spawned):
    """Ends the child of a spawn that was interrupted when it was there. spawned: _native.spawn's list."""
    for pid, *_, served in spawned:
        if served:
            _native.signal_served(served, signal.SIGKILL)
            _native.wait_served(served, 0, [])
        else:
            os.kill(pid, signal.SIGKILL)
            _native.wait(pid, 0, [])
    del spawned[:]


class Popen(*_subprocess.BASES):
    """A subprocess.Popen whose child comes from a template.

    The parameters are those of subprocess.Popen, and:

    template: a Template; without one the child is started cold.
    backend: "auto" (the default: warm where it can be, else cold), "warm" (or an error) or "cold".
    lifetime: "owner" (the child ends with this process: SIGTERM, then SIGKILL) or "detached".
    nice: the child's nice value. affinity: the CPUs it may use. limits: {resource: (soft, hard)}.

    The attributes are those of subprocess.Popen, and:

    backend: "warm" or "cold". reason: why it was cold, a sentence; "" if it is warm.
    reason_code: the same as one word ("environment", "gate", ...); "none" if it is warm.

    A status that somebody else has taken (a wait for any child), or that died with the service, which was
    killed, raises ChildProcessError, its errno ECHILD or EOWNERDEAD.
    """

    backend = None
    reason = ""
    reason_code = "none"

    _spawned = ()  # one (pid, backend, reason code, reason, handle)
    _child = None  # the Child, once its end is of interest
    _early_handles = None  # until subprocess asks for them

    def __init__(
        self,
        args,
        *positional,
        template=None,
        backend=None,
        lifetime="owner",
        nice=None,
        affinity=None,
        limits=None,
        **keywords,
    ):
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
        if not is_late:  # the child starts ahead of what subprocess does for this process alone
            self._spawn_early(args, **keywords)
        try:
            _subprocess.initialize(self, args, *positional, **keywords)
        except BaseException:  # no memory, Ctrl-C
            self._take_back()
            raise

    def _is_altered(self):
        """Is this a subclass that has a say in what follows?"""
        kind = type(self)
        return kind._get_handles is not Popen._get_handles or kind._execute_child is not Popen._execute_child

    def _spawn_early(
        self, args, executable=None, stdin=None, stdout=None, stderr=None, cwd=None, env=None,
        start_new_session=False, text=None,
    ):
        handles = _native.make_pipes(stdin, stdout, stderr)
        if handles is None:  # something else than pipes is asked for
            self.pipesize = -1  # as subprocess sets it
            handles = super()._get_handles(stdin, stdout, stderr)
        self._early_handles = handles
        try:
            self._spawn(args, executable, cwd, env, handles, start_new_session=start_new_session)
        except BaseException:
            self._close_early_handles()
            raise

    def _close_early_handles(self):
        handles, self._early_handles = self._early_handles, None
        self._close_pipe_fds(*handles)
        for number in (handles[1], handles[2], handles[4]):
            if number != -1:
                os.close(number)

    def _take_back(self):
        """Ends a child whose Popen could not be finished."""
        if self._early_handles:
            self._close_early_handles()
        if self._spawned:
            end_spawned(self._spawned)
            self._child_created = False

    def _get_handles(self, stdin, stdout, stderr):
        handles, self._early_handles = self._early_handles, None
        return handles or super()._get_handles(stdin, stdout, stderr)

    def _close_pipe_fds(self, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite):
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
        self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags,
        shell, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, restore_signals, gid, gids, uid,
        umask, start_new_session, *process_group,
    ):
        handles = p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite
        obstacle = ""
        if self._spawned:
            pass  # started early: never again, whatever is asked for here
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
            self.pid, self.backend, self.reason_code, self.reason, served = self._spawned[0]
            self._child = Child(self.pid, served)
            self._child_created = True
        finally:
            self._close_pipe_fds(*handles)

    def _note_cold(self, obstacle):
        """Of a child that subprocess has started."""
        self.backend, self.reason, self.reason_code = "cold", obstacle, "command-line"
        self._awaited()
        if self._flags & _native.DETACHED:
            return
        try:
            _native.keep(self.pid)
        except BaseException:
            self.kill()
            self.wait()
            raise

    def _spawn(
        self, args, executable, cwd, env, handles, pass_fds=(), restore_signals=True, umask=-1,
        start_new_session=False, process_group=-1,
    ):
        if self._template and self._chosen_backend() != "cold":
            self._template._wait_first()
        if type(args) is not list:
            args = [args] if isinstance(args, (str, bytes, os.PathLike)) else list(args)
        program = args[0] if executable is None else executable
        sys.audit("subprocess.Popen", program, args, cwd, env)
        if cwd is not None and not os.fspath(cwd):
            raise _request.system_error(errno.ENOENT, cwd)
        descriptors = _request.descriptor_pairs(handles, pass_fds)
        flags = _request.flag_bits(self._flags, restore_signals, umask, start_new_session, process_group)
        self._spawned = []
        try:
            _native.spawn(
                self._template._handle if self._template else None, args, self._spawned,
                executable=executable, environment=env, directory=cwd, descriptors=descriptors, flags=flags,
                backend=self._backend_number, process_group=max(process_group, 0), umask=max(umask, 0) & 0o777,
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

    def _refuse(self, obstacle):
        """What subprocess alone can do is cold, and has none of warmfork's own parameters."""
        if self._chosen_backend() == "warm":
            raise OSError(errno.ENOTSUP, f"cannot be served warm: {obstacle}")
        if self._flags & _native.NICE or self._affinity or self._limits:
            raise ValueError(f"nice, affinity and limits cannot be given here: {obstacle}")

    def _chosen_backend(self):
        if self._wanted_backend:
            return self._wanted_backend
        if self._template and self._template.backend:
            return self._template.backend
        return os.environ.get("WARMFORK_BACKEND", "auto")

    # A status is never made up: subprocess takes one that was lost for zero.

    def _internal_poll(self, _deadstate=None, *_):
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

    def _awaited(self):
        """The Child; first asked for where subprocess has started it."""
        if self._child is None:
            self._child = Child(self.pid)
        return self._child

    def _try_wait(self, wait_flags):
        return self._awaited().take_status(wait_flags)

    def _wait(self, timeout):
        if self._awaited().green is None:
            return super()._wait(timeout)
        # No lock is held while others run: they may wait for the same child.
        status = self._child.wait_green(self._internal_poll, timeout)
        if status is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return status

    def send_signal(self, sig):
        if not self._awaited().served:
            return super().send_signal(sig)
        if self.poll() is None:
            try:
                _native.signal_served(self._child.served, sig)
            except ProcessLookupError:
                pass  # it has ended, and its status is about to come
        return None

    def _open_pidfd(self):
        """Of the child; the caller's to close. It is readable when the child has ended."""
        return self._awaited().open_pidfd()


if not _subprocess.IS_KNOWN:
    for _name in _subprocess.INTERFACE.keys() & vars(Popen).keys():
        delattr(Popen, _name)
