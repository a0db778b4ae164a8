"""A report from SQLite while the hub runs: a load in one transaction, a query with parameters, a stream.

A connection that the caller passes keeps the caller's transaction: a rollback undoes the writes.
"""

from __future__ import annotations

import sqlite3
import tempfile
from functools import partial
from pathlib import Path

import gevent
import polars as pl

import greendata

__all__ = ("load", "main", "report", "tick", "try_prices")

SALES = pl.DataFrame({"sale": range(60_000)}).with_columns(
    city=pl.format("City {}", pl.col("sale") % 7), amount=(pl.col("sale") % 200).cast(pl.Float64)
)
BEST = "SELECT city, sum(amount) AS amount FROM sales WHERE amount >= :least GROUP BY city ORDER BY amount DESC LIMIT 3"


def main() -> None:
    """Load, report and roll back, while a greenlet ticks."""
    ticks: list[int] = []
    ticker = gevent.spawn(tick, ticks)
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "shop.sqlite"
        print(f"{load(database)} sales in all")
        print(report(database, least=100))
        print(f"{try_prices(database):,.0f} if everything cost twice as much")
    ticker.kill()
    print("the hub kept running" if len(ticks) > 1 else "the hub was blocked")


def tick(ticks: list[int]) -> None:
    """Count the loops of the hub."""
    while True:
        ticks.append(len(ticks))
        gevent.sleep(0.001)


def load(database: Path) -> int:
    """Write the sales, completely or not at all, and count them in batches."""
    greendata.write_sql(SALES, "sales", database).get()
    with greendata.read_sql("SELECT sale FROM sales", database, batch_rows=10_000) as batches:
        return sum(batch.height for batch in batches)


def report(database: Path, *, least: float) -> pl.DataFrame:
    """Return the three cities with the highest sales, counting sales of at least *least*."""
    return greendata.read_sql(BEST, database, params={"least": least}, timeout=10).get()


def try_prices(database: Path) -> float:
    """Return the sum of the sales at twice the prices, without changing the table."""
    connection = greendata.run(partial(sqlite3.connect, database, check_same_thread=False)).get()
    try:
        doubled = SALES.with_columns(pl.col("amount") * 2)
        greendata.write_sql(doubled, "sales", connection, if_exists="replace").get()
        total = greendata.read_sql("SELECT sum(amount) FROM sales", connection).get().item()
        greendata.run(connection.rollback).get()
    finally:
        greendata.run(connection.close).get()
    return float(total)


if __name__ == "__main__":
    main()
