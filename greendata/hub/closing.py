"""`Closing`: the base class of objects that are closed at the end of a ``with`` block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

__all__ = ("Closing",)


class Closing(ABC):
    """A context manager that calls its own `close` at the end of the block.

    Example:
        >>> class WaitQueue(Closing):
        ...     def close(self):
        ...         print("closed")
        >>> with WaitQueue():
        ...     print("open")
        open
        closed
    """

    __slots__ = ()

    @abstractmethod
    def close(self) -> None:
        """Close the object. Idempotent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
