"""Find the line of the user's code at which something happened: the innermost frame outside of libraries."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import gevent
import polars as pl

__all__ = ("SourceLocation", "calling_frame", "user_location")

# Folders of the code between a line of the user and a native call: greendata, gevent and Polars.
MACHINERY = tuple(f"{folder}/" for folder in (Path(__file__).parents[1], *gevent.__path__, *pl.__path__))
LIBRARIES = tuple(f"{sysconfig.get_path(name)}/" for name in ("stdlib", "purelib", "platlib"))


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """A line of code.

    Attributes:
        file: its path, as in the code object.
        line: the line number.
        function: the name of the function.

    Example:
        >>> str(SourceLocation("/srv/shop/views.py", 42, "report"))
        '/srv/shop/views.py:42 in report'
    """

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


def user_location(stack: Sequence[SourceLocation]) -> SourceLocation | None:
    """Return the innermost location in the user's code.

    If there is none, return the innermost location outside of Polars, gevent and greendata, or None.

    Args:
        stack: the locations, the innermost last.

    Example:
        >>> stack = [SourceLocation("views.py", 42, "report"), SourceLocation(sysconfig.__file__, 7, "get_path")]
        >>> user_location(stack).line
        42
    """
    for skipped in ((*MACHINERY, *LIBRARIES), MACHINERY):
        for location in reversed(stack):
            if not location.file.startswith(skipped):
                return location
    return None


def calling_frame() -> FrameType | None:
    """Return the innermost frame of the calling thread outside of Polars, gevent and greendata."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(MACHINERY):
        frame = frame.f_back
    return frame
