"""SQLAlchemy's engines, connections and sessions with SQLite, and connections with converters."""

from __future__ import annotations

import datetime as dt
import sqlite3
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import flask
import polars as pl
import pytest
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Session, scoped_session, sessionmaker

import greendata
from greendata import BadArgument, ColumnUnreadable, ConnectionBusy, DatabaseUnreachable, QueryFailed, UnknownDatabase
from greendata.sql import databases
from tests.support.databases import closing
from tests.support.frames import one_worker
from tests.support.gates import Gate

pytestmark = pytest.mark.filterwarnings("ignore:The default .* converter is deprecated:DeprecationWarning")

ROWS = pl.DataFrame({"a": [1, 2, 3]})
MOMENT = dt.datetime(2020, 2, 29, 1, 2, 3)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shop.sqlite"
    greendata.write_sql(ROWS, "t", path).get()
    return path


@pytest.fixture
def engine(file: Path) -> Iterator[sa.Engine]:
    made = sa.create_engine(f"sqlite:///{file}")
    yield made
    made.dispose()


@pytest.fixture
def memory() -> Iterator[sa.Engine]:
    """An engine whose users share one connection, as in tests of web services."""
    made = sa.create_engine("sqlite://", poolclass=sa.StaticPool, connect_args={"check_same_thread": False})
    greendata.write_sql(ROWS, "t", made).get()
    yield made
    made.dispose()


def read(query: str, database: object, **options: Any) -> pl.DataFrame:
    return greendata.read_sql(query, database, **options).get()


def append(database: object, df: pl.DataFrame = ROWS) -> int:
    return greendata.write_sql(df, "t", database, if_exists="append").get()


def count(database: object) -> int:
    return int(read("SELECT count(*) FROM t", database).item())


# -- engines ------------------------------------------------------------------------------------------


def test_an_engine_reads_and_writes_in_a_new_transaction(engine: sa.Engine, file: Path) -> None:
    assert (append(engine), count(engine), count(file)) == (3, 6, 6)
    with greendata.read_sql("SELECT a FROM t", engine, batch_rows=2) as stream:
        assert [batch.height for batch in stream] == [2, 2, 2]
    read("DELETE FROM t WHERE a = :a", engine, params={"a": 1})
    assert count(file) == 4


def test_what_the_engine_does_to_its_connections_holds(file: Path) -> None:
    """A pragma and a function, set by an event, and a transaction that SQLAlchemy begins itself."""
    engine = sa.create_engine(f"sqlite:///{file}")

    @sa.event.listens_for(engine, "connect")
    def set_up(connection: Any, record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")
        connection.create_function("twice", 1, lambda value: 2 * value)

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    assert read("SELECT twice(21)", engine).item() == 42
    assert read("PRAGMA foreign_keys", engine).item() == 1
    append(engine)
    with engine.connect() as connection:
        append(connection)
        assert (count(connection), count(file)) == (9, 6)
        connection.rollback()
        assert count(connection) == 6
    engine.dispose()


def test_a_write_that_fails_leaves_nothing_and_gives_the_connection_back(engine: sa.Engine, file: Path) -> None:
    read("CREATE UNIQUE INDEX one ON t (a)", file)
    for _ in range(20):  # more than the pool holds
        with pytest.raises(QueryFailed, match="UNIQUE constraint failed"):
            append(engine, pl.DataFrame({"a": [7, 8, 1]}))
    assert count(engine) == 3
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="autocommit is new in Python 3.12")
@pytest.mark.parametrize("autocommit", [True, False])
def test_the_autocommit_of_newer_pythons(autocommit: bool, file: Path) -> None:  # noqa: FBT001
    engine = sa.create_engine(f"sqlite:///{file}", connect_args={"autocommit": autocommit})
    assert (append(engine), count(engine), count(file)) == (3, 6, 6)
    read("CREATE UNIQUE INDEX one ON t (a) WHERE a > 5", engine)
    for _ in range(2):
        with pytest.raises(QueryFailed, match="UNIQUE constraint failed"):
            append(engine, pl.DataFrame({"a": [7, 8, 8]}))
        assert count(engine) == count(file) == 6
    engine.dispose()


def test_a_database_in_memory_that_all_share(memory: sa.Engine) -> None:
    assert (append(memory), count(memory)) == (3, 6)
    with memory.connect() as connection:
        append(connection)
        connection.commit()
    assert count(memory) == 9


def test_a_shared_connection_serves_one_job_at_a_time(memory: sa.Engine, held: Gate) -> None:
    with one_worker():
        blocker = greendata.run(held)
        first = greendata.read_sql("SELECT count(*) FROM t", memory, label="report")
        with memory.connect() as connection:
            for other in (memory, connection):
                with pytest.raises(ConnectionBusy, match="report still uses this connection"):
                    greendata.read_sql("SELECT 1", other)
        held.open()
        assert (first.get().item(), blocker.get()) == (3, None)
    assert not databases._claims


def test_a_database_in_memory_of_each_connection_is_refused() -> None:
    engine = sa.create_engine("sqlite://")
    for call in (partial(greendata.read_sql, "SELECT 1"), partial(greendata.write_sql, ROWS, "t")):
        with pytest.raises(UnknownDatabase, match=r"separate databases in memory; make it with poolclass=StaticPool"):
            call(engine)


def test_an_engine_that_cannot_connect(tmp_path: Path, keeps_descriptors: Callable[[], Any]) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/none/a.sqlite")
    with pytest.raises(DatabaseUnreachable, match="unable to open database file"):
        read("SELECT 1", engine)


# -- connections and sessions -------------------------------------------------------------------------


def test_a_connection_keeps_the_callers_transaction(engine: sa.Engine, file: Path) -> None:
    with engine.connect() as connection:
        append(connection)  # no statement was executed before
        assert (count(connection), count(file)) == (6, 3)
        connection.commit()
        assert count(file) == 6
        read("DELETE FROM t", connection)
        assert count(connection) == 0
        connection.rollback()
        assert count(connection) == 6
    assert count(file) == 6
    with engine.begin() as connection:
        append(connection)
    assert count(file) == 9


def test_a_connection_that_commits_by_itself(engine: sa.Engine, file: Path) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        append(connection)
        assert count(file) == 6


@pytest.mark.parametrize("make", [Session, lambda engine: scoped_session(sessionmaker(engine))])
def test_a_session_sees_what_it_has_written_and_commits_it(make: Any, engine: sa.Engine, file: Path) -> None:
    session = make(engine)
    session.execute(sa.text("INSERT INTO t VALUES (4)"))
    assert (count(session), count(file)) == (4, 3)
    append(session)
    session.commit()
    assert count(file) == 7
    append(session)
    session.rollback()
    assert count(session) == 7
    session.close()


def test_flask_sqlalchemy(tmp_path: Path) -> None:
    app = flask.Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path}/shop.sqlite"
    db = SQLAlchemy(app)

    class Sale(db.Model):  # type: ignore[name-defined,misc]
        id = db.Column(db.Integer, primary_key=True)
        created = db.Column(db.DateTime)

    with app.app_context():
        db.create_all()
        db.session.add(Sale(created=MOMENT))
        db.session.flush()
        moments = {"created": pl.Datetime("us")}
        df = read("SELECT id, created FROM sale", db.session, schema_overrides=moments)
        assert df.rows() == [(1, MOMENT)]
        assert read("SELECT * FROM sale", db.engine).is_empty()
        greendata.write_sql(df.with_columns(id=2), "sale", db.session.connection(), if_exists="append").get()
        db.session.commit()
        assert [sale.created for sale in db.session.query(Sale)] == [MOMENT, MOMENT]
        assert read("SELECT count(*) FROM sale WHERE created = ?", db.engine, params=[MOMENT]).item() == 1
        db.session.remove()
        db.engine.dispose()


def test_a_connection_that_is_closed(engine: sa.Engine) -> None:
    connection = engine.connect()
    connection.close()
    with pytest.raises(DatabaseUnreachable, match="closed"):
        greendata.read_sql("SELECT 1", connection)


def test_a_connection_bound_to_one_thread(file: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{file}", connect_args={"check_same_thread": True})
    with engine.connect() as connection, pytest.raises(QueryFailed, match="check_same_thread=False"):
        read("SELECT 1", connection)
    engine.dispose()
    assert not databases._claims


# -- converters ---------------------------------------------------------------------------------------


@pytest.fixture
def converting(file: Path) -> Iterator[Any]:
    """A connection with the converters of `sqlite3` and some more."""
    for name, converter in (
        ("yes", lambda text: text == b"1"),
        ("dec", lambda text: Decimal(text.decode())),
        ("zoned", lambda text: dt.datetime.fromisoformat(text.decode())),
        ("clock", lambda text: dt.time.fromisoformat(text.decode())),
        ("seconds", lambda text: dt.timedelta(seconds=float(text))),
        ("id", lambda text: uuid.UUID(text.decode())),
        ("wrong", lambda text: 1 / 0),
        ("some", lambda text: None if text == b"x" else dt.date(2020, 1, 1) if text == b"d" else int(text)),
    ):
        sqlite3.register_converter(f"greendata_{name}", converter)
    connect = partial(sqlite3.connect, file, check_same_thread=False)
    types = sqlite3.PARSE_DECLTYPES | sqlite3.PARSE_COLNAMES
    with closing(greendata.run(partial(connect, detect_types=types)).get()) as made:
        yield made
    for name in list(sqlite3.converters):  # type: ignore[attr-defined]
        if name.startswith("GREENDATA_"):
            del sqlite3.converters[name]  # type: ignore[attr-defined]


VALUES = [
    ("timestamp", "2020-02-29 01:02:03", MOMENT, pl.Datetime("us")),
    ("timestamp", "2020-02-29 01:02:03.250", MOMENT.replace(microsecond=250_000), pl.Datetime("us")),
    ("date", "2020-02-29", MOMENT.date(), pl.Date()),
    ("greendata_yes", 1, True, pl.Boolean()),
    ("greendata_dec TEXT", "1.10", Decimal("1.10"), pl.Decimal(38, 2)),
    ("greendata_zoned", "2020-02-29 03:02:03+02:00", MOMENT.replace(tzinfo=dt.UTC), pl.Datetime("us", "UTC")),
    ("greendata_clock", "01:02:03", MOMENT.time(), pl.Time()),
    ("greendata_seconds", 1.5, dt.timedelta(seconds=1.5), pl.Duration("us")),
    ("greendata_some", "x", None, pl.Int64()),
]


@pytest.mark.parametrize(("declared", "stored", "value", "dtype"), VALUES)
def test_what_a_converter_makes_of_a_value_is_read(
    declared: str, stored: object, value: object, dtype: Any, converting: Any
) -> None:
    read(f"CREATE TABLE v (a {declared})", converting)
    read("INSERT INTO v VALUES (?), (NULL)", converting, params=[stored])
    found = read("SELECT a FROM v", converting)["a"]
    assert (found.dtype, found.to_list()) == (dtype, [value, None])
    assert read("SELECT +a AS a FROM v", converting)["a"].to_list() == [stored, None]


def test_converted_by_the_name_of_the_column(converting: Any) -> None:
    assert read("SELECT '2020-02-29' AS \"day [date]\"", converting).to_dicts() == [{"day": MOMENT.date()}]


@pytest.mark.parametrize(
    ("declared", "stored", "reason"),
    [
        ("greendata_id", str(uuid.UUID(int=1)), "holds a UUID, which a converter of the connection returned"),
        ("greendata_dec TEXT", "NaN", "holds a Decimal that Polars cannot hold"),
        ("greendata_dec TEXT", "1e50", "holds a Decimal that Polars cannot hold"),
        ("greendata_clock", "01:02:03+02:00", "holds a time that Polars cannot hold"),
        ("greendata_some", "d", "mixes date and int values"),
    ],
)
def test_what_no_column_holds_is_refused(declared: str, stored: str, reason: str, converting: Any) -> None:
    read(f"CREATE TABLE v (a {declared})", converting)
    read("INSERT INTO v VALUES (?), (1)", converting, params=[stored])
    where = "" if stored == "d" else " WHERE rowid = 1"
    with pytest.raises(ColumnUnreadable, match=f"column 'a' {reason}"):
        read(f"SELECT a FROM v{where}", converting)
    assert read("SELECT +a AS a FROM v WHERE rowid = 1", converting).item() == stored


def test_times_with_and_without_a_zone_are_refused_together(converting: Any) -> None:
    read("CREATE TABLE v (a greendata_zoned)", converting)
    read("INSERT INTO v VALUES ('2020-01-01 00:00:00'), ('2020-01-01 00:00:00+00:00')", converting)
    with pytest.raises(ColumnUnreadable, match="column 'a' holds a datetime"):
        read("SELECT a FROM v", converting)


@pytest.mark.parametrize("first", ["x", "d", "1"])
def test_types_that_change_in_a_late_row(first: str, converting: Any) -> None:
    """All values of a part have another type than those of the part before."""
    read("CREATE TABLE v (a greendata_some TEXT)", converting)
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6000)"
    read(f"{numbers} INSERT INTO v SELECT iif(i < 2500, ?, iif(i < 4500, 'd', '7')) FROM n", converting, params=[first])
    with pytest.raises(ColumnUnreadable, match="column 'a' mixes date and int values"):
        read("SELECT a FROM v", converting)
    found = read("SELECT a FROM v WHERE rowid < 4500", converting) if first != "1" else None
    assert found is None or found["a"].drop_nulls().unique().to_list() == [dt.date(2020, 1, 1)]


def test_decimals_of_several_scales(converting: Any) -> None:
    """Their parts are built one after the other."""
    read("CREATE TABLE v (a greendata_dec TEXT)", converting)
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)"
    read(f"{numbers} INSERT INTO v SELECT iif(i < 29000, '1.5', '0.125') FROM n", converting)
    found = read("SELECT a FROM v", converting)["a"]
    assert found.dtype == pl.Decimal(38, 3)
    assert found.sum() == Decimal("1.5") * 28_999 + Decimal("0.125") * 1_001


def test_a_converter_that_raises(converting: Any, keeps_descriptors: Callable[[], Any]) -> None:
    read("CREATE TABLE v (a greendata_wrong)", converting)
    read("INSERT INTO v VALUES (1)", converting)
    with pytest.raises(
        QueryFailed, match="a converter or text_factory of the connection raised ZeroDivisionError"
    ) as caught:
        read("SELECT a FROM v", converting)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert count(converting) == 3


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        (bytes, b"caf\xe9"),
        (partial(str, encoding="latin-1"), "caf\u00e9"),
        (partial(str, encoding="ascii"), "UnicodeDecodeError"),
        (partial(str, encoding="utf-8", errors="surrogateescape"), "not UTF-8"),
        (bytearray, "holds a bytearray"),
    ],
)
def test_the_text_factory_of_a_connection(factory: Any, expected: object, file: Path) -> None:
    connect = partial(sqlite3.connect, file, check_same_thread=False)
    with closing(greendata.run(connect).get()) as connection:
        connection.text_factory = factory
        query = "SELECT CAST(x'636166e9' AS TEXT) AS v"
        if expected in (b"caf\xe9", "caf\u00e9"):
            assert read(query, connection).item() == expected
        else:
            with pytest.raises((QueryFailed, ColumnUnreadable), match=str(expected)):
                read(query, connection)


def test_what_is_written_can_be_read_by_others(converting: Any, engine: sa.Engine) -> None:
    """The converters of `sqlite3` and SQLite's functions read it, and it compares with what they write."""
    read("CREATE TABLE v (a timestamp, d date)", converting)
    for moment in (MOMENT, MOMENT.replace(microsecond=1), dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59)):
        for unit in ("ms", "us") if moment.microsecond == 0 else ("us",):
            row = pl.DataFrame({"a": [moment], "d": [moment.date()]}).cast({"a": pl.Datetime(unit)})  # type: ignore[arg-type]
            greendata.write_sql(row, "v", converting, if_exists="append").get()
            assert read("SELECT a, d FROM v", converting).row(0) == (moment, moment.date())
            assert greendata.run(converting.execute("SELECT * FROM v").fetchall).get() == [(moment, moment.date())]
            text = moment.isoformat(" ")
            query = "DELETE FROM v WHERE +a = ? AND +a = ? RETURNING +a AS a"
            assert read(query, converting, params=[text, moment]).item() == text
    assert read("SELECT ? = datetime('2020-02-29 01:02:03')", engine, params=[MOMENT]).item() == 1


# -- values ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [1582938123, 1582938123.5, 2458908.5])
@pytest.mark.parametrize("dtype", [pl.Date(), pl.Datetime("us"), pl.Datetime("ms"), pl.Time(), pl.Duration("us")])
def test_numbers_are_not_cast_to_times(stored: float, dtype: Any, file: Path) -> None:
    """SQLite stores times as seconds or as days, and a type of Polars does not say which."""
    with pytest.raises(ColumnUnreadable, match=r"is (Int|Float)64, and cannot be"):
        read("SELECT ? AS a", file, params=[stored], schema_overrides={"a": dtype})
    query = "SELECT datetime(?, 'unixepoch') AS a"
    assert read(query, file, params=[1582938123], schema_overrides={"a": pl.Datetime}).item() == MOMENT


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        ("20-01-02", pl.Date()), ("2020-1-2", pl.Date()), (" 2020-01-02", pl.Date()), ("2020-01-02 ", pl.Date()),
        ("20-01-02 03:04:05", pl.Datetime("us")), ("2020-01-02 3:04:05", pl.Datetime("us")), ("1:2:3", pl.Time()),
        ("2020-01-02 23:59:60", pl.Datetime("us")), ("2020-01-02 23:59:60.5", pl.Datetime("ms")),
        ("12:00:60", pl.Time()), ("2016-12-31 23:59:60", pl.Datetime("ns")), ("12:60:00", pl.Time()),
        ("9007199254740993", pl.Float64()), ("0.1000000000000000055511151231257827", pl.Float64()),
        ("1e-400", pl.Float64()), ("16777217", pl.Float32()), ("1e-60", pl.Float32()),
    ],
)  # fmt: skip
def test_text_that_would_be_another_value(text: str, dtype: Any, file: Path) -> None:
    with pytest.raises(ColumnUnreadable, match="column 'a' holds values that cannot become"):
        read("SELECT ? AS a", file, params=[text], schema_overrides={"a": dtype})


@pytest.mark.parametrize("text", ["0.1", "1e22", "5e-324", "-0.0", "1.7976931348623157e308", "0.30000000000000004"])
def test_text_that_a_float_says(text: str, file: Path) -> None:
    assert read("SELECT ? AS a", file, params=[text], schema_overrides={"a": pl.Float64}).item() == float(text)


def test_overrides_of_types_that_no_column_has(file: Path) -> None:
    for dtype in (pl.Struct({"x": pl.Int64}), pl.Object, pl.Unknown):
        with pytest.raises(BadArgument, match="schema_overrides must be of types that a column of a database can have"):
            greendata.read_sql("SELECT '{}' AS a", file, schema_overrides={"a": dtype})
    assert read("SELECT 'x' AS a", file, schema_overrides={"a": pl.Categorical})["a"].to_list() == ["x"]
    for value, dtype in (("'[1]'", pl.List(pl.Int64)), ("1", pl.List(pl.Int64)), ("'1'", pl.Boolean)):
        with pytest.raises(ColumnUnreadable, match="cannot be"):
            read(f"SELECT {value} AS a", file, schema_overrides={"a": dtype})


def test_descriptors_stay(engine: sa.Engine, keeps_descriptors: Callable[[], AbstractContextManager[None]]) -> None:
    count(engine)
    with keeps_descriptors():
        for _ in range(3):
            count(engine)
            with greendata.read_sql("SELECT a FROM t", engine, batch_rows=1) as stream:
                next(stream)
            with pytest.raises(QueryFailed):
                read("SELEC 1", engine)
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
