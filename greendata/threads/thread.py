"""Make patched threads and `time.sleep` green in threads with a hub, and native in threads without one.

A thread that a native thread starts is a native thread. As a greenlet it would wait for a hub that never runs, or that
runs only while a job waits. An executor created before sharing has a queue of gevent; its threads are greenlets of the
queue's hub.
"""

from __future__ import annotations

import _thread
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import thread as executors
from functools import partial
from typing import Any

import gevent
import gevent.hub
import gevent.queue
import gevent.thread  # type: ignore[import-not-found]
from gevent.monkey import get_original, is_object_patched
from greenlet import getcurrent

from greendata.hub import native
from greendata.hub.hubs import destroy_hub
from greendata.internals.gevent import get_hub_if_exists, set_greenlet, thread_handle, thread_lock_setter
from greendata.threads.locks import Event
from greendata.threads.parking import hub_here, hub_runs_here, native_threads

__all__ = ("share_threads", "sleep")


def share_threads() -> None:
    """Let native threads start and join threads, use executors and sleep."""
    if is_object_patched("time", "sleep"):
        time.sleep = sleep  # type: ignore[assignment]
    if not is_object_patched("threading", "Thread"):
        return
    ThreadPoolExecutor.submit = _submit  # type: ignore[method-assign]
    _share_fork_lock()
    thread: Any = threading
    low: Any = _thread
    low.start_new_thread = low.start_new = _start_new_thread
    if sys.version_info >= (3, 13):
        low.start_joinable_thread = thread._start_joinable_thread = _start_joinable_thread
        thread._ThreadHandle = _Handle
    else:
        thread._start_new_thread = _start_new_thread
        thread.Thread._set_tstate_lock = _set_tstate_lock


def _share_fork_lock() -> None:
    """Replace the global lock of the executors, which each fork acquires through a bound method of gevent.

    Fork hooks cannot be unregistered. The hooks of the new lock run first, so no thread waits for the old lock.
    """
    module: Any = executors
    if isinstance(module._global_shutdown_lock, gevent.thread.LockType):
        module._global_shutdown_lock = lock = gevent.thread.LockType()
        os.register_at_fork(
            before=lock.acquire,
            after_in_child=lock._at_fork_reinit,
            after_in_parent=lock.release,
        )


def sleep(seconds: float, /) -> None:
    """Sleep for *seconds*: the replacement of `time.sleep`. The calling thread's hub, if it has one, continues.

    Example:
        >>> sleep(0)
    """
    if hub_here() is None:
        native.sleep(max(0.0, seconds))  # gevent's sleep treats a negative number as zero
    else:
        gevent.hub.sleep(seconds)


# -- Python 3.11 and 3.12: join waits for a lock that the thread holds ---------------------------------------


def _start_new_thread(func: Callable[..., object], args: tuple[Any, ...] = (), kwargs: Any = None, /) -> int:
    hub = _hub_for(func)
    if hub is not None:
        return _start_greenlet(hub, gevent.thread.start_new_thread, func, args, kwargs) or 0
    return native.start_thread(_run, (func, args, kwargs or {}, partial(_release_joiners, func)))


def _set_tstate_lock(self: Any) -> None:
    """Create the lock. gevent's method also links its release to the greenlet's end; a native thread has none."""
    if isinstance(getcurrent(), gevent.Greenlet):
        _set_greenlet_lock(self)
    else:
        _PlainThread._set_tstate_lock(self)


def _release_joiners(bootstrap: Any) -> None:
    """Release the thread's lock, as the interpreter does at the end of a thread whose lock it created."""
    thread = getattr(bootstrap, "__self__", None)
    lock = getattr(thread, "_tstate_lock", None)
    if isinstance(thread, _PlainThread) and lock is not None and lock.locked():
        lock.release()


# -- Python 3.13 and later: join uses a handle ---------------------------------------------------------------


class _Handle(thread_handle()):  # type: ignore[misc]
    """The handle of a native thread or of a greenlet. Native threads and greenlets of any hub may join either."""

    _ended: Event | None = None  # set once, before the thread starts; its own thread sets the event
    _is_greenlet = False  # set to True once, in the thread of its hub

    def start(self, func: Callable[..., object]) -> None:
        """Start a native thread."""
        self._ended = Event()
        native.start_thread(_run, (self._begin, (func,), {}, self._ended.set))

    def start_in(self, hub: Any, func: Callable[..., object]) -> None:
        """Start a greenlet of *hub*."""
        self._ended = Event()
        _start_greenlet(hub, self._spawn, func, self._ended)

    def join(self, timeout: float | None = -1) -> None:
        if self._ended is None:
            super().join(timeout)
        elif not self.is_done():
            self._ended.wait(None if timeout == -1 else timeout)

    def is_done(self) -> bool:
        if self._ended is None:
            return bool(super().is_done())
        return self._ended.is_set() or (self._is_greenlet and super().is_done())  # the second case: a fork ended it

    def _spawn(self, func: Callable[..., object], ended: Event) -> None:
        greenlet = gevent.spawn(func)
        set_greenlet(self, greenlet)
        self._is_greenlet = True
        greenlet.rawlink(lambda _: ended.set())

    def _begin(self, func: Callable[..., object]) -> None:
        set_greenlet(self, getcurrent())  # for its ident
        func()


def _start_joinable_thread(func: Callable[..., object], handle: Any = None, daemon: bool = True) -> Any:  # noqa: FBT001, FBT002
    if handle is None:
        handle = _Handle()
    hub = _hub_for(func)
    if hub is not None and not isinstance(handle, _Handle):  # the thread object was created before sharing
        _start_greenlet(hub, gevent.thread.start_joinable_thread, func, handle, daemon)
    elif hub is not None:
        handle.start_in(hub, func)
    else:
        handle.start(func)
    return handle


# -- both ------------------------------------------------------------------------------------------------------


def _hub_for(bootstrap: Any) -> Any:
    """Return the hub in which the thread is to run as a greenlet, or None for a native thread."""
    thread: Any = getattr(bootstrap, "__self__", None)
    if getattr(thread, "_target", None) is executors._worker:
        for items in thread._args:  # the queue that it will read is the second of them, from Python 3.14 on the third
            if isinstance(items, gevent.queue.SimpleQueue) and items.hub.loop is not None:
                return items.hub
    return hub_here() if hub_runs_here() else None


def _start_greenlet(hub: Any, start: Callable[..., Any], *args: Any) -> Any:
    if hub is get_hub_if_exists():
        return start(*args)
    return hub.loop.run_callback_threadsafe(start, *args) and None


def _submit(self: Any, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Submit a call, and wake the hub of the executor's queue: the replacement of `ThreadPoolExecutor.submit`."""
    future = _submit_unpatched(self, func, *args, **kwargs)
    items = self._work_queue
    if isinstance(items, gevent.queue.SimpleQueue) and items.hub is not get_hub_if_exists():
        items.hub.loop.run_callback_threadsafe(bool)
    return future


def _run(
    func: Callable[..., object],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    at_end: Callable[[], object],
) -> None:
    me = native.get_ident()
    native_threads.add(me)
    try:
        func(*args, **kwargs)
    finally:
        hub = get_hub_if_exists()
        if hub is not None:  # the function waited as a greenlet; its hub would leak two descriptors
            destroy_hub(hub)
        native_threads.discard(me)
        at_end()


_submit_unpatched: Any = ThreadPoolExecutor.submit
_PlainThread: Any = get_original("threading", "Thread")
_set_greenlet_lock: Any = thread_lock_setter()  # None from Python 3.13 on
