"""One statement on a connection: executed with bound parameters, read in batches, or fed with a frame.

All of it is called on workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import polars as pl

from greendata.sql import postgres, sqlite
from greendata.sql.canceller import Canceller
from greendata.sql.databases import Database
from greendata.sql.sql_types import SQLITE, stored

__all__ = ("ingest", "rows_of")


def rows_of(
    database: Database,
    canceller: Canceller,
    sql: str,
    params: Any,
    overrides: Mapping[str, Any],
    batch_rows: int | None,
) -> Iterator[pl.DataFrame]:
    """What *sql* returns: frames of *batch_rows* rows, of any number if None; one without rows if there are none.

    Closing the iterator closes the statement, and the connection if it is ours.
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


def ingest(
    database: Database, canceller: Canceller, frame: pl.DataFrame, table: str, schema: str | None, if_exists: str
) -> int:
    """Write *frame* wholly or not at all; the number of rows that the table took."""
    library = sqlite if database.kind == SQLITE else postgres
    try:
        rows = stored(frame, database.kind, table)
        with database.session(writes=True) as connection:
            number: int = library.ingest(connection, canceller, frame, rows, table, schema, if_exists)
            canceller.check(f"write to {table}")  # else it is committed although its result says that it was given up
        return number
    finally:
        database.release()


def _in_batches(frames: Iterator[pl.DataFrame], rows: int | None) -> Iterator[pl.DataFrame]:
    """*frames* cut and joined to *rows* rows each, if not None; where none has rows, the first of them."""
    first: pl.DataFrame | None = None
    kept, held, is_empty = [], 0, True
    for frame in frames:
        first = frame if first is None else first
        is_empty = is_empty and not frame.height
        kept.append(frame)
        held += frame.height
        while held >= (rows or 1):
            whole = pl.concat(kept)
            size = held if rows is None else rows
            yield whole.head(size)
            kept, held = [whole.slice(size)], held - size
    if held:
        yield pl.concat(kept)
    elif is_empty and first is not None:
        yield first
