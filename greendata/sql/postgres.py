"""Read rows from PostgreSQL as frames, and write frames to its tables, with the ADBC driver.

The driver encodes and decodes values by their Arrow type alone. It returns types that Arrow lacks as bytes, as numbers
in another unit, or flattened, and it does not look at the types of a table's columns. So this module checks types:
those of a statement before it is executed, and those of a table before rows are copied into it.

It uses the statements of the driver manager instead of its DB-API layer, which takes locks of `threading`, handles
signals and needs pyarrow. Call these functions on workers.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import polars as pl

from greendata.errors import BadArgument, ColumnUnreadable, QueryFailed, WriteRefused
from greendata.errors.plural import counted
from greendata.hub.contexts import contextmanager
from greendata.schema.column_names import frame_of
from greendata.sql.arrow_c_stream import ArrowReader, Field, fields_of
from greendata.sql.canceller import Canceller
from greendata.sql.sql_types import POSTGRES, cast_exact, check_date_range, check_names, parameters
from greendata.sql.table import Table, quoted
from greendata.sql.tokenizer import Statement

__all__ = ("check_encoding", "ingest", "rows_of")

# The size of a batch of a stream. A whole frame is read in the driver's 16 MB, since each batch takes the GIL:
# 300 000 rows delay a 1 ms tick by 2.6 ms (p99) in batches of 16 MB, and by 4.4 ms in batches of 1 MB.
_BATCH_BYTES = 1_000_000
_PLAIN = {
    "bool": "b",
    "int2": "s",
    "int4": "i",
    "int8": "l",
    "float4": "f",
    "float8": "g",
    "bytea": "z",
    "date": "tdD",
    "time": "ttu",
    "timestamp": "tsu:",
    "timestamptz": "tsu:UTC",
}  # PostgreSQL's types whose Arrow type holds the same values, besides those that arrive as text
_ROWS = ("SELECT", "VALUES", "TABLE", "WITH", "(")  # statements that are allowed in FROM
_CHANGES = ("INSERT", "UPDATE", "DELETE")  # statements that are allowed in WITH
_MODES = {"fail": "create", "append": "create_append", "replace": "replace"}  # ADBC's names
_NUMBERS = {
    "int2": pl.Int16(),
    "int4": pl.Int32(),
    "int8": pl.Int64(),
    "float4": pl.Float32(),
    "float8": pl.Float64(),
}
_SAME = {"bool": pl.Boolean, "bytea": pl.Binary, "date": pl.Date, "time": pl.Time, "interval": pl.Duration}
_TEXTS = ("text", "varchar", "json")  # types that the driver can copy text into
_TIMES = ("timestamp", "timestamptz")
# Base types, enums, ranges, multiranges and composite types: PostgreSQL converts their text, as it does for psql.
_TEXT_INPUT_TYPTYPES = "bermc"
_GEOMETRIC = ("point", "lseg", "path", "box", "polygon", "circle", "line")
_LOSSY = frozenset(("name", "char", "money", "timetz", "oid", "xid", "xid8", "cid", *_GEOMETRIC))
# Types whose input rounds, truncates, wraps around or uses the time zone of the session.
_EXACT_RANGES = frozenset(("int4range", "int8range", "numrange", "int4multirange", "int8multirange", "nummultirange"))
# The bounds of all other ranges are rounded or truncated as their types are: a daterange drops the time of day.
_TYPES = """
    WITH RECURSIVE base (name, type, modifier) AS (
        SELECT a.attname::text, a.atttypid, a.atttypmod FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = {0} AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        SELECT base.name, d.typbasetype, d.typtypmod FROM base
        JOIN pg_catalog.pg_type d ON d.oid = base.type AND d.typtype = 'd'
    )
    SELECT base.name, b.typname::text, b.typtype::text, coalesce(e.typtype::text, '') AS inner_typtype, base.modifier,
           format_type(b.oid, base.modifier) AS shown, quote_ident(n.nspname) || '.' || quote_ident(b.typname) AS bare
    FROM base
    JOIN pg_catalog.pg_type b ON b.oid = base.type AND b.typtype <> 'd'
    JOIN pg_catalog.pg_namespace n ON n.oid = b.typnamespace
    LEFT JOIN pg_catalog.pg_type e ON e.oid = b.typelem AND b.typcategory = 'A'
"""  # a domain is resolved to its base type, also through domains of domains
_TABLE = """
    SELECT nspname::text, relkind = 'v' OR EXISTS (
        SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal AND tgtype & 7 = 7
    ) OR EXISTS (
        SELECT FROM pg_catalog.pg_rewrite WHERE ev_class = c.oid AND ev_type = '3'
    ) AS is_staged, relkind IN ('r', 'p') AS is_table
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = relnamespace
    WHERE c.oid = to_regclass({0})
"""  # a view does not accept COPY, which ignores rules, and does not say how many rows a BEFORE INSERT trigger left out


def rows_of(
    connection: Any,
    canceller: Canceller,
    sql: str,
    params: Sequence[Any] | Mapping[str, Any] | None,
    overrides: Mapping[str, Any],
    batch_rows: int | None,
) -> Iterator[pl.DataFrame]:
    """Yield the result of *sql*: an empty frame with the types, then the frames as the driver returns them.

    Raises:
        QueryFailed: PostgreSQL rejects the statement, or fails while it executes.
        ColumnUnreadable: a column has values that Polars cannot hold.
        BadArgument: an override names a column that does not exist.
    """
    given = Statement(sql)
    if not given.verb:
        raise QueryFailed(sql, "it contains no statement", None)
    query, bound = _bind_params(given, params)
    fields = _describe(connection, canceller, query, bound, sql)
    names = check_names([field.name for field in fields])
    if unknown := sorted(overrides.keys() - set(names)):
        raise BadArgument("schema_overrides", unknown, f"of the columns {', '.join(names)}")
    dimension_checks = {field.name: f"{field.name} {secrets.token_hex(8)}" for field in fields if field.inner}
    if dimension_checks or not all(map(_is_plain, fields)):
        query = _query_as_text(given.verb, query, fields, dimension_checks)
        try:
            _describe(connection, canceller, query, bound, sql)
        except QueryFailed as error:
            raise _unreadable(next(field for field in fields if field.inner or not _is_plain(field))) from error
    with _statement(connection, canceller, sql) as statement:
        options = {"adbc.postgresql.use_copy": "true" if given.verb in (*_ROWS, *_CHANGES) else "false"}
        if batch_rows is not None:
            options["adbc.postgresql.batch_size_hint_bytes"] = str(_BATCH_BYTES)
        statement.set_options(**options)
        _prepare(statement, query, bound)
        stream, _ = statement.execute_query()
        try:
            with ArrowReader(stream) as reader:
                yield _finish_frame(reader.empty(), dimension_checks, overrides)
                for frame in reader.frames():
                    yield _finish_frame(frame, dimension_checks, overrides)
        finally:
            stream.release()


def _describe(connection: Any, canceller: Canceller, query: str, bound: pl.DataFrame | None, sql: str) -> list[Field]:
    """Return the columns that the result of *query* will have."""
    with _statement(connection, canceller, sql) as statement:
        _prepare(statement, query, bound)
        schema = statement.execute_schema()
        try:
            return fields_of(schema.address)
        finally:
            schema.release()


def _prepare(statement: Any, query: str, bound: pl.DataFrame | None) -> None:
    statement.set_sql_query(query)
    if bound is not None:
        statement.prepare()
        statement.bind_stream(bound)


def _bind_params(given: Statement, params: Sequence[Any] | Mapping[str, Any] | None) -> tuple[str, pl.DataFrame | None]:
    """Return the text of the statement and one row with its parameters.

    The statement itself converts values that the driver lacks a type for, or would bind with the wrong type.
    """
    if not params:
        return given.text, None
    if given.parameters != len(params):  # the driver ignores surplus parameters
        supplied = counted(len(params), "parameter")
        reason = f"the call supplies {supplied}, and the statement requires {given.parameters}, as $1, $2, ..."
        raise QueryFailed(given.text, reason, None)
    placeholders = dict(enumerate(map(_parameter, params), 1))
    text = given.with_parameters(lambda number: placeholders.get(number, "{}").format(f"${number}"))
    return text, parameters(params, POSTGRES)


def _parameter(value: Any) -> str:
    """Return the format of the placeholder for a parameter with *value*."""
    if value is None:
        return "NULL"
    if isinstance(value, uuid.UUID):
        return "({}::text::uuid)"
    if isinstance(value, list | tuple):
        if all(item is None for item in value):
            return "'{{" + ",".join(["NULL"] * len(value)) + "}}'"
        if any(isinstance(item, uuid.UUID) for item in value):
            return "({}::text[]::uuid[])"
    return "{}"


def _is_plain(field: Field) -> bool:
    """Return True if the Arrow type holds the same values as the type of PostgreSQL.

    Most types that arrive as text are plain. An empty "char" arrives as a NUL, which no text of PostgreSQL contains.
    """
    return (field.form == "u" and field.kind != "char") or _PLAIN.get(field.kind) == field.form


def _unreadable(field: Field) -> ColumnUnreadable:
    if (field.inner or field).form == "tin":
        return ColumnUnreadable(field.name, "is an interval of time, which Polars cannot hold")
    return ColumnUnreadable(field.name, f"is of PostgreSQL's type {field.kind}, which Polars cannot hold")


def _query_as_text(verb: str, query: str, fields: list[Field], dimension_checks: Mapping[str, str]) -> str:
    """Return *query* with its columns cast to types that Arrow has, and a check of each array's dimensions."""
    chosen = [f"{_cast_expression(field, f'c{number}')} AS {quoted(field.name)}" for number, field in enumerate(fields)]
    for number, field in enumerate(fields):
        if field.name in dimension_checks:
            chosen.append(f"array_ndims(c{number}) > 1 AS {quoted(dimension_checks[field.name])}")
    columns, names = ", ".join(chosen), ", ".join(f"c{number}" for number in range(len(fields)))
    if verb in _ROWS:
        return f"SELECT {columns} FROM ({query}) AS q ({names})"
    if verb in _CHANGES:
        return f"WITH q ({names}) AS ({query}) SELECT {columns} FROM q"
    raise _unreadable(next(field for field in fields if field.inner or not _is_plain(field)))


def _cast_expression(field: Field, column: str) -> str:
    if field.form == "tin" or (field.inner and field.inner.form == "tin"):
        raise _unreadable(field)
    if field.inner is not None:
        return column if _is_plain(field.inner) else f"{column}::text[]"
    if field.kind == "oid":
        return f"{column}::int8"
    return column if _is_plain(field) else f"{column}::text"


def _finish_frame(
    frame: pl.DataFrame, dimension_checks: Mapping[str, str], overrides: Mapping[str, Any]
) -> pl.DataFrame:
    """Return *frame* without the dimension checks, and with its columns cast to the types of *overrides*.

    Raises:
        ColumnUnreadable: a column has values that Polars cannot hold.
    """
    for name, guard in dimension_checks.items():
        if frame[guard].any():
            raise ColumnUnreadable(name, "holds arrays of several dimensions")
    kept = [series for series in frame if series.name not in dimension_checks.values()]
    for series in kept:
        check_date_range(series, POSTGRES)
    return frame_of([cast_exact(s, overrides[s.name]) if s.name in overrides else s for s in kept])


def check_encoding(connection: Any) -> None:
    """Check that *connection* sends and receives text in UTF-8.

    Raises:
        QueryFailed: it has another encoding.
    """
    show = "SHOW client_encoding"
    if (encoding := _fetch_frame(connection, Canceller(), show, show).item()) != "UTF8":
        reason = f"its client_encoding is {encoding}; connect with client_encoding=UTF8"
        raise QueryFailed("a statement on the connection", reason, None)


def ingest(connection: Any, canceller: Canceller, frame: pl.DataFrame, rows: pl.DataFrame, table: Table) -> int:
    """Write *rows* and return the number of rows that the table accepted. A failure aborts the transaction.

    Rows that the driver cannot copy into the table's columns are copied to a temporary table, from which PostgreSQL
    converts them.

    Raises:
        QueryFailed: PostgreSQL rejects the rows.
        WriteRefused: a column of the table would change a value.
    """
    found, is_staged, declared = "", False, dict[str, _ColumnType]()
    if table.if_exists == "append":
        found, is_staged, declared = _table_columns(connection, canceller, table)
    columns = [_for_column(series, declared.get(series.name), table) for series in rows]
    rows = frame_of([column.values for column in columns])
    if is_staged or any(column.is_staged for column in columns):
        into = f"{quoted(found)}.{quoted(table.name)}"
        return _through_staging(connection, canceller, rows, columns, table, into)
    mode = "append" if found else _MODES[table.if_exists]  # "create_append" would need the right to create a table
    options = {"adbc.ingest.target_table": table.name, "adbc.ingest.mode": f"adbc.ingest.mode.{mode}"}
    if in_schema := found or table.schema:
        options["adbc.ingest.target_db_schema"] = in_schema
    _copy(connection, canceller, rows, options, table.task)
    return rows.height


@dataclass(frozen=True, slots=True)
class _ColumnType:
    """The type of a column of the table. For a domain, its base type."""

    kind: str
    typtype: str  # as in pg_type: b for a base type, e for an enum, r for a range, ...
    inner_typtype: str  # the typtype of an array's items, else empty
    modifier: int
    shown: str
    bare: str  # the quoted name without the modifier


@dataclass(frozen=True, slots=True)
class _Column:
    """A column that is to be written to a table."""

    values: pl.Series
    target: _ColumnType | None = None  # the type to cast to, if any column is staged
    is_staged: bool = False
    is_checked: bool = False  # compare as text, since the type's input may round or truncate


def _for_column(series: pl.Series, target: _ColumnType | None, table: Table) -> _Column:
    """Return *series* in the type that the driver needs for a column of type *target*.

    Raises:
        WriteRefused: there is no such type, or a value would change.
    """
    if target is None:
        return _Column(series)
    if series.null_count() == len(series):
        # Every type has null, and text can be cast to every type. But the driver copies no text into a numeric column.
        dtype = pl.Decimal(38, 0) if target.kind == "numeric" else pl.String()
        return _Column(pl.Series(series.name, [None] * len(series), dtype=dtype), target)
    try:
        column = _match_type(series.alias(""), target)
    except ColumnUnreadable as error:
        raise WriteRefused(table.name, series.name, f"{error.reason}, and is {target.shown} in the table") from error
    if column is None:
        reason = f"is {target.shown} in the table and {series.dtype} in the frame; cast it before the write"
        raise WriteRefused(table.name, series.name, reason)
    return replace(column, values=column.values.alias(series.name))


def _match_type(series: pl.Series, target: _ColumnType) -> _Column | None:
    kind, dtype = target.kind, series.dtype
    if kind in _NUMBERS:
        return _Column(cast_exact(series, _NUMBERS[kind])) if dtype.is_numeric() else None
    if kind == "numeric":
        if not dtype.is_numeric():
            return None
        if target.modifier == -1 and isinstance(dtype, pl.Decimal):
            return _Column(series)
        # PostgreSQL rounds floats to numerics of 15 digits. A Float32 has to arrive with all digits of its value.
        digits = series.cast(pl.Float64).cast(pl.String) if dtype.is_float() else series
        return _Column(digits, target, is_staged=True)
    if kind in _SAME:
        return _Column(_check_precision(series, target)) if isinstance(dtype, _SAME[kind]) else None
    if kind in _TIMES:
        is_same = isinstance(dtype, pl.Datetime) and (dtype.time_zone is None) == (kind == "timestamp")
        return _Column(_check_precision(series, target)) if is_same else None
    if isinstance(dtype, pl.List):
        return _match_list_type(series, target)
    if dtype != pl.String or target.typtype not in _TEXT_INPUT_TYPTYPES or target.inner_typtype:
        return None
    if target.modifier == -1 and kind in _TEXTS:
        return _Column(series, target)
    return _Column(series, target, is_staged=True, is_checked=_is_lossy(kind, target.typtype))


def _match_list_type(series: pl.Series, target: _ColumnType) -> _Column | None:
    if not target.inner_typtype:
        return None
    inner, given = target.kind.removeprefix("_"), series.dtype.inner  # type: ignore[attr-defined]
    items = series.explode()
    if items.null_count() == len(items):  # an empty list explodes to null too
        return _Column(series.cast(pl.List(pl.String)), target, is_staged=True)
    if target.modifier == -1:
        if inner in _NUMBERS and given.is_numeric():
            return _Column(cast_exact(series, pl.List(_NUMBERS[inner])), target)
        if (inner in ("text", "varchar") and given == pl.String) or (inner == "bool" and given == pl.Boolean):
            return _Column(series, target)
    if inner == "numeric" and given.is_integer():
        return _Column(series, target, is_staged=True)
    if given != pl.String or inner in (*_NUMBERS, "numeric", *_SAME, *_TIMES):
        return None
    return _Column(series, target, is_staged=True, is_checked=_is_lossy(inner, target.inner_typtype))


def _is_lossy(kind: str, typtype: str) -> bool:
    """Return True if the input of a type may change a value: also that of composite types, and of domains in arrays."""
    return kind in _LOSSY or typtype in "cd" or (typtype in "rm" and kind not in _EXACT_RANGES)


def _check_precision(series: pl.Series, target: _ColumnType) -> pl.Series:
    """Return *series* if its fractions of a second fit the column, which would round finer ones."""
    if target.modifier == -1:
        return series
    if isinstance(series.dtype, pl.Duration):
        raise ColumnUnreadable(series.name, "is a Duration")
    unit = 10 ** (6 - target.modifier) * (1000 if isinstance(series.dtype, pl.Time) else 1)
    if (series.to_physical() % unit != 0).any():
        raise ColumnUnreadable(series.name, "holds finer fractions of a second")
    return series


def _table_columns(connection: Any, canceller: Canceller, table: Table) -> tuple[str, bool, dict[str, _ColumnType]]:
    """Return the table's schema, whether it needs a staging table, and the types of its columns.

    A table that does not exist has an empty schema and no columns. A lock keeps the columns as they are until the
    transaction ends. A name without a schema is looked up as in a statement: first among the temporary tables, then in
    the search path.
    """
    name = f"quote_ident({_literal(table.name)})"
    if table.schema is not None:
        name = f"quote_ident({_literal(table.schema)}) || '.' || {name}"
    found = _fetch_frame(connection, canceller, _TABLE.format(name), table.task)
    if not found.height:
        return "", False, {}
    found_schema, is_staged, is_table = found.row(0)
    if is_table:
        lock = f"LOCK TABLE {quoted(found_schema)}.{quoted(table.name)} IN ROW EXCLUSIVE MODE"
        _fetch_frame(connection, canceller, lock, table.task)
    rows = _fetch_frame(connection, canceller, _TYPES.format(f"to_regclass({name})"), table.task).rows()
    return found_schema, is_staged, {column: _ColumnType(*rest) for column, *rest in rows}


def _through_staging(
    connection: Any, canceller: Canceller, rows: pl.DataFrame, columns: list[_Column], table: Table, into: str
) -> int:
    staging, what = f"greendata_{secrets.token_hex(8)}", table.task
    options = {"adbc.ingest.target_table": staging, "adbc.ingest.temporary": "true"}
    _copy(connection, canceller, rows, options, what)
    source = f"pg_temp.{staging}"
    checks = [(column.values.name, check) for column in columns if (check := _lossy_condition(column))]
    if checks:
        counts = ", ".join(f"count(*) FILTER (WHERE {check}) AS c{n}" for n, (_, check) in enumerate(checks))
        changed = _fetch_frame(connection, canceller, f"SELECT {counts} FROM {source}", what).row(0)
        for (name, _), number in zip(checks, changed, strict=True):
            if number:
                shown = next(c.target.shown for c in columns if c.target and c.values.name == name)
                raise WriteRefused(
                    table.name, name, f"holds {counted(number, 'value')} that {shown} in the table would change"
                )
    names = ", ".join(quoted(column.values.name) for column in columns)
    values = ", ".join(quoted(c.values.name) + (f"::{c.target.bare}" if c.target else "") for c in columns)
    # COPY sets identity columns too.
    insert = f"INSERT INTO {into} ({names}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {source}"
    with _statement(connection, canceller, what) as statement:
        statement.set_sql_query(insert)
        number = int(statement.execute_update())
    _fetch_frame(connection, canceller, f"DROP TABLE {source}", what)
    return number


def _lossy_condition(column: _Column) -> str | None:
    """Return an SQL condition that holds for values that the table's type would change, or None."""
    target, name = column.target, quoted(column.values.name)
    if target is None or not column.is_staged:
        return None
    if column.is_checked:
        return f"{name}::{target.bare}::text{'[]' if target.inner_typtype else ''} IS DISTINCT FROM {name}"
    if target.modifier != -1:
        return f"{name}::{target.bare}::{target.shown} IS DISTINCT FROM {name}::{target.bare}"
    return None


def _copy(connection: Any, canceller: Canceller, rows: pl.DataFrame, options: Mapping[str, str], what: str) -> None:
    with _statement(connection, canceller, what) as statement:
        statement.set_options(**options)
        statement.bind_stream(rows)
        statement.execute_update()


def _fetch_frame(connection: Any, canceller: Canceller, sql: str, what: str) -> pl.DataFrame:
    """Execute an internal statement and return its result."""
    with _statement(connection, canceller, what) as statement:
        statement.set_options(**{"adbc.postgresql.use_copy": "false"})
        statement.set_sql_query(sql)
        stream, _ = statement.execute_query()
        try:
            with ArrowReader(stream) as reader:
                return pl.concat([reader.empty(), *reader.frames()])
        finally:
            stream.release()


@contextmanager
def _statement(connection: Any, canceller: Canceller, sql: str) -> Iterator[Any]:
    """Open a statement and close it at the end. An error of the driver in the block becomes `QueryFailed`."""
    manager = import_module("adbc_driver_manager")

    def cancel() -> None:
        with suppress(manager.Error):  # no statement is executing
            statement.cancel()

    try:
        statement = manager.AdbcStatement(connection)
        try:
            with canceller.running(cancel, sql):
                yield statement
        finally:
            statement.close()
    except manager.Error as error:
        raise QueryFailed(sql, str(error).strip(), error.sqlstate) from error
    except OSError as error:
        raise QueryFailed(sql, str(error.strerror).strip(), None) from error


def _literal(text: str) -> str:
    r"""Return *text* as an SQL literal that does not depend on the server's treatment of backslashes."""
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"
