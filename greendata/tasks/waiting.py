"""Wait for many results: for all, for the first, or for each in order of completion; and `shield` one from cancelling.

All functions accept Results of any thread, and AsyncResults and Greenlets of the calling thread. In a thread with a hub
the calling greenlet yields. A plain thread waits natively for Results, and no hub is made.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from time import monotonic
from types import GeneratorType
from typing import Any, Literal, TypeVar, overload

from gevent import Greenlet, Timeout
from gevent.event import AsyncResult

from greendata.errors import BadChoice, BadSetting, NotAResult, ResultTimeout
from greendata.hub.checks import is_count
from greendata.hub.deadline import seconds_of
from greendata.hub.entry_queue import EntryQueue
from greendata.hub.outcome import Status
from greendata.hub.result import Result
from greendata.internals.gevent import get_hub_if_exists
from greendata.tasks.completion_queue import CompletionQueue, link, unlink, waitable

__all__ = ("as_completed", "gather", "shield", "wait")

T = TypeVar("T")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
R = TypeVar("R", bound="AsyncResult[Any] | Greenlet[..., Any]")

_Mode = Literal["ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"]
_MODES = ("ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION")


# Up to five results keep the types of their values, whatever these are.
@overload
def gather(r1: Result[T], r2: Result[T2], /) -> Result[list[T | T2]]: ...
@overload
def gather(r1: Result[T], r2: Result[T2], r3: Result[T3], /) -> Result[list[T | T2 | T3]]: ...
@overload
def gather(r1: Result[T], r2: Result[T2], r3: Result[T3], r4: Result[T4], /) -> Result[list[T | T2 | T3 | T4]]: ...
@overload
def gather(
    r1: Result[T], r2: Result[T2], r3: Result[T3], r4: Result[T4], r5: Result[T5], /
) -> Result[list[T | T2 | T3 | T4 | T5]]: ...
@overload
def gather(*results: Result[T], return_exceptions: Literal[False] = False) -> Result[list[T]]: ...
@overload
def gather(*results: Result[T], return_exceptions: bool) -> Result[list[T | BaseException]]: ...
@overload
def gather(results: Iterable[Result[T]], /, *, return_exceptions: Literal[False] = False) -> Result[list[T]]: ...
@overload
def gather(results: Iterable[Result[T]], /, *, return_exceptions: bool) -> Result[list[T | BaseException]]: ...
@overload
def gather(*results: AsyncResult[Any] | Greenlet[..., Any], return_exceptions: bool = False) -> Result[list[Any]]: ...
def gather(*results: Any, return_exceptions: bool = False) -> Result[list[Any]]:
    """Return one result for all: the list of their values, in the order given.

    It fails with the first failure, and the others continue. Cancelling it cancels the results that are not ready.

    Args:
        results: Results, AsyncResults or Greenlets; or one list, tuple, set or generator of them.
        return_exceptions: put errors into the list in place of values.

    Raises:
        NotAResult: one of them is not a Result, AsyncResult or Greenlet.
        WaitsForItself: one of them is the calling job.
        ForeignGreenlet: one of them is a greenlet of another thread.

    Example:
        >>> import greendata
        >>> gather(greendata.run(sum, [1, 2]), greendata.run(max, 3, 4)).get(timeout=5)
        [3, 4]
    """
    if len(results) == 1 and isinstance(results[0], list | tuple | set | GeneratorType):
        results = tuple(results[0])
    hub = get_hub_if_exists()
    items = tuple(waitable(result, hub) for result in results)
    return _Gathering(items, hub, keeps_errors=return_exceptions).outcome


def wait(
    items: Iterable[R],
    timeout: float | None = None,
    return_when: _Mode = "ALL_COMPLETED",
) -> tuple[set[R], set[R]]:
    """Wait for *items* and return the set of those that are ready and the set of the others. Nothing is cancelled.

    Args:
        items: Results, AsyncResults or Greenlets.
        timeout: seconds after which it returns in any case.
        return_when: FIRST_EXCEPTION means the first failure or cancellation, or the end if there is none.

    Raises:
        BadTimeout, BadChoice: an argument that cannot be used.
        NotAResult: one of the items is not a Result, AsyncResult or Greenlet.
        WaitsForItself: one of them is the calling job.
        ForeignGreenlet: one of them is a greenlet of another thread.

    Example:
        >>> import greendata
        >>> done, pending = wait([greendata.run(sum, [1, 2])], timeout=5)
        >>> len(done), len(pending)
        (1, 0)
    """
    if return_when not in _MODES:
        raise BadChoice("return_when", return_when, _MODES)
    seconds = seconds_of(timeout)
    hub = get_hub_if_exists()
    pending = {waitable(item, hub) for item in items}
    done = {item for item in pending if item.ready()}
    pending -= done
    ends = None if seconds is None else monotonic() + seconds
    completions: CompletionQueue[R] = CompletionQueue()
    try:
        for item in pending:
            completions.add(item)
        while pending and not _is_enough(return_when, done):
            completed = completions.take(None if ends is None else ends - monotonic())
            if completed is None:
                break
            pending.discard(completed)
            done.add(completed)
    finally:
        completions.close()
    late = {item for item in pending if item.ready()}
    return done | late, pending - late


def as_completed(
    items: Iterable[R], *, max_concurrent: int | None = None, cancel_unfinished: bool = False
) -> Iterator[R]:
    """Yield each of *items* when it is ready, in order of completion. Failed ones are yielded too.

    *items* is consumed on demand: a generator that submits a job at each step is at most *max_concurrent* jobs ahead.
    If the generator raises, the items that it yielded before come first, and then its error is raised.

    Args:
        items: Results, AsyncResults or Greenlets, or a generator of them.
        max_concurrent: the maximum number of unfinished items at a time; None for no limit.
        cancel_unfinished: when the iterator is closed (``close()``, an error in the loop's body, garbage collection),
            cancel the items that are not ready. Otherwise they continue.

    Raises:
        BadSetting: *max_concurrent* is not a whole number >= 1.
        TypeError: *items* is not iterable.
        NotAResult, WaitsForItself, ForeignGreenlet: when the iterator reaches such an item.

    Example:
        >>> import greendata
        >>> jobs = (greendata.run(pow, 2, n) for n in range(100))
        >>> sorted(job.get() for job in as_completed(jobs, max_concurrent=4))[-1] == 2**99
        True
    """
    if max_concurrent is not None and not is_count(max_concurrent):
        raise BadSetting("max_concurrent", max_concurrent, "None or a whole number >= 1")
    return _each(iter(items), max_concurrent, cancel_unfinished=cancel_unfinished)


def shield(result: Result[T]) -> Result[T]:
    """Return a new result with the outcome of *result*. Cancelling it does not cancel *result*.

    The same holds for cancelling a group that has the new result as a member.

    Raises:
        NotAResult: *result* is not a Result.

    Example:
        >>> import greendata
        >>> job = greendata.run(sum, [1, 2])
        >>> shield(job).cancel()
        True
        >>> job.get(timeout=5)
        3
    """
    if not isinstance(result, Result):
        raise NotAResult(result)
    follower: Result[T] = Result(result.label)
    follower.bind(None, None)
    follow = partial(_follow, result, follower)
    if not result.add_callback(follow):
        follow()
    return follower


def _follow(result: Result[Any], follower: Result[Any]) -> None:
    """Settle *follower* with the outcome of *result*. Safe from any thread, workers included."""
    follower.settle(result.status, result.value, result.exception)
    follower.wake()


def _is_enough(return_when: str, done: Collection[Any]) -> bool:
    if return_when == "FIRST_COMPLETED":
        return bool(done)
    return return_when == "FIRST_EXCEPTION" and any(item.exception is not None for item in done)


def _each(source: Iterator[R], max_concurrent: int | None, *, cancel_unfinished: bool) -> Iterator[R]:
    hub = get_hub_if_exists()
    completions: CompletionQueue[R] = CompletionQueue()
    entry_queue = None if hub is None else EntryQueue.here()  # the finalizer may close it in another thread
    error: Exception | None = None
    is_spent = False
    try:
        while len(completions) or not is_spent:
            may_add = not is_spent and (max_concurrent is None or len(completions) < max_concurrent)
            if may_add and (first := completions.take(0)) is None:
                try:
                    completions.add(waitable(next(source), hub))
                except StopIteration:
                    is_spent = True
                except Exception as raised:  # noqa: BLE001 - raised after the pending items
                    is_spent, error = True, raised
            elif (completed := first if may_add else completions.take(None)) is not None:
                yield completed
        if error is not None:
            raise error
    finally:
        left = completions.close()
        if cancel_unfinished:
            _cancel_all(left, entry_queue)


def _cancel_all(items: Collection[Any], entry_queue: EntryQueue | None) -> None:
    """Cancel the results of *items*, and kill the greenlets in their own thread. Safe from any thread."""
    for item in items:
        if isinstance(item, Result):
            item.cancel()
    greenlets = [item for item in items if isinstance(item, Greenlet)]
    if greenlets and entry_queue is not None:
        entry_queue.post(partial(_kill, greenlets))


def _kill(greenlets: list[Any]) -> None:
    for greenlet in greenlets:
        greenlet.kill(block=False)


class _GatheredNatively(Result[list[Any]]):
    """The result of `gather` in a thread without a hub: it waits for the items, so that their deadlines are kept."""

    __slots__ = ("_items", "_until")

    def __init__(self, items: tuple[Any, ...], *, until: _Mode) -> None:
        super().__init__("gather")
        self._items = items
        self._until = until

    def _await(self, timeout: float | Timeout | None) -> Timeout | None:
        if get_hub_if_exists() is not None:
            return super()._await(timeout)
        seconds = timeout.seconds if isinstance(timeout, Timeout) else timeout
        ends = None if seconds is None else monotonic() + seconds
        wait(self._items, seconds, self._until)
        # An item is ready a moment before its settling thread calls `_note`, which settles this result.
        super()._await(None if ends is None else max(0.0, ends - monotonic()))
        return timeout if isinstance(timeout, Timeout) else ResultTimeout(self, seconds)


class _Gathering:
    """The work behind the result of `gather`."""

    def __init__(self, items: tuple[Any, ...], hub: Any, *, keeps_errors: bool) -> None:
        until: _Mode = "ALL_COMPLETED" if keeps_errors else "FIRST_EXCEPTION"
        self.outcome = Result[list[Any]]("gather") if hub is not None else _GatheredNatively(items, until=until)
        self.seconds = 0.0
        self.in_block = False
        self.deadline: float | None = None  # the items have deadlines
        self.members = items  # set once
        self._hub = hub
        self._entry_queue = None if hub is None else EntryQueue.here()
        self._keeps_errors = keeps_errors
        self._missing = dict.fromkeys(items)  # the thread that settles an item pops it; any thread
        self.outcome.bind(self, None if self._entry_queue is None else self._entry_queue.waker)
        self._links: dict[Any, Callable[[Any], object]] = {}
        for item in dict.fromkeys(items):
            self._links[item] = link(item, hub, self._note)
        if not items:
            self._conclude()

    def note(self, error: Exception) -> None:
        """Add nothing to *error*: it is a cancellation of this result. The items' own errors have notes."""

    def withdraw(self) -> None:
        """Cancel what is not ready. Safe from any thread."""
        _cancel_all([item for item in self.members if not item.ready()], self._entry_queue)

    def announce(self) -> None:
        """Notify the waiters of the gathered result."""
        if self._entry_queue is None:
            self._notify()
        else:
            self._entry_queue.post(self._notify)

    def _note(self, item: Any) -> None:
        self._missing.pop(item, None)
        if item.exception is not None and not self._keeps_errors:
            self.outcome.settle(Status.FAILED, error=item.exception)
            self._notify()
        elif not self._missing:
            self._conclude()

    def _conclude(self) -> None:
        values = [item.value if item.exception is None else item.exception for item in self.members]
        self.outcome.settle(Status.DONE, values)
        self._notify()

    def _notify(self) -> None:
        outcome = self.outcome
        outcome.wake()
        if outcome.is_delivered or not outcome.ready():
            return
        if self._entry_queue is not None:
            for item, linked in self._links.items():
                unlink(item, self._hub, linked)
            self._links.clear()  # they refer to this object: avoid a cycle
            outcome.notify_waiters(self._entry_queue.waker)
        outcome.detach()
