"""Native threads for tests: code that runs outside the test's own thread and reports back to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from gevent.monkey import get_original

from greendata.hub.gevent_internals import get_hub_if_exists
from greendata.hub.pool import Pool
from greendata.hub.result import Result
from greendata.hub.settings import Settings
from tests.gates import Gate, rest

__all__ = ("Native", "in_a_plain_thread", "settle_down", "small_pool", "submit_expiring", "until")

T = TypeVar("T")

get_ident: Callable[[], int] = get_original("_thread", "get_ident")
_start_thread: Callable[..., int] = get_original("_thread", "start_new_thread")


class Native(Generic[T]):
    """``func(*args)`` in a native thread of its own, begun at once. A hub that it makes is destroyed at its end."""

    def __init__(self, func: Callable[..., T], *args: Any) -> None:
        self._outcome: list[tuple[T | None, BaseException | None]] = []
        self.ident = _start_thread(self._run, (func, args))

    def _run(self, func: Callable[..., T], args: tuple[Any, ...]) -> None:
        try:
            outcome = (func(*args), None)
        except BaseException as error:  # noqa: BLE001 - it is raised again where the thread is joined
            outcome = (None, error)  # type: ignore[assignment]
        hub = get_hub_if_exists()
        if hub is not None:
            hub.destroy(destroy_loop=True)
        self._outcome.append(outcome)

    def join(self) -> T:
        """Wait for its end, letting the hub turn, and return what it returned or raise what it raised."""
        until(lambda: self._outcome)
        value, error = self._outcome[0]
        if error is not None:
            raise error
        return value  # type: ignore[return-value]


def in_a_plain_thread(func: Callable[[], T]) -> T:
    """What *func* returns in a native thread that has no hub."""
    return Native(func).join()


def until(condition: Callable[[], object]) -> None:
    """Let threads and greenlets run until *condition* holds; the test's guard ends it if it never does."""
    while not condition():
        rest()


def small_pool(**settings: Any) -> Pool:
    """A pool of its own, with the defaults changed by *settings*."""
    return Pool(Settings().changed(**settings))


def settle_down(pool: Pool) -> None:
    """Wait until the pool has nothing queued, running, abandoned or lost."""
    until(lambda: (now := pool.stats()).queued == now.running == now.abandoned == now.lost == 0)


def submit_expiring(pool: Pool, held: Gate, label: str) -> Result[object]:
    """Submit *held* to an idle pool, with a deadline that passes while it runs and not before."""
    for timeout in (0.05, 0.5, 5.0, 50.0):
        result = pool.submit(held, timeout=timeout, label=label)
        until(lambda result=result: held.arrived or result.ready())  # type: ignore[misc]
        if held.arrived:
            return result
    raise AssertionError("no worker took the job")
