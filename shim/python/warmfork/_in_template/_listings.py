"""Which listings of directories count for an image.

This runs in a template, while it preloads. The preload library records each directory that is listed, by all of its
names. The import system lists directories too, and does not count by that: where modules are looked for, and under
which names, is known otherwise (see _description.describe), and a file beside them is no reason to preload anew.
importlib.metadata, which lists the whole search path for the version of one package, is after distributions only.
"""

from __future__ import annotations

import _frozen_importlib_external as _finders
import os
import sys
import types

from .. import _native

# It is the same as typing's, which children that import it would otherwise find loaded.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NOTHING = 0

_METADATA = ("importlib.metadata", "importlib_metadata")


class Listings:
    """Takes effect from when it is made until `stop`."""

    def __init__(self) -> None:
        # Finders and site have listed these at the interpreter's start.
        for directory in {*sys.path, *sys.path_importer_cache}:
            if isinstance(directory, str):
                _native.drop_listing(os.fsencode(os.path.abspath(directory)))
        self._replaced: list[tuple[types.ModuleType, str, types.ModuleType]] = []
        self._list_for(_NOTHING, _finders, "_os")
        for name in _METADATA:
            self.look_at(name)

    def look_at(self, name: str) -> None:
        """Must be called when a module of that name was imported."""
        if name in _METADATA and getattr(sys.modules.get(name), "os", None) is os:
            self._list_for(_native.LISTED_DISTRIBUTIONS, sys.modules[name], "os")

    def stop(self) -> None:
        for module, name, original in self._replaced:
            setattr(module, name, original)

    def _list_for(self, what: int, module: types.ModuleType, name: str) -> None:
        """Gives the module functions of its own, in the place of those that it has under that name."""
        original = getattr(module, name)

        def listdir(*arguments: Any) -> Any:
            before = _native.list_for(what)
            try:
                return original.listdir(*arguments)
            finally:
                _native.list_for(before)

        stand_in = types.ModuleType(original.__name__)
        vars(stand_in).update(vars(original), listdir=listdir)
        setattr(module, name, stand_in)
        self._replaced.append((module, name, original))
