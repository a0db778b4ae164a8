"""Addresses of databases: which database a text names, and that its secrets are never shown."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import greendata
from greendata import BadArgument, DatabaseUnreachable, UnknownDatabase
from greendata.sql.addresses import Conninfo, parse_address
from greendata.sql.databases import database_of

SECRET = "hunter2"
ROWS = pl.DataFrame({"a": [1]})
POSTGRES = [
    "host=127.0.0.1 port=1 password=hunter2 dbname=shop",
    "  port=1 host = 127.0.0.1 password = 'hunter2' dbname='a b'",
    "dbname=shop host=127.0.0.1 port=1",
    "connect_timeout=1 host=127.0.0.1 port=1 user=ann sslpassword=hunter2",
    "password=hunter2 host=127.0.0.1 port=1",
    "postgres://ann:hunter2@127.0.0.1:1/shop",
    "PostgreSQL+psycopg2://ann:hunter2@127.0.0.1:1/shop",
    "postgresql://127.0.0.1:1/shop?user=ann&password=hunter2",
    "postgresql://ann:p%20w@127.0.0.1:1/shop?password=hunter2@x",
    "postgresql://ann:hunter2?x@127.0.0.1:1/shop",
    "postgresql://ann:hunter2/x@127.0.0.1:1/shop",
    "postgresql://ann:hunter2#x@127.0.0.1:1/shop",
    "postgresql://ann:hunter2@[::1:1/shop",
    "postgresql://ann:hunter2@127.0.0.1:x/shop",
    "postgresql://ann:hunter2%zz@127.0.0.1:1/shop",
    "postgresql://ann:a@hunter2@127.0.0.1:1/shop",
    "host=127.0.0.1 port=1 password=a hunter2",
    "host=127.0.0.1 port=1 password='hunter2",
    "host=127.0.0.1 port=1 pasword=hunter2",
    "host=127.0.0.1 port=1 password=hunter2\\ x",
    "dbname=shop;password=hunter2 host=127.0.0.1 port=1",
    "dbname=postgresql://ann:hunter2@127.0.0.1:1/shop host=127.0.0.1 port=1",
    "user=ann:hunter2@x host=127.0.0.1 port=1",
    "postgresql://127.0.0.1:1/shop;password=hunter2",
    "postgresql://ann@127.0.0.1:1/shop?dbname=shop;password=hunter2",
]
NEITHER = [
    "user:hunter2@localhost/shop",
    "//user:hunter2@localhost/shop",
    "Server=localhost;Database=shop;User Id=ann;Password=hunter2",
    "Driver={SQLite3};Database=x;PWD=hunter2",
    "mysql://ann:hunter2@db/shop",
    "mysql+pymysql://ann:hunter2@db/shop",
    "jdbc:postgresql://db/shop?password=hunter2",
    "sqlite://user:hunter2@db/shop",
    "hunter2 ://",
    "postgresql:/ann:hunter2@localhost/shop",
    "file:shop.sqlite",
    "file:/data/shop.sqlite?mode=ro",
    "sqlite:shop.sqlite",
    "x=hunter2://db",
    "",
    "  ",
    "a\0b",
    "sqlite:///shop.sqlite?mode=ro",
    "sqlite://shop.sqlite",
    "PGPASSWORD=hunter2 dbname=shop",
    "pass=hunter2 db=shop",
    "database=shop login=hunter2",
    "ann/hunter2@db:1521/shop",
    "ann/hunter2@db:1521",
    "localhost:5432/shop",
    "db.example.com:5432",
    "postgresql://ann:hunter2@db/shop\n",
    " postgresql://ann:hunter2@db/shop",
    "sqlite:///shop.sqlite\n",
]


@pytest.mark.parametrize("address", POSTGRES)
def test_an_address_of_postgresql_makes_no_file_and_shows_no_secret(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = database_of(address, "report")
    for result in (greendata.read_sql("SELECT 1", address), greendata.write_sql(ROWS, "t", address)):
        with pytest.raises(DatabaseUnreachable) as caught:
            result.get()
        error = caught.value
        shown = f"{place!r} {error} {error!r} {error.__cause__} {error.__cause__!r} {error.__context__!r} {result!r}"
        assert SECRET not in shown + repr(pickle.loads(pickle.dumps(error)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", NEITHER)
def test_invalid_addresses_are_errors_at_the_call(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for call in (lambda: greendata.read_sql("SELECT 1", address), lambda: greendata.write_sql(ROWS, "t", address)):
        with pytest.raises(UnknownDatabase, match="expected sqlite:///path") as caught:
            call()
        assert SECRET not in f"{caught.value} {caught.value!r}"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("shop.sqlite", "shop.sqlite"),
        ("year=2024/a:b.sqlite", "year=2024/a:b.sqlite"),
        ("year=2024/month=2/a.sqlite", "year=2024/month=2/a.sqlite"),
        ("C:\\data\\shop.db", "C:\\data\\shop.db"),
        ("compass=1.sqlite", "compass=1.sqlite"),
        ("/data/user@host.sqlite", "/data/user@host.sqlite"),
        ("sqlite:///a b%20c.sqlite", "a b%20c.sqlite"),
        ("sqlite+pysqlite:////data/a.sqlite", "/data/a.sqlite"),
        ("sqlite:///:memory:", ":memory:"),
        ("sqlite://", ":memory:"),
    ],
)
def test_paths_are_paths(address: str, place: str) -> None:
    assert parse_address(address) == place


@settings(max_examples=500)
@given(password=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12))
@example(password="p@ss:w/?rd#")
@example(password="' \\' x")
def test_no_password_is_shown_whatever_it_is(password: str) -> None:
    """The password is marked, so that a test can find it in the rest of the address."""
    secret = f"\u2603{password}\u2603"
    escaped = secret.replace("\\", "\\\\").replace("'", "\\'")
    for address in (
        f"postgresql://ann:{secret}@db/shop",
        f"postgresql://db/shop?password={secret}",
        f"postgresql://db/shop?user=ann&sslpassword={secret}&sslmode=require",
        f"host=db password='{escaped}' dbname=shop",
        f"host=db password={secret}",
        f"passwort={secret} host=db",
    ):
        place = Conninfo(address)
        reason = place.scrubbed(f"connection to {address} failed: {address}: password {secret}")
        assert "\u2603" not in f"{place!r} {place.shown} {reason}"


def test_arguments_that_are_swapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    swapped: list[Any] = [
        lambda: greendata.read_sql("shop.sqlite", "SELECT * FROM t"),
        lambda: greendata.read_sql("postgresql://ann:hunter2@db/shop", "SELECT 1"),
        lambda: greendata.write_sql(ROWS, "postgresql://ann:hunter2@db/shop", "t"),
        lambda: greendata.write_sql(ROWS, "shop.sqlite", "t"),
    ]
    for call in swapped:
        with pytest.raises((BadArgument, UnknownDatabase), match="the database comes after it") as caught:
            call()
        assert SECRET not in str(caught.value)
    with pytest.raises(UnknownDatabase, match="a statement of SQL: the database comes after it"):
        greendata.read_sql("a table", "SELECT * FROM t")
    assert list(tmp_path.iterdir()) == []


def test_rows_for_a_database_in_memory_would_be_lost() -> None:
    with pytest.raises(BadArgument, match="a database in memory ends with the call"):
        greendata.write_sql(ROWS, "t", "sqlite://")


@pytest.mark.parametrize("query", ["SELECT 1\0", "SELECT '\ud800'"])
def test_a_query_that_no_driver_takes(query: str, tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match="query must be one SQL statement as text"):
        greendata.read_sql(query, tmp_path / "a.sqlite")
