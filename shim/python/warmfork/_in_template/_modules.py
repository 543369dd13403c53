"""What is asked of modules without asking them: their attributes, and whether they are the standard library's."""

from __future__ import annotations

import os
import sys
import types

# It is the same as typing's, which children that import it would otherwise find loaded.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_STANDARD = frozenset(getattr(sys, "stdlib_module_names", ())) or None


def bases_of(kind: type) -> tuple[type, ...]:
    """Returns the classes that it is and is derived from, whatever its own class makes of that."""
    bases: Any = vars(type)["__mro__"]
    found: tuple[type, ...] = bases.__get__(kind)
    return found


def attributes_of(module: Any) -> dict[str, Any]:
    """Returns the attributes of a module, or of what stands for one in sys.modules, but never what it computes when it
    is asked. Those of a class cannot be set so."""
    kind = type(module)
    bases = (types.ModuleType,) if types.ModuleType in bases_of(kind) else bases_of(kind)
    found: Any = next((vars(base)["__dict__"] for base in bases if "__dict__" in vars(base)), None)
    is_plain = type(found) in (types.GetSetDescriptorType, types.MemberDescriptorType)
    attributes = found.__get__(module) if is_plain else None
    return attributes if type(attributes) in (dict, types.MappingProxyType) else {}


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


def find_holders(module: Any) -> list[tuple[dict[str, Any], str]]:
    """Returns [(dictionary, name in it)] of where a module is that others have imported, or that has another name as
    well: in their namespaces, and in sys.modules."""
    dictionaries = [sys.modules, *(attributes_of(other) for other in list(sys.modules.values()))]
    return [
        (names, name) for names in dictionaries if type(names) is dict
        for name, value in list(names.items()) if value is module
    ]
