"""Work that has to come to its end: what is half done is put right also while the greenlet is being killed."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import gevent
from gevent import GreenletExit

__all__ = ("shielded",)


def shielded(func: Callable[[], Any]) -> None:
    """Call *func* in a greenlet of its own and wait for it, also while the caller is being killed.

    Raises:
        BaseException: what *func* raised, or what interrupted the wait.
    """
    raised: list[BaseException] = []

    def call() -> None:
        try:
            func()
        except BaseException as error:  # noqa: BLE001 - it is raised in the caller
            raised.append(error)

    helper = gevent.Greenlet(call)
    helper.gr_context = copy_context()
    helper.start()
    interruption: BaseException | None = None
    while not helper.dead:
        try:
            helper.join()
        except BaseException as error:  # noqa: BLE001 - it is raised below
            interruption = error
    if raised and (interruption is None or isinstance(interruption, GreenletExit)):
        raise raised.pop()  # a kill tells nobody anything
    if interruption is not None:
        if raised:
            interruption.add_note(f"meanwhile there was also: {raised.pop()!r}")
        raise interruption
