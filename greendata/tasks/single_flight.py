"""`single_flight`: one load for all callers that need the same value at the same time.

If every query lets other greenlets run, a cache is not enough: between the cache miss and the stored value the query
runs, and every caller that comes meanwhile runs it too. Here the first caller starts the load, the flight, and the
others wait for its outcome.

- The load runs in a separate greenlet, so that it continues when the first caller is killed, is out of time, or its
  request has ended. It runs in a copy of the first caller's context, without the deadline and the request.
- A flight is removed from the table before its waiters are notified. A call after that starts a new load, also after an
  error.
- On a native thread without a hub, the first caller runs the load itself.
- A worker of the pool does not wait for a load in a greenlet: the load may submit a job that needs this worker.

The name comes from Go's golang.org/x/sync/singleflight.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from contextvars import ContextVar, copy_context
from functools import partial, wraps
from time import monotonic
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

from greenlet import getcurrent

from greendata.errors import DeadlineExceeded, JobAborted, ResultTimeout, WaitsForItself
from greendata.hub.checks import check_function
from greendata.hub.deadline import clear_deadline, nearest_limit
from greendata.hub.entry_queue import EntryQueue
from greendata.hub.result import Result
from greendata.internals.gevent import get_hub_if_exists
from greendata.pool.job import name_of, on_submit
from greendata.pool.workers import is_inline_thread
from greendata.tasks.task import Task
from greendata.tasks.waiting import shield

__all__ = ("single_flight",)

P = ParamSpec("P")
T = TypeVar("T")


def single_flight(func: Callable[P, T]) -> Callable[P, T]:
    """Decorate *func* so that concurrent calls with the same arguments run it once and share the outcome.

    Nothing is stored: the next call runs *func* again, also after an error. Put a cache around it::

        @functools.lru_cache
        @greendata.single_flight
        def prices(day): ...

    Arguments are the same if they are equal and have the same type. They must be hashable. All callers get the same
    object as value or exception. If a caller is killed, is out of time or its client has left, only its own wait ends.
    The load continues, and has none of its callers' deadlines. Safe from any thread.

    Raises:
        NotCallable, AsyncFunction: *func* is not a function that can be called.
        DeadlineExceeded, JobCancelled: in a call, when its own request or `deadline` block ends.
        WaitsForItself: in a recursive call with the same arguments.

    Example:
        >>> @single_flight
        ... def load(name):
        ...     return name.upper()
        >>> load("a")
        'A'
    """
    check_function(func)
    flights: _Flights[T] = _Flights(func)

    @wraps(func)
    def load(*args: P.args, **kwargs: P.kwargs) -> T:
        return flights.join(args, kwargs)

    return load


class _Key:
    """Arguments, hashed once: ``__hash__`` may return something else on the thread that removes the flight."""

    __slots__ = ("_hash", "_parts")

    def __init__(self, args: tuple[Hashable, ...], kwargs: dict[str, Hashable]) -> None:
        named = sorted(kwargs.items(), key=lambda item: item[0])
        types = tuple(type(value) for value in (*args, *(value for _, value in named)))
        self._parts = (args, tuple(named), types)
        self._hash = hash(self._parts)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._parts == other._parts


class _Flight(NamedTuple):
    """A load in progress.

    Attributes:
        key: the arguments. The object identifies the flight: each flight has a new one.
        result: the outcome, for any thread.
        task: the task that runs the load in a greenlet; None if the native thread that started it runs it.
    """

    key: _Key
    result: Result[Any]
    task: Task[Any] | None


# The keys of the flights in which the caller runs: it must not wait for one of them.
_current_flights: ContextVar[tuple[_Key, ...]] = ContextVar("greendata.current_flights", default=())


class _Flights(Generic[T]):
    """The flights of one function, by their arguments."""

    def __init__(self, func: Callable[..., T]) -> None:
        self._func = func
        self._label = name_of(func)
        self._begin()

    def _begin(self) -> None:
        self._flights: dict[_Key, _Flight] = {}  # any thread, one C call each
        self._pid = os.getpid()

    def join(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        """Return the outcome of the flight with these arguments. Start it if there is none."""
        if self._pid != os.getpid():  # the flights belong to the parent
            self._begin()
        hub, is_inline = get_hub_if_exists(), is_inline_thread()
        if getcurrent() is hub:  # the hub cannot wait
            return self._func(*args, **kwargs)
        key = _Key(args, kwargs)
        flight = self._flights.get(key)
        if flight is None:
            mine = self._new(key, args, kwargs, is_native=hub is None or is_inline)
            try:
                flight = self._flights.setdefault(key, mine)
                if flight is mine and mine.task is None:
                    return self._load_here(mine, args, kwargs)
                if flight is mine and mine.task is not None:
                    EntryQueue.here().post(mine.task.start)
            except BaseException as error:
                self._remove(key)
                mine.result.set_exception(error if isinstance(error, Exception) else JobAborted(self._label, error))
                raise
        if any(key is flight.key for key in _current_flights.get()):
            raise WaitsForItself(flight.result)
        if is_inline and flight.task is not None:
            return self._func(*args, **kwargs)
        outcome: T = _outcome_of(flight.result)
        return outcome

    def _new(self, key: _Key, args: tuple[Any, ...], kwargs: dict[str, Any], *, is_native: bool) -> _Flight:
        if is_native:
            result: Result[T] = Result(self._label)
            result.bind(None, None)
            return _Flight(key, result, None)
        context = copy_context()
        context.run(_detach)
        load = partial(self._load, key)
        task: Task[T] = context.run(Task, EntryQueue.here(), load, args, kwargs, on_end=lambda _: self._remove(key))
        task.call.label = self._label
        return _Flight(key, task.call, task)

    def _load_here(self, flight: _Flight, args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        """Run the load on this thread. The caller of this method passes errors to the waiters."""
        context = copy_context()
        context.run(_detach)
        value = context.run(partial(self._load, flight.key, *args, **kwargs))
        flight.result.set(value)
        return value

    def _load(self, key: _Key, /, *args: Any, **kwargs: Any) -> T:
        """Call the function. Call this in a context made for the load."""
        _current_flights.set((*_current_flights.get(), key))
        try:
            return self._func(*args, **kwargs)
        finally:
            self._remove(key)

    def _remove(self, key: _Key) -> None:
        """Remove the flight before its waiters are notified. Idempotent; safe from any thread."""
        flight = self._flights.get(key)
        if flight is not None and flight.key is key:
            self._flights.pop(key, None)


def _detach() -> None:
    """Remove the request and the deadline from the current context."""
    on_submit.set(None)
    clear_deadline()


def _outcome_of(result: Result[T]) -> T:
    """Wait for *result* until the caller's deadline or request ends. That does not cancel *result*."""
    follower = shield(result)
    if (register := on_submit.get()) is not None:
        register(follower)
    limit = nearest_limit(None)
    try:
        return follower.get(timeout=None if limit is None else max(0.0, limit.until - monotonic()))
    except ResultTimeout as late:
        if limit is None or late.result is not follower:  # an error of the load
            raise
        raise DeadlineExceeded(
            result.label, limit.seconds, running=True, native=False, in_block=limit.in_block
        ) from late
