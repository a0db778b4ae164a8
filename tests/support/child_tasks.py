"""Functions that tests run in child processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl

__all__ = ("abort", "allocate", "exit_with", "fail", "hold", "held_query", "process_ids", "write_to_stderr")


def hold(path: str) -> None:
    """Write the process id to *path*, and do not return. A test ends the process."""
    part = Path(f"{path}.part")
    part.write_text(str(os.getpid()))
    part.rename(path)
    while True:
        time.sleep(60)


def held_query(path: str) -> pl.LazyFrame:
    """Return a query that holds, see `hold`, with the GIL of its process released."""

    def wait(series: pl.Series) -> Any:
        hold(path)
        return series

    return pl.LazyFrame({"a": [1]}).select(pl.col("a").map_batches(wait, return_dtype=pl.Int64))


def exit_with(status: int) -> None:
    """End the process without any clean-up."""
    sys.stderr.write("the last words\n")
    sys.stderr.flush()
    os._exit(status)


def abort() -> None:
    """End the process as a crash in native code does."""
    os.kill(os.getpid(), signal.SIGSEGV)


class Unruly(Exception):
    """An error that cannot be pickled."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__("unruly")
        self.lock = (lambda: a + b).__code__


def fail() -> None:
    """Raise an error that cannot be pickled."""
    raise Unruly(1, 2)


def allocate(step: int, steps: int) -> int:
    """Hold *steps* pieces of *step* bytes of memory that is written to."""
    pieces = [b"x" * step for _ in range(steps)]
    return sum(map(len, pieces))


def write_to_stderr(size: int) -> None:
    """Write *size* bytes."""
    sys.stderr.write("e" * size)
    sys.stderr.flush()


def process_ids() -> pl.LazyFrame:
    """Return a query whose one value is the id of the process that runs it."""
    return pl.LazyFrame({"pid": [0]}).select(pl.col("pid").map_batches(_process_id, return_dtype=pl.Int64))


def _process_id(series: pl.Series) -> Any:
    return series + os.getpid()
