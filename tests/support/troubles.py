"""What goes wrong on purpose in tests of groups and callers, and how it is caught."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import gevent
import pytest

from greendata.hub import native

__all__ = ("Careful", "Raised", "fail", "forever", "raised", "until_running")


class Raised:
    """What came out of a block, once it has."""

    value: Any


class Careful:
    """A call that waits until it is killed, and then takes its time to clean up.

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
    """Catch the *kind* of error that must come out of the block: `pytest.raises` for one of many lines."""
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
    """Wait until somebody kills the greenlet."""
    gevent.sleep(3600)


def until_running(result: Any) -> None:
    """Let the hub turn until somebody runs *result*."""
    while result.status == "queued":
        gevent.sleep(0.001)
