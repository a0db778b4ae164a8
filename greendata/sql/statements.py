"""Execute one statement with bound parameters and read its batches, or write a frame to a table.

Call these functions on workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import polars as pl

from greendata.sql import postgres, sqlite
from greendata.sql.canceller import Canceller
from greendata.sql.databases import Database
from greendata.sql.sql_types import SQLITE, encode_frame
from greendata.sql.table import Table

__all__ = ("ingest", "rows_of")


def rows_of(
    database: Database,
    canceller: Canceller,
    sql: str,
    params: Any,
    overrides: Mapping[str, Any],
    batch_rows: int | None,
) -> Iterator[pl.DataFrame]:
    """Yield the result of *sql* in frames of *batch_rows* rows, or of any size if that is None.

    A result without rows is one empty frame. Closing the iterator closes the statement, and the connection if
    greendata opened it.
    """
    library = sqlite if database.kind == SQLITE else postgres
    try:
        with (
            database.session(writes=False) as connection,
            closing(library.rows_of(connection, canceller, sql, params, overrides, batch_rows)) as frames,
        ):
            yield from _in_batches(frames, batch_rows)
    finally:
        database.release()


def ingest(database: Database, canceller: Canceller, frame: pl.DataFrame, table: Table) -> int:
    """Write all of *frame* or nothing. Return the number of rows that the table accepted."""
    library = sqlite if database.kind == SQLITE else postgres
    rows = encode_frame(frame, database.kind, table.name)
    with database.session(writes=True) as connection:
        number: int = library.ingest(connection, canceller, frame, rows, table)
        canceller.check(table.task)  # else a write that was reported as given up would be committed
    return number


def _in_batches(frames: Iterator[pl.DataFrame], rows: int | None) -> Iterator[pl.DataFrame]:
    """Yield *frames* again in frames of *rows* rows, unless that is None. If all are empty, yield the first."""
    first: pl.DataFrame | None = None
    buffer, buffered, is_empty = [], 0, True
    for frame in frames:
        first = frame if first is None else first
        is_empty = is_empty and not frame.height
        buffer.append(frame)
        buffered += frame.height
        while buffered >= (rows or 1):
            whole = pl.concat(buffer)
            size = buffered if rows is None else rows
            yield whole.head(size)
            buffer, buffered = [whole.slice(size)], buffered - size
    if buffered:
        yield pl.concat(buffer)
    elif is_empty and first is not None:
        yield first
