"""`Batches`: the result of a query in pieces, while the query still runs.

Each batch is read by a separate pool job, so a slow consumer occupies no worker between batches. Polars stops
computing when its small internal buffer is full.

    consumer    next() ──────────────► returns batch 1 ── works ── next() ► returns batch 2
    pool        job: read batch 1 ──►┘ job: read batch 2 ───────────────►┘ job: read batch 3
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from greendata.errors import BatchesBusy, BatchesHaveNoResult, BatchesSpent, PolarsForked, PoolFull
from greendata.hub import native
from greendata.hub.closing import Closing
from greendata.hub.deadline import nearest_limit, seconds_of, within
from greendata.hub.result import Result
from greendata.pool import pool
from greendata.pool.cleanup import run_to_completion
from greendata.pool.job import bypassing_queue_limit
from greendata.pool.operation import Operation
from greendata.pool.stopping import stopped_by

__all__ = ("Batches",)

T = TypeVar("T")


class Batches(Closing, Generic[T]):
    """An iterator over DataFrames that does not block the hub, and a context manager that stops the query.

    It reads one batch in advance. Memory is bounded by that batch and by Polars' buffer. The query stops at the end of
    the block, at `close`, after an error, after the last batch, and when the object is dropped. There may be one
    consumer at a time, in any thread.

    `PoolFull` is raised for the first batch or not at all: a stream that has started can finish.
    A Rust panic is not reported: Polars ends the stream there as if it were complete. ``collect`` does raise it.

    Args:
        start: returns Polars' iterator of batches, or an iterator over converted batches. It is called, and its
            iterator is advanced, on a worker.
        stop: ends the batch that a worker is reading when the stream is closed or out of time, see
            `greendata.pool.stopping.stopped_by`; None if that is impossible. Polars stops between two batches.
        timeout: the deadline of the whole stream, in seconds from now.
        key: for fair queueing, see `greendata.pool.pool.Pool.submit`.
        label: the label of its jobs.
        operation: the query that its jobs are parts of; one of its own if None.

    Raises:
        BadTimeout: *timeout* is negative or NaN.

    Example:
        >>> import greendata, polars as pl
        >>> with greendata.batches(pl.LazyFrame({"a": range(10)}), chunk_size=4) as stream:
        ...     [batch.height for batch in stream]
        [4, 4, 2]
    """

    def __init__(
        self,
        start: Callable[[], Iterator[T]],
        *,
        stop: Callable[[], object] | None = None,
        timeout: float | None = None,
        key: Hashable = None,
        label: str = "batches",
        operation: Operation | None = None,
    ) -> None:
        self._source = _Source(start, stop)
        self._deadline = nearest_limit(seconds_of(timeout))
        self._key = key
        self._label = label
        self._operation = Operation(label, stops=True) if operation is None else operation
        self._next: Result[T | None] | None = None  # the batch that is read in advance; set by the consumer's thread
        self._waiting = False  # a consumer waits; tested and set without a call in between, so no thread can switch
        self._requesting = False  # a job is being submitted that `close` cannot see yet; the consumer's thread sets it
        self._releasing = native.allocate_lock()  # the thread that acquires it releases the source
        self._closed = False
        self._closing: Result[None] | None = None  # done when the source is closed; set by the thread that releases it

    if not TYPE_CHECKING:  # type checkers report these uses themselves

        def __getattr__(self, name: str) -> NoReturn:
            if name in ("get", "get_nowait", "result", "wait", "cancel", "ready"):
                raise BatchesHaveNoResult(name)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __iter__(self) -> Batches[T]:
        return self

    def __next__(self) -> T:
        if self._waiting:
            raise BatchesBusy
        if self._closed:
            raise StopIteration
        self._waiting = True
        try:
            next_batch = self._next
            if next_batch is None:
                next_batch = bypassing_queue_limit(self._request_next) if self._source.is_open else self._request_next()
            batch = next_batch.get()
            self._next = None
            if batch is not None and not self._closed:
                with suppress(PoolFull):  # no batch is read in advance then
                    self._request_next()
        except BaseException as error:
            self._operation.finish(error)
            self.close()
            raise
        finally:
            self._waiting = False
        if batch is None:
            self._operation.finish()
            self.close()
            raise StopIteration
        return batch

    def close(self) -> None:
        """Stop the query. Idempotent. A consumer that waits gets `JobCancelled`.

        Never blocks. Safe from any thread.
        """
        if self._closed:
            return
        self._closed = True
        self._operation.finish(stopped=True)  # if it has not ended otherwise
        self._source.closing = True
        if not self._requesting:  # otherwise the consumer releases the source after it has submitted the job
            self._release()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self.close()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return the whole stream as an Arrow C stream. Its consumer pulls natively, and blocks while it waits.

        Raises:
            BatchesSpent: the stream was started or closed before.
        """
        if self._closed or self._next is not None or self._source.is_open:
            raise BatchesSpent
        self._closed = True
        return pool.execute(self._source.export, requested_schema)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "waiting" if self._waiting else "open"
        return f"<Batches {self._label!r} {state} at {id(self):#x}>"

    def _request_next(self) -> Result[T | None]:
        """Submit the job that reads the next batch, and return its result."""
        self._requesting = True
        try:
            self._next = next_batch = self._submit_read()
        finally:
            self._requesting = False
            if self._closed:  # `close` sets this before it tests `_requesting`; so one of the two threads releases
                self._release()
        if self._closed:
            next_batch.cancel()
        return next_batch

    def _release(self) -> None:
        if self._releasing.acquire(False):
            next_batch, self._next = self._next, None
            self._stop(next_batch)

    def _stop(self, next_batch: Result[T | None] | None) -> None:
        if next_batch is not None:
            next_batch.cancel()
        if self._source.is_open:
            with suppress(PolarsForked):  # the query belongs to the parent process, and stops there
                self._closing = run_to_completion(self._source.close, label=f"close {self._label}")

    def _submit_read(self) -> Result[T | None]:
        with within(self._deadline), self._operation.parts():
            return pool.submit(self._source.read, key=self._key, label=self._label)


class _Source:
    """Polars' iterator. Only native threads use it: dropping it takes milliseconds, and a database rollback longer."""

    def __init__(self, start: Callable[[], Iterator[Any]], stop: Callable[[], object] | None) -> None:
        self._start: Callable[[], Any] | None = start
        self._stop = stop
        self._batches: Any = None
        self.closing = False  # set by any thread; after that no read starts the query or keeps it

    @property
    def is_open(self) -> bool:
        """True if there may be a running query. Safe from any thread."""
        return self._start is None

    def read(self) -> Any:
        """Return the next batch, or None at the end."""
        if self._stop is None:
            return self._read()
        with stopped_by(self._stop):
            return self._read()

    def export(self, requested_schema: object | None) -> object:
        """Return the stream as an Arrow C stream."""
        return self._opened().__arrow_c_stream__(requested_schema)

    def close(self) -> None:
        """Drop the iterator, which stops the query. A read that still runs drops it when it returns."""
        self._batches = None

    def _read(self) -> Any:
        batches = self._opened()
        return None if batches is None else next(batches, None)

    def _opened(self) -> Any:
        start, self._start = self._start, None
        if start is not None and not self.closing:
            self._batches = start()
        if self.closing:
            self._batches = None
        return self._batches
