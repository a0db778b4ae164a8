"""Sockets where `gevent.monkey` has patched them, on threads without a hub and between threads.

A gevent socket belongs to the hub of the thread that made it, and waits there. A pool of connections hands sockets from
thread to thread. So a socket waits where it is used:

- on a thread without a hub natively, in `poll`; such a thread makes sockets without a hub, too;
- a socket without a hub gets that of the first greenlet that waits for it;
- in another hub than its own by a watcher of that hub.

`os.close` leaves it to the hub of the calling thread to close what is no regular file. Where that hub does not turn, as
a worker's during a job, the descriptor is closed at once: who reads the other end of a pipe would wait for ever.

The operating system's socket is the same for all, and never blocks by itself.
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
_cancelled: Any = gevent.socket.cancel_wait_ex  # type: ignore[attr-defined]  # what those get who wait at a close


def share_sockets() -> None:
    """Let native threads use the sockets, `select` and name resolution of `gevent.monkey`, and share sockets."""
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
    elif _adopt(self, hub):
        watcher = get_write_watcher(self) if event == WRITE else get_read_watcher(self)
        wait_on_socket(self, watcher, timeout_exc)
    else:
        _wait_on_other_hub(self, hub, event, timeout_exc)


def _adopt(self: Any, hub: Any) -> bool:
    """Give a socket without a hub this one; False if another was faster."""
    with _adopting:
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
        get_native_socket(self).shutdown(how)  # that wakes those who wait, wherever they do


def _close_socket(self: Any, closefd: bool = True, error: Any = _cancelled) -> None:  # noqa: FBT001, FBT002
    hub = self.hub
    if _is_own_hub(hub):
        _in_greenlet.close(self, closefd, error)
        return
    watchers = get_read_watcher(self), get_write_watcher(self)
    set_watchers(self, None, None)
    close = get_native_socket(self).close if closefd else _nothing
    is_waited_for = any(watcher is not None and watcher.callback is not None for watcher in watchers)
    if hub.loop is not None and (is_waited_for or "libuv" in type(hub.loop).__module__):
        hub.loop.run_callback_threadsafe(hub.cancel_waits_close_and_then, watchers, error, close)
    else:  # libev has nothing of a watcher that is not started
        close()


def _is_own_hub(hub: Any) -> bool:
    return hub is _NO_HUB or hub is get_hub_if_exists()


def _nothing() -> None:
    """What is done with a descriptor that was detached."""


def _close(fd: int) -> None:
    """`os.close`; a hub that watches the descriptor closes it in any case."""
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
    """`select.poll.poll`: in the hub of the calling thread, or natively."""
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
    """Block the thread until the socket is ready; False after *timeout* seconds."""
    if _native_poll is None:  # Windows
        reads, writes = ([descriptor], []) if event == READ else ([], [descriptor])
        return any(_native_select(reads, writes, writes, timeout))
    poller = _native_poll()
    poller.register(descriptor, select.POLLIN if event == READ else select.POLLOUT)
    return bool(poller.poll(None if timeout is None else math.ceil(timeout * 1000)))


# -- in the place of a hub ----------------------------------------------------------------------------------


def _hub_or_none() -> Any:
    return hub_here() or _NO_HUB


class _NoHub:
    """What a socket has for a hub, and for its loop, if a thread without one made it."""

    resolver = Resolver()

    @property
    def loop(self) -> _NoHub:
        return self

    def io(self, _descriptor: int, _events: int) -> _NoWatcher:
        return _NoWatcher()

    def closing_fd(self, _descriptor: int) -> bool:
        return False

    def cancel_wait(self, _watcher: object, _error: object) -> None:
        """Nobody waits there."""

    def cancel_waits_close_and_then(self, _watchers: object, _error: object, then: Any, *args: Any) -> None:
        then(*args)


class _NoWatcher:
    callback = None
    ref = True


_NO_HUB = _NoHub()
_adopting = native.allocate_lock()  # for the moment that a socket takes to get its hub
_in_greenlet = socket_methods()  # as gevent has them
_poll_in_greenlet: Any = gevent.select.poll.poll
_close_in_greenlet: Any = getattr(gevent.os, "close", None)
_native_close: Any = get_original("os", "close")
_native_select = get_original("select", "select")
_native_poll: Any = get_original("select", "poll") if hasattr(select, "POLLIN") else None
