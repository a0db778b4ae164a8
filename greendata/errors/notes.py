"""Operations on errors of users, which never raise: such errors may refuse attributes, and their texts may fail.

The usual case is a frozen dataclass: ``add_note`` and an assignment to ``__traceback__`` raise `FrozenInstanceError`,
which would replace the error itself.
"""

from __future__ import annotations

from contextlib import suppress
from types import TracebackType
from typing import Any

__all__ = ("note", "shown", "text_of", "trace_of", "without_frame")


def note(error: BaseException, text: str) -> None:
    """Add the note *text* to *error*, even if its class refuses attributes.

    Example:
        >>> error = ValueError("no such shop")
        >>> note(error, "raised by the source")
        >>> error.__notes__
        ['raised by the source']
    """
    with suppress(Exception):  # a note is less important than its error
        BaseException.__setattr__(error, "__notes__", [*getattr(error, "__notes__", ()), text])


def shown(thing: object) -> str:
    """Return the ``repr`` of *thing*, or a text with its type if ``repr`` raises.

    Example:
        >>> shown(ValueError("no such shop"))
        "ValueError('no such shop')"
    """
    try:
        return repr(thing)
    except Exception as broken:  # noqa: BLE001 - it would replace the error that is being reported
        return f"<{type(thing).__name__} whose representation raised {type(broken).__name__}>"


def text_of(thing: object) -> str:
    """Return the text of *thing*. Never raises, whatever ``__str__`` does.

    Example:
        >>> text_of(ValueError("no such shop"))
        'no such shop'
    """
    try:
        return str(thing)
    except Exception as broken:  # noqa: BLE001 - as above
        return f"(its text raised {type(broken).__name__})"


def trace_of(error: BaseException) -> TracebackType | None:
    """Return the traceback of *error*, even if its class overrides that attribute.

    Example:
        >>> trace_of(ValueError("no such shop")) is None
        True
    """
    trace: TracebackType | None = _TRACE.__get__(error)
    return trace


def without_frame(error: BaseException) -> None:
    """Remove the first frame, that of the caller, from the traceback of *error*, so that its variables are released."""
    trace = trace_of(error)
    BaseException.with_traceback(error, None if trace is None else trace.tb_next)


_TRACE: Any = BaseException.__traceback__  # the descriptor, which bypasses the class of the error
