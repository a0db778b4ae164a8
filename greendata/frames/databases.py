"""Which database, by which connection, and who uses it: what `greendata.read_sql` and `greendata.write_sql` are given.

An address means a connection of our own: one transaction, committed at its end, rolled back on any failure, closed. A
connection of the caller's means the caller's transaction, and nothing of it is committed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, unquote

from greendata.errors import ConnectionBusy, DatabaseUnreachable, QueryFailed, UnknownDatabase
from greendata.hub import native
from greendata.hub.blocks import contextmanager

__all__ = ("Address", "Database", "Given", "database_of", "driver")

SQLITE, POSTGRES = "SQLite", "PostgreSQL"
_PATIENCE = 5_000  # milliseconds that SQLite waits for another writer: what Python's own sqlite3 does
_PG_OPTION = "adbc.postgresql.transaction_status"  # only that driver's connections have it
_AUTOCOMMIT = "adbc.connection.autocommit"


class Database(Protocol):
    """Where statements go."""

    kind: str

    def session(self) -> Any:
        """A context manager that gives the driver's connection for one job. Call on a worker."""

    def release(self) -> None:
        """Let others use the connection; nothing happens the second time. Safe from any thread."""


def driver(name: str) -> Any:
    """The module of an ADBC driver.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        text = f"this database needs {name}; install it with: pip install 'greendata[sql]'"
        raise ImportError(text, name=name) from error


def database_of(given: object, label: str) -> Database:
    """What *given* stands for, claimed for the job *label* if it is a connection.

    Raises:
        UnknownDatabase: it is neither a known address nor a connection.
        ConnectionBusy: another job uses the connection.
        ImportError: the driver is not installed.

    Example:
        >>> database_of("postgresql://ann:secret@db/shop", "report")
        <Address postgresql://ann:***@db/shop>
    """
    if isinstance(given, PathLike):
        return Address(SQLITE, fspath(given))
    if not isinstance(given, str):
        return Given(given, label)
    scheme, separator, path = given.partition("://")
    if not separator:
        return Address(SQLITE, given)
    if scheme == "sqlite":
        return Address(SQLITE, path.removeprefix("/") or ":memory:")
    if scheme in ("postgresql", "postgres"):
        return Address(POSTGRES, given)
    raise UnknownDatabase(f"{scheme}://")


class Address:
    """A database that each job connects to anew. Any thread makes it; one worker at a time uses it."""

    def __init__(self, kind: str, address: str) -> None:
        self.kind = kind
        self.may_create = False  # an SQLite file that is not there; the caller, before the job
        self._address = address
        self._driver = driver("adbc_driver_sqlite" if kind == SQLITE else "adbc_driver_postgresql")

    @contextmanager
    def session(self) -> Iterator[Any]:
        """A connection in a transaction of its own.

        Raises:
            DatabaseUnreachable: it cannot be opened.
            QueryFailed: it refuses the commit.
        """
        manager = driver("adbc_driver_manager")
        database, connection = self._connect(manager)
        try:
            yield connection
            _commit(connection, manager)
        except BaseException:
            with suppress(manager.Error):  # what went wrong before says more
                connection.rollback()
            raise
        finally:
            connection.close()
            database.close()

    def release(self) -> None:
        """Nothing: nobody else has this connection."""

    def _connect(self, manager: Any) -> tuple[Any, Any]:
        if self.kind == SQLITE and not (self.may_create or self._in_memory or Path(self._address).exists()):
            raise DatabaseUnreachable(self.shown, "there is no such file")
        try:
            database = manager.AdbcDatabase(driver=self._driver._driver_path(), uri=self._for_driver())
            try:
                connection = manager.AdbcConnection(database)
                if self.kind == SQLITE:
                    _execute(manager, connection, f"PRAGMA busy_timeout = {_PATIENCE}")
                connection.set_autocommit(False)
            except BaseException:
                database.close()
                raise
        except manager.Error as error:
            failure = self._scrubbed(error)
        else:
            return database, connection
        raise DatabaseUnreachable(self.shown, str(failure).strip()) from failure

    def _for_driver(self) -> str:
        if self.kind == POSTGRES or self._in_memory:
            return self._address
        mode = "rwc" if self.may_create else "rw"
        return f"file:{quote(str(Path(self._address).absolute()))}?mode={mode}"

    @property
    def _in_memory(self) -> bool:
        return self._address == ":memory:"

    @property
    def shown(self) -> str:
        """The address without its secrets."""
        if self.kind == SQLITE:
            return f"sqlite:///{self._address}"
        shown = re.sub(r"(?s)^(\w+://[^:@]*):.*@", r"\1:***@", self._address)
        return re.sub(r"(?i)(password=)[^&]*", r"\1***", shown)

    def _scrubbed(self, error: Any) -> Any:
        """*error*, or one like it without the secrets: drivers quote the parts of an address that they cannot read."""
        if self.kind == SQLITE:
            return error
        text, address = str(error), self._address
        found = re.findall(r"(?s)^\w+://[^:@]*:(.*)@", address) + re.findall(r"(?i)password=([^&]*)", address)
        for secret in [address, *found, *map(unquote, found)]:
            text = text.replace(secret, "***") if secret else text
        return error if text == str(error) else type(error)(text, status_code=error.status_code)

    def __repr__(self) -> str:
        return f"<Address {self.shown}>"


class Given:
    """A connection of the caller's, claimed until `release`. Any thread makes and releases it; one worker uses it."""

    def __init__(self, connection: object, label: str) -> None:
        manager = driver("adbc_driver_manager")
        low = getattr(connection, "adbc_connection", connection)
        if not isinstance(low, manager.AdbcConnection):
            raise UnknownDatabase(type(connection).__name__)
        self._label = label
        self._connection = low
        self._owner = connection  # it closes the connection when it is dropped
        self._released = native.allocate_lock()  # whoever acquires it takes the claim back
        if (holder := _claims.setdefault(id(low), self)) is not self:
            raise ConnectionBusy(holder._label)
        self.kind = _kind_of(low, manager)

    @contextmanager
    def session(self) -> Iterator[Any]:
        """The connection, in the caller's transaction.

        Where the connection commits by itself, what is done here is one transaction.

        Raises:
            QueryFailed: the database refuses the commit.
        """
        connection, manager = self._connection, driver("adbc_driver_manager")
        if connection.get_option(_AUTOCOMMIT) != "true":
            yield connection
            return
        connection.set_autocommit(False)
        try:
            yield connection
            _commit(connection, manager)
        except BaseException:
            with suppress(manager.Error):  # the connection may be lost, and what went wrong before says so
                connection.rollback()
                connection.set_autocommit(True)
            raise
        connection.set_autocommit(True)

    def release(self) -> None:
        """Let others use the connection."""
        if self._released.acquire(False):
            del _claims[id(self._connection)]

    def __repr__(self) -> str:
        return f"<Given {self.kind} connection for {self._label}>"


def _kind_of(connection: Any, manager: Any) -> str:
    try:
        connection.get_option(_PG_OPTION)
    except manager.Error:
        return SQLITE
    return POSTGRES


def _commit(connection: Any, manager: Any) -> None:
    try:
        connection.commit()
    except manager.Error as error:
        raise QueryFailed("COMMIT", str(error).strip(), error.sqlstate) from error


def _execute(manager: Any, connection: Any, sql: str) -> None:
    statement = manager.AdbcStatement(connection)
    try:
        statement.set_sql_query(sql)
        statement.execute_update()
    finally:
        statement.close()


_claims: dict[int, Given] = {}  # by the id of the connection, which the claim keeps alive; any thread, one C call each
