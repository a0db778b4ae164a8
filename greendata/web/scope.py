"""The scope of a request: the deadline and the key of its queries, which are cancelled when the request ends.

Everything that is submitted while a request is handled belongs to it, through the verbs and through a plain
``lf.collect()`` under the patch. These queries are cancelled when the view and its streams are over, or when the client
leaves before that.

Requests can be nested: a view may send a request to its app through a test client, and other contexts can be pushed and
popped during a request. Each scope knows its contexts, so that the end of a context ends the scope of its request and
not an outer one.
"""

from __future__ import annotations

import _socket
import os
import socket
import struct
import weakref
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, closing, suppress
from contextvars import ContextVar, Token
from functools import partial
from typing import Any

from gevent.socket import socket as GreenSocket

from greendata.errors import NotAResult
from greendata.hub.deadline import deadline
from greendata.hub.entry_queue import EntryQueue
from greendata.hub.result import Result
from greendata.internals.gevent import get_hub_if_exists
from greendata.pool.job import default_key, on_submit

__all__ = ("Scope", "current_scope", "keep", "reset_of", "socket_of")

LEFT = "the client left"
OVER = "the request is over"
READABLE = 1  # libev's and libuv's flag

# Where servers on gevent's sockets put the client's socket: gunicorn's gevent worker, its pywsgi worker, werkzeug.
_KEYS = ("gunicorn.socket", "gunicorn.sock", "werkzeug.socket")

_scope: ContextVar[Scope | None] = ContextVar("greendata.scope", default=None)


class Scope:
    """The queries of one request. The request's greenlet enters and leaves it; any thread may adopt results.

    Attributes:
        is_left: True if the client has left.
        unhandled: an exception of the request without a handler, or None.

    Args:
        client: the client's socket, or None if the server does not provide it. It is watched while queries are
            pending; nothing is read from it.
        owners: the contexts of the request, whose end may end the scope; compared by identity.

    Example:
        >>> import greendata
        >>> scope = Scope(None)
        >>> scope.enter(seconds=5.0)
        >>> result = greendata.run(sum, [1, 2])
        >>> scope.leave()
        >>> result.ready()
        True
    """

    __slots__ = (
        "_block",
        "_client",
        "_entry_queue",
        "_holders",
        "_hub",
        "_owners",
        "_reason",
        "_refs",
        "_tokens",
        "_watcher",
        "is_left",
        "unhandled",
    )

    def __init__(self, client: GreenSocket | None, owners: tuple[object, ...] = ()) -> None:
        self._owners = owners  # set once
        self.is_left = False  # the client has left; the hub's thread writes, any thread reads
        self.unhandled: BaseException | None = None  # as reported to Flask; the request's greenlet only
        self._reason = ""  # set at the end; any thread writes, the first value is kept
        self._holders: list[None] = []  # the view and each of its streams; any thread, one C call each
        self._refs: set[weakref.ref[Result[Any]]] = set()  # any thread, one C call each
        self._hub: Any = get_hub_if_exists()
        self._client = client if self._hub is not None else None  # the hub's thread; any thread writes None
        self._entry_queue: EntryQueue | None = None  # the hub's thread writes it once, before it watches
        self._watcher: Any = None  # from here on: the hub's thread only
        self._tokens: list[tuple[ContextVar[Any], Token[Any]]] = []
        self._block: AbstractContextManager[float] | None = None

    def enter(self, *, seconds: float | None) -> None:
        """Adopt everything that is submitted in this context. Call from the request's greenlet.

        Args:
            seconds: the deadline of all its queries, from now; None for none.

        Raises:
            BadTimeout: *seconds* is negative or not a number; the scope was not entered.
        """
        if seconds is not None:
            self._block = deadline(seconds)
            self._block.__enter__()
        self.hold()
        self._set(_scope, self)
        self._set(on_submit, self.adopt)

    def take_turns(self, key: Hashable) -> None:
        """Set the key of later submits, see `greendata.pool.pool.Pool.submit`. Call between `enter` and `leave`."""
        self._set(default_key, key)

    def leave(self) -> None:
        """Undo `enter`, and end the scope unless a stream continues. Idempotent. Call from the request's greenlet.

        In a context other than that of `enter` there is nothing to undo.
        """
        tokens, self._tokens = self._tokens, []
        if not tokens:
            return
        self.unhandled = None
        block, self._block = self._block, None
        with suppress(ValueError):  # another context
            for variable, token in reversed(tokens):
                variable.reset(token)
            if block is not None:
                block.__exit__(None, None, None)
        self.release()

    def is_of(self, context: object) -> bool:
        """Return True if *context* is one of the owners."""
        return any(owner is context for owner in self._owners)

    def hold(self) -> None:
        """Prevent the end of the scope until `release`, for a stream that outlives the view. Safe from any thread."""
        self._holders.append(None)

    def release(self) -> None:
        """Undo one `hold`; the last `release` ends the scope. Safe from any thread."""
        self._holders.pop()
        if not self._holders:
            self.end()

    def adopt(self, result: Result[Any]) -> None:
        """Add *result* to the scope, or cancel it if the scope has ended. Safe from any thread."""
        if result.ready():
            return
        self._refs.add(weakref.ref(result, self._refs.discard))
        if self._reason:
            result.cancel(self._reason)
        elif self._client is not None and self._watcher is None and get_hub_if_exists() is self._hub:
            self._watch(self._client)

    def keep(self, result: Result[Any]) -> None:
        """Release *result* and the results that it gathers, so that they outlive the request. Safe from any thread."""
        self._refs.discard(weakref.ref(result))
        for member in result.members:
            if isinstance(member, Result):
                self.keep(member)

    def cancel(self, reason: str) -> None:
        """Cancel pending results and all later ones, with that reason. Safe from any thread."""
        self._reason = self._reason or reason
        for ref in list(self._refs):  # in one step: making a tuple may start the collector, which removes some
            result = ref()
            if result is not None:
                result.cancel(self._reason)
        self._refs.clear()

    def end(self) -> None:
        """Cancel pending results and stop watching the client. Idempotent. Safe from any thread."""
        self._client = None
        self.cancel(OVER)
        if get_hub_if_exists() is self._hub:
            self._unwatch()
        elif self._entry_queue is not None:  # for example, the garbage collector closed a stream on a worker
            self._entry_queue.post(self._unwatch)

    def _set(self, variable: ContextVar[Any], value: object) -> None:
        self._tokens.append((variable, variable.set(value)))

    def _watch(self, client: GreenSocket) -> None:
        if client.fileno() < 0:  # closed by the server, or by code that took the connection over
            self._client = None
            return
        self._entry_queue = EntryQueue.here()
        self._watcher = self._hub.loop.io(client.fileno(), READABLE)
        self._watcher.start(self._on_readable)

    def _unwatch(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.close()

    def _on_readable(self) -> None:
        """Handle a readable socket: the client has sent something, or has left. Called in the hub."""
        client = self._client
        if client is None:
            return
        descriptor = client.fileno()
        self._unwatch()
        if descriptor < 0:  # the server has closed it, and its number may have been reused
            self._client = None
        elif _has_left(descriptor):
            self.is_left = True
            self.cancel(LEFT)
        else:  # an unread body or the next request: until it is read, the end cannot be detected
            self._client = None


def current_scope() -> Scope | None:
    """Return the scope of the current request, also inside its jobs, or None outside a request.

    Example:
        >>> current_scope() is None
        True
    """
    return _scope.get()


def keep(result: Result[Any]) -> Result[Any]:
    """Let *result* outlive the request that submitted it, for work without a waiter, and return *result*.

    The deadline of the request still applies. If `greendata.gather` made *result*, its members are kept as well.

    Raises:
        NotAResult: *result* is not a Result.

    Example:
        >>> import greendata
        >>> keep(greendata.run(sum, [1, 2])).get(timeout=5)
        3
    """
    if not isinstance(result, Result):
        raise NotAResult(result)
    scope = _scope.get()
    if scope is not None:
        scope.keep(result)
    return result


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
