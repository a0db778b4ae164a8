"""Limit the number of Polars threads if several processes share the cores of one machine."""

from __future__ import annotations

import os

import polars as pl

from greendata.query.patching.fork_guard import polars_has_run

__all__ = ("VARIABLE", "available_cores", "limit_polars_threads", "share_of_cores")

VARIABLE = "POLARS_MAX_THREADS"
FEWEST = 2  # with one thread Polars can deadlock


def share_of_cores(processes: int) -> int:
    """Return the number of threads for each of *processes* that share the cores of this process.

    Example:
        >>> share_of_cores(10_000)
        2
    """
    return max(FEWEST, available_cores() // max(1, processes))


def available_cores() -> int:
    """Return the number of cores that this process may run on.

    Example:
        >>> available_cores() >= 1
        True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_polars_threads(count: int) -> bool:
    """Have Polars start *count* threads with its first query, unless the environment sets a number.

    Return False if Polars has started its threads already. Until then Polars reads the variable when it is imported,
    and again on request.

    Example:
        >>> import os
        >>> _ = os.environ.setdefault("POLARS_MAX_THREADS", "4")
        >>> limit_polars_threads(2), os.environ["POLARS_MAX_THREADS"] == "2"
        (True, False)
    """
    if os.environ.get(VARIABLE):
        return True
    if polars_has_run():
        return False
    os.environ[VARIABLE] = str(count)
    pl.Config.reload_env_vars()
    return True
