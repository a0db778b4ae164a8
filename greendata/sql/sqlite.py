"""Read from and write to SQLite with Python's own `sqlite3`, which the rest of the process uses on the same files.

A second copy of SQLite in the process, such as the one in ADBC's driver, could corrupt these files: POSIX locks belong
to the process, so neither copy sees the other's locks, and when one copy closes a file, the locks of both are dropped
(sqlite.org/howtocorrupt.html, "Multiple copies of SQLite linked into the same application").

`sqlite3` creates Python objects, which holds the GIL. Rows are read and written in slices, and the hub runs between
them. Call these functions on workers.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import polars as pl
from polars.exceptions import PanicException, PolarsError

from greendata.errors import BadArgument, ColumnUnreadable, QueryFailed, WriteRefused
from greendata.hub.contexts import contextmanager
from greendata.hub.pacing import BUDGET, GilReleaser
from greendata.query.objects import is_small
from greendata.schema.column_names import frame_of
from greendata.sql.canceller import Canceller
from greendata.sql.sql_types import ascii_lower, cast_exact, check_names, fits_float
from greendata.sql.table import Table, quoted

if TYPE_CHECKING:
    from sqlite3 import Connection, Cursor

__all__ = ("MEMORY", "connect", "ingest", "is_connection", "library", "reason_of", "rows_of", "transaction")

MEMORY = ":memory:"  # the path of a private database that ends with its connection

_BUSY_TIMEOUT = 5.0  # seconds that a writer waits for another one: the default of sqlite3
_FIRST_ROWS = 64  # rows in the first slice
_MAX_ROWS = 500  # rows in a slice: 700 tuples at once start the garbage collector, and a full collection takes 30 ms
_CONVERTED_VALUES = 1_000  # converted values in one Series: 16 000 Decimals take 12 ms with the GIL held
_SLICES = 32  # slices that become one Series: with 4 of them, building the Series takes a seventh more time
_INFERRED = 10_000  # the fewest rows that decide the types of a stream's columns
_ENCODINGS = {b"a": "utf-8", b"a\0": "utf-16-le", b"\0a": "utf-16-be"}  # by the letter "a"
_STRICT_SINCE = (3, 37)  # the version of SQLite
_SAVEPOINT = "greendata_write"
_KINDS = {
    int: pl.Int64(),
    float: pl.Float64(),
    str: pl.String(),
    bytes: pl.Binary(),
    type(None): pl.Null(),
}  # the types that sqlite3 returns
_CONVERTED = {
    bool: pl.Boolean(),
    dt.date: pl.Date(),
    dt.datetime: pl.Datetime("us"),
    dt.time: pl.Time(),
    dt.timedelta: pl.Duration("us"),
    Decimal: pl.Decimal(38, 0),
}  # further types that the converters of a connection may return
_NAMES = {type(dtype): kind.__name__ for kind, dtype in (*_KINDS.items(), *_CONVERTED.items())}
# A message of sqlite3, which sqlite3 truncates to 200 bytes.
_NOT_UTF8 = re.compile(r"(?s)Could not decode to UTF-8 column '(.*?)(?:' with text '|$)")
_TYPES = {pl.Float32: "REAL", pl.Float64: "REAL", pl.String: "TEXT", pl.Binary: "BLOB"}  # else INTEGER
_LOOKS_NUMERIC = r"^\s*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$"
_WHOLE = r"^(0|-?[1-9][0-9]{0,17})$"  # text that becomes an integer with the same digits


def is_connection(given: object) -> bool:
    """Return True for a connection of `sqlite3`. Safe from any thread."""
    return isinstance(given, library().Connection)


def connect(path: str, *, may_create: bool) -> Connection:
    """Connect to the file at *path*, or to a new database in memory.

    Raises:
        sqlite3.Error: the file cannot be opened.
    """
    mode = "rwc" if may_create else "rw"
    uri = "file::memory:" if path == MEMORY else f"file:{quote(str(Path(path).absolute()))}?mode={mode}"
    made: Connection = library().connect(
        uri, uri=True, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
    )
    return made


@contextmanager
def transaction(connection: Connection, *, writes: bool, is_ours: bool) -> Iterator[None]:
    """Run the block as one transaction if *is_ours*, or if the connection is in autocommit mode.

    A transaction of the caller is not committed. If the caller has not begun one, a write begins it with IMMEDIATE,
    since otherwise SQLite does not wait for another writer but fails at once. A connection that an engine of SQLAlchemy
    made with ``autocommit=False`` is always in a transaction.

    Raises:
        QueryFailed: the database rejects the start of the transaction or the commit.
    """
    with _sqlite_errors("BEGIN"):
        has_begun = connection.in_transaction
        in_callers = has_begun or not (is_ours or _autocommits(connection))
    if not is_ours and (has_begun or (in_callers and not writes)):
        yield
        return
    if not has_begun:
        _execute(connection, "BEGIN IMMEDIATE" if writes else "BEGIN")
    try:
        yield
        if is_ours or not in_callers:
            _end(connection, "COMMIT", has_begun)
    except BaseException:
        with suppress(QueryFailed):  # SQLite has already rolled back, and the first error says why
            _end(connection, "ROLLBACK", has_begun)
        raise


def _end(connection: Connection, verb: str, is_implicit: bool) -> None:  # noqa: FBT001
    """Execute *verb*. If `sqlite3` began the transaction, it has to end it, so that it begins the next one."""
    if not is_implicit:
        _execute(connection, verb)
        return
    with _sqlite_errors(verb):
        connection.commit() if verb == "COMMIT" else connection.rollback()


def rows_of(
    connection: Connection,
    canceller: Canceller,
    sql: str,
    params: Sequence[Any] | Mapping[str, Any],
    overrides: Mapping[str, Any],
    batch_rows: int | None,
) -> Iterator[pl.DataFrame]:
    """Yield the result of *sql* in frames of at least *batch_rows* rows, except the last; in one frame if it is None.

    Raises:
        QueryFailed: SQLite rejects the statement, or fails while it executes.
        ColumnUnreadable: a column's values have different types, or are not Unicode.
        BadArgument: *overrides* names a column that the result does not have.
    """
    names: Sequence[str] = ()
    with (
        _sqlite_errors(sql, lambda: names),
        closing(connection.cursor()) as cursor,
        canceller.running(connection.interrupt, sql),
    ):
        cursor.row_factory = None
        with _column_name_errors(sql):
            cursor.execute(sql, params)
        if cursor.description is None:
            yield pl.DataFrame()
            return
        names = check_names([column[0] for column in cursor.description])
        if unknown := sorted(overrides.keys() - set(names)):
            raise BadArgument("schema_overrides", unknown, f"of the columns {', '.join(names)}")
        columns = [_Column(name, overrides.get(name)) for name in names]
        wanted = None if batch_rows is None else max(batch_rows, _INFERRED)
        height, is_first = 0, True
        for count in _fetch_slices(cursor, columns, canceller, sql):
            height += count
            if wanted is not None and height >= wanted:
                yield frame_of([column.take() for column in columns])
                height, is_first, wanted = 0, False, batch_rows
        if height or is_first:
            yield frame_of([column.take() for column in columns])


class _Column:
    """One column of a result, collected in parts. One worker at a time uses it."""

    def __init__(self, name: str, override: Any) -> None:
        self._name = name
        self._override = override
        self._dtype: Any = override
        self._values: list[Any] = []  # of the last slices: a Series of few values costs as much as one of thousands
        self._parts: list[pl.Series] = []

    def add(self, values: Iterable[Any]) -> None:
        """Add the values of a slice."""
        self._values.extend(values)

    def pack(self, pacer: _SlicePacer) -> None:
        """Convert the values of the last slices to Series."""
        values, self._values = self._values, []
        size = max(1, len(values) if _kind(values) in _KINDS else _CONVERTED_VALUES)
        for start in range(0, len(values), size):
            part = self._part(values[start : start + size])
            if self._parts and self._parts[-1].dtype == part.dtype:
                self._parts[-1].append(part)  # one object, since thousands would start the garbage collector
            else:
                self._parts.append(part)
            pacer.release_if_due()

    def _part(self, values: Sequence[Any]) -> pl.Series:
        kind = _kind(values)
        dtype = _KINDS.get(kind)
        if dtype is None:
            return self._converted(values)
        if kind is float and not _are_floats(values):  # Polars would convert an integer among floats silently
            return self._mixed_series(values)
        try:
            return pl.Series(self._name, values, dtype=dtype, strict=True)
        except TypeError:  # the values have several types
            return self._mixed_series(values)
        except UnicodeEncodeError as error:  # the text comes from a text_factory
            raise ColumnUnreadable(self._name, "holds text that is not UTF-8") from error

    def _converted(self, values: Sequence[Any]) -> pl.Series:
        """Return a Series of values that a converter of the connection has returned."""
        kinds = {type(value) for value in values} - {type(None)}
        if unknown := kinds - _CONVERTED.keys() - _KINDS.keys():
            name = min(kind.__name__ for kind in unknown)
            reason = f"holds a {name}, which a converter of the connection returned"
            raise ColumnUnreadable(self._name, reason, "select +column to read the stored values without a converter")
        if len(kinds) > 1:
            raise ColumnUnreadable(self._name, _mixed_types_reason({kind.__name__ for kind in kinds}))
        try:
            return _converted_series(self._name, values, *kinds)
        except (TypeError, ValueError, OverflowError, RuntimeError, PolarsError, PanicException) as error:
            raise ColumnUnreadable(self._name, f"holds a {kinds.pop().__name__} that Polars cannot hold") from error

    def take(self) -> pl.Series:
        """Return the values since the last call, in the common type of all."""
        parts, self._parts = self._parts, []
        if self._dtype is None:
            self._dtype = self._common_dtype({part.dtype for part in parts})
        runs = [cast_exact(part.rechunk(), self._dtype) for part in parts]
        if len(runs) == 1:
            return runs[0]
        return pl.concat([pl.Series(self._name, [], dtype=self._dtype), *runs], rechunk=True)

    def _mixed_series(self, values: Sequence[Any]) -> pl.Series:
        kinds = {type(value) for value in values} - {type(None)}
        if kinds == {int, float} and self._override not in (pl.String, pl.Decimal):
            if all(float(value) == value for value in values if type(value) is int):
                return pl.Series(self._name, values, dtype=pl.Float64, strict=False)
            raise ColumnUnreadable(self._name, "holds floats, and integers that have no equal float")
        if self._override is None or self._override == pl.Binary or not kinds <= {int, float, str}:
            raise ColumnUnreadable(self._name, _mixed_types_reason({kind.__name__ for kind in kinds}))
        return pl.Series(self._name, [None if value is None else str(value) for value in values], dtype=pl.String)

    def _common_dtype(self, dtypes: Iterable[Any]) -> Any:
        found = {dtype for dtype in dtypes if dtype != pl.Null}
        if len(found) <= 1:
            return next(iter(found), pl.Int64())  # a column without values
        if found == {pl.Int64(), pl.Float64()}:
            return pl.Float64()
        if all(isinstance(dtype, pl.Decimal) for dtype in found):
            return pl.Decimal(38, max(dtype.scale for dtype in found))
        raise ColumnUnreadable(self._name, _mixed_types_reason({_NAMES[type(dtype)] for dtype in found}))


def _converted_series(name: str, values: Sequence[Any], kind: type) -> pl.Series:
    """Return a Series of *values*, which are all of *kind* or None, without changing one.

    Raises:
        ValueError: Polars cannot hold a value: a time with a zone, a Decimal that is not a number.
    """
    dtype: Any = _CONVERTED[kind]
    given = [value for value in values if value is not None]
    if kind in (dt.datetime, dt.time) and any(value.tzinfo is not None for value in given):
        if kind is dt.time or any(value.tzinfo is None for value in given):
            raise ValueError("time zones")
        naive = [value and value.astimezone(dt.UTC).replace(tzinfo=None) for value in values]
        return pl.Series("", naive, dtype=dtype, strict=True).dt.replace_time_zone("UTC").alias(name)
    if kind is Decimal:
        dtype = pl.Decimal(38, max(0, *(-int(value.as_tuple().exponent) for value in given)))
    return pl.Series(name, values, dtype=dtype, strict=True)


def _mixed_types_reason(kinds: set[str]) -> str:
    return f"mixes {' and '.join(sorted(kinds))} values"


def _kind(values: Sequence[Any]) -> type:
    """Return the type of the first of *values* that is not None, or the type of None."""
    return next((type(value) for value in values if value is not None), type(None))


def _are_floats(values: Sequence[Any]) -> bool:
    return set(map(type, values)) <= {float, type(None)}


def _fetch_slices(cursor: Cursor, columns: list[_Column], canceller: Canceller, sql: str) -> Iterator[int]:
    """Fetch the rows into *columns*. Yield their number whenever the columns have packed them."""
    pacer, height = _SlicePacer(), 0
    for number, count in enumerate(pacer.counts(), 1):
        canceller.check(sql)
        with _converter_errors(sql):
            rows = cursor.fetchmany(count)
        if rows:
            for column, values in zip(columns, zip(*rows, strict=True), strict=True):
                column.add(values)
            height += len(rows)
        if number % _SLICES == 0 or not rows:
            for column in columns:
                column.pack(pacer)
            yield height
            height = 0
        if not rows:
            return
        del rows, values  # else the garbage collector finds twice as many


class _SlicePacer(GilReleaser):
    """Choose the number of rows in each slice, so that the hub runs often enough. One worker uses it."""

    def counts(self) -> Iterator[int]:
        """Yield the number of rows of each slice."""
        count = _FIRST_ROWS
        while True:
            begun = perf_counter()
            yield count
            seconds = max(perf_counter() - begun, 1e-9)
            count = max(1, min(_MAX_ROWS, 2 * count, int(count * BUDGET / seconds)))
            self.release_if_due()


def ingest(connection: Connection, canceller: Canceller, frame: pl.DataFrame, rows: pl.DataFrame, table: Table) -> int:
    """Write *rows*, which are *frame* in SQLite's types. On failure the transaction contains none of them.

    Returns the number of rows that the table accepted: a trigger or a constraint of the table may leave some out.

    Raises:
        QueryFailed: SQLite rejects the rows.
        WriteRefused: SQLite would change a value.
    """
    what = table.task
    into = ".".join(quoted(name) for name in (table.schema, table.name) if name is not None)
    with (
        _sqlite_errors(what),
        _savepoint(connection),
        closing(connection.cursor()) as cursor,
        canceller.running(connection.interrupt, what),
    ):
        cursor.row_factory = None
        if table.if_exists == "replace":
            cursor.execute(f"DROP TABLE IF EXISTS {into}")
        columns = (f"{quoted(name)} {_TYPES.get(type(dtype), 'INTEGER')}" for name, dtype in rows.schema.items())
        declared, is_view = _table_columns(cursor, table) if table.if_exists == "append" else ({}, False)
        if not declared:  # SQLite creates a table in the main database, but inserts into one of any
            cursor.execute(f"CREATE TABLE {into} ({', '.join(columns)})")
        else:
            rows = frame_of([_for_column(rows[name], frame[name], declared, table) for name in frame.columns])
        number = _insert(cursor, canceller, rows, into, what)
        canceller.check(what)
        return rows.height if is_view else number  # SQLite does not count the rows that triggers of a view insert


def _insert(cursor: Cursor, canceller: Canceller, rows: pl.DataFrame, into: str, what: str) -> int:
    names, marks = ", ".join(map(quoted, rows.columns)), ", ".join("?" * rows.width)
    insert, start, number = f"INSERT INTO {into} ({names}) VALUES ({marks})", 0, 0
    for most in _SlicePacer().counts():
        canceller.check(what)
        if not cursor.connection.in_transaction:  # each row would be committed separately
            raise QueryFailed(what, "the transaction was ended by another user of the connection", None)
        count = most
        while count > 1 and not is_small(rows, start, count):  # the rows before were quick, these may be far larger
            count //= 2
        cursor.executemany(insert, rows.slice(start, count).rows())
        number += max(cursor.rowcount, 0)  # -1 without rows
        start += count
        if start >= rows.height:
            break
    return number


def _table_columns(cursor: Cursor, table: Table) -> tuple[dict[str, str], bool]:
    """Return the declared types of the table's columns, by their names in lower case, and whether it is a view.

    The names are read as bytes, so the ``text_factory`` of the connection has no effect. The bytes are in the encoding
    of the database.
    """
    query = "SELECT CAST(name AS BLOB), CAST(type AS BLOB), CAST('a' AS BLOB) FROM pragma_table_xinfo(?, ?)"
    described = cursor.execute(query, (table.name, table.schema)).fetchall()
    found = {
        ascii_lower(name.decode(_ENCODINGS[letter])): kind.decode(_ENCODINGS[letter])
        for name, kind, letter in described
    }
    if not found or library().sqlite_version_info < _STRICT_SINCE:
        return found, False
    query = """
        SELECT type = 'view', strict FROM pragma_table_list
        WHERE lower(name) = lower(?) AND lower(schema) = lower(coalesce(?, schema))
        ORDER BY schema <> 'temp', schema <> 'main'
    """
    is_view, is_strict = cursor.execute(query, (table.name, table.schema)).fetchone() or (0, 0)
    if is_strict:  # ANY in a strict table has no affinity
        found = {name: "" if kind.upper() == "ANY" else kind for name, kind in found.items()}
    return found, bool(is_view)


def _for_column(values: pl.Series, given: pl.Series, declared: Mapping[str, str], table: Table) -> pl.Series:
    """Return *values*, which are *given* in SQLite's types, so that the column stores them unchanged.

    SQLite converts a value to the affinity of its column (sqlite.org/datatype3.html, "Type affinity"): text that looks
    like a number becomes one, numbers become text of 15 digits, and integers in a REAL column are rounded.

    Raises:
        WriteRefused: the column would change a value.
    """
    name, values = values.name, values.alias("")  # methods of Series interpret a name as a pattern
    affinity = _affinity(declared.get(ascii_lower(name), ""))
    dtype = values.dtype
    if affinity == "TEXT" and dtype in (pl.Float32, pl.Float64):
        return values.cast(pl.Float64).cast(pl.String).alias(name)  # all digits
    if affinity == "REAL" and dtype.is_integer():
        try:
            cast_exact(values, pl.Float64())
        except ColumnUnreadable as error:
            raise WriteRefused(table.name, name, "holds integers that the table's REAL would round") from error
    if affinity in ("REAL", "NUMERIC") and dtype == pl.String:
        is_number = values.str.contains(_LOOKS_NUMERIC)
        kept = fits_float(given.alias("")) if isinstance(given.dtype, pl.Decimal) else _same_as_number(values, affinity)
        if (is_number & ~kept).any():
            reason = f"holds text that the table's {affinity} would make another number, or another text"
            raise WriteRefused(table.name, name, reason)
    return values.alias(name)


def _same_as_number(text: pl.Series, affinity: str) -> pl.Series:
    """Return True where SQLite converts *text* to a number that is written the same way."""
    number = text.cast(pl.Float64, strict=False)
    is_float = ((number.cast(pl.String) == text) & (number != number.floor())).fill_null(value=False)
    return is_float | text.str.contains(_WHOLE) if affinity == "NUMERIC" else is_float


def _affinity(declared: str) -> str:
    """Return the affinity TEXT, REAL, BLOB or NUMERIC by SQLite's rules. INTEGER stores values as NUMERIC does."""
    words = declared.upper()
    if "INT" in words:
        return "NUMERIC"
    if any(word in words for word in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if not words or "BLOB" in words:
        return "BLOB"
    return "REAL" if any(word in words for word in ("REAL", "FLOA", "DOUB")) else "NUMERIC"


@contextmanager
def _savepoint(connection: Connection) -> Iterator[None]:
    """Undo the changes of the block if it fails, and leave the enclosing transaction as it was.

    If SQLite or another user of the connection has rolled back, the savepoint is gone together with all earlier
    changes. Changes that the block made after that are rolled back with their transaction.
    """
    _execute(connection, f"SAVEPOINT {_SAVEPOINT}")
    try:
        yield
        _execute(connection, f"RELEASE SAVEPOINT {_SAVEPOINT}")
    except BaseException:
        try:
            _execute(connection, f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")
            _execute(connection, f"RELEASE SAVEPOINT {_SAVEPOINT}")
        except QueryFailed:  # the first error says why
            with suppress(QueryFailed):
                _execute(connection, "ROLLBACK")
        raise


def _execute(connection: Connection, sql: str) -> None:
    with _sqlite_errors(sql), closing(connection.cursor()) as cursor:
        cursor.execute(sql)


def _autocommits(connection: Any) -> bool:
    return connection.isolation_level is None if _is_legacy(connection) else bool(connection.autocommit)


def _is_legacy(connection: Any) -> bool:
    """Return True if `sqlite3` begins transactions implicitly: unless ``autocommit`` (Python 3.12) is set."""
    found = library()
    return not hasattr(connection, "autocommit") or connection.autocommit == found.LEGACY_TRANSACTION_CONTROL


@contextmanager
def _sqlite_errors(sql: str, names: Callable[[], Sequence[str]] = tuple) -> Iterator[None]:
    """Turn an error of `sqlite3` in the block into `QueryFailed` or `ColumnUnreadable`. *names* gets the columns."""
    found = library()
    try:
        yield
    except (found.Error, found.Warning) as error:
        text = str(error)
        if shown := _NOT_UTF8.match(text):
            name = next((name for name in names() if _as_sqlite3_shows(name).startswith(shown[1])), shown[1])
            raise ColumnUnreadable(name, "holds text that is not UTF-8") from error
        raise QueryFailed(sql, reason_of(error), None) from error


@contextmanager
def _column_name_errors(sql: str) -> Iterator[None]:
    """Raise `QueryFailed` for a column whose name is not UTF-8."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise QueryFailed(sql, "the name of a column is not UTF-8", None) from error


@contextmanager
def _converter_errors(sql: str) -> Iterator[None]:
    """Raise `QueryFailed` if a converter or the ``text_factory`` of the connection raises in the block."""
    found = library()
    try:
        yield
    except (found.Error, found.Warning, MemoryError):
        raise
    except Exception as error:
        reason = f"a converter or text_factory of the connection raised {type(error).__name__}: {error}"
        raise QueryFailed(sql, reason, None) from error


def reason_of(error: BaseException) -> str:
    """Return the message of *error*, which comes from `sqlite3` or from SQLAlchemy around it."""
    text = str(getattr(error, "orig", None) or error)
    if "can only be used in that same thread" in text:
        return (
            "only its own thread may use the connection; make it with sqlite3.connect(..., check_same_thread=False), "
            "or pass the path of the file"
        )
    return text


def _as_sqlite3_shows(name: str) -> str:
    """Return *name* as `sqlite3` shows it in its messages."""
    return name.encode().decode("ascii", errors="replace")


def library() -> Any:
    """Return the module `sqlite3`, imported at its first use. Safe from any thread."""
    return import_module("sqlite3")
