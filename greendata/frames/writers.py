"""The writers of each format: frames of one schema in, the pieces of one body out. All of it is for workers."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from itertools import chain
from typing import Protocol

import polars as pl

from greendata.frames.arrowstream import END, ArrowStream
from greendata.frames.formats import Format
from greendata.frames.rowgroups import MAGIC, RowGroups
from greendata.frames.texts import csv_lines, json_lists, ndjson_lines, slices
from greendata.frames.wire import defused, textual

__all__ = ("Body", "Writer", "writer_of")

BLOCK_BYTES = 1 << 22  # of columns whose values are turned into text, or into an Arrow message, at once
BLOCK_ROWS = 1 << 16
GROUP_BYTES = 1 << 26  # of columns in a Parquet row group at most
GROUP_ROWS = 1 << 18  # rows in one, as Polars has it

AT_ONCE = 4  # chunks in one job: the way of a job and back costs the hub as much as a chunk of text costs to make

Pieces = Iterator[bytes | memoryview]


class Writer(Protocol):
    """What makes one body out of frames of one schema."""

    def add(self, df: pl.DataFrame) -> Pieces:
        """The bytes of *df*."""

    def end(self) -> bytes:
        """What comes after the last frame; there was one at least."""


def writer_of(format: Format, *, escape_formulas: bool) -> Writer:
    """A new writer of *format*.

    Example:
        >>> writer = writer_of("json", escape_formulas=False)
        >>> b"".join([*writer.add(pl.DataFrame({"a": [1]})), writer.end()])
        b'[{"a":1}]'
    """
    if format == "csv":
        return _Csv(escape_formulas=escape_formulas)
    return _WRITERS[format]()


class Body:
    """The bytes of a body on their way from its writer, in chunks."""

    def __init__(self, writer: Writer, chunk_bytes: int) -> None:
        self._writer = writer
        self._chunk_bytes = chunk_bytes
        self._pieces: Pieces = iter(())
        self.is_idle = True  # wants a frame, or its end

    def begin(self, df: pl.DataFrame) -> None:
        """Go on with *df*."""
        self._pieces = self._writer.add(df)
        self.is_idle = False

    def finish(self) -> None:
        """Go on with what comes after the last frame."""
        self._pieces = chain(self._pieces, (self._writer.end() for _ in range(1)))
        self.is_idle = False

    def chunks(self) -> list[bytes]:
        """The next chunks, a few of them; none when all that has been begun is out."""
        made: list[bytes] = []
        while len(made) < AT_ONCE and (chunk := self._chunk()):
            made.append(chunk)
        return made

    def _chunk(self) -> bytes:
        """The next bytes, of small pieces as many as make half a chunk."""
        parts: list[bytes | memoryview] = []
        size = 0
        while size < self._chunk_bytes // 2 and not self.is_idle:
            piece = next(self._pieces, None)
            if piece is None:
                self.is_idle = True
            elif size + len(piece) > self._chunk_bytes:
                self._pieces = chain(_cut(piece, self._chunk_bytes), self._pieces)
                if size:
                    break
            else:
                parts.append(piece)
                size += len(piece)
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)  # bytes of bytes is no copy


def _cut(piece: bytes | memoryview, size: int) -> Pieces:
    if len(piece) <= size:
        return iter((piece,))
    view = memoryview(piece)
    return (view[begin : begin + size] for begin in range(0, len(view), size))


def _blocks(df: pl.DataFrame) -> Iterator[pl.DataFrame]:
    return slices(df, BLOCK_BYTES, rows=BLOCK_ROWS)


class _Json:
    def __init__(self) -> None:
        self._opening = b"["

    def add(self, df: pl.DataFrame) -> Pieces:
        for block in _blocks(df):
            for objects in json_lists(textual(block)):
                if objects:
                    yield self._opening
                    yield objects
                    self._opening = b","

    def end(self) -> bytes:
        return b"]" if self._opening == b"," else b"[]"


class _Ndjson:
    def add(self, df: pl.DataFrame) -> Pieces:
        return (lines for block in _blocks(df) for lines in ndjson_lines(textual(block)))

    def end(self) -> bytes:
        return b""


class _Csv:
    def __init__(self, *, escape_formulas: bool) -> None:
        self._escape_formulas = escape_formulas
        self._is_begun = False

    def add(self, df: pl.DataFrame) -> Pieces:
        if not df.width:
            return
        if not self._is_begun:
            yield self._header(df.columns)
            self._is_begun = True
        for block in _blocks(df):
            texts = textual(block)
            yield from csv_lines(defused(texts) if self._escape_formulas else texts, quote_text=self._escape_formulas)

    def end(self) -> bytes:
        return b""

    def _header(self, names: list[str]) -> bytes:
        row = pl.DataFrame([pl.Series(str(number), [name]) for number, name in enumerate(names)])
        cells = defused(row) if self._escape_formulas else row
        return b"".join(csv_lines(cells, quote_text=self._escape_formulas))


class _Arrow:
    def __init__(self) -> None:
        self._stream = ArrowStream()

    def add(self, df: pl.DataFrame) -> Pieces:
        return (self._stream.add(block) for block in _blocks(df))

    def end(self) -> bytes:
        return END


class _Parquet:
    def __init__(self) -> None:
        self._groups = RowGroups()
        self._position = 0

    def add(self, df: pl.DataFrame) -> Pieces:
        if not self._position:
            self._position = len(MAGIC)
            yield MAGIC
        for part in slices(df, GROUP_BYTES, rows=GROUP_ROWS):
            file = BytesIO()
            part.write_parquet(file)
            groups = self._groups.add(file.getbuffer(), self._position)
            self._position += len(groups)
            yield groups

    def end(self) -> bytes:
        return self._groups.footer()


_WRITERS: dict[Format, type[Writer]] = {"json": _Json, "ndjson": _Ndjson, "arrow": _Arrow, "parquet": _Parquet}
