"""The parameters of a spawn as the native side takes them, refused where subprocess refuses them; and what it
raises for what fails."""

from __future__ import annotations

import errno
import operator
import os
import signal
import sys

from . import _native

# It is the same as typing's, whose import would cost every start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from typing import Any, NoReturn

    from ._errors import Error
    from ._types import Backend, Handles, Limits, Path

# What subprocess restores in a child with restore_signals=True: the signals that Python ignores.
PYTHON_IGNORES = sum(1 << (number - 1) for number in (signal.SIGPIPE, signal.SIGXFSZ))

_INT_MAX = 2**31 - 1

# subprocess's own call reads in this way what is true or false.
if sys.version_info >= (3, 12):
    _truth = bool
else:
    _truth = operator.index


def backend_number(backend: Backend | None) -> int:
    if backend is None:
        return 0
    try:
        return _native.BACKENDS[backend]
    except KeyError:
        raise ValueError(f"backend must be one of {', '.join(_native.BACKENDS)}, not {backend!r}") from None


def system_error(number: int, path: Path | None = None) -> OSError:
    """Makes an error as subprocess raises it, with the system's text. path: what it is about."""
    return OSError(number, os.strerror(number), path)


def affinity_mask(cpus: Iterable[int] | None) -> bytes | None:
    """Returns a set of CPU numbers as sched_setaffinity(2) takes it."""
    if cpus is None:
        return None
    mask = sum(1 << cpu for cpu in set(cpus))
    return mask.to_bytes((mask.bit_length() + 63) // 64 * 8, "little")


def flat_limits(limits: Limits | None) -> Sequence[int]:
    if limits is None:
        return ()
    return [number for resource, (soft, hard) in limits.items() for number in (resource, soft, hard)]


def descriptor_pairs(handles: Handles, pass_fds: Collection[int]) -> list[int]:
    """Returns (source, target), flat. handles: as of subprocess's _get_handles; what has no source of 0, 1 and 2 is
    inherited."""
    pairs = [handles[0], 0, handles[3], 1, handles[5], 2]
    if min(pairs) < -1:  # STDOUT for another stream than stderr
        raise system_error(errno.EBADF)
    if pass_fds != ():
        for number in sorted(map(int, set(pass_fds))):
            if not 0 <= number <= _INT_MAX:
                raise ValueError("bad value(s) in fds_to_keep")
            if number > 2:
                pairs += number, number
    return pairs


def flag_bits(flags: int, restore_signals: Any, umask: int, start_new_session: Any, process_group: int) -> int:
    """Returns flags with the bits that these parameters of subprocess stand for."""
    if _truth(start_new_session):
        if process_group >= 0:  # the leader of a session cannot go
            raise system_error(errno.EPERM)
        flags |= _native.NEW_SESSION
    if process_group >= 0:
        flags |= _native.PROCESS_GROUP
    if umask >= 0:
        flags |= _native.UMASK
    if _truth(restore_signals):
        flags |= _native.SIGNALS_DEFAULT
    return flags


def raise_familiar(error: Error, directory: Path | None, program: Path) -> NoReturn:
    """Raises what subprocess raises for the same failure. error: a warmfork.Error."""
    if error.stage == "directory":
        raise system_error(error.errno, directory) from None
    if error.stage == "exec" or error.errno == errno.E2BIG:
        raise system_error(error.errno, program) from None
    if error.stage in ("session", "descriptors"):
        raise system_error(error.errno) from error
    if error.stage == "limits":
        raise OSError(error.errno, str(error.strerror)) from None
    raise error from None
