"""The name of multiprocessing's method "warmfork", by which children of any method find the package."""

from __future__ import annotations

import os
import sys
from multiprocessing import context

# It is the same as typing's, whose import would cost every start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# A child of any method evaluates this when it unpickles the method's name. It does not have the search path of its
# parent yet, so that it may have to be told where the package is.
_FIND = """\
[exec('''
import sys
try:
    import warmfork.multiprocessing
except ImportError:
    sys.path.append({place!r})
    import warmfork.multiprocessing
    sys.path.remove({place!r})
''', dict()), __import__("sys").modules["warmfork.multiprocessing"]._NAME][1]"""
_FIND = _FIND.format(place=os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class StartMethod(str):
    """The method's name. Unpickling it in a child of any method imports warmfork.multiprocessing, which adds it
    there."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return eval, (_FIND,)


_own_start_methods: Any  # of multiprocessing, see add_method


def _all_start_methods(self: context.BaseContext) -> list[str]:
    """Returns all start methods. Before CPython 3.14 multiprocessing names only its own, and libraries accept no
    other."""
    return [*_own_start_methods(self), "warmfork"]


def add_method(name: str, method: context.BaseContext) -> None:
    """Adds the method to what multiprocessing knows, under this name."""
    global _own_start_methods
    context._concrete_contexts[str(name)] = method
    if name in context._default_context.get_all_start_methods():
        return
    own = context._default_context.get_all_start_methods
    kind: Any = type(context._default_context)
    _own_start_methods, kind.get_all_start_methods = kind.get_all_start_methods, _all_start_methods
    # These have imported it by name: multiprocessing itself, and torch.multiprocessing.
    for module in list(sys.modules.values()):
        attributes = getattr(module, "__dict__", None)
        if type(attributes) is dict and attributes.get(own.__name__) == own:
            attributes[own.__name__] = context._default_context.get_all_start_methods
