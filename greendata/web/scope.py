"""The scope of a request: the deadline and the key of its queries, which are cancelled when the request ends.

Everything that is submitted while a request is handled belongs to it, through the verbs and through a plain
``lf.collect()`` under the patch. These queries are cancelled when the view and its streams are over, or when the client
leaves before that.

Requests can be nested: a view may send a request to its app through a test client, and other contexts can be pushed and
popped during a request. Each scope knows its contexts, so that the end of a context ends the scope of its request and
not an outer one.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from contextlib import AbstractContextManager, suppress
from contextvars import ContextVar, Token
from typing import Any

from gevent.socket import socket as GreenSocket

from greendata.errors import NotAResult
from greendata.hub.deadline import deadline
from greendata.hub.result import Result
from greendata.observe.running import origin
from greendata.pool.job import default_key, default_label, on_submit
from greendata.web.client import ClientWatch

__all__ = ("RequestScope", "current_scope", "keep")

LEFT = "the client left"
OVER = "the request is over"

_scope: ContextVar[RequestScope | None] = ContextVar("greendata.scope", default=None)


class RequestScope:
    """The queries of one request. The request's greenlet enters and leaves it; any thread may adopt results.

    Attributes:
        is_left: True if the client has left.
        unhandled: an exception of the request without a handler, or None.
        seconds: the deadline that was given to `enter`, or None.
        limit: the name of that deadline, for the client.

    Args:
        client: the client's socket, or None if the server does not provide it. It is watched while queries are
            pending; nothing is read from it.
        owners: the contexts of the request, whose end may end the scope; compared by identity.

    Example:
        >>> import greendata
        >>> scope = RequestScope(None)
        >>> scope.enter(seconds=5.0)
        >>> result = greendata.run(sum, [1, 2])
        >>> scope.leave()
        >>> result.ready()
        True
    """

    __slots__ = (
        "_block",
        "_holders",
        "_owners",
        "_reason",
        "_refs",
        "_tokens",
        "_watch",
        "is_left",
        "limit",
        "seconds",
        "unhandled",
    )

    def __init__(self, client: GreenSocket | None, owners: tuple[object, ...] = ()) -> None:
        self._owners = owners  # set once
        self.is_left = False  # the client has left; the hub's thread writes, any thread reads
        self.unhandled: BaseException | None = None  # as reported to Flask; the request's greenlet only
        self.seconds: float | None = None  # set by `enter`, as the name
        self.limit = ""
        self._reason = ""  # set at the end; any thread writes, the first value is kept
        self._holders: list[None] = []  # the view and each of its streams; any thread, one C call each
        self._refs: set[weakref.ref[Result[Any]]] = set()  # any thread, one C call each
        # The request's greenlet sets it, and any thread drops it at the end: it refers to the scope.
        self._watch = None if client is None else ClientWatch(client, self._on_left)
        self._tokens: list[tuple[ContextVar[Any], Token[Any]]] = []  # from here on: the request's greenlet only
        self._block: AbstractContextManager[float] | None = None

    def enter(self, *, seconds: float | None, limit: str = "") -> None:
        """Adopt everything that is submitted in this context. Call from the request's greenlet.

        Args:
            seconds: the deadline of all its queries, from now; None for none.
            limit: the name of the deadline.

        Raises:
            BadTimeout: *seconds* is negative or not a number; the scope was not entered.
        """
        self.seconds, self.limit = seconds, limit
        if seconds is not None:
            self._block = deadline(seconds)
            self._block.__enter__()
        self.hold()
        self._set(_scope, self)
        self._set(on_submit, self.adopt)

    def take_turns(self, key: Hashable) -> None:
        """Set the key of later submits, see `greendata.pool.pool.Pool.submit`. Call between `enter` and `leave`."""
        self._set(default_key, key)

    def name_queries(self, label: str) -> None:
        """Set the label of patched Polars functions that are called later. Call between `enter` and `leave`."""
        self._set(default_label, label)

    def show_origin(self, text: str) -> None:
        """Set what is shown as the origin of later jobs, see `RunningJob`. Call between `enter` and `leave`."""
        self._set(origin, text)

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
        elif (watch := self._watch) is not None:
            watch.start()

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
        self.cancel(OVER)
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.stop()

    def _set(self, variable: ContextVar[Any], value: object) -> None:
        self._tokens.append((variable, variable.set(value)))

    def _on_left(self) -> None:
        self.is_left = True
        self.cancel(LEFT)


def current_scope() -> RequestScope | None:
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
