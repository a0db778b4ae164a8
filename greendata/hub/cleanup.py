"""Work that has to come to its end, whatever becomes of the greenlet or of the pool: half-done things are put right."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any

import gevent
from gevent import GreenletExit

from greendata.errors import NoThread, PoolClosed
from greendata.hub import crew, native, pool
from greendata.hub.job import go_on
from greendata.hub.result import Result

__all__ = ("let_go", "shielded")


def let_go(func: Callable[[], object], *, label: str) -> Result[None]:
    """Have *func* called once in a native thread, and return at once; the result is done when it has returned.

    In the pool, also when its queue is full, and in no request or deadline that may be over; in a thread of its own
    where the pool takes no more work or the job was taken out of it. A process without any thread to give has it done
    in the calling one. Safe from any thread.

    Args:
        func: must not raise.

    Raises:
        PolarsForked: nothing is to be put right in a forked child: it is the parent's.

    Example:
        >>> let_go(int, label="close").get(timeout=5) is None
        True
    """
    over: Result[None] = Result(label)
    over.bind(None, None)
    turn = native.allocate_lock()

    def work() -> None:
        if turn.acquire(False):
            try:
                func()
            finally:
                over.over()

    def see_to_it() -> None:
        if not (ending.successful() or crew.aside(work)):
            work()

    try:
        ending = Context().run(go_on, pool.submit, work, label=label)
    except (NoThread, PoolClosed):
        if not crew.aside(work):
            work()
    else:
        if not ending.add_waker(see_to_it):
            see_to_it()
    return over


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
