"""What one request has begun: its deadline, its turn in the queue, and an end for its queries when it ends.

Everything that is submitted while a request is handled belongs to it: the verbs and plain ``lf.collect()`` under the
patch. Those queries are cancelled when the view and its streams are over, and when the client leaves before.

Requests nest: a view may ask its own app by way of a test client, and other contexts of a request come and go inside
it. Each scope knows its own contexts, so that what ends is the scope of that request and not one around it.
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

# Where a server that runs on gevent's sockets puts the client's: gunicorn's gevent worker, its pywsgi worker, werkzeug.
_KEYS = ("gunicorn.socket", "gunicorn.sock", "werkzeug.socket")

_scope: ContextVar[Scope | None] = ContextVar("greendata.scope", default=None)


class Scope:
    """The queries of one request. Its greenlet enters and leaves it; results may be adopted by any thread.

    Attributes:
        is_left: the client has gone.
        unhandled: an exception of the request for which there was no handler.

    Args:
        client: the client's socket, or None where the server does not tell. It is looked at while queries are
            pending; nothing is read from it.
        owners: what the scope may end with, the contexts of the request; compared by identity.

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
        self.is_left = False  # the client has gone; the hub's thread writes, any thread reads
        self.unhandled: BaseException | None = None  # what Flask was told of; the request's greenlet
        self._reason = ""  # once it is over; any thread writes, the first is kept
        self._holders: list[None] = []  # the view and each of its streams; any thread, one C call each
        self._refs: set[weakref.ref[Result[Any]]] = set()  # any thread, one C call each
        self._hub: Any = get_hub_if_exists()
        self._client = client if self._hub is not None else None  # the hub's thread; any thread writes None
        self._entry_queue: EntryQueue | None = None  # the hub's thread writes it once, before it watches
        self._watcher: Any = None  # from here on: the hub's thread only
        self._tokens: list[tuple[ContextVar[Any], Token[Any]]] = []
        self._block: AbstractContextManager[float] | None = None

    def enter(self, *, seconds: float | None) -> None:
        """Make what is submitted in this context part of the scope. Call from the request's greenlet.

        Args:
            seconds: the deadline of all its queries, from now; None for none.

        Raises:
            BadTimeout: *seconds* is negative or no number; nothing was entered.
        """
        if seconds is not None:
            self._block = deadline(seconds)
            self._block.__enter__()
        self.hold()
        self._set(_scope, self)
        self._set(on_submit, self.adopt)

    def take_turns(self, key: Hashable) -> None:
        """Give what is submitted from here on a key, see `greendata.pool.pool.Pool.submit`. Call between the two."""
        self._set(default_key, key)

    def leave(self) -> None:
        """Undo `enter`, and end the scope if no stream goes on. Idempotent. Call from the request's greenlet.

        In another context than that of `enter` there is nothing to undo.
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
        """True if *context* is one of its owners."""
        return any(owner is context for owner in self._owners)

    def hold(self) -> None:
        """Keep the scope from ending until `release`: a stream goes on after the view. Safe from any thread."""
        self._holders.append(None)

    def release(self) -> None:
        """Take one `hold` back; the last one ends the scope. Safe from any thread."""
        self._holders.pop()
        if not self._holders:
            self.end()

    def adopt(self, result: Result[Any]) -> None:
        """Make *result* part of the scope; cancel it if that is over. Safe from any thread."""
        if result.ready():
            return
        self._refs.add(weakref.ref(result, self._refs.discard))
        if self._reason:
            result.cancel(self._reason)
        elif self._client is not None and self._watcher is None and get_hub_if_exists() is self._hub:
            self._watch(self._client)

    def keep(self, result: Result[Any]) -> None:
        """Let go of *result*, and of what it gathers: they outlive the request. Safe from any thread."""
        self._refs.discard(weakref.ref(result))
        for member in result.members:
            if isinstance(member, Result):
                self.keep(member)

    def cancel(self, reason: str) -> None:
        """Cancel what is pending and what will be submitted, for that reason. Safe from any thread."""
        self._reason = self._reason or reason
        for ref in list(self._refs):  # in one step: to make a tuple can start the collector, and so lose some of them
            result = ref()
            if result is not None:
                result.cancel(self._reason)
        self._refs.clear()

    def end(self) -> None:
        """Cancel what is pending, and look at the client no more. Idempotent. Safe from any thread."""
        self._client = None
        self.cancel(OVER)
        if get_hub_if_exists() is self._hub:
            self._unwatch()
        elif self._entry_queue is not None:  # a stream that the garbage collector closed, on a worker, say
            self._entry_queue.post(self._unwatch)

    def _set(self, variable: ContextVar[Any], value: object) -> None:
        self._tokens.append((variable, variable.set(value)))

    def _watch(self, client: GreenSocket) -> None:
        if client.fileno() < 0:  # the server, or what has taken the connection over, has closed it
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
        """The client has sent something, or has left. Called in the hub."""
        client = self._client
        if client is None:
            return
        descriptor = client.fileno()
        self._unwatch()
        if descriptor < 0:  # the server has closed it, and its number may be another's by now
            self._client = None
        elif _has_left(descriptor):
            self.is_left = True
            self.cancel(LEFT)
        else:  # a body that nobody has read, or the next request: until it is read, nothing more is to be seen
            self._client = None


def current_scope() -> Scope | None:
    """The scope of the request that the caller handles, also inside its jobs; None outside a request.

    Example:
        >>> current_scope() is None
        True
    """
    return _scope.get()


def keep(result: Result[Any]) -> Result[Any]:
    """Let *result* outlive the request that submitted it, and return it: for work that nobody waits for.

    It has the deadline of the request still. One that `greendata.gather` made keeps what it gathers.

    Raises:
        NotAResult: it is no Result.

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
    """The client's socket, where the server tells it and it can be looked at: not through TLS.

    Example:
        >>> socket_of({}) is None
        True
    """
    found = _socket_in(environ)
    return found if isinstance(found, GreenSocket) and not hasattr(found, "context") else None


def reset_of(environ: dict[str, Any]) -> Callable[[], object] | None:
    """What breaks the connection off where its end is all that ends the answer; None where more than that tells.

    In HTTP/1.0, which nginx speaks to the servers behind it unless it is told otherwise, half an answer would end as a
    whole one does.

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
    client.close()  # before the server would say by a shutdown that this was all


def _socket_in(environ: dict[str, Any]) -> Any:
    found = next(filter(None, map(environ.get, _KEYS)), None)
    if found is None:  # gevent.pywsgi has it in the file that the body is read from
        reader = getattr(environ.get("wsgi.input"), "rfile", None)
        found = getattr(getattr(reader, "raw", None), "_sock", None)
    return found


def _has_left(descriptor: int) -> bool:
    """True if there is nothing to read but the end. A descriptor of our own, so that nobody waits on gevent's."""
    with closing(_socket.socket(fileno=os.dup(descriptor))) as client:
        try:
            return client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:  # reset
            return True
