"""SQLite in a process that also uses `sqlite3` and SQLAlchemy: one library, its locks, values and transactions."""

from __future__ import annotations

import datetime as dt
import sqlite3
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import greendata
from greendata import ColumnUnreadable, DatabaseUnreachable, QueryFailed, WriteRefused
from greendata.errors import ColumnUnwritable, JobCancelled
from greendata.query import objects
from tests.support.databases import EVERY_TYPE, closing
from tests.support.gates import Gate
from tests.support.natives import until
from tests.support.processes import run_python

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS i FROM n"
ROWS = pl.DataFrame({"a": [1, 2, 3]})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shop.sqlite"
    greendata.write_sql(ROWS, "t", path).get()
    return path


def read(query: str, database: object, **options: Any) -> pl.DataFrame:
    return greendata.read_sql(query, database, **options).get()


def count(database: object) -> int:
    return int(read("SELECT count(*) FROM t", database).item())


def connect(path: Path, **options: Any) -> Any:
    return greendata.run(partial(sqlite3.connect, path, check_same_thread=False, **options)).get()


# -- one library ----------------------------------------------------------------------------------------


def test_no_other_sqlite_is_loaded(file: Path) -> None:
    code, out, err = run_python(
        f"""
        import pathlib, sys
        import greendata, polars as pl
        print("sqlite3" in sys.modules)
        greendata.write_sql(pl.DataFrame({{"a": [1]}}), "t", {str(file)!r}, if_exists="append").get()
        greendata.read_sql("SELECT * FROM t", {str(file)!r}).get()
        print([name for name in sys.modules if name.startswith("adbc")])
        print([line for line in pathlib.Path("/proc/self/maps").read_text().splitlines() if "adbc" in line])
        """
    )
    assert (code, err) == (0, "")
    assert out.splitlines() == ["False", "[]", "[]"]


def test_a_lock_of_sqlite3_is_respected(file: Path) -> None:
    """A reader and a writer wait until the greenlet that holds the lock releases it."""
    with closing(connect(file, isolation_level=None)) as holder:
        greendata.run(holder.execute, "BEGIN EXCLUSIVE").get()
        greendata.run(holder.execute, "INSERT INTO t VALUES (4)").get()
        reading = greendata.read_sql("SELECT count(*) FROM t", file)
        writing = greendata.write_sql(ROWS, "t", file, if_exists="append")
        until(lambda: reading.status is greendata.Status.RUNNING)
        greendata.run(holder.execute, "COMMIT").get()
        assert reading.get().item() in (4, 7)
        assert writing.get() == 3
    assert count(file) == 7


def test_many_writers_wait_for_each_other(file: Path) -> None:
    """Greenlets and native threads that use `sqlite3` directly write; none fails, and no row is lost."""

    def with_sqlite3(number: int) -> None:
        with sqlite3.connect(file, timeout=30) as connection:
            connection.executemany("INSERT INTO t VALUES (?)", [(number,)] * 3)
        connection.close()

    results: list[greendata.Result[Any]] = []
    for number in range(10):
        results.append(greendata.write_sql(ROWS, "t", file, if_exists="append"))
        results.append(greendata.run(with_sqlite3, number))
        results.append(greendata.read_sql("INSERT INTO t VALUES (1), (2), (3) RETURNING a", file))
    for result in results:
        result.get()
    assert count(file) == 3 + 10 * 9
    assert read("PRAGMA integrity_check", file).item() == "ok"


@pytest.mark.parametrize("statement", ["INSERT INTO t SELECT a FROM t", "UPDATE t SET a = 0 RETURNING a"])
def test_a_statement_that_writes_waits_too(statement: str, file: Path) -> None:
    with closing(connect(file, isolation_level=None)) as holder:
        greendata.run(holder.execute, "BEGIN IMMEDIATE").get()
        writing = greendata.read_sql(statement, file)
        until(lambda: writing.status is greendata.Status.RUNNING)
        greendata.run(holder.execute, "COMMIT").get()
        writing.get()


# -- values ---------------------------------------------------------------------------------------------


def test_a_column_of_numbers_and_text_is_refused_or_text_with_all_digits(file: Path) -> None:
    big = "SELECT 9007199254740993 AS v UNION ALL SELECT 'x' UNION ALL SELECT 0.1"
    with pytest.raises(ColumnUnreadable, match="column 'v' mixes float and int and str values"):
        read(big, file)
    assert read(big, file, schema_overrides={"v": pl.String})["v"].to_list() == ["9007199254740993", "x", "0.1"]
    with pytest.raises(ColumnUnreadable, match="column 'v' holds floats, and integers that have no equal float"):
        read("SELECT 9007199254740993 AS v UNION ALL SELECT 0.5", file)
    decimals = read(
        "SELECT 9007199254740993 AS v UNION ALL SELECT 0.5", file, schema_overrides={"v": pl.Decimal(20, 1)}
    )
    assert [str(value) for value in decimals["v"]] == ["9007199254740993.0", "0.5"]
    assert read("SELECT 2 AS v UNION ALL SELECT 0.5", file)["v"].to_list() == [2.0, 0.5]


def test_types_that_change_in_a_late_row(file: Path) -> None:
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) "
    with pytest.raises(ColumnUnreadable, match="int and str values"):
        read(f"{numbers} SELECT iif(i < 4999, i, 'x') AS v FROM n", file)
    mixed = read(f"{numbers} SELECT iif(i < 4999, i, 0.5) AS v FROM n", file)["v"]
    assert (mixed.dtype, mixed[4997], mixed[4998]) == (pl.Float64, 4998.0, 0.5)
    text = read(f"{numbers} SELECT iif(i < 4999, i, 'x') AS v FROM n", file, schema_overrides={"v": pl.String})["v"]
    assert text.to_list() == [*map(str, range(1, 4999)), "x", "x"]


@pytest.mark.parametrize(
    ("query", "dtype"),
    [
        ("SELECT 1.5", pl.Int64), ("SELECT 2", pl.Boolean), ("SELECT '1.256'", pl.Decimal(10, 2)),
        ("SELECT 9007199254740993", pl.Float64), ("SELECT 300", pl.Int8), ("SELECT 'x'", pl.Int64),
        ("SELECT '2024-01-01T00:00:00.1234567'", pl.Datetime("us")),
        ("SELECT '2500-01-01T00:00:00'", pl.Datetime("ns")),
        ("SELECT '1e-3'", pl.Decimal(10, 2)), ("SELECT '2024-02-30'", pl.Date), ("SELECT 0.1", pl.Float32),
        ("SELECT x'ff'", pl.String), ("SELECT '12:00:00.1234567891'", pl.Time), ("SELECT 1.256", pl.Decimal(10, 2)),
        ("SELECT '1e400'", pl.Float64),
    ],
)  # fmt: skip
def test_an_override_changes_no_value(query: str, dtype: Any, file: Path) -> None:
    with pytest.raises(ColumnUnreadable, match="column 'v'"):
        read(f"{query} AS v", file, schema_overrides={"v": dtype})


def test_text_that_is_not_utf8_names_its_column(file: Path) -> None:
    with pytest.raises(ColumnUnreadable, match="column 'caf\u00e9' holds text that is not UTF-8"):
        read("SELECT a, CAST(x'636166e9' AS TEXT) AS \"caf\u00e9\" FROM t", file)
    assert read("SELECT CAST(x'636166e9' AS BLOB) AS b", file).item() == b"caf\xe9"


def test_two_columns_of_one_name(file: Path) -> None:
    with pytest.raises(ColumnUnreadable, match="column 'a' appears 2 times; give each a different name"):
        read("SELECT a, a FROM t", file)


def test_two_columns_that_are_one_to_sqlite(file: Path) -> None:
    with pytest.raises(greendata.BadArgument, match="differ by more than upper and lower case"):
        greendata.write_sql(pl.DataFrame({"a": [1], "A": [2]}), "t", file, if_exists="append")
    other = pl.DataFrame({"\u00e4": [1], "\u00c4": [2]})
    greendata.write_sql(other, "u", file).get()
    assert read("SELECT * FROM u", file).row(0) == (1, 2)


@pytest.mark.parametrize("query", ["SELECT 1; SELECT 2", "DELETE FROM t; SELECT 2"])
def test_several_statements_are_refused(query: str, file: Path) -> None:
    with pytest.raises(QueryFailed, match="one statement at a time"):
        read(query, file)
    assert count(file) == 3
    assert read("SELECT 1; -- note", file).item() == 1


def test_values_that_sqlite_would_change_are_refused(file: Path) -> None:
    for values, word in (([float("nan")], "NaN"), (pl.Series([2**64 - 1], dtype=pl.UInt64), "cannot become Int64")):
        with pytest.raises(WriteRefused, match=word):
            greendata.write_sql(pl.DataFrame({"a": values}), "u", file).get()
    with pytest.raises(greendata.BadArgument, match="NaN"):
        greendata.read_sql("SELECT ?", file, params=[float("nan")])
    read("CREATE TABLE old (zip NUMERIC, price REAL, name TEXT)", file)
    for column, value in (("zip", "007"), ("price", 2**53 + 1), ("ZIP", "1e5")):
        with pytest.raises(WriteRefused, match=f"column '{column}'"):
            greendata.write_sql(pl.DataFrame({column: [value]}), "old", file, if_exists="append").get()
    exact = pl.DataFrame({"zip": ["0815a"], "price": [2**53], "name": [0.30000000000000004]})
    greendata.write_sql(exact, "old", file, if_exists="append").get()
    assert read("SELECT * FROM old", file).row(0) == ("0815a", 2.0**53, "0.30000000000000004")


# -- connections of the caller ----------------------------------------------------------------------------


def test_the_factories_of_a_connection_stay_and_make_no_rows_here(file: Path) -> None:
    with closing(connect(file)) as connection:
        connection.row_factory = sqlite3.Row
        assert read("SELECT a, 'x' AS b FROM t", connection).row(0) == (1, "x")
        assert connection.row_factory is sqlite3.Row


def test_a_connection_bound_to_one_thread(file: Path) -> None:
    with closing(connect(file)) as connection:
        made_here = sqlite3.connect(file)
        with pytest.raises(QueryFailed, match="check_same_thread=False"):
            read("SELECT 1", made_here)
        made_here.close()
        assert count(connection) == 3


@pytest.mark.skipif(sys.version_info < (3, 12), reason="autocommit is new in Python 3.12")
@pytest.mark.parametrize("autocommit", [True, False])
def test_the_autocommit_of_newer_pythons(autocommit: bool, file: Path) -> None:  # noqa: FBT001
    with closing(connect(file, autocommit=autocommit)) as connection:
        greendata.write_sql(ROWS, "t", connection, if_exists="append").get()
        assert count(file) == (6 if autocommit else 3)
        greendata.run(connection.rollback).get()
        assert count(connection) == (6 if autocommit else 3)


def test_a_write_that_fails_leaves_no_transaction_open(file: Path) -> None:
    with closing(connect(file)) as connection:
        with pytest.raises(QueryFailed):
            greendata.write_sql(ROWS, "t", connection).get()
        assert not connection.in_transaction
        greendata.write_sql(ROWS, "t", connection, if_exists="append").get()
        with pytest.raises(QueryFailed):
            greendata.write_sql(ROWS, "t", connection).get()
        assert count(connection) == 6
        greendata.run(connection.commit).get()
    assert count(file) == 6


def test_what_a_query_changes_stays_in_the_callers_transaction(file: Path) -> None:
    with closing(connect(file)) as connection:
        read("DELETE FROM t", connection)
        assert (count(connection), count(file)) == (0, 3)
        greendata.run(connection.rollback).get()
        assert count(connection) == 3


class MeddlesomeCursor(sqlite3.Cursor):
    """It ends the transaction after the first rows, as another greenlet with the same connection could."""

    def executemany(self, sql: str, rows: Any, /) -> sqlite3.Cursor:
        done = super().executemany(sql, rows)
        self.connection.meddle()  # type: ignore[attr-defined]
        return done


class Meddlesome(sqlite3.Connection):
    left = 0

    def meddle(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.rollback()

    def cursor(self, factory: Any = MeddlesomeCursor) -> Any:
        return super().cursor(factory)


@pytest.mark.parametrize("isolation_level", ["", None])
@pytest.mark.parametrize("rows", [10, 2_000])
def test_a_rollback_in_the_midst_of_a_write_leaves_no_half_of_it(
    isolation_level: str | None, rows: int, file: Path
) -> None:
    with closing(connect(file, isolation_level=isolation_level, factory=Meddlesome)) as connection:
        for slices in (1, 2):
            connection.left = slices
            if slices == 1 or rows > 64:  # else there is only one slice
                with pytest.raises(QueryFailed, match=r"ended by another user|no such savepoint"):
                    greendata.write_sql(pl.DataFrame({"a": range(rows)}), "t", connection, if_exists="append").get()
            assert not connection.in_transaction
            assert count(file) == count(connection) == 3


# -- stopping -----------------------------------------------------------------------------------------------


def test_a_statement_is_stopped_when_its_result_is_cancelled(file: Path) -> None:
    result = greendata.read_sql(ENDLESS, file)
    until(lambda: result.status is greendata.Status.RUNNING)
    result.cancel_wait()
    with pytest.raises(JobCancelled):
        result.get()


def test_a_statement_is_stopped_at_its_deadline(file: Path) -> None:
    with closing(connect(file)) as connection:
        result = greendata.read_sql(ENDLESS, connection, timeout=0.1)
        with pytest.raises(greendata.DeadlineExceeded):
            result.get()
        result.end().get()
        assert count(connection) == 3


def test_a_write_that_is_stopped_midway_leaves_nothing(file: Path) -> None:
    """A trigger blocks the write between two rows."""
    gate = Gate()
    with closing(connect(file)) as connection:
        connection.create_function("gate", 0, gate)
        read("CREATE TRIGGER held AFTER INSERT ON t WHEN new.a = 7 BEGIN SELECT gate(); END", connection)
        greendata.run(connection.commit).get()
        result = greendata.write_sql(pl.DataFrame({"a": [5, 6, 7, 8]}), "t", connection, if_exists="append")
        gate.wait_arrived()
        assert result.cancel()
        gate.open()
        result.end().get()
        assert not connection.in_transaction
        assert count(connection) == 3
    assert count(file) == 3


def test_a_read_that_is_stopped_closes_its_connection(
    file: Path, keeps_descriptors: Callable[[], AbstractContextManager[None]]
) -> None:
    count(file)
    with keeps_descriptors():
        result = greendata.read_sql(ENDLESS, file)
        until(lambda: result.status is greendata.Status.RUNNING)
        result.cancel_wait()
        result.end().get()
        with pytest.raises(WriteRefused):
            greendata.write_sql(pl.DataFrame({"a": [float("nan")]}), "t", file, if_exists="append").get()
    greendata.write_sql(ROWS, "t", file, if_exists="append").get()


@pytest.mark.parametrize("text", [" 1", "1 ", "\t1.5", "1\v", "\n-7\n"])
@pytest.mark.parametrize("kind", ["INTEGER", "NUMERIC", "REAL", "DATE"])
def test_numbers_with_space_around_them_are_text_that_would_be_changed(text: str, kind: str, file: Path) -> None:
    greendata.read_sql(f"CREATE TABLE spaced (a {kind})", file).get()
    with pytest.raises(WriteRefused, match="text that the table's"):
        greendata.write_sql(pl.DataFrame({"a": [text]}), "spaced", file, if_exists="append").get()


def test_an_append_to_a_table_that_is_not_in_the_main_database(file: Path) -> None:
    with closing(sqlite3.connect(file, check_same_thread=False)) as connection:
        connection.execute("CREATE TEMPORARY TABLE passing (a TEXT)")
        connection.execute("ATTACH ':memory:' AS other")
        connection.execute("CREATE TABLE other.far (a TEXT)")
        for table in ("passing", "far"):
            greendata.write_sql(pl.DataFrame({"a": [0.1]}), table, connection, if_exists="append").get()
            assert greendata.read_sql(f"SELECT a FROM {table}", connection).get().rows() == [("0.1",)]
            query = "SELECT name FROM main.sqlite_schema WHERE name = ?"
            assert greendata.read_sql(query, connection, params=[table]).get().is_empty()
        connection.rollback()


@pytest.mark.parametrize("value", [Decimal("NaN"), Decimal("-Infinity"), [Decimal("NaN")]])
def test_a_decimal_that_is_not_a_number_is_rejected_as_a_parameter(value: Any, file: Path) -> None:
    with pytest.raises(ColumnUnwritable):
        greendata.read_sql("SELECT ?", file, params=[value])


@pytest.mark.parametrize("name", ["^x$", "*", "^.*$", ""])
def test_every_type_in_a_column_whose_name_looks_like_a_pattern(name: str, file: Path) -> None:
    for series in EVERY_TYPE:
        df = series.alias(name).to_frame()
        greendata.write_sql(df, "named", file, if_exists="replace").get()
        plain = greendata.read_sql("SELECT * FROM named", file).get()
        greendata.write_sql(series.alias("x").to_frame(), "plain", file, if_exists="replace").get()
        assert_frame_equal(plain, read("SELECT * FROM plain", file).rename({"x": name}))
        if series.dtype not in (pl.Boolean, pl.Null):
            found = greendata.read_sql("SELECT * FROM named", file, schema_overrides={name: series.dtype}).get()
            assert_frame_equal(found, df)
        for kind in ("TEXT", "REAL", "NUMERIC"):
            read("DROP TABLE named", file)
            read(f'CREATE TABLE named ("{name}" {kind})', file)
            with suppress(WriteRefused):
                greendata.write_sql(df, "named", file, if_exists="append").get()


@pytest.mark.parametrize("value", [Decimal("1e40"), Decimal("1e-40"), dt.time(1, tzinfo=dt.UTC)])
def test_a_parameter_that_polars_would_change_is_rejected(value: Any, file: Path) -> None:
    with pytest.raises(ColumnUnwritable, match=r"cannot be stored in SQLite: '0'"):
        greendata.read_sql("SELECT ?", file, params=[value])


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_an_append_to_a_database_of_any_encoding(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with closing(connect(path)) as connection:
        connection.execute(f"PRAGMA encoding = '{encoding}'")
        connection.execute('CREATE TABLE t ("\u00e9" NUMERIC, b TEXT)')
        connection.commit()
    for df in (pl.DataFrame({"\u00e9": ["007"]}), pl.DataFrame({"B": ["x"], "c": [1]})):
        with pytest.raises(QueryFailed):
            greendata.write_sql(df, "t", path, if_exists="append").get()
    df = pl.DataFrame({"\u00e9": ["x"], "b": [0.30000000000000004]})
    greendata.write_sql(df, "t", path, if_exists="append").get()
    assert read("SELECT * FROM t", path).rows() == [("x", "0.30000000000000004")]


# -- tables that leave rows out ---------------------------------------------------------------------------


def test_rows_that_the_table_leaves_out_are_not_counted(file: Path) -> None:
    read("CREATE TABLE once (a INTEGER UNIQUE ON CONFLICT IGNORE)", file)
    read("CREATE TABLE picky (a INTEGER)", file)
    read("CREATE TRIGGER skips BEFORE INSERT ON picky WHEN new.a = 2 BEGIN SELECT RAISE(IGNORE); END", file)
    for table, rows, kept in (("once", [1, 1, 2], [1, 2]), ("picky", [1, 2, 3], [1, 3])):
        df = pl.DataFrame({"a": rows})
        assert greendata.write_sql(df, table, file, if_exists="append").get() == len(kept)
        assert read(f"SELECT a FROM {table}", file)["a"].to_list() == kept


def test_a_view_takes_rows_if_it_has_a_trigger(file: Path) -> None:
    read("CREATE VIEW above AS SELECT a FROM t", file)
    with pytest.raises(QueryFailed, match="cannot modify above because it is a view"):
        greendata.write_sql(ROWS, "above", file, if_exists="append").get()
    read("CREATE TRIGGER under INSTEAD OF INSERT ON above BEGIN INSERT INTO t VALUES (new.a); END", file)
    assert greendata.write_sql(ROWS, "above", file, if_exists="append").get() == 3
    assert count(file) == 6


def test_the_types_of_a_strict_table(file: Path) -> None:
    read("CREATE TABLE strict (i INT, r REAL, t TEXT, b BLOB, v ANY) STRICT", file)
    fitting = pl.DataFrame({"i": [1], "r": [1.5], "t": ["x"], "b": [b"x"], "v": ["007"]})
    assert greendata.write_sql(fitting, "strict", file, if_exists="append").get() == 1
    assert read("SELECT * FROM strict", file).rows() == fitting.rows()
    for column, value in (("i", "x"), ("i", 1.5), ("r", 2**53 + 1), ("b", "x"), ("t", b"x"), ("r", "x")):
        with pytest.raises(QueryFailed):
            greendata.write_sql(pl.DataFrame({column: [value]}), "strict", file, if_exists="append").get()
    assert count(file) == 3
    assert read("SELECT count(*) FROM strict", file).item() == 1


def test_generated_and_default_columns_and_tables_without_rowid(file: Path) -> None:
    read("CREATE TABLE made (a INT, b INT AS (a * 2) STORED, c INT AS (a + 1), d TEXT NOT NULL DEFAULT 'x')", file)
    assert greendata.write_sql(pl.DataFrame({"a": [1]}), "made", file, if_exists="append").get() == 1
    assert read("SELECT * FROM made", file).rows() == [(1, 2, 2, "x")]
    for df in (pl.DataFrame({"b": [1]}), pl.DataFrame({"c": [1]}), pl.DataFrame({"a": [1, 2], "d": ["y", None]})):
        with pytest.raises(QueryFailed):
            greendata.write_sql(df, "made", file, if_exists="append").get()
    read("CREATE TABLE keyed (k TEXT PRIMARY KEY, v INT) WITHOUT ROWID", file)
    keys = pl.DataFrame({"k": [*map(str, range(1000)), "7"]})
    with pytest.raises(QueryFailed, match="UNIQUE constraint failed"):
        greendata.write_sql(keys, "keyed", file, if_exists="append").get()
    assert read("SELECT (SELECT count(*) FROM made), (SELECT count(*) FROM keyed)", file).row(0) == (1, 0)


@pytest.mark.parametrize("factory", [bytes, bytearray, partial(str, encoding="latin-1"), str])
def test_an_append_whatever_the_connection_makes_of_text(factory: Any, file: Path) -> None:
    read('CREATE TABLE "caf\u00e9" ("\u00e9" NUMERIC, b ANY)', file)
    with closing(connect(file)) as connection:
        connection.text_factory = factory
        df = pl.DataFrame({"\u00e9": ["x1"], "b": [1]})
        assert greendata.write_sql(df, "caf\u00e9", connection, if_exists="append").get() == 1
        with pytest.raises(WriteRefused):
            greendata.write_sql(pl.DataFrame({"\u00e9": ["007"]}), "caf\u00e9", connection, if_exists="append").get()
        greendata.run(connection.commit).get()
    assert read('SELECT * FROM "caf\u00e9"', file).rows() == df.rows()


# -- files and modes --------------------------------------------------------------------------------------


def test_readers_go_on_beside_a_writer_in_wal_mode(file: Path) -> None:
    """Each reader sees what was committed before it began."""
    with closing(connect(file, isolation_level=None)) as writer:
        greendata.run(writer.execute, "PRAGMA journal_mode = WAL").get()
        with greendata.read_sql("SELECT a FROM t ORDER BY a", file, batch_rows=1) as stream:
            next(stream)
            greendata.run(writer.execute, "BEGIN IMMEDIATE").get()
            greendata.run(writer.execute, "INSERT INTO t VALUES (4)").get()
            assert count(file) == 3
            greendata.run(writer.execute, "COMMIT").get()
            assert [batch.item() for batch in stream] == [2, 3]
        assert count(file) == 4


def test_a_file_that_stays_locked_is_an_error(file: Path) -> None:
    with (
        closing(connect(file, isolation_level=None)) as holder,
        closing(connect(file, isolation_level=None, timeout=0.05)) as waiter,
    ):
        greendata.run(holder.execute, "BEGIN EXCLUSIVE").get()
        with pytest.raises(QueryFailed, match="database is locked"):
            greendata.write_sql(ROWS, "t", waiter, if_exists="append").get()
        with pytest.raises(QueryFailed, match="database is locked"):
            read("SELECT * FROM t", waiter)
        greendata.run(holder.execute, "COMMIT").get()
        assert greendata.write_sql(ROWS, "t", waiter, if_exists="append").get() == 3


def test_a_connection_that_may_only_read(file: Path) -> None:
    with closing(connect(f"file:{file}?mode=ro", uri=True)) as connection:  # type: ignore[arg-type]
        assert count(connection) == 3
        with pytest.raises(QueryFailed, match="readonly database"):
            greendata.write_sql(ROWS, "t", connection, if_exists="append").get()
        assert not connection.in_transaction


def test_a_file_that_is_not_a_database_is_left_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no database, and long enough to be looked at" * 30)
    before = path.read_bytes()
    for call in (
        partial(greendata.write_sql, ROWS, "t"),
        partial(greendata.write_sql, ROWS, "t", if_exists="replace"),
        partial(greendata.read_sql, "SELECT * FROM t"),
    ):
        with pytest.raises((QueryFailed, DatabaseUnreachable), match="not a database"):
            call(path).get()
    assert path.read_bytes() == before
    assert [child.name for child in tmp_path.iterdir()] == ["notes.txt"]


def test_large_rows_are_inserted_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    df = pl.DataFrame({"a": ["x"] * 300 + ["y" * 1_000] * 40, "b": [b"x"] * 300 + [b"y" * 1_000] * 40})
    slices: list[pl.DataFrame] = []

    def rows(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
        slices.append(frame)
        return own(frame)

    own = pl.DataFrame.rows
    monkeypatch.setattr(objects, "SLICE_BYTES", 5_000)
    with monkeypatch.context() as patch:
        patch.setattr(pl.DataFrame, "rows", rows)
        assert greendata.write_sql(df, "t", f"sqlite:///{tmp_path}/a.db").get() == 340
    assert pl.concat(slices).equals(df)
    assert all(some.height == 1 or some.estimated_size() <= 5_000 for some in slices)
    assert greendata.read_sql("SELECT * FROM t", f"sqlite:///{tmp_path}/a.db").get().equals(df)
