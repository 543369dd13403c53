"""Which temporary files and directories preloading has made, and left.

This runs in a template, while it preloads. Each child that is started cold makes its own; what the template has made
all children would share, until the first that ends removes it, as tempfile has it done at the end of the process.
"""

from __future__ import annotations

import os
import sys
import types

# It is the same as typing's, which children that import it would otherwise find loaded.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Temporary:
    """Takes effect from when it is made until `stop`."""

    def __init__(self, importing: Callable[[], str]) -> None:
        """importing: says whose import is under way."""
        self._importing = importing
        self._made: list[tuple[str, Any]] = []
        self._module: Any = None
        self.look_at("tempfile")

    def look_at(self, name: str) -> None:
        """Must be called when a module of that name was imported."""
        module: Any = sys.modules.get(name)
        # This replaces its own name for os: what others import from it stays what it is.
        if name == "tempfile" and self._module is None and getattr(module, "_os", None) is os:
            self._module = module
            self._module._os = self._noting_os()

    def stop(self) -> None:
        if self._module is not None:
            self._module._os = os

    def clear(self) -> None:
        """Drops what was noted so far."""
        self._made.clear()

    def left(self) -> dict[str, str]:
        """Returns {name of a module: path of what it has made and is still there}; one path, if there are several."""
        return {module: os.fsdecode(path) for module, path in reversed(self._made) if os.path.lexists(path)}

    def has_made(self, path: str) -> bool:
        """It, or a directory that it lies in."""
        return any((os.path.normpath(path) + "/").startswith(os.fsdecode(made) + "/") for _, made in self._made)

    def _noting_os(self) -> types.ModuleType:
        def mkdir(path: Any, *arguments: Any, **keywords: Any) -> None:
            os.mkdir(path, *arguments, **keywords)
            self._note(path)

        def open(path: Any, flags: int, *arguments: Any, **keywords: Any) -> int:
            file = os.open(path, flags, *arguments, **keywords)
            if flags & os.O_CREAT:  # else it is a directory, for a file without a name
                self._note(path)
            return file

        stand_in = types.ModuleType(os.__name__)
        vars(stand_in).update(vars(os), mkdir=mkdir, open=open)
        return stand_in

    def _note(self, path: Any) -> None:
        self._made.append((self._importing(), os.path.abspath(path)))
