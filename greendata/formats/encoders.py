"""Frames to bytes: one body out of a frame, a query or a stream of frames, in chunks as they come.

The work is done in the pool, in slices that leave the hub the GIL. Memory holds a few batches and one chunk, whatever
the length of the stream.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import suppress
from functools import partial

import polars as pl

from greendata.errors import ChunksBusy, NotIterable, PoolFull
from greendata.formats.format import Format, format_of
from greendata.formats.text_encode import check_writable
from greendata.formats.writers import CHUNKS_PER_JOB, Body, Parts, writer_of
from greendata.hub.closing import Closing
from greendata.hub.deadline import Limit, nearest, seconds_of, within
from greendata.hub.result import Result
from greendata.pool import pool
from greendata.pool.job import bypassing_queue_limit
from greendata.query.batches import Batches

__all__ = ("CHUNK_BYTES", "Chunks", "encode")

CHUNK_BYTES = 1 << 20  # at most in a chunk
_END = object()  # of the frames

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
    r"""The bytes of *source* in *format*, chunk by chunk; see `Chunks`.

    What values look like in JSON and CSV is told in `greendata.formats.text_encode`. An iterable that has no frame is
    taken for a frame without columns.

    Args:
        source: a frame, a query (it runs while its result is encoded), or frames of one schema.
        escape_formulas: in CSV, put ``'`` before text that a spreadsheet would take for a formula, names of columns
            included, and quotes around all text. Other formats have no formulas.
        include_bom: in CSV, begin with a byte order mark, by which Excel takes the text for UTF-8.
        timeout: the deadline of the whole body in seconds, from now.
        key: for fairness, see `greendata.pool.pool.Pool.submit`.
        label: what its jobs are called.

    Raises:
        BadChoice, NotIterable, BadTimeout: the arguments cannot be used.
        NotWritable: *source* is a DataFrame with a column that *format* has no form for.

    Example:
        >>> b"".join(encode(pl.LazyFrame({"a": [1, 2]}), "ndjson"))
        b'{"a":1}\n{"a":2}\n'
    """
    writer = writer_of(format_of(format), escape_formulas=escape_formulas, include_bom=include_bom)
    body = Body(writer, format, chunk_bytes=CHUNK_BYTES)
    if isinstance(source, pl.DataFrame):
        check_writable(source.schema, format)
    return Chunks(source, body, timeout=timeout, key=key, label=label or f"encode {format}")


class Chunks(Closing):
    """An iterator over the bytes of a body, each chunk made in the pool when it is asked for.

    Leaving its block, `close`, an error and the end close the source, which stops its query. An error comes up where
    the next chunk was asked for, however late; `PoolFull` at the first only. One consumer at a time, from any
    thread.

    Raises:
        NotAFrame: *source* gave something else than a DataFrame.
        FrameMismatch: a frame whose schema is not that of the first.
        NotWritable: a column that the format has no form for.
        ChunksBusy: another greenlet waits for a chunk.

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
        limit = nearest(seconds_of(timeout))
        self._label = label
        self._made: deque[bytes] = deque()  # the consumer's
        self._waiting = False  # consumers test and set it without a call between
        self._closed = False
        self._parts: Batches[list[bytes]] | _Frames
        if isinstance(source, pl.DataFrame | pl.LazyFrame):
            begin = partial(body.parts_of, source)
            self._parts = Batches(begin, timeout=timeout, key=key, label=label)  # one in advance, of all frames
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
            if not self._made and not self._closed:
                self._made.extend(next(self._parts, ()))
            chunk = self._made.popleft() if self._made else b""
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
        """Stop, and close the source; nothing happens if it is closed. A consumer that waits gets `JobCancelled`.

        A source in which a consumer waits just now is closed when it returns. Safe from any thread.
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
        self._made.clear()
        self._parts.close()


def _submit(limit: Limit | None, key: Hashable, label: str, func: Callable[[], list[bytes]]) -> Result[list[bytes]]:
    with within(limit):
        return pool.submit(func, key=key, label=label)


class _Frames:
    """The parts of a body of frames that code in Python gives, one frame after the other. One consumer at a time."""

    def __init__(self, frames: Iterator[object], body: Body, submit: Submit) -> None:
        self._frames: Iterator[object] | None = frames  # that are yet to come; the consumer's, and so is what follows
        self._body = body
        self._submit = submit
        self._prefetch: _Prefetch | None = None  # of the frame that is being encoded
        self._begun = False  # a job was admitted
        self._busy = False  # the consumer is inside
        self._closed = False  # any thread sets it

    def __iter__(self) -> _Frames:
        return self

    def __next__(self) -> list[bytes]:
        self._busy = True
        try:
            while not self._closed and (prefetch := self._prefetch or self._take()) is not None:
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
        """Stop, and close the iterator, if it has such a method. One that the consumer is in is closed afterwards.

        Safe from any thread.
        """
        self._closed = True
        prefetch = self._prefetch
        if prefetch is not None:
            prefetch.close()
        if not self._busy or isinstance(self._frames, Batches):
            self._close_frames()

    def _take(self) -> _Prefetch | None:
        """The parts of the next frame, or of the end; None if there are no more, or if this was closed meanwhile."""
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
    """The chunks of one frame, a part of them in advance: while one is sent, the next is made. Its consumer's."""

    def __init__(self, parts: Parts, submit: Submit) -> None:
        self._make = partial(next, parts, [])  # workers call it, one at a time
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
            self._next.cancel()  # nothing happens if it has ended
        self._next = None
        self._is_over = len(part) < CHUNKS_PER_JOB
        if not self._is_over:
            with suppress(PoolFull):  # then when it is asked for
                self._next = self._submit(self._make)
        return part

    def close(self) -> None:
        """Make no more. Safe from any thread."""
        self._is_over = True
        working = self._next
        if working is not None:
            working.cancel()


def _next(parts: _Prefetch) -> list[bytes] | None:
    return next(parts, None)
