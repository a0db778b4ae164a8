"""300 000 rows out of PostgreSQL: how long is the hub silent, and how late is a tick of a millisecond?

Each contender is measured in a process of its own, in turn: greendata, the same driver called in a native thread as its
manual has it (``fetch_polars``), and called in a greenlet.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from statistics import median
from typing import Any

import gevent

import greendata
from examples.demo.figures import quantile
from tests.bench.heavy import Ticker
from tests.bench.rows import Row
from tests.databases import postgres

__all__ = ("rows",)

ROUNDS = 5
REPEATS = 3
QUERY = """
    SELECT g AS id, g % 1000 AS shop, g * 1.5::float8 AS amount, 'customer ' || g AS customer,
           timestamp '2024-01-01' + g * interval '1 second' AS sold, g % 7 = 0 AS returned
    FROM generate_series(1, 300000) AS g
"""


def rows() -> list[Row]:
    """Longest silence of the hub, and the tick's p99, against the naive calls."""
    found: dict[str, list[list[float]]] = {name: [] for name in CONTENDERS}
    with postgres() as address:
        for _ in range(ROUNDS):
            for name, figures in found.items():
                figures.append(in_a_process(name, address))
    return [
        _row("longest silence of the hub", 0, found, 10.0),
        _row("tick p99 of the hub", 1, found, 3.0),
    ]


def in_a_process(name: str, address: str) -> list[float]:
    """Longest silence and p99 in milliseconds, of a contender in a fresh process."""
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


CONTENDERS: dict[str, Callable[[str], Any]] = {"greendata": ours, "native thread": in_a_thread, "greenlet": blocking}


def measure(name: str, address: str) -> list[float]:
    """Longest silence and p99 in milliseconds."""
    read = CONTENDERS[name]
    read(address)
    with Ticker() as intervals:
        gevent.sleep(0.01)
        for _ in range(REPEATS):
            read(address)
            gevent.sleep(0.002)
    return [max(intervals) * 1e3, quantile(intervals, 0.99) * 1e3]


def _row(what: str, which: int, found: dict[str, list[list[float]]], bound: float) -> Row:
    figure = {name: median(one[which] for one in figures) for name, figures in found.items()}
    peers = ", ".join(f"{name} {figure[name]:.1f} ms" for name in ("native thread", "greenlet"))
    mine = figure["greendata"]
    return Row(f"SQL, 300 000 rows from PostgreSQL: {what}", f"{mine:.1f} ms", peers, mine, " ms", bound)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], sys.argv[2])))
