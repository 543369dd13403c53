"""A child of a spawn, and how its end comes to be known."""

from __future__ import annotations

import errno
import os
import time
import types

from . import _green, _native

# It is the same as typing's, whose import would cost every start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ._green import Library
    from ._types import Status

# Within this many turns of a loop that reaps children by itself, the status of one that it has reaped has come.
_ENOUGH_TURNS = 3

# The time between two looks at a child, in seconds, where nothing tells that it has ended.
_PAUSE = 0.01


class Child:
    """A child that nobody has waited for.

    Its number may become another process's, where somebody else waits for it: so it is waited for and signalled by its
    handle alone.

    pid: its number. handle: _native's. is_served: it is a child of the service, which no waitpid of this process sees.
    green: the library whose green threads run while this one waits, or None.
    """

    def __init__(self, pid: int, handle: _native.Process, is_served: bool = False) -> None:
        self.pid = pid
        self.is_served = is_served
        self.green = _green.library()
        self._handle: _native.Process | None = handle  # until the status is known
        self._statuses: list[Status] = []  # (pid, status), once it has been reaped
        self._is_watched = self.green is not None and not is_served and self.green.watch(pid, self._statuses)
        self._turns = 0  # of the library's loop since somebody has reaped it
        self._has_ended = self._is_lost = False

    def take_status(self, wait_flags: int) -> Status:
        """Returns what os.waitpid(pid, wait_flags) does, also when it has been asked before. Raises ChildProcessError
        where the status was lost, its errno ECHILD or EOWNERDEAD."""
        # The status is in the object before a signal's handler (Ctrl-C) can get in between.
        if not self._statuses:
            if not self._is_watched:
                self._ask(wait_flags)
            elif self._turns >= _ENOUGH_TURNS:
                raise self._lost(errno.ECHILD)
        if not self._statuses:
            return 0, 0
        self._handle = None
        return self._statuses[0]

    def _ask(self, wait_flags: int) -> None:
        handle = self._handle
        if handle is None:  # another thread has just got it
            return
        try:
            _native.wait(handle, wait_flags, self._statuses)
        except OSError as error:
            if error.errno not in (errno.ECHILD, errno.EOWNERDEAD):
                raise
            if self.is_served or not self._ask_interpreter(wait_flags):
                raise self._lost(error.errno) from None

    def _ask_interpreter(self, wait_flags: int) -> bool:
        """Where a library of this process reaps all children, its own os.waitpid knows the status. Does it
        know of this child?"""
        own: object = os.waitpid
        if isinstance(own, types.BuiltinFunctionType):
            return False
        try:
            # What it does not know it asks the kernel: for whoever has the number now.
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            return False
        except ChildProcessError:
            pass
        except OSError:  # whether it has it cannot be told
            return False
        try:
            pid, status = os.waitpid(self.pid, wait_flags)
        except OSError:
            return False
        if pid == self.pid:
            self._statuses.append((pid, status))
        return True

    def give_to_keeper(self) -> None:
        """One that was adopted ends with this process. Errors are those of _native.give_to_keeper."""
        if self._handle is not None:
            _native.give_to_keeper(self._handle)

    def send_signal(self, number: int) -> None:
        """Raises ProcessLookupError where it has been waited for, by whomever."""
        _native.send_signal(self._living(), number)

    def _living(self) -> _native.Process:
        handle = self._handle
        if handle is None:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        return handle

    def _lost(self, error_number: int) -> ChildProcessError:
        self._is_lost = True
        became = "was taken by another wait"
        if error_number == errno.EOWNERDEAD:
            became = "died with the service, which was killed"
        return ChildProcessError(error_number, f"the exit status of child {self.pid} {became}")

    def open_pidfd(self) -> int:
        """Of the child; the caller's to close. It is readable when the child has ended."""
        return _native.pidfd(self._living())

    def let_reap(self) -> None:
        """Must be called before a status is asked for, in a process whose green threads' library reaps by itself."""
        if self.green is None or not self._is_watched or self._statuses:
            return
        self.green.let_reap()
        try:
            self.send_signal(0)
        except ProcessLookupError:  # reaped, by the library or by another
            self._turns += 1
        except OSError:  # it may not be signalled, being another user's, or nobody could look: it is there
            pass

    def wait_green(self, poll: Callable[[], int | None], timeout: float | None) -> int | None:
        """Calls poll() until it returns something else than None, and returns that. Returns None after timeout, seconds
        or None, and where the status was lost. Other green threads run meanwhile; no lock may be held. `green` must not
        be None."""
        assert self.green is not None
        deadline = None if timeout is None else time.monotonic() + timeout
        while (found := poll()) is None and not self._is_lost:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            self._wait_once(self.green, left)
        return found

    def _wait_once(self, green: Library, timeout: float | None) -> None:
        if self._has_ended:  # but its status is not here yet
            green.sleep(0.001)
            return
        try:
            pidfd = self.open_pidfd()
        except ProcessLookupError:  # reaped by somebody
            self._has_ended = True
        except OSError:  # there is no descriptor to be had
            green.sleep(_PAUSE if timeout is None else min(_PAUSE, timeout))
        else:
            try:
                self._has_ended = green.wait_readable(pidfd, timeout)
            finally:
                os.close(pidfd)
