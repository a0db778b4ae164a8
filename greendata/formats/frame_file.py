"""One file out of many frames: each is written as it comes, and the file appears whole or not at all.

Until it is complete it has another name in the same folder; memory holds one frame of it. All of this is blocking:
workers call it, one at a time but for `FrameFile.discard`, which may come while an abandoned write still goes on.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl

from greendata.errors import FrameMismatch, GreenDataError
from greendata.formats.row_groups import MAGIC, RowGroups
from greendata.formats.text_encode import encode_text
from greendata.formats.writers import writer_of
from greendata.hub import native
from greendata.pool import pool
from greendata.pool.cleanup import shielded

__all__ = ("CsvFile", "FrameFile", "IpcFile", "NdjsonFile", "ParquetFile", "discard")

Buffer = bytes | memoryview


class FrameFile(ABC):
    """A file on its way, of frames of one schema.

    Args:
        path: where it will be; its folder has to be there.
        options: those of the DataFrame's ``write_*`` method.

    Attributes:
        path: where it will be.
        rows: written so far.
    """

    def __init__(self, path: Path, options: dict[str, Any]) -> None:
        self.path = path
        self.rows = 0
        self._options = options
        self._unfinished = path.with_name(f".{path.name}.{os.getpid()}-{id(self):x}.unfinished")
        self._lock = native.allocate_lock()  # a write that was abandoned ends before the file is closed
        self._is_over = False
        self._file: Any = None
        self._schema: pl.Schema | None = None

    def append(self, frame: pl.DataFrame) -> None:
        """Write *frame* behind what is there.

        Raises:
            FrameMismatch: its schema is not that of the first frame.
            OSError: the file cannot be made or written.
        """
        is_first = self._schema is None
        if self._schema is None:
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
        """Give the file its name; returns its size in bytes, 0 where there was no frame and no file was made."""
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
        """Remove what was written; nothing happens to a file that is finished."""
        with self._lock:
            self._is_over = True
            if self._file is not None:
                try:
                    self._file.close()  # writes what is left, where the disk may be full
                finally:
                    self._unfinished.unlink(missing_ok=True)

    @abstractmethod
    def _encoded(self, frame: pl.DataFrame, *, is_first: bool) -> Buffer:
        """The bytes of *frame*; made without the lock, since it takes its time."""

    def _add(self, piece: Buffer) -> None:
        self._file.write(piece)

    def _tail(self) -> bytes:
        """What comes after the last frame."""
        return b""


class ParquetFile(FrameFile):
    """Each frame becomes row groups of its own.

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

    def __init__(self, path: Path, options: dict[str, Any]) -> None:
        super().__init__(path, options)
        self._groups = RowGroups()

    @property
    def row_groups(self) -> int:
        """Written so far."""
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
    """One header, and the rows of all frames, with values as `greendata.formats.text_encode` tells."""

    def _encoded(self, frame: pl.DataFrame, *, is_first: bool) -> Buffer:
        opening = {} if is_first else {"include_header": False, "include_bom": False}
        texts = encode_text(frame, besides=(pl.Datetime,) if "datetime_format" in self._options else ())
        return _written(texts.write_csv, {**self._options, **opening})


class NdjsonFile(FrameFile):
    """The lines of all frames, with values as `greendata.formats.text_encode` tells."""

    def __init__(self, path: Path, options: dict[str, Any]) -> None:
        super().__init__(path, options)
        self._writer = writer_of("ndjson")

    def _encoded(self, frame: pl.DataFrame, *, is_first: bool) -> Buffer:
        return b"".join(self._writer.add(frame))


class IpcFile(FrameFile):
    """Frames wait in files of their own, since an Arrow file cannot be continued; at the end they are put together."""

    def __init__(self, path: Path, options: dict[str, Any]) -> None:
        super().__init__(path, options)
        self._pieces: list[Path] = []

    def discard(self) -> None:
        """Remove what was written; nothing happens to a file that is finished."""
        super().discard()
        self._remove_pieces()

    def _encoded(self, frame: pl.DataFrame, *, is_first: bool) -> Buffer:
        return _written(frame.write_ipc, {})

    def _add(self, piece: Buffer) -> None:
        path = self._unfinished.with_name(f"{self._unfinished.name}.{len(self._pieces)}")
        self._pieces.append(path)
        path.write_bytes(piece)

    def _tail(self) -> bytes:
        pl.scan_ipc(self._pieces, glob=False).sink_ipc(self._file, **self._options)
        self._remove_pieces()
        return b""

    def _remove_pieces(self) -> None:
        while self._pieces:
            self._pieces.pop().unlink(missing_ok=True)


def discard(file: FrameFile) -> None:
    """Have *file* discarded, by a worker and also while the calling greenlet is being killed."""
    shielded(partial(_discard, file))


def _discard(file: FrameFile) -> None:
    try:
        pool.call(file.discard)
    except GreenDataError:  # the pool takes no more work: then here
        file.discard()


def _written(write: Callable[..., Any], options: dict[str, Any]) -> Buffer:
    whole = BytesIO()
    write(whole, **options)
    return whole.getbuffer()
