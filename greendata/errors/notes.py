"""Operations on errors of users, which never raise: such errors may refuse attributes, and their texts may fail.

The usual case is a frozen dataclass: ``add_note`` and an assignment to ``__traceback__`` raise `FrozenInstanceError`,
which would replace the error itself.
"""

from __future__ import annotations

from contextlib import suppress
from reprlib import Repr
from types import TracebackType
from typing import Any

__all__ = ("note", "shortened", "shown", "text_of", "trace_of", "without_frame")

NOTES = 8  # notes of greendata that an error keeps: one object may be the error of many jobs
SHORT = 100  # characters of a value in a text


class _Note(str):
    """A note that greendata has added. It is pickled and copied as a plain string."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (str(self),)


def note(error: BaseException, text: str) -> None:
    """Add the note *text* to *error*, once, even if its class refuses attributes.

    If the error has `NOTES` notes of greendata, the oldest of them is removed. Notes of others are kept. Safe from any
    thread: each step is one call of a list or dict.

    Example:
        >>> error = ValueError("no such shop")
        >>> note(error, "raised by the source")
        >>> error.__notes__
        ['raised by the source']
    """
    with suppress(Exception):  # a note is less important than its error
        notes = _notes_of(error)
        if text in notes:
            return
        ours = [given for given in notes if type(given) is _Note]
        for oldest in ours[: max(0, len(ours) - NOTES + 1)]:
            notes.remove(oldest)
        notes.append(_Note(text))


def _notes_of(error: BaseException) -> list[Any]:
    """Return the list of notes of *error*; make one if there is none, or it is not a list."""
    attributes: dict[str, Any] = _ATTRIBUTES.__get__(error)
    notes = attributes.get("__notes__")
    if type(notes) is not list:
        inherited = list(getattr(error, "__notes__", ()))
        if notes is not None:
            del attributes["__notes__"]
        notes = attributes.setdefault("__notes__", inherited)  # another thread may have added one meanwhile
    return notes


class _Short(Repr):
    """A ``repr`` that is short, and costs little for large values."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = SHORT
        self.maxlevel = 3

    def repr_bytes(self, value: bytes, level: int) -> str:
        return repr(value[:SHORT]) + ("..." if len(value) > SHORT else "")

    repr_bytearray = repr_bytes

    def repr_DataFrame(self, frame: Any, level: int) -> str:  # noqa: N802 - named after the type
        return f"<DataFrame: {frame.shape[0]} x {frame.shape[1]}>"


_short = _Short()


def shortened(thing: object) -> str:
    """Return the ``repr`` of *thing* on one line and shortened, or a text with its type if ``repr`` raises.

    Example:
        >>> shortened("no such shop"), shortened(list(range(1000)))
        ("'no such shop'", '[0, 1, 2, 3, 4, 5, ...]')
    """
    try:
        text = " ".join(_short.repr(thing).splitlines())
    except Exception as broken:  # noqa: BLE001 - it would replace the error that is being reported
        return _unshowable(thing, broken)
    return text if len(text) <= SHORT + 2 else f"{text[:SHORT]}..."


def shown(thing: object) -> str:
    """Return the ``repr`` of *thing*, or a text with its type if ``repr`` raises.

    Example:
        >>> shown(ValueError("no such shop"))
        "ValueError('no such shop')"
    """
    try:
        return repr(thing)
    except Exception as broken:  # noqa: BLE001 - it would replace the error that is being reported
        return _unshowable(thing, broken)


def _unshowable(thing: object, broken: Exception) -> str:
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


_TRACE: Any = BaseException.__traceback__  # the descriptors, which bypass the class of the error
_ATTRIBUTES: Any = vars(BaseException)["__dict__"]
