"""Check arguments: numbers, and the names of keywords."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial, wraps
from types import CodeType
from typing import Any, ParamSpec, TypeGuard, TypeVar

from greendata.errors import AsyncFunction, BadArgument, NotCallable, UnknownArgument

__all__ = ("check_function", "checked_count", "code_of", "is_count", "is_number", "naming_arguments")

P = ParamSpec("P")
T = TypeVar("T")

_ASYNC = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


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


def check_function(func: object) -> None:
    """Check that *func* can be called, and that calling it does its work.

    Raises:
        NotCallable: it is not callable.
        AsyncFunction: it is an async function, a partial of one, or an object with an async ``__call__``.

    Example:
        >>> async def fetch(): ...
        >>> check_function(fetch)
        Traceback (most recent call last):
        greendata.errors.arguments.AsyncFunction: <function fetch at 0x...> is an async function, which only an asyncio
        event loop can run; pass a plain function, or one that calls asyncio.run(...) itself
    """
    if not callable(func):
        raise NotCallable(func)
    code = code_of(func)
    if code is not None and code.co_flags & _ASYNC:
        raise AsyncFunction(func)


def code_of(func: Any) -> CodeType | None:
    """Return the code that a call of *func* runs first, or None if it is native.

    Example:
        >>> code_of(partial(checked_count, "workers")).co_name, code_of(len) is None
        ('checked_count', True)
    """
    code = getattr(func, "__code__", None)
    if code is None:
        while isinstance(func, partial):
            func = func.func
        owner, name = (func, "__init__") if isinstance(func, type) else (type(func), "__call__")
        inner = func if hasattr(func, "__code__") else getattr(owner, name, None)
        code = getattr(inner, "__code__", None)
    return code if isinstance(code, CodeType) else None


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
