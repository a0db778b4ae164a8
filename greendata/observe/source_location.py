"""Find the line of the user's code at which something happened: the innermost frame outside of libraries."""

from __future__ import annotations

import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass

from greendata.hub.origin import is_machinery

__all__ = ("SourceLocation", "user_location")

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
    outside = [location for location in reversed(stack) if not is_machinery(location.file)]
    users = (location for location in outside if not location.file.startswith(LIBRARIES))
    return next(users, outside[0] if outside else None)
