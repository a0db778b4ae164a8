"""Races between two steps of a stream of batches or of a statement: each is stopped at any point."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

import greendata
from greendata.errors import JobCancelled
from greendata.query.batches import Batches
from greendata.sql import databases, sqlite
from tests.support.databases import closing
from tests.support.gates import Gate
from tests.support.natives import Native, until
from tests.support.races import at, in_workers

FRAME = pl.DataFrame({"a": [1, 2, 3]})


def take_one(stream: Batches[pl.DataFrame], asked: Gate) -> pl.DataFrame:
    """Return the next batch; *asked* holds the consumer after it has submitted the read, before storing the result."""
    sys.setprofile(at("return", "submit", Batches._submit_read.__code__, asked))
    return next(stream)


def close_while_asking(stream: Batches[pl.DataFrame], asked: Gate, reading: Gate) -> None:
    """Close *stream* after a read was submitted and has started, before its consumer has stored the result."""
    consuming = Native(take_one, stream, asked)
    asked.wait_arrived()
    reading.wait_arrived()
    stream.close()
    asked.open()
    with pytest.raises(JobCancelled):
        consuming.join()


def test_closing_while_a_batch_is_being_asked_for_stops_that_one_too(make_gate: Callable[[], Gate]) -> None:
    asked, reading = make_gate(), make_gate()

    def source() -> Iterator[pl.DataFrame]:
        reading()
        yield FRAME

    stream = Batches(source)
    close_while_asking(stream, asked, reading)
    reading.open()
    assert list(stream) == []


def test_a_connection_is_kept_for_a_read_that_nobody_else_knows_of(
    make_gate: Callable[[], Gate], tmp_path: Path
) -> None:
    asked, reading = make_gate(), make_gate()
    made = sqlite3.connect(tmp_path / "a.sqlite", check_same_thread=False)
    with closing(made) as connection, in_workers(at("call", "_fetch_slices", sqlite.rows_of.__code__, reading)):
        stream = greendata.read_sql("VALUES (1), (2)", connection, batch_rows=1)
        close_while_asking(stream, asked, reading)
        assert stream._closing is not None
        stream._closing.get()
        assert databases._claims  # the statement still uses the connection
        reading.open()
        until(lambda: not databases._claims)


def test_a_write_that_is_given_up_between_two_of_its_statements_writes_nothing(held: Gate, tmp_path: Path) -> None:
    file = tmp_path / "a.sqlite"
    begun = at("return", "_execute", sqlite._savepoint.__wrapped__.__code__, held)  # type: ignore[attr-defined]
    with in_workers(begun):
        result = greendata.write_sql(FRAME, "t", file)
        held.wait_arrived()
        assert result.cancel()
        held.open()
        result.end().get()
        tables = greendata.read_sql("SELECT count(*) FROM sqlite_master", file).get().item()
    assert tables == 0
