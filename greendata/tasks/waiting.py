"""Waiting for many results: all of them, the first of them, each as it comes; and a shield before one.

Everything here takes Results of any thread, and AsyncResults and Greenlets of the calling one. In a thread with a hub
the calling greenlet yields; in a plain thread Results are waited for natively, and no hub is made.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from time import monotonic
from typing import Any, Literal, TypeVar

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
R = TypeVar("R", bound="AsyncResult[Any] | Greenlet[..., Any]")

_Mode = Literal["ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"]
_MODES = ("ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION")


def gather(*results: Any, return_exceptions: bool = False) -> Result[list[Any]]:
    """One result for all: the list of their values, in the order given.

    The first failure is its failure, and the others go on. Cancelling it cancels those that are not ready.

    Args:
        results: Results, AsyncResults or Greenlets.
        return_exceptions: put errors into the list, in place of values.

    Raises:
        NotAResult: one of them is nothing to wait for.
        WaitsForItself: one of them is the job that calls.
        ForeignGreenlet: one of them is a greenlet of another thread.

    Example:
        >>> import greendata
        >>> gather(greendata.run(sum, [1, 2]), greendata.run(max, 3, 4)).get(timeout=5)
        [3, 4]
    """
    hub = get_hub_if_exists()
    items = tuple(waitable(result, hub) for result in results)
    return _Gathering(items, hub, keeps_errors=return_exceptions).outcome


def wait(
    items: Iterable[R],
    timeout: float | None = None,
    return_when: _Mode = "ALL_COMPLETED",
) -> tuple[set[R], set[R]]:
    """Wait for *items* and return those that are ready and those that are not. It cancels nothing.

    Args:
        items: Results, AsyncResults or Greenlets.
        timeout: seconds after which it returns in any case.
        return_when: when it returns; FIRST_EXCEPTION means at the first failure or cancellation, or at the end.

    Raises:
        BadTimeout, BadChoice: an argument that cannot be used.
        NotAResult: one of the items is nothing to wait for.
        WaitsForItself: one of them is the job that calls.
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
    arrivals: CompletionQueue[R] = CompletionQueue()
    try:
        for item in pending:
            arrivals.add(item)
        while pending and not _is_enough(return_when, done):
            arrived = arrivals.take(None if ends is None else ends - monotonic())
            if arrived is None:
                break
            pending.discard(arrived)
            done.add(arrived)
    finally:
        arrivals.close()
    late = {item for item in pending if item.ready()}
    return done | late, pending - late


def as_completed(
    items: Iterable[R], *, max_concurrent: int | None = None, cancel_unfinished: bool = False
) -> Iterator[R]:
    """Each of *items* when it is ready, in the order of their completion; failed ones too.

    *items* is taken from only as far as results are asked for: a generator that submits a job at each step runs no
    further ahead than *max_concurrent* jobs. If it raises, what it gave so far comes first and then its error.

    Args:
        items: Results, AsyncResults or Greenlets, or a generator of them.
        max_concurrent: how many may be unfinished at once; None for as many as *items* gives.
        cancel_unfinished: on closing (``close()``, an error in the loop's body, garbage collection), cancel what was
            taken from *items* and is not ready. Otherwise it goes on.

    Raises:
        BadSetting: *max_concurrent* is no whole number >= 1.
        TypeError: *items* is not iterable.
        NotAResult, WaitsForItself, ForeignGreenlet: at the item in question.

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
    """A result of its own that follows *result*: cancelling it, or a group that holds it, lets the work go on.

    Raises:
        NotAResult: *result* is no Result.

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
    """Give *follower* the outcome of *result*. Safe from any thread, workers too."""
    follower.settle(result.status, result.value, result.exception)
    follower.wake()


def _is_enough(return_when: str, done: Collection[Any]) -> bool:
    if return_when == "FIRST_COMPLETED":
        return bool(done)
    return return_when == "FIRST_EXCEPTION" and any(item.exception is not None for item in done)


def _each(source: Iterator[R], max_concurrent: int | None, *, cancel_unfinished: bool) -> Iterator[R]:
    hub = get_hub_if_exists()
    arrivals: CompletionQueue[R] = CompletionQueue()
    home = None if hub is None else EntryQueue.here()  # a generator may be closed in another thread, by its finalizer
    error: Exception | None = None
    is_spent = False
    try:
        while len(arrivals) or not is_spent:
            has_room = not is_spent and (max_concurrent is None or len(arrivals) < max_concurrent)
            if has_room and (first := arrivals.take(0)) is None:
                try:
                    arrivals.add(waitable(next(source), hub))
                except StopIteration:
                    is_spent = True
                except Exception as raised:  # noqa: BLE001 - it comes after what is on its way
                    is_spent, error = True, raised
            elif (arrived := first if has_room else arrivals.take(None)) is not None:
                yield arrived
        if error is not None:
            raise error
    finally:
        left = arrivals.close()
        if cancel_unfinished:
            _give_up(left, home)


def _give_up(items: Collection[Any], home: EntryQueue | None) -> None:
    """Cancel the results of *items*, and kill the greenlets in their own thread. Safe from any thread."""
    for item in items:
        if isinstance(item, Result):
            item.cancel()
    greenlets = [item for item in items if isinstance(item, Greenlet)]
    if greenlets and home is not None:
        home.post(partial(_kill, greenlets))


def _kill(greenlets: list[Any]) -> None:
    for greenlet in greenlets:
        greenlet.kill(block=False)


class _GatheredNatively(Result[list[Any]]):
    """What `gather` returns in a thread without a hub, which waits for the items and so keeps their deadlines."""

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
        # An item is ready a moment before whoever settled it tells of it, and so decides this outcome.
        super()._await(None if ends is None else max(0.0, ends - monotonic()))
        return timeout if isinstance(timeout, Timeout) else ResultTimeout(self, seconds)


class _Gathering:
    """The work behind the result of `gather`."""

    def __init__(self, items: tuple[Any, ...], hub: Any, *, keeps_errors: bool) -> None:
        until: _Mode = "ALL_COMPLETED" if keeps_errors else "FIRST_EXCEPTION"
        self.outcome = Result[list[Any]]("gather") if hub is not None else _GatheredNatively(items, until=until)
        self.seconds = 0.0
        self.deadline: float | None = None  # the items have their own
        self.members = items  # set once
        self._hub = hub
        self._entry_queue = None if hub is None else EntryQueue.here()
        self._keeps_errors = keeps_errors
        self._missing = dict.fromkeys(items)  # whoever settles an item pops it: any thread
        self.outcome.bind(self, None if self._entry_queue is None else self._entry_queue.waker)
        self._links: dict[Any, Callable[[Any], object]] = {}
        for item in dict.fromkeys(items):
            self._links[item] = link(item, hub, self._note)
        if not items:
            self._conclude()

    def withdraw(self) -> None:
        """Cancel what is not ready. Safe from any thread."""
        _give_up([item for item in self.members if not item.ready()], self._entry_queue)

    def announce(self) -> None:
        """Notify those that wait for the gathered result."""
        if self._entry_queue is None:
            self._tell()
        else:
            self._entry_queue.post(self._tell)

    def _note(self, item: Any) -> None:
        self._missing.pop(item, None)
        if item.exception is not None and not self._keeps_errors:
            self.outcome.settle(Status.FAILED, error=item.exception)
            self._tell()
        elif not self._missing:
            self._conclude()

    def _conclude(self) -> None:
        values = [item.value if item.exception is None else item.exception for item in self.members]
        self.outcome.settle(Status.DONE, values)
        self._tell()

    def _tell(self) -> None:
        outcome = self.outcome
        outcome.wake()
        if outcome.is_delivered or not outcome.ready():
            return
        if self._entry_queue is not None:
            for item, linked in self._links.items():
                unlink(item, self._hub, linked)
            self._links.clear()  # they know this object: no cycle through it
            outcome.notify_waiters(self._entry_queue.waker)
        outcome.detach()
