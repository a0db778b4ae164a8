"""`Outcome`: the value or error of a job, written once by the first thread that settles it, read by any thread."""

from __future__ import annotations

from enum import StrEnum
from time import monotonic
from typing import Any, Generic, TypeVar, cast

from gevent.event import AsyncResult

from greendata.errors.notes import trace_of

__all__ = ("Outcome", "Status")

T = TypeVar("T")


class Status(StrEnum):
    """The state of a result: ``QUEUED -> RUNNING -> DONE | FAILED | CANCELLED``.

    Example:
        >>> Status.DONE == "done"
        True
    """

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Outcome(AsyncResult, Generic[T]):  # type: ignore[type-arg]  # which cannot be subscripted at run time
    """A slot that is written once: by the worker that ran the job, `cancel`, the deadline, or `set`.

    Attributes:
        label: the name of the job.
        worker: the name of the native thread that ran it, or "".

    Safe from any thread. Settling an outcome wakes no waiters; `Result` does that.

    Example:
        >>> outcome = Outcome("total")
        >>> outcome.settle(Status.DONE, 6), outcome.settle(Status.FAILED, error=ValueError())
        (True, False)
        >>> outcome.status, outcome.value
        (<Status.DONE: 'done'>, 6)
    """

    __slots__ = ("_began", "_born", "_outcomes", "label", "worker")

    def __init__(self, label: str) -> None:
        AsyncResult.__init__(self)  # each job makes one, and two calls of super() cost 0.1 microseconds
        self.label = label
        self.worker = ""  # the worker writes it before the outcome
        # Any thread appends, in one C call. The first item is the outcome, readable from that moment on.
        self._outcomes: list[tuple[Status, Any, BaseException | None, Any, float]] = []
        self._born = monotonic()
        self._began: float | None = None  # the worker writes it once

    @property
    def status(self) -> Status:
        """The current state of the job."""
        if self._outcomes:
            return self._outcomes[0][0]
        return Status.QUEUED if self._began is None else Status.RUNNING

    def ready(self) -> bool:
        """Return True once there is an outcome: a value, an error or a cancellation."""
        return bool(self._outcomes)

    done = ready

    def successful(self) -> bool:
        """Return True if the outcome is a value."""
        return self.status is Status.DONE

    def cancelled(self) -> bool:  # type: ignore[override]  # gevent's is always False
        """Return True if `cancel` decided the outcome."""
        return self.status is Status.CANCELLED

    @property
    def value(self) -> T | None:
        """The value, or None if there is none (yet)."""
        return cast("T | None", self._outcomes[0][1]) if self._outcomes else None

    @property
    def exception(self) -> BaseException | None:
        """The error, or None if there is none (yet)."""
        return self._outcomes[0][2] if self._outcomes else None

    @property
    def exc_info(self) -> tuple[Any, ...]:
        """The type, the error and its traceback as the job raised it; () if there is no error."""
        if self.exception is None:
            return ()
        _, _, error, trace, _ = self._outcomes[0]
        return (type(error), error, trace)

    @property
    def queued_seconds(self) -> float:
        """Seconds that the job has waited, or did wait, for a worker."""
        born, began, ended = self.times
        return (began or ended or monotonic()) - born

    @property
    def run_seconds(self) -> float:
        """Seconds that the job has run, or did run until its outcome was decided."""
        _, began, ended = self.times
        return 0.0 if began is None else (ended or monotonic()) - began

    @property
    def times(self) -> tuple[float, float | None, float | None]:
        """When it was submitted, began and was settled, on `time.monotonic`'s clock; None for what has not happened."""
        return self._born, self._began, self._outcomes[0][4] if self._outcomes else None

    def settle(self, status: Status, value: Any = None, error: BaseException | None = None) -> bool:
        """Decide the outcome; return False if it was decided before. No other code writes an outcome.

        The caller must wake the waiters afterwards. Safe from any thread.
        """
        outcomes = self._outcomes
        if outcomes:
            return False
        outcome = (status, value, error, None if error is None else trace_of(error), monotonic())
        outcomes.append(outcome)
        if outcomes[0] is outcome:
            return True
        del outcomes[1:]  # every late caller does this, so that no late value is kept alive
        return False

    def begin(self, worker: str) -> None:
        """Record that *worker* starts the job now. Called in the worker."""
        self.worker = worker
        self._began = monotonic()
