"""What is closed at the end of its block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

__all__ = ("Closing",)


class Closing(ABC):
    """A context manager that calls its `close` at the end of the block.

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
        """End what was begun. Nothing happens the second time."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
