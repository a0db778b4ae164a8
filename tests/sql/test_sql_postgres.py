"""SQL with a real PostgreSQL: types, transactions, and statements that are cancelled on the server."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from typing import Any

import adbc_driver_postgresql.dbapi
import gevent
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import greendata
from greendata import ColumnUnreadable, DatabaseUnreachable, QueryFailed
from greendata.errors import BadArgument, ColumnUnwritable, ConnectionBusy, JobCancelled, WriteRefused
from greendata.sql import databases
from tests.support.databases import EVERY_TYPE, closing, postgres
from tests.support.frames import one_worker
from tests.support.gates import Gate
from tests.support.natives import until

ROWS = pl.DataFrame({"a": [1, 2, 3], "b": ["x", None, "z"]})
LOCK = 4711  # the advisory lock that queries wait for


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres() as address:
        yield address


@pytest.fixture
def address(server: str) -> str:
    """The address of a database with the table ``t`` only."""
    read("DROP SCHEMA public CASCADE", server)
    read("CREATE SCHEMA public", server)
    greendata.write_sql(ROWS, "t", server).get()
    return server


@pytest.fixture
def connection(address: str) -> Iterator[Any]:
    with closing(connect(address)) as made:
        yield made


@pytest.fixture
def locked(address: str) -> Iterator[Any]:
    """A session that holds the lock. Rolling it back releases the queries that wait for the lock."""
    with closing(connect(address)) as holder:
        read(f"SELECT pg_advisory_xact_lock({LOCK})::text", holder)
        yield holder


def connect(address: str) -> Any:
    return greendata.run(adbc_driver_postgresql.dbapi.connect, address).get()


def read(query: str, database: object, **options: Any) -> pl.DataFrame:
    return greendata.read_sql(query, database, **options).get()


def count(database: object, table: str = "t") -> int:
    return int(read(f'SELECT count(*) FROM "{table}"', database).item())


WAITS = f"SELECT pg_advisory_xact_lock({LOCK})::text AS locked"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'"


def wait_for_waiters(address: str, number: int) -> None:
    until(lambda: read(WAITING, address).item() == number)


# -- writing and reading ------------------------------------------------------------------------------


def test_every_type_comes_back_with_its_overrides(address: str) -> None:
    greendata.write_sql(EVERY_TYPE, "every", address).get()
    assert_frame_equal(read("SELECT * FROM every", address, schema_overrides=EVERY_TYPE.schema), EVERY_TYPE)


def test_types_are_those_of_the_database(address: str) -> None:
    query = """
        SELECT 1::int2 AS a, 1.5::float4 AS b, 12345678901234567890.123::numeric AS c, '\\x00ff'::bytea AS d,
               date '2020-02-29' AS e, timestamptz '2020-01-01 01:02:03+02' AS f, array[1, 2] AS g, true AS h,
               '{"k": 1}'::jsonb AS i, array[1.5]::numeric[] AS j, NULL::int AS k, time '01:02:03' AS l
    """
    frame = read(query, address)
    assert frame.row(0) == (
        1,
        1.5,
        "12345678901234567890.123",
        b"\x00\xff",
        dt.date(2020, 2, 29),
        dt.datetime(2019, 12, 31, 23, 2, 3, tzinfo=dt.UTC),
        [1, 2],
        True,
        '{"k": 1}',
        ["1.5"],
        None,
        dt.time(1, 2, 3),
    )
    assert (frame.schema["a"], frame.schema["k"]) == (pl.Int16, pl.Int32)
    decimals = read(query, address, schema_overrides={"c": pl.Decimal(38, 3)})
    assert decimals["c"].item() == Decimal("12345678901234567890.123")


def test_an_empty_result_keeps_its_schema(address: str) -> None:
    greendata.write_sql(EVERY_TYPE, "every", address).get()
    full, empty = (read(f"SELECT * FROM every {where}", address) for where in ("", "WHERE false"))
    assert empty.schema == full.schema
    assert empty.height == 0


def test_lists_and_durations_are_written(address: str) -> None:
    frame = pl.DataFrame({"l": [[1, None], [], None], "d": [dt.timedelta(days=1, seconds=2), None, dt.timedelta(0)]})
    greendata.write_sql(frame, "l", address).get()
    assert_frame_equal(read("SELECT l FROM l", address), frame.select("l"))
    assert read("SELECT d::text FROM l", address)["d"].to_list() == ["24:00:02", None, "00:00:00"]
    with pytest.raises(ColumnUnreadable, match="column 'd' is an interval of time"):
        read("SELECT * FROM l", address)


def test_types_that_the_driver_would_crash_on_are_refused(address: str) -> None:
    frame = pl.DataFrame({"i": pl.Series([1], dtype=pl.Int128), "s": [{"a": 1}], "a": [1]})
    with pytest.raises(ColumnUnwritable, match=r"2 columns cannot be stored in PostgreSQL: 'i' .* 's'"):
        greendata.write_sql(frame, "u", address)
    with pytest.raises(ColumnUnwritable):
        greendata.read_sql("SELECT $1", address, params=[2**70])
    with pytest.raises(WriteRefused, match="column 'u' holds values that cannot become Int64"):
        greendata.write_sql(pl.DataFrame({"u": pl.Series([2**64 - 1], dtype=pl.UInt64)}), "u", address).get()


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int8", 2**62),
        ("text", "'; DROP TABLE t; --"),
        ("bytea", b"\x00'"),
        ("bool", True),
        ("date", dt.date(2020, 2, 29)),
        ("timestamp", dt.datetime(2020, 2, 29, 1, 2, 3)),
        ("time", dt.time(1, 2, 3)),
        ("text", None),
        ("float8", -1.5),
    ],
)
def test_parameters_are_values_whatever_they_contain(kind: str, value: object, address: str) -> None:
    assert read(f"SELECT $1::{kind} AS v", address, params=[value]).item() == value
    assert count(address) == 3


def test_lists_as_parameters_and_named_ones(address: str) -> None:
    assert read("SELECT a FROM t WHERE a = any($1) ORDER BY a", address, params=[[1, 3]])["a"].to_list() == [1, 3]
    with pytest.raises(BadArgument, match=r"PostgreSQL's parameters are \$1"):
        greendata.read_sql("SELECT :v", address, params={"v": 1})
    with pytest.raises(QueryFailed, match="supplies 1 parameter,"):
        read("SELECT $1::int, $2::int", address, params=[1])


@pytest.mark.parametrize("name", ['a"; drop table t; --', "a'b", "two words", "select", "\u00fc", "a.b", '""', "$1"])
def test_names_are_quoted_whatever_they_contain(name: str, address: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    frame = pl.DataFrame({name: [1, 2]})
    greendata.write_sql(frame, name, address).get()
    assert_frame_equal(read(f"SELECT * FROM {quoted}", address), frame)
    assert count(address) == 3


def test_another_schema(address: str) -> None:
    read('CREATE SCHEMA IF NOT EXISTS "o""ther"', address)
    greendata.write_sql(ROWS, "u", address, schema='o"ther', if_exists="replace").get()
    assert read('SELECT count(*) FROM "o""ther".u', address).item() == 3
    with pytest.raises(QueryFailed, match="does not exist"):
        greendata.write_sql(ROWS, "u", address, schema="none").get()


def test_an_append_needs_no_more_than_the_right_to_insert(address: str) -> None:
    read("CREATE TABLE prices (a numeric(5, 2), b int4)", address)
    read("DROP ROLE IF EXISTS clerk", address)
    read("CREATE ROLE clerk LOGIN", address)
    read("GRANT INSERT ON t, prices TO clerk", address)
    read("GRANT USAGE ON SCHEMA public TO clerk", address)
    clerk = address.replace("postgres:@", "clerk:@")
    assert greendata.write_sql(ROWS, "t", clerk, if_exists="append").get() == 3
    prices = pl.DataFrame({"a": [1.25], "b": [1]})
    assert greendata.write_sql(prices, "prices", clerk, if_exists="append").get() == 1
    assert read("SELECT a, b FROM prices", address).row(0) == ("1.25", 1)
    read("REVOKE ALL ON t, prices FROM clerk", address)
    read("REVOKE ALL ON SCHEMA public FROM clerk", address)
    read("DROP ROLE clerk", address)


# -- transactions -------------------------------------------------------------------------------------


def test_a_write_that_fails_midway_leaves_nothing(address: str) -> None:
    read("CREATE TABLE strict (a int8 UNIQUE CHECK (a < 500))", address)
    with pytest.raises(QueryFailed, match="violates check constraint"):
        greendata.write_sql(pl.DataFrame({"a": range(501)}), "strict", address, if_exists="append").get()
    assert count(address, "strict") == 0


def test_a_replace_that_fails_keeps_the_old_table(address: str) -> None:
    read("CREATE VIEW v AS SELECT * FROM t", address)
    with pytest.raises(QueryFailed):
        greendata.write_sql(ROWS, "t", address, if_exists="replace").get()
    assert count(address) == 3


def test_a_rollback_removes_the_rows(address: str, connection: Any) -> None:
    greendata.write_sql(ROWS, "t", connection, if_exists="append").get()
    greendata.write_sql(ROWS, "u", connection).get()
    assert (count(connection), count(connection, "u"), count(address)) == (6, 3, 3)
    greendata.run(connection.rollback).get()
    assert count(connection) == 3
    with pytest.raises(QueryFailed, match="does not exist"):
        count(connection, "u")


def test_a_write_that_fails_aborts_the_callers_transaction(address: str, connection: Any) -> None:
    """A failed statement aborts a transaction of PostgreSQL, which then cannot be committed."""
    read("CREATE TABLE strict (a int8 UNIQUE CHECK (a < 500))", address)
    greendata.write_sql(ROWS, "t", connection, if_exists="append").get()
    with pytest.raises(QueryFailed, match="violates check constraint"):
        greendata.write_sql(pl.DataFrame({"a": [2, 1000]}), "strict", connection, if_exists="append").get()
    with pytest.raises(QueryFailed, match="transaction is aborted"):
        count(connection)
    greendata.run(connection.rollback).get()
    assert (count(connection, "strict"), count(connection)) == (0, 3)


def test_a_connection_that_commits_by_itself(address: str) -> None:
    made = greendata.run(partial(adbc_driver_postgresql.dbapi.connect, address, autocommit=True)).get()
    with closing(made) as connection:
        greendata.write_sql(ROWS, "t", connection, if_exists="append").get()
        with pytest.raises(QueryFailed):
            greendata.write_sql(ROWS, "t", connection).get()
        assert (count(connection), count(address)) == (6, 6)


def test_what_a_query_changes_is_committed_with_an_address(address: str) -> None:
    assert read("UPDATE t SET a = a + 10 RETURNING a", address)["a"].sum() == 36
    assert read("SELECT sum(a)::int8 FROM t", address).item() == 36
    with greendata.read_sql("UPDATE t SET a = 0 RETURNING a", address, batch_rows=1) as stream:
        next(stream)
    assert read("SELECT sum(a)::int8 FROM t", address).item() == 36


# -- streams --------------------------------------------------------------------------------------------


def test_a_stream_is_the_frame_in_batches(address: str) -> None:
    query = "SELECT g, repeat('x', 20) AS x FROM generate_series(1, 100000) AS g"
    with greendata.read_sql(query, address, batch_rows=30_000) as stream:
        frames = list(stream)
    assert [frame.height for frame in frames] == [30_000, 30_000, 30_000, 10_000]
    assert_frame_equal(pl.concat(frames), read(query, address))


def test_leaving_a_stream_ends_its_session(address: str) -> None:
    before = read(SESSIONS, address).item()
    with greendata.read_sql("SELECT generate_series(1, 10000000)", address, batch_rows=5) as stream:
        next(stream)
    until(lambda: read(SESSIONS, address).item() <= before)


def test_a_query_that_fails_midway(address: str) -> None:
    query = "SELECT 1 / (100000 - g), repeat('x', 100) FROM generate_series(1, 200000) AS g"
    with pytest.raises(QueryFailed, match="division by zero"):
        read(query, address)
    with greendata.read_sql(query, address, batch_rows=1_000) as stream:
        assert next(stream).height == 1_000
        with pytest.raises(QueryFailed, match="division by zero"):
            list(stream)


# -- the hub, stopping ------------------------------------------------------------------------------------


def test_the_hub_runs_during_a_long_query(address: str, locked: Any) -> None:
    """The query waits for a lock that only a greenlet releases."""

    def release() -> None:
        wait_for_waiters(address, 1)
        greendata.run(locked.rollback).get()

    ticker = gevent.spawn(release)
    assert read(WAITS, address).height == 1
    ticker.get()


def test_the_hub_runs_while_rows_are_awaited(address: str, locked: Any) -> None:
    """The statement has already returned rows, and the driver waits for more."""
    query = (
        f"SELECT g, CASE g WHEN 50000 THEN pg_advisory_xact_lock({LOCK})::text END FROM generate_series(1, 100000) g"
    )

    def release() -> None:
        wait_for_waiters(address, 1)
        greendata.run(locked.rollback).get()

    ticker = gevent.spawn(release)
    with greendata.read_sql(query, address, batch_rows=10) as stream:
        assert sum(batch.height for batch in stream) == 100_000
    ticker.get()


def test_a_cancelled_query_is_stopped_on_the_server(address: str, locked: Any) -> None:
    result = greendata.read_sql(WAITS, address, label="report")
    wait_for_waiters(address, 1)
    result.cancel_wait()
    wait_for_waiters(address, 0)
    with pytest.raises(JobCancelled):
        result.get()
    del locked


def test_a_query_is_stopped_while_all_workers_are_busy(address: str, locked: Any, held: Gate) -> None:
    with one_worker():
        greendata.configure(max_workers=2)
        result = greendata.read_sql(WAITS, address)
        wait_for_waiters(address, 1)
        blocker = greendata.run(held)
        held.wait_arrived()
        result.cancel_wait(timeout=30)
        held.open()
        blocker.get()
    del locked


def test_a_query_at_its_deadline_is_stopped_on_the_server(address: str, locked: Any) -> None:
    result = greendata.read_sql(WAITS, address, timeout=0.5)
    with pytest.raises(greendata.DeadlineExceeded):
        result.get()
    result.end().get()
    wait_for_waiters(address, 0)
    del locked


HELD = f"""
    CREATE FUNCTION held() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_advisory_xact_lock({LOCK}); RETURN new; END $$
"""
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"


@pytest.mark.parametrize("kind", ["int8", "numeric(5, 0)"])  # copied, and through a temporary table
def test_a_write_that_is_given_up_midway_leaves_nothing(kind: str, address: str, locked: Any) -> None:
    """A trigger blocks the write at its first row, after the table was created or locked."""
    read(f"CREATE TABLE slow (a {kind})", address)
    read(HELD, address)
    read("CREATE TRIGGER held BEFORE INSERT ON slow FOR EACH ROW EXECUTE FUNCTION held()", address)
    sessions = read(SESSIONS, address).item()
    frame = pl.DataFrame({"a": [1, 2]})
    cancelled = greendata.write_sql(frame, "slow", address, if_exists="append")
    wait_for_waiters(address, 1)
    cancelled.cancel_wait()
    expired = greendata.write_sql(frame, "slow", address, if_exists="append", timeout=0.5)
    with pytest.raises(greendata.DeadlineExceeded):
        expired.get()
    expired.end().get()
    until(lambda: read(SESSIONS, address).item() <= sessions)
    assert count(address, "slow") == 0
    greendata.run(locked.rollback).get()
    assert greendata.write_sql(frame, "slow", address, if_exists="append").get() == 2
    assert read("SELECT count(*) FROM pg_class WHERE relname LIKE 'greendata_%'", address).item() == 0


def test_a_cancelled_query_gives_the_callers_connection_back(address: str, locked: Any, connection: Any) -> None:
    result = greendata.read_sql(WAITS, connection, label="report")
    wait_for_waiters(address, 1)
    with pytest.raises(ConnectionBusy, match="report still uses this connection"):
        greendata.read_sql("SELECT 1", connection)
    result.cancel_wait()
    until(lambda: not databases._claims)
    greendata.run(connection.rollback).get()
    assert count(connection) == 3
    del locked


def test_leaving_a_stream_stops_the_statement_it_waits_for(address: str, locked: Any) -> None:
    slow = f"CASE g WHEN 30000 THEN pg_advisory_xact_lock({LOCK})::text END"
    query = f"SELECT g, repeat('x', 100), {slow} FROM generate_series(1, 100000) AS g"
    with greendata.read_sql(query, address, batch_rows=20_000) as stream:
        next(stream)
        wait_for_waiters(address, 1)
    wait_for_waiters(address, 0)
    del locked


# -- errors -------------------------------------------------------------------------------------------------


def test_a_query_that_fails_says_why(address: str) -> None:
    with pytest.raises(QueryFailed) as caught:
        read("SELEC 1", address)
    assert caught.value.sqlstate == "42601"
    assert 'syntax error at or near "SELEC"' in str(caught.value)
    with pytest.raises(QueryFailed, match="multiple commands"):
        read("SELECT 1; SELECT 2", address)


def test_no_server_listens(address: str) -> None:
    with pytest.raises(DatabaseUnreachable, match="Connection refused"):
        read("SELECT 1", "postgresql://ann:secret@127.0.0.1:1/shop")
    with pytest.raises(DatabaseUnreachable, match='database "none" does not exist'):
        read("SELECT 1", address.replace("/postgres?", "/none?"))
