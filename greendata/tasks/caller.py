"""`Caller`: run a function on a chosen hub, from any thread.

A caller represents one hub: that of an existing thread (`Caller.current`), or that of a new native thread
(`Caller.new`). Its calls start on the hub's thread in the order in which they were made, each with a copy of the
context variables of the calling thread. Native work goes to the pool (`Caller.to_thread`).

    any thread                          the caller's thread
    ----------                          -------------------
    call_soon(func)
      a Task with a copied context
      posted to the EntryQueue  ----->  the hub starts the task's greenlet
    result.get()                <-----  settles the TaskResult, notifies the waiters
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from contextlib import nullcontext
from contextvars import Context
from functools import partial
from types import MethodType, TracebackType
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Self, TypeVar

from greendata.errors import BadTimeout, JobCancelled, ServiceEnded
from greendata.hub.checks import check_function
from greendata.hub.deadline import deadline, seconds_of
from greendata.hub.entry_queue import EntryQueue
from greendata.hub.outcome import Status
from greendata.hub.result import Result
from greendata.internals.gevent import get_hub_if_exists
from greendata.pool import pool
from greendata.pool.job import name_of
from greendata.pool.workers import is_inline_thread
from greendata.tasks.hub_thread import HubThread
from greendata.tasks.task import Task, TaskResult, current_job
from greendata.tasks.waiting import wait

__all__ = ("Caller", "SerialQueue", "Service", "in_background")

P = ParamSpec("P")
T = TypeVar("T")


class Caller(HubThread):
    """Run functions on one hub, from any thread. Get a caller from `current`, `main`, `new` or `child`.

    As a context manager it counts its users, and stops when the last one leaves.

    Attributes:
        id: the ident of the native thread.
        name: the name of the thread, or the name passed to `new`.
        parent: the caller with which it stops, or None.
        stopped: a result that is ready once the caller has stopped.

    Safe from any thread.

    Example:
        >>> with Caller.new(name="side") as side:
        ...     side.call_soon(str.upper, "a").get(timeout=5)
        'A'
    """

    def __init__(self, name: str, *, parent: Caller | None = None, idle_after: float | None = None) -> None:
        super().__init__(name, parent=parent, idle_after=idle_after)
        self._calls: dict[TaskResult[Any], None] = {}  # unfinished ones; here and below, written under the lock
        self._queues: dict[Hashable, SerialQueue] = {}
        self._services: dict[TaskResult[Any], Service[Any]] = {}

    # -- calls: any thread ------------------------------------------------------------------------------

    def call_soon(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskResult[T]:
        """Run ``func(*args, **kwargs)`` in a new greenlet, in the next iteration of the loop.

        Raises:
            NotCallable, AsyncFunction: *func* is not a function that can be called.
            CallerStopped: the caller accepts no more calls.
        """
        return self.schedule_call(func, args, kwargs)

    def call_direct(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskResult[T]:
        """Run ``func(*args, **kwargs)`` in the hub itself. Use this for short functions that do not wait.

        Raises:
            NotCallable, AsyncFunction, CallerStopped: as `call_soon`.
        """
        task = self._make_task(func, args, kwargs)
        return self._dispatch(task, task.start_direct)

    def call_later(self, delay: float, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskResult[T]:
        """Run ``func(*args, **kwargs)`` in a greenlet after *delay* seconds.

        Raises:
            BadTimeout: *delay* is negative or not a number.
            NotCallable, AsyncFunction, CallerStopped: as `call_soon`.
        """
        seconds = seconds_of(delay)
        if seconds is None:
            raise BadTimeout(delay)
        task = self._make_task(func, args, kwargs)
        return self._dispatch(task, partial(task.start_later, seconds))

    def schedule_call(
        self,
        func: Callable[..., T],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        context: Context | None = None,
        /,
        **metadata: Any,
    ) -> TaskResult[T]:
        """Do the same as `call_soon`, with a copy of *context*, and keep *metadata* in the result.

        Raises:
            NotCallable, AsyncFunction, CallerStopped: as `call_soon`.
        """
        task = self._make_task(func, args, kwargs or {}, context, metadata)
        return self._dispatch(task, task.start)

    def to_thread(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Result[T]:
        """Run ``func(*args, **kwargs)`` in the pool, which all callers share.

        Raises:
            NotCallable, AsyncFunction, PoolFull, PoolClosed, PolarsForked: nothing was queued.
            CallerStopped: the caller accepts no more calls.
        """
        self._check_open()
        return pool.run(func, args, kwargs)

    def queue_call(self, func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskResult[T]:
        """Run ``func(*args, **kwargs)`` after all earlier queued calls of the same function have ended.

        Raises:
            NotCallable, AsyncFunction, CallerStopped: as `call_soon`.
        """
        key = _identity_of(func)
        with self._lock:
            self._check_open()
            task = self._make_task(func, args, kwargs)
            queue = self._queues.get(key)
            if queue is None:
                queue = self._queues[key] = SerialQueue(func, self._entry_queue, self._drop_queue)
            task.on_end = partial(self._on_queued_end, queue)
            queue.append(task)
            return self._dispatch(task, partial(queue.take, task))

    def queue_get(self, func: Callable[..., Any]) -> SerialQueue | None:
        """Return the queue of *func*, or None if it has no queued calls that wait or run."""
        return self._queues.get(_identity_of(func))

    def queue_close(self, func: Callable[..., Any]) -> bool:
        """Cancel the queued calls of *func* that have not begun. Return False if there is no queue.

        The running call continues to its end, and later calls wait for it.
        """
        queue = self.queue_get(func)
        if queue is not None:
            queue.close()
        return queue is not None

    def service(
        self, func: Callable[Concatenate[Service[T], P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Service[T]:
        """Run ``func(service, *args, **kwargs)`` until its `Service` or this caller is stopped.

        Raises:
            NotCallable, AsyncFunction, CallerStopped: as `call_soon`.
        """
        check_function(func)
        service: Service[T] = Service(name_of(func))
        task = self._make_task(service.run, (func, args, kwargs), {})
        service.follow(task.call)
        with self._lock:
            self._check_open()
            self._services[task.call] = service
            self._dispatch(task, task.start)
        return service

    def __repr__(self) -> str:
        state = "stopped" if self.is_stopped else "running"
        return f"<Caller {self.name!r} {state} in thread {self.id}: {len(self._calls)} calls>"

    # -- private: any thread ----------------------------------------------------------------------------

    def _make_task(
        self,
        func: Callable[..., T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Context | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> Task[T]:
        return Task(self._entry_queue, func, args, kwargs, context=context, metadata=metadata, on_end=self._on_end)

    def _dispatch(self, task: Task[T], start: Callable[[], object]) -> TaskResult[T]:
        with self._lock:
            self._check_open()
            self._calls[task.call] = None
        return task.dispatch(start)

    def _is_idle(self) -> bool:
        return not self._calls and super()._is_idle()

    def _is_at_work_here(self) -> bool:
        return current_job() in self._calls

    def _fail_work(self, fail: Callable[[Result[Any]], object]) -> None:
        for service in list(self._services.values()):
            fail(service.started)
        for call in list(self._calls):
            fail(call)

    # -- private: the caller's own thread ---------------------------------------------------------------

    def _end_work(self, grace: float) -> None:
        ends = [service.stop().end() for service in list(self._services.values())]
        wait(ends, grace)
        calls = list(self._calls)
        for call in calls:
            call.cancel(f"caller {self.name} stops")
        wait([call.end() for call in calls], grace)

    def _on_end(self, call: TaskResult[Any]) -> None:
        self._calls.pop(call, None)
        self._services.pop(call, None)
        self._watch_idleness()

    def _on_queued_end(self, queue: SerialQueue, call: TaskResult[Any]) -> None:
        self._on_end(call)
        queue.note_end(call)  # last: it does not call this again after an interruption

    def _drop_queue(self, queue: SerialQueue) -> None:
        with self._lock:
            key = _identity_of(queue.func)
            if not len(queue) and self._queues.get(key) is queue:
                del self._queues[key]


class Service(Generic[T]):
    """A function that runs in a greenlet from `Caller.service` to `stop`.

    The function gets the service as its first argument. It calls ``service.started.set()`` when it is ready for use and
    waits for ``service.stopping``. As a context manager, entering waits until the service has started, and leaving
    stops it and waits for its end. To end a block when the service ends, add it to a group:
    ``group.add(service.stopped)``.

    Attributes:
        label: the name of the function.
        started: set by the function; fails if the function ends before that.
        stopping: set by `stop`.
        stopped: the outcome of the function; `ServiceEnded` if it returned before `stop` was called.

    Safe from any thread.
    """

    __slots__ = ("label", "started", "stopped", "stopping")

    stopped: TaskResult[T]

    def __init__(self, label: str) -> None:
        self.label = label
        self.started: Result[None] = Result(f"start of {label}")
        self.stopping: Result[None] = Result(f"stop of {label}")
        self.started.bind(None, None)
        self.stopping.bind(None, None)

    def stop(self) -> TaskResult[T]:
        """Ask the function to end, and return `stopped`. Idempotent."""
        self.stopping.set_done()
        return self.stopped

    def run(self, func: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        """Call the function; raise `ServiceEnded` if it returns before `stop`. Called in the service's greenlet."""
        value = func(self, *args, **kwargs)
        if not self.stopping.ready():
            raise ServiceEnded(self.label, value)
        return value

    def follow(self, call: TaskResult[T]) -> None:
        """Connect the service with the call that runs it. Called once, before the call is scheduled."""
        call.label = self.label
        self.stopped = call
        call.add_callback(self._note_end)

    def _note_end(self) -> None:
        never = JobCancelled(self.started.label, running=True, native=False, message="the service ended before")
        error = self.stopped.exception
        self.started.settle(Status.FAILED, error=never if error is None else error)
        self.started.wake()

    def __enter__(self) -> Self:
        try:
            self.started.get()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        self.stop()
        if error is None:
            self.stopped.get()
        else:
            self.stopped.wait()
        return False

    def __repr__(self) -> str:
        state = "stopped" if self.stopped.ready() else "stopping" if self.stopping.ready() else "running"
        return f"<Service {self.label!r} {state}>"

    def __dir__(self) -> list[str]:  # without what only its caller uses
        return [name for name in super().__dir__() if name not in ("follow", "run")]


class SerialQueue:
    """Calls of one function that run one after the other, in order. The queue exists while it has calls.

    Attributes:
        func: the function.

    Safe from any thread; `Caller.queue_call` makes it.
    """

    __slots__ = ("_entry_queue", "_on_idle", "_running", "_waiting", "func")

    def __init__(
        self, func: Callable[..., Any], entry_queue: EntryQueue, on_idle: Callable[[SerialQueue], object]
    ) -> None:
        self.func = func  # kept alive, so that no other object gets the same id
        self._entry_queue = entry_queue
        self._on_idle = on_idle
        self._waiting: deque[Task[Any]] = deque()  # any thread appends, the hub's thread pops
        self._running: Task[Any] | None = None  # the hub's thread writes

    def __len__(self) -> int:
        """Return the number of calls that wait or run."""
        return len(self._waiting) + (self._running is not None)

    def append(self, task: Task[Any]) -> None:
        """Append *task*, which starts when those before it have ended. The caller posts `take`."""
        self._waiting.append(task)

    def close(self) -> None:
        """Cancel the waiting calls. The running one continues to its end."""
        for task in list(self._waiting):
            task.call.cancel("its queue was closed")

    def take(self, task: Task[Any]) -> None:
        """Start the appended *task* if no other call runs. Call from the hub itself."""
        task.keep_deadline()
        self._proceed()

    def _proceed(self) -> None:
        while self._running is None and self._waiting:
            task = self._waiting[0]
            if not task.call.ready():
                self._running = task
            self._waiting.popleft()  # after it was recorded: a signal handler may raise in between
        if self._running is not None:
            self._running.start()  # without effect if it runs
        if not len(self):
            self._on_idle(self)

    def note_end(self, call: TaskResult[Any]) -> None:
        """Start the next call, since *call* has ended. Call from the hub itself."""
        if self._running is not None and call is self._running.call:
            self._running = None
            self._entry_queue.post(self._proceed)

    def __repr__(self) -> str:
        return f"<SerialQueue of {name_of(self.func)}: {len(self)} calls>"


def _identity_of(func: Callable[..., Any]) -> Hashable:
    """Return a key that identifies *func* among living callables. Bound methods of one object have equal keys."""
    if isinstance(func, MethodType):
        return id(func.__self__), id(func.__func__)
    return id(func)


def in_background(func: Callable[[], T], *, timeout: float | None = None) -> Result[T]:
    """Start ``func()`` in a greenlet, or in the pool if the thread has no hub, and return its result at once.

    Cancelling the result kills the greenlet and cancels the jobs for which it waits. Safe from any thread.

    Args:
        timeout: the deadline in seconds, for *func* and all jobs that it submits.

    Raises:
        BadTimeout: *timeout* is negative or NaN.
        PoolFull, PoolClosed: in a thread without a hub.

    Example:
        >>> in_background(lambda: 42).get(timeout=5)
        42
    """
    seconds = seconds_of(timeout)
    if get_hub_if_exists() is None or is_inline_thread():
        return pool.submit(func, timeout=seconds)
    with nullcontext() if seconds is None else deadline(seconds):
        return Caller.current().call_soon(func)
