"""The databases that `greendata.read_sql` and `greendata.write_sql` accept, and which job uses which connection.

With an address, greendata opens a connection for one transaction, which is committed at its end and rolled back on any
failure, and closes the connection. With a connection of the caller, statements run in the caller's transaction, and
greendata does not commit it.
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
    "AlchemyConnection",
    "AlchemyEngine",
    "Database",
    "PostgresAddress",
    "PostgresConnection",
    "SqliteAddress",
    "SqliteConnection",
    "database_of",
    "driver",
    "is_aborted",
)

_PG_OPTION = "adbc.postgresql.transaction_status"  # only that driver's connections have it
_AUTOCOMMIT = "adbc.connection.autocommit"


class Database(Protocol):
    """A database that executes statements."""

    kind: str

    def session(self, *, writes: bool) -> Any:
        """Return a context manager with the driver's connection for one job. Call on a worker."""

    def release(self) -> None:
        """Let other jobs use the connection. A second call does nothing. Safe from any thread."""


def driver(name: str) -> Any:
    """Import the module *name* of an ADBC driver.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        text = f"this database needs {name}; install it with: pip install 'greendata[sql]'"
        raise ImportError(text, name=name) from error


def database_of(given: object, label: str) -> Database:
    """Return the database of *given*. If *given* is a connection, claim it for the job *label*.

    Raises:
        UnknownDatabase: *given* is neither a known address nor a connection.
        ConnectionBusy: another job uses the connection.
        ImportError: the driver is not installed.

    Example:
        >>> database_of("postgresql://ann:secret@db/shop", "report")
        <Address postgresql://ann:***@db/shop>
    """
    if isinstance(given, str | PathLike):
        address = parse_address(given) if isinstance(given, str) else fsdecode(given)
        return PostgresAddress(address) if isinstance(address, Conninfo) else SqliteAddress(address)
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


def is_aborted(database: Database) -> bool:
    """Return whether the caller's transaction can only be rolled back. Call on a worker, after a failed statement."""
    return isinstance(database, PostgresConnection) and database.is_aborted()


class SqliteAddress:
    """A file of SQLite. Each job opens a connection. Any thread may create it; one worker at a time uses it."""

    kind = SQLITE

    def __init__(self, path: str) -> None:
        self.path = path

    @contextmanager
    def session(self, *, writes: bool) -> Iterator[Any]:
        """Open a connection with a new transaction. A write creates the file if it does not exist.

        Raises:
            DatabaseUnreachable: the file cannot be opened.
            QueryFailed: the database rejects the commit.
        """
        with (
            closing(self._connect(may_create=writes)) as connection,
            sqlite.transaction(connection, writes=writes, is_ours=True),
        ):
            yield connection

    def release(self) -> None:
        """Do nothing: the connection is not shared."""

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
    """A database of PostgreSQL. Each job opens a connection. Any thread may create it; one worker at a time uses it."""

    kind = POSTGRES

    def __init__(self, address: Conninfo) -> None:
        self._address = address
        self._driver = driver("adbc_driver_postgresql")

    @contextmanager
    def session(self, *, writes: bool) -> Iterator[Any]:
        """Open a connection with a new transaction.

        Raises:
            DatabaseUnreachable: the database cannot be connected to.
            QueryFailed: the database rejects the commit.
        """
        manager = driver("adbc_driver_manager")
        database, connection = self._connect(manager)
        try:
            yield connection
            _commit(connection, manager)
        except BaseException:
            with suppress(manager.Error):  # the first error says more
                connection.rollback()
            raise
        finally:
            connection.close()
            database.close()

    def release(self) -> None:
        """Do nothing: the connection is not shared."""

    def _connect(self, manager: Any) -> tuple[Any, Any]:
        try:
            database = self._driver.connect(self._address.for_driver)
            try:
                connection = manager.AdbcConnection(database)
                connection.set_autocommit(False)
            except BaseException:
                database.close()
                raise
        except manager.Error as error:
            failure = type(error)(self._address.scrubbed(str(error)), status_code=error.status_code)
        else:
            return database, connection
        raise DatabaseUnreachable(self._address.shown, str(failure).strip()) from failure

    def __repr__(self) -> str:
        return f"<Address {self._address.shown}>"


class _Claim:
    """A claim on a connection of the caller until `release`. Any thread creates and releases it; one worker uses it.

    *thing* is the claimed object, which the claim keeps alive. None claims nothing.
    """

    kind: str

    def __init__(self, thing: object | None, label: str) -> None:
        self._label = label
        self._claimed = thing
        self._released = native.allocate_lock()  # the first to acquire it releases the claim
        if thing is not None and (holder := _claims.setdefault(id(thing), self)) is not self:
            raise ConnectionBusy(holder._label)

    def release(self) -> None:
        """Let other jobs use the connection."""
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
        """Return the connection in the caller's transaction.

        With a connection in autocommit mode, the block is one transaction.

        Raises:
            QueryFailed: the database rejects the start of the transaction or the commit.
        """
        with sqlite.transaction(self._connection, writes=writes, is_ours=False):
            yield self._connection


class AlchemyEngine(_Claim):
    """An engine of SQLAlchemy for SQLite. Each job takes a connection from its pool and starts a transaction."""

    kind = SQLITE

    def __init__(self, engine: Any, label: str) -> None:
        self._engine = engine
        super().__init__(sqlalchemy.shared_by(engine), label)

    @contextmanager
    def session(self, *, writes: bool) -> Iterator[Any]:
        """Take a connection from the pool, with a new transaction.

        Raises:
            DatabaseUnreachable: the pool has no connection to give, or cannot connect.
            QueryFailed: the database rejects the commit.
        """
        with (
            sqlalchemy.from_engine(self._engine) as connection,
            sqlite.transaction(connection, writes=writes, is_ours=True),
        ):
            yield connection


class AlchemyConnection(_Claim):
    """A connection of SQLAlchemy to SQLite, which belongs to the caller or to the caller's session."""

    kind = SQLITE

    def __init__(self, connection: Any, label: str) -> None:
        self._connection = connection
        super().__init__(sqlalchemy.shared_by(connection.engine) or connection.connection.driver_connection, label)

    @contextmanager
    def session(self, *, writes: bool) -> Iterator[Any]:
        """Return the `sqlite3` connection below, in the caller's transaction; see `SqliteConnection.session`.

        Raises:
            QueryFailed: the database rejects the start of the transaction or the commit.
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
        self._owner = owner  # keeps the connection open: dropping the owner closes it
        super().__init__(connection, label)

    @contextmanager
    def session(self, *, writes: bool) -> Iterator[Any]:
        """Return the connection in the caller's transaction.

        With a connection in autocommit mode, the block is one transaction.

        Raises:
            QueryFailed: the database rejects the commit.
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
            with suppress(manager.Error):  # the connection may be lost, and the first error says so
                connection.rollback()
                connection.set_autocommit(True)
            raise
        connection.set_autocommit(True)

    def is_aborted(self) -> bool:
        """Return whether the transaction can only be rolled back; True as well if the connection is lost."""
        try:
            return bool(self._connection.get_option(_PG_OPTION) not in ("idle", "intrans"))
        except driver("adbc_driver_manager").Error:
            return True


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


# The claims by the id of the claimed object. Any thread uses it, with one C call at a time.
_claims: dict[int, _Claim] = {}
