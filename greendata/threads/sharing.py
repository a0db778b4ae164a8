"""Make everything that `gevent.monkey` has patched work in threads without a hub.

The patched functions wait by switching to a hub. That is right in a hub's thread. A native thread (a worker, a thread
of Polars, a thread of gevent's pool) has no running hub. There a patched lock blocks forever, a patched sleep or socket
creates a hub that never runs, and a patched executor starts a greenlet that never runs. Polars itself uses all of these
in such threads: to scan a Delta table, to ask for credentials, and in the Python functions of a query.

After `share`, waiting is green in threads with a hub and native in threads without one, and each kind wakes the other.
Nothing changes for greenlets.
"""

from __future__ import annotations

import os

from gevent.monkey import is_module_patched

from greendata.hub import native
from greendata.startup.variables import NATIVE_WAITS, yes_or_no

__all__ = ("are_off", "are_shared", "share")


def share() -> None:
    """Make what `gevent.monkey` has patched work in native threads, unless `are_off`. Idempotent.

    Do nothing in a process in which nothing is patched. Safe from any thread.

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
    """Return True if ``GREENDATA_NATIVE_WAITS`` switches sharing off: 0, false, no or off.

    Example:
        >>> are_off()
        False
    """
    return yes_or_no(os.environ.get(NATIVE_WAITS) or "1") is False


def are_shared() -> bool:
    """Return True once `share` has taken effect.

    Example:
        >>> are_shared() in (True, False)
        True
    """
    return _shared


_shared = False  # set once, under the lock
_sharing = native.allocate_lock()
