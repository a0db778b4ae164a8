"""Route log records from native threads to a hub.

Native threads and greenlets may share a handler (`greendata.threads.sharing`). If that is switched off, or if a handler
has to run in a greenlet, `route_logging` sends records from native threads to a hub, which handles them in a greenlet.
greendata's own threads never log, but a user's function inside a Polars query may.
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
    """Handle records from other threads in a greenlet of the calling thread, until the router is closed.

    Call it once, where the service sets up its logging, from the hub's thread.

    Args:
        handlers: the handlers to route. By default all handlers that the root and the other loggers have now.

    Example:
        >>> import greendata
        >>> with route_logging():
        ...     greendata.run(logging.getLogger("example").info, "from a native thread").get(timeout=5)
    """
    return LogRouter(handlers or _all_handlers())


class LogRouter(Closing):
    """Filter handlers: let records of the hub's thread pass, and send all others to the hub. See `route_logging`."""

    def __init__(self, handlers: tuple[logging.Handler, ...]) -> None:
        self._thread = native.get_ident()  # any thread reads
        self._records: deque[tuple[logging.Handler, logging.LogRecord]] = deque()  # any thread appends; the hub's pops
        self._waker = HubWaker.here(ensure_hub())
        # The greenlet that logs, while there are records; hub's thread only.
        self._writer: gevent.Greenlet[[], None] | None = None
        self._filters = [_RouterFilter(self, handler) for handler in handlers]
        self._number = 0
        self._is_closed = False  # the hub's thread sets it, any thread reads
        self._listen()
        atexit.register(self.close)
        me = weakref.WeakMethod(self._listen)
        os.register_at_fork(after_in_child=lambda: (listen := me()) is not None and listen())

    def route(self, handler: logging.Handler, record: logging.LogRecord) -> bool:
        """Send the record to the hub, which handles it in a greenlet. Return False if the caller must handle it.

        That is so in the hub's thread, and after `close`. Safe from any thread.
        """
        if native.get_ident() == self._thread:
            return False
        entry = handler, record
        self._records.append(entry)
        self._waker.notify(self._number)
        if self._is_closed:  # read after the append; `close` sets it first and then logs what was appended
            with suppress(ValueError):  # the record is being logged
                self._records.remove(entry)
                return False
        return True

    def close(self) -> None:
        """Release the handlers, and handle the remaining records now. Idempotent. Call from the hub's thread."""
        for each in self._filters:
            each.handler.removeFilter(each)
        self._filters.clear()
        self._is_closed = True
        self._waker.forget(self._number)
        atexit.unregister(self.close)
        self._write()

    def _listen(self) -> None:
        self._number = self._waker.listen(self._on_notify)  # does not keep the process running

    def _on_notify(self) -> None:
        if self._records and self._writer is None:  # in a greenlet, because a handler may wait for its lock
            self._writer = gevent.spawn(self._write)

    def _write(self) -> None:
        try:
            while self._records:
                handler, record = self._records.popleft()
                handler.handle(record)
        finally:
            self._writer = None
            if self._records:  # a handler failed: continue without waiting for the next notify
                self._on_notify()


class _RouterFilter(logging.Filter):
    """The filter that the router adds to one handler. Filters run before the handler acquires its lock."""

    def __init__(self, router: LogRouter, handler: logging.Handler) -> None:
        super().__init__()
        self._router = router
        self.handler = handler
        handler.addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        return not self._router.route(self.handler, record)


def _all_handlers() -> tuple[logging.Handler, ...]:
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    handlers = [handler for logger in loggers for handler in getattr(logger, "handlers", ())]
    return tuple(dict.fromkeys(handlers))
