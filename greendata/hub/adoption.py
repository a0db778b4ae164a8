"""`Adoption`: a group is told of every result that is submitted in its block, and so is whoever was told before it."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Token
from typing import Any

from greendata.hub.job import adopter
from greendata.hub.result import Result

__all__ = ("Adoption",)

Take = Callable[[Result[Any]], object]


class Adoption:
    """Tells *take* of each result that is submitted between `begin` and `end`, and the request around it as well.

    A group around it is not told: it ends with the block that this one is in, and a failure that is dealt with here is
    none of its own.

    Args:
        take: called in the thread that submits.

    Example:
        >>> from greendata.hub import pool
        >>> taken = []
        >>> adoption = Adoption(taken.append)
        >>> adoption.begin()
        >>> result = pool.submit(sum, [1, 2])
        >>> adoption.end()
        >>> taken == [result]
        True
    """

    def __init__(self, take: Take) -> None:
        self._take = take
        self._request: Take | None = None  # set by `begin`, then read by any thread
        self._token: Token[Any] | None = None  # the thread that begins and ends

    def begin(self) -> None:
        """Begin. Call in the greenlet of the block."""
        around = adopter.get()
        self._request = around._request if isinstance(around, Adoption) else around
        self._token = adopter.set(self)

    def end(self) -> None:
        """End; nothing happens if it was not begun. Call in the greenlet of the block."""
        token, self._token = self._token, None
        if token is not None:
            adopter.reset(token)

    def __call__(self, result: Result[Any]) -> None:
        """Tell of *result*. Safe from any thread."""
        self._take(result)
        if self._request is not None:
            self._request(result)
