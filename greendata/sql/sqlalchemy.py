"""Accept SQLAlchemy's engines, and its connections and sessions with their transactions, as databases.

Only documented parts of SQLAlchemy are used. This module does not import it: a caller with one of its objects has
already done so. SQLAlchemy's pool returns a connection of `sqlite3`, and everything else is done with that.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from greendata.errors import DatabaseUnreachable, QueryFailed, UnknownDatabase
from greendata.hub.contexts import contextmanager
from greendata.sql import sqlite

__all__ = ("begun", "connection_of", "engine_of", "from_engine", "shared_by")

_MEMORY = (None, "", ":memory:")


def engine_of(given: object) -> Any | None:
    """Return *given* if it is an engine for SQLite whose connections share a database, None if it is not an engine.

    Raises:
        UnknownDatabase: it is an engine for another database, or each connection has a separate database.
    """
    found = sys.modules.get("sqlalchemy")
    if found is None or not isinstance(given, found.engine.Engine):
        return None
    _check_dialect(given, "an engine")
    if given.url.database in _MEMORY and shared_by(given) is None:
        raise UnknownDatabase(
            "an engine whose connections have separate databases in memory; make it with poolclass=StaticPool and "
            "connect_args={'check_same_thread': False}, or use a file"
        )
    return given


def connection_of(given: object) -> Any | None:
    """Return the connection that *given* is or, if it is a session, uses; None if it is neither.

    A session that is not connected yet connects now. Call on the caller's thread.

    Raises:
        UnknownDatabase: its database is not SQLite.
        DatabaseUnreachable: it is closed or cannot connect.
    """
    found, orm = sys.modules.get("sqlalchemy"), sys.modules.get("sqlalchemy.orm")
    if found is None:
        return None
    is_session = orm is not None and isinstance(given, orm.Session | orm.scoped_session)
    if not (is_session or isinstance(given, found.engine.Connection)):
        return None
    with _unreachable():
        connection: Any = given.connection() if is_session else given  # type: ignore[attr-defined]
        _check_dialect(connection, "a session" if is_session else "a connection")
        _checked(connection.connection.driver_connection)
    return connection


def shared_by(engine: Any) -> Any | None:
    """Return the pool of *engine* if all users share one connection, which one job may use at a time, else None."""
    return engine.pool if isinstance(engine.pool, sys.modules["sqlalchemy"].pool.StaticPool) else None


@contextmanager
def from_engine(engine: Any) -> Iterator[Any]:
    """Take a connection of `sqlite3` from the pool of *engine*, and return it at the end. Call on a worker.

    Raises:
        DatabaseUnreachable: the pool is exhausted or cannot connect.
    """
    with _unreachable():
        taken = engine.raw_connection()
    with closing(taken):
        yield _checked(taken.driver_connection)


@contextmanager
def begun(connection: Any) -> Iterator[Any]:
    """Return the `sqlite3` connection of *connection*, after it has begun a transaction. Call on a worker.

    SQLAlchemy commits only transactions that it has begun.

    Raises:
        QueryFailed: it cannot begin a transaction, or its owner could not commit it.
    """
    try:
        if not connection.in_transaction():
            if not hasattr(connection, "commit"):
                raise QueryFailed("BEGIN", "a connection of SQLAlchemy 1.4 needs a transaction: engine.begin()", None)
            connection.begin()
        found = connection.connection.driver_connection
    except sys.modules["sqlalchemy"].exc.SQLAlchemyError as error:
        raise QueryFailed("BEGIN", sqlite.reason_of(error), None) from error
    yield found


def _check_dialect(given: Any, what: str) -> None:
    name = given.dialect.name
    if name == "postgresql":
        raise UnknownDatabase(
            f"{what} of SQLAlchemy to PostgreSQL; give its address: engine.url.render_as_string(hide_password=False)"
        )
    if name != "sqlite":
        raise UnknownDatabase(f"{what} of SQLAlchemy to {name}")


def _checked(connection: Any) -> Any:
    if not sqlite.is_connection(connection):
        raise UnknownDatabase(f"SQLAlchemy with {type(connection).__module__}; for SQLite, use sqlite3")
    return connection


@contextmanager
def _unreachable() -> Iterator[None]:
    try:
        yield
    except (sys.modules["sqlalchemy"].exc.SQLAlchemyError, sqlite.library().Error) as error:  # pools raise sqlite3's
        raise DatabaseUnreachable("by SQLAlchemy", sqlite.reason_of(error)) from error
