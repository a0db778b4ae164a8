"""The connection of a request's client: notice its end while the request is handled, and reset it."""

from __future__ import annotations

import _socket
import os
import socket
import struct
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

from gevent.socket import socket as GreenSocket

from greendata.hub.entry_queue import EntryQueue
from greendata.internals.gevent import get_hub_if_exists

__all__ = ("ClientWatch", "has_client", "reset_of", "socket_of")

READABLE = 1  # libev's and libuv's flag

# Where servers on gevent's sockets put the client's socket: gunicorn's gevent worker, its pywsgi worker, werkzeug.
_KEYS = ("gunicorn.socket", "gunicorn.sock", "werkzeug.socket")


class ClientWatch:
    """Calls *on_left* when the client closes its connection, from `start` to `stop`. Nothing is read from the socket.

    The watch ends by itself when the client sends something: an unread body or the next request. Until that is read,
    the end of the connection cannot be detected.

    Args:
        client: the client's socket.
        on_left: called at most once, in the hub of the thread that made the watch.

    Example:
        >>> import gevent
        >>> here, there = socket.socketpair()
        >>> client, left = GreenSocket(fileno=here.detach()), []
        >>> watch = ClientWatch(client, lambda: left.append(True))
        >>> watch.start()
        >>> there.close()
        >>> while not left:
        ...     gevent.sleep(0.001)
        >>> watch.stop()
        >>> client.close()
    """

    __slots__ = ("_client", "_entry_queue", "_hub", "_on_left", "_watcher")

    def __init__(self, client: GreenSocket, on_left: Callable[[], object]) -> None:
        self._hub: Any = get_hub_if_exists()
        self._client = client if self._hub is not None else None  # the hub's thread; any thread writes None
        self._on_left = on_left
        self._entry_queue: EntryQueue | None = None  # the hub's thread writes it once, before it watches
        self._watcher: Any = None  # the hub's thread only

    def start(self) -> None:
        """Watch the connection unless the watch has started or ended. Does nothing in a thread of another hub."""
        client = self._client
        is_here = get_hub_if_exists() is self._hub
        if client is None or self._watcher is not None or not is_here:
            return
        if client.fileno() < 0:  # closed by the server, or by code that took the connection over
            self._client = None
            return
        self._entry_queue = EntryQueue.here()
        self._watcher = self._hub.loop.io(client.fileno(), READABLE)
        self._watcher.start(self._on_readable)

    def stop(self) -> None:
        """End the watch. Idempotent. Safe from any thread."""
        self._client = None
        if get_hub_if_exists() is self._hub:
            self._close()
        elif self._entry_queue is not None:  # for example, the garbage collector closed a stream on a worker
            self._entry_queue.post(self._close)

    def _close(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.close()

    def _on_readable(self) -> None:
        """Handle a readable socket: the client has sent something, or has left. Called in the hub."""
        client = self._client
        if client is None:
            return
        descriptor = client.fileno()
        self._close()
        if descriptor < 0:  # the server has closed it, and its number may have been reused
            self._client = None
        elif _has_left(descriptor):
            self._on_left()
        else:
            self._client = None


def has_client(environ: dict[str, Any]) -> bool:
    """Return True if a server provides the socket of a client, which a test client does not have.

    Example:
        >>> has_client({})
        False
    """
    return _socket_in(environ) is not None


def socket_of(environ: dict[str, Any]) -> GreenSocket | None:
    """Return the client's socket if the server provides it and it can be watched, which TLS prevents; else None.

    Example:
        >>> socket_of({}) is None
        True
    """
    found = _socket_in(environ)
    return found if isinstance(found, GreenSocket) and not hasattr(found, "context") else None


def reset_of(environ: dict[str, Any]) -> Callable[[], object] | None:
    """Return a function that resets the connection if only its end marks the end of the response; otherwise None.

    In HTTP/1.0, which nginx by default speaks to its upstream servers, half a response would end as a whole one does.

    Example:
        >>> reset_of({"SERVER_PROTOCOL": "HTTP/1.1"}) is None
        True
    """
    found = _socket_in(environ)
    if found is None or environ.get("SERVER_PROTOCOL") != "HTTP/1.0":
        return None
    return partial(_reset, found)


def _reset(client: Any) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()  # before the server ends the response by a shutdown


def _socket_in(environ: dict[str, Any]) -> Any:
    found = next(filter(None, map(environ.get, _KEYS)), None)
    if found is None:  # gevent.pywsgi keeps it in the file from which the body is read
        reader = getattr(environ.get("wsgi.input"), "rfile", None)
        found = getattr(getattr(reader, "raw", None), "_sock", None)
    return found


def _has_left(descriptor: int) -> bool:
    """Return True if the peer has closed the connection. A duplicate descriptor avoids waiting in gevent."""
    with closing(_socket.socket(fileno=os.dup(descriptor))) as client:
        try:
            return client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:  # reset
            return True
