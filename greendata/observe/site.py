"""Where in the user's code something happened: the innermost frame that is not a library's."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import gevent
import polars as pl

__all__ = ("Site", "calling_frame", "culprit")

# What stands between a user's line and a native call that yields, or should have.
MACHINERY = tuple(f"{folder}/" for folder in (Path(__file__).parents[1], *gevent.__path__, *pl.__path__))
LIBRARIES = tuple(f"{sysconfig.get_path(name)}/" for name in ("stdlib", "purelib", "platlib"))


@dataclass(frozen=True, slots=True)
class Site:
    """A line of code.

    Attributes:
        file: its path, as the interpreter has it.
        line: its number.
        function: the function it is part of.

    Example:
        >>> str(Site("/srv/shop/views.py", 42, "report"))
        '/srv/shop/views.py:42 in report'
    """

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


def culprit(stack: Sequence[Site]) -> Site | None:
    """The innermost site of the user's own code; of any code but Polars', gevent's and ours if there is none.

    Args:
        stack: the innermost site last.

    Example:
        >>> culprit([Site("views.py", 42, "report"), Site(sysconfig.__file__, 7, "get_path")]).line
        42
    """
    for passed_by in ((*MACHINERY, *LIBRARIES), MACHINERY):
        for site in reversed(stack):
            if not site.file.startswith(passed_by):
                return site
    return None


def calling_frame() -> FrameType | None:
    """The innermost frame of the calling thread that is neither Polars' nor gevent's nor ours."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(MACHINERY):
        frame = frame.f_back
    return frame
