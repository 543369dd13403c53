"""What annotations name. There is no such module when a program runs: nothing of it costs a start-up."""

import os
from collections.abc import Callable, Mapping, Sequence
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

# In templates: see _in_template.
# {variable: what it is set to, or None where it is removed}
Changes: TypeAlias = dict[bytes, Union[bytes, None]]
# {name of a module: {name in it: kind of what is kept there}}
Kept: TypeAlias = dict[str, dict[str, str]]
# Name, and text.
Finding: TypeAlias = tuple[str, str]
# Of a function that the program names.
Hook: TypeAlias = Callable[[], Any]
# What a line about a module says: ("ok", microseconds, kilobytes, stamp, file) or ("no", stamp, file, reason).
Judged: TypeAlias = tuple[Any, ...]
# Size of a file, and when it was modified.
Stamp: TypeAlias = tuple[int, int]
# An entry of sys.path, behind the one that it came behind: None, "" or ... for a place.
PathAddition: TypeAlias = tuple[Any, str]
# Files, caches, where they were looked for and under which names, and modules that others might come before.
Description: TypeAlias = tuple[list[bytes], list[bytes], list[tuple[bytes, list[bytes]]], list[bytes]]
# What a child runs: ("text", source), ("file", path, program), ("stdin", None), or (function, arguments).
Prepared: TypeAlias = tuple[Any, ...]
# Begin and end, in nanoseconds.
Span: TypeAlias = tuple[int, int]
