"""What goes wrong between a frame and a database."""

from __future__ import annotations

from collections.abc import Mapping

from greendata.errors.root import GreenDataError
from greendata.errors.words import counted

__all__ = (
    "ColumnUnreadable",
    "ColumnUnwritable",
    "ConnectionBusy",
    "DatabaseUnreachable",
    "QueryFailed",
    "UnknownDatabase",
)


class UnknownDatabase(GreenDataError, ValueError):
    """Neither the address of a database there is a driver for, nor a connection.

    Attributes:
        given: the scheme of the address, or the type of the thing.

    Example:
        >>> print(UnknownDatabase("mysql://"))
        expected sqlite:///path, a path, postgresql://... or an ADBC connection, got mysql://
    """

    def __init__(self, given: str) -> None:
        super().__init__(given)
        self.given = given

    def __str__(self) -> str:
        return f"expected sqlite:///path, a path, postgresql://... or an ADBC connection, got {self.given}"


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
        return f"cannot open {self.database}: {self.reason}; check that it is there, and the address"


class QueryFailed(GreenDataError, RuntimeError):
    """The database refused a statement, or failed in the middle of it; ``__cause__`` is the driver's error.

    Attributes:
        statement: the SQL, or what was done, as it was given; parameters are not part of it.
        reason: the database's own text.
        sqlstate: its five-letter code, or None where the driver tells none.

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


class ColumnUnreadable(GreenDataError, TypeError):
    """A query returns a type that Polars has no form for: intervals, unions.

    Attributes:
        column: its name.
        form: the type, in Arrow's notation.
    """

    def __init__(self, column: str, form: str) -> None:
        super().__init__(column, form)
        self.column = column
        self.form = form

    def __str__(self) -> str:
        kind = "an interval of time" if self.form.startswith("ti") else f"of the Arrow type {self.form!r}"
        return f"column {self.column!r} is {kind}, which Polars cannot hold; cast it in the query, to text for example"


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
            f"{counted(len(self.columns), 'column has', 'columns have')} no form in {self.database}: {names}; "
            f"cast or drop {'it' if len(self.columns) == 1 else 'them'} before the write"
        )


class ConnectionBusy(GreenDataError, RuntimeError):
    """A connection was given to a second job while the first has it: connections are not thread safe.

    Attributes:
        holder: the label of the job or stream that has it.
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
