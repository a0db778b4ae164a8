"""`single_flight`: one load for all that need the same thing at once.

Where every query is a switch point, a cache does not keep its callers apart: between the look into it and the value in
it the query runs, and all who come meanwhile run it too. The first caller's load is the flight; the others come along.

- The load runs in a greenlet of its own, so that it outlives the one who began it: killed, out of time, or a request
  that is over. It has a copy of that one's context, without the deadline and the request that its queries would
  belong to.
- It is taken off the list before its waiters are told: who comes then begins anew, also after an error.
- On a native thread, which has no greenlet to give way to, the one who begins the load runs it.
- A worker of the pool does not wait for a greenlet: its load may be a job that needs the worker.

The name is that of Go's golang.org/x/sync/singleflight.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from contextvars import ContextVar, copy_context
from functools import partial, wraps
from time import monotonic
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

from greenlet import getcurrent

from greendata.errors import DeadlineExceeded, JobAborted, NotCallable, ResultTimeout, WaitsForItself
from greendata.hub.deadline import forget, nearest
from greendata.hub.entry_queue import EntryQueue
from greendata.hub.result import Result
from greendata.internals.gevent import get_hub_if_exists
from greendata.pool.job import on_submit
from greendata.pool.workers import is_inline_thread
from greendata.tasks.task import Task, name_of
from greendata.tasks.waiting import shield

__all__ = ("single_flight",)

P = ParamSpec("P")
T = TypeVar("T")


def single_flight(func: Callable[P, T]) -> Callable[P, T]:
    """A decorator: calls with the same arguments that come while one of them runs wait for it and share its outcome.

    It keeps nothing: the next call after that begins anew, and so does one after an error. A cache goes around it::

        @functools.lru_cache
        @greendata.single_flight
        def prices(day): ...

    Arguments are the same if they are equal and of one type; they must be hashable. The value is one object for all
    callers, and so is the exception. A caller that is killed, out of time or whose client has left gives up its own
    wait. The load goes on; of the deadlines around its callers it has none. Safe from any thread.

    Raises:
        NotCallable: *func* is none.
        DeadlineExceeded, JobCancelled: in a call, as its own request or block has it.
        WaitsForItself: in a call that *func* makes of itself with the same arguments.

    Example:
        >>> @single_flight
        ... def load(name):
        ...     return name.upper()
        >>> load("a")
        'A'
    """
    if not callable(func):
        raise NotCallable(func)
    flights: _Flights[T] = _Flights(func)

    @wraps(func)
    def fly(*args: P.args, **kwargs: P.kwargs) -> T:
        return flights.join(args, kwargs)

    return fly


class _Key:
    """Arguments, hashed once: what they hash to may be another thing on the thread that takes the flight off."""

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
    """A load that is on its way.

    Attributes:
        key: what it is found by, and known by: another flight has another object.
        result: its outcome, for any thread.
        errand: what runs it in a greenlet; None where it runs on the native thread that began it.
    """

    key: _Key
    result: Result[Any]
    task: Task[Any] | None


# The flights that the caller is part of: it must not wait for one of them.
_aboard: ContextVar[tuple[_Key, ...]] = ContextVar("greendata.aboard", default=())


class _Flights(Generic[T]):
    """The flights of one function."""

    def __init__(self, func: Callable[..., T]) -> None:
        self._func = func
        self._label = name_of(func)
        self._begin()

    def _begin(self) -> None:
        self._under_way: dict[_Key, _Flight] = {}  # any thread, one C call each
        self._pid = os.getpid()

    def join(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        """The outcome of the flight with these arguments, which begins now if there is none."""
        if self._pid != os.getpid():  # those under way are the parent's
            self._begin()
        hub, is_inline = get_hub_if_exists(), is_inline_thread()
        if getcurrent() is hub:  # which cannot wait
            return self._func(*args, **kwargs)
        key = _Key(args, kwargs)
        flight = self._under_way.get(key)
        if flight is None:
            mine = self._new(key, args, kwargs, is_native=hub is None or is_inline)
            try:
                flight = self._under_way.setdefault(key, mine)
                if flight is mine and mine.task is None:
                    return self._lead(mine, args, kwargs)
                if flight is mine and mine.task is not None:
                    EntryQueue.here().post(mine.task.start)
            except BaseException as error:
                self._land(key)
                mine.result.set_exception(error if isinstance(error, Exception) else JobAborted(self._label, error))
                raise
        if any(key is flight.key for key in _aboard.get()):
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
        fly = partial(self._fly, key)
        task: Task[T] = context.run(Task, EntryQueue.here(), fly, args, kwargs, on_end=lambda _: self._land(key))
        task.call.label = self._label
        return _Flight(key, task.call, task)

    def _lead(self, flight: _Flight, args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        """Run the load here. The waiters are told of its error by the caller."""
        context = copy_context()
        context.run(_detach)
        value = context.run(partial(self._fly, flight.key, *args, **kwargs))
        flight.result.set(value)
        return value

    def _fly(self, key: _Key, /, *args: Any, **kwargs: Any) -> T:
        """The load itself. Call in a context of its own."""
        _aboard.set((*_aboard.get(), key))
        try:
            return self._func(*args, **kwargs)
        finally:
            self._land(key)

    def _land(self, key: _Key) -> None:
        """Take the flight off the list, before its waiters are told. Idempotent; safe from any thread."""
        flight = self._under_way.get(key)
        if flight is not None and flight.key is key:
            self._under_way.pop(key, None)


def _detach() -> None:
    """Make the caller's context one that no request and no deadline ends."""
    on_submit.set(None)
    forget()


def _outcome_of(result: Result[T]) -> T:
    """Wait for *result*, for as long as the caller's deadline and its request allow; it is not given up."""
    follower = shield(result)
    if (adopt := on_submit.get()) is not None:
        adopt(follower)
    limit = nearest(None)
    try:
        return follower.get(timeout=None if limit is None else max(0.0, limit.until - monotonic()))
    except ResultTimeout as late:
        if limit is None or late.result is not follower:  # the load's own
            raise
        raise DeadlineExceeded(result.label, limit.seconds, running=True, native=False) from late
