"""SQLite through Python's own `sqlite3`, the library that the rest of the process uses on the same files.

A second SQLite in the process, such as the one in ADBC's driver, would destroy them: locks of POSIX belong to the
process, so neither library sees the other's, and a file that one closes drops the locks of both
(sqlite.org/howtocorrupt.html, "Multiple copies of SQLite linked into the same application").

`sqlite3` makes Python objects, which holds the GIL. Rows come and go in slices, and the hub has its turn between them.
All of it is called on workers.
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
from greendata.hub.pacing import BUDGET, give_way
from greendata.schema.column_names import frame_of
from greendata.sql.canceller import Canceller
from greendata.sql.sql_types import ascii_lower, check_names, exact, fits_float

if TYPE_CHECKING:
    from sqlite3 import Connection, Cursor

__all__ = ("MEMORY", "connect", "ingest", "is_connection", "library", "reason_of", "rows_of", "transaction")

MEMORY = ":memory:"  # the path of a database that nobody else sees, and that ends with its connection

_PATIENCE = 5.0  # seconds that a writer waits for another: what sqlite3 itself does
_FIRST = 64  # rows in the first slice
_MOST = 500  # rows in a slice: with 700 tuples at once the garbage collector begins, 30 ms of silence in a full one
_FEW = 1_000  # values of a converter that become a part at once: 16 000 Decimals take 12 ms, and hold the GIL
_TOGETHER = 32  # slices whose values become columns at once: with 4 a seventh more time goes into making parts of them
_INFERRED = 10_000  # rows that decide on the types of a stream's columns, at least
_STRICT_SINCE = (3, 37)  # the version of SQLite
_SAVEPOINT = "greendata_write"
_KINDS = {
    int: pl.Int64(),
    float: pl.Float64(),
    str: pl.String(),
    bytes: pl.Binary(),
    type(None): pl.Null(),
}  # what sqlite3 hands out
_CONVERTED = {
    bool: pl.Boolean(),
    dt.date: pl.Date(),
    dt.datetime: pl.Datetime("us"),
    dt.time: pl.Time(),
    dt.timedelta: pl.Duration("us"),
    Decimal: pl.Decimal(38, 0),
}  # what the converters of a connection may make of it, besides that
_NAMES = {type(dtype): kind.__name__ for kind, dtype in (*_KINDS.items(), *_CONVERTED.items())}
_NOT_UTF8 = re.compile(r"(?s)Could not decode to UTF-8 column '(.*?)(?:' with text '|$)")  # sqlite3's words, 200 bytes
_TYPES = {pl.Float32: "REAL", pl.Float64: "REAL", pl.String: "TEXT", pl.Binary: "BLOB"}  # else INTEGER
_LOOKS_NUMERIC = r"^\s*[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$"
_WHOLE = r"^(0|-?[1-9][0-9]{0,17})$"  # text that becomes an integer of the same digits


def is_connection(given: object) -> bool:
    """True for a connection of `sqlite3`. Safe from any thread."""
    return isinstance(given, library().Connection)


def connect(path: str, *, may_create: bool) -> Connection:
    """A connection to the file at *path*, or to a new database in memory.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    mode = "rwc" if may_create else "rw"
    uri = "file::memory:" if path == MEMORY else f"file:{quote(str(Path(path).absolute()))}?mode={mode}"
    made: Connection = library().connect(
        uri, uri=True, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
    )
    return made


@contextmanager
def transaction(connection: Connection, *, writes: bool, is_ours: bool) -> Iterator[None]:
    """What the block does is one transaction if *is_ours*, or if the connection commits by itself.

    In the caller's transaction nothing is committed. Where the caller has begun none yet, a write begins it: with
    IMMEDIATE, since only then SQLite waits for another writer instead of giving up at once. A connection of ours that
    an engine of SQLAlchemy has made with ``autocommit=False`` is always in one.

    Raises:
        QueryFailed: the database refuses the beginning or the commit.
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
        with suppress(QueryFailed):  # SQLite has rolled back by itself; what went wrong before says why
            _end(connection, "ROLLBACK", has_begun)
        raise


def _end(connection: Connection, verb: str, is_implicit: bool) -> None:  # noqa: FBT001
    """Execute *verb*; where `sqlite3` has begun the transaction, it is to know of the end, since it begins another."""
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
    """What *sql* returns: frames of at least *batch_rows* rows, but for the last, or one of all.

    Raises:
        QueryFailed: SQLite refuses the statement, or fails in it.
        ColumnUnreadable: a column's values are not of one type, or no Unicode.
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
        for count in _slices(cursor, columns, canceller, sql):
            height += count
            if wanted is not None and height >= wanted:
                yield frame_of([column.taken() for column in columns])
                height, is_first, wanted = 0, False, batch_rows
        if height or is_first:
            yield frame_of([column.taken() for column in columns])


class _Column:
    """One column of a result, in parts as they come. One worker at a time."""

    def __init__(self, name: str, override: Any) -> None:
        self._name = name
        self._override = override
        self._dtype: Any = override
        self._values: list[Any] = []  # of the last slices: a Series of a few costs as much as one of thousands
        self._parts: list[pl.Series] = []

    def add(self, values: Iterable[Any]) -> None:
        """Take the values of a slice."""
        self._values.extend(values)

    def pack(self, pace: _SlicePacer) -> None:
        """Make parts of the values of the last slices."""
        values, self._values = self._values, []
        size = max(1, len(values) if _kind(values) in _KINDS else _FEW)
        for start in range(0, len(values), size):
            part = self._part(values[start : start + size])
            if self._parts and self._parts[-1].dtype == part.dtype:
                self._parts[-1].append(part)  # one object for all: thousands would wake the garbage collector
            else:
                self._parts.append(part)
            pace.rest()

    def _part(self, values: Sequence[Any]) -> pl.Series:
        kind = _kind(values)
        dtype = _KINDS.get(kind)
        if dtype is None:
            return self._converted(values)
        if kind is float and not _are_floats(values):  # an integer among them would be taken without a word
            return self._mixed(values)
        try:
            return pl.Series(self._name, values, dtype=dtype, strict=True)
        except TypeError:  # they are of several types
            return self._mixed(values)
        except UnicodeEncodeError as error:  # of a text_factory
            raise ColumnUnreadable(self._name, "holds text that is no UTF-8") from error

    def _converted(self, values: Sequence[Any]) -> pl.Series:
        """Of what a converter of the connection has made."""
        kinds = {type(value) for value in values} - {type(None)}
        if unknown := kinds - _CONVERTED.keys() - _KINDS.keys():
            name = min(kind.__name__ for kind in unknown)
            reason = f"holds a {name}, which the connection makes of its values"
            raise ColumnUnreadable(self._name, reason, "read what is stored: +column has no type to convert by")
        if len(kinds) > 1:
            raise ColumnUnreadable(self._name, _mixed_types_reason({kind.__name__ for kind in kinds}))
        try:
            return _made(self._name, values, *kinds)
        except (TypeError, ValueError, OverflowError, RuntimeError, PolarsError, PanicException) as error:
            raise ColumnUnreadable(self._name, f"holds a {kinds.pop().__name__} that Polars has no form for") from error

    def taken(self) -> pl.Series:
        """The values since the last time, in the type of all."""
        parts, self._parts = self._parts, []
        if self._dtype is None:
            self._dtype = self._common({part.dtype for part in parts})
        runs = [exact(part.rechunk(), self._dtype) for part in parts]
        if len(runs) == 1:
            return runs[0]
        return pl.concat([pl.Series(self._name, [], dtype=self._dtype), *runs], rechunk=True)

    def _mixed(self, values: Sequence[Any]) -> pl.Series:
        kinds = {type(value) for value in values} - {type(None)}
        if kinds == {int, float} and self._override not in (pl.String, pl.Decimal):
            if all(float(value) == value for value in values if type(value) is int):
                return pl.Series(self._name, values, dtype=pl.Float64, strict=False)
            raise ColumnUnreadable(self._name, "holds floats, and integers that no float is equal to")
        if self._override is None or self._override == pl.Binary or not kinds <= {int, float, str}:
            raise ColumnUnreadable(self._name, _mixed_types_reason({kind.__name__ for kind in kinds}))
        return pl.Series(self._name, [None if value is None else str(value) for value in values], dtype=pl.String)

    def _common(self, dtypes: Iterable[Any]) -> Any:
        found = {dtype for dtype in dtypes if dtype != pl.Null}
        if len(found) <= 1:
            return next(iter(found), pl.Int64())  # a column without values
        if found == {pl.Int64(), pl.Float64()}:
            return pl.Float64()
        if all(isinstance(dtype, pl.Decimal) for dtype in found):
            return pl.Decimal(38, max(dtype.scale for dtype in found))
        raise ColumnUnreadable(self._name, _mixed_types_reason({_NAMES[type(dtype)] for dtype in found}))


def _made(name: str, values: Sequence[Any], kind: type) -> pl.Series:
    """The series of *values*, all of *kind* or None, each as it is.

    Raises:
        ValueError: Polars has no form for one: a time with a zone, a Decimal that is no number.
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
    return f"holds {' and '.join(sorted(kinds))} beside each other"


def _kind(values: Sequence[Any]) -> type:
    """The type of the first of *values* that is not None, or else None's."""
    return next((type(value) for value in values if value is not None), type(None))


def _are_floats(values: Sequence[Any]) -> bool:
    return set(map(type, values)) <= {float, type(None)}


def _slices(cursor: Cursor, columns: list[_Column], canceller: Canceller, sql: str) -> Iterator[int]:
    """The rows, given to *columns*; how many each time."""
    pace, height = _SlicePacer(), 0
    for number, count in enumerate(pace.counts(), 1):
        canceller.check(sql)
        with _converter_errors(sql):
            rows = cursor.fetchmany(count)
        if rows:
            for column, values in zip(columns, zip(*rows, strict=True), strict=True):
                column.add(values)
            height += len(rows)
        if number % _TOGETHER == 0 or not rows:
            for column in columns:
                column.pack(pace)
            yield height
            height = 0
        if not rows:
            return
        del rows, values  # else the collector finds twice as many


class _SlicePacer:
    """How many rows a slice is to have, so that the hub has its turn between them. One worker uses it."""

    def __init__(self) -> None:
        self._rested = perf_counter()

    def rest(self) -> None:
        """Give way, if it is time to."""
        if perf_counter() - self._rested >= BUDGET:
            give_way()
            self._rested = perf_counter()

    def counts(self) -> Iterator[int]:
        """For each slice, the number of its rows."""
        count = _FIRST
        while True:
            begun = perf_counter()
            yield count
            seconds = max(perf_counter() - begun, 1e-9)
            count = max(1, min(_MOST, 2 * count, int(count * BUDGET / seconds)))
            self.rest()


def ingest(
    connection: Connection,
    canceller: Canceller,
    frame: pl.DataFrame,
    rows: pl.DataFrame,
    table: str,
    schema: str | None,
    if_exists: str,
) -> int:
    """Write *frame*, which is *rows* in SQLite's types; on failure nothing of it is in the transaction.

    Returns the number of rows that the table took: a trigger or a constraint of the table's may leave some out.

    Raises:
        QueryFailed: SQLite refuses it.
        WriteRefused: SQLite would change a value.
    """
    what, into = f"write to {table}", _quoted(table) if schema is None else f"{_quoted(schema)}.{_quoted(table)}"
    with (
        _sqlite_errors(what),
        _savepoint(connection),
        closing(connection.cursor()) as cursor,
        canceller.running(connection.interrupt, what),
    ):
        cursor.row_factory = None
        if if_exists == "replace":
            cursor.execute(f"DROP TABLE IF EXISTS {into}")
        columns = (f"{_quoted(name)} {_TYPES.get(type(dtype), 'INTEGER')}" for name, dtype in rows.schema.items())
        declared, is_view = _table_columns(cursor, table, schema) if if_exists == "append" else ({}, False)
        if not declared:  # SQLite would look for one to make in its main database, and for one to fill in all
            cursor.execute(f"CREATE TABLE {into} ({', '.join(columns)})")
        else:
            rows = frame_of([_for_column(rows[name], frame[name], declared, table) for name in frame.columns])
        number = _insert(cursor, canceller, rows, into, what)
        canceller.check(what)
        return rows.height if is_view else number  # what triggers of a view insert is not counted


def _insert(cursor: Cursor, canceller: Canceller, rows: pl.DataFrame, into: str, what: str) -> int:
    names, marks = ", ".join(map(_quoted, rows.columns)), ", ".join("?" * rows.width)
    insert, start, number = f"INSERT INTO {into} ({names}) VALUES ({marks})", 0, 0
    for count in _SlicePacer().counts():
        canceller.check(what)
        if not cursor.connection.in_transaction:  # each row would be committed by itself
            raise QueryFailed(what, "the transaction was ended by another user of the connection", None)
        cursor.executemany(insert, rows.slice(start, count).rows())
        number += max(cursor.rowcount, 0)  # it is -1 without rows
        start += count
        if start >= rows.height:
            break
    return number


def _table_columns(cursor: Cursor, table: str, schema: str | None) -> tuple[dict[str, str], bool]:
    """The types of the table's columns as they were written, by their names in lower case, and whether it is a view.

    SQLite knows no other letters by their case. What the ``text_factory`` of the connection does is not to be seen.
    """
    query = "SELECT CAST(name AS BLOB), CAST(type AS BLOB) FROM pragma_table_xinfo(?, ?)"
    described = cursor.execute(query, (table, schema)).fetchall()
    found = {ascii_lower(name.decode()): kind.decode() for name, kind in described}
    if not found or library().sqlite_version_info < _STRICT_SINCE:
        return found, False
    query = """
        SELECT type = 'view', strict FROM pragma_table_list
        WHERE lower(name) = lower(?) AND lower(schema) = lower(coalesce(?, schema))
        ORDER BY schema <> 'temp', schema <> 'main'
    """
    is_view, is_strict = cursor.execute(query, (table, schema)).fetchone() or (0, 0)
    if is_strict:  # its ANY prefers no type
        found = {name: "" if kind.upper() == "ANY" else kind for name, kind in found.items()}
    return found, bool(is_view)


def _for_column(values: pl.Series, given: pl.Series, declared: Mapping[str, str], table: str) -> pl.Series:
    """*values*, which are *given* in SQLite's types, as a column takes them without changing any.

    SQLite converts what it stores to the type that the column prefers (sqlite.org/datatype3.html, "Type affinity"):
    text that looks like a number becomes one, numbers become text of 15 digits, integers in a REAL column are rounded.
    """
    name, values = values.name, values.alias("")  # methods of Series take a name for a pattern
    affinity = _affinity(declared.get(ascii_lower(name), ""))
    dtype = values.dtype
    if affinity == "TEXT" and dtype in (pl.Float32, pl.Float64):
        return values.cast(pl.Float64).cast(pl.String).alias(name)  # all digits
    if affinity == "REAL" and dtype.is_integer():
        try:
            exact(values, pl.Float64())
        except ColumnUnreadable as error:
            raise WriteRefused(table, name, "holds integers that the table's REAL would round") from error
    if affinity in ("REAL", "NUMERIC") and dtype == pl.String:
        is_number = values.str.contains(_LOOKS_NUMERIC)
        kept = fits_float(given.alias("")) if isinstance(given.dtype, pl.Decimal) else _same_as_number(values, affinity)
        if (is_number & ~kept).any():
            reason = f"holds text that the table's {affinity} would make another number, or another text"
            raise WriteRefused(table, name, reason)
    return values.alias(name)


def _same_as_number(text: pl.Series, affinity: str) -> pl.Series:
    """True where *text* is how the number is written that SQLite makes of it."""
    number = text.cast(pl.Float64, strict=False)
    is_float = ((number.cast(pl.String) == text) & (number != number.floor())).fill_null(value=False)
    return is_float | text.str.contains(_WHOLE) if affinity == "NUMERIC" else is_float


def _affinity(declared: str) -> str:
    """TEXT, REAL, BLOB or NUMERIC, by the rules of SQLite; its INTEGER treats what is stored as NUMERIC does."""
    words = declared.upper()
    if "INT" in words:
        return "NUMERIC"
    if any(word in words for word in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if not words or "BLOB" in words:
        return "BLOB"
    return "REAL" if any(word in words for word in ("REAL", "FLOA", "DOUB")) else "NUMERIC"


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


@contextmanager
def _savepoint(connection: Connection) -> Iterator[None]:
    """Take back what the block did if it fails, and leave the transaction around it as it was.

    Where the savepoint is gone, since SQLite or another user of the connection has rolled back, so is what was done
    before; what the block did after that is taken back with the transaction that it is in.
    """
    _execute(connection, f"SAVEPOINT {_SAVEPOINT}")
    try:
        yield
        _execute(connection, f"RELEASE SAVEPOINT {_SAVEPOINT}")
    except BaseException:
        try:
            _execute(connection, f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")
            _execute(connection, f"RELEASE SAVEPOINT {_SAVEPOINT}")
        except QueryFailed:  # what went wrong before says why
            with suppress(QueryFailed):
                _execute(connection, "ROLLBACK")
        raise


def _execute(connection: Connection, sql: str) -> None:
    with _sqlite_errors(sql), closing(connection.cursor()) as cursor:
        cursor.execute(sql)


def _autocommits(connection: Any) -> bool:
    return connection.isolation_level is None if _is_legacy(connection) else bool(connection.autocommit)


def _is_legacy(connection: Any) -> bool:
    """True if `sqlite3` begins transactions by itself, as it does unless ``autocommit`` (Python 3.12) is set."""
    found = library()
    return not hasattr(connection, "autocommit") or connection.autocommit == found.LEGACY_TRANSACTION_CONTROL


@contextmanager
def _sqlite_errors(sql: str, names: Callable[[], Sequence[str]] = tuple) -> Iterator[None]:
    """Raise `QueryFailed` or `ColumnUnreadable` for what `sqlite3` raises in the block; *names* are the columns'."""
    found = library()
    try:
        yield
    except (found.Error, found.Warning) as error:
        text = str(error)
        if told := _NOT_UTF8.match(text):
            name = next((name for name in names() if _as_sqlite3_shows(name).startswith(told[1])), told[1])
            raise ColumnUnreadable(name, "holds text that is no UTF-8") from error
        raise QueryFailed(sql, reason_of(error), None) from error


@contextmanager
def _column_name_errors(sql: str) -> Iterator[None]:
    """Raise `QueryFailed` for a name of a column that is no UTF-8."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise QueryFailed(sql, "the name of a column is no UTF-8", None) from error


@contextmanager
def _converter_errors(sql: str) -> Iterator[None]:
    """Raise `QueryFailed` for what the converters or the ``text_factory`` of a connection raise in the block."""
    found = library()
    try:
        yield
    except (found.Error, found.Warning, MemoryError):
        raise
    except Exception as error:
        reason = f"what the connection makes of its values raised {type(error).__name__}: {error}"
        raise QueryFailed(sql, reason, None) from error


def reason_of(error: BaseException) -> str:
    """What *error*, of `sqlite3` or of SQLAlchemy around it, says."""
    text = str(getattr(error, "orig", None) or error)
    if "can only be used in that same thread" in text:
        return "the connection is its thread's own; make it with sqlite3.connect(..., check_same_thread=False)"
    return text


def _as_sqlite3_shows(name: str) -> str:
    """*name* as `sqlite3` has it in its messages."""
    return name.encode().decode("ascii", errors="replace")


def library() -> Any:
    """The module `sqlite3`, imported at its first use. Safe from any thread."""
    return import_module("sqlite3")
