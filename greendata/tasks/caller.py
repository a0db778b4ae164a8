"""`Caller`: have a function run on a hub of your choice, from any thread.

One caller stands for one hub: that of a thread that is there already (`Caller.current`), or that of a native thread
of its own (`Caller.new`). What is called on it runs on its thread, in the order of the calls, each with a copy of
the context variables of whoever called. Native work goes to the one pool (`Caller.to_thread`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from contextlib import nullcontext
from contextvars import Context
from functools import partial
from types import MethodType, TracebackType
from typing import Any, Generic, Literal, Self, TypeVar

from greendata.errors import BadTimeout, JobCancelled, NotCallable, ServiceEnded
from greendata.hub.deadline import deadline, seconds_of
from greendata.hub.entry_queue import EntryQueue
from greendata.hub.outcome import Status
from greendata.hub.result import Result
from greendata.internals.gevent import get_hub_if_exists
from greendata.pool import pool
from greendata.pool.workers import is_inline_thread
from greendata.tasks.hub_thread import HubThread
from greendata.tasks.task import Task, TaskResult, current_job, name_of
from greendata.tasks.waiting import wait

__all__ = ("Caller", "SerialQueue", "Service", "in_background")

T = TypeVar("T")


class Caller(HubThread):
    """Runs functions on one hub, for every thread. Get one from `current`, `main`, `new` or `child`.

    As a context manager it counts those that use it; when the last one leaves, it stops.

    Attributes:
        id: the native thread's ident.
        name: the thread's name, or what `new` was given.
        parent: the caller that it stops with, or None.
        stopped: a result that is there once it has stopped.

    Safe from any thread.

    Example:
        >>> with Caller.new(name="side") as side:
        ...     side.call_soon(str.upper, "a").get(timeout=5)
        'A'
    """

    def __init__(self, name: str, *, parent: Caller | None = None, idle_after: float | None = None) -> None:
        super().__init__(name, parent=parent, idle_after=idle_after)
        self._calls: dict[TaskResult[Any], None] = {}  # those that have not ended; put under the lock, as all here
        self._queues: dict[Hashable, SerialQueue] = {}
        self._services: dict[TaskResult[Any], Service[Any]] = {}

    # -- calls: any thread ------------------------------------------------------------------------------

    def call_soon(self, func: Callable[..., T], /, *args: Any, **kwargs: Any) -> TaskResult[T]:
        """Run ``func(*args, **kwargs)`` in a greenlet of its own, in the next turn of the loop.

        Raises:
            NotCallable: *func* is no callable.
            CallerStopped: the caller takes no more calls.
        """
        return self.schedule_call(func, args, kwargs)

    def call_direct(self, func: Callable[..., T], /, *args: Any, **kwargs: Any) -> TaskResult[T]:
        """Run ``func(*args, **kwargs)`` in the hub itself, where it must not wait: for short things.

        Raises:
            NotCallable, CallerStopped: as `call_soon`.
        """
        task = self._errand(func, args, kwargs)
        return self._dispatch(task, task.start_direct)

    def call_later(self, delay: float, func: Callable[..., T], /, *args: Any, **kwargs: Any) -> TaskResult[T]:
        """Run ``func(*args, **kwargs)`` in a greenlet after *delay* seconds.

        Raises:
            BadTimeout: *delay* is negative or no number.
            NotCallable, CallerStopped: as `call_soon`.
        """
        seconds = seconds_of(delay)
        if seconds is None:
            raise BadTimeout(delay)
        task = self._errand(func, args, kwargs)
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
        """`call_soon` with a context of choice, copied, and *metadata*, which the result keeps.

        Raises:
            NotCallable, CallerStopped: as `call_soon`.
        """
        task = self._errand(func, args, kwargs or {}, context, metadata)
        return self._dispatch(task, task.start)

    def to_thread(self, func: Callable[..., T], /, *args: Any, **kwargs: Any) -> Result[T]:
        """Run ``func(*args, **kwargs)`` in the pool: there is only the one, whoever asks.

        Raises:
            NotCallable, PoolFull, PoolClosed: nothing was queued.
            CallerStopped: the caller takes no more calls.
        """
        self._check_open()
        if not callable(func):
            raise NotCallable(func)
        work = partial(func, **kwargs) if kwargs else func
        return pool.submit(work, *args, label=name_of(func))

    def queue_call(self, func: Callable[..., T], /, *args: Any, **kwargs: Any) -> TaskResult[T]:
        """Run ``func(*args, **kwargs)`` after every earlier queued call of the same function has ended.

        Raises:
            NotCallable, CallerStopped: as `call_soon`.
        """
        key = _identity_of(func)
        with self._lock:
            self._check_open()
            task = self._errand(func, args, kwargs)
            queue = self._queues.get(key)
            if queue is None:
                queue = self._queues[key] = SerialQueue(func, self._entry_queue, self._drop_queue)
            task.on_end = partial(self._on_queued_end, queue)
            queue.append(task)
            return self._dispatch(task, partial(queue.take, task))

    def queue_get(self, func: Callable[..., Any]) -> SerialQueue | None:
        """The queue of *func*, or None where none of its queued calls waits or runs."""
        return self._queues.get(_identity_of(func))

    def queue_close(self, func: Callable[..., Any]) -> bool:
        """Cancel the queued calls of *func* that have not begun; False if there is no queue.

        The one that runs comes to its end, and later calls wait for that.
        """
        queue = self.queue_get(func)
        if queue is not None:
            queue.close()
        return queue is not None

    def service(self, func: Callable[..., T], /, *args: Any, **kwargs: Any) -> Service[T]:
        """Run ``func(service, *args, **kwargs)`` until its `Service` is stopped, or this caller.

        Raises:
            NotCallable, CallerStopped: as `call_soon`.
        """
        if not callable(func):
            raise NotCallable(func)
        service: Service[T] = Service(name_of(func))
        task = self._errand(service.run, (func, args, kwargs), {})
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

    def _errand(
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

    def _lose_work(self, lose: Callable[[Result[Any]], object]) -> None:
        for service in list(self._services.values()):
            lose(service.started)
        for call in list(self._calls):
            lose(call)

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
        queue.note_end(call)
        self._on_end(call)

    def _drop_queue(self, queue: SerialQueue) -> None:
        with self._lock:
            key = _identity_of(queue.func)
            if not len(queue) and self._queues.get(key) is queue:
                del self._queues[key]


class Service(Generic[T]):
    """A function that runs in a greenlet from `Caller.service` to `stop`.

    The function gets the service as its first argument. It calls ``service.started.set()`` when it is ready for use and
    waits for ``service.stopping``. As a context manager: entering waits until it has started, leaving stops it and
    waits for its end. A block that shall not go on without it holds it in a group: ``group.add(service.stopped)``.

    Attributes:
        label: what it is called: the function's name.
        started: set by the function; fails if the function ends before.
        stopping: set by `stop`.
        stopped: the outcome of the function; `ServiceEnded` if it returned before it was told to stop.

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
        """Tell the function to end; returns `stopped`. Idempotent."""
        self.stopping.set_done()
        return self.stopped

    def run(self, func: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        """Call the function, and hold it to its word. Called in the service's greenlet."""
        value = func(self, *args, **kwargs)
        if not self.stopping.ready():
            raise ServiceEnded(self.label, value)
        return value

    def follow(self, call: TaskResult[T]) -> None:
        """Tie the service to the call that runs it. Called once, before it is scheduled."""
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


class SerialQueue:
    """Calls of one function that never overlap, in the order they came. It is there as long as it has calls.

    Attributes:
        func: the function.

    Safe from any thread; `Caller.queue_call` makes it.
    """

    __slots__ = ("_entry_queue", "_on_idle", "_running", "_waiting", "func")

    def __init__(
        self, func: Callable[..., Any], entry_queue: EntryQueue, on_idle: Callable[[SerialQueue], object]
    ) -> None:
        self.func = func  # kept alive, so that its identity is nobody else's meanwhile
        self._entry_queue = entry_queue
        self._on_idle = on_idle
        self._waiting: deque[Task[Any]] = deque()  # any thread appends, the hub's pops
        self._running: TaskResult[Any] | None = None  # the hub's thread writes

    def __len__(self) -> int:
        """How many calls wait or run."""
        return len(self._waiting) + (self._running is not None)

    def append(self, task: Task[Any]) -> None:
        """Have *errand* started when those before it have ended; the caller posts `take`."""
        self._waiting.append(task)

    def close(self) -> None:
        """Cancel what waits; what runs comes to its end."""
        for task in list(self._waiting):
            task.call.cancel("its queue was closed")

    def take(self, task: Task[Any]) -> None:
        """*errand*, which was appended, has arrived at the hub. Call from the hub itself."""
        task.keep_deadline()
        self._proceed()

    def _proceed(self) -> None:
        while self._running is None and self._waiting:
            task = self._waiting.popleft()
            if not task.call.ready():
                self._running = task.call
                task.start()
        if not len(self):
            self._on_idle(self)

    def note_end(self, call: TaskResult[Any]) -> None:
        """*call* has ended. Call from the hub itself."""
        if call is self._running:
            self._running = None
            self._entry_queue.post(self._proceed)

    def __repr__(self) -> str:
        return f"<SerialQueue of {name_of(self.func)}: {len(self)} calls>"


def _identity_of(func: Callable[..., Any]) -> Hashable:
    """What tells *func* from every other callable that lives; one method of one object is always the same."""
    if isinstance(func, MethodType):
        return id(func.__self__), id(func.__func__)
    return id(func)


def in_background(func: Callable[[], T], *, timeout: float | None = None) -> Result[T]:
    """Begin ``func()`` in a greenlet and return its result at once; in a thread without a hub, in the pool.

    Cancelling the result kills the greenlet, and with it the jobs that it waits for. Safe from any thread.

    Args:
        timeout: the deadline in seconds, of *func* and of all jobs that it submits.

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
