"""The one statement of a job that can be stopped now."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from greendata.errors import QueryFailed
from greendata.hub import native
from greendata.hub.contexts import contextmanager

__all__ = ("Canceller",)

_PAUSES = (0.0, 0.01, 0.1, 1.0, 5.0)  # seconds before each attempt: a statement may begin a moment after the first


class Canceller:
    """What gives a statement up. The lock keeps the statement open while another thread stops it.

    Example:
        >>> canceller = Canceller()
        >>> with canceller.running(lambda: print("stop"), "SELECT 1"):
        ...     canceller.request()
        True
    """

    def __init__(self) -> None:
        self._lock = native.allocate_lock()
        self._cancel: Callable[[], object] | None = None  # written under the lock by the worker, any thread reads
        self._is_given_up = False  # any thread sets it

    def request(self) -> bool:
        """From now on no statement begins; True if one runs that is to be stopped. Safe from any thread."""
        self._is_given_up = True
        return self._cancel is not None

    def cancel(self) -> None:
        """Have the database give up the statement that runs now, if it can. It may block."""
        begun = self._cancel
        for pause in _PAUSES:
            native.sleep(pause)
            with self._lock:
                if begun is None or self._cancel is not begun:
                    return
                begun()

    def check(self, sql: str) -> None:
        """Raise if the job was given up.

        Raises:
            QueryFailed: it was.
        """
        if self._is_given_up:
            raise QueryFailed(sql, "it was given up", None)

    @contextmanager
    def running(self, cancel: Callable[[], object], sql: str) -> Iterator[None]:
        """In the block *cancel*, which does not raise, stops what runs; call it on the worker.

        Raises:
            QueryFailed: the job was given up.
        """
        with self._lock:
            self._cancel = cancel
        try:
            self.check(sql)  # looked at when it is in its place; `request` does it the other way round
            yield
        finally:
            with self._lock:
                self._cancel = None
