"""`HubThread`: an object that belongs to one hub, can be found from any thread, and can be stopped.

The hub is that of an existing thread, which keeps its object until the thread ends, or that of a native thread started
for it. A `HubThread` has named children, which stop with it, and counts its users. Subclasses define the work on the
hub: they report when it is idle, and end it.
"""

from __future__ import annotations

import atexit
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache, partial
from itertools import count
from types import TracebackType
from typing import Any, Literal, Self

import gevent
from gevent.hub import MAIN_THREAD_IDENT, get_hub  # type: ignore[attr-defined]

from greendata.errors import BadSetting, CallerStopped, NoCaller, ResultLost
from greendata.hub import native
from greendata.hub.deadline import seconds_of
from greendata.hub.entry_queue import EntryQueue
from greendata.hub.hubs import Timer, destroy_hub
from greendata.hub.outcome import Status
from greendata.hub.result import Result
from greendata.hub.waiters import sleep_until, wait_native
from greendata.pool import pool, workers
from greendata.tasks.waiting import wait

__all__ = ("HubThread",)

GRACE = 5.0  # seconds for work to end, and again for killed greenlets to clean up; a guess


class HubThread(ABC):
    """The base of `Caller`: a name, a hub and its thread, and `stop`. Safe from any thread."""

    def __init__(self, name: str, *, parent: Self | None = None, idle_after: float | None = None) -> None:
        idle_after = seconds_of(idle_after)
        self.id = 0  # these are set before the object is returned, and only read after that
        self.name = name
        self.parent = parent
        self.stopped: Result[None] = Result(f"stop of caller {name}")
        self.stopped.bind(None, None)
        self._started: Result[None] = Result(f"start of caller {name}")
        self._started.bind(None, None)
        self._idle_after = idle_after
        self._entry_queue: EntryQueue
        self._thread_finalizer: Any = None  # finalizer of the thread's anchor; set with the entry queue
        self._lock = native.RLock()  # guards writes to the fields below; reentrant, because finalizers may call
        self._is_open = False  # it has its entry queue
        self._is_stopping = False
        self._closing: Callable[[], object] | None = None  # what its hub calls to stop it, perhaps several times
        self._users = 0
        self._children: dict[str, Self] = {}
        self._sleepers: list[Callable[[object], object]] = []  # the main greenlet of its thread; its thread only
        self._idle_timer: Timer | None = None  # its thread only
        self._is_closing = False  # its thread only

    # -- which one: any thread ------------------------------------------------------------------------

    @classmethod
    def current(cls) -> Self:
        """Return the caller of this thread's hub, made at the first call.

        Raises:
            NoCaller: the thread is a worker or a runtime thread, where no hub runs.
        """
        if workers.is_inline_thread():
            raise NoCaller("no hub runs in a worker thread")
        entry_queue = EntryQueue.here()
        found = _hub_threads.get(native.get_ident())
        if found is not None and found._entry_queue.is_gone:  # the hub was destroyed, but the thread continues
            found._fail_remaining()
        if not isinstance(found, cls) or found._entry_queue is not entry_queue or found._is_stopping:
            found = cls(entry_queue.thread)
            found._open(entry_queue)
        return found

    @classmethod
    def main(cls) -> Self:
        """Return the caller of the main thread's hub.

        Raises:
            NoCaller: this is another thread, and the main thread has not made its caller yet.
        """
        if native.get_ident() == MAIN_THREAD_IDENT:
            return cls.current()
        found = cls.get(MAIN_THREAD_IDENT)
        if found is None:
            raise NoCaller("the main thread has no caller yet")
        return found

    @classmethod
    def new(cls, name: str | None = None, *, idle_after: float | None = None) -> Self:
        """Start a native thread with a hub, and return its caller.

        Args:
            name: the name of the caller and its thread (the system shows 15 bytes).
            idle_after: stop the caller after this many seconds without a call, a user or a child.

        Raises:
            BadSetting, BadTimeout: an argument that cannot be used.
            RuntimeError: the system has no more threads.
        """
        made = cls._make(name, None, idle_after)
        try:
            made._started.get()
        except BaseException:  # no reference to it will be returned
            made._started.rawlink(lambda _: made.stop())
            raise
        return made

    @classmethod
    def get(cls, caller_id: int) -> Self | None:
        """Return the caller of the thread with that ident, or None."""
        found = _hub_threads.get(caller_id)
        return found if isinstance(found, cls) and not found.is_stopped else None

    @classmethod
    def all(cls) -> tuple[Self, ...]:
        """Return all callers that accept calls."""
        return tuple(found for key in list(_hub_threads) if (found := cls.get(key)) is not None)

    def child(self, name: str, *, idle_after: float | None = None) -> Self:
        """Return the child with that *name*, made as by `new` if there is none. It stops with its parent.

        Raises:
            BadSetting, BadTimeout, RuntimeError: as `new`.
            CallerStopped: this caller accepts no more calls.
        """
        with self._lock:
            self._check_open()
            found = self._children.get(name)
            if found is None or found.is_stopped:
                found = self._children[name] = self._make(name, self, idle_after)
        found._started.get()
        return found

    @property
    def children(self) -> tuple[Self, ...]:
        """The children that accept calls."""
        return tuple(child for child in list(self._children.values()) if child._is_open and not child.is_stopped)

    @property
    def is_stopped(self) -> bool:
        """True if it accepts no more calls: it was stopped, or its thread or hub has ended."""
        return self._is_stopping or self._is_gone

    # -- the end: any thread --------------------------------------------------------------------------

    def stop(self, *, grace: float = GRACE) -> Result[None]:
        """Accept no more calls, stop children and services, cancel the other calls, and return `stopped`. Idempotent.

        Args:
            grace: seconds for services to end, and again for killed calls to clean up.

        Raises:
            BadTimeout: *grace* is negative or not a number.
        """
        seconds = seconds_of(grace) or 0.0
        with self._lock:
            is_gone = self._begin_stop(seconds)
        if is_gone:
            self._fail_remaining()
        return self.stopped

    def __enter__(self) -> Self:
        with self._lock:
            self._check_open()
            self._users += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        with self._lock:  # held until it accepts no more users
            self._users -= 1
            is_last = not self._users
            is_gone = is_last and self._begin_stop(GRACE)
        if is_gone:
            self._fail_remaining()
        if is_last and not self._is_at_work_here():  # otherwise it would wait for itself
            self.stopped.wait()
        return False

    # -- for subclasses ------------------------------------------------------------------------

    def _is_idle(self) -> bool:
        """Return True if it has no users, no children and no work. Any thread."""
        return not (self._users or self._children)

    @abstractmethod
    def _is_at_work_here(self) -> bool:
        """Return True if the calling greenlet is part of its work. Any thread."""

    @abstractmethod
    def _end_work(self, grace: float) -> None:
        """End its work and wait until it has ended. Called in a greenlet of its hub."""

    @abstractmethod
    def _fail_work(self, fail: Callable[[Result[Any]], object]) -> None:
        """Call *fail* with each result that will not be settled any more. Any thread: its own has ended."""

    def _check_open(self) -> None:
        if self.is_stopped:
            raise CallerStopped(self.name)

    def _watch_idleness(self) -> None:
        """If it is idle, start the timer that stops it if it is still idle then. Called on its hub."""
        if self._idle_after is not None and self._is_idle():
            self._idle_timer = Timer(self._entry_queue.hub, self._idle_after, self._stop_if_idle, ref=True)

    # -- private: any thread --------------------------------------------------------------------------

    @property
    def _is_gone(self) -> bool:
        """True if its thread or its hub has ended."""
        return self._is_open and (not self._thread_finalizer.alive or self._entry_queue.is_gone)

    @classmethod
    def _make(cls, name: str | None, parent: Self | None, idle_after: float | None) -> Self:
        if name is not None and (not isinstance(name, str) or not name):
            raise BadSetting("name", name, "None or a text that is not empty")
        made = cls(name or f"caller-{next(_numbers)}", parent=parent, idle_after=seconds_of(idle_after))
        _stop_at_exit()
        native.start_thread(made._serve, ())
        return made

    def _forget(self) -> None:
        if _hub_threads.get(self.id) is self:
            _hub_threads.pop(self.id, None)
        if self._thread_finalizer is not None:
            self._thread_finalizer.detach()
        parent = self.parent
        if parent is not None:
            with parent._lock:
                if parent._children.get(self.name) is self:
                    del parent._children[self.name]
            if parent._is_open:
                parent._entry_queue.post(parent._watch_idleness)

    def _begin_stop(self, grace: float) -> bool:
        """Accept no more calls; return True if its thread or its hub has ended. Called under the lock.

        A signal handler may interrupt it at any step. Another call does what is left to do.
        """
        self._is_stopping = True
        if self.stopped.ready() or self._is_gone:
            return not self.stopped.ready()
        self._closing = self._closing or partial(self._begin_close, grace)
        if self._is_open:
            self._entry_queue.post(self._closing)
        return False

    def _fail_remaining(self) -> None:
        """Fail the work that remains after its thread or its hub has ended. Any thread."""
        with self._lock:
            self._is_stopping = True
        for child in list(self._children.values()):
            child.stop()
        self._fail_work(self._fail_result)
        self._forget()
        self.stopped.set_done()

    def _on_thread_end(self, pid: int) -> None:
        """Run when the thread ends. A forked child also calls it, for threads that exist only in the parent."""
        if os.getpid() == pid:
            self._fail_remaining()

    def _fail_result(self, result: Result[Any]) -> None:
        if result.settle(Status.FAILED, error=CallerStopped(self.name)):
            result.wake()
        result.detach()

    # -- private: its own thread ----------------------------------------------------------------------

    def _open(self, entry_queue: EntryQueue) -> None:
        self.id = native.get_ident()
        self._entry_queue = entry_queue
        anchor = getattr(_local, "anchor", None)
        if anchor is None:
            anchor = _local.anchor = _Anchor()
        self._thread_finalizer = weakref.finalize(anchor, self._on_thread_end, os.getpid())
        self._thread_finalizer.atexit = False
        _hub_threads[self.id] = self
        with self._lock:
            self._is_open = True
            if self._closing is not None:  # it was stopped meanwhile, with its parent
                entry_queue.post(self._closing)

    def _serve(self) -> None:
        native.name_this_thread(self.name)
        workers.run_in_pool_here()
        try:
            hub = get_hub()
            self._open(EntryQueue.here())
        except BaseException as error:  # noqa: BLE001 - raised in the thread that wants the caller
            self._fail_remaining()
            self._started.settle(Status.FAILED, error=error)
            self._started.wake()
            return
        waker = self._entry_queue.waker
        number = waker.expect(_nothing)  # it keeps the loop running
        self._watch_idleness()
        self._started.set_done()
        sleep_until(None, hub, self._sleepers)
        waker.forget(number)
        self._forget()
        if self._idle_timer is not None:
            self._idle_timer.close()
        destroy_hub(hub)
        self.stopped.set_done()

    def _begin_close(self, grace: float) -> None:
        if not self._is_closing:
            self._is_closing = True
            gevent.spawn(self._close, grace)

    def _close(self, grace: float) -> None:
        children = list(self._children.values())
        for child in children:
            child.stop(grace=grace)
        self._end_work(grace)
        wait([child.stopped for child in children], 2 * grace)
        if self._sleepers:
            self._entry_queue.post(lambda: self._entry_queue.waker.resume(self._sleepers))
        else:
            self._forget()
            self.stopped.set_done()

    def _stop_if_idle(self) -> None:
        with self._lock:
            if self._is_idle():
                self.stop()


class _Anchor:
    """An object that lives as long as its thread."""


def _nothing() -> None:
    return None


@cache  # once: CPython keeps a slot for every registration, even after unregister
def _stop_at_exit() -> None:
    pool.shared.end_at_exit()  # later than the threads: what their greenlets do at their end may need it
    atexit.register(_stop_all)


def _stop_all() -> None:
    """End the threads of all instances before the interpreter ends. Called at exit."""
    others = [found for found in list(_hub_threads.values()) if found.id != native.get_ident()]
    for stopped in [found.stop(grace=1.0) for found in others]:
        wait_native(stopped, GRACE)  # greenlets do not run in an exiting process


def _after_fork_in_child() -> None:
    """Fail all work: the other threads do not exist here, and the waker of this thread was reset."""
    for found in list(_hub_threads.values()):
        found._lock = native.RLock()
        found._is_stopping = True
        found._fail_work(lambda result: result.fail_after_fork(ResultLost(result.label)))
        found.stopped.settle(Status.DONE)  # no thread waits for it now, but one may do so later
    _hub_threads.clear()


_numbers = count()
_hub_threads: dict[int, HubThread] = {}  # by the ident of the native thread; any thread, one C call each
_local = native.Local()  # the anchor of each thread
os.register_at_fork(after_in_child=_after_fork_in_child)
