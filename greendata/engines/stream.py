"""`ChildStream`: the result of a query in a child, one batch after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any

import polars as pl

from greendata.engines.child_pool import ChildPool
from greendata.engines.children import Child
from greendata.engines.messages import close_all
from greendata.engines.plans import unpack
from greendata.errors import BatchesBusy, JobCancelled, NotSendable, PolarsForked, PoolFull, WorkerDied
from greendata.hub import native
from greendata.hub.closing import Closing
from greendata.pool import pool
from greendata.pool.cleanup import run_to_completion
from greendata.pool.stopping import stopped_by
from greendata.pool.workers import elsewhere, run_in_new_thread

__all__ = ("ChildStream",)


class ChildStream(Closing):
    """An iterator over the batches of a query, which computes in a child. It has that child from the first batch on.

    The child computes a few batches in advance, and sends each when it is asked for. `close` ends an unfinished query
    with its child; so does dropping the stream. There may be one consumer at a time, in any thread. A greenlet that
    waits for a batch does not block the hub.

    Args:
        children: those of the engine.
        start: makes a child begin, and returns its first reply.
    """

    def __init__(self, children: ChildPool, start: Callable[[Child], tuple[Any, list[int]]]) -> None:
        self._children = children
        self._start: Callable[[Child], tuple[Any, list[int]]] | None = start
        self._child: Child | None = None  # the consumer writes; it leaves under the lock below
        self._child_lock = native.allocate_lock()  # held to kill it: after it has left, it works for others
        self._is_closed = False  # any thread sets it
        self._consuming = native.allocate_lock()  # held by the consumer, and by the thread that releases the child
        self._schema: pl.Schema | None = None  # known after the first reply

    def __iter__(self) -> Iterator[pl.DataFrame]:
        return self

    def __next__(self) -> pl.DataFrame:
        try:
            frame = pool.call(self.read)
        except (BatchesBusy, PoolFull):  # it has not begun to wait
            raise
        except BaseException:
            self.close()  # an interrupted wait may have lost a batch: the next one would not be the one that follows
            raise
        if frame is None:
            raise StopIteration
        return frame

    def read(self) -> pl.DataFrame | None:
        """Return the next batch, or None at the end. Waits natively.

        Raises:
            BatchesBusy: another greenlet or thread waits for a batch.
            JobCancelled: the stream was closed meanwhile.
            WorkerDied, MemoryLimitExceeded: the child ended.
            BaseException: the error of the query.
        """
        if not self._consuming.acquire(False):
            if self._is_closed:  # its child is being ended
                return None
            raise BatchesBusy
        try:
            with elsewhere():
                return None if self._is_closed else self._read()
        except BaseException as error:
            was_closed, self._is_closed = self._is_closed, True
            if was_closed and isinstance(error, WorkerDied):
                raise JobCancelled("a stream of batches", running=True, native=False) from error
            raise
        finally:
            if self._is_closed:
                self._release_child()
            self._consuming.release()

    def _read(self) -> pl.DataFrame | None:
        start, self._start = self._start, None
        if self._child is None:
            self._child = self._children.lease()
        if self._is_closed:  # `close` sets this before it looks for the child
            return None
        with stopped_by(self._child.kill):
            (is_last, packed), files = start(self._child) if start is not None else self._child.ask("next")
        try:
            frames = unpack(packed, files)
        except BaseException:
            self._child.kill()  # it waits for a request that does not come
            raise
        finally:
            close_all(files)
        if not is_last:
            self._children.set_aside(self._child)
        self._is_closed = self._is_closed or is_last
        self._schema = frames[0].schema if frames else self._schema
        return None if is_last else frames[0]

    def close(self) -> None:
        """Stop the query, if it has not ended, by ending its child. Never blocks. Idempotent, safe from any thread."""
        if self._kill_child() and self._consuming.acquire(False):  # else the consumer gets an error, and releases it
            with suppress(PolarsForked):  # the child belongs to the parent process
                run_to_completion(self._release_and_unlock, label="close batches")

    def __del__(self) -> None:
        # A finalizer may run on a worker that holds the lock of the children: the child is not given back there.
        child: Child | None = getattr(self, "_child", None)
        if child is not None and not child.is_gone and self._kill_child():
            run_in_new_thread(self._release_child)

    def _kill_child(self) -> bool:
        """Return False if there is none."""
        self._is_closed = True
        with self._child_lock:
            if self._child is not None:
                self._child.kill()
            return self._child is not None

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return the batches as an Arrow C stream, which blocks its consumer's thread while it waits.

        Raises:
            NotSendable: pyarrow is not installed.
        """
        try:
            pyarrow = import_module("pyarrow")
        except ImportError as error:
            raise NotSendable("an Arrow stream of batches needs pyarrow: pip install 'greendata[process]'") from error
        first = self.read()
        assert self._schema is not None
        empty = pl.DataFrame(schema=self._schema).to_arrow(compat_level=pl.CompatLevel.newest())
        batches = partial(self._record_batches, first)
        reader = pyarrow.RecordBatchReader.from_batches(empty.schema, batches())
        return reader.__arrow_c_stream__(requested_schema)

    def _record_batches(self, frame: pl.DataFrame | None) -> Iterator[Any]:
        while frame is not None:
            yield from frame.to_arrow(compat_level=pl.CompatLevel.newest()).to_batches()
            frame = self.read()

    def _release_and_unlock(self) -> None:
        try:
            self._release_child()
        finally:
            self._consuming.release()

    def _release_child(self) -> None:
        with self._child_lock:
            child, self._child = self._child, None
        if child is not None:
            self._children.give_back(child)
