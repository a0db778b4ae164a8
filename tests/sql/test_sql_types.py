"""Types that PostgreSQL has and Polars lacks: a value is read unchanged, as text, or is an error with its column."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import adbc_driver_postgresql.dbapi
import polars as pl
import pytest

import greendata
from greendata import BadArgument, ColumnUnreadable, QueryFailed
from greendata.sql.tokenizer import Statement
from tests.support.databases import closing, postgres

pytestmark = pytest.mark.once("unpatched")  # conversion of values only

AS_TEXT = [
    "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", "'12.34'::money", "'12:00+02'::timetz", "'10.0.0.1'::inet",
    "'10.0.0.0/8'::cidr", "'08:00:2b:01:02:03'::macaddr", "b'101'::bit(3)", "b'1'::varbit", "'[1,5)'::int4range",
    "'{[1,2),[4,5)}'::int4multirange", "'(1,2)'::point", "'<(0,0),1>'::circle", "'pg_class'::regclass", "'(0,1)'::tid",
    "'a b'::tsvector", "row(1, 'x')", "'0/16B3748'::pg_lsn", "'1 2'::oidvector", "'3'::xid", "'red'::mood",
    "''::\"char\"", "'\\377'::\"char\"", "array[''::\"char\"]::text[]::text",
    "1e-20::numeric", "123.450::numeric(10,3)", "'x'::\"char\"", "'n'::name", "('a', 'b')::pair", "'{\"a\": 1}'::jsonb",
]  # fmt: skip
REFUSED = [
    "'infinity'::date", "'-infinity'::date", "'infinity'::timestamp", "'-infinity'::timestamp",
    "'infinity'::timestamptz", "'294276-12-31'::timestamp", "'5874897-12-31'::date", "'24:00'::time",
    "array[[1, 2], [3, 4]]", "interval '1 month'",
    "array['infinity'::timestamp]", "array['24:00'::time]", "array[interval '1 day']", "array[array['a']]",
]  # fmt: skip
VALUES = [
    ("4294967295::oid", 4294967295), ("5::posint", 5), ("array[5::posint]", ["5"]), ("'{}'::int[]", []),
    ("array[1.5::numeric]", ["1.5"]), ("array['red'::mood, NULL]", ["red", None]), ("'1 2'::int2vector", ["1", "2"]),
    ("array['12.34'::money]", ["$12.34"]), ("array[row(1, 2)]", ["(1,2)"]), ("'nan'::numeric", "nan"),
    ("'-infinity'::float8", float("-inf")), ("pg_sleep(0)", ""), ("array[true]", [True]),
    ("array[''::\"char\", 'x']", ["", "x"]),
]  # fmt: skip


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with postgres() as made:
        for sql in (
            "CREATE TYPE mood AS ENUM ('red')",
            "CREATE TYPE pair AS (a text, b text)",
            "CREATE DOMAIN posint AS int4 CHECK (value > 0)",
            "CREATE TABLE arrays (a int4[])",
            "CREATE TABLE hosts (a inet)",
        ):
            read(sql, made)
        yield made


def read(query: str, database: object, **options: Any) -> pl.DataFrame:
    return greendata.read_sql(query, database, **options).get()


def test_types_without_a_form_are_read_as_their_text(address: str) -> None:
    columns = ", ".join(f"{value} AS c{number}" for number, value in enumerate(AS_TEXT))
    texts = ", ".join(f"({value})::text AS c{number}" for number, value in enumerate(AS_TEXT))
    found = read(f"SELECT {columns}", address)
    assert found.row(0) == read(f"SELECT {texts}", address).row(0)
    with greendata.read_sql(f"SELECT {columns}", address, batch_rows=1) as stream:
        assert next(stream).row(0) == found.row(0)


@pytest.mark.parametrize("value", REFUSED)
def test_values_that_no_column_holds_are_refused(value: str, address: str) -> None:
    with pytest.raises(ColumnUnreadable, match="column 'it'"):
        read(f"SELECT 1 AS other, {value} AS it", address)


def test_other_values_are_read_unchanged(address: str) -> None:
    columns = ", ".join(f"{value} AS c{number}" for number, (value, _) in enumerate(VALUES))
    assert read(f"SELECT {columns}", address).row(0) == tuple(value for _, value in VALUES)


def test_rows_keep_their_order_when_a_column_is_read_as_text(address: str) -> None:
    query = "SELECT g, '10.0.0.1'::inet + g AS host FROM generate_series(1, 30000) AS g ORDER BY g DESC"
    found = read(query, address)
    assert found["g"].to_list() == list(range(30_000, 0, -1))
    assert found["host"][0] == "10.0.117.49/32"


def test_what_a_change_returns_is_read_as_text_too(address: str) -> None:
    assert read("INSERT INTO hosts VALUES ('10.0.0.7') RETURNING *", address).item() == "10.0.0.7/32"
    assert read("UPDATE hosts SET a = $1::text::inet RETURNING a", address, params=["10.0.0.8"]).item() == "10.0.0.8/32"
    nested = "WITH x AS (DELETE FROM hosts RETURNING a) SELECT a FROM x"  # not allowed inside another statement
    with pytest.raises(ColumnUnreadable, match="PostgreSQL's type inet"):
        read(nested, address)
    assert read("SELECT count(*) FROM hosts", address).item() == 1


def test_a_row_that_is_refused_takes_the_change_back(address: str) -> None:
    with pytest.raises(ColumnUnreadable, match="several dimensions"):
        read("INSERT INTO arrays VALUES (array[[1]]) RETURNING a", address)
    assert read("SELECT count(*) FROM arrays", address).item() == 0
    assert read("INSERT INTO arrays VALUES (array[1]) RETURNING a", address).item().to_list() == [1]


@pytest.mark.parametrize(
    "query",
    [
        "SHOW server_version", "EXPLAIN SELECT 1", "VALUES (1)", "TABLE pg_am", "(SELECT 1) UNION ALL (SELECT 2)",
        "SELECT 1 AS a; -- note", "SELECT 1 AS a /* x /* y */ z */ ; /* end */ ;\n", "-- first\nSELECT ';' AS a;",
        "SELECT $$;--$$ AS a; -- end", "SELECT E'\\';' AS \"a;--\" ;",
        "WITH x AS (SELECT 1 AS a) SELECT a FROM x -- end",
        "SELECT 1 AS a FOR UPDATE", "EXPLAIN (FORMAT json) SELECT $1::int",
    ],
)  # fmt: skip
def test_statements_that_psql_takes(query: str, address: str) -> None:
    params = [1] if "$1" in query else None
    found = read(query, address, params=params)
    assert found.height
    with greendata.read_sql(query, address, params=params, batch_rows=1) as stream:
        assert next(stream).columns == found.columns


def test_two_statements_are_refused(address: str) -> None:
    for query in ("SELECT 1; SELECT 2", "SELECT 1 AS a; SELECT 2 -- end"):
        with pytest.raises(QueryFailed, match="multiple commands"):
            read(query, address)


def test_two_columns_of_one_name(address: str) -> None:
    with pytest.raises(ColumnUnreadable, match="column 'a' appears 2 times; give each a different name with AS"):
        read("SELECT 1 AS a, 2 AS a", address)


def test_a_statement_is_read_up_to_its_end() -> None:
    assert Statement("select 1;").text == "select 1\n"
    assert Statement("select 1; select 2").text == "select 1; select 2\n"
    assert Statement("/* a */ Select 'a''$1', \"$2\", $tag$ $3 $tag$, $4 -- $5").parameters == 4
    assert Statement("  ").verb == ""
    assert Statement("select '").text == "select '\n"
    assert Statement("/* a").verb == ""


def test_names_that_postgresql_would_cut_off_are_refused(address: str) -> None:
    frame = pl.DataFrame({"a": [1]})
    for name in ("x" * 64, "\u00e9" * 32, ""):
        with pytest.raises(BadArgument, match=r"the name of a table"):
            greendata.write_sql(frame, name, address)
        with pytest.raises(BadArgument, match="the name of a column, in PostgreSQL one of 1 to 63 bytes"):
            greendata.write_sql(frame.rename({"a": name}), "t", address)
    with pytest.raises(BadArgument, match="without NUL"):
        greendata.write_sql(frame.rename({"a": "a\0b"}), "t", address)


@pytest.fixture(scope="module")
def others(address: str) -> dict[str, str]:
    """The addresses of databases with other encodings, by encoding."""
    made = {}
    for encoding in ("SQL_ASCII", "LATIN1"):
        name = encoding.lower()
        sql = f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        connect = partial(adbc_driver_postgresql.dbapi.connect, address, autocommit=True)
        with closing(greendata.run(connect).get()) as connection:
            greendata.run(partial(execute, connection, sql)).get()
        made[encoding] = address.replace("/postgres?", f"/{name}?")
    return made


def execute(connection: Any, sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def test_text_in_another_encoding_is_read_and_written_unchanged(others: dict[str, str]) -> None:
    address = others["LATIN1"]
    greendata.write_sql(pl.DataFrame({"a": ["caf\u00e9"]}), "t", address).get()
    assert read("SELECT a, length(a) AS n, chr(233) AS b FROM t", address).row(0) == ("caf\u00e9", 4, "\u00e9")
    with pytest.raises(QueryFailed, match="has no equivalent"):
        greendata.write_sql(pl.DataFrame({"a": ["\u20ac"]}), "euro", address).get()
    with (
        closing(greendata.run(adbc_driver_postgresql.dbapi.connect, address).get()) as connection,
        pytest.raises(QueryFailed, match="client_encoding is LATIN1; connect with client_encoding=UTF8"),
    ):
        read("SELECT chr(233)", connection)


def test_text_that_is_not_unicode_is_rejected(others: dict[str, str]) -> None:
    for value in ("convert_from('\\xe9', 'SQL_ASCII')", "array[convert_from('\\xe9', 'SQL_ASCII')]"):
        with pytest.raises((QueryFailed, ColumnUnreadable), match=r"invalid byte sequence|not UTF-8"):
            read(f"SELECT {value} AS a", others["SQL_ASCII"])
