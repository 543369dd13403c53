"""What modules have of sys.argv while a template preloads: the list itself, which is every child's, or parts of it.

Another list stands in its place meanwhile, which counts who looks into it. Whoever has that one is given the
interpreter's own at the end, which each child fills anew.
"""

from __future__ import annotations

import gc
import sys
import types

# It is the same as typing's, which children that import it would otherwise find loaded.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


class Rest(list):
    """A slice of sys.argv, which is told from other lists though it is empty here and would not be in a child."""


class _StandIn(list):
    reads = 0


def _counting(name: str) -> Callable[..., Any]:
    method = getattr(list, name)

    def count(*arguments: Any, **keywords: Any) -> Any:
        _StandIn.reads += 1
        return method(*arguments, **keywords)

    return count


def _getitem(arguments: _StandIn, index: int | slice) -> Any:
    _StandIn.reads += 1
    item = list.__getitem__(arguments, index)
    return Rest(item) if isinstance(index, slice) else item


_StandIn.__getitem__ = _getitem  # type: ignore[assignment]
for _name in (
    "__iter__", "__reversed__", "__len__", "__contains__", "__eq__", "__ne__", "__add__", "__mul__",
    "__repr__", "copy", "index", "count", "pop",
):
    setattr(_StandIn, _name, _counting(_name))


class Arguments:
    """Stands in from when it is made until `give_back`. only: the one argument, an object that no other list has,
    whatever copies it."""

    def __init__(self) -> None:
        self.only = "".join(("-", "c"))
        # A layer's is that of its base, which modules have.
        self._own: list[str] = sys.argv if type(sys.argv) is list else []
        self._stand_in: _StandIn | None = _StandIn([self.only])
        sys.argv = self._stand_in
        self._left: Sequence[str] = ()

    def reads(self) -> int:
        return _StandIn.reads

    def give_back(self) -> Sequence[str]:
        """Puts the interpreter's own in all places that have the other one, and returns the types of those that it
        could not be put in. May be called again, and returns the same."""
        if self._stand_in is not None:
            self._own[:] = [self.only]
            sys.argv = self._own
            stand_in, self._stand_in = [self._stand_in], None
            _replace_all(stand_in, self._own)
            self._left = [type(holder).__name__ for holder in _holders(stand_in)]
        return self._left


def _holders(of: list[Any]) -> list[Any]:
    """Returns what refers to the object that is in this list, without frames: those that run now are this module's."""
    return [
        holder for holder in gc.get_referrers(of[0]) if holder is not of and not isinstance(holder, types.FrameType)
    ]


def _replace_all(of: list[Any], new: list[str]) -> None:
    """Is a function of its own, so that nothing of what it looks at is held when it has returned."""
    for holder in _holders(of):
        _replace(holder, of[0], new)


def _replace(holder: Any, old: list[str], new: list[str]) -> None:
    kind = type(holder)
    if kind is list:
        holder[:] = [new if value is old else value for value in holder]
    elif kind is types.CellType:
        holder.cell_contents = new
    elif kind is tuple:
        _replace_default(holder, old, new)
    elif kind is dict:
        _replace_name(holder, old, new)
    elif hasattr(holder, "__dict__") and not isinstance(holder, type):  # whose attributes are no dictionary yet
        _replace_name(vars(holder), old, new)


def _replace_default(defaults: tuple[Any, ...], old: list[str], new: list[str]) -> None:
    for function in gc.get_referrers(defaults):
        if type(function) is types.FunctionType and function.__defaults__ is defaults:
            function.__defaults__ = tuple(new if value is old else value for value in defaults)


def _replace_name(names: dict[str, Any], old: list[str], new: list[str]) -> None:
    of_type = next((owner for owner in gc.get_referrers(names) if isinstance(owner, type)), None)
    for name in [name for name, value in names.items() if value is old]:
        if of_type is None:
            names[name] = new
        else:  # which keeps in mind what it has found in its dictionary
            setattr(of_type, name, new)
