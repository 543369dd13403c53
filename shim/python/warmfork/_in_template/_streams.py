"""The standard streams of a child."""

from __future__ import annotations

import sys
from _io import FileIO


class Stream:
    """A standard stream of the template, put on another file in every child. Keeps nothing of it: what is
    user code's alone must not be kept alive by us, or it would be finalized later than python3 does it
    (output written by destructors would be lost)."""

    def __init__(self, name: str, number: int, mode: str) -> None:
        text = getattr(sys, f"__{name}__")
        self.name = name
        self.number = number
        self.mode = mode
        try:
            buffer = getattr(text, "buffer", None)
        except ValueError:
            buffer = None
        # A module may have detached it, and goes on with the buffer, over the descriptor of the same number.
        self.exists = buffer is not None
        if not self.exists:
            return
        self.encoding = text.encoding
        self.errors = text.errors
        self.write_through = getattr(text, "write_through", False)
        # It is as a module wants it, or None for as a fresh interpreter has it. The template's stream is on a file.
        usual = number == 2 and not self.write_through
        self.line_buffering = None if text.line_buffering == usual else text.line_buffering
        self.is_buffered = hasattr(buffer, "raw")

    def renew(self) -> None:
        """Puts the same objects, which modules may have kept, over a new file, as a fresh interpreter makes it. Nothing
        is buffered in them: the template flushed, and has not written since."""
        if not self.exists:
            return
        try:
            raw = FileIO(self.number, self.mode, closefd=False)
        except OSError:
            # python3 does so where the descriptor is closed.
            setattr(sys, self.name, None)
            setattr(sys, f"__{self.name}__", None)
            return
        text = getattr(sys, f"__{self.name}__")
        buffer = text.buffer
        is_terminal = raw.isatty()
        raw.name = f"<{self.name}>"
        if self.is_buffered:
            buffer.__init__(raw, max(raw._blksize, 1))
        else:
            buffer = raw
        line_buffering = self.line_buffering
        if line_buffering is None:
            line_buffering = not self.write_through and (self.number == 2 or is_terminal)
        text.__init__(
            buffer, self.encoding, self.errors, "\n", line_buffering, self.write_through
        )
