"""Where a job was submitted, and the note about the job in its error.

A traceback shows where the error was raised and where the result was waited for, and neither may be the line that
submitted the job. So each submit keeps a code object and an offset in it. Frames are not kept, because they would keep
their variables alive. The line number and the text are made only if the job fails.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from itertools import islice
from types import CodeType, FrameType

from greendata.errors.notes import note, shortened

__all__ = ("Origin", "calling_frame", "is_machinery", "line_of", "note_job", "origin_here")

Origin = tuple[CodeType | None, int]  # code and the offset of an instruction; None if the stack has no code of a user

_MACHINERY = ("greendata", "gevent", "polars")  # packages between a line of the user and a native call
_NOWHERE: Origin = (None, 0)
_KEY_PARTS = 6  # parts of a tuple that a note shows


class _FilesOfMachinery(dict[str, bool]):
    """Whether a file is part of the machinery. A lookup costs less than the comparison with the folders."""

    LIMIT = 10_000  # interactive code has a new file name for each cell

    def __missing__(self, file: str) -> bool:
        if len(self) >= self.LIMIT:
            self.clear()
        found = self[file] = is_machinery(file)
        return found


_files = _FilesOfMachinery()  # any thread; each step is one call of dict, and a repeated entry is harmless


def is_machinery(file: str) -> bool:
    """Return True if *file* belongs to greendata, gevent or Polars.

    Example:
        >>> is_machinery(__file__), is_machinery("/srv/shop/views.py")
        (True, False)
    """
    paths = (getattr(sys.modules.get(name), "__path__", ()) for name in _MACHINERY)
    return any(file.startswith(f"{folder}/") for path in paths for folder in path)


def calling_frame(depth: int = 1) -> FrameType | None:
    """Return the innermost frame of the calling thread outside of Polars, gevent and greendata.

    Args:
        depth: frames to skip first, that of the caller included.
    """
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None and _files[frame.f_code.co_filename]:
        frame = frame.f_back
    return frame


def origin_here(depth: int, files: dict[str, bool] = _files) -> Origin:
    """Return the place in the user's code that led to this call. Each frame of the machinery costs 80 nanoseconds.

    Args:
        depth: frames to skip first, because they are known to be part of greendata; 0 is the caller.
    """
    try:
        frame = sys._getframe(depth + 1)
    except ValueError:  # a greenlet that begins with a function of greendata
        return _NOWHERE
    code = frame.f_code
    while files[code.co_filename]:
        caller = frame.f_back
        if caller is None:
            return _NOWHERE
        frame = caller
        code = frame.f_code
    return code, frame.f_lasti


def note_job(error: BaseException, label: str, key: object, origin: Origin) -> None:
    """Add a note to *error* with the label and key of its job, and the line that submitted it. Never raises.

    Safe from any thread. It runs no code of the user: a key is shown only if it is of a plain type.

    Example:
        >>> error = ValueError("no such shop")
        >>> note_job(error, "report", 7, _NOWHERE)
        >>> error.__notes__
        ["in greendata job 'report', key 7"]
    """
    with suppress(Exception):  # memory, for example: a note is less important than its error
        named = "" if key is None else f", key {_shown_key(key)}"
        note(error, f"in greendata job {shortened(label)}{named}{_place(origin)}")


def line_of(origin: Origin) -> tuple[str, int]:
    """Return the file and the line of *origin*, for a warning.

    Example:
        >>> line_of(_NOWHERE)
        ('<unknown>', 1)
    """
    code, offset = origin
    if code is None:
        return "<unknown>", 1
    lines = (line for start, end, line in code.co_lines() if start <= offset < end)
    return code.co_filename, next(lines, None) or code.co_firstlineno


def _place(origin: Origin) -> str:
    code, _ = origin
    if code is None:
        return ""
    file, line = line_of(origin)
    return f", submitted at {file}:{line} in {code.co_name}"


def _shown_key(key: object) -> str:
    """Return the text of a key. Its own methods are not called: they may wait, or need the thread of the submit."""
    kind = type(key)
    if issubclass(kind, tuple):
        parts: list[object] = list(islice(tuple.__iter__(key), _KEY_PARTS + 1))  # type: ignore[arg-type]
        more = ", ..." if len(parts) > _KEY_PARTS else ""
        return f"({', '.join(map(_shown_key, parts[:_KEY_PARTS]))}{more})"
    if issubclass(kind, str):
        return shortened(str.__str__(key))
    is_plain = kind in (int, float, bool, bytes) or kind.__module__ in ("datetime", "decimal", "uuid")
    return shortened(key) if is_plain else f"<{kind.__qualname__}>"
