"""Properties of SQL: a frame is read as it was written, or the write is an error and leaves nothing."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from typing import Any

import adbc_driver_postgresql.dbapi
import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_series_equal
from polars.testing.parametric import series

import greendata
from greendata import ColumnUnreadable, QueryFailed, WriteRefused
from tests.support.databases import closing, postgres

pytestmark = pytest.mark.once("patched")  # conversion of values only

DTYPES = [
    pl.Int8(), pl.Int16(), pl.Int32(), pl.Int64(), pl.UInt8(), pl.UInt16(), pl.UInt32(), pl.UInt64(), pl.Float32(),
    pl.Float64(), pl.Boolean(), pl.String(), pl.Binary(), pl.Date(), pl.Time(), pl.Datetime("ms"), pl.Datetime("us"),
    pl.Datetime("ns"), pl.Datetime("us", "Asia/Tokyo"), pl.Decimal(12, 3), pl.Decimal(38, 10), pl.Null(),
    pl.Enum(["a", "b", ""]), pl.Categorical(),
]  # fmt: skip
DECLARED = ("", "INTEGER", "TEXT", "REAL", "NUMERIC", "BLOB", "VARCHAR(3)", "DECIMAL(4, 2)", "DATETIME", "BIGINT")
law = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
values = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0, 1, 2**53, 2**53 + 1, -(2**63)]),
    st.floats(allow_nan=False),
    st.sampled_from(["", "1", "01", "1.5", "1e3", " 2", "x", "nan", "9007199254740993", "a\0b"]),
    st.text(max_size=5),
    st.binary(max_size=5),
)


@pytest.fixture(scope="module")
def lite() -> Iterator[Any]:
    connect = partial(sqlite3.connect, ":memory:", check_same_thread=False)
    with closing(greendata.run(connect).get()) as made:
        yield made


@pytest.fixture(scope="module")
def pg() -> Iterator[Any]:
    with postgres() as address, closing(greendata.run(adbc_driver_postgresql.dbapi.connect, address).get()) as made:
        yield made


def columns(max_size: int = 5) -> st.SearchStrategy[pl.Series]:
    return st.sampled_from(DTYPES).flatmap(lambda dtype: series(name="a", dtype=dtype, max_size=max_size))


def comes_back(column: pl.Series, connection: Any) -> None:
    """Write a frame and check that it is read back equal, or that no table exists."""
    try:
        written = greendata.write_sql(column.to_frame(), "t", connection)
        try:
            written.get()
        except QueryFailed:
            greendata.run(connection.rollback).get()
            with pytest.raises(QueryFailed):
                greendata.read_sql("SELECT * FROM t", connection).get()
            return
        overrides = {column.name: column.dtype}
        if isinstance(column.dtype, pl.Null):
            overrides = {column.name: pl.String()}
            column = column.cast(pl.String)
        found = greendata.read_sql("SELECT * FROM t", connection, schema_overrides=overrides).get()
        assert_series_equal(found[column.name], column, check_exact=True)
    finally:
        greendata.run(connection.rollback).get()


@law
@given(column=columns())
@example(column=pl.Series("a", [2**64 - 1], dtype=pl.UInt64))
@example(column=pl.Series("a", [float("nan")]))
@example(column=pl.Series("a", [float("-inf"), -0.0, 5e-324]))
@example(column=pl.Series("a", [86_399_999_999_999]).cast(pl.Time))
@example(column=pl.Series("a", ["a\0b", "\0", ""]))
def test_sqlite_gives_back_what_was_written(column: pl.Series, lite: Any) -> None:
    comes_back(column, lite)


@settings(law, max_examples=60)
@given(column=columns())
@example(column=pl.Series("a", [1, 1_000_001]).cast(pl.Datetime("ns")))
@example(column=pl.Series("a", [86_399_999_999_999]).cast(pl.Time))
@example(column=pl.Series("a", ["a\0b"]))
@example(column=pl.Series("a", [float("nan"), float("inf"), -0.0]))
def test_postgresql_gives_back_what_was_written(column: pl.Series, pg: Any) -> None:
    comes_back(column, pg)


@pytest.mark.parametrize("dtype", [pl.Date(), pl.Datetime("ms"), pl.Datetime("us"), pl.Datetime("us", "UTC")])
@pytest.mark.parametrize("sign", [1, -1])
def test_times_too_far_away_to_be_shown_are_refused(dtype: Any, sign: int, lite: Any, pg: Any) -> None:
    far = sign * (2**31 - 1 if isinstance(dtype, pl.Date) else 2**63 - 2)
    frame = pl.DataFrame(
        {"a": pl.Series([far]).cast(pl.Int32() if isinstance(dtype, pl.Date) else pl.Int64()).cast(dtype)}
    )
    for connection in (lite, pg):
        with pytest.raises(WriteRefused, match="column 'a' holds"):
            greendata.write_sql(frame, "t", connection).get()
        greendata.run(connection.rollback).get()


@law
@given(column=columns(3), declared=st.sampled_from(DECLARED))
@example(column=pl.Series("a", ["007"]), declared="NUMERIC")
@example(column=pl.Series("a", [float("nan")]), declared="NUMERIC")
@example(column=pl.Series("a", ["1e3", "0.10", " 5 ", "5."]), declared="INTEGER")
@example(column=pl.Series("a", [2**53 + 1]), declared="REAL")
@example(column=pl.Series("a", [0.30000000000000004]), declared="TEXT")
@example(column=pl.Series("a", ["12345678901234567.89"]).cast(pl.Decimal(38, 2)), declared="DECIMAL(4, 2)")
def test_an_append_to_any_column_of_sqlite_changes_no_value(column: pl.Series, declared: str, lite: Any) -> None:
    try:
        greendata.run(lite.execute, "BEGIN").get()
        greendata.run(lite.execute, f"CREATE TABLE t (a {declared})").get()
        greendata.run(lite.execute, "CREATE TABLE fresh (a)").get()
        greendata.write_sql(column.to_frame(), "fresh", lite, if_exists="append").get()
        plain = stored("fresh", lite)
        greendata.write_sql(column.to_frame(), "t", lite, if_exists="append").get()
        for ours, theirs in zip(stored("t", lite), plain, strict=True):
            assert alike(ours, theirs, is_number=isinstance(column.dtype, pl.Decimal))
    except QueryFailed:
        assert not stored("t", lite)
    finally:
        greendata.run(lite.rollback).get()


def stored(table: str, connection: Any) -> list[Any]:
    return [value for (value,) in greendata.run(lambda: connection.execute(f"SELECT a FROM {table}").fetchall()).get()]


def alike(ours: Any, theirs: Any, *, is_number: bool) -> bool:
    """Return True if SQLite stored *theirs* unchanged, or as an equal value."""
    if type(ours) is type(theirs) or (isinstance(ours, float) and isinstance(theirs, int)):
        return bool(ours == theirs)
    if isinstance(theirs, float):
        return float(ours) == theirs
    if is_number:
        return Decimal(str(ours)) == Decimal(theirs)
    return str(ours) == str(theirs)


@law
@given(moment=st.datetimes(), is_zoned=st.booleans())
@example(moment=dt.datetime(1, 1, 1), is_zoned=False)
@example(moment=dt.datetime(2020, 2, 29, 1, 2, 3, 120_000), is_zoned=True)
def test_a_datetime_is_stored_as_python_writes_it(moment: dt.datetime, is_zoned: bool, lite: Any) -> None:  # noqa: FBT001
    """So it sorts together with values that other programs store, and a parameter compares equal to it."""
    column = pl.Series("a", [moment]).dt.cast_time_unit("us")
    column = column.dt.replace_time_zone("UTC") if is_zoned else column
    try:
        greendata.write_sql(column.to_frame(), "t", lite).get()
        assert stored("t", lite) == [moment.isoformat(" ")]
        assert greendata.read_sql("SELECT a FROM t WHERE a = ?", lite, params=[column.item()]).get().height == 1
    finally:
        greendata.run(lite.rollback).get()


@law
@given(number=st.one_of(st.decimals(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False).map(repr)))
@example(number=Decimal("9007199254740993"))
@example(number=Decimal("1E-400"))
@example(number=Decimal("4.9E-324"))
@example(number=Decimal("1E+400"))
@example(number=Decimal("0.10000000000000000000"))
@example(number=Decimal("-0E+5"))
def test_text_is_a_float_if_the_float_prints_the_same(number: Decimal | str, lite: Any) -> None:
    text = str(number)
    is_same = text in ("inf", "-inf") or Decimal(repr(float(text))) == Decimal(text)
    try:
        query = "SELECT ? AS a"
        found = greendata.read_sql(query, lite, params=[text], schema_overrides={"a": pl.Float64}).get().item()
    except ColumnUnreadable:
        assert not is_same
    else:
        assert is_same
        assert found == float(text)


@law
@given(rows=st.lists(values, max_size=8), size=st.sampled_from([None, 1]))
def test_any_values_of_a_column_are_read_as_they_are_or_refused(rows: list[Any], size: int | None, lite: Any) -> None:
    try:
        greendata.run(lite.execute, "BEGIN").get()
        greendata.run(lite.execute, "CREATE TABLE t (a)").get()
        greendata.run(lite.executemany, "INSERT INTO t VALUES (?)", [(value,) for value in rows]).get()
        with greendata.read_sql("SELECT a FROM t", lite, batch_rows=size or 100) as stream:
            found = [value for batch in stream for value in batch["a"].to_list()]
        assert found == rows
        assert len({type(value) for value in rows if value is not None} - {int, float}) <= 1
    except ColumnUnreadable:
        kinds = {type(value) for value in rows if value is not None}
        assert len(kinds) > 1
        if bytes not in kinds:
            texts = greendata.read_sql("SELECT a FROM t", lite, schema_overrides={"a": pl.String}).get()
            assert texts["a"].to_list() == [None if value is None else str(value) for value in rows]
    finally:
        greendata.run(lite.rollback).get()


@law
@given(name=names, table=names.filter(lambda name: name and not name.lower().startswith("sqlite_")))
@example(name="*", table="%s")
@example(name="^a.*$", table="^t$")
@example(name="", table='"')
@example(name='a"b', table="select")
def test_any_text_is_a_name_in_sqlite(name: str, table: str, lite: Any) -> None:
    frame = pl.DataFrame({name: [1, 2]})
    quoted = table.replace('"', '""')
    try:
        for _ in range(2):
            assert greendata.write_sql(frame, table, lite, if_exists="append").get() == 2
        found = greendata.read_sql(f'SELECT * FROM "{quoted}"', lite).get()
        assert found.to_dict(as_series=False) == {name: [1, 2, 1, 2]}
    finally:
        greendata.run(lite.rollback).get()


@settings(law, max_examples=40)
@given(
    name=names.filter(lambda name: 0 < len(name.encode()) <= 63),
    table=names.filter(lambda name: 0 < len(name.encode()) <= 63),
)
@example(name="*", table="%s")
@example(name="^a.*$", table="^t$")
@example(name='a"b', table="\\'; select")
def test_any_text_is_a_name_in_postgresql(name: str, table: str, pg: Any) -> None:
    frame = pl.DataFrame({name: [1, 2]})
    quoted = table.replace('"', '""')
    try:
        for _ in range(2):
            assert greendata.write_sql(frame, table, pg, if_exists="append").get() == 2
        found = greendata.read_sql(f'SELECT * FROM "{quoted}"', pg).get()
        assert found.to_dict(as_series=False) == {name: [1, 2, 1, 2]}
    finally:
        greendata.run(pg.rollback).get()
