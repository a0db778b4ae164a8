"""Load frames into two SQLite tables at once: each load is one job of the pool and one transaction.

sqlite3 blocks its thread during a statement; on a worker this does not block the hub. If one load fails, the `Group`
cancels the other, and nothing that was not committed is stored.
"""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import polars as pl

from greendata import Group

__all__ = ("load", "main", "query")

TYPES = {pl.Int64: "INTEGER", pl.Float64: "REAL", pl.String: "TEXT"}
SLICE = 5_000  # rows turned into tuples at once, while the GIL is held
PATIENCE = 30.0  # seconds to wait for the other load's transaction: SQLite has one writer at a time

STORES = pl.DataFrame({"store": range(50), "city": [f"City {number % 7}" for number in range(50)]})
SALES = pl.DataFrame({"sale": range(60_000)}).with_columns(
    store=pl.col("sale") % 50, amount=(pl.col("sale") % 200).cast(pl.Float64)
)


def main() -> None:
    """Load both tables and print the best cities."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "sales.sqlite"
        with Group(timeout=120, label="load") as group:
            loads = [
                group.run(load, database, "stores", STORES, label="stores"),
                group.run(load, database, "sales", SALES, label="sales"),
            ]
        for loaded in loads:
            print(f"{loaded.get()} rows into {loaded.label}")
        print(query(database))


def load(database: Path, table: str, frame: pl.DataFrame) -> int:
    """Create *table* from *frame*, completely or not at all, and return the number of its rows. Called on a worker."""
    columns = ", ".join(f'"{name}" {TYPES[type(dtype)]}' for name, dtype in frame.schema.items())
    values = ", ".join("?" * frame.width)
    with closing(sqlite3.connect(database, timeout=PATIENCE, isolation_level="IMMEDIATE")) as connection, connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(f'CREATE TABLE "{table}" ({columns})')
        for part in frame.iter_slices(SLICE):
            connection.executemany(f'INSERT INTO "{table}" VALUES ({values})', part.rows())
        return int(connection.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0])


def query(database: Path) -> pl.DataFrame:
    """Return the three cities with the highest sales."""
    statement = """
        SELECT city, sum(amount) AS amount FROM sales JOIN stores USING (store)
        GROUP BY city ORDER BY amount DESC, city LIMIT 3
    """
    with closing(sqlite3.connect(database)) as connection:
        return pl.read_database(statement, connection)


if __name__ == "__main__":
    main()
