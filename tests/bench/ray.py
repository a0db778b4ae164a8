"""Queries on a Ray cluster: the round trip against plain Ray, and against a child process."""

from __future__ import annotations

import os
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import polars as pl

import greendata
from greendata import ProcessEngine, RayTasks
from tests.bench.apart import apart, tell
from tests.bench.rows import Row, interleaved, ratio
from tests.support.ray_cluster import Cluster

__all__ = ("rows",)

TINY = 300  # queries in a round
ROUNDS = 5
LARGE = 12_500_000  # rows of Int64: 100 MB, which plain Ray maps from its object store, and ours copies out of it


def rows() -> list[Row]:
    """Rows of the table. Plain Ray runs in processes of its own, which gevent has not patched, in turn with ours."""
    with Cluster(nodes=1) as cluster:
        os.environ.update(cluster.environment)  # for plain Ray, as its users do
        return _rows(cluster.address)


def _rows(address: str) -> list[Row]:
    lf = pl.LazyFrame({"a": [1, 2, 3]}).select(pl.col("a").sum())
    with RayTasks(address, inner="in-memory") as ray, ProcessEngine(workers=1, inner="in-memory") as process:
        contenders: dict[str, Callable[[], float]] = {
            "greendata": lambda: _tiny(lambda: greendata.collect(lf, engine=ray).get()),
            "child": lambda: _tiny(lambda: greendata.collect(lf, engine=process).get()),
            "plain Ray": lambda: float(apart("tests.bench.ray", "tiny", address)),
        }
        tiny = interleaved(contenders, ROUNDS)
        query = pl.LazyFrame().select(a=pl.int_range(LARGE))
        large = interleaved(
            {
                "greendata": lambda: _best(lambda: greendata.collect(query, engine=ray).get()),
                "plain Ray": lambda: float(apart("tests.bench.ray", "large", address)),
            },
            ROUNDS,
        )
    trip, plain, child = (f"{median(tiny[name]) * 1e3:.2f} ms" for name in ("greendata", "plain Ray", "child"))
    shown = [f"{median(large[name]) * 1e3:.0f} ms" for name in ("greendata", "plain Ray")]
    return [
        Row(
            "a tiny query on a Ray cluster, against plain Ray",
            trip,
            plain,
            ratio(tiny["greendata"], tiny["plain Ray"]),
            "x",
            1.3,
        ),
        Row(
            "a tiny query in a child, against one on a Ray cluster",
            child,
            trip,
            ratio(tiny["child"], tiny["greendata"]),
            "x",
            0.1,
        ),
        Row(
            "a result of 100 MB from a Ray cluster, against plain Ray",
            *shown,
            ratio(large["greendata"], large["plain Ray"]),
            "x",
            3.0,
        ),
    ]


def _tiny(run: Callable[[], object]) -> float:
    """The median seconds of a call."""
    return median(_seconds(run) for _ in range(TINY))


def _best(run: Callable[[], object]) -> float:
    return min(_seconds(run) for _ in range(3))


def _seconds(run: Callable[[], object]) -> float:
    begun = perf_counter()
    run()
    return perf_counter() - begun


def _plain(part: str, address: str) -> float:
    """The same with Ray alone, as its users write it: a plan in, Arrow data out."""
    import ray

    ray.init(address, log_to_driver=False, configure_logging=False)

    @ray.remote
    def run(plan: bytes) -> Any:
        lf = pl.LazyFrame.deserialize(plan)
        return lf.collect(engine="in-memory").to_arrow(compat_level=pl.CompatLevel.newest())

    def collect(lf: pl.LazyFrame) -> Any:
        return pl.from_arrow(ray.get(run.remote(lf.serialize())), rechunk=False)

    lf = pl.LazyFrame({"a": [1, 2, 3]}).select(pl.col("a").sum())
    if part == "large":
        lf = pl.LazyFrame().select(a=pl.int_range(LARGE))
        collect(lf)
        return _best(lambda: collect(lf))
    for _ in range(20):
        collect(lf)
    return _tiny(lambda: collect(lf))


if __name__ == "__main__":
    import sys

    tell(_plain(*sys.argv[1:]))
