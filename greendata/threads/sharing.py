"""What `gevent.monkey` has patched, on threads that have no hub: there it works natively.

gevent makes greenlets of all that waits. On the hub's thread that is right. A native thread (a worker, one of Polars'
own, one of gevent's thread pool) has no hub that turns, so a patched lock parks it for ever, a patched sleep or socket
makes a hub that nobody runs, and a patched executor starts a greenlet that never gets its turn. Polars itself uses all
of them there: to scan a Delta table, to ask for credentials, in the functions of a query.

`share` makes it so that what waits is green on threads with a hub and native on threads without one, and that the one
wakes the other. A greenlet notices nothing of it.
"""

from __future__ import annotations

import os

from gevent.monkey import is_module_patched

from greendata.hub import native
from greendata.startup.autopatch import asks_for_patch

__all__ = ("VARIABLE", "are_off", "are_shared", "share")

VARIABLE = "GREENDATA_NATIVE_WAITS"


def share() -> None:
    """Share with native threads what `gevent.monkey` has patched, unless `are_off`. Idempotent.

    Nothing happens in a process in which nothing is patched. Safe from any thread.

    Example:
        >>> share()
    """
    global _shared
    if _shared or not is_module_patched("threading") or are_off():
        return
    from greendata.threads.children import share_children
    from greendata.threads.locks import share_locks
    from greendata.threads.sockets import share_sockets
    from greendata.threads.thread import share_threads

    with _sharing:
        if not _shared:
            share_locks()
            share_threads()
            share_sockets()
            share_children()
            _shared = True


def are_off() -> bool:
    """True if ``GREENDATA_NATIVE_WAITS`` leaves everything to gevent: 0, false, no or off.

    Example:
        >>> are_off()
        False
    """
    return asks_for_patch(os.environ.get(VARIABLE) or "1") is False


def are_shared() -> bool:
    """True once native threads share what is patched.

    Example:
        >>> are_shared() in (True, False)
        True
    """
    return _shared


_shared = False  # set once, under the lock
_sharing = native.allocate_lock()
