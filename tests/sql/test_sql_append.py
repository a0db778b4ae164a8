"""Append to a table of PostgreSQL: each value is equal in a column of another type, or the write is an error."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from functools import partial
from typing import Any

import adbc_driver_postgresql.dbapi
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import greendata
from greendata import BadArgument, QueryFailed, WriteRefused
from tests.support.databases import closing, postgres

pytestmark = pytest.mark.once("patched")  # conversion of values only

UUID = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
NAMES = """int2 int4 int8 float4 float8 numeric numeric(5,2) numeric(20,0) bool text varchar varchar(3) char(4) name
    "char" bytea date time time(0) timestamp timestamp(3) timestamptz interval uuid json jsonb inet money bit(3) mood
    posint short int4[] float8[] text[] numeric[] oid int4range xid"""
TYPES = NAMES.split()
MOMENT = dt.datetime(2024, 2, 29, 1, 2, 3, 456_789)
VALUES: list[tuple[Any, Any]] = [
    (pl.Int8(), -1), (pl.UInt16(), 40_000), (pl.Int64(), 2**53 + 1), (pl.Int64(), 3), (pl.UInt64(), 2**63 - 1),
    (pl.Float64(), 1.0), (pl.Float64(), 0.1), (pl.Float64(), 1e300), (pl.Float64(), math.nan), (pl.Float64(), math.inf),
    (pl.Float64(), 0.30000000000000004), (pl.Float32(), 0.10000000149011612), (pl.Decimal(10, 3), Decimal("1.250")),
    (pl.Decimal(38, 0), Decimal(10**30)), (pl.Decimal(10, 3), Decimal("1.255")),
    (pl.Decimal(20, 3), Decimal("12345678901234.567")), (pl.Boolean(), True),
    (pl.String(), "f"), (pl.String(), "12"), (pl.String(), UUID), (pl.String(), '{"a": 1}'), (pl.String(), "red"),
    (pl.String(), "abcd"), (pl.String(), "x "), (pl.String(), "101"), (pl.String(), "$1.005"), (pl.String(), "$1.00"),
    (pl.String(), "10.0.0.1"),
    (pl.String(), "2024-02-29"), (pl.String(), "y" * 80), (pl.String(), "[1,5)"), (pl.String(), "1 day"),
    (pl.Binary(), b"ab"), (pl.Binary(), b"\x00\xff"), (pl.Date(), dt.date(2024, 2, 29)),
    (pl.Datetime("us"), MOMENT), (pl.Datetime("ns"), dt.datetime(2024, 2, 29)),
    (pl.Datetime("us", "Europe/Vienna"), MOMENT.replace(tzinfo=dt.UTC)), (pl.Time(), dt.time(1, 2, 3)),
    (pl.Time(), dt.time(1, 2, 3, 500_000)), (pl.Duration("us"), dt.timedelta(hours=30)),
    (pl.List(pl.Int64()), [1, 2]), (pl.List(pl.Float64()), [0.5]), (pl.List(pl.String()), ["a", "b"]),
    (pl.List(pl.UInt8()), [7]), (pl.List(pl.Boolean()), [True]),
]  # fmt: skip


@pytest.fixture(scope="module")
def connection() -> Iterator[Any]:
    """A connection to a database with the table ``t``, which has a column of each type."""
    columns = ", ".join(f"c{number} {kind}" for number, kind in enumerate(TYPES))
    with postgres() as address:
        for sql in (
            "CREATE TYPE mood AS ENUM ('red')",
            "CREATE DOMAIN posint AS int4 CHECK (value > 0)",
            "CREATE DOMAIN short AS varchar(3)",
            f"CREATE TABLE t ({columns})",
        ):
            greendata.read_sql(sql, address).get()
        connect = partial(adbc_driver_postgresql.dbapi.connect, address, autocommit=True)
        with closing(greendata.run(connect).get()) as made:
            yield made


@pytest.mark.parametrize("kind", TYPES)
def test_each_value_arrives_equal_or_is_refused(kind: str, connection: Any) -> None:
    column = f"c{TYPES.index(kind)}"
    stored = f"DELETE FROM t RETURNING {column}::text"
    wrong, taken = [], 0
    for dtype, value in VALUES:
        frame = pl.DataFrame({column: pl.Series([value, None], dtype=dtype)})
        try:
            greendata.write_sql(frame, "t", connection, if_exists="append").get()
        except QueryFailed:
            assert greendata.read_sql(stored, connection).get().height == 0
            continue
        taken += 1
        found = greendata.read_sql(stored, connection).get()[column].to_list()
        if found[1:] != [None] or not is_equal(frame[column][0], found[0], kind):
            wrong.append((dtype, value, found))
    assert wrong == []
    assert taken or kind in ("oid", "xid", "numeric[]")


def is_equal(value: Any, text: str, kind: str) -> bool:
    """Return True if *text* is what PostgreSQL prints for *value* in a column of *kind*."""
    match value:
        case bool():
            return text == str(value).lower()
        case float() if not math.isfinite(value):
            return text.lower().replace("infinity", "inf") == str(value)
        case float() if kind == "float4":
            return pl.Series([float(text)], dtype=pl.Float32).item() == value
        case int() | float() | Decimal():
            return Decimal(text) == Decimal(str(value))
        case bytes():
            return text == "\\x" + value.hex()
        case dt.datetime():
            shown = dt.datetime.fromisoformat(text)
            return (shown.tzinfo is None) == (value.tzinfo is None) and shown == value
        case dt.date() | dt.time():
            return text == value.isoformat().rstrip("0") or text == value.isoformat()
        case dt.timedelta():
            return text == "30:00:00"
        case pl.Series():
            shown = [{"t": "true"}.get(item, item) for item in text.strip("{}").split(",")]
            return len(shown) == len(value) and all(map(partial(is_equal, kind=""), value, shown))
    return text == {"char(4)": value.rstrip(), "inet": f"{value}/32"}.get(kind, value)


def test_columns_without_values_fit_everywhere(connection: Any) -> None:
    """Another column of the same frame is converted by PostgreSQL."""
    names = [f"c{number}" for number in range(len(TYPES))]
    for dtype in (pl.Null, pl.Int64, pl.List(pl.Int64)):
        frame = pl.DataFrame({name: pl.Series([None], dtype=dtype) for name in names})
        frame = frame.with_columns(pl.Series(names[TYPES.index("uuid")], [UUID]))
        assert greendata.write_sql(frame, "t", connection, if_exists="append").get() == 1
        stored = f"DELETE FROM t RETURNING num_nonnulls({', '.join(names)}), {names[TYPES.index('uuid')]}"
        assert greendata.read_sql(stored, connection).get().row(0) == (1, UUID)


@pytest.mark.parametrize("kind", TYPES)
def test_a_column_without_values_fits_beside_one_that_is_copied(kind: str, connection: Any) -> None:
    greendata.read_sql(f"CREATE TABLE nulls (a {kind}, k int4)", connection).get()
    try:
        for dtype in (pl.Null, pl.Date, pl.List(pl.Int64), pl.Decimal(5, 2)):
            frame = pl.DataFrame({"a": pl.Series([None], dtype=dtype), "k": pl.Series([1], dtype=pl.Int32)})
            assert greendata.write_sql(frame, "nulls", connection, if_exists="append").get() == 1
        found = greendata.read_sql("SELECT count(*) AS n, count(a) AS a FROM nulls", connection).get()
        assert found.row(0) == (4, 0)
    finally:
        greendata.read_sql("DROP TABLE nulls", connection).get()


def test_a_refusal_names_the_column_and_both_types(connection: Any) -> None:
    name = f"c{TYPES.index('timestamp')}"
    with pytest.raises(WriteRefused) as caught:
        greendata.write_sql(pl.DataFrame({name: [1]}), "t", connection, if_exists="append").get()
    assert str(caught.value) == (
        f"cannot write to 't': column {name!r} is timestamp without time zone in the table and Int64 in the frame; "
        "cast it before the write"
    )


def test_an_append_finds_the_table_that_a_statement_finds(connection: Any) -> None:
    for sql in (
        "CREATE SCHEMA first",
        'CREATE SCHEMA "se""cond"',
        'CREATE TABLE "se""cond".kept (a float8, b numeric(5,2))',
        "CREATE TEMPORARY TABLE passing (a float8, b numeric(5,2))",
        """SET search_path = first, "se""cond", pg_catalog""",
    ):
        greendata.read_sql(sql, connection).get()
    df = pl.DataFrame({"a": [1, 2]})
    for table in ("passing", "kept"):
        greendata.write_sql(df, table, connection, if_exists="append").get()
        greendata.write_sql(df.with_columns(b=1.25), table, connection, if_exists="append").get()
        found = greendata.read_sql(f"SELECT a, b::float8 FROM {table} ORDER BY b, a", connection).get()
        assert found.rows() == [(1.0, 1.25), (2.0, 1.25), (1.0, None), (2.0, None)]
    assert greendata.read_sql("SELECT 1 FROM pg_tables WHERE schemaname = 'first'", connection).get().is_empty()
    greendata.read_sql("RESET search_path", connection).get()


def test_columns_whose_names_look_like_patterns(connection: Any) -> None:
    name = "^x$"  # a pattern that does not match its own text
    for number, kind in enumerate(("int2", "float8", "numeric(5,2)", "varchar(3)", "date", "timestamp(3)", "int4[]")):
        greendata.read_sql(f'CREATE TABLE "{name}{number}" ("{name}" {kind})', connection).get()
        for dtype, value in VALUES:
            df = pl.DataFrame({name: pl.Series([value], dtype=dtype)})
            with suppress(WriteRefused, QueryFailed):
                greendata.write_sql(df, f"{name}{number}", connection, if_exists="append").get()
        assert greendata.read_sql(f'SELECT * FROM "{name}{number}"', connection).get().height
        greendata.read_sql(f'DROP TABLE "{name}{number}"', connection).get()


# -- domains, arrays and composite types ----------------------------------------------------------------


@pytest.fixture(scope="module")
def typed(connection: Any) -> Any:
    """The connection, with domains, arrays and composite types."""
    for sql in (
        "CREATE DOMAIN price AS numeric(5,2)",
        "CREATE DOMAIN paid AS price CHECK (value > 0)",
        "CREATE DOMAIN shorter AS short",
        "CREATE DOMAIN second AS timestamp(0)",
        "CREATE DOMAIN moment AS second",
        "CREATE DOMAIN whole AS int8",
        "CREATE DOMAIN number AS whole",
        "CREATE DOMAIN row3 AS int4[]",
        "CREATE TYPE pair AS (a int4, b varchar(2))",
        "CREATE TYPE floats AS RANGE (subtype = float8)",
    ):
        greendata.read_sql(sql, connection).get()
    return connection


def stored(kind: str, series: pl.Series, connection: Any) -> list[Any]:
    """Return the text that a column of *kind* holds after the write, and drop the table."""
    greendata.read_sql(f"CREATE TABLE one (a {kind})", connection).get()
    try:
        greendata.write_sql(series.alias("a").to_frame(), "one", connection, if_exists="append").get()
        return greendata.read_sql("SELECT a::text AS a FROM one", connection).get()["a"].to_list()
    finally:
        greendata.read_sql("DROP TABLE one", connection).get()


HALF = dt.datetime(2020, 1, 1, 0, 0, 0, 500_000)


@pytest.mark.parametrize(
    ("kind", "series", "expected"),
    [
        ("paid", pl.Series([Decimal("1.25"), None]), ["1.25", None]),
        ("paid", pl.Series([0.5]), ["0.50"]),
        ("shorter", pl.Series(["abc"]), ["abc"]),
        ("moment", pl.Series([HALF.replace(microsecond=0)]), ["2020-01-01 00:00:00"]),
        ("number", pl.Series([7], dtype=pl.Int8), ["7"]),
        ("row3", pl.Series([[1, None]]), ["{1,NULL}"]),
        ("pair", pl.Series(["(1,x)", "(,)", None]), ["(1,x)", "(,)", None]),
        ("mood[]", pl.Series([["red", None], [], None]), ["{red,NULL}", "{}", None]),
        ("mood[]", pl.Series([["red"]], dtype=pl.List(pl.Enum(["red"]))), ["{red}"]),
        ("uuid[]", pl.Series([[UUID]]), ["{" + UUID + "}"]),
        ("pair[]", pl.Series([["(1,x)"]]), ['{"(1,x)"}']),
        ("short[]", pl.Series([["abc"]]), ["{abc}"]),
        ("varchar(2)[]", pl.Series([["ab", None]]), ["{ab,NULL}"]),
        ("numeric[]", pl.Series([[1, 2**62]]), ["{1,4611686018427387904}"]),
        ("numeric(3,1)[]", pl.Series([[1]]), ["{1.0}"]),
        ("oid", pl.Series(["4294967295"]), ["4294967295"]),
        (
            "daterange",
            pl.Series(["[2020-01-01,2020-01-03)", "empty", None]),
            ["[2020-01-01,2020-01-03)", "empty", None],
        ),
        ("numrange", pl.Series(["[0.1234567890123456789,1]"]), ["[0.1234567890123456789,1]"]),
        ("int8range", pl.Series(["[1,5]"]), ["[1,6)"]),
        ("floats", pl.Series(["[0.5,1)"]), ["[0.5,1)"]),
        ("point", pl.Series(["(0.5,1)"]), ["(0.5,1)"]),
        ("text[]", pl.Series([["a,b", 'x"y', "{}", "null", ""]]), ['{"a,b","x\\"y","{}","null",""}']),
    ],
)
def test_types_made_of_others_take_their_values(kind: str, series: pl.Series, expected: list[Any], typed: Any) -> None:
    assert stored(kind, series, typed) == expected


@pytest.mark.parametrize(
    ("kind", "series"),
    [
        ("paid", pl.Series([Decimal("1.255")])), ("paid", pl.Series([0.125])), ("paid", pl.Series([Decimal("-1.00")])),
        ("shorter", pl.Series(["abcd"])), ("moment", pl.Series([HALF])), ("number", pl.Series([0.5])),
        ("pair", pl.Series(["(1,xyz)"])), ("pair", pl.Series(["( 1,x)"])), ("mood[]", pl.Series([["blue"]])),
        ("varchar(2)[]", pl.Series([["abc"]])), ("numeric(3,1)[]", pl.Series([[1000]])),
        ("int4[]", pl.Series([[2**40]])),
        ("int4[]", pl.Series([["1"]])), ("float8[]", pl.Series([["0.1"]])),
        ("timestamp[]", pl.Series([["2020-01-01"]])),
        ("pair[]", pl.Series([["(1,xyz)"]])), ("money[]", pl.Series([["1.239"]])),
        ("oid", pl.Series(["-1"])), ("oid[]", pl.Series([["-1"]])), ("xid", pl.Series(["010"])),
        ("xid8", pl.Series(["010"])), ("cid", pl.Series(["-1"])),
        ("daterange", pl.Series(["[2020-01-01 23:59,2020-01-03)"])), ("daterange", pl.Series(["[01/02/2020,)"])),
        ("daterange[]", pl.Series([["[2020-01-01 23:59,2020-01-03)"]])),
        ("datemultirange", pl.Series(["{[2020-01-01 23:59,2020-01-03)}"])),
        ("floats", pl.Series(["[0.1234567890123456789,1)"])), ("floats[]", pl.Series([["[0.1234567890123456789,1)"]])),
        ("point", pl.Series(["(0.1234567890123456789,1)"])), ("circle", pl.Series(["<(0.1234567890123456789,1),1>"])),
    ],
)  # fmt: skip
def test_types_made_of_others_change_no_value(kind: str, series: pl.Series, typed: Any) -> None:
    with pytest.raises(QueryFailed):
        stored(kind, series, typed)


@pytest.mark.parametrize(
    "kind", ["int4[]", "text[]", "mood[]", "numeric(5,2)[]", "timestamp[]", "bool[]", "pair[]", "row3"]
)
@pytest.mark.parametrize("dtype", [pl.Null, pl.Int64, pl.String, pl.Float32, pl.Boolean])
def test_lists_without_values_fit_into_each_array(kind: str, dtype: Any, typed: Any) -> None:
    series = pl.Series([[], None, [None, None]], dtype=pl.List(dtype))
    assert stored(kind, series, typed) == ["{}", None, "{NULL,NULL}"]


@pytest.mark.parametrize("inner", [pl.Null(), pl.Categorical(), pl.Enum(["x"])])
def test_lists_of_words_and_of_nothing_make_a_table_of_text(inner: Any, connection: Any) -> None:
    lists = pl.DataFrame({"a": pl.Series([[], [None], None], dtype=pl.List(inner))})
    greendata.write_sql(lists, "lists", connection, if_exists="replace").get()
    found = greendata.read_sql("SELECT * FROM lists", connection).get()
    assert_frame_equal(found, lists.cast(pl.List(pl.String)))


# -- tables that leave rows out ---------------------------------------------------------------------------


def made(connection: Any, *statements: str) -> None:
    for sql in statements:
        greendata.read_sql(sql, connection).get()


def test_rows_that_a_trigger_leaves_out_are_not_counted(connection: Any) -> None:
    made(
        connection,
        "CREATE TABLE picky (a int4, b numeric(4,1))",
        "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF new.a = 13 THEN RETURN NULL; END IF; RETURN new; END $$",
        "CREATE TRIGGER skips BEFORE INSERT ON picky FOR EACH ROW EXECUTE FUNCTION skip()",
    )
    for df in (pl.DataFrame({"a": [1, 13, 2]}), pl.DataFrame({"a": [1, 13, 2], "b": [1.5] * 3})):
        assert greendata.write_sql(df, "picky", connection, if_exists="append").get() == 2
    assert greendata.read_sql("SELECT a FROM picky", connection).get()["a"].to_list() == [1, 2, 1, 2]


def test_a_view_takes_rows_as_an_insert_into_it_does(connection: Any) -> None:
    made(connection, "CREATE TABLE under (a int4, b text)", "CREATE VIEW above AS SELECT a, b FROM under")
    made(connection, "CREATE VIEW numbers AS SELECT count(*) AS n FROM under")
    df = pl.DataFrame({"a": [1, 2], "b": ["x", None]})
    assert greendata.write_sql(df, "above", connection, if_exists="append").get() == 2
    assert greendata.read_sql("SELECT * FROM under", connection).get().rows() == df.rows()
    with pytest.raises(QueryFailed, match="cannot insert into view"):
        greendata.write_sql(pl.DataFrame({"n": [1]}), "numbers", connection, if_exists="append").get()


def test_a_rule_of_the_table_is_followed(connection: Any) -> None:
    made(
        connection,
        "CREATE TABLE old (a int4)",
        "CREATE TABLE new (a int4)",
        "CREATE RULE moves AS ON INSERT TO old DO INSTEAD INSERT INTO new VALUES (new.a * 10)",
    )
    greendata.write_sql(pl.DataFrame({"a": [1, 2]}), "old", connection, if_exists="append").get()
    query = "SELECT (SELECT count(*) FROM old) AS n, (SELECT sum(a) FROM new) AS total"
    assert greendata.read_sql(query, connection).get().row(0) == (0, 30)


def test_identity_generated_and_default_columns(connection: Any) -> None:
    made(
        connection,
        "CREATE TABLE kept (a int4, twice int4 GENERATED ALWAYS AS (a * 2) STORED, "
        "id int4 GENERATED ALWAYS AS IDENTITY, price numeric(4,1) DEFAULT 9.5, name text NOT NULL DEFAULT 'x')",
    )
    for df in (pl.DataFrame({"a": [1]}), pl.DataFrame({"id": [7]}), pl.DataFrame({"id": [8], "price": [1.5]})):
        assert greendata.write_sql(df, "kept", connection, if_exists="append").get() == 1
    found = greendata.read_sql("SELECT a, twice, id, price::float8, name FROM kept", connection).get()
    assert found.rows() == [(1, 2, 1, 9.5, "x"), (None, None, 7, 9.5, "x"), (None, None, 8, 1.5, "x")]
    for df in (
        pl.DataFrame({"twice": [2]}),
        pl.DataFrame({"a": [1, 2], "name": ["y", None]}),
        pl.DataFrame({"b": [1]}),
    ):
        with pytest.raises(QueryFailed):
            greendata.write_sql(df, "kept", connection, if_exists="append").get()
    assert greendata.read_sql("SELECT count(*) FROM kept", connection).get().item() == 3


def test_rows_that_break_a_rule_leave_nothing(connection: Any) -> None:
    made(
        connection,
        "CREATE TABLE parts (k int4, v numeric(4,1), UNIQUE (k)) PARTITION BY RANGE (k)",
        "CREATE TABLE few PARTITION OF parts FOR VALUES FROM (0) TO (10)",
    )
    append = partial(greendata.write_sql, table="parts", database=connection, if_exists="append")
    assert append(pl.DataFrame({"k": [1, 2], "v": [1.5, None]})).get() == 2
    for keys in ([3, 20], [3, 1], [3, 3]):
        for df in (pl.DataFrame({"k": keys}), pl.DataFrame({"k": keys, "v": [1.5, 2.5]})):
            with pytest.raises(QueryFailed, match=r"no partition of relation|duplicate key value"):
                append(df).get()
    assert greendata.read_sql("SELECT k FROM few ORDER BY k", connection).get()["k"].to_list() == [1, 2]


def test_more_parameters_than_the_statement_has(connection: Any) -> None:
    for params in ([1, 2], []):
        with pytest.raises(QueryFailed, match=r"supplies 2 parameters, and the statement requires 1|no parameter"):
            greendata.read_sql("SELECT $1::int4", connection, params=params).get()


@pytest.mark.parametrize("query", ["-- nothing", "/* nothing */", ";"])
def test_a_text_without_a_statement(query: str, connection: Any) -> None:
    with pytest.raises(QueryFailed, match="it contains no statement"):
        greendata.read_sql(query, connection).get()
    with pytest.raises(BadArgument, match="one SQL statement"):
        greendata.read_sql("  ", connection)
