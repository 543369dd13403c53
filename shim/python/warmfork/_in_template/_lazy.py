"""Lazy imports (PEP 810, from CPython 3.15 on), of which a preloaded module would be left hollow."""

from __future__ import annotations

import sys
import types

from ._modules import attributes_of

# It is the same as typing's, which children that import it would otherwise find loaded.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


def resolve(refuse: Callable[[str, BaseException], None]) -> None:
    """Imports what preloaded modules are to import when they first use it, and what these are to. Those of the
    standard library are left as they are: each child uses few of them. refuse: called for one that cannot be
    imported, with its name and the exception; it fails where it is used, as it would in a cold child."""
    kind = getattr(types, "LazyImportType", None)
    done: set[tuple[str, str]] = set()
    while kind is not None and (found := [lazy for lazy in _find(kind) if lazy[:2] not in done]):
        for module, name, attributes, value in found:
            done.add((module, name))
            try:
                resolved = value.resolve()
            except Exception as error:
                refuse(f"{module}.{name}", error)
                continue
            if attributes.get(name) is value:
                attributes[name] = resolved


def _find(kind: type) -> Iterator[tuple[str, str, dict[str, Any], Any]]:
    """Finds (module, name, the module's attributes, the lazy import) of each."""
    for module in [name for name in list(sys.modules) if name.partition(".")[0] not in sys.stdlib_module_names]:
        attributes = attributes_of(sys.modules[module])
        if type(attributes) is dict:
            for name, value in list(attributes.items()):
                if type(value) is kind:
                    yield module, name, attributes, value
