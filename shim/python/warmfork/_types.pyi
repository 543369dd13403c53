"""What annotations name. There is no such module when a program runs: nothing of it costs a start-up."""

import os
from collections.abc import Mapping, Sequence
from typing import IO, Any, Literal, Union

from typing_extensions import TypeAlias

Text: TypeAlias = Union[str, bytes]
Path: TypeAlias = Union[str, bytes, os.PathLike[str], os.PathLike[bytes]]
Command: TypeAlias = Union[Path, Sequence[Path]]
Environment: TypeAlias = Union[Mapping[str, Path], Mapping[bytes, Path]]
# subprocess takes them like this: a number is a descriptor, or one of PIPE, STDOUT, DEVNULL.
Stream: TypeAlias = Union[None, int, IO[Any]]
Backend: TypeAlias = Literal["auto", "warm", "cold"]
Lifetime: TypeAlias = Literal["owner", "detached"]
OnStale: TypeAlias = Literal["cold", "wait", "serve"]
OnError: TypeAlias = Literal["ignore", "warn", "fail"]
# {resource.RLIMIT_...: (soft, hard)}
Limits: TypeAlias = Mapping[int, tuple[int, int]]
# What _native.spawn appends: process id, backend, reason code, reason, handle, and is it a child of the service?
Spawned: TypeAlias = tuple[int, str, str, str, Any, bool]
# Process id, and status as of os.waitpid.
Status: TypeAlias = tuple[int, int]
# What subprocess's _get_handles returns.
Handles: TypeAlias = tuple[int, int, int, int, int, int]
