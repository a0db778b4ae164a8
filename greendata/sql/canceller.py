"""Cancellation of the statement that a job is executing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from greendata.errors import QueryFailed
from greendata.hub import native
from greendata.hub.contexts import contextmanager

__all__ = ("Canceller",)

_PAUSES = (0.0, 0.01, 0.1, 1.0, 5.0)  # seconds before each attempt: the statement may start just after the first one


class Canceller:
    """Cancel the statement of one job from another thread. A lock keeps the statement open meanwhile.

    ::

        any thread                             worker
        ----------                             ------
        request(): set _is_requested           running(): set _cancel
                   read _cancel                           check _is_requested
        cancel():  call _cancel(), under       leave the block: clear _cancel, under
                   the lock                               the lock, then close the statement

    Each side writes before it reads, so at least one of them sees the other.

    Example:
        >>> canceller = Canceller()
        >>> with canceller.running(lambda: print("stop"), "SELECT 1"):
        ...     canceller.request()
        True
    """

    def __init__(self) -> None:
        self._lock = native.allocate_lock()
        self._cancel: Callable[[], object] | None = None  # the worker writes it under the lock; any thread reads it
        self._is_requested = False  # any thread sets it

    def request(self) -> bool:
        """Let no further statement start. Return True if one is running. Safe from any thread."""
        self._is_requested = True
        return self._cancel is not None

    def cancel(self) -> None:
        """Cancel the running statement in the database, if the database can. May block."""
        begun = self._cancel
        for pause in _PAUSES:
            native.sleep(pause)
            with self._lock:
                if begun is None or self._cancel is not begun:
                    return
                begun()

    def check(self, sql: str) -> None:
        """Raise if cancellation was requested.

        Raises:
            QueryFailed: the job was given up.
        """
        if self._is_requested:
            raise QueryFailed(sql, "it was given up", None)

    @contextmanager
    def running(self, cancel: Callable[[], object], sql: str) -> Iterator[None]:
        """Let *cancel*, which must not raise, stop the statement that the block executes. Call on a worker.

        Raises:
            QueryFailed: the job was given up.
        """
        with self._lock:
            self._cancel = cancel
        try:
            self.check(sql)  # after `_cancel` is set; `request` works in the opposite order
            yield
        finally:
            with self._lock:
                self._cancel = None
