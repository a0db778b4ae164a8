"""SQL with SQLite: reading and writing frames, parameters, transactions, streams, and errors."""

from __future__ import annotations

import gc
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import greendata
from greendata import BadArgument, BadChoice, ConnectionBusy, DatabaseUnreachable, NotAFrame, QueryFailed
from greendata.errors import ColumnUnreadable, ColumnUnwritable, JobCancelled, UnknownDatabase, WriteRefused
from greendata.sql import databases
from greendata.sql.databases import database_of
from tests.support.databases import EVERY_TYPE, closing
from tests.support.frames import crowded, one_worker
from tests.support.gates import Gate
from tests.support.natives import until

ROWS = pl.DataFrame({"a": [1, 2, 3], "b": ["x", None, "z"]})
COUNTING = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {0}) SELECT i FROM n"
FAILS_AT_30 = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT json(iif(i < 30, '1', '{')) AS j FROM n"
)

nasty_names = pytest.mark.parametrize(
    "name", ['a"; drop table b; --', "a'b", "two words", "select", "\u00fc", "a.b", '""', "%s ? $1 :x", "x" * 60]
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shop.sqlite"
    greendata.write_sql(ROWS, "t", path).get()
    return path


@pytest.fixture
def connection(file: Path) -> Iterator[Any]:
    with closing(connect(file)) as made:
        yield made


def connect(path: Path, **options: Any) -> Any:
    return greendata.run(partial(sqlite3.connect, path, check_same_thread=False, **options)).get()


def read(query: str, database: object, **options: Any) -> pl.DataFrame:
    return greendata.read_sql(query, database, **options).get()


def count(database: object, table: str = "t") -> int:
    return int(read(f'SELECT count(*) FROM "{table}"', database).item())


# -- writing and reading ------------------------------------------------------------------------------


def test_every_type_comes_back_with_its_overrides(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    assert greendata.write_sql(EVERY_TYPE, "t", path).get() == EVERY_TYPE.height
    assert_frame_equal(read("SELECT * FROM t", path, schema_overrides=EVERY_TYPE.schema), EVERY_TYPE)
    plain = read("SELECT * FROM t", path)
    assert plain["decimal"].to_list() == ["1.25", "-99999999.99", None]
    assert plain["date"].to_list() == ["2020-02-29", "1900-01-01", None]


def test_an_empty_result_keeps_its_columns(file: Path) -> None:
    empty = read("SELECT * FROM t WHERE a > 9", file)
    assert (empty.columns, empty.height) == (["a", "b"], 0)
    typed = read("SELECT * FROM t WHERE a > 9", file, schema_overrides={"b": pl.String})
    assert typed.schema == {"a": pl.Int64, "b": pl.String}
    with greendata.read_sql("SELECT * FROM t WHERE a > 9", file, batch_rows=2) as stream:
        assert [batch.shape for batch in stream] == [(0, 2)]


def test_a_frame_without_rows_makes_the_table(tmp_path: Path) -> None:
    assert greendata.write_sql(ROWS.clear(), "t", tmp_path / "a.sqlite").get() == 0
    assert read("SELECT * FROM t", tmp_path / "a.sqlite").columns == ["a", "b"]


def test_a_statement_that_returns_no_rows(file: Path) -> None:
    assert read("CREATE TABLE u (a)", file).shape == (0, 0)
    assert read("INSERT INTO u VALUES (?)", file, params=[7]).shape == (0, 0)
    assert read("SELECT a FROM u", file).item() == 7


@pytest.mark.parametrize("address", ["{0}", "sqlite:///{0}"])
def test_addresses(address: str, file: Path) -> None:
    assert count(address.format(file)) == 3


def test_a_relative_address(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    assert count("sqlite:///shop.sqlite") == count("shop.sqlite") == 3


def test_a_file_whose_name_looks_like_a_query(tmp_path: Path) -> None:
    path = tmp_path / "a?mode=memory&b#c%20d.sqlite"
    greendata.write_sql(ROWS, "t", path).get()
    assert path.exists()
    assert count(path) == 3


def test_the_type_of_a_column_is_taken_from_all_rows(file: Path) -> None:
    query = COUNTING.format(30_000).replace("SELECT i FROM", "SELECT iif(i < 29000, NULL, 'x') AS v FROM")
    assert read(query, file)["v"].null_count() == 28_999
    with pytest.raises(ColumnUnreadable, match="column 'v' holds values that cannot become Int64"):
        list(greendata.read_sql(query, file, batch_rows=1_000))


# -- parameters ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, 2**62, -1.5, "x", "'; DROP TABLE t; --", "?", b"\x00'", True, None, "", "\u2028"])
def test_parameters_are_values_whatever_they_contain(value: object, file: Path) -> None:
    assert read("SELECT ? AS v", file, params=[value]).item() == value
    assert read("SELECT :v AS v", file, params={"v": value}).item() == value
    assert count(file) == 3


def test_named_parameters_are_bound_by_name(file: Path) -> None:
    for params in ({"y": 2, "x": 1}, {":y": 2, ":x": 1}):
        assert read("SELECT :x, :y", file, params=params).row(0) == (1, 2)
    assert read("SELECT @x, $y", file, params={"@x": 1, "$y": 2}).row(0) == (1, 2)


@pytest.mark.parametrize("params", [None, [], [1, 2], {}])
def test_a_wrong_number_of_parameters(params: Any, file: Path) -> None:
    with pytest.raises(QueryFailed, match="number of bindings"):
        read("SELECT ?", file, params=params)


def test_arguments_that_cannot_be_used(file: Path) -> None:
    for params in ("abc", b"abc", 3, {1, 2}):
        with pytest.raises(BadArgument, match="params must be"):
            greendata.read_sql("SELECT ?", file, params=params)  # type: ignore[call-overload]
    for rows in (0, -1, True, "2", 1.5):
        with pytest.raises(BadArgument, match="batch_rows must be"):
            greendata.read_sql("SELECT 1", file, batch_rows=rows)  # type: ignore[call-overload]
    with pytest.raises(BadArgument, match="query must be"):
        greendata.read_sql(b"SELECT 1", file)  # type: ignore[call-overload]
    with pytest.raises(ColumnUnwritable, match=r"1 column cannot be stored in SQLite: '0' \(List"):
        greendata.read_sql("SELECT ?", file, params=[[1, 2]])
    for overrides in ("a", {"a": pl.Decimal}, {"a": "x"}, {1: pl.Int64}, [("a", pl.Int64)]):
        with pytest.raises(BadArgument, match="schema_overrides must be None or a mapping"):
            greendata.read_sql("SELECT 1", file, schema_overrides=overrides)  # type: ignore[call-overload]
    with pytest.raises(BadArgument, match="schema_overrides must be of the columns a, b"):
        read("SELECT * FROM t", file, schema_overrides={"c": pl.Date})


# -- names --------------------------------------------------------------------------------------------


@nasty_names
def test_names_are_quoted_whatever_they_contain(name: str, file: Path) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    frame = pl.DataFrame({name: [1, 2]})
    assert greendata.write_sql(frame, name, file).get() == 2
    assert_frame_equal(read(f"SELECT * FROM {quoted}", file), frame)
    tables = read("SELECT name FROM sqlite_master ORDER BY rowid", file)["name"].to_list()
    assert tables == ["t", name]


# -- writing ------------------------------------------------------------------------------------------


def test_what_to_do_with_a_table_that_exists(file: Path) -> None:
    with pytest.raises(QueryFailed, match="already exists"):
        greendata.write_sql(ROWS, "t", file).get()
    assert count(file) == 3
    assert greendata.write_sql(ROWS, "t", file, if_exists="append").get() == 3
    assert count(file) == 6
    greendata.write_sql(ROWS.select("a"), "t", file, if_exists="replace").get()
    assert_frame_equal(read("SELECT * FROM t", file), ROWS.select("a"))
    greendata.write_sql(ROWS, "new", file, if_exists="append").get()
    assert count(file, "new") == 3


def test_frames_and_arguments_that_cannot_be_written(file: Path) -> None:
    unwritable = pl.DataFrame({"l": [[1]], "s": [{"a": 1}], "i": pl.Series([1], dtype=pl.Int128), "a": [1]})
    with pytest.raises(ColumnUnwritable, match="3 columns cannot be stored in SQLite: 'i'") as caught:
        greendata.write_sql(unwritable, "u", file)
    assert sorted(caught.value.columns) == ["i", "l", "s"]
    with pytest.raises(NotAFrame):
        greendata.write_sql(ROWS.lazy(), "u", file)  # type: ignore[arg-type]
    with pytest.raises(BadArgument, match="at least one column"):
        greendata.write_sql(pl.DataFrame(), "u", file)
    with pytest.raises(BadChoice, match="if_exists must be 'fail', 'append' or 'replace'"):
        greendata.write_sql(ROWS, "u", file, if_exists="upsert")  # type: ignore[arg-type]
    for name in ("", "a\0b", 3):
        with pytest.raises(BadArgument, match="the name of a table"):
            greendata.write_sql(ROWS, name, file)  # type: ignore[arg-type]
    assert read("SELECT name FROM sqlite_master", file)["name"].to_list() == ["t"]


@pytest.fixture
def strict(file: Path) -> Path:
    read("CREATE TABLE strict (a INTEGER UNIQUE CHECK (a < 500))", file)
    return file


def too_many() -> pl.DataFrame:
    """The last row violates a constraint of the table."""
    return pl.DataFrame({"a": range(501)})


def test_a_write_that_fails_midway_leaves_nothing(strict: Path) -> None:
    with pytest.raises(QueryFailed, match="CHECK constraint failed") as caught:
        greendata.write_sql(too_many(), "strict", strict, if_exists="append").get()
    assert "write to strict" in str(caught.value)
    assert caught.value.__cause__ is not None
    assert count(strict, "strict") == 0


def test_values_that_do_not_fit_leave_nothing(file: Path) -> None:
    frame = pl.DataFrame({"a": pl.Series([1, 2**64 - 1], dtype=pl.UInt64)})
    with pytest.raises(WriteRefused, match="cannot write to 'u': column 'a' holds values that cannot become Int64"):
        greendata.write_sql(frame, "u", file).get()
    assert read("SELECT name FROM sqlite_master", file)["name"].to_list() == ["t"]


def test_a_replace_that_fails_keeps_the_old_table(file: Path) -> None:
    read("CREATE VIEW v AS SELECT * FROM t", file)
    with pytest.raises(QueryFailed):
        greendata.write_sql(ROWS, "v", file, if_exists="replace").get()
    assert count(file) == count(file, "v") == 3


# -- connections of the caller --------------------------------------------------------------------------


def test_a_rollback_removes_the_rows(file: Path, connection: Any) -> None:
    greendata.write_sql(ROWS, "t", connection, if_exists="append").get()
    greendata.write_sql(ROWS, "u", connection).get()
    assert (count(connection), count(connection, "u"), count(file)) == (6, 3, 3)
    greendata.run(connection.rollback).get()
    assert read("SELECT name FROM sqlite_master", connection)["name"].to_list() == ["t"]
    assert count(connection) == 3


def test_a_commit_keeps_the_rows(file: Path, connection: Any) -> None:
    greendata.write_sql(ROWS, "t", connection, if_exists="append").get()
    greendata.run(connection.commit).get()
    assert count(file) == 6


def test_a_write_that_fails_leaves_the_callers_transaction_as_it_was(strict: Path) -> None:
    with closing(connect(strict)) as connection:
        greendata.write_sql(pl.DataFrame({"a": [1]}), "strict", connection, if_exists="append").get()
        with pytest.raises(QueryFailed):
            greendata.write_sql(too_many().slice(2), "strict", connection, if_exists="append").get()
        greendata.run(connection.commit).get()
    assert read("SELECT a FROM strict", strict)["a"].to_list() == [1]


def test_a_connection_that_commits_by_itself(strict: Path) -> None:
    with closing(connect(strict, isolation_level=None)) as connection:
        with pytest.raises(QueryFailed):
            greendata.write_sql(too_many(), "strict", connection, if_exists="append").get()
        assert count(strict, "strict") == 0
        greendata.write_sql(pl.DataFrame({"a": [1]}), "strict", connection, if_exists="append").get()
        assert count(strict, "strict") == 1


@pytest.mark.parametrize("write", [False, True])
def test_a_commit_that_is_refused(write: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """A deferred constraint: the statement succeeds, and the commit fails."""
    with closing(connect(tmp_path / "a.sqlite", isolation_level=None)) as connection:
        read("CREATE TABLE parent (id INTEGER PRIMARY KEY)", connection)
        read("CREATE TABLE child (id INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)", connection)
        greendata.run(connection.execute, "PRAGMA foreign_keys = ON").get()
        orphans = pl.DataFrame({"id": [7]})
        insert = partial(greendata.write_sql, orphans, "child", if_exists="append")
        if not write:
            insert = partial(greendata.read_sql, "INSERT INTO child VALUES (7)")
        with pytest.raises(QueryFailed, match=r"refused 'COMMIT': .*FOREIGN KEY constraint failed"):
            insert(database=connection).get()
        assert not connection.in_transaction
        assert count(connection, "child") == 0


def test_two_jobs_cannot_have_one_connection(connection: Any, held: Gate) -> None:
    with one_worker():
        blocker = greendata.run(held)
        first = greendata.read_sql("SELECT 1 AS a", connection, label="report")
        for second in (greendata.read_sql, partial(greendata.write_sql, ROWS)):
            with pytest.raises(ConnectionBusy, match="report still uses this connection") as caught:
                second("SELECT 1", connection)
        assert caught.value.holder == "report"
        held.open()
        assert (first.get().item(), blocker.get()) == (1, None)
    assert count(connection) == 3


def test_a_job_that_never_ran_gives_the_connection_back(connection: Any, held: Gate) -> None:
    with one_worker():
        blocker = greendata.run(held)
        held.wait_arrived()
        queued = greendata.read_sql("SELECT 1", connection)
        queued.cancel_wait()
        late = greendata.read_sql("SELECT 1", connection, timeout=0)
        with pytest.raises(greendata.DeadlineExceeded):
            late.get()
        held.open()
        blocker.get()
    assert count(connection) == 3
    assert not databases._claims


def test_a_call_that_is_refused_does_not_keep_the_connection(connection: Any) -> None:
    with pytest.raises(greendata.BadTimeout):
        greendata.read_sql("SELECT 1", connection, timeout=-1)
    with pytest.raises(greendata.BadTimeout):
        greendata.read_sql("SELECT 1", connection, timeout=-1, batch_rows=1)
    with pytest.raises(ColumnUnwritable):
        greendata.write_sql(pl.DataFrame({"a": [[1]]}), "u", connection)
    assert count(connection) == 3


# -- streams --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 7, 10_000, 25_000, 60_000])
def test_a_stream_is_the_frame(rows: int, file: Path) -> None:
    with greendata.read_sql(COUNTING.format(25_000), file, batch_rows=rows) as stream:
        heights, total = [], 0
        for batch in stream:
            heights.append(batch.height)
            total += batch["i"].sum()
    assert set(heights[:-1]) <= {rows}
    assert sum(heights) == 25_000
    assert total == 25_000 * 25_001 // 2


def test_the_first_batch_comes_before_the_query_ends(file: Path) -> None:
    endless = COUNTING.replace(" WHERE i < {0}", "")
    with greendata.read_sql(endless, file, batch_rows=5) as stream:
        assert next(stream)["i"].to_list() == [1, 2, 3, 4, 5]


def leave_block(stream: greendata.SqlBatches) -> None:
    with stream:
        next(stream)


def leave_block_by_error(stream: greendata.SqlBatches) -> None:
    with pytest.raises(ZeroDivisionError), stream:
        1 / (next(stream)["i"][0] - 1)


def exhaust(stream: greendata.SqlBatches) -> None:
    for _ in stream:
        pass


def close_before_the_first(stream: greendata.SqlBatches) -> None:
    stream.close()
    stream.close()
    assert list(stream) == []


def enter_and_leave(stream: greendata.SqlBatches) -> None:
    with stream:
        pass


@pytest.mark.parametrize("end", [leave_block, leave_block_by_error, exhaust, close_before_the_first, enter_and_leave])
def test_the_end_of_a_stream_gives_the_connection_back_at_once(
    end: Callable[[greendata.SqlBatches], None], connection: Any
) -> None:
    end(greendata.read_sql(COUNTING.format(30_000), connection, batch_rows=3))
    assert count(connection) == 3


def drop(stream: list[greendata.SqlBatches]) -> None:
    next(stream[0])
    stream.clear()
    gc.collect()


def close(stream: list[greendata.SqlBatches]) -> None:
    next(stream[0])
    stream[0].close()


@pytest.mark.parametrize("end", [drop, close])
def test_a_stream_that_is_dropped_or_closed_gives_the_connection_back(
    end: Callable[[list[greendata.SqlBatches]], None], connection: Any
) -> None:
    end([greendata.read_sql(COUNTING.format(30_000), connection, batch_rows=3)])
    until(lambda: not databases._claims)
    assert count(connection) == 3


def test_a_stream_in_use_keeps_its_connection(connection: Any) -> None:
    with greendata.read_sql("SELECT * FROM t", connection, batch_rows=1, label="export") as stream:
        next(stream)
        with pytest.raises(ConnectionBusy, match="export still uses"):
            greendata.read_sql("SELECT 1", connection)


def test_a_query_that_fails_midway_ends_the_stream(file: Path) -> None:
    with pytest.raises(QueryFailed, match="malformed JSON") as caught:
        read(FAILS_AT_30, file)
    assert caught.value.statement == FAILS_AT_30
    stream = greendata.read_sql(FAILS_AT_30, file, batch_rows=10)
    with pytest.raises(QueryFailed, match="malformed JSON"):
        list(stream)
    assert list(stream) == []


def test_streams_leave_no_descriptors(
    file: Path, keeps_descriptors: Callable[[], AbstractContextManager[None]]
) -> None:
    read("SELECT 1", file)
    with keeps_descriptors():
        with greendata.read_sql(COUNTING.format(30_000), file, batch_rows=3) as stream:
            next(stream)
        with pytest.raises(QueryFailed):
            read("SELEC 1", file)
        with pytest.raises(QueryFailed):
            greendata.write_sql(ROWS, "t", file).get()


# -- the hub and the pool ---------------------------------------------------------------------------------


def test_it_runs_in_the_pool_while_the_hub_runs(file: Path) -> None:
    with crowded():
        assert count(file) == 3
    with crowded():
        greendata.write_sql(ROWS, "u", file).get()
    with crowded():
        next(stream := greendata.read_sql("SELECT 1", file, batch_rows=1, label="export 7"))
    assert "'export 7'" in repr(stream)
    stream.close()


def test_a_deadline_that_passes_in_the_queue(file: Path, held: Gate) -> None:
    with one_worker():
        blocker = greendata.run(held)
        held.wait_arrived()
        with pytest.raises(greendata.DeadlineExceeded, match="export had not begun"):
            greendata.read_sql("SELECT 1", file, timeout=0.01, label="export").get()
        result = greendata.write_sql(ROWS, "u", file)
        assert result.cancel()
        held.open()
        blocker.get()
    with pytest.raises(JobCancelled):
        result.get()
    with pytest.raises(QueryFailed):
        count(file, "u")


# -- errors -------------------------------------------------------------------------------------------------


def test_a_query_that_fails_says_why(file: Path) -> None:
    with pytest.raises(QueryFailed) as caught:
        read("SELEC 1", file, params=["secret"])
    assert str(caught.value).startswith("the database refused 'SELEC 1': ")
    assert 'near "SELEC": syntax error' in caught.value.reason
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is not None


def test_a_long_query_is_cut_in_the_text_and_kept_in_the_error(file: Path) -> None:
    query = "SELECT " + ", ".join(f"nothing_{number}" for number in range(100))
    with pytest.raises(QueryFailed) as caught:
        read(query, file)
    assert caught.value.statement == query
    assert "..." in str(caught.value)


def test_a_file_that_is_not_there_is_not_made_by_reading(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnreachable, match="there is no such file"):
        read("SELECT 1", tmp_path / "none.sqlite")
    with pytest.raises(DatabaseUnreachable, match="unable to open"):
        greendata.write_sql(ROWS, "t", tmp_path / "none" / "a.sqlite").get()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_a_database(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    path.write_bytes(b"this is a text, and long enough to be looked at" * 30)
    with pytest.raises((DatabaseUnreachable, QueryFailed), match="not a database"):
        read("SELECT * FROM t", path)


@pytest.mark.parametrize("given", ["mysql://ann:secret@db/shop", 3, None, object()])
def test_neither_an_address_nor_a_connection(given: object) -> None:
    with pytest.raises(UnknownDatabase, match="expected sqlite:///path") as caught:
        greendata.read_sql("SELECT 1", given)
    assert "secret" not in str(caught.value)


def test_secrets_appear_nowhere() -> None:
    address = "postgresql://ann:s%65cret@127.0.0.1:1/shop?sslpassword=hidden"
    place = database_of(address, "report")
    assert repr(place) == "<Address postgresql://ann:***@127.0.0.1:1/shop?sslpassword=***>"
    for broken in (address, address.replace(":1/", ":x/"), address.replace("127.0.0.1", "[::1"), address + "%zz"):
        result = greendata.read_sql("SELECT 1", broken)
        with pytest.raises(DatabaseUnreachable, match=r"cannot open postgresql://ann:\*\*\*@") as caught:
            result.get()
        shown = f"{caught.value!r} {caught.value} {caught.value.__cause__!r} {result!r}"
        assert not [secret for secret in ("s%65cret", "secret", "hidden") if secret in shown]
