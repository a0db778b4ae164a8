"""The readers of each format: bytes in, a frame out, or Malformed. All of it is for workers."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from greendata.frames.formats import Format

__all__ = ("reader_of",)

Reader = Callable[[bytes, pl.Schema | None], pl.DataFrame]


def reader_of(format: Format) -> Reader:
    """The function that reads *format*."""
    return _READERS[format]


_READERS: dict[Format, Reader] = {
    "json": lambda content, schema: pl.read_json(content, schema=schema),
    "ndjson": lambda content, schema: pl.read_ndjson(content, schema=schema),
    "csv": lambda content, schema: pl.read_csv(content, schema=schema),
    "arrow": lambda content, _schema: pl.read_ipc_stream(content),
    "parquet": lambda content, _schema: pl.read_parquet(content),
}
