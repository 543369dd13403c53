"""The numbers and texts that stand in the code of modules: what is one of these is nothing that the process has given."""

from __future__ import annotations

import sys

from ._modules import attributes_of, is_standard

# It is the same as typing's, which children that import it would otherwise find loaded.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

# The longest text of which `_native.seed_of` knows that it was a seed.
_LONGEST_TEXT = 448
# Of a number in a text.
_MOST_DIGITS = 64


class Written:
    """What stands in the code of all modules but the standard library's. numbers: of floats what they are as a seed.
    texts: as bytes, those that are short enough."""

    def __init__(self) -> None:
        self.numbers: set[int] = set()
        self.texts: set[bytes] = set()
        for name, module in list(sys.modules.items()):
            spec: Any = attributes_of(module).get("__spec__")
            get_code = getattr(getattr(spec, "loader", None), "get_code", None)
            if get_code is None or is_standard(name):
                continue
            try:
                self._add(get_code(spec.name))
            except Exception:
                continue  # whatever a loader of its own raises

    def _add(self, code: CodeType | None) -> None:
        todo: list[Any] = [code]
        while todo:
            value = todo.pop()
            kind = type(value)
            if hasattr(value, "co_consts"):
                todo.extend(value.co_consts)
            elif kind in (tuple, frozenset):
                todo.extend(value)
            elif kind is int:
                self.numbers.add(abs(value))
            elif kind is float:
                self.numbers.add(hash(value) & (1 << 64) - 1)
            elif kind in (str, bytes) and len(value) <= _LONGEST_TEXT:
                self._add_text(value, value if kind is bytes else value.encode(errors="surrogatepass"))

    def _add_text(self, value: str | bytes, text: bytes) -> None:
        self.texts.add(text)
        if type(value) is str and value.isdecimal() and len(value) < _MOST_DIGITS:
            self.numbers.add(int(value))
