"""What is done to errors that are not ours: they may refuse attributes, and their texts may fail, as a user wrote them.

A frozen dataclass is the usual one: ``add_note`` and an assignment to ``__traceback__`` raise `FrozenInstanceError`
there, in the place of the error itself.
"""

from __future__ import annotations

from contextlib import suppress
from types import TracebackType
from typing import Any

__all__ = ("note", "shown", "text_of", "trace_of", "without_frame")


def note(error: BaseException, text: str) -> None:
    """Add *text* to what a traceback of *error* shows, whatever its class allows.

    Example:
        >>> error = ValueError("no such shop")
        >>> note(error, "raised by the source")
        >>> error.__notes__
        ['raised by the source']
    """
    with suppress(Exception):  # a note is less than the error that it is about
        BaseException.__setattr__(error, "__notes__", [*getattr(error, "__notes__", ()), text])


def shown(thing: object) -> str:
    """The representation of *thing*, or of its type where that fails.

    Example:
        >>> shown(ValueError("no such shop"))
        "ValueError('no such shop')"
    """
    try:
        return repr(thing)
    except Exception as broken:  # noqa: BLE001 - it would take the place of the error that is being told of
        return f"<{type(thing).__name__} whose representation raised {type(broken).__name__}>"


def text_of(thing: object) -> str:
    """What *thing* says of itself; never an error, whatever its ``__str__`` does.

    Example:
        >>> text_of(ValueError("no such shop"))
        'no such shop'
    """
    try:
        return str(thing)
    except Exception as broken:  # noqa: BLE001 - as above
        return f"(its text raised {type(broken).__name__})"


def trace_of(error: BaseException) -> TracebackType | None:
    """Return the traceback of *error*, whatever its class makes of that attribute.

    Example:
        >>> trace_of(ValueError("no such shop")) is None
        True
    """
    trace: TracebackType | None = _TRACE.__get__(error)
    return trace


def without_frame(error: BaseException) -> None:
    """Take the first frame, the caller's own, out of the traceback of *error*: it would keep what the frame holds."""
    trace = trace_of(error)
    BaseException.with_traceback(error, None if trace is None else trace.tb_next)


_TRACE: Any = BaseException.__traceback__  # the descriptor, which needs nothing of the class
