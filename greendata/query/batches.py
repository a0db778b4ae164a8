"""`Batches`: a query's result in pieces, while the query still runs.

Each batch is a job of its own. Between batches no worker is held, whatever the consumer does; Polars stops
computing when its own small buffer is full.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from typing import Any, Generic, TypeVar

from greendata.errors import BatchesBusy, BatchesSpent, PolarsForked, PoolFull
from greendata.hub import native
from greendata.hub.closing import Closing
from greendata.hub.deadline import nearest, seconds_of, within
from greendata.hub.result import Result
from greendata.pool import pool
from greendata.pool.cleanup import carry_out
from greendata.pool.job import bypassing_queue_limit

__all__ = ("Batches",)

T = TypeVar("T")


class Batches(Closing, Generic[T]):
    """An iterator over DataFrames that leaves the hub alone, and a context manager that stops the query.

    It keeps one batch in advance; memory is bounded by that and by Polars' own buffer. Leaving the block,
    `close`, an error, the end and dropping the object stop the query. One consumer at a time, from any thread.
    `PoolFull` comes up at the first batch or not at all: what has begun goes on.
    A Rust panic reaches nobody: Polars ends the stream there, as if it were complete (``collect`` raises it).

    Args:
        start: returns Polars' iterator of batches, or one over what is made of them; called, and asked for each
            batch, on a worker.
        timeout: the deadline of the whole stream in seconds, from now.
        key: for fairness, see `greendata.pool.pool.Pool.submit`.
        label: what its jobs are called.

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
        timeout: float | None = None,
        key: Hashable = None,
        label: str = "batches",
    ) -> None:
        self._source = _Source(start)
        self._limit = nearest(seconds_of(timeout))
        self._key = key
        self._label = label
        self._next: Result[T | None] | None = None  # the batch in advance; the consumer's thread
        self._waiting = False  # a consumer waits; consumers test and set it without a call between
        self._asking = False  # the consumer submits what `close` cannot see yet; the consumer's thread
        self._letting_go = native.allocate_lock()  # whoever acquires it lets go of the source; any thread
        self._closed = False
        self._ending: Result[None] | None = None  # done when the source was let go of; whoever closes

    def __iter__(self) -> Batches[T]:
        return self

    def __next__(self) -> T:
        if self._waiting:
            raise BatchesBusy
        if self._closed:
            raise StopIteration
        self._waiting = True
        try:
            reading = self._next
            if reading is None:
                reading = bypassing_queue_limit(self._ask) if self._source.is_open else self._ask()
            batch = reading.get()
            self._next = None
            if batch is not None and not self._closed:
                with suppress(PoolFull):  # then without one in advance
                    self._ask()
        except BaseException:
            self.close()
            raise
        finally:
            self._waiting = False
        if batch is None:
            self.close()
            raise StopIteration
        return batch

    def close(self) -> None:
        """Stop the query; nothing happens if it has stopped. A consumer that waits gets `JobCancelled`.

        Never blocks. Safe from any thread.
        """
        if self._closed:
            return
        self._closed = True
        self._source.closing = True
        if not self._asking:  # else the consumer lets go, once it has asked
            self._let_go()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self.close()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The whole stream as an Arrow C stream, for consumers that pull it natively: they wait on their own.

        Raises:
            BatchesSpent: it has been begun, or closed.
        """
        if self._closed or self._next is not None or self._source.is_open:
            raise BatchesSpent
        self._closed = True
        return pool.call(self._source.export, requested_schema)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "waiting" if self._waiting else "open"
        return f"<Batches {self._label!r} {state} at {id(self):#x}>"

    def _ask(self) -> Result[T | None]:
        """Have the next batch read."""
        self._asking = True
        try:
            self._next = reading = self._fetch()
        finally:
            self._asking = False
            if self._closed:  # looked at when it has asked; `close` does it the other way round
                self._let_go()
        if self._closed:
            reading.cancel()
        return reading

    def _let_go(self) -> None:
        if self._letting_go.acquire(False):
            reading, self._next = self._next, None
            self._stop(reading)

    def _stop(self, reading: Result[T | None] | None) -> None:
        if reading is not None:
            reading.cancel()
        if self._source.is_open:
            with suppress(PolarsForked):  # the query is the parent's, and stops there
                self._ending = carry_out(self._source.close, label=f"close {self._label}")

    def _fetch(self) -> Result[T | None]:
        with within(self._limit):
            return pool.submit(self._source.read, key=self._key, label=self._label)


class _Source:
    """Polars' iterator. Native threads alone touch it: dropping it takes Polars milliseconds, a rollback longer."""

    def __init__(self, start: Callable[[], Iterator[Any]]) -> None:
        self._start: Callable[[], Any] | None = start
        self._batches: Any = None
        self.closing = False  # any thread sets it: from then on no read starts the query, or keeps it

    @property
    def is_open(self) -> bool:
        """True if there may be a query to stop. Safe from any thread."""
        return self._start is None

    def read(self) -> Any:
        """The next batch, or None at the end."""
        batches = self._opened()
        return None if batches is None else next(batches, None)

    def export(self, requested_schema: object | None) -> object:
        """The stream as an Arrow C stream."""
        return self._opened().__arrow_c_stream__(requested_schema)

    def close(self) -> None:
        """Drop the iterator, which stops the query; a read that is on its way drops it when it returns."""
        self._batches = None

    def _opened(self) -> Any:
        start, self._start = self._start, None
        if start is not None and not self.closing:
            self._batches = start()
        if self.closing:
            self._batches = None
        return self._batches
