"""Frames to bytes: one body out of a frame, a query or a stream of frames, in chunks as they come.

The work is done in the pool, in slices that leave the hub the GIL. Memory holds a few batches and one chunk, whatever
the length of the stream.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import suppress
from time import monotonic
from types import TracebackType

import polars as pl

from greendata.errors import ChunksBusy, FrameMismatch, NotAFrame, NotIterable, PoolFull
from greendata.frames import verbs
from greendata.frames.batches import Batches
from greendata.frames.formats import Format, format_of
from greendata.frames.wire import refuse_unwritable
from greendata.frames.writers import Body, Writer, writer_of
from greendata.hub import pool
from greendata.hub.deadline import nearest, seconds_of
from greendata.hub.job import go_on
from greendata.hub.result import Result

__all__ = ("CHUNK_BYTES", "Chunks", "encode")

CHUNK_BYTES = 1 << 20  # at most in a chunk
_END = object()  # of the frames


def encode(
    source: pl.DataFrame | pl.LazyFrame | Iterable[pl.DataFrame],
    format: Format,
    *,
    escape_formulas: bool = False,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Chunks:
    r"""The bytes of *source* in *format*, chunk by chunk; see `Chunks`.

    What values look like in JSON and CSV is told in `greendata.frames.wire`. An iterable that has no frame is taken
    for a frame without columns.

    Args:
        source: a frame, a query (it runs while its result is encoded), or frames of one schema.
        escape_formulas: in CSV, put ``'`` before text that a spreadsheet would take for a formula, names of columns
            included, and quotes around all text. Other formats have no formulas.
        timeout: the deadline of the whole body in seconds, from now.
        key: for fairness, see `greendata.hub.pool.Pool.submit`.
        label: what its jobs are called.

    Raises:
        BadChoice, NotIterable, BadTimeout: the arguments cannot be used.
        NotWritable: *source* is a DataFrame with a column that *format* has no form for.

    Example:
        >>> b"".join(encode(pl.LazyFrame({"a": [1, 2]}), "ndjson"))
        b'{"a":1}\n{"a":2}\n'
    """
    writer = writer_of(format_of(format), escape_formulas=escape_formulas)
    if isinstance(source, pl.DataFrame):
        refuse_unwritable(source.schema, format)
    return Chunks(source, format, writer, timeout=timeout, key=key, label=label or f"encode {format}")


class Chunks:
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
        format: Format,
        writer: Writer,
        *,
        timeout: float | None,
        key: Hashable,
        label: str,
    ) -> None:
        self._until = nearest(seconds_of(timeout))
        self._key = key
        self._label = label
        self._lazy = source if isinstance(source, pl.LazyFrame) else None  # for its schema, if it gives no batch
        self._frames: Iterator[object] = _frames(source, timeout=timeout, key=key, label=label)
        self._format = format
        self._body = Body(writer, CHUNK_BYTES)
        self._schema: pl.Schema | None = None  # of the first frame; this and what follows is the consumer's
        self._begun = False  # a job was admitted
        self._working: Result[list[bytes]] | None = None
        self._made: deque[bytes] = deque()
        self._waiting = False  # consumers test and set it without a call between
        self._ended = False
        self._closed = False

    def __iter__(self) -> Chunks:
        return self

    def __next__(self) -> bytes:
        if self._waiting:
            raise ChunksBusy
        self._waiting = True
        try:
            chunk = self._next_chunk()
        except BaseException:
            self._closed = True
            raise
        finally:
            self._waiting = False
            if self._closed:
                self._close_source()
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
        if self._working is not None:
            self._working.cancel()
        if not self._waiting or isinstance(self._frames, Batches):
            self._close_source()

    def __enter__(self) -> Chunks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "waiting" if self._waiting else "open"
        return f"<Chunks {self._label!r} {state} at {id(self):#x}>"

    def _next_chunk(self) -> bytes:
        """The next bytes; none at the end."""
        while not self._made and not self._closed:
            if self._working is None:
                if self._body.is_idle and not self._ended and not self._take():
                    break
                self._working = go_on(self._begin) if self._begun else self._begin()
                self._begun = True
            self._made.extend(self._finish())
            if self._made or self._ended:
                break
        return self._made.popleft() if self._made else b""

    def _take(self) -> bool:
        """Give the body the next frame, or its end; False if this was closed while it came."""
        frame = next(self._frames, _END)
        if self._closed:
            return False
        if frame is _END:
            self._ended = True
            if self._schema is None:
                self._body.begin(pl.DataFrame(schema=self._schema_of_none()))
            self._body.finish()
            return True
        if not isinstance(frame, pl.DataFrame):
            raise NotAFrame(frame, "DataFrame")
        self._begun = self._begun or self._lazy is not None
        if self._schema is None:
            refuse_unwritable(frame.schema, self._format)
            self._schema = frame.schema
        elif frame.schema != self._schema:
            raise FrameMismatch(self._schema, frame.schema)
        self._body.begin(frame)
        return True

    def _schema_of_none(self) -> pl.Schema | None:
        return None if self._lazy is None else pool.call(self._lazy.collect_schema)

    def _begin(self) -> Result[list[bytes]]:
        left = None if self._until is None else max(0.0, self._until - monotonic())
        return pool.submit(self._body.chunks, timeout=left, key=self._key, label=self._label)

    def _finish(self) -> list[bytes]:
        """The chunks that are being made; the next ones are begun, so that they are made while these are sent."""
        assert self._working is not None
        try:
            made = self._working.get()
        finally:
            self._working.cancel()  # nothing happens if it has ended
            self._working = None
        if made and not self._body.is_idle and not self._closed:
            with suppress(PoolFull):  # then when they are asked for
                self._working = self._begin()
        return made

    def _close_source(self) -> None:
        self._made.clear()
        frames, self._frames = self._frames, iter(())
        close: Callable[[], object] | None = getattr(frames, "close", None)
        if close is not None:
            close()


def _frames(source: object, *, timeout: float | None, key: Hashable, label: str) -> Iterator[object]:
    if isinstance(source, pl.DataFrame):
        return iter((source,))
    if isinstance(source, pl.LazyFrame):
        return verbs.batches(source, timeout=timeout, key=key, label=label)
    if not isinstance(source, Iterable):
        raise NotIterable(source)
    return iter(source)
