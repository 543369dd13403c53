"""The interpreter's own subprocess.Popen, which warmfork.Popen is made of.

Programs put others in its place (gevent and eventlet do), or others for its methods: what is made of those
reads the arguments of private calls that are not its own. So the functions are the interpreter's, and of those
that are private the parameters are checked, once.
"""

from __future__ import annotations

import os
import subprocess
import types
from importlib.util import module_from_spec

from . import _green

# It is the same as typing's, whose import would cost every start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ._green import Library

_HANDLES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")

# What warmfork.Popen replaces or calls, with its parameters, which are alike from 3.9 on.
INTERFACE = {
    "_execute_child": (
        "self", "args", "executable", "preexec_fn", "close_fds", "pass_fds", "cwd", "env", "startupinfo",
        "creationflags", "shell", *_HANDLES, "restore_signals", "gid", "gids", "uid", "umask",
        "start_new_session",
    ),
    "_get_handles": ("self", "stdin", "stdout", "stderr"),
    "_close_pipe_fds": ("self", *_HANDLES),
    "_internal_poll": ("self", "_deadstate"),
    "_try_wait": ("self", "wait_flags"),
    "_wait": ("self", "timeout"),
    "_handle_exitstatus": ("self", "sts"),
}
_SINCE_3_11 = {"_execute_child": ("process_group",)}

# What programs catch and compare has to be that of the module that they import.
_SHARED = ("SubprocessError", "CalledProcessError", "TimeoutExpired", "CompletedProcess")


def _is_own(kind: Any) -> bool:
    """Is this class, of subprocess, as its source defines it?"""
    for name in ("__init__", *INTERFACE):
        function = getattr(kind, name, None)
        if type(function) is not types.FunctionType or function.__globals__ is not vars(subprocess):
            return False
    return True


class _Os(types.ModuleType):
    """os, with another function to close descriptors."""

    def __init__(self, close: Callable[[int], None]) -> None:
        super().__init__(os.__name__)
        self.close = close

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def _anew(green: Library | None) -> Any:
    """Makes the module anew from its source, over what the process has now of the modules that it imports."""
    specification = getattr(subprocess, "__spec__", None)
    if specification is None or specification.loader is None:
        return subprocess  # put there by the program
    module = module_from_spec(specification)
    specification.loader.exec_module(module)
    for name in _SHARED:
        setattr(module, name, getattr(subprocess, name))
    if green is not None:
        module.io = types.SimpleNamespace(open=green.open, TextIOWrapper=module.io.TextIOWrapper)
        module._PopenSelector = green.selector
        # gevent 25.8 and newer close a descriptor when other green threads have run: whoever reads a pipe to its end
        # right after it has closed the other one would wait for itself.
        module.os = _Os(green.close)
    return module


def _is_known(kind: Any) -> bool:
    """Are its private functions those that warmfork knows?"""
    for name, parameters in INTERFACE.items():
        function: Any = getattr(kind, name, None)
        code = getattr(function, "__code__", None)
        if code is None:
            return False
        found = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        more = found[len(parameters):]
        # Constants of functions that run in destructors are parameters too, and nobody gives them.
        is_more_known = more == _SINCE_3_11.get(name) or len(function.__defaults__ or ()) >= len(more)
        if found[: len(parameters)] != parameters or not is_more_known:
            return False
    return True


def _bases(own: type) -> tuple[type, ...]:
    """Returns the bases of warmfork.Popen: also what is in subprocess.Popen's place, for whoever asks isinstance()."""
    more = library.popen_bases if library is not None else ()
    if own is not subprocess.Popen and type(subprocess.Popen) is type:
        more += (subprocess.Popen,)
    return (own, *more)


library = _green.library()
module = subprocess if library is None and _is_own(subprocess.Popen) else _anew(library)
BASES = _bases(module.Popen)
IS_KNOWN = _is_known(module.Popen)
# It is taken as it is now: whoever replaces it later is not asked either.
initialize = module.Popen.__init__
