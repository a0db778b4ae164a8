"""The doctor: check that a process is set up correctly for gevent and Polars.

`examine` checks the process in which it is called. So call it in the running server: in gunicorn's
``post_worker_init``, or in a shell inside the worker. It changes nothing, runs no query and opens no connection.

There is one exception. In a process that was forked after Polars was imported and before greendata was, it has Polars
start its threads. There is no other way to find out whether the parent had run a query.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import gevent
import polars as pl

from greendata.errors.plural import counted
from greendata.hub.checks import checked_count
from greendata.internals.gevent import get_hub_if_exists
from greendata.observe.doctor import imports, patches
from greendata.observe.doctor.findings import Finding, Verdict
from greendata.observe.doctor.imports import Import
from greendata.query.patching.fork_guard import polars_has_run
from greendata.query.patching.polars_threads import VARIABLE as THREADS_VARIABLE
from greendata.query.patching.polars_threads import available_cores
from greendata.startup.environment import unknown_variables

__all__ = ("examine",)

# Packages whose versions are reported if they are installed.
PACKAGES = (
    "greendata",
    "polars",
    "gevent",
    "greenlet",
    "flask",
    "gunicorn",
    "psycopg",
    "psycopg2",
    "ray",
    "distributed",
)


def examine(*, workers: int | None = None, imported: Import | None = None) -> tuple[Finding, ...]:
    """Check the calling process, and return the findings in the order in which problems usually arise.

    Args:
        workers: server processes on this machine; ``WEB_CONCURRENCY``, or 1, if None.
        imported: what the import of the program did, if `greendata.observe.doctor.imports.watched` has watched it.

    Raises:
        BadArgument: *workers* is not a whole number >= 1.

    Example:
        >>> {finding.name: finding.verdict.value for finding in examine(workers=1)}["fork"]
        'ok'
    """
    checks: tuple[Callable[[], Finding | None], ...] = (
        patches.standard_library,
        imports.order,
        imports.native_locks_of_program,
        _settings,
        patches.polars_patch,
        patches.native_waits,
        partial(imports.psycopg, imported),
        partial(imports.psycopg2, imported),
        imports.fork,
        partial(imports.query_at_import, imported),
        partial(_threads, _count_of(workers)),
        imports.cluster_clients,
        _monitor,
        _versions,
    )
    return tuple(finding for check in checks if (finding := check()) is not None)


def _settings() -> Finding | None:
    """Find variables of the environment that have no effect."""
    unknown = unknown_variables()
    return Finding("settings", Verdict.WARN, "; ".join(unknown.values())) if unknown else None


def _threads(workers: int) -> Finding:
    cores = available_cores()
    threads = pl.thread_pool_size() if polars_has_run() else _threads_to_come(cores)
    figures = (
        f"{counted(threads, 'Polars thread')} x {counted(workers, 'process', 'processes')} on {counted(cores, 'core')}"
    )
    if threads == 1:
        return Finding("threads", Verdict.FAIL, f"{figures}: Polars can deadlock with one; set POLARS_MAX_THREADS >= 2")
    if threads * workers > max(cores, 2 * workers):
        best = max(2, cores // workers)
        return Finding("threads", Verdict.WARN, f"{figures}; set POLARS_MAX_THREADS={best} before Polars is imported")
    return Finding("threads", Verdict.OK, figures)


def _threads_to_come(cores: int) -> int:
    """Return how many threads Polars will start with its first query.

    Asking Polars would start them, and then the process could not fork any more.
    """
    given = os.environ.get(THREADS_VARIABLE, "")
    return int(given) if given.isdecimal() and int(given) else cores


def _monitor() -> Finding:
    hub = get_hub_if_exists()
    if hub is not None and hub.periodic_monitoring_thread is not None:
        return Finding("gevent monitor", Verdict.OK, f"on, reports blocks of {gevent.config.max_blocking_time:g} s")
    text = "off; without it, greendata.observe.watch_blocks() reports what blocks the hub"
    return Finding("gevent monitor", Verdict.OK, text)


def _versions() -> Finding:
    found = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return Finding("versions", Verdict.OK, ", ".join(found))


def _count_of(workers: int | None) -> int:
    if workers is None:
        given = os.environ.get("WEB_CONCURRENCY", "")
        return max(1, int(given)) if given.isdecimal() else 1
    return checked_count("workers", workers)
