"""What objects hold that the garbage collector does not know of: numbers and texts of derived classes, buffers, what a
thread or a context has of its own. No code of theirs runs for it."""

from __future__ import annotations

import types

from ._modules import bases_of

# It is the same as typing's, which children that import it would otherwise find loaded.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Reader = Callable[[Any, Any], list[Any]]

# Longer buffers are data, and no keys.
_LONGEST_BUFFER = 4096
_MOST_OBJECTS = 512  # of an array of them
# No number of more decimal digits is made of what was drawn.
_MOST_DIGITS = 100


def base_of(kind: type, module: str, name: str) -> Any:
    """Returns the class of this name that it is, or is derived from; None where it is neither."""
    found = (base for base in bases_of(kind) if _name_of(base) == (module, name))
    return next(found, None)


class UnseenParts:
    """Reads them. How is known by the class."""

    def __init__(self) -> None:
        self._readers: dict[type, tuple[Reader, Any] | None] = {}

    def of(self, value: Any, kind: type) -> list[Any]:
        """Returns them as objects of the language itself, or nothing where it cannot be looked into."""
        if kind not in self._readers:
            self._readers[kind] = _reader_of(kind)
        reader = self._readers[kind]
        if reader is None:
            return []
        try:
            return reader[0](value, reader[1])
        except Exception:  # it is not what it says
            return []


def _name_of(kind: type) -> tuple[Any, Any]:
    return type.__getattribute__(kind, "__module__"), type.__getattribute__(kind, "__qualname__")


def _reader_of(kind: type) -> tuple[Reader, Any] | None:
    """Returns a function, and the class that it reads a value as."""
    bases = bases_of(kind)
    for base in bases:
        if _name_of(base) == ("enum", "Enum"):  # its members are written down in its code
            return None
        if isinstance(vars(base).get("__buffer__"), types.FunctionType):
            return None
    return next(((_READERS[_name_of(base)], base) for base in bases if _name_of(base) in _READERS), None)


def _in_buffer(value: Any, base: Any) -> list[Any]:
    with memoryview(value) as view:
        return [view.tobytes()] if view.nbytes <= _LONGEST_BUFFER else []


def _of_c_type(value: Any, base: Any) -> list[Any]:
    # Memory that is not its own may be gone.
    return _in_buffer(value, base) if vars(base)["_b_needsfree_"].__get__(value) else []


def _in_array(value: Any, base: Any) -> list[Any]:
    """Of numpy's, which may have the memory of another object: a file's that has become shorter ends the process."""
    owner: Any = value
    while isinstance(owner, base) and (other := vars(base)["base"].__get__(owner)) is not None:
        owner = other
    is_safe = isinstance(owner, (base, bytes, bytearray))
    if not is_safe:
        return [owner]
    if vars(base)["dtype"].__get__(value).hasobject:
        return base.ravel(value).tolist()[:_MOST_OBJECTS] if vars(base)["size"].__get__(value) <= _MOST_OBJECTS else []
    own = [base.tobytes(value)] if vars(base)["nbytes"].__get__(value) <= _LONGEST_BUFFER else []
    return own if owner is value else [*own, owner]


def _in_stream(value: Any, base: Any) -> list[Any]:
    with base.getbuffer(value) as view:
        return [view.tobytes()] if view.nbytes <= _LONGEST_BUFFER else []


def _in_decimal(value: Any, base: Any) -> list[Any]:
    is_short = base.is_finite(value) and abs(base.adjusted(value)) < _MOST_DIGITS
    return [base.__int__(value)] if is_short else []


_READERS: dict[tuple[Any, Any], Reader] = {
    ("builtins", "str"): lambda value, base: [str.__str__(value)],
    ("builtins", "int"): lambda value, base: [int.__pos__(value)],
    ("builtins", "float"): lambda value, base: [float.__pos__(value)],
    ("builtins", "bytes"): _in_buffer,
    ("builtins", "bytearray"): _in_buffer,
    ("array", "array"): _in_buffer,
    ("_ctypes", "_CData"): _of_c_type,
    ("numpy", "ndarray"): _in_array,
    ("_io", "BytesIO"): _in_stream,
    ("decimal", "Decimal"): _in_decimal,
    ("itertools", "count"): lambda value, base: [int(base.__repr__(value).partition("(")[2].strip(")").partition(",")[0])],
    ("_thread", "_local"): lambda value, base: [base.__getattribute__(value, "__dict__")],
    ("_contextvars", "ContextVar"): lambda value, base: [value.get(None)],
    ("builtins", "ContextVar"): lambda value, base: [value.get(None)],  # which it is before 3.10
}
