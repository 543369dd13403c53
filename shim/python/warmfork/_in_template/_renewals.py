"""What modules are known to keep of the process that imported them, and each child has of its own."""

from __future__ import annotations

import contextlib
import os
import sys

from ._modules import attributes_of

# It is the same as typing's, which children that import it would otherwise find loaded.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_KEEP_UMASK = (("mercurial.posix", "umask"), ("mercurial.util", "umask"))


def umask_holders() -> list[tuple[dict[str, Any], str]]:
    """Returns [(attributes of a module, name)] of where the umask is."""
    holders = [(attributes_of(sys.modules.get(module)), name) for module, name in _KEEP_UMASK]
    return [(names, name) for names, name in holders if type(names) is dict and type(names.get(name)) is int]


def _find_key_of_jupyter(session: Any) -> Callable[[], None] | None:
    """It is that of --secure."""
    settings = session.session_flags["secure"][0]["Session"]
    draw = session.new_id_bytes
    return (lambda: settings.update(key=draw())) if type(settings["key"]) is bytes else None


def _find_id_of_dask(client: Any) -> Callable[[], None] | None:
    """Those of a process's futures begin with it."""
    future, known, draw = client.Future, vars(client.Future)["_uid"], client.uuid.uuid4
    return (lambda: setattr(future, "_uid", draw().hex)) if type(known) is str else None


def _find_key_of_billiard(process: Any) -> Callable[[], None] | None:
    """It is what multiprocessing has, of which that is a copy."""
    current = process._current_process
    return (lambda: setattr(current, "authkey", os.urandom(32))) if isinstance(current.authkey, bytes) else None


_KEEP_RANDOM = (
    ("billiard.process", "_current_process", _find_key_of_billiard),
    ("jupyter_client.session", "session_flags", _find_key_of_jupyter),
    ("distributed.client", "Future", _find_id_of_dask),
)


def find_renewals() -> dict[tuple[str, str], Callable[[], None]]:
    """Returns {(name of a module, name in it): what draws it anew}, of what modules are known to keep, and do. It is tried
    here: in a child nothing may be raised."""
    found = {}
    for name, attribute, find in _KEEP_RANDOM:
        with contextlib.suppress(Exception):  # it is another version than is known
            if name in sys.modules and (renew := find(sys.modules[name])):
                renew()
                found[name, attribute] = renew
    return found
