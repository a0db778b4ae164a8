"""Read frames from databases and write them, in the pool: SQLite with `sqlite3`, PostgreSQL with its ADBC driver.

``pip install 'greendata[sql]'`` installs the driver. A database is an address (``sqlite:///path``, a path,
``postgresql://...``, ``host=... dbname=...``), an engine of SQLAlchemy for SQLite, or a connection of the caller: one
from ``sqlite3.connect`` with ``check_same_thread=False``, one of SQLAlchemy for SQLite (or a session), or one from
``adbc_driver_postgresql.dbapi.connect``, called through `greendata.run` so that the hub keeps running. One job at a
time can use a connection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial
from os import PathLike
from types import TracebackType
from typing import Any, Literal, get_args, overload

import polars as pl

from greendata.errors import (
    BadArgument,
    BadChoice,
    GreenDataError,
    LoadFailed,
    NotAFrame,
    QueryFailed,
    TableExists,
)
from greendata.errors.notes import note
from greendata.hub.checks import is_count
from greendata.hub.contexts import contextmanager
from greendata.hub.result import Result
from greendata.pool import pool
from greendata.pool.stopping import stopped_by
from greendata.query.batches import Batches
from greendata.sql.addresses import looks_like_address
from greendata.sql.canceller import Canceller
from greendata.sql.databases import Database, SqliteAddress, database_of, is_aborted
from greendata.sql.sql_types import SQLITE, check_name, check_writable, dtypes_of, parameters
from greendata.sql.sqlite import MEMORY
from greendata.sql.statements import ingest, rows_of
from greendata.sql.table import IfExists, Table

__all__ = ("SqlBatches", "load", "read_sql", "write_sql")

IF_EXISTS: tuple[IfExists, ...] = get_args(IfExists)

Params = Sequence[object] | Mapping[str, object]


@overload
def read_sql(
    query: str,
    database: str | PathLike[str] | object,
    *,
    params: Params | None = None,
    schema_overrides: Mapping[str, Any] | None = None,
    batch_rows: None = None,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[pl.DataFrame]: ...


@overload
def read_sql(
    query: str,
    database: str | PathLike[str] | object,
    *,
    params: Params | None = None,
    schema_overrides: Mapping[str, Any] | None = None,
    batch_rows: int,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> SqlBatches: ...


def read_sql(
    query: str,
    database: str | PathLike[str] | object,
    *,
    params: Params | None = None,
    schema_overrides: Mapping[str, Any] | None = None,
    batch_rows: int | None = None,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[pl.DataFrame] | SqlBatches:
    """Execute one statement and return its rows as a frame, or as a stream of frames of *batch_rows* rows.

    With an address or an engine, the statement is one transaction, which is committed when all rows are read.
    Cancelling the result, or its deadline, stops the statement. A statement that returns no rows gives a frame without
    columns. A query with several statements is an error.

    No value changes on the way. A type of PostgreSQL that Polars lacks is read as text. A value that Polars cannot hold
    is an error that names the column: ``infinity``, arrays of several dimensions, numbers mixed with text in a column
    of SQLite, text that is not UTF-8, an override that would round or truncate.

    A connection of `sqlite3` with converters (``detect_types``) or a ``text_factory`` returns converted values: dates,
    datetimes (in UTC if they have a zone), times, timedeltas, booleans, Decimals and SQLite's own types are read, other
    objects are errors. ``SELECT +column`` returns the stored values.

    Args:
        query: one SQL statement.
        database: an address, an engine or a connection. ``sqlite:///`` is followed by the path, so an absolute path
            has four slashes; an SQLite file that does not exist is an error. A connection of `sqlite3` has to be made
            with ``check_same_thread=False``. With SQLAlchemy, an engine provides a connection from its pool, and a
            connection or a session provides its transaction; PostgreSQL needs the address instead.
        params: values that the driver binds, which are never put into the text: a sequence for ``?`` (SQLite) or ``$1``
            (PostgreSQL), or a mapping for SQLite's ``:name``.
        schema_overrides: types of columns that the database does not know: SQLite has no dates, booleans or decimals,
            its columns without values are Int64, and PostgreSQL's numeric is unbounded and read as text. With String,
            numbers mixed with text become text with all their digits.
        batch_rows: the number of rows in a frame. In SQLite the first 10 000 rows or the first batch, whichever is
            larger, decide the type of a column; without *batch_rows*, all rows do.
        timeout: the deadline in seconds; with *batch_rows*, for the whole stream.
        key: jobs with different keys, for example tenants or routes, take turns.
        label: the name of the job in errors and statistics; the verb's name if None.

    Raises:
        UnknownDatabase, ConnectionBusy, BadArgument, ColumnUnwritable, ImportError: at the call, also for a stream.
        DatabaseUnreachable, QueryFailed, ColumnUnreadable: from the result.

    Example:
        >>> read_sql("SELECT ? + 1 AS a", "sqlite://", params=[41]).get(timeout=5).item()
        42
        >>> with read_sql("VALUES (1), (2), (3)", "sqlite://", batch_rows=2) as stream:
        ...     [batch.height for batch in stream]
        [2, 1]
    """
    label = label or "read_sql"
    _check_query(query)
    if batch_rows is not None and not is_count(batch_rows):
        raise BadArgument("batch_rows", batch_rows, "None or a whole number >= 1")
    if isinstance(params, str | bytes) or not isinstance(params, Sequence | Mapping | None):
        raise BadArgument("params", params, "None, a sequence or a mapping")
    overrides = dtypes_of({} if schema_overrides is None else schema_overrides)
    target, canceller = database_of(database, label), Canceller()
    try:
        bound = _bind(params, target.kind)
        start = partial(rows_of, target, canceller, query, bound, overrides, batch_rows)
        if batch_rows is not None:
            return SqlBatches(start, target, canceller.request, timeout=timeout, key=key, label=label)
        return _submit(partial(_read_all, start), target.release, canceller, timeout, key, label)
    except BaseException:
        target.release()
        raise


def write_sql(
    frame: pl.DataFrame,
    table: str,
    database: str | PathLike[str] | object,
    *,
    if_exists: Literal["fail", "append", "replace"] = "fail",
    schema: str | None = None,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[int]:
    """Write all rows of *frame* to *table*, or none. The result is the number of rows that the table accepted.

    The number is smaller than that of the frame if a trigger or an ``ON CONFLICT`` of the table leaves rows out.

    With an address or an engine, the write is one transaction. On a connection or a session of the caller, nothing is
    committed, and a rollback removes the rows. A write that fails leaves a transaction of SQLite as it was. In
    PostgreSQL it aborts the transaction, as any failed statement does, and the caller has to roll it back. All names
    are quoted.

    Writers to one file of SQLite wait up to 5 seconds for each other. An append checks the types of the table: a value
    that the table would change is an error.

    Args:
        frame: the rows.
        table: the name of the table.
        database: an address, an engine or a connection, see `read_sql`. An SQLite file is created if it does not exist.
        if_exists: what to do if the table exists. A table that does not exist is created.
        schema: the schema of the table; in SQLite, the name of an attached database.
        timeout: the deadline in seconds, for queue wait and run time together; None for no deadline.
        key: jobs with different keys, for example tenants or routes, take turns.
        label: the name of the job in errors and statistics; the verb's name if None.

    Raises:
        NotAFrame, UnknownDatabase, ConnectionBusy, BadArgument, BadChoice, ColumnUnwritable, ImportError: at the call.
        DatabaseUnreachable, QueryFailed: from the result. `TableExists` and `WriteRefused`, which is raised if a value
            would change, are a `QueryFailed`.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     written = write_sql(pl.DataFrame({"a": [1, 2]}), "t", folder + "/a.sqlite").get(timeout=5)
        ...     read_sql("SELECT sum(a) FROM t", folder + "/a.sqlite").get(timeout=5).item(), written
        (3, 2)
    """
    label = label or "write_sql"
    _check_frame(frame)
    if if_exists not in IF_EXISTS:
        raise BadChoice("if_exists", if_exists, IF_EXISTS)
    target, canceller = database_of(database, label), Canceller()
    try:
        _check_target(table, schema, database, target)
        check_writable(frame.schema, target.kind)
        work = partial(_write, target, canceller, frame.clone(), Table(table, schema, if_exists))
        return _submit(work, target.release, canceller, timeout, key, label)
    except BaseException:
        target.release()
        raise


def load(
    frames: Mapping[str, pl.DataFrame],
    targets: str | PathLike[str] | object | Mapping[str, str | PathLike[str] | object],
    *,
    if_exists: Literal["fail", "append", "replace"] = "fail",
    schema: str | None = None,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[dict[str, int]]:
    """Write several frames, each to a table, and each whole or not at all. The result has the rows of each table.

    The tables are written one after another in the order of *frames*, so a table comes after those that its foreign
    keys refer to. Each is a transaction, as in `write_sql`. If one fails, the others are written nevertheless, and the
    result raises `LoadFailed`, which says which tables were written. Everything is checked before the first is written.

    On a connection or a session of the caller, nothing is committed. In PostgreSQL a table that fails aborts the
    transaction of the connection, so none of its tables is written. A load that is cancelled, or ends at its deadline,
    leaves the tables that were complete, and nothing of the others.

    Args:
        frames: the rows, by the names of the tables.
        targets: the database of all tables, see `write_sql`, or a mapping from the name of each table to its database.
        if_exists: what to do if a table exists. A table that does not exist is created.
        schema: the schema of the tables; in SQLite, the name of an attached database.
        timeout: the deadline in seconds, for queue wait and run time together; None for no deadline.
        key: jobs with different keys, for example tenants or routes, take turns.
        label: the name of the job in errors and statistics; the verb's name if None.

    Raises:
        NotAFrame, UnknownDatabase, ConnectionBusy, BadArgument, BadChoice, ColumnUnwritable, ImportError: at the call.
        LoadFailed: from the result.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> frames = {"orders": pl.DataFrame({"id": [1, 2]}), "lines": pl.DataFrame({"order": [1, 1, 2]})}
        >>> with TemporaryDirectory() as folder:
        ...     load(frames, folder + "/shop.sqlite").get(timeout=5)
        {'orders': 2, 'lines': 3}
    """
    label = label or "load"
    if not isinstance(frames, Mapping) or not frames:
        raise BadArgument("frames", frames, "a mapping of table names to frames, such as {'orders': df}")
    if if_exists not in IF_EXISTS:
        raise BadChoice("if_exists", if_exists, IF_EXISTS)
    places = targets if isinstance(targets, Mapping) else dict.fromkeys(frames, targets)
    if wrong := sorted(map(str, places.keys() ^ frames.keys())):
        raise BadArgument("targets", wrong, "one database, or one for each table of frames and no other")
    databases: dict[int, Database] = {}  # by the given object: a connection is claimed once
    canceller = Canceller()

    def release() -> None:
        for database in databases.values():
            database.release()

    try:
        writes = []
        for name, frame in frames.items():
            with _about_table(name):
                _check_frame(frame)
                place = places[name]
                if id(place) not in databases:
                    databases[id(place)] = database_of(place, label)
                database = databases[id(place)]
                _check_target(name, schema, place, database)
                check_writable(frame.schema, database.kind)
            writes.append((database, frame.clone(), Table(name, schema, if_exists)))
        work = partial(_load, writes, canceller, release)
        return _submit(work, release, canceller, timeout, key, label)
    except BaseException:
        release()
        raise


class SqlBatches(Batches[pl.DataFrame]):
    """An iterator over the rows of a query as frames, and a context manager: `Batches` of a database statement.

    The end of the rows, an error, and leaving the block close the statement, and the connection if greendata opened it.
    Leaving the block waits for that; `close` and dropping the stream do not wait. A stream that is not read to its end
    rolls back the transaction that it began.

    Example:
        >>> stream = read_sql("VALUES (1), (2)", "sqlite://", batch_rows=1)
        >>> next(stream).item()
        1
        >>> stream.close()
    """

    def __init__(
        self, start: Any, target: Database, stop: Any, *, timeout: float | None, key: Hashable, label: str
    ) -> None:
        super().__init__(start, stop=stop, timeout=timeout, key=key, label=label)
        self._target = target
        # The ends of jobs that may still use the connection. Set once, by the thread that closes.
        self._ends: list[Result[None]] = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        for end in self._ends:
            end.wait()

    def _stop(self, reading: Result[pl.DataFrame | None] | None) -> None:
        reading_end = None if reading is None else reading.end()
        super()._stop(reading)
        if self._closing is not None or not self._source.is_open:
            self._ends = [end for end in (reading_end, self._closing) if end is not None]
            _call_after(self._ends, self._target.release)


def _submit(
    work: Any, release: Callable[[], object], canceller: Canceller, timeout: Any, key: Hashable, label: str
) -> Result[Any]:
    result = pool.submit(stopped_by(canceller.request)(work), timeout=timeout, key=key, label=label)
    result.end().add_callback(release)  # the job may never run
    return result


def _call_after(ends: list[Result[None]], func: Callable[[], object]) -> None:
    """Call *func* when all of *ends* are done, in the thread that notices it."""
    if not ends:
        func()
    elif not ends[0].add_callback(partial(_call_after, ends[1:], func)):
        _call_after(ends[1:], func)


def _read_all(start: Any) -> pl.DataFrame:
    frames: Iterator[pl.DataFrame] = start()
    return pl.concat(list(frames))


def _write(target: Database, canceller: Canceller, frame: pl.DataFrame, table: Table) -> int:
    try:
        return _ingest(target, canceller, frame, table)
    finally:
        target.release()  # before the result is set, so that the caller can use the connection then


def _load(
    writes: list[tuple[Database, pl.DataFrame, Table]], canceller: Canceller, release: Callable[[], object]
) -> dict[str, int]:
    written: dict[str, int] = {}
    failed: dict[str, Exception] = {}
    aborted: dict[int, str] = {}  # by a database's id, the table that aborted the caller's transaction
    try:
        for target, frame, table in writes:
            canceller.check(table.task)
            if id(target) in aborted:
                continue
            try:
                written[table.name] = _ingest(target, canceller, frame, table)
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller must know which tables were written
                failed[table.name] = error
                if is_aborted(target):
                    aborted[id(target)] = table.name
    finally:
        release()
    if not failed:
        return written
    first = next(iter(failed.values()))
    for target, _, table in writes:
        if table.name not in failed and id(target) in aborted:
            written.pop(table.name, None)
            reason = f"the failure of {aborted[id(target)]} aborted the transaction of the connection; roll it back"
            failed[table.name] = QueryFailed(table.task, reason, None)
    raise LoadFailed(written, failed) from first


@contextmanager
def _about_table(name: str) -> Iterator[None]:
    try:
        yield
    except GreenDataError as error:
        note(error, f"raised by load for the table {name!r}")
        raise


def _ingest(target: Database, canceller: Canceller, frame: pl.DataFrame, table: Table) -> int:
    try:
        return ingest(target, canceller, frame, table)
    except QueryFailed as error:
        exists = error.sqlstate == "42P07" or (error.sqlstate is None and "already exists" in error.reason)
        if table.if_exists == "fail" and exists:
            raise TableExists(table.name, error.reason, error.sqlstate) from error
        raise


def _check_frame(frame: object) -> None:
    if not isinstance(frame, pl.DataFrame):
        raise NotAFrame(frame, "DataFrame")
    if not frame.width:
        raise BadArgument("frame", frame.shape, "a frame with at least one column")


def _check_query(query: object) -> None:
    expected = "one SQL statement as text"
    if not isinstance(query, str):
        is_database = hasattr(query, "cursor") or hasattr(query, "connect") or isinstance(query, PathLike)
        swapped = ", and the database comes after it" if is_database else ""
        raise BadArgument("query", type(query), expected + swapped)
    if looks_like_address(query) and not any(character.isspace() for character in query):
        raise BadArgument("query", "an address", f"{expected}, and the database comes after it")
    if not query.strip() or "\0" in query or re.search("[\ud800-\udfff]", query):
        raise BadArgument("query", "empty text, or one with NUL or lone surrogates", expected)


def _check_target(table: str, schema: str | None, database: object, target: Database) -> None:
    """Check the names of the table and the schema, and that table and database are not swapped."""
    check_name("table", "a table", table, target.kind)
    if schema is not None:
        check_name("schema", "a schema", schema, target.kind)
    if looks_like_address(table) and isinstance(database, str) and not looks_like_address(database):
        raise BadArgument("table", "an address", "the name of a table, and the database comes after it")
    if isinstance(target, SqliteAddress) and target.path == MEMORY:
        raise BadArgument("database", MEMORY, "a file or a connection: a database in memory ends with the call")


def _bind(params: Params | None, kind: str) -> Any:
    """Return *params* for binding: in SQLite's types, or for PostgreSQL unchanged after a check."""
    if not params:
        return ()
    row = parameters(params, kind)
    if kind != SQLITE:
        return params
    return row.row(0, named=True) if isinstance(params, Mapping) else row.row(0)
