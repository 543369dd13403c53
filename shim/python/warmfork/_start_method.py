"""The name of multiprocessing's method "warmfork", by which children of any method find the package."""

from __future__ import annotations

import os

# As in typing, whose import would cost every start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# What a child of any method evaluates when it unpickles the method's name: before it has the search path of its
# parent, so that it may have to be told where the package is.
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
