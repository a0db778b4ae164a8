"""The hub of a thread: made where there is none, and taken down when the thread ends.

gevent destroys no hub by itself. A thread that waits for something once and ends would leave two descriptors, and what
its greenlets keep alive. So a hub that is made here goes with its thread; one that was there before is its owner's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, finalize, ref

from gevent.hub import MAIN_THREAD_IDENT, get_hub  # type: ignore[attr-defined]

from greendata.hub import native
from greendata.internals.gevent import get_hub_if_exists

__all__ = ("before_take_down", "ensure_hub", "take_down", "weakly")

T = TypeVar("T")


def ensure_hub() -> Any:
    """The hub of the calling thread, which is made if there is none.

    Example:
        >>> ensure_hub() is get_hub()
        True
    """
    hub = get_hub_if_exists()
    if hub is None:
        hub = get_hub()
        if native.get_ident() != MAIN_THREAD_IDENT:  # its hub may be of use until the process ends
            _local.anchor = _Anchor()
            finalize(_local.anchor, _at_thread_end, hub, os.getpid()).atexit = False
    return hub


def before_take_down(hub: Any, stop: Callable[[], object]) -> None:
    """Have `take_down` call *stop* first, for the watcher that is active for as long as *hub* is there.

    *stop* must not keep the hub alive. Call from the hub's thread.

    Example:
        >>> def serve(over):
        ...     hub = ensure_hub()
        ...     before_take_down(hub, over.release)
        ...     take_down(hub)
        >>> over = native.allocate_lock()
        >>> over.acquire()
        True
        >>> _ = native.start_thread(serve, (over,))
        >>> over.acquire(timeout=5)
        True
    """
    _stops[hub] = stop


def take_down(hub: Any) -> None:
    """Destroy *hub* with its loop and let go of its frames. Call from its thread, and not from the hub itself.

    Example:
        >>> def serve(over):
        ...     take_down(ensure_hub())
        ...     over.release()
        >>> over = native.allocate_lock()
        >>> over.acquire()
        True
        >>> _ = native.start_thread(serve, (over,))
        >>> over.acquire(timeout=5)
        True
    """
    if hub.loop is None:  # it is destroyed
        return
    stop = _stops.pop(hub, None)
    if stop is not None:  # a watcher that is active now would never be freed, nor would the loop
        stop()
    hub.destroy(destroy_loop=True)
    if not hub.dead:  # it waits for ever, and its last LoopExit keeps the frames of all that have called `destroy`
        hub.throw()


def weakly(method: Callable[[], T]) -> Callable[[], T | None]:
    """A bound *method* that does not keep its object alive, for a watcher.

    A watcher that is active when its loop is destroyed is never freed, nor is what its callback refers to.

    Example:
        >>> class Job:
        ...     def expire(self):
        ...         return "expired"
        >>> job = Job()
        >>> expire = weakly(job.expire)
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


def _at_thread_end(hub: Any, pid: int) -> None:
    """Called by the thread's last breath; in a forked child by that of threads which never were there."""
    if os.getpid() == pid and hub.loop is not None and not (_never_breaks(hub.loop) and hub.loop.activecnt):
        take_down(hub)


def _never_breaks(loop: Any) -> bool:
    """True for libuv, whose loop runs on until nothing of it is active, also when its hub is destroyed."""
    return "libuv" in type(loop).__module__


class _Anchor:
    """Lives as long as its thread."""


_stops: WeakKeyDictionary[Any, Callable[[], object]] = WeakKeyDictionary()  # each hub's thread has its entry
_local = native.Local()  # the anchor of each thread
