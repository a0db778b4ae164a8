"""Create the hub of a thread where there is none, and destroy it when the thread ends.

gevent never destroys a hub automatically. A thread that waits once and ends would leak two file descriptors, and
everything that its greenlets keep alive. So a hub that is created here is destroyed with its thread. A hub that existed
before is left to the code that created it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, finalize, ref

from gevent.hub import MAIN_THREAD_IDENT, get_hub  # type: ignore[attr-defined]

from greendata.hub import native
from greendata.internals.gevent import get_hub_if_exists

__all__ = (
    "HubBound",
    "Timer",
    "before_destroy",
    "destroy_hub",
    "ensure_hub",
    "is_libuv",
    "poll_delay",
    "weak_callback",
)

T = TypeVar("T")


class HubBound:
    """An object that belongs to one hub.

    Attributes:
        hub: the hub. It is set once, and any thread reads it.

    Example:
        >>> mine = HubBound()
        >>> mine.hub = ensure_hub()
        >>> mine.is_here, mine.is_gone
        (True, False)
    """

    __slots__ = ("hub",)

    hub: Any

    @property
    def is_here(self) -> bool:
        """True if the calling thread is the hub's thread. Safe from any thread."""
        return get_hub_if_exists() is self.hub

    @property
    def is_gone(self) -> bool:
        """True if the hub was destroyed. Safe from any thread."""
        return self.hub.loop is None


def ensure_hub() -> Any:
    """Return the hub of the calling thread. Create it if there is none.

    Example:
        >>> ensure_hub() is get_hub()
        True
    """
    hub = get_hub_if_exists()
    if hub is None:
        hub = get_hub()
        if native.get_ident() != MAIN_THREAD_IDENT:  # the main hub may be needed until the process ends
            _local.anchor = _Anchor()
            finalize(_local.anchor, _at_thread_end, hub, os.getpid()).atexit = False
    return hub


def before_destroy(hub: Any, stop: Callable[[], object]) -> None:
    """Register *stop* to be called by `destroy_hub` before it destroys *hub*.

    *stop* stops a watcher that is active as long as the hub exists. It must not keep the hub alive. Call from the hub's
    thread.

    Example:
        >>> def serve(over):
        ...     hub = ensure_hub()
        ...     before_destroy(hub, over.release)
        ...     destroy_hub(hub)
        >>> over = native.allocate_lock()
        >>> over.acquire()
        True
        >>> _ = native.start_thread(serve, (over,))
        >>> over.acquire(timeout=5)
        True
    """
    _stops[hub] = stop


def destroy_hub(hub: Any) -> None:
    """Destroy *hub* with its loop and free its frames. Call from its thread, but not from the hub greenlet itself.

    Example:
        >>> def serve(over):
        ...     destroy_hub(ensure_hub())
        ...     over.release()
        >>> over = native.allocate_lock()
        >>> over.acquire()
        True
        >>> _ = native.start_thread(serve, (over,))
        >>> over.acquire(timeout=5)
        True
    """
    if hub.loop is None:  # already destroyed
        return
    stop = _stops.pop(hub, None)
    if stop is not None:  # a watcher that is active now would never be freed, nor would the loop
        stop()
    hub.destroy(destroy_loop=True)
    if not hub.dead:  # it would wait forever, and its last LoopExit keeps the frames of all callers of `destroy`
        hub.throw()


def weak_callback(method: Callable[[], T]) -> Callable[[], T | None]:
    """Return a function that calls the bound *method* without keeping its object alive, for a watcher.

    A watcher that is active when its loop is destroyed is never freed, and neither is anything its callback refers to.
    The function returns None once the object is gone.

    Example:
        >>> class Job:
        ...     def expire(self):
        ...         return "expired"
        >>> job = Job()
        >>> expire = weak_callback(job.expire)
        >>> expire()
        'expired'
        >>> del job
        >>> expire() is None
        True
    """
    owner, func = ref(method.__self__), method.__func__  # type: ignore[attr-defined]

    def call() -> T | None:
        found = owner()
        return None if found is None else func(found)

    return call


def is_libuv(loop: Any) -> bool:
    """Return True for a loop of libuv, which runs until nothing in it is active, even when its hub is destroyed.

    Example:
        >>> is_libuv(object())
        False
    """
    return "libuv" in type(loop).__module__


class Timer:
    """A timer that calls *method* once on the hub's thread, without keeping its object alive.

    It is closed when it is freed: libuv uses the memory of a timer until it is closed. Create it on the hub's thread.

    Args:
        hub: the hub of the calling thread.
        seconds: until the call.
        method: a bound method.
        ref: whether the timer holds the loop open.
        update: whether the time counts from now, and not from the start of the loop's iteration.

    Example:
        >>> class Job:
        ...     def expire(self):
        ...         print("expired")
        >>> job = Job()
        >>> timer = Timer(ensure_hub(), 0.0, job.expire, ref=True)
        >>> ensure_hub().join(timeout=5)
        expired
        True
        >>> timer.close()
    """

    __slots__ = ("_hub", "_watcher")

    def __init__(
        self, hub: Any, seconds: float, method: Callable[[], object], *, ref: bool = False, update: bool = True
    ) -> None:
        self._hub = hub
        self._watcher = hub.loop.timer(min(seconds, native.TIMEOUT_MAX), ref=ref)
        self._watcher.start(weak_callback(method), update=update)

    def close(self) -> None:
        """Stop the timer. Idempotent. Call on the hub's thread."""
        self._watcher.close()

    def __del__(self) -> None:
        watcher = getattr(self, "_watcher", None)
        if watcher is None or (loop := self._hub.loop) is None or not loop.ptr:  # not created, or the loop is destroyed
            return
        if self._hub is get_hub_if_exists():
            watcher.close()
        else:
            loop.run_callback_threadsafe(watcher.close)


def poll_delay(loop: Any) -> float:
    """Return the seconds of the shortest timer of *loop*, which makes it poll once before the rest of its work.

    libuv warns of timers below one millisecond. With libev a longer one would be rounded up to a millisecond.

    Example:
        >>> poll_delay(object())
        1e-06
    """
    return 0.001 if is_libuv(loop) else 1e-6


def _at_thread_end(hub: Any, pid: int) -> None:
    """Destroy *hub*. Called when its thread ends; in a forked child also for threads of the parent, without effect."""
    if os.getpid() == pid and hub.loop is not None and not (is_libuv(hub.loop) and hub.loop.activecnt):
        destroy_hub(hub)


class _Anchor:
    """An object that lives as long as its thread."""


_stops: WeakKeyDictionary[Any, Callable[[], object]] = WeakKeyDictionary()  # each hub's thread writes its own entry
_local = native.Local()  # the anchor of each thread
