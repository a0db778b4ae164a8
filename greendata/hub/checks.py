"""Check numbers in arguments."""

from __future__ import annotations

import math
from typing import TypeGuard

from greendata.errors import BadArgument

__all__ = ("checked_count", "is_count", "is_number")


def is_count(value: object, least: int = 1) -> TypeGuard[int]:
    """Return True for a whole number that is not less than *least*. Booleans are not accepted.

    Example:
        >>> is_count(1), is_count(0), is_count(0, least=0), is_count(1.0), is_count(True)
        (True, False, True, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: object, least: float = 0.0, most: float = math.inf) -> TypeGuard[float]:
    """Return True for a number from *least* to *most*. NaN and booleans are not accepted.

    Example:
        >>> is_number(0.5), is_number(2, most=1), is_number(float("nan")), is_number("1")
        (True, False, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def checked_count(name: str, value: object, least: int = 1) -> int:
    """Return *value*, the argument *name*, if `is_count` accepts it.

    Raises:
        BadArgument: *value* is not a whole number, or is less than *least*.

    Example:
        >>> checked_count("workers", 4)
        4
    """
    if not is_count(value, least):
        raise BadArgument(name, value, f"a whole number >= {least}")
    return value
