"""Make patched sockets work in threads without a hub, and when they pass from thread to thread.

A gevent socket belongs to the hub of the thread that created it, and waits there. A connection pool passes sockets from
thread to thread. Here a socket waits in the thread that uses it:

- A thread without a hub waits natively, in `poll`. Sockets that it creates have no hub.
- A socket without a hub gets the hub of the first greenlet that waits for it.
- In a hub other than its own, a socket waits with a temporary watcher of that hub.

gevent's `os.close` leaves it to the calling thread's hub to close a descriptor that is not a regular file. If that hub
is not running, as in a worker during a job, the descriptor is closed at once. Otherwise a reader at the other end of a
pipe would wait forever.

The operating system's socket is the same in each case, and is always non-blocking.
"""

from __future__ import annotations

import math
import os
import select
import socket
from errno import EALREADY, EINPROGRESS, EISCONN, EWOULDBLOCK
from os import strerror
from typing import Any

import gevent.os
import gevent.select
import gevent.socket
from gevent.monkey import get_original, is_object_patched
from gevent.resolver.blocking import Resolver

from greendata.hub import native
from greendata.hub.hubs import is_libuv
from greendata.internals.gevent import (
    SocketMethods,
    get_hub_if_exists,
    get_native_socket,
    get_read_watcher,
    get_write_watcher,
    replace_socket_hub,
    replace_socket_methods,
    resolve_address,
    set_watchers,
    socket_methods,
    wait_on_socket,
    wait_on_watcher,
)
from greendata.threads.parking import hub_here, hub_runs_here

__all__ = ("share_sockets",)

READ, WRITE = 1, 2  # as the loop's io watchers have them
_cancelled: Any = gevent.socket.cancel_wait_ex  # type: ignore[attr-defined]  # the error for waiters on close


def share_sockets() -> None:
    """Let native threads use patched sockets, `select` and name resolution, and share sockets with greenlets."""
    replace_socket_methods(SocketMethods(_wait, _connect, _shutdown, _close_socket))
    replace_socket_hub(_hub_or_none)
    gevent.select.poll.poll = _poll  # type: ignore[method-assign]
    if is_object_patched("select", "select"):
        select.select = _select
    if is_object_patched("os", "close"):
        os.close = _close


# -- methods of gevent's sockets --------------------------------------------------------------------------


def _wait(self: Any, watcher: Any, timeout_exc: BaseException | None = None) -> None:
    """Wait until the socket is ready for what *watcher* watches, as long as its timeout allows."""
    hub = get_hub_if_exists() or hub_here()
    if watcher is None or (hub is self.hub and hub is not None):
        wait_on_socket(self, watcher, timeout_exc)
        return
    event = WRITE if watcher is get_write_watcher(self) else READ
    if hub is None:
        if not _is_ready(self.fileno(), event, self.timeout):
            raise TimeoutError("timed out") if timeout_exc is None else timeout_exc
    elif _assign_hub(self, hub):
        watcher = get_write_watcher(self) if event == WRITE else get_read_watcher(self)
        wait_on_socket(self, watcher, timeout_exc)
    else:
        _wait_on_other_hub(self, hub, event, timeout_exc)


def _assign_hub(self: Any, hub: Any) -> bool:
    """Give *hub* to a socket that has none; return False if the socket belongs to another hub."""
    with _assigning:
        if self.hub is _NO_HUB or self.hub.loop is None:
            descriptor = self.fileno()
            set_watchers(self, hub.loop.io(descriptor, READ), hub.loop.io(descriptor, WRITE))
            self.hub = hub
        return bool(self.hub is hub)


def _wait_on_other_hub(self: Any, hub: Any, event: int, timeout_exc: BaseException | None) -> None:
    watcher = hub.loop.io(self.fileno(), event)
    try:
        wait_on_watcher(watcher, self.timeout, timeout_exc or TimeoutError("timed out"), hub)
    finally:
        watcher.close()


def _connect(self: Any, address: Any) -> None:
    if self.timeout == 0.0 or hub_here() is not None:
        _in_greenlet.connect(self, address)
        return
    sock = get_native_socket(self)
    error = sock.connect_ex(resolve_address(sock, address))
    if error in (EINPROGRESS, EWOULDBLOCK, EALREADY):
        _wait(self, get_write_watcher(self))
        error = self.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error and error != EISCONN:
        raise OSError(error, strerror(error))


def _shutdown(self: Any, how: int) -> None:
    if _is_own_hub(self.hub):
        _in_greenlet.shutdown(self, how)
    else:
        get_native_socket(self).shutdown(how)  # this wakes the waiters in every thread


def _close_socket(self: Any, closefd: bool = True, error: Any = _cancelled) -> None:  # noqa: FBT001, FBT002
    hub = self.hub
    if _is_own_hub(hub):
        _in_greenlet.close(self, closefd, error)
        return
    watchers = get_read_watcher(self), get_write_watcher(self)
    set_watchers(self, None, None)
    close = get_native_socket(self).close if closefd else _nothing
    is_waited_for = any(watcher is not None and watcher.callback is not None for watcher in watchers)
    if hub.loop is not None and (is_waited_for or is_libuv(hub.loop)):
        hub.loop.run_callback_threadsafe(hub.cancel_waits_close_and_then, watchers, error, close)
    else:  # libev keeps nothing of a watcher that is not started
        close()


def _is_own_hub(hub: Any) -> bool:
    return hub is _NO_HUB or hub is get_hub_if_exists()


def _nothing() -> None:
    """Do nothing, because the descriptor was detached."""


def _close(fd: int) -> None:
    """Close *fd*: the replacement of `os.close`. A hub that watches the descriptor closes it in any case."""
    hub = get_hub_if_exists()
    if hub is None or hub.loop is None or hub_runs_here() or hub.loop.closing_fd(fd):
        _close_in_greenlet(fd)
    else:
        _native_close(fd)


# -- select ------------------------------------------------------------------------------------------------


def _select(rlist: Any, wlist: Any, xlist: Any, timeout: float | None = None, /) -> Any:
    func = _native_select if hub_here() is None else gevent.select.select
    return func(rlist, wlist, xlist, timeout)


def _poll(self: Any, timeout: float | None = None) -> list[tuple[int, int]]:
    """Poll in the hub of the calling thread, or natively: the replacement of `select.poll.poll`."""
    hub = hub_here()
    if hub is not None:
        self.loop = hub.loop
        return list(_poll_in_greenlet(self, timeout))
    poller: select.poll = _native_poll()
    for descriptor, events in self.fds.items():
        poller.register(
            descriptor,
            (select.POLLIN if events & READ else 0) | (select.POLLOUT if events & WRITE else 0),
        )
    return list(poller.poll(timeout))


def _is_ready(descriptor: int, event: int, timeout: float | None) -> bool:
    """Block the thread until the socket is ready; return False after *timeout* seconds."""
    if _native_poll is None:  # Windows
        reads, writes = ([descriptor], []) if event == READ else ([], [descriptor])
        return any(_native_select(reads, writes, writes, timeout))
    poller = _native_poll()
    poller.register(descriptor, select.POLLIN if event == READ else select.POLLOUT)
    return bool(poller.poll(None if timeout is None else math.ceil(timeout * 1000)))


# -- a substitute for a hub ---------------------------------------------------------------------------------


def _hub_or_none() -> Any:
    return hub_here() or _NO_HUB


class _NoHub:
    """The hub, and the loop, of a socket that a thread without a hub created."""

    resolver = Resolver()

    @property
    def loop(self) -> _NoHub:
        return self

    def io(self, _descriptor: int, _events: int) -> _NoWatcher:
        return _NoWatcher()

    def closing_fd(self, _descriptor: int) -> bool:
        return False

    def cancel_wait(self, _watcher: object, _error: object) -> None:
        """Do nothing, because nothing waits in this hub."""

    def cancel_waits_close_and_then(self, _watchers: object, _error: object, then: Any, *args: Any) -> None:
        then(*args)


class _NoWatcher:
    callback = None
    ref = True


_NO_HUB = _NoHub()
_assigning = native.allocate_lock()  # held while a socket gets its hub
_in_greenlet = socket_methods()  # gevent's own
_poll_in_greenlet: Any = gevent.select.poll.poll
_close_in_greenlet: Any = getattr(gevent.os, "close", None)
_native_close: Any = get_original("os", "close")
_native_select = get_original("select", "select")
_native_poll: Any = get_original("select", "poll") if hasattr(select, "POLLIN") else None
