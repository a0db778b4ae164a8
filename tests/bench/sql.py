"""300 000 rows out of PostgreSQL and out of SQLite: how long is the hub silent, how late is a tick of a millisecond?

Each contender is measured in a process of its own, in turn. With PostgreSQL: greendata, the same driver called in a
native thread as its manual has it (``fetch_polars``), and called in a greenlet. With SQLite: greendata, the rows of
`sqlite3` made a frame in a native thread, and the same in a greenlet.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from statistics import median
from time import perf_counter
from typing import Any

import gevent
import polars as pl

import greendata
from examples.demo.figures import quantile
from tests.bench.heavy import Ticker
from tests.bench.rows import Row
from tests.support.databases import postgres

__all__ = ("rows",)

ROUNDS = 5
REPEATS = 3
QUERY = """
    SELECT g AS id, g % 1000 AS shop, g * 1.5::float8 AS amount, 'customer ' || g AS customer,
           timestamp '2024-01-01' + g * interval '1 second' AS sold, g % 7 = 0 AS returned
    FROM generate_series(1, 300000) AS g
"""


SQLITE_QUERY = "SELECT * FROM sales"


def rows() -> list[Row]:
    """Longest silence of the hub, the tick's p99 and the time, against the naive calls."""
    with postgres() as address:
        found = _figures(CONTENDERS, address)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/sales.sqlite"
        numbers = pl.select(id=pl.int_range(300_000)).with_columns(
            shop=pl.col("id") % 1000,
            amount=pl.col("id") * 1.5,
            customer=pl.format("customer {}", "id"),
            sold=pl.datetime(2024, 1, 1) + pl.duration(seconds="id"),
            returned=pl.col("id") % 7 == 0,
        )
        greendata.write_sql(numbers, "sales", path).get()
        lite = _figures(SQLITE_CONTENDERS, path)
    return [
        _row("PostgreSQL: longest silence of the hub", 0, found, 10.0),
        _row("PostgreSQL: tick p99 of the hub", 1, found, 3.0),
        _row("SQLite: longest silence of the hub", 0, lite, 10.0),
        _row("SQLite: tick p99 of the hub", 1, lite, 3.0),
        _row("SQLite: time", 2, lite, 3 * median(one[2] for one in lite["greenlet"])),
    ]


def _figures(contenders: dict[str, Callable[[str], Any]], address: str) -> dict[str, list[list[float]]]:
    found: dict[str, list[list[float]]] = {name: [] for name in contenders}
    for _ in range(ROUNDS):
        for name, figures in found.items():
            figures.append(in_a_process(name, address))
    return found


def in_a_process(name: str, address: str) -> list[float]:
    """Longest silence, p99 and time in milliseconds, of a contender in a fresh process."""
    command = [sys.executable, "-m", __name__, name, address]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: list[float] = json.loads(done.stdout)
    return figures


def ours(address: str) -> int:
    """Through greendata."""
    return greendata.read_sql(QUERY, address).get().height


def blocking(address: str) -> int:
    """As the driver's manual has it, where it is called."""
    import adbc_driver_postgresql.dbapi

    with adbc_driver_postgresql.dbapi.connect(address) as connection, connection.cursor() as cursor:
        cursor.execute(QUERY)
        return int(cursor.fetch_polars().height)


def in_a_thread(address: str) -> Any:
    """The same in gevent's own native threads."""
    return gevent.get_hub().threadpool.apply(blocking, (address,))


def ours_sqlite(path: str) -> int:
    """Through greendata."""
    return greendata.read_sql(SQLITE_QUERY, path).get().height


def blocking_sqlite(path: str) -> int:
    """As the manual of `sqlite3` has it, where it is called."""
    with closing(sqlite3.connect(path)) as connection:
        cursor = connection.execute(SQLITE_QUERY)
        names = [column[0] for column in cursor.description]
        return pl.DataFrame(cursor.fetchall(), schema=names, orient="row").height


def in_a_thread_sqlite(path: str) -> Any:
    """The same in gevent's own native threads."""
    return gevent.get_hub().threadpool.apply(blocking_sqlite, (path,))


CONTENDERS: dict[str, Callable[[str], Any]] = {"greendata": ours, "native thread": in_a_thread, "greenlet": blocking}
SQLITE_CONTENDERS: dict[str, Callable[[str], Any]] = {
    "greendata": ours_sqlite,
    "native thread": in_a_thread_sqlite,
    "greenlet": blocking_sqlite,
}


def measure(name: str, address: str) -> list[float]:
    """Longest silence, p99 and time in milliseconds."""
    contenders = CONTENDERS if address.startswith("postgresql:") else SQLITE_CONTENDERS
    read, times = contenders[name], []
    read(address)
    with Ticker() as intervals:
        gevent.sleep(0.01)
        for _ in range(REPEATS):
            begun = perf_counter()
            read(address)
            times.append(perf_counter() - begun)
            gevent.sleep(0.002)
    return [max(intervals) * 1e3, quantile(intervals, 0.99) * 1e3, median(times) * 1e3]


def _row(what: str, which: int, found: dict[str, list[list[float]]], bound: float) -> Row:
    figure = {name: median(one[which] for one in figures) for name, figures in found.items()}
    peers = ", ".join(f"{name} {figure[name]:.1f} ms" for name in ("native thread", "greenlet"))
    mine = figure["greendata"]
    return Row(f"SQL, 300 000 rows from {what}", f"{mine:.1f} ms", peers, mine, " ms", bound)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], sys.argv[2])))
