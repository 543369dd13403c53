"""A template's program, by the name under which owners of all versions start it: see forkserver/protocol/README.md."""

from ._in_template._main import main

__all__ = ["main"]
