"""A million rows over HTTP as NDJSON, CSV and Arrow, against the same views written plainly with Flask and Polars.

Each server, and each kind of client, is a process of its own. The plain views run under ``gunicorn -k gevent``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from time import perf_counter

import polars as pl

from examples.demo.figures import quantile
from tests.bench.apart import apart, tell
from tests.bench.rows import Row, interleaved, ratio
from tests.load import Load, drive
from tests.servers import Server
from tests.service import forget_peak, vitals, worker_of

__all__ = ("rows",)

ROWS = 1_000_000
FORMATS = ("ndjson", "csv", "arrow")
ROUNDS = 1
SECONDS = 3.0  # of downloads, one after the other
ENV: dict[str, str] = {}
PAUSE = 0.005  # seconds between two pings
PINGS = 500  # in a row, a measurement of the overhead
PING_ROUNDS = 31
CLASSES = {"plain": "gevent", "green": "greendata.web.gunicorn.GreenWorker", "bare": "greendata.web.gunicorn.GreenWorker"}


@dataclass(frozen=True, slots=True)
class Figures:
    """What one server did in one round."""

    rate: float  # bytes a second
    memory: float  # MiB that the worker held at the most, over what it held before
    ping: float  # seconds, p99, while it sent


def rows() -> list[Row]:
    """Throughput, memory and pings of each format; what the extension costs a request that needs nothing of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        apart(__name__, str(path))
        found = [row for name in FORMATS for row in _format_rows(name, path)]
        return [*found, _overhead(path)]


def _format_rows(name: str, path: Path) -> list[Row]:
    figures: dict[str, list[Figures]] = {"green": [], "plain": []}

    def contender(app: str) -> Callable[[], float]:
        def run() -> float:
            figures[app].append(downloads(app, name, path))
            return 0.0

        return run

    interleaved({app: contender(app) for app in figures}, ROUNDS)
    rates, memory, pings = (
        {app: [getattr(each, kind) for each in found] for app, found in figures.items()}
        for kind in ("rate", "memory", "ping")
    )
    what = f"HTTP, {ROWS:,} rows of {name}".replace(",", " ")
    return [
        _row(f"{what}: throughput, against plain", rates, 1e-6, "MB/s", 2.0 if name == "ndjson" else 1.0, at_most=False),
        _row(f"{what}: peak memory, against plain", memory, 1.0, "MiB", 0.2),
        _row(f"{what}: ping p99 meanwhile, against plain", pings, 1e3, "ms", 0.1),
    ]


def _row(
    what: str, figures: dict[str, list[float]], scale: float, unit: str, bound: float, *, at_most: bool = True
) -> Row:
    shown = [f"{median(figures[app]) * scale:.1f} {unit}" for app in ("green", "plain")]
    return Row(what, *shown, ratio(figures["green"], figures["plain"]), "x", bound, at_most=at_most)


def downloads(app: str, name: str, path: Path) -> Figures:
    """One client that downloads again and again, and one that pings."""
    with served(app, path) as server:
        with server.asked(f"/{name}?rows=1000") as answer:
            answer().read()
        worker = worker_of(server)
        before = vitals(worker).memory
        forget_peak(worker)
        page = f"/{name}"
        sent, pinged = drive(
            Load(server.port, [page], clients=1, seconds=SECONDS),
            Load(server.port, ["/ping"], clients=1, seconds=SECONDS + 1.0, pause=PAUSE),
        )
        assert not sent.faults
        assert not pinged.faults
        spans = sent.spans[page]
        begun, ended = spans[0][0], spans[-1][1]
        pings = [end - begin for begin, end in pinged.spans["/ping"] if end > begun and begin < ended]
        rate = sent.received / sum(end - begin for begin, end in spans)
        return Figures(rate, vitals(worker).peak - before, quantile(pings, 0.99))


def _overhead(path: Path) -> Row:
    """A ping with the extension and without, on connections that are kept."""
    with ExitStack() as stack:
        clients = {}
        for app in ("green", "bare"):
            server = stack.enter_context(served(app, path))
            clients[app] = stack.enter_context(closing(HTTPConnection("127.0.0.1", server.port)))
        figures = interleaved({app: lambda client=client: pings(client) for app, client in clients.items()}, PING_ROUNDS)
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
        server = Server(Path(folder), source, arguments, {"BENCH_ROWS": str(path), **ENV})
        try:
            server.ask("/ping")
            yield server
        finally:
            server.terminate()
            server.wait_end()


def make_rows(path: Path) -> None:
    """Sales, the same ones every time."""
    number = pl.int_range(ROWS, dtype=pl.Int64)
    pl.select(
        id=number,
        day=pl.date(2024, 1, 1) + pl.duration(days=number.hash(1) % 730),
        store="store " + (number.hash(2) % 200).cast(pl.String),
        quantity=(number.hash(3) % 9 + 1).cast(pl.Int32),
        price=((number.hash(4) % 20_000 + 50) / 100).round(2),
    ).write_parquet(path)


if __name__ == "__main__":
    import sys

    make_rows(Path(sys.argv[1]))
    tell({})
