"""Deliberate failures for tests of groups and callers, and a way to catch them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import gevent
import pytest

from greendata.hub import native

__all__ = ("Careful", "Raised", "fail", "forever", "raised", "until_running")


class Raised:
    """The error that left a block, after it has."""

    value: Any


class Careful:
    """A call that waits until it is killed, and whose cleanup then waits.

    Attributes:
        cleaned_in: the native threads in which it has cleaned up.
    """

    def __init__(self) -> None:
        self.cleaned_in: list[int] = []

    def __call__(self) -> None:
        try:
            forever()
        finally:
            gevent.sleep(0.001)
            self.cleaned_in.append(native.get_ident())


@contextmanager
def raised(kind: type[BaseException] = ExceptionGroup) -> Iterator[Raised]:
    """Catch the *kind* of error that must leave the block: `pytest.raises` for blocks of many lines."""
    found = Raised()
    try:
        yield found
    except kind as error:
        found.value = error
    else:
        pytest.fail(f"the block was left without {kind.__name__}")


def fail(error: BaseException) -> NoReturn:
    """Raise *error*."""
    raise error


def forever() -> None:
    """Wait until the greenlet is killed."""
    gevent.sleep(3600)


def until_running(result: Any) -> None:
    """Let the hub run until *result* is running."""
    while result.status == "queued":
        gevent.sleep(0.001)
