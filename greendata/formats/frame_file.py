"""Write many frames to one file, frame by frame. The file appears complete or not at all.

Until the file is complete, it has another name in the same folder. Memory holds one frame at a time. All functions
block: call them on workers, one at a time. Only `FrameFile.discard` may be called while an abandoned write is running.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from codecs import BOM_UTF8
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import polars as pl

from greendata.errors import FrameMismatch, GreenDataError
from greendata.formats.format import Format
from greendata.formats.row_groups import MAGIC, RowGroups
from greendata.formats.text_encode import check_writable, encode_text
from greendata.formats.writers import writer_of
from greendata.hub import native
from greendata.pool import pool
from greendata.pool.cleanup import run_uninterrupted

__all__ = ("CsvFile", "FrameFile", "IpcFile", "NdjsonFile", "ParquetFile", "discard")

Buffer = bytes | memoryview


class FrameFile(ABC):
    """A file of frames of one schema that is being written.

    Args:
        path: the path of the complete file. Its folder must exist.
        options: the options of the DataFrame's ``write_*`` method.

    Attributes:
        format: the format of the file.
        path: the path of the complete file.
        rows: the number of rows written so far.
    """

    format: ClassVar[Format]

    def __init__(self, path: Path, options: dict[str, Any]) -> None:
        self.path = path
        self.rows = 0
        self._options = options
        self._unfinished = path.with_name(f".{path.name}.{os.getpid()}-{id(self):x}.unfinished")
        self._lock = native.allocate_lock()  # so that an abandoned write ends before the file is closed
        self._is_over = False
        self._file: Any = None
        self._schema: pl.Schema | None = None

    def append(self, frame: pl.DataFrame) -> None:
        """Append *frame* to the file.

        Raises:
            NotWritable: the format has no form for a column.
            FrameMismatch: its schema is not that of the first frame.
            OSError: the file cannot be created or written.
        """
        is_first = self._schema is None
        if self._schema is None:
            check_writable(frame.schema, self.format)
            self._schema = frame.schema
        elif frame.schema != self._schema:
            raise FrameMismatch(self._schema, frame.schema)
        piece = self._encoded(frame, is_first=is_first)
        with self._lock:
            if self._is_over:
                return
            if self._file is None:
                self._file = self._unfinished.open("xb")
            self._add(piece)
            self.rows += frame.height

    def finish(self) -> int:
        """Complete the file, rename it to `path`, and return its size in bytes.

        If no frame was appended, make no file and return 0.
        """
        with self._lock:
            size = 0
            if self._file is not None and not self._is_over:
                self._file.write(self._tail())
                self._file.flush()
                os.fsync(self._file.fileno())
                size = os.fstat(self._file.fileno()).st_size
                self._file.close()
                self._unfinished.replace(self.path)
            self._is_over = True
            return size

    def discard(self) -> None:
        """Remove what was written. A finished file is left as it is."""
        with self._lock:
            self._is_over = True
            if self._file is not None:
                try:
                    self._file.close()  # may fail: it writes buffered bytes, and the disk may be full
                finally:
                    self._unfinished.unlink(missing_ok=True)

    @abstractmethod
    def _encoded(self, frame: pl.DataFrame, *, is_first: bool) -> Buffer:
        """Return the bytes of *frame*. Called without the lock, since encoding may take long."""

    def _add(self, piece: Buffer) -> None:
        self._file.write(piece)

    def _tail(self) -> bytes:
        """Return the bytes that follow the last frame."""
        return b""


class ParquetFile(FrameFile):
    """A Parquet file. Each frame becomes separate row groups.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = ParquetFile(Path(folder) / "a.parquet", {})
        ...     file.append(pl.DataFrame({"a": [1, 2]}))
        ...     file.append(pl.DataFrame({"a": [3]}))
        ...     size = file.finish()
        ...     pl.read_parquet(file.path)["a"].to_list(), file.row_groups
        ([1, 2, 3], 2)
    """

    format = "parquet"

    def __init__(self, path: Path, options: dict[str, Any]) -> None:
        super().__init__(path, options)
        self._groups = RowGroups()

    @property
    def row_groups(self) -> int:
        """The number of row groups written so far."""
        return self._groups.count

    def _encoded(self, frame: pl.DataFrame, *, is_first: bool) -> Buffer:
        return _written(frame.write_parquet, self._options)

    def _add(self, piece: Buffer) -> None:
        if not self._file.tell():
            self._file.write(MAGIC)
        self._file.write(self._groups.add(piece, self._file.tell()))

    def _tail(self) -> bytes:
        return self._groups.footer()


class CsvFile(FrameFile):
    """A CSV file: one header and the rows of all frames, with values as in `greendata.formats.text_encode`."""

    format = "csv"

    def _encoded(self, frame: pl.DataFrame, *, is_first: bool) -> Buffer:
        opening = {} if is_first else {"include_header": False, "include_bom": False}
        texts = encode_text(frame, besides=(pl.Datetime,) if "datetime_format" in self._options else ())
        piece = _written(texts.write_csv, {**self._options, **opening})
        has_mark = self._options.get("include_bom") or piece[: len(BOM_UTF8)] != BOM_UTF8
        return piece if has_mark or not is_first else BOM_UTF8 + piece  # a reader drops one mark, of two


class NdjsonFile(FrameFile):
    """An NDJSON file: the lines of all frames, with values as in `greendata.formats.text_encode`."""

    format = "ndjson"

    def __init__(self, path: Path, options: dict[str, Any]) -> None:
        super().__init__(path, options)
        self._writer = writer_of("ndjson")

    def _encoded(self, frame: pl.DataFrame, *, is_first: bool) -> Buffer:
        whole = BytesIO()
        for piece in self._writer.add(frame):  # which takes half the memory of a list that is joined
            whole.write(piece)
        return whole.getvalue()


class IpcFile(FrameFile):
    """An Arrow file. It cannot be appended to, so each frame is written to a temporary file; `finish` merges them."""

    format = "arrow"

    def __init__(self, path: Path, options: dict[str, Any]) -> None:
        super().__init__(path, options)
        self._pieces: list[Path] = []

    def discard(self) -> None:
        """Remove what was written. A finished file is left as it is."""
        super().discard()
        self._remove_pieces()

    def _encoded(self, frame: pl.DataFrame, *, is_first: bool) -> Buffer:
        return _written(frame.write_ipc, {})

    def _add(self, piece: Buffer) -> None:
        path = self._unfinished.with_name(f"{self._unfinished.name}.{len(self._pieces)}")
        self._pieces.append(path)
        path.write_bytes(piece)

    def _tail(self) -> bytes:
        pl.scan_ipc(self._pieces, glob=False).sink_ipc(self._file, engine=pl.StreamingEngine(), **self._options)
        self._remove_pieces()
        return b""

    def _remove_pieces(self) -> None:
        while self._pieces:
            self._pieces.pop().unlink(missing_ok=True)


def discard(file: FrameFile) -> None:
    """Discard *file* on a worker, even if the calling greenlet is being killed."""
    run_uninterrupted(partial(_discard, file))


def _discard(file: FrameFile) -> None:
    try:
        pool.call(file.discard)
    except GreenDataError:  # the pool accepts no more work: discard it here
        file.discard()


def _written(write: Callable[..., Any], options: dict[str, Any]) -> Buffer:
    whole = BytesIO()
    write(whole, **options)
    return whole.getvalue()  # no copy; a view that ends in a reference cycle makes Python 3.13 report an error
