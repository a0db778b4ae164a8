"""The demo's service under gunicorn, with reports and pings at once."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from examples.demo import Load, Run, measure
from tests.bench.rows import Row, interleaved, rate_row, ratio

__all__ = ("rows",)

LOAD = Load(seconds=6.0, report_clients=4, ping_clients=2)
ROUNDS = 3
CONTENDERS = {
    "plain": ("examples.legacy_app:app", "0"),
    "greendata": ("examples.legacy_app:app", "1"),
    "collect_async": ("tests.bench.async_app:app", "0"),
    "ThreadPool": ("tests.bench.pool_app:app", "0"),
}


def rows() -> list[Row]:
    """Ping p99 and reports a second: the service as it is, with greendata, and rewritten with other means."""
    runs: dict[str, list[Run]] = {name: [] for name in CONTENDERS}

    def contender(name: str, app: str, autopatch: str) -> Callable[[], float]:
        def run() -> float:
            runs[name].append(measure(name, LOAD, app=app, env={"GREENDATA_AUTOPATCH": autopatch}))
            return 0.0

        return run

    interleaved({name: contender(name, *how) for name, how in CONTENDERS.items()}, ROUNDS)
    pings = {name: [run.outcome.ping_seconds(0.99) for run in found] for name, found in runs.items()}
    reports = {name: [run.outcome.reports_per_second for run in found] for name, found in runs.items()}
    return [
        _ping_row("plain", pings, 0.02),
        _ping_row("collect_async", pings, 0.6),
        _ping_row("ThreadPool", pings, 0.6),
        *(_rate_row(peer, reports) for peer in CONTENDERS if peer != "greendata"),
    ]


def _ping_row(peer: str, pings: dict[str, list[float]], bound: float) -> Row:
    shown = [f"{median(pings[name]) * 1e3:.1f} ms" for name in ("greendata", peer)]
    what = f"HTTP, 4 report and 2 ping clients: ping p99, against {peer}"
    return Row(what, *shown, ratio(pings["greendata"], pings[peer]), "x", bound)


def _rate_row(peer: str, reports: dict[str, list[float]]) -> Row:
    return rate_row(f"HTTP, 4 report and 2 ping clients: reports a second, against {peer}", reports, peer, 0.95)
