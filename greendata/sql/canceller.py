"""Cancellation of the statement that a job is executing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from greendata.errors import QueryFailed
from greendata.hub import native
from greendata.hub.contexts import contextmanager
from greendata.pool import workers
from greendata.pool.stopping import is_given_up

__all__ = ("Canceller",)

_PAUSES = (0.0, 0.01, 0.1, 1.0, 5.0)  # seconds before each attempt: the statement may start just after the first one


class Canceller:
    """Cancel the statement of one job from another thread. A lock keeps the statement open meanwhile.

    ::

        thread that gives the job up           worker
        ----------------------------           ------
        settles the result                     running(): sets _cancel
        request(): reads _cancel                          checks whether the result is settled
                   calls it in a new thread,   leaving the block: clears _cancel, under the lock,
                   under the lock                         then the statement is closed

    Each side writes before it reads, so at least one of them sees the other.

    Example:
        >>> canceller = Canceller()
        >>> with canceller.running(lambda: print("stop"), "SELECT 1"):
        ...     canceller.check("SELECT 1")
    """

    def __init__(self) -> None:
        self._lock = native.allocate_lock()
        self._cancel: Callable[[], object] | None = None  # the worker writes it under the lock; any thread reads it

    def request(self) -> None:
        """Cancel the statement that is running, if there is one and the database can. Never blocks. Any thread.

        The job was given up before, so that no further statement starts: see `check`. If the system has no more
        threads, the statement continues.
        """
        if (begun := self._cancel) is not None:
            workers.run_in_new_thread(partial(self._cancel_until_it_ends, begun))

    def check(self, sql: str) -> None:
        """Raise if the job that executes the statement was given up. Call on a worker.

        Raises:
            QueryFailed: it was.
        """
        if is_given_up():
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
            self.check(sql)  # after `_cancel` is set
            yield
        finally:
            with self._lock:
                self._cancel = None

    def _cancel_until_it_ends(self, begun: Callable[[], object]) -> None:
        for pause in _PAUSES:
            native.sleep(pause)
            with self._lock:
                if self._cancel is not begun:
                    return
                begun()
