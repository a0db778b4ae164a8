"""Errors of databases: addresses, connections, statements and types."""

from __future__ import annotations

from collections.abc import Mapping

from greendata.errors.notes import text_of
from greendata.errors.plural import counted
from greendata.errors.root import GreenDataError

__all__ = (
    "ColumnUnreadable",
    "ColumnUnwritable",
    "ConnectionBusy",
    "DatabaseUnreachable",
    "LoadFailed",
    "QueryFailed",
    "TableExists",
    "UnknownDatabase",
    "WriteRefused",
)


class UnknownDatabase(GreenDataError, ValueError):
    """Not the address of a supported database, and not a connection.

    Attributes:
        given: the scheme of the address, the type of the object, or the fault of the address; never a secret.

    Example:
        >>> print(UnknownDatabase("mysql://"))
        expected sqlite:///path, a path, postgresql://..., host=... or a connection, got mysql://
    """

    def __init__(self, given: str) -> None:
        super().__init__(given)
        self.given = given

    def __str__(self) -> str:
        hint = {"Cursor": "; pass its connection", "module": "; pass a connection, or the path of the file"}
        text = f"expected sqlite:///path, a path, postgresql://..., host=... or a connection, got {self.given}"
        return text + hint.get(self.given, "")


class DatabaseUnreachable(GreenDataError, ConnectionError):
    """The database could not be opened or connected to; ``__cause__`` is the driver's error.

    Attributes:
        database: its address, without the password.
        reason: the driver's own text.
    """

    def __init__(self, database: str, reason: str) -> None:
        super().__init__(database, reason)
        self.database = database
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot open {self.database}: {self.reason}; check the address, and that the database is running"


class QueryFailed(GreenDataError, RuntimeError):
    """The database refused a statement, or failed while it ran; ``__cause__`` is the driver's error.

    Attributes:
        statement: the SQL as it was given, without parameters, or the operation.
        reason: the database's own text.
        sqlstate: its code of five characters, or None if the driver has none.

    Example:
        >>> print(QueryFailed("SELEC 1", 'near "SELEC": syntax error', None))
        the database refused 'SELEC 1': near "SELEC": syntax error
    """

    def __init__(self, statement: str, reason: str, sqlstate: str | None) -> None:
        super().__init__(statement, reason, sqlstate)
        self.statement = statement
        self.reason = reason
        self.sqlstate = sqlstate

    def __str__(self) -> str:
        code = f" (SQLSTATE {self.sqlstate})" if self.sqlstate else ""
        return f"the database refused {_short(self.statement)!r}: {self.reason}{code}"


class TableExists(QueryFailed):
    """The table to write exists, and ``if_exists`` is "fail". Nothing was written.

    Attributes:
        table: its name.

    Example:
        >>> print(TableExists("t", 'table "t" already exists', None))
        table 't' already exists; pass if_exists='append' to add the rows, or if_exists='replace'
    """

    def __init__(self, table: str, reason: str, sqlstate: str | None) -> None:
        super().__init__(f"write to {table}", reason, sqlstate)
        self.args = (table, reason, sqlstate)
        self.table = table

    def __str__(self) -> str:
        return f"table {self.table!r} already exists; pass if_exists='append' to add the rows, or if_exists='replace'"


class WriteRefused(QueryFailed):
    """The table cannot hold a value unchanged: it would be rounded, truncated or made null. Nothing was written.

    Attributes:
        table: its name.
        column: the name of the column.

    Example:
        >>> print(WriteRefused("t", "a", "holds NaN, which SQLite makes null"))
        cannot write to 't': column 'a' holds NaN, which SQLite makes null
    """

    def __init__(self, table: str, column: str, reason: str) -> None:
        super().__init__(f"write to {table}", reason, None)
        self.args = (table, column, reason)
        self.table = table
        self.column = column

    def __str__(self) -> str:
        return f"cannot write to {self.table!r}: column {self.column!r} {self.reason}"


class LoadFailed(QueryFailed):
    """Some tables of `greendata.load` were not written; ``__cause__`` is the first of their errors.

    Attributes:
        written: the number of rows in each table that was written.
        failed: the error of each table that was not written. Nothing of its rows is in the table.

    Example:
        >>> print(LoadFailed({"orders": 3}, {"lines": TableExists("lines", "table lines already exists", None)}))
        1 of 2 tables was not written: lines (table 'lines' already exists; pass if_exists='append' to add the rows, or
        if_exists='replace'). Written: orders (3 rows). Load what is missing again
    """

    def __init__(self, written: Mapping[str, int], failed: Mapping[str, Exception]) -> None:
        super().__init__(f"load {', '.join([*written, *failed])}", "some tables were not written", None)
        self.args = (written, failed)
        self.written = dict(written)
        self.failed = dict(failed)

    def __str__(self) -> str:
        total = counted(len(self.written) + len(self.failed), "table")
        verb = "was" if len(self.failed) == 1 else "were"
        failed = "; ".join(f"{name} ({text_of(error)})" for name, error in self.failed.items())
        written = ", ".join(f"{name} ({counted(rows, 'row')})" for name, rows in self.written.items()) or "none"
        news = f"{len(self.failed)} of {total} {verb} not written: {failed}. Written: {written}."
        return f"{news} Load what is missing again"


class ColumnUnreadable(GreenDataError, TypeError):
    """A query returns a column that Polars cannot hold unchanged: intervals, numbers beside text.

    Attributes:
        column: its name.
        reason: the type or the values that Polars cannot hold.
        remedy: what to do.

    Example:
        >>> print(ColumnUnreadable("wait", "is of PostgreSQL's type interval"))
        column 'wait' is of PostgreSQL's type interval; cast it in the query, to text for example
    """

    def __init__(self, column: str, reason: str, remedy: str = "cast it in the query, to text for example") -> None:
        super().__init__(column, reason, remedy)
        self.column = column
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return f"column {self.column!r} {self.reason}; {self.remedy}"


class ColumnUnwritable(GreenDataError, TypeError):
    """A frame has columns of types that the database's driver cannot write. Nothing was written.

    Attributes:
        columns: the names, and the type of each.
        database: "SQLite" or "PostgreSQL".
    """

    def __init__(self, columns: Mapping[str, object], database: str) -> None:
        super().__init__(columns, database)
        self.columns = dict(columns)
        self.database = database

    def __str__(self) -> str:
        names = ", ".join(f"{name!r} ({dtype})" for name, dtype in sorted(self.columns.items()))
        return (
            f"{counted(len(self.columns), 'column')} cannot be stored in {self.database}: {names}; "
            f"cast or drop {'it' if len(self.columns) == 1 else 'them'} before the write"
        )


class ConnectionBusy(GreenDataError, RuntimeError):
    """A second job was given a connection that another job still uses. Connections are not thread-safe.

    Attributes:
        holder: the label of the job or stream that uses it.
    """

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder

    def __str__(self) -> str:
        return (
            f"{self.holder} still uses this connection, and it serves one job at a time; wait for its result, close "
            "its stream, or give each its own connection"
        )


def _short(statement: str, length: int = 200) -> str:
    words = " ".join(statement.split())
    return words if len(words) <= length else words[: length - 3] + "..."
