"""Engines, and functions that fail to make one, for children of ProcessEngine."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import polars as pl
from polars.lazyframe.query_result import SingleNodeQueryResult

__all__ = (
    "NOT_CALLABLE",
    "Base",
    "Failing",
    "Holding",
    "Odd",
    "Sleeping",
    "abrupt",
    "endless",
    "failing",
    "no_engine",
    "unruly",
)

NOT_CALLABLE = 3


class Base(pl.Engine):
    """An engine that computes in memory."""

    @property
    def name(self) -> str:
        return "of a test"

    @property
    def plan_engine(self) -> str:
        return "in-memory"

    def collect(self, lf: pl.LazyFrame, **options: Any) -> Any:
        return pl.InMemoryEngine().collect(lf, **options)

    def execute(self, lf: pl.LazyFrame, **options: Any) -> Any:
        return SingleNodeQueryResult(self.collect(lf, **options))


class Sleeping(Base):
    """It waits without an end, as a client of a cluster that does not answer."""

    def collect(self, lf: pl.LazyFrame, **_: Any) -> Any:
        _tell(lf)
        while True:
            time.sleep(60)


class Holding(Base):
    """It keeps the GIL without an end, as a client of a dead cluster has been seen to."""

    def collect(self, lf: pl.LazyFrame, **_: Any) -> Any:
        _tell(lf)
        return re.match(r"(a+)+$", "a" * 60 + "b")


class Failing(Base):
    """It raises an error whose class only it knows."""

    def collect(self, _lf: pl.LazyFrame, **_: Any) -> Any:
        class ClusterError(Exception):
            pass

        raise ClusterError("the cluster has no nodes")


class Odd(Base):
    """It returns what no engine returns."""

    def collect(self, _lf: pl.LazyFrame, **_: Any) -> Any:
        return {"a": [1]}


def failing() -> pl.Engine:
    """Raise what a client raises that cannot connect."""
    raise ConnectionRefusedError("no cluster at 127.0.0.1:1")


def endless() -> pl.Engine:
    """Try to connect without an end. The path for the process id is in the environment."""
    _write_pid(os.environ["PID_PATH"])
    while True:
        time.sleep(60)


def unruly() -> pl.Engine:
    """Raise what is no Exception."""
    raise SystemExit("the license has expired")


def abrupt() -> pl.Engine:
    """End the process."""
    os._exit(7)


def no_engine() -> object:
    """Return something else than an engine."""
    return {"engine": "none"}


def _tell(lf: pl.LazyFrame) -> None:
    """Write the id of this process to the path that is the first value of *lf*."""
    _write_pid(pl.InMemoryEngine().collect(lf, optimizations=pl.QueryOptFlags()).item())


def _write_pid(path: str) -> None:
    part = Path(f"{path}.part")
    part.write_text(str(os.getpid()))
    part.rename(path)
