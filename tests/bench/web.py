"""A million rows over HTTP as NDJSON, CSV and Arrow, against the same views written plainly with Flask and Polars.

Each server, and each kind of client, is a process of its own. The plain views run under ``gunicorn -k gevent``.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

import polars as pl

from examples.demo.figures import quantile
from tests.bench.apart import apart, tell
from tests.bench.rows import Row, interleaved, ratio
from tests.support.load import Load, drive
from tests.support.servers import Server
from tests.support.service import forget_peak, vitals, worker_of

__all__ = ("rows",)

ROWS = 1_000_000
GROUP = 20_000  # rows in a row group: what Polars reads ahead, and so what a stream holds, is counted in these
FORMATS = ("ndjson", "csv", "arrow")
FASTER = {"ndjson": 2.0, "csv": 1.0, "arrow": 1.0}  # than plain, at least
DOWNLOADS = 9  # of each server, in turn
ROUNDS = 3
SECONDS = 3.0  # of downloads, one after the other, with pings meanwhile
PAUSE = 0.005  # seconds between two pings
PINGS = 300  # in a row, a measurement of the overhead
PING_ROUNDS = 31
GREEN = "greendata.web.gunicorn.GreenWorker"
CLASSES = {"plain": "gevent", "green": GREEN, "bare": GREEN}


class Cost(NamedTuple):
    """What downloads cost one server, and those who ping it.

    Attributes:
        memory: MiB that the worker held at the most, over what it held before.
        ping: seconds, p99.
    """

    memory: float
    ping: float


def rows() -> list[Row]:
    """Throughput, memory and pings of each format; what the extension costs a request that needs nothing of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        apart(__name__, str(path))
        found = [row for name in FORMATS for row in (_throughput(name, path), *_costs(name, path))]
        return [*found, _overhead(path)]


def _throughput(name: str, path: Path) -> Row:
    with ExitStack() as stack:
        servers = {app: stack.enter_context(served(app, path)) for app in ("green", "plain")}
        for server in servers.values():
            rate(server, name)
        figures = interleaved(
            {app: lambda server=server: rate(server, name) for app, server in servers.items()}, DOWNLOADS
        )
    shown = [f"{median(found) / 1e6:.0f} MB/s" for found in figures.values()]
    what = f"{_of(name)}: throughput, against plain"
    return Row(what, *shown, ratio(figures["green"], figures["plain"]), "x", FASTER[name], at_most=False)


def rate(server: Server, name: str) -> float:
    """Bytes a second of one download."""
    begun, count = perf_counter(), 0
    with server.asked(f"/{name}") as answer:
        response = answer()
        while piece := response.read(1 << 18):
            count += len(piece)
    return count / (perf_counter() - begun)


def _costs(name: str, path: Path) -> list[Row]:
    found: dict[str, list[Cost]] = {"green": [], "plain": []}

    def contender(app: str) -> Callable[[], float]:
        def run() -> float:
            found[app].append(downloads(app, name, path))
            return 0.0

        return run

    interleaved({app: contender(app) for app in found}, ROUNDS)
    memory = {app: [cost.memory for cost in costs] for app, costs in found.items()}
    pings = {app: [cost.ping for cost in costs] for app, costs in found.items()}
    shown = [f"{median(each):.0f} MiB" for each in memory.values()]
    lags = [f"{median(each) * 1e3:.1f} ms" for each in pings.values()]
    return [
        Row(f"{_of(name)}: peak memory, against plain", *shown, ratio(memory["green"], memory["plain"]), "x", 0.2),
        Row(f"{_of(name)}: ping p99 meanwhile, against plain", *lags, ratio(pings["green"], pings["plain"]), "x", 0.1),
    ]


def downloads(app: str, name: str, path: Path) -> Cost:
    """One client that downloads again and again, and one that pings."""
    with served(app, path) as server:
        with server.asked(f"/{name}?rows=1000") as answer:
            answer().read()
        worker, page = worker_of(server), f"/{name}"
        before = vitals(worker).memory
        forget_peak(worker)
        sent, pinged = drive(
            Load(server.port, [page], clients=1, seconds=SECONDS),
            Load(server.port, ["/ping"], clients=1, seconds=SECONDS + 1.0, pause=PAUSE),
        )
        assert not sent.faults
        assert not pinged.faults
        begun, ended = sent.spans[page][0][0], sent.spans[page][-1][1]
        meanwhile = [end - begin for begin, end in pinged.spans["/ping"] if end > begun and begin < ended]
        return Cost(vitals(worker).peak - before, quantile(meanwhile, 0.99))


def _overhead(path: Path) -> Row:
    """A ping with the extension and without, on connections that are kept."""
    with ExitStack() as stack:
        clients: dict[str, HTTPConnection] = {}
        for app in ("green", "bare"):
            server = stack.enter_context(served(app, path))
            clients[app] = stack.enter_context(closing(HTTPConnection("127.0.0.1", server.port)))
        figures = interleaved(
            {app: lambda client=client: pings(client) for app, client in clients.items()}, PING_ROUNDS
        )
    shown = [f"{median(found) * 1e6:.0f} us" for found in figures.values()]
    what = "HTTP, a ping in an app with GreenData, against one without"
    return Row(what, *shown, ratio(figures["green"], figures["bare"]), "x", 1.05)


def pings(client: HTTPConnection) -> float:
    """Seconds of a ping, the median of many."""
    found = []
    for _ in range(PINGS):
        begun = perf_counter()
        client.request("GET", "/ping")
        client.getresponse().read()
        found.append(perf_counter() - begun)
    return median(found)


@contextmanager
def served(app: str, path: Path) -> Iterator[Server]:
    """One of the apps on a gunicorn worker."""
    with tempfile.TemporaryDirectory() as folder:
        source = f"from tests.bench.web_app import {app} as app\n"
        arguments = ["-k", CLASSES[app], "--workers", "1", "--graceful-timeout", "2", "--keep-alive", "60"]
        server = Server(Path(folder), source, arguments, {"BENCH_ROWS": str(path)})
        try:
            server.ask("/ping")
            yield server
        finally:
            server.terminate()
            server.wait_end()


def _of(name: str) -> str:
    return f"HTTP, 1 000 000 rows of {name}"


def make_rows(path: Path) -> None:
    """Sales, the same ones every time."""
    number = pl.int_range(ROWS, dtype=pl.Int64)
    sales = pl.select(
        id=number,
        day=pl.date(2024, 1, 1) + pl.duration(days=number.hash(1) % 730),
        store="store " + (number.hash(2) % 200).cast(pl.String),
        quantity=(number.hash(3) % 9 + 1).cast(pl.Int32),
        price=((number.hash(4) % 20_000 + 50) / 100).round(2),
    )
    sales.write_parquet(path, row_group_size=GROUP)


if __name__ == "__main__":
    make_rows(Path(sys.argv[1]))
    tell({})
