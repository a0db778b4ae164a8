"""`Operation`: several jobs that the statistics count as one query.

A streamed response reads each batch in a job of its own, and a validation runs some jobs of Polars around pydantic. To
an operator each of these is one query. So the code that submits the jobs makes an operation, submits the jobs as its
parts, and reports its end. Jobs that serve no query of their own, such as closing a file, are parts of `INTERNAL`,
which is never reported.

A job finds its operation in its context, which it copies at submit. So a job costs nothing more than before, and the
operation is looked up only while somebody listens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from time import monotonic
from typing import Any

from greenlet import GreenletExit

from greendata.errors import BodyTooLarge, FrameInvalid, JobCancelled, Malformed
from greendata.hub import native
from greendata.hub.contexts import contextmanager
from greendata.hub.outcome import Outcome, Status

__all__ = ("INTERNAL", "Operation", "current_operation", "operation")

REFUSED_INPUT = (BodyTooLarge, FrameInvalid, Malformed)  # outcomes of a check that worked, not failures of the service

# The operation of the jobs that are submitted in a context.
current_operation: ContextVar[Operation | None] = ContextVar("greendata.operation", default=None)

# Called with each operation that has finished and the error that ended it, in any thread. `greendata.observe` replaces
# the tuple as a whole.
listeners: tuple[Callable[[Operation, BaseException | None], object], ...] = ()


class Operation:
    """A query of several jobs.

    Attributes:
        label: the name of the query.
        stops: True if its running job ends soon after a cancel; otherwise Polars computes on.
        began: when it was made, on `time.monotonic`'s clock.
        status: the outcome; RUNNING until `finish`.
        waited: seconds that its first job waited for a worker.
        ran: seconds that its jobs have run together; None if none began.

    Safe from any thread.

    Example:
        >>> import greendata
        >>> from greendata.pool import pool
        >>> found = Operation("report")
        >>> with found.parts():
        ...     pool.submit(sum, [1, 2]).get(timeout=5)
        3
        >>> found.finish()
        >>> found.status
        <Status.DONE: 'done'>
    """

    __slots__ = ("_lock", "began", "label", "ran", "status", "stops", "waited")

    def __init__(self, label: str, *, stops: bool = False) -> None:
        self.label = label
        self.stops = stops
        self.began = monotonic()
        self._lock = native.RLock()  # guards all fields below; reentrant: a finalizer may finish another operation
        self.status = Status.RUNNING
        self.waited: float | None = None
        self.ran: float | None = None

    @contextmanager
    def parts(self) -> Iterator[None]:
        """Make the jobs that are submitted in the block parts of this operation, or of the one around it."""
        if current_operation.get() is not None:
            yield
            return
        token = current_operation.set(self)
        try:
            yield
        finally:
            current_operation.reset(token)

    def add(self, result: Outcome[Any]) -> None:
        """Add the times of a part that has an outcome. Called in the hub that submitted the part."""
        with self._lock:
            if self.waited is None:
                self.waited = result.queued_seconds
            if result.times[1] is not None:
                self.ran = (self.ran or 0.0) + result.run_seconds

    def finish(self, error: BaseException | None = None, *, stopped: bool = False) -> None:
        """Report the end, unless it was reported or no part has an outcome. Idempotent.

        Args:
            error: the error that ended it. Input that was refused counts as done.
            stopped: it was given up before its end, without an error.
        """
        with self._lock:
            if self.status is not Status.RUNNING:
                return
            if stopped or isinstance(error, JobCancelled | GreenletExit | GeneratorExit):
                self.status = Status.CANCELLED
            elif error is None or isinstance(error, REFUSED_INPUT):
                self.status = Status.DONE
            else:
                self.status = Status.FAILED
            if self.waited is None:
                return
        for listener in listeners:
            listener(self, error)  # not kept here: its frames refer to the code that holds the operation


class _Internal(Operation):
    """The operation of jobs that serve no query of their own. It is never reported."""

    __slots__ = ()

    def add(self, result: Outcome[Any]) -> None:
        """Do nothing."""

    def finish(self, error: BaseException | None = None, *, stopped: bool = False) -> None:
        """Do nothing."""


INTERNAL = _Internal("internal")


@contextmanager
def operation(label: str) -> Iterator[None]:
    """Count the jobs that are submitted in the block as one query of that name, or as parts of the one around it.

    Example:
        >>> import greendata
        >>> with operation("report"):
        ...     greendata.run(sum, [1, 2]).get(timeout=5) + greendata.run(sum, [3]).get(timeout=5)
        6
    """
    if current_operation.get() is not None:
        yield
        return
    made = Operation(label)
    token = current_operation.set(made)
    try:
        yield
    except BaseException as error:
        made.finish(error)
        raise
    else:
        made.finish()
    finally:
        current_operation.reset(token)
