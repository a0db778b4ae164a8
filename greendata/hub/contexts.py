"""`contextmanager`: like `contextlib.contextmanager`, for blocks whose code may raise any exception.

The standard library's function sets ``error.__traceback__``. With an exception that does not allow attributes to be
set, such as a frozen dataclass, that raises `FrozenInstanceError` and the exception is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ContextDecorator
from functools import partial, wraps
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar

__all__ = ("GeneratorContext", "contextmanager")

P = ParamSpec("P")
T = TypeVar("T")


class GeneratorContext(ContextDecorator, Generic[T]):
    """A context manager over a generator; see `contextmanager`. As a decorator it wraps each call in a new block."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._generator: Generator[T, None, None] = make()

    def _recreate_cm(self) -> GeneratorContext[T]:
        return GeneratorContext(self._make)

    def __enter__(self) -> T:
        return next(self._generator)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if error is None:
            for _ in self._generator:
                raise RuntimeError(f"{self._generator!r} did not stop after its block")
            return False
        try:
            self._generator.throw(error)
        except StopIteration as end:
            return end is not error
        except BaseException as raised:
            # A StopIteration that leaves a generator becomes the cause of a RuntimeError.
            if raised is not error and not (isinstance(error, StopIteration) and raised.__cause__ is error):
                raise
            BaseException.with_traceback(error, trace)  # without the generator's frames
            return False
        raise RuntimeError(f"{self._generator!r} did not stop after its block raised")


def contextmanager(func: Callable[P, Iterator[T]]) -> Callable[P, GeneratorContext[T]]:
    """Turn *func*, a generator function that yields once, into a context manager.

    Example:
        >>> @contextmanager
        ... def announced(text):
        ...     print(text, "begins")
        ...     yield
        ...     print(text, "ends")
        >>> with announced("a block"):
        ...     print("inside")
        a block begins
        inside
        a block ends
    """

    @wraps(func)
    def make(*args: P.args, **kwargs: P.kwargs) -> GeneratorContext[T]:
        return GeneratorContext(partial(func, *args, **kwargs))

    return make
