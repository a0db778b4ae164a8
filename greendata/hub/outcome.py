"""`Outcome`: what became of a job, decided once by whoever comes first, and seen by every thread from then on."""

from __future__ import annotations

from enum import StrEnum
from time import monotonic
from typing import Any, Generic, TypeVar, cast

from gevent.event import AsyncResult

from greendata.errors.notes import trace_of

__all__ = ("Outcome", "Status")

T = TypeVar("T")


class Status(StrEnum):
    """Where a result stands: ``QUEUED -> RUNNING -> DONE | FAILED | CANCELLED``.

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
        label: what the job is called.
        worker: the native thread that ran it, or "".

    Safe from any thread; it wakes nobody, see `Result`.

    Example:
        >>> outcome = Outcome("total")
        >>> outcome.settle(Status.DONE, 6), outcome.settle(Status.FAILED, error=ValueError())
        (True, False)
        >>> outcome.status, outcome.value
        (<Status.DONE: 'done'>, 6)
    """

    __slots__ = ("_began", "_born", "_outcomes", "label", "worker")

    def __init__(self, label: str) -> None:
        AsyncResult.__init__(self)  # each job makes one, and two calls of super() cost 0.1 us
        self.label = label
        self.worker = ""  # the worker writes it before the outcome
        # Any thread appends, in one C call, and the first has decided: what is decided can be read from that moment on.
        self._outcomes: list[tuple[Status, Any, BaseException | None, Any, float]] = []
        self._born = monotonic()
        self._began: float | None = None  # the worker, once

    @property
    def status(self) -> Status:
        """Where the job stands now."""
        if self._outcomes:
            return self._outcomes[0][0]
        return Status.QUEUED if self._began is None else Status.RUNNING

    def ready(self) -> bool:
        """True once there is an outcome: a value, an error or a cancellation."""
        return bool(self._outcomes)

    done = ready

    def successful(self) -> bool:
        """True if the outcome is a value."""
        return self.status is Status.DONE

    def cancelled(self) -> bool:  # type: ignore[override]  # gevent's is always False
        """True if `cancel` decided the outcome."""
        return self.status is Status.CANCELLED

    @property
    def value(self) -> T | None:
        """The value, or None where there is none (yet)."""
        return cast("T | None", self._outcomes[0][1]) if self._outcomes else None

    @property
    def exception(self) -> BaseException | None:
        """The error, or None where there is none (yet)."""
        return self._outcomes[0][2] if self._outcomes else None

    @property
    def exc_info(self) -> tuple[Any, ...]:
        """Type, error and traceback as the job raised it; () where there is no error."""
        if self.exception is None:
            return ()
        _, _, error, trace, _ = self._outcomes[0]
        return (type(error), error, trace)

    @property
    def queued_seconds(self) -> float:
        """How long the job has waited, or did wait, for a worker."""
        born, began, ended = self.times
        return (began or ended or monotonic()) - born

    @property
    def run_seconds(self) -> float:
        """How long the job has run, or did run until its outcome was decided."""
        _, began, ended = self.times
        return 0.0 if began is None else (ended or monotonic()) - began

    @property
    def times(self) -> tuple[float, float | None, float | None]:
        """When it was submitted, began and was decided, on `time.monotonic`'s clock; None for what has not been."""
        return self._born, self._began, self._outcomes[0][4] if self._outcomes else None

    def settle(self, status: Status, value: Any = None, error: BaseException | None = None) -> bool:
        """Decide the outcome; False if it was decided before. The only place where an outcome is written.

        The caller wakes the waiters afterwards. Safe from any thread.
        """
        outcomes = self._outcomes
        if outcomes:
            return False
        outcome = (status, value, error, None if error is None else trace_of(error), monotonic())
        outcomes.append(outcome)
        if outcomes[0] is outcome:
            return True
        del outcomes[1:]  # those who came too late each do so: none keeps what it holds alive
        return False

    def begin(self, worker: str) -> None:
        """Note that *worker* starts the job now. Called on the worker."""
        self.worker = worker
        self._began = monotonic()
