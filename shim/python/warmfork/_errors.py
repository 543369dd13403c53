"""What warmfork raises."""

from __future__ import annotations

_TEMPLATE_STAGES = frozenset(("launch", "gate", "eligibility"))


class Error(OSError):
    """A spawn failed before any user code ran, and has left no process behind.

    errno: a number, as of OSError.
    strerror: what was attempted, on what, and why it failed.
    stage: the name of the step that failed ("fork", "directory", "exec", ...), as warmfork_stage_name(3) has them.
    detail: the number of the descriptor or resource, where the stage has one; else 0.
    """

    stage: str = "none"
    detail: int = 0


class TemplateError(Error):
    """The template itself is the reason: it did not start, is not safe to fork, or was asked, with
    backend="warm", for what only a cold start can do."""

    def __str__(self) -> str:
        return str(self.strerror)


def make_error(error_number: int, text: str, _stage: int, stage_name: str, detail: int) -> Error:
    kind = TemplateError if stage_name in _TEMPLATE_STAGES else Error
    error = kind(error_number, text)
    error.stage = stage_name
    error.detail = detail
    return error


class Unsuitable(Exception):
    """A module can be imported, but not for all children at once: each imports it itself."""
