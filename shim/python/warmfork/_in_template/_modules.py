"""What is asked of modules without asking them: their attributes, and whether they are the standard library's."""

from __future__ import annotations

import os
import sys

# It is the same as typing's, which children that import it would otherwise find loaded.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

_STANDARD = frozenset(getattr(sys, "stdlib_module_names", ())) or None


def attributes_of(module: ModuleType | None) -> dict[str, Any]:
    """Returns the attributes of a module, but never what it computes when it is asked."""
    try:
        return object.__getattribute__(module, "__dict__")
    except AttributeError:
        return {}


def is_standard(name: str) -> bool:
    top = name.partition(".")[0]
    if _STANDARD is not None:
        return top in _STANDARD
    file = getattr(sys.modules.get(top), "__file__", None)
    return not file or (file.startswith(os.path.dirname(os.__file__)) and "-packages" not in file)


def copies_of(value: list[str]) -> list[list[str]]:
    """Returns the lists with the same texts that modules have by a name, but for our own. There are none of a short
    one, which may be the same by chance."""
    own = __name__.partition(".")[0]
    named = [
        other for name, module in list(sys.modules.items()) if name.partition(".")[0] != own
        for other in list(attributes_of(module).values()) if type(other) is list and len(other) == len(value) > 2
    ]
    return [other for other in named if other is not value and {*map(type, other)} == {str} and other == value]
