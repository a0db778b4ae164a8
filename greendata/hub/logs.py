"""The router for log records that users' functions make in native threads.

Native threads and greenlets may share a handler (`greendata.threads.sharing`). Where that is switched off, and for a
handler that needs to run in a greenlet, `route_logging` brings records from native threads to the hub, which logs them
itself. greendata's own threads never log; a function inside a Polars query may.
"""

from __future__ import annotations

import atexit
import logging
import os
import weakref
from collections import deque
from contextlib import suppress

import gevent

from greendata.hub import native
from greendata.hub.closing import Closing
from greendata.hub.hubs import ensure_hub
from greendata.hub.waker import HubWaker

__all__ = ("LogRouter", "route_logging")


def route_logging(*handlers: logging.Handler) -> LogRouter:
    """Have records from other threads handled in a greenlet of the calling thread, until the router is closed.

    Call once, where the service sets up its logging, on the hub's thread.

    Args:
        handlers: those to route; without any, all that the root and the other loggers have now.

    Example:
        >>> import greendata
        >>> with route_logging():
        ...     greendata.run(logging.getLogger("example").info, "from a native thread").get(timeout=5)
    """
    return LogRouter(handlers or _all_handlers())


class LogRouter(Closing):
    """Stands before handlers and lets through what comes from the hub's thread; see `route_logging`."""

    def __init__(self, handlers: tuple[logging.Handler, ...]) -> None:
        self._thread = native.get_ident()  # any thread reads
        self._records: deque[tuple[logging.Handler, logging.LogRecord]] = deque()  # any thread appends; home pops
        self._waker = HubWaker.here(ensure_hub())
        self._writer: gevent.Greenlet[[], None] | None = (
            None  # the greenlet that logs, while there are records; home only
        )
        self._gates = [_Gate(self, handler) for handler in handlers]
        self._number = 0
        self._is_closed = False  # home sets it, any thread reads
        self._listen()
        atexit.register(self.close)
        me = weakref.WeakMethod(self._listen)
        os.register_at_fork(after_in_child=lambda: (listen := me()) is not None and listen())

    def takes(self, handler: logging.Handler, record: logging.LogRecord) -> bool:
        """True if the record goes to the hub and the caller shall not handle it. Safe from any thread."""
        if native.get_ident() == self._thread:
            return False
        noted = handler, record
        self._records.append(noted)
        self._waker.notify(self._number)
        if self._is_closed:  # looked at when it is noted: `close` does it the other way round
            with suppress(ValueError):  # it is being logged
                self._records.remove(noted)
                return False
        return True

    def close(self) -> None:
        """Let go of the handlers; what has not been logged is logged now. Idempotent; call at home."""
        for gate in self._gates:
            gate.handler.removeFilter(gate)
        self._gates.clear()
        self._is_closed = True
        self._waker.forget(self._number)
        atexit.unregister(self.close)
        self._write()

    def _listen(self) -> None:
        self._number = self._waker.listen(self._on_ring)  # it does not keep the process

    def _on_ring(self) -> None:
        if self._writer is None:  # a greenlet, because a handler may wait for its lock
            self._writer = gevent.spawn(self._write)

    def _write(self) -> None:
        try:
            while self._records:
                handler, record = self._records.popleft()
                handler.handle(record)
        finally:
            self._writer = None
            if self._records:  # a handler failed: the rest is not for the next ring
                self._on_ring()


class _Gate(logging.Filter):
    """The router's place before one handler: filters run before the handler takes its lock."""

    def __init__(self, router: LogRouter, handler: logging.Handler) -> None:
        super().__init__()
        self._router = router
        self.handler = handler
        handler.addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        return not self._router.takes(self.handler, record)


def _all_handlers() -> tuple[logging.Handler, ...]:
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    handlers = [handler for logger in loggers for handler in getattr(logger, "handlers", ())]
    return tuple(dict.fromkeys(handlers))
