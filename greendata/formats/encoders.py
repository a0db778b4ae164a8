"""Encode a frame, a query or a stream of frames as bytes, chunk by chunk.

The pool does the work, in slices between which the hub gets the GIL. Memory holds a few batches and one chunk, however
long the stream is. While the consumer sends some chunks, a worker encodes the next ones:

   the consumer's greenlet                         a native worker
   -----------------------                         ---------------
   next(chunks): submits a job, waits   --->       encodes some chunks of the frame
   takes them; submits the next job     --->       encodes the next chunks
   sends each chunk                                   |
   next(chunks): takes those chunks     <---       finished meanwhile, or waited for
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial

import polars as pl

from greendata.errors import ChunksBusy, NotAFrame, NotIterable, PoolFull
from greendata.formats.format import Format, format_of
from greendata.formats.text_encode import check_writable
from greendata.formats.writers import CHUNKS_PER_JOB, Body, Parts, writer_of
from greendata.hub.closing import Closing
from greendata.hub.deadline import Limit, nearest_limit, seconds_of, within
from greendata.hub.result import Result
from greendata.pool import pool
from greendata.pool.job import bypassing_queue_limit
from greendata.pool.operation import INTERNAL
from greendata.query.batches import Batches

__all__ = ("CHUNK_BYTES", "Chunks", "encode")

CHUNK_BYTES = 1 << 20  # in a chunk, at most
_NOT_FRAMES = (str, bytes, bytearray, memoryview, Mapping, Result)  # the first five can be iterated over
_END = object()  # marks the end of the frames

Submit = Callable[[Callable[[], list[bytes]]], Result[list[bytes]]]


def encode(
    source: pl.DataFrame | pl.LazyFrame | Iterable[pl.DataFrame],
    format: Format,
    *,
    escape_formulas: bool = False,
    include_bom: bool = False,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Chunks:
    r"""Encode *source* in *format*, and return an iterator over the chunks of bytes; see `Chunks`.

    `greendata.formats.text_encode` describes the forms of values in JSON and CSV. An iterable without any frame is
    encoded like a frame without columns.

    Args:
        source: a frame, a query (it runs while its result is encoded), or an iterable of frames of one schema.
        format: "json", "ndjson", "csv", "arrow" or "parquet".
        escape_formulas: in CSV, put ``'`` before text that a spreadsheet would run as a formula, also before names of
            columns, and put quotes around all text. Other formats have no formulas.
        include_bom: in CSV, begin with a byte order mark: Excel reads such text as UTF-8.
        timeout: the deadline of the whole body in seconds, from now.
        key: the fairness key, see `greendata.pool.pool.Pool.submit`.
        label: the label of the jobs.

    Raises:
        BadChoice, NotIterable, BadTimeout: an argument is invalid.
        NotAFrame: *source* is a result, text, bytes, a dict or an array, or a list with something other than frames.
        NotWritable: *source* is a DataFrame with a column that *format* has no form for.

    Example:
        >>> b"".join(encode(pl.LazyFrame({"a": [1, 2]}), "ndjson"))
        b'{"a":1}\n{"a":2}\n'
    """
    writer = writer_of(format_of(format), escape_formulas=escape_formulas, include_bom=include_bom)
    body = Body(writer, format, chunk_bytes=CHUNK_BYTES)
    if isinstance(source, pl.DataFrame):
        check_writable(source.schema, format)
    elif isinstance(source, _NOT_FRAMES) or hasattr(source, "__array__"):  # arrays are NumPy's, pandas', a Series
        raise NotAFrame(source, "DataFrame")
    elif isinstance(source, list | tuple):
        for frame in source:
            if not isinstance(frame, pl.DataFrame):
                raise NotAFrame(frame, "DataFrame")
    return Chunks(source, body, timeout=timeout, key=key, label=label or f"encode {format}")


class Chunks(Closing):
    """An iterator over the bytes of a body. The pool makes each chunk when it is requested.

    The source is closed, and its query stopped, at the end of a ``with`` block, by `close`, after an error, and after
    the last chunk. An error is raised from the call that requests the next chunk, however late it occurs. Only the
    first call raises `PoolFull`. One consumer at a time, from any thread.

    Raises:
        NotAFrame: the source yielded something other than a DataFrame.
        FrameMismatch: a frame does not have the schema of the first one.
        NotWritable: the format has no form for a column.
        ChunksBusy: another greenlet is waiting for a chunk.

    Example:
        >>> with encode([pl.DataFrame({"a": [1]}), pl.DataFrame({"a": [2]})], "json") as chunks:
        ...     b"".join(chunks)
        b'[{"a":1},{"a":2}]'
    """

    def __init__(
        self,
        source: pl.DataFrame | pl.LazyFrame | Iterable[pl.DataFrame],
        body: Body,
        *,
        timeout: float | None,
        key: Hashable,
        label: str,
    ) -> None:
        limit = nearest_limit(seconds_of(timeout))
        self._label = label
        self._ready: deque[bytes] = deque()  # only the consumer touches it
        self._waiting = False  # consumers test and set it without a call in between
        self._closed = False
        self._parts: Batches[list[bytes]] | _Frames
        if isinstance(source, pl.DataFrame | pl.LazyFrame):
            begin = partial(body.parts_of, source)
            # The batches prefetch one part, across all frames.
            operation = INTERNAL if isinstance(source, pl.DataFrame) else None  # encoding alone is not a query
            self._parts = Batches(begin, timeout=timeout, key=key, label=label, operation=operation)
        elif isinstance(source, Iterable):
            self._parts = _Frames(iter(source), body, partial(_submit, limit, key, label))
        else:
            raise NotIterable(source)

    def __iter__(self) -> Chunks:
        return self

    def __next__(self) -> bytes:
        if self._waiting:
            raise ChunksBusy
        self._waiting = True
        try:
            if not self._ready and not self._closed:
                self._ready.extend(next(self._parts, ()))
            chunk = self._ready.popleft() if self._ready else b""
        except BaseException:
            self._closed = True
            raise
        finally:
            self._waiting = False
            if self._closed:
                self._release()
        if not chunk:
            self.close()
            raise StopIteration
        return chunk

    def close(self) -> None:
        """Stop, and close the source. A consumer that is waiting gets `JobCancelled`.

        Closing twice does nothing. If a consumer is inside the source, the source is closed when the consumer returns.
        Safe from any thread.
        """
        if self._closed:
            return
        self._closed = True
        self._parts.close()
        if not self._waiting:
            self._release()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "waiting" if self._waiting else "open"
        return f"<Chunks {self._label!r} {state} at {id(self):#x}>"

    def _release(self) -> None:
        self._ready.clear()
        self._parts.close()


def _submit(limit: Limit | None, key: Hashable, label: str, func: Callable[[], list[bytes]]) -> Result[list[bytes]]:
    with within(limit), INTERNAL.parts():
        return pool.submit(func, key=key, label=label)


class _Frames:
    """The parts of a body whose frames come from a Python iterator. One consumer at a time."""

    def __init__(self, frames: Iterator[object], body: Body, submit: Submit) -> None:
        self._frames: Iterator[object] | None = frames  # only the consumer touches it and what follows
        self._body = body
        self._submit = submit
        self._prefetch: _Prefetch | None = None  # of the frame that is being encoded
        self._begun = False  # whether a job was admitted
        self._busy = False  # whether the consumer is inside
        self._closed = False  # any thread sets it

    def __iter__(self) -> _Frames:
        return self

    def __next__(self) -> list[bytes]:
        self._busy = True
        try:
            while not self._closed and (prefetch := self._prefetch or self._next_frame()) is not None:
                part: list[bytes] | None = bypassing_queue_limit(_next, prefetch) if self._begun else _next(prefetch)
                self._begun = True
                if part:
                    return part
                if part is None:
                    self._prefetch = None
            raise StopIteration
        finally:
            self._busy = False
            if self._closed:
                self._close_frames()

    def close(self) -> None:
        """Stop, and close the iterator if it has a ``close`` method.

        If the consumer is inside the iterator, it is closed when the consumer returns. Safe from any thread.
        """
        self._closed = True
        prefetch = self._prefetch
        if prefetch is not None:
            prefetch.close()
        if not self._busy or isinstance(self._frames, Batches):
            self._close_frames()

    def _next_frame(self) -> _Prefetch | None:
        """Return the parts of the next frame, or of the end of the body; None if none are left or this was closed."""
        frames = self._frames
        if frames is None:
            return None
        frame = next(frames, _END)
        if self._closed:
            return None
        if frame is _END:
            self._frames = None
        self._prefetch = _Prefetch(self._body.end() if frame is _END else self._body.add(frame), self._submit)
        return self._prefetch

    def _close_frames(self) -> None:
        frames, self._frames = self._frames, None
        close: Callable[[], object] | None = getattr(frames, "close", None)
        if close is not None:
            close()


class _Prefetch:
    """The chunks of one frame. While one part of them is sent, the next is made. Only its consumer calls it."""

    def __init__(self, parts: Parts, submit: Submit) -> None:
        self._make = partial(next, parts, [])  # called on workers, one at a time
        self._submit = submit
        self._next: Result[list[bytes]] | None = None
        self._is_over = False

    def __iter__(self) -> _Prefetch:
        return self

    def __next__(self) -> list[bytes]:
        if self._is_over:
            raise StopIteration
        self._next = self._next or self._submit(self._make)
        try:
            part = self._next.get()
        finally:
            self._next.cancel()  # does nothing if it has finished
        self._next = None
        self._is_over = len(part) < CHUNKS_PER_JOB
        if not self._is_over:
            with suppress(PoolFull):  # then submit when the part is requested
                self._next = self._submit(self._make)
        return part

    def close(self) -> None:
        """Make no more parts. Safe from any thread."""
        self._is_over = True
        working = self._next
        if working is not None:
            working.cancel()


def _next(parts: _Prefetch) -> list[bytes] | None:
    return next(parts, None)
