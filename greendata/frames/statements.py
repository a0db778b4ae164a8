"""One statement on a driver's connection: executed with bound parameters, read in batches, or fed with a frame.

All of it is called on workers, but for `Stopper.stop`, which any thread may have done. The driver manager's own
statements are used and not its DB-API layer: that one takes locks of `threading`, handles signals and wants pyarrow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import polars as pl

from greendata.errors import QueryFailed
from greendata.frames.arrays import frames_of, schema_of_stream
from greendata.frames.columns import parameters, readable
from greendata.frames.databases import POSTGRES, Database, driver
from greendata.hub import native
from greendata.hub.blocks import contextmanager

__all__ = ("INGEST_MODES", "Stopper", "ingest", "rows_of")

INGEST_MODES = {"fail": "create", "append": "create_append", "replace": "replace"}
_INFERRED = 10_000  # rows of SQLite, at least: its driver takes the type of a column from the first batch
_UNBOUNDED = 2_000_000_000  # rows: one batch, so that all of them decide; the largest round number the driver takes
_BATCH_BYTES = 1_000_000  # of PostgreSQL, a batch of a stream; of a whole frame it is the driver's 16 MB, since each
# batch is a turn of the GIL: 300 000 rows delay a 1 ms tick by 2.6 ms (p99) in 16 MB, and by 4.4 ms in 1 MB
_SAVEPOINT = "greendata_write"


class Stopper:
    """The one statement that can be stopped now. The lock keeps it open while another thread stops it."""

    def __init__(self) -> None:
        self._lock = native.allocate_lock()
        self._statement: Any = None  # written under the lock, any thread reads
        self._is_given_up = False  # any thread sets it

    def give_up(self) -> bool:
        """From now on no statement begins; True if one runs that is to be stopped. Safe from any thread."""
        self._is_given_up = True
        return self._statement is not None

    def stop(self) -> None:
        """Have the database give up the statement, if its driver can. It may block."""
        with self._lock:
            if self._statement is not None:
                with suppress(driver("adbc_driver_manager").Error):  # SQLite's cannot, or there is nothing to stop
                    self._statement.cancel()

    @contextmanager
    def statement(self, connection: Any, sql: str) -> Iterator[Any]:
        """A new statement, closed at the end; what its driver raises in the block becomes `QueryFailed`."""
        manager = driver("adbc_driver_manager")
        try:
            statement = manager.AdbcStatement(connection)
            try:
                with self._lock:
                    self._statement = statement
                if self._is_given_up:  # looked at when it is in its place; `give_up` does it the other way round
                    raise QueryFailed(sql, "it was given up before it began", None)
                yield statement
            finally:
                with self._lock:
                    self._statement = None
                statement.close()
        except manager.Error as error:
            raise QueryFailed(sql, str(error).strip(), error.sqlstate) from error
        except OSError as error:
            raise QueryFailed(sql, str(error.strerror).strip(), None) from error


def rows_of(
    database: Database,
    stopper: Stopper,
    sql: str,
    params: Any,
    overrides: Mapping[str, Any],
    batch_rows: int | None,
) -> Iterator[pl.DataFrame]:
    """What *sql* returns: frames of *batch_rows* rows, of any number if None; one without rows if there are none.

    Closing the iterator closes the statement, and the connection if it is ours.
    """
    try:
        with database.session() as connection, stopper.statement(connection, sql) as statement:
            stream = _executed(statement, database.kind, sql, params, batch_rows)
            try:
                empty = pl.DataFrame(schema=schema_of_stream(stream))
                frames = (readable(frame, overrides) for frame in frames_of(stream))
                count = 0
                for count, frame in enumerate(_in_batches(frames, batch_rows), 1):  # noqa: B007 - used below
                    yield frame
                if not count:
                    yield readable(empty, overrides)
            finally:
                stream.release()
    finally:
        database.release()


def ingest(database: Database, stopper: Stopper, frame: pl.DataFrame, table: str, options: Mapping[str, str]) -> int:
    """Write *frame* wholly or not at all; the number of rows."""
    what = f"write to {table}"
    try:
        with (
            database.session() as connection,
            _savepoint(connection, database.kind, stopper, what),
            stopper.statement(connection, what) as statement,
        ):
            statement.set_options(**{"adbc.ingest.target_table": table, **options})
            statement.bind_stream(frame)
            statement.execute_update()
        return frame.height
    finally:
        database.release()


def _executed(statement: Any, kind: str, sql: str, params: Any, batch_rows: int | None) -> Any:
    if kind == POSTGRES:
        if batch_rows is not None:
            statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(_BATCH_BYTES)})
    else:
        rows = _UNBOUNDED if batch_rows is None else max(batch_rows, _INFERRED)
        statement.set_options(**{"adbc.sqlite.query.batch_rows": str(rows)})
    statement.set_sql_query(sql)
    if params is not None and len(params):
        if isinstance(params, Mapping):
            statement.set_options(**{"adbc.statement.bind_by_name": "true"})
        statement.prepare()
        statement.bind_stream(parameters(params, kind))
    stream, _ = statement.execute_query()
    return stream


def _in_batches(frames: Iterator[pl.DataFrame], rows: int | None) -> Iterator[pl.DataFrame]:
    """*frames* cut and joined to *rows* rows each."""
    if rows is None:
        yield from (frame for frame in frames if frame.height)
        return
    kept: list[pl.DataFrame] = []
    held = 0
    for frame in frames:
        kept.append(frame)
        held += frame.height
        while held >= rows:
            whole = pl.concat(kept)
            yield whole.head(rows)
            kept, held = [whole.slice(rows)], held - rows
    if held:
        yield pl.concat(kept)


@contextmanager
def _savepoint(connection: Any, kind: str, stopper: Stopper, what: str) -> Iterator[None]:
    """Take back what the block did if it fails, and leave the transaction around it as it was.

    In SQLite alone: PostgreSQL has aborted the transaction then, and its driver lets nothing through but a rollback.
    """
    if kind == POSTGRES:
        yield
        return
    _run(connection, stopper, f"SAVEPOINT {_SAVEPOINT}", what)
    try:
        yield
    except BaseException:
        undo = Stopper()  # the one that stopped the write stops this not
        with suppress(QueryFailed):  # the connection is lost, and the write's error says so
            _run(connection, undo, f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}", what)
            _run(connection, undo, f"RELEASE SAVEPOINT {_SAVEPOINT}", what)
        raise
    _run(connection, stopper, f"RELEASE SAVEPOINT {_SAVEPOINT}", what)


def _run(connection: Any, stopper: Stopper, sql: str, what: str) -> None:
    with stopper.statement(connection, what) as statement:
        statement.set_sql_query(sql)
        statement.execute_update()
