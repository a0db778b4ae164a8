"""The doctor: check that a process is set up correctly for gevent and Polars.

`examine` checks the process in which it is called. So call it in the running server: in gunicorn's
``post_worker_init``, or in a shell inside the worker. It changes nothing, runs no query and opens no connection.

There is one exception. In a process that was forked after Polars was imported and before greendata was, it has Polars
start its threads. There is no other way to find out whether the parent had run a query.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version

import gevent
import polars as pl
from gevent.monkey import get_original, is_module_patched

from greendata.hub.checks import checked_count
from greendata.internals.gevent import get_hub_if_exists
from greendata.observe.doctor.locks import native_locks
from greendata.query.patching.fork_guard import polars_has_run, polars_was_lost
from greendata.query.patching.function_patch import is_patched, missing_functions
from greendata.query.patching.polars_threads import VARIABLE as THREADS_VARIABLE
from greendata.query.patching.polars_threads import available_cores
from greendata.startup.autopatch import VARIABLE, asks_for_patch, value_at_patch_all
from greendata.threads import sharing

__all__ = ("Finding", "Verdict", "examine", "has_failures", "report")

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

# Functions that block the whole process if a module has imported them before gevent replaced them.
BLOCKING = (
    ("socket", "socket"),
    ("socket", "create_connection"),
    ("ssl", "SSLContext"),
    ("select", "select"),
    ("subprocess", "Popen"),
    ("time", "sleep"),
)
MODULES_SHOWN = 5


class Verdict(StrEnum):
    """How serious a finding is.

    Example:
        >>> Verdict.FAIL == "fail"
        True
    """

    OK = "ok"
    WARN = "warn"  # it works, and may be slow
    FAIL = "fail"  # requests will hang, or fail


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        name: the name of the check.
        verdict: how serious it is.
        text: the result, and what to do about it unless it is ok.
    """

    name: str
    verdict: Verdict
    text: str


def has_failures(findings: Iterable[Finding]) -> bool:
    """Return True if one of *findings* is a failure. The command line then exits with an error.

    Example:
        >>> has_failures([Finding("hub", Verdict.OK, "it turns")])
        False
    """
    return any(finding.verdict is Verdict.FAIL for finding in findings)


def report(findings: Collection[Finding]) -> str:
    """Return *findings* as text, one line for each.

    Example:
        >>> print(report([Finding("hub", Verdict.OK, "it turns"), Finding("patch", Verdict.WARN, "off")]))
        ok    hub    it turns
        warn  patch  off
    """
    width = max(len(finding.name) for finding in findings)
    return "\n".join(f"{finding.verdict.value:<4}  {finding.name:<{width}}  {finding.text}" for finding in findings)


def examine(*, workers: int | None = None) -> tuple[Finding, ...]:
    """Check the calling process, and return the findings in the order in which problems usually arise.

    Args:
        workers: server processes on this machine; ``WEB_CONCURRENCY``, or 1, if None.

    Raises:
        BadArgument: *workers* is not a whole number >= 1.

    Example:
        >>> {finding.name: finding.verdict.value for finding in examine(workers=1)}["fork"]
        'ok'
    """
    checks: tuple[Callable[[], Finding | None], ...] = (
        _patched,
        _order,
        _locks,
        _polars_patched,
        _native_waits,
        _psycopg,
        _fork,
        lambda: _threads(_count_of(workers)),
        _cluster_clients,
        _monitor,
        _versions,
    )
    _count_of(workers)
    return tuple(finding for check in checks if (finding := check()) is not None)


def _patched() -> Finding:
    missing = [name for name in ("socket", "threading", "time", "ssl") if not is_module_patched(name)]
    if not missing:
        return Finding("gevent patch", Verdict.OK, "the standard library is cooperative")
    text = (
        f"not patched: {', '.join(missing)}; call gevent.monkey.patch_all() before all else, or use gunicorn -k gevent"
    )
    return Finding("gevent patch", Verdict.WARN, text)


def _order() -> Finding | None:
    """Find modules that imported a blocking function before gevent replaced it."""
    if not is_module_patched("socket"):
        return None
    late = sorted(set(_early_imports()))
    if not late:
        return Finding("order of imports", Verdict.OK, "no module was imported too early for the patch")
    shown = ", ".join(f"{module} ({name})" for module, name in late[:MODULES_SHOWN])
    more = f" and {len(late) - MODULES_SHOWN} more" if len(late) > MODULES_SHOWN else ""
    text = f"imported before patch_all, so they block the hub: {shown}{more}; patch before every other import"
    return Finding("order of imports", Verdict.FAIL, text)


def _early_imports() -> Iterator[tuple[str, str]]:
    originals = {
        id(original): f"{module}.{name}"
        for module, name in BLOCKING
        if (now := sys.modules.get(module)) and (original := get_original(module, name)) is not getattr(now, name)
    }
    for name, module in list(sys.modules.items()):
        package = name.partition(".")[0]
        if package not in sys.stdlib_module_names and package not in {"gevent", "greendata"}:
            for value in list(getattr(module, "__dict__", {}).values()):
                if id(value) in originals:
                    yield name, originals[id(value)]


def _locks() -> Finding | None:
    """Find native locks of the program. If Polars is patched, a greenlet that waits for one blocks its hub."""
    if not is_module_patched("threading") and not is_patched("the pool"):
        return None
    names = native_locks()
    if not names:
        return Finding("locks", Verdict.OK, "no lock of the program was made before the patch")
    more = f" and {len(names) - MODULES_SHOWN} more" if len(names) > MODULES_SHOWN else ""
    text = (
        f"native, made before patch_all: {', '.join(names[:MODULES_SHOWN])}{more}; a greenlet that runs a query under "
        "such a lock lets others run, and the next one that waits for the lock blocks the hub for ever. Make it on "
        "first use, use greendata.single_flight, or, with gunicorn --preload, call patch_all at the top of "
        "gunicorn.conf.py"
    )
    return Finding("locks", Verdict.WARN, text)


def _polars_patched() -> Finding:
    if missing := missing_functions("the pool"):
        text = f"this Polars lacks {', '.join(missing)}; what has taken their place blocks the hub, the rest yields"
        return Finding("Polars patch", Verdict.WARN, text)
    if is_patched("the pool"):
        return Finding("Polars patch", Verdict.OK, "every Polars execution yields to the hub")
    text = f"plain Polars calls block the hub; greendata's verbs do not. {_why_not_patched()}"
    return Finding("Polars patch", Verdict.WARN, text)


def _native_waits() -> Finding | None:
    if not is_module_patched("threading"):
        return None
    if sharing.are_off():
        text = (
            f"off, by {sharing.VARIABLE}: a lock, a log handler or a connection that native threads share with "
            "greenlets blocks them for ever"
        )
        return Finding("native waits", Verdict.WARN, text)
    when = "" if sharing.are_shared() else ", from the first job on"
    return Finding("native waits", Verdict.OK, f"threads without a hub share locks and sockets with greenlets{when}")


def _why_not_patched() -> str:
    value, before = os.environ.get(VARIABLE, ""), value_at_patch_all()
    asked = asks_for_patch(value)
    if asked is None:
        return f"{VARIABLE} is {value!r}, which is neither yes nor no: set it to 1"
    if not asked or (before is not None and asks_for_patch(before)):
        return f"Set {VARIABLE}=1, or call greendata.patch_polars()"
    if before is not None:
        return (
            f"{VARIABLE} was not set yet when patch_all looked at it (a .env file that the program reads comes too "
            "late): set it in the environment of the process, or call greendata.patch_polars()"
        )
    if is_module_patched("threading"):
        return (
            f"{VARIABLE} is set, and patch_all has not looked at it: only single patches of gevent were made, or "
            "greendata is not installed but only on the path. Call greendata.patch_polars()"
        )
    return (
        f"{VARIABLE} is set, but nothing has called patch_all here, which looks at it: gunicorn -k gevent does in its "
        "workers, another program calls it itself, or greendata.patch_polars()"
    )


def _psycopg() -> Finding | None:
    if not is_module_patched("socket"):
        return None
    if "psycopg" in sys.modules:
        waiting = getattr(sys.modules.get("psycopg.waiting"), "wait", None)
        if getattr(waiting, "__name__", "") == "wait_c":
            return Finding("psycopg", Verdict.FAIL, "it blocks the hub: import it after patch_all")
        return Finding("psycopg", Verdict.OK, "it waits cooperatively")
    if "psycopg2" in sys.modules:
        extensions = sys.modules.get("psycopg2.extensions")
        if extensions is None or extensions.get_wait_callback() is None:
            return Finding("psycopg2", Verdict.FAIL, "it blocks the hub: use psycogreen, or psycopg 3")
        return Finding("psycopg2", Verdict.OK, "it waits by a callback")
    return None


def _fork() -> Finding:
    if polars_was_lost():
        text = (
            "this process was forked after Polars ran, and no query can run here; run none before the fork (--preload)"
        )
        return Finding("fork", Verdict.FAIL, text)
    if polars_has_run():
        return Finding("fork", Verdict.OK, "Polars has run here: a process forked from this one could run no query")
    return Finding("fork", Verdict.OK, "Polars has not run here yet")


def _threads(workers: int) -> Finding:
    cores = available_cores()
    threads = pl.thread_pool_size() if polars_has_run() else _threads_to_come(cores)
    figures = f"{threads} Polars threads x {workers} processes on {cores} cores"
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


def _cluster_clients() -> Finding | None:
    found = [name for name in ("ray", "distributed") if name in sys.modules]
    if not found or not is_module_patched("socket"):
        return None
    text = f"{' and '.join(found)} hang in a patched process, from any thread; use them in an unpatched child process"
    return Finding("cluster clients", Verdict.FAIL, text)


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
