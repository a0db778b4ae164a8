"""Many tiny queries: what the way through the pool costs."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter

import gevent
import polars as pl
from gevent.threadpool import ThreadPool

import greendata
from tests.bench.rows import Row, interleaved, ratio

__all__ = ("rows",)

GREENLETS = 200
IN_A_ROW = 300
ROUNDS = 40


def rows() -> list[Row]:
    """200 greenlets at once with a 3-row query each, and one greenlet with one query after the other."""
    lf = pl.LazyFrame({"a": [1, 2, 3]}).select(pl.col("a").sum())
    threads = ThreadPool(greendata.configure().max_workers)
    queries: dict[str, Callable[[], object]] = {
        "greendata": lambda: greendata.collect(lf, engine="in-memory").get(),
        "inline": lambda: lf.collect(engine="in-memory"),
        "collect_async": lambda: lf.collect_async(gevent=True, engine="in-memory").get(),
        "ThreadPool": lambda: threads.apply(lf.collect, kwds={"engine": "in-memory"}),
    }
    for query in queries.values():
        at_once(query)
    together = interleaved({name: lambda q=query: at_once(q) for name, query in queries.items()}, ROUNDS)
    alone = ("greendata", "ThreadPool")
    in_a_row = interleaved({name: lambda q=queries[name]: one_by_one(q) for name in alone}, ROUNDS)
    threads.kill()
    what = f"{GREENLETS} tiny queries at once, per query, against"
    found = [
        against(f"{what} {peer}", together, peer, bound)
        for peer, bound in (("inline", 1.6), ("collect_async", 0.6), ("ThreadPool", 0.6))
    ]
    return [*found, against("tiny queries one by one, against ThreadPool", in_a_row, "ThreadPool", 1.0)]


def at_once(query: Callable[[], object]) -> float:
    """Seconds a query."""
    begun = perf_counter()
    gevent.joinall([gevent.spawn(query) for _ in range(GREENLETS)], raise_error=True)
    return (perf_counter() - begun) / GREENLETS


def one_by_one(query: Callable[[], object]) -> float:
    """Seconds a query."""
    begun = perf_counter()
    for _ in range(IN_A_ROW):
        query()
    return (perf_counter() - begun) / IN_A_ROW


def against(what: str, figures: dict[str, list[float]], peer: str, bound: float) -> Row:
    ours, theirs = figures["greendata"], figures[peer]
    shown = [f"{median(seconds) * 1e6:.1f} us" for seconds in (ours, theirs)]
    return Row(what, *shown, ratio(ours, theirs), "x", bound)
