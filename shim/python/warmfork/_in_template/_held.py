"""What objects hold that the garbage collector does not know of: numbers and texts of derived classes, buffers, what a
thread or a context has of its own."""

from __future__ import annotations

import sys
import types

from ._modules import attributes_of

# It is the same as typing's, which children that import it would otherwise find loaded.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# These hold nothing else, and are most of what there is.
_SEEN_WHOLE = frozenset((
    dict, list, tuple, set, frozenset, type, property, staticmethod, classmethod, types.FunctionType, types.MethodType,
    types.BuiltinFunctionType, types.ModuleType, types.CodeType, types.CellType,
))
# Longer buffers are data, and no keys.
_LONGEST_BUFFER = 4096
# No number of more decimal digits is made of what was drawn.
_MOST_DIGITS = 100


def unseen_parts(value: Any, kind: type) -> list[Any]:
    """Returns them as objects of the language itself, or nothing where it cannot be looked into."""
    if kind in _SEEN_WHOLE:
        return []
    try:
        return _parts_of_leaf(value, kind) or _parts_of_library(value, kind) or _bytes_of(value, kind)
    except Exception:  # of a class that is another one than it says
        return []


def _parts_of_leaf(value: Any, kind: type) -> list[Any]:
    if issubclass(kind, str):
        return [str.__str__(value)]
    if issubclass(kind, float):
        return [float.__pos__(value)]
    if issubclass(kind, int):
        # Those of an enumeration are written down in its code.
        return [] if issubclass(kind, attributes_of(sys.modules.get("enum")).get("Enum", ())) else [int.__pos__(value)]
    return []


def _parts_of_library(value: Any, kind: type) -> list[Any]:
    name = f"{kind.__module__}.{kind.__qualname__}"
    for base in kind.__mro__:
        if (base.__module__, base.__name__) == ("_thread", "_local"):
            return [base.__getattribute__(value, "__dict__")]  # type: ignore[call-arg]
    if name in ("_contextvars.ContextVar", "builtins.ContextVar"):  # which it is before 3.10
        return [value.get(None)]
    if name == "itertools.count":
        return [int(repr(value).strip("count()").partition(",")[0])]
    if name == "decimal.Decimal":
        return [int(value)] if value.is_finite() and abs(value.adjusted()) < _MOST_DIGITS else []
    if name == "_io.BytesIO":
        with value.getbuffer() as view:
            return [view.tobytes()] if view.nbytes <= _LONGEST_BUFFER else []
    if name == "numpy.ndarray" and value.base is not None:
        return [value.base]  # which has the memory
    return []


def _bytes_of(value: Any, kind: type) -> list[bytes]:
    # Memory that is not the object's own may be gone, or end with a signal.
    is_foreign = kind.__module__ == "mmap" or hasattr(kind, "_b_needsfree_") and not value._b_needsfree_
    if is_foreign:
        return []
    with memoryview(value) as view:
        return [view.tobytes()] if view.nbytes <= _LONGEST_BUFFER else []
