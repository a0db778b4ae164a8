"""Encode frames of one schema as the pieces of one body, in each format. Call on a worker."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterator
from io import BytesIO
from itertools import chain, islice
from typing import Protocol

import polars as pl

from greendata.errors import FrameMismatch, NotAFrame
from greendata.formats.arrow_stream import END, ArrowStreamWriter
from greendata.formats.format import Format
from greendata.formats.row_groups import MAGIC, RowGroups
from greendata.formats.text_encode import check_writable, encode_text, escape_formula_cells
from greendata.query.choice import engine_for
from greendata.query.chunked_text import csv_lines, json_pieces, ndjson_lines, slices

__all__ = ("Body", "Pieces", "Writer", "writer_of")

BLOCK_BYTES = 1 << 22  # of columns to convert to text, or to an Arrow message, in one step
BLOCK_ROWS = 1 << 16
GROUP_BYTES = 1 << 26  # of columns in a Parquet row group, at most
GROUP_ROWS = 1 << 18  # in a Parquet row group, at most: the default of Polars

CHUNKS_PER_JOB = 4  # a round trip of a job costs the hub as much as making one chunk of text

Pieces = Iterator[bytes | memoryview]
Parts = Iterator[list[bytes]]


class Writer(Protocol):
    """An encoder of frames of one schema as one body."""

    def add(self, df: pl.DataFrame) -> Pieces:
        """Yield the bytes of *df*."""

    def end(self) -> bytes:
        """Return the bytes that follow the last frame. At least one frame must have been added."""


def writer_of(format: Format, *, escape_formulas: bool = False, include_bom: bool = False) -> Writer:
    """Return a new writer of *format*.

    Example:
        >>> writer = writer_of("json")
        >>> b"".join([*writer.add(pl.DataFrame({"a": [1]})), writer.end()])
        b'[{"a":1}]'
    """
    if format == "csv":
        return _Csv(escape_formulas=escape_formulas, include_bom=include_bom)
    return _WRITERS[format]()


class Body:
    """The bytes of one body, in lists of a few chunks. A job makes one such list.

    Args:
        writer: a writer of *format*.
        chunk_bytes: the maximum size of a chunk in bytes.
    """

    def __init__(self, writer: Writer, format: Format, *, chunk_bytes: int) -> None:
        self._writer = writer
        self._format = format
        self._chunk_bytes = chunk_bytes
        self._schema: pl.Schema | None = None  # of the first frame

    def parts_of(self, source: pl.DataFrame | pl.LazyFrame) -> Parts:
        """Yield the whole body of *source*. A query runs meanwhile."""
        if isinstance(source, pl.DataFrame):
            yield from self._grouped(chain(self._pieces(source), self._ending()))
            return
        for df in source.collect_batches(engine=engine_for("auto", "batches")):
            yield from self.add(df)
        if self._schema is None:
            yield from self.add(pl.DataFrame(schema=source.collect_schema()))
        yield from self.end()

    def add(self, frame: object) -> Parts:
        """Yield the next bytes of the body, those of *frame*.

        Raises:
            NotAFrame, NotWritable, FrameMismatch: *frame* cannot be added to the body.
        """
        return self._grouped(self._pieces(frame))

    def end(self) -> Parts:
        """Yield the bytes that follow the last frame."""
        nothing = self._pieces(pl.DataFrame()) if self._schema is None else iter(())
        return self._grouped(chain(nothing, self._ending()))

    def _pieces(self, frame: object) -> Pieces:
        if not isinstance(frame, pl.DataFrame):
            raise NotAFrame(frame, "DataFrame")
        if self._schema is None:
            check_writable(frame.schema, self._format)
            self._schema = frame.schema
        elif frame.schema != self._schema:
            raise FrameMismatch(self._schema, frame.schema)
        return self._writer.add(frame)

    def _ending(self) -> Pieces:
        yield self._writer.end()

    def _grouped(self, pieces: Pieces) -> Parts:
        chunks = _chunks(pieces, self._chunk_bytes)
        while group := list(islice(chunks, CHUNKS_PER_JOB)):
            yield group


def _chunks(pieces: Pieces, most: int) -> Iterator[bytes]:
    """Yield *pieces* as chunks of at most *most* bytes. Small pieces are joined up to a quarter of that."""
    parts: list[bytes | memoryview] = []
    size = 0
    for piece in chain.from_iterable(_cut(piece, most) for piece in pieces):
        if parts and (size >= most // 4 or size + len(piece) > most):
            yield _joined(parts)
            parts, size = [], 0
        if piece:
            parts.append(piece)
            size += len(piece)
    if parts:
        yield _joined(parts)


def _joined(parts: list[bytes | memoryview]) -> bytes:
    return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)  # bytes(b) does not copy b if it is bytes


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
            opening = self._opening
            for piece in json_pieces(encode_text(block)):
                if opening:
                    yield opening
                    opening, self._opening = b"", b","
                yield piece

    def end(self) -> bytes:
        return b"]" if self._opening == b"," else b"[]"


class _Ndjson:
    def add(self, df: pl.DataFrame) -> Pieces:
        return (lines for block in _blocks(df) for lines in ndjson_lines(encode_text(block)))

    def end(self) -> bytes:
        return b""


class _Csv:
    def __init__(self, *, escape_formulas: bool, include_bom: bool) -> None:
        self._escape_formulas = escape_formulas
        self._include_bom = include_bom
        self._is_begun = False

    def add(self, df: pl.DataFrame) -> Pieces:
        if not df.width:
            return
        if not self._is_begun:
            header = self._header(df.columns)
            if self._include_bom or header.startswith(BOM_UTF8):  # a reader drops only one of two marks
                yield BOM_UTF8
            yield header
            self._is_begun = True
        for block in _blocks(df):
            texts = encode_text(block)
            cells = escape_formula_cells(texts) if self._escape_formulas else texts
            yield from csv_lines(cells, quote_text=self._escape_formulas)

    def end(self) -> bytes:
        return b""

    def _header(self, names: list[str]) -> bytes:
        row = pl.DataFrame([pl.Series(str(number), [name]) for number, name in enumerate(names)])
        cells = escape_formula_cells(row) if self._escape_formulas else row
        return b"".join(csv_lines(cells, quote_text=self._escape_formulas))


class _Arrow:
    def __init__(self) -> None:
        self._stream = ArrowStreamWriter()

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
            groups = self._groups.add(file.getvalue(), self._position)
            self._position += len(groups)
            yield groups

    def end(self) -> bytes:
        return self._groups.footer()


_WRITERS: dict[Format, type[Writer]] = {"json": _Json, "ndjson": _Ndjson, "arrow": _Arrow, "parquet": _Parquet}
