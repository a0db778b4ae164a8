"""Which database, by which connection, and who uses it: what `greendata.read_sql` and `greendata.write_sql` are given.

An address means a connection of our own: one transaction, committed at its end, rolled back on any failure, closed. A
connection of the caller's means the caller's transaction, and nothing of it is committed here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from importlib import import_module
from os import PathLike, fsdecode
from pathlib import Path
from typing import Any, Protocol

from greendata.errors import ConnectionBusy, DatabaseUnreachable, QueryFailed, UnknownDatabase
from greendata.hub import native
from greendata.hub.contexts import contextmanager
from greendata.sql import postgres, sqlalchemy, sqlite
from greendata.sql.addresses import Conninfo, parse_address
from greendata.sql.sql_types import POSTGRES, SQLITE

__all__ = (
    "AlchemyEngine",
    "AlchemyConnection",
    "Database",
    "PostgresAddress",
    "PostgresConnection",
    "SqliteAddress",
    "SqliteConnection",
    "database_of",
    "driver",
)

_PG_OPTION = "adbc.postgresql.transaction_status"  # only that driver's connections have it
_AUTOCOMMIT = "adbc.connection.autocommit"


class Database(Protocol):
    """Where statements go."""

    kind: str

    def session(self, *, writes: bool) -> Any:
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
    if isinstance(given, str | PathLike):
        place = parse_address(given) if isinstance(given, str) else fsdecode(given)
        return PostgresAddress(place) if isinstance(place, Conninfo) else SqliteAddress(place)
    if sqlite.is_connection(given):
        return SqliteConnection(given, label)
    if (engine := sqlalchemy.engine_of(given)) is not None:
        return AlchemyEngine(engine, label)
    if (connection := sqlalchemy.connection_of(given)) is not None:
        return AlchemyConnection(connection, label)
    manager = driver("adbc_driver_manager")
    low = getattr(given, "adbc_connection", given)
    if not isinstance(low, manager.AdbcConnection):
        raise UnknownDatabase(type(given).__name__)
    if not _is_postgres(low, manager):
        raise UnknownDatabase("a connection of ADBC to another database than PostgreSQL (for SQLite, sqlite3's)")
    return PostgresConnection(low, given, label)


class SqliteAddress:
    """A file of SQLite that each job connects to anew. Any thread makes it; one worker at a time uses it."""

    kind = SQLITE

    def __init__(self, path: str) -> None:
        self.path = path

    @contextmanager
    def session(self, *, writes: bool) -> Iterator[Any]:
        """A connection in a transaction of its own; a write makes the file if need be.

        Raises:
            DatabaseUnreachable: it cannot be opened.
            QueryFailed: it refuses the commit.
        """
        with (
            closing(self._connect(may_create=writes)) as connection,
            sqlite.transaction(connection, writes=writes, is_ours=True),
        ):
            yield connection

    def release(self) -> None:
        """Nothing: nobody else has this connection."""

    def _connect(self, *, may_create: bool) -> Any:
        if not (may_create or self.path == sqlite.MEMORY or Path(self.path).exists()):
            raise DatabaseUnreachable(f"sqlite:///{self.path}", "there is no such file")
        try:
            return sqlite.connect(self.path, may_create=may_create)
        except (sqlite.library().Error, ValueError) as error:
            raise DatabaseUnreachable(f"sqlite:///{self.path}", str(error)) from error

    def __repr__(self) -> str:
        return f"<Address sqlite:///{self.path}>"


class PostgresAddress:
    """A database of PostgreSQL that each job connects to anew. Any thread makes it; one worker at a time uses it."""

    kind = POSTGRES

    def __init__(self, place: Conninfo) -> None:
        self._place = place
        self._driver = driver("adbc_driver_postgresql")

    @contextmanager
    def session(self, *, writes: bool) -> Iterator[Any]:
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
        try:
            database = self._driver.connect(self._place.for_driver)
            try:
                connection = manager.AdbcConnection(database)
                connection.set_autocommit(False)
            except BaseException:
                database.close()
                raise
        except manager.Error as error:
            failure = type(error)(self._place.scrubbed(str(error)), status_code=error.status_code)
        else:
            return database, connection
        raise DatabaseUnreachable(self._place.shown, str(failure).strip()) from failure

    def __repr__(self) -> str:
        return f"<Address {self._place.shown}>"


class _Claim:
    """A connection of the caller's, claimed until `release`. Any thread makes and releases it; one worker uses it.

    What is claimed is *thing*, which the claim keeps alive, or nothing if it is None.
    """

    kind: str

    def __init__(self, thing: object | None, label: str) -> None:
        self._label = label
        self._claimed = thing
        self._released = native.allocate_lock()  # the first to acquire it takes the claim back
        if thing is not None and (holder := _claims.setdefault(id(thing), self)) is not self:
            raise ConnectionBusy(holder._label)

    def release(self) -> None:
        """Let others use the connection."""
        if self._claimed is not None and self._released.acquire(False):
            del _claims[id(self._claimed)]

    def __repr__(self) -> str:
        return f"<{self.kind} connection for {self._label}>"


class SqliteConnection(_Claim):
    """A connection of `sqlite3`."""

    kind = SQLITE

    def __init__(self, connection: Any, label: str) -> None:
        self._connection = connection
        super().__init__(connection, label)

    @contextmanager
    def session(self, *, writes: bool) -> Iterator[Any]:
        """The connection, in the caller's transaction.

        Where the connection commits by itself, what is done here is one transaction.

        Raises:
            QueryFailed: the database refuses the beginning or the commit.
        """
        with sqlite.transaction(self._connection, writes=writes, is_ours=False):
            yield self._connection


class AlchemyEngine(_Claim):
    """An engine of SQLAlchemy for SQLite: each job has a connection of its pool, in a transaction of its own."""

    kind = SQLITE

    def __init__(self, engine: Any, label: str) -> None:
        self._engine = engine
        super().__init__(sqlalchemy.shared_by(engine), label)

    @contextmanager
    def session(self, *, writes: bool) -> Iterator[Any]:
        """A connection in a transaction of its own.

        Raises:
            DatabaseUnreachable: the pool has none.
            QueryFailed: it refuses the commit.
        """
        with (
            sqlalchemy.from_engine(self._engine) as connection,
            sqlite.transaction(connection, writes=writes, is_ours=True),
        ):
            yield connection


class AlchemyConnection(_Claim):
    """A connection of SQLAlchemy to SQLite, the caller's or of the caller's session."""

    kind = SQLITE

    def __init__(self, connection: Any, label: str) -> None:
        self._connection = connection
        super().__init__(sqlalchemy.shared_by(connection.engine) or connection.connection.driver_connection, label)

    @contextmanager
    def session(self, *, writes: bool) -> Iterator[Any]:
        """The connection under it, in the caller's transaction; see `SqliteConnection.session`.

        Raises:
            QueryFailed: the database refuses the beginning or the commit.
        """
        with (
            sqlalchemy.begun(self._connection) as connection,
            sqlite.transaction(connection, writes=writes, is_ours=False),
        ):
            yield connection


class PostgresConnection(_Claim):
    """A connection of ADBC to PostgreSQL."""

    kind = POSTGRES

    def __init__(self, connection: Any, owner: object, label: str) -> None:
        self._connection = connection
        self._owner = owner  # it closes the connection when it is dropped
        super().__init__(connection, label)

    @contextmanager
    def session(self, *, writes: bool) -> Iterator[Any]:
        """The connection, in the caller's transaction.

        Where the connection commits by itself, what is done here is one transaction.

        Raises:
            QueryFailed: the database refuses the commit.
        """
        connection, manager = self._connection, driver("adbc_driver_manager")
        postgres.check_encoding(connection)
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


def _is_postgres(connection: Any, manager: Any) -> bool:
    try:
        connection.get_option(_PG_OPTION)
    except manager.Error:
        return False
    return True


def _commit(connection: Any, manager: Any) -> None:
    try:
        connection.commit()
    except manager.Error as error:
        raise QueryFailed("COMMIT", str(error).strip(), error.sqlstate) from error


_claims: dict[int, _Claim] = {}  # by the id of what is claimed, which a claim keeps alive; any thread, one C call each
