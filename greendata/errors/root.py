"""The root of the tree."""

from __future__ import annotations

__all__ = ("GreenDataError",)


class GreenDataError(Exception):
    """The root of every error raised by greendata.

    Example:
        >>> from greendata.errors import PoolFull
        >>> issubclass(PoolFull, GreenDataError)
        True
    """
