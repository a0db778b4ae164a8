"""Native threads for tests: code that runs outside the thread of the test and returns its outcome to it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar
from weakref import ref

from gevent.monkey import get_original

from greendata.hub import native
from greendata.hub.result import Result
from greendata.internals.gevent import get_hub_if_exists
from greendata.pool.pool import Pool
from greendata.pool.settings import Settings
from tests.support.gates import Gate, rest

__all__ = (
    "TIMEOUTS",
    "Native",
    "once_counted",
    "dismiss",
    "dismiss_pools",
    "expiring",
    "in_a_plain_thread",
    "left_natives",
    "settle_down",
    "small_pool",
    "until",
)

# Seconds, tried in turn for a timeout that must expire while work runs: on a busy machine the first ones may expire
# before it has started.
TIMEOUTS = (0.05, 0.5, 5.0, 50.0)

T = TypeVar("T")

get_ident: Callable[[], int] = get_original("_thread", "get_ident")
_start_thread: Callable[..., int] = get_original("_thread", "start_new_thread")


class Native(Generic[T]):
    """Run ``func(*args)`` in a new native thread, at once. A hub that it makes is destroyed at the end."""

    def __init__(self, func: Callable[..., T], *args: Any) -> None:
        self._outcome: list[tuple[T | None, BaseException | None]] = []
        run = partial(_run, self._outcome, func, args)
        self._running = ref(run)  # dead once the thread, which alone has it, refers to nothing any more
        _started.append(self._running)
        self.ident = _start_thread(run, ())

    def join(self) -> T:
        """Wait for the end while the hub runs, and return the value of the function or raise its error."""
        until(lambda: self._running() is None)
        value, error = self._outcome[0]
        if error is not None:
            raise error
        return value  # type: ignore[return-value]


def _run(outcomes: list[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        outcomes.append((func(*args), None))
    except BaseException as error:  # noqa: BLE001 - it is raised again where the thread is joined
        outcomes.append((None, error))
    hub = get_hub_if_exists()
    if hub is not None:
        hub.destroy(destroy_loop=True)


def in_a_plain_thread(func: Callable[[], T]) -> T:
    """Return the value of *func* in a native thread without a hub."""
    return Native(func).join()


def until(condition: Callable[[], object]) -> None:
    """Let threads and greenlets run until *condition* holds; the guard of the test ends the wait."""
    while not condition():
        rest()


def once_counted(result: Result[T]) -> Result[T]:
    """Return *result* once its hub has processed the outcome: ``get`` may return before the outcome is counted."""
    until(lambda: result.is_delivered)
    return result


def small_pool(**settings: Any) -> Pool:
    """Make a separate pool, with *settings* in place of defaults; its threads end with the test."""
    _pools.append(Pool(Settings().changed(**settings)))
    return _pools[-1]


def left_natives() -> int:
    """Return how many threads of `Native` have not ended. Their hubs have descriptors."""
    for running in list(_started):
        if running() is None:
            _started.remove(running)
    return len(_started)


def dismiss_pools() -> None:
    """End the threads of all pools made here: queued jobs are cancelled, running ones finish."""
    while _pools:
        pool = _pools.pop()
        pool.drain(0)
        until(lambda pool=pool: (pool._workers.repair(), not len(pool._workers.queue))[1])  # type: ignore[misc]
        dismiss(pool)


def dismiss(pool: Pool) -> None:
    """End all threads of *pool*, which has no queued jobs, as before its first job."""
    workers = pool._workers
    while workers.lock._is_owned():  # type: ignore[attr-defined]
        workers.lock.release()  # a test interrupts where no signal handler can: between __enter__ and the block
    while workers.workers or workers.lost:  # also one that has just started
        for worker in list(workers.workers):
            worker.lost = True
            workers._tokens.put("wake")
        rest()
    with suppress(native.Empty):
        while True:  # a worker whose thread begins only now may take a token, too
            workers._tokens.get(block=False)


def settle_down(pool: Pool) -> None:
    """Wait until the pool has nothing queued, running, abandoned or lost."""
    until(lambda: (now := pool.stats()).queued == now.running == now.abandoned == now.lost == 0)


def expiring(start: Callable[[float], Result[T]], held: Gate) -> Result[T]:
    """Return the result of *start* for a timeout that expires while the work waits at *held*, and not before."""
    for timeout in TIMEOUTS:
        before = len(held.arrived)
        result = start(timeout)
        end = result.end()
        until(lambda before=before, end=end: len(held.arrived) > before or end.ready())  # type: ignore[misc]
        if len(held.arrived) > before:
            return result
    raise AssertionError("no worker took the job")


_pools: list[Pool] = []  # the test's thread
_started: list[ref[Any]] = []  # what each `Native` runs; the thread that starts one appends, the test's removes
