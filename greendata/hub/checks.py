"""Check arguments: numbers, and the names of keywords."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeGuard, TypeVar

from greendata.errors import BadArgument, UnknownArgument

__all__ = ("checked_count", "is_count", "is_number", "naming_arguments")

P = ParamSpec("P")
T = TypeVar("T")


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


def naming_arguments(func: Callable[P, T]) -> Callable[P, T]:
    """Decorate *func* so that the error about an unknown keyword lists the known ones and suggests the nearest.

    Raises:
        UnknownArgument: in a call, for a keyword that *func* does not have.

    Example:
        >>> @naming_arguments
        ... def crawl(*, workers=1, timeout=None): ...
        >>> crawl(worker=2)
        Traceback (most recent call last):
        greendata.errors.arguments.UnknownArgument: crawl() got an unexpected keyword argument 'worker'; did you mean
        'workers'? It takes workers and timeout
    """
    parameters = inspect.signature(func).parameters.values()
    positional = {found.name for found in parameters if found.kind is found.POSITIONAL_OR_KEYWORD}
    keywords = [found.name for found in parameters if found.kind is found.KEYWORD_ONLY]
    known = positional.union(keywords)
    shown = func.__qualname__.removesuffix(".__init__").rpartition(".")[2]  # for a constructor the name of the class

    @wraps(func)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if not kwargs.keys() <= known:
            unknown = next(name for name in kwargs if name not in known)
            raise UnknownArgument(shown, unknown, keywords)
        return func(*args, **kwargs)

    return call
