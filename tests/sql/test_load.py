"""`greendata.load`: several frames into several tables, each whole or not at all, in SQLite and PostgreSQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi
import polars as pl
import pytest

import greendata
from greendata.errors import (
    BadArgument,
    BadChoice,
    ColumnUnwritable,
    ConnectionBusy,
    DatabaseUnreachable,
    JobCancelled,
    LoadFailed,
    NotAFrame,
    QueryFailed,
    TableExists,
    WriteRefused,
)
from tests.support.databases import closing, postgres
from tests.support.gates import Gate

ORDERS = pl.DataFrame({"id": [1, 2]})
LINES = pl.DataFrame({"order": [1, 1, 2], "amount": [5, 6, 7]})
FRAMES = {"orders": ORDERS, "lines": LINES}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres() as address:
        yield address


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database."""
    if request.param == "sqlite":
        sqlite3.connect(tmp_path / "shop.sqlite").close()
        return str(tmp_path / "shop.sqlite")
    return emptied(request.getfixturevalue("server"))


def emptied(server: str) -> str:
    read("DROP SCHEMA public CASCADE", server)
    read("CREATE SCHEMA public", server)
    return server


def read(query: str, database: object) -> pl.DataFrame:
    return greendata.read_sql(query, database).get()


def count(database: object, table: str) -> int:
    return int(read(f"SELECT count(*) FROM {table}", database).item())


def failed(frames: dict[str, pl.DataFrame], database: object, **options: Any) -> LoadFailed:
    with pytest.raises(LoadFailed) as caught:
        greendata.load(frames, database, **options).get()
    return caught.value


def connect(path: Path) -> Any:
    return greendata.run(partial(sqlite3.connect, path, check_same_thread=False)).get()


def test_all_tables_are_written_in_their_order(database: str) -> None:
    assert greendata.load(FRAMES, database).get() == {"orders": 2, "lines": 3}
    assert greendata.load(FRAMES, database, if_exists="append").get() == {"orders": 2, "lines": 3}
    assert greendata.load({"lines": LINES[:1]}, database, if_exists="replace").get() == {"lines": 1}
    assert (count(database, "orders"), count(database, "lines")) == (4, 1)


def test_a_table_may_refer_to_one_before_it(database: str) -> None:
    read("CREATE TABLE orders (id BIGINT PRIMARY KEY)", database)
    read('CREATE TABLE lines ("order" BIGINT REFERENCES orders (id), amount BIGINT)', database)
    assert greendata.load(FRAMES, database, if_exists="append").get() == {"orders": 2, "lines": 3}


def test_the_table_that_fails_is_named_and_has_no_row_of_it(database: str) -> None:
    read('CREATE TABLE lines ("order" BIGINT, amount BIGINT CHECK (amount < 7))', database)
    frames = {**FRAMES, "customers": pl.DataFrame({"name": ["ann"]})}
    error = failed(frames, database, if_exists="append")
    assert error.written == {"orders": 2, "customers": 1}
    assert [*error.failed] == ["lines"]
    assert isinstance(error.failed["lines"], QueryFailed)
    assert error.__cause__ is error.failed["lines"]
    assert str(error).startswith("1 of 3 tables was not written: lines (the database refused 'write to lines': ")
    assert str(error).endswith("). Written: orders (2 rows), customers (1 row). Load what is missing again")
    assert [count(database, table) for table in frames] == [2, 0, 1]


def test_errors_keep_their_classes(database: str) -> None:
    greendata.write_sql(ORDERS, "orders", database).get()
    assert isinstance(failed(FRAMES, database).failed["orders"], TableExists)
    read("CREATE TABLE small (id SMALLINT)", database)
    error = failed({"small": pl.DataFrame({"id": [float("nan")]})}, database, if_exists="append")
    assert isinstance(error.failed["small"], WriteRefused)
    assert str(error).endswith("Written: none. Load what is missing again")
    assert count(database, "small") == 0


def test_each_table_may_have_its_database(server: str, tmp_path: Path) -> None:
    targets = {"orders": emptied(server), "lines": tmp_path / "lines.sqlite"}
    assert greendata.load(FRAMES, targets).get() == {"orders": 2, "lines": 3}
    assert (count(server, "orders"), count(targets["lines"], "lines")) == (2, 3)


def test_a_database_that_is_gone_does_not_stop_the_others(tmp_path: Path) -> None:
    targets = {"orders": "postgresql://127.0.0.1:1/shop", "lines": tmp_path / "lines.sqlite"}
    error = failed(FRAMES, targets)
    assert error.written == {"lines": 3}
    assert isinstance(error.failed["orders"], DatabaseUnreachable)


def test_nothing_is_committed_on_a_connection_of_the_caller(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "shop.sqlite")) as connection:
        connection.execute('CREATE TABLE lines ("order" INT, amount INT CHECK (amount < 7))')
        connection.execute("BEGIN")
        error = failed(FRAMES, connection, if_exists="append")
        assert error.written == {"orders": 2}
        assert (count(connection, "orders"), count(connection, "lines")) == (2, 0)
        connection.rollback()
        assert read("SELECT name FROM sqlite_master", connection)["name"].to_list() == ["lines"]


def test_a_failure_aborts_a_transaction_of_postgresql_and_so_all_its_tables(server: str, tmp_path: Path) -> None:
    address = emptied(server)
    read('CREATE TABLE lines ("order" BIGINT, amount BIGINT CHECK (amount < 7))', address)
    with closing(greendata.run(adbc_driver_postgresql.dbapi.connect, address).get()) as connection:
        frames = {**FRAMES, "customers": ORDERS, "elsewhere": ORDERS}
        targets = {**dict.fromkeys(frames, connection), "elsewhere": tmp_path / "other.sqlite"}
        error = failed(frames, targets, if_exists="append")
        assert error.written == {"elsewhere": 2}
        assert sorted(error.failed) == ["customers", "lines", "orders"]
        assert error.__cause__ is error.failed["lines"]
        aborted = "the failure of lines aborted the transaction of the connection; roll it back"
        assert {str(error.failed[name]) for name in ("customers", "orders")} == {
            f"the database refused 'write to customers': {aborted}",
            f"the database refused 'write to orders': {aborted}",
        }
        greendata.run(connection.rollback).get()
        assert greendata.load({"orders": ORDERS}, connection).get() == {"orders": 2}
        greendata.run(connection.commit).get()
    assert (count(address, "orders"), count(address, "lines")) == (2, 0)


def test_a_connection_in_autocommit_mode_commits_each_table(server: str) -> None:
    address = emptied(server)
    connect = partial(adbc_driver_postgresql.dbapi.connect, address, autocommit=True)
    with closing(greendata.run(connect).get()) as connection:
        greendata.load(FRAMES, connection).get()
        assert count(address, "lines") == 3


def test_one_connection_serves_one_load_at_a_time(tmp_path: Path, held: Gate) -> None:
    with closing(connect(tmp_path / "shop.sqlite")) as connection:
        connection.create_function("hold", 0, held)
        connection.execute("CREATE TABLE orders (id INT)")
        connection.execute("CREATE TRIGGER t AFTER INSERT ON orders BEGIN SELECT hold(); END")
        connection.commit()
        first = greendata.load(FRAMES, connection, if_exists="append")
        held.wait_arrived()
        with pytest.raises(ConnectionBusy, match="load still uses this connection"):
            greendata.load(FRAMES, connection)
        held.open()
        assert first.get() == {"orders": 2, "lines": 3}
        assert greendata.load({"more": ORDERS}, connection).get() == {"more": 2}  # free as soon as there is a result


def test_a_cancelled_load_keeps_complete_tables_only(tmp_path: Path, held: Gate) -> None:
    with closing(connect(tmp_path / "shop.sqlite")) as connection:
        connection.create_function("hold", 0, held)
        connection.execute('CREATE TABLE lines ("order" INT, amount INT)')
        connection.execute("CREATE TRIGGER t AFTER INSERT ON lines BEGIN SELECT hold(); END")
        connection.commit()
        result = greendata.load({**FRAMES, "customers": ORDERS}, connection, if_exists="append")
        held.wait_arrived()
        result.cancel()
        held.open()
        with pytest.raises(JobCancelled):
            result.get()
        result.end().wait()
        assert (count(connection, "orders"), count(connection, "lines")) == (2, 0)
        assert "customers" not in read("SELECT name FROM sqlite_master", connection)["name"]


@pytest.mark.parametrize(
    ("frames", "options", "kind", "text"),
    [
        ({}, {}, BadArgument, "frames must be a mapping of table names to frames, such as {'orders': df}, got {}"),
        ([ORDERS], {}, BadArgument, "frames must be a mapping of table names"),
        ({"a": ORDERS, "b": ORDERS.lazy()}, {}, NotAFrame, "DataFrame"),
        (
            {"a": ORDERS, "b": pl.DataFrame()},
            {},
            BadArgument,
            "frame must be a frame with at least one column",
        ),
        ({"a": ORDERS, "b": pl.DataFrame({"x": [[1]]})}, {}, ColumnUnwritable, "'x'"),
        ({"a": ORDERS, "": ORDERS}, {}, BadArgument, "table"),
        (FRAMES, {"if_exists": "merge"}, BadChoice, "if_exists must be 'fail', 'append' or 'replace'"),
        (FRAMES, {"targets": {"orders": "a.sqlite"}}, BadArgument, "one database, or one for each table of frames"),
        (FRAMES, {"targets": {"orders": "mysql://a", "lines": "a"}}, ValueError, "got mysql://"),
    ],
)
def test_mistakes_raise_at_the_call_and_nothing_is_written(
    tmp_path: Path, frames: Any, options: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind) as caught:
        greendata.load(frames, **{"targets": tmp_path / "shop.sqlite", **options})
    assert text in str(caught.value)
    notes = getattr(caught.value, "__notes__", [])
    assert notes == (["raised by load for the table 'b'"] if isinstance(frames, dict) and "b" in frames else notes)
    assert [*tmp_path.iterdir()] == []


def test_a_mistake_frees_the_connections(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "shop.sqlite")) as connection:
        with pytest.raises(NotAFrame):
            greendata.load({"a": ORDERS, "b": ORDERS.lazy()}, connection)  # type: ignore[dict-item]
        assert greendata.load({"a": ORDERS}, connection).get() == {"a": 2}
