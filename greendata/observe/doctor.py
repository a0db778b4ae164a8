"""The doctor: does this process do what a gevent process with Polars should?

`examine` looks at the process it is called in, so the place for it is the running server: the worker's
``post_worker_init``, or a shell in it. It changes nothing, runs no query and opens no connection. In a process that
was forked after Polars was imported, and before greendata was, it has Polars start its threads: nothing else tells
whether the parent had run a query.
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
from greendata.observe.locks import native_locks
from greendata.query.patching.fork_guard import polars_has_run, polars_was_lost
from greendata.query.patching.function_patch import diverted_for, missing_for
from greendata.query.patching.polars_threads import VARIABLE as THREADS_VARIABLE
from greendata.query.patching.polars_threads import available_cores
from greendata.startup.autopatch import VARIABLE, asks_for_patch, value_at_patch_all
from greendata.threads import sharing

__all__ = ("Finding", "Verdict", "examine", "has_failures", "report")

# Worth knowing in a report; what is not installed is left out.
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

# What blocks the whole process where a module has taken it before gevent put its own in the place.
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
    """How a finding is to be taken.

    Example:
        >>> Verdict.FAIL == "fail"
        True
    """

    OK = "ok"
    WARN = "warn"  # it works, and may be slow
    FAIL = "fail"  # requests will hang, or fail


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what.
        verdict: how it is.
        text: what was found and, unless it is ok, what to do.
    """

    name: str
    verdict: Verdict
    text: str


def has_failures(findings: Iterable[Finding]) -> bool:
    """True if one of *findings* is a failure: the exit code of the command line.

    Example:
        >>> has_failures([Finding("hub", Verdict.OK, "it turns")])
        False
    """
    return any(finding.verdict is Verdict.FAIL for finding in findings)


def report(findings: Collection[Finding]) -> str:
    """Return *findings* as text, a line each.

    Example:
        >>> print(report([Finding("hub", Verdict.OK, "it turns"), Finding("patch", Verdict.WARN, "off")]))
        ok    hub    it turns
        warn  patch  off
    """
    width = max(len(finding.name) for finding in findings)
    return "\n".join(f"{finding.verdict.value:<4}  {finding.name:<{width}}  {finding.text}" for finding in findings)


def examine(*, workers: int | None = None) -> tuple[Finding, ...]:
    """What there is to say about the calling process, in the order in which things go wrong.

    Args:
        workers: server processes on this machine; ``WEB_CONCURRENCY``, or 1, if None.

    Raises:
        BadArgument: *workers* is no whole number >= 1.

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
    text = f"not patched: {', '.join(missing)}; call gevent.monkey.patch_all() first of all, or use gunicorn -k gevent"
    return Finding("gevent patch", Verdict.WARN, text)


def _order() -> Finding | None:
    """Modules that hold a blocking function which gevent has replaced since they were imported."""
    if not is_module_patched("socket"):
        return None
    late = sorted(set(_holders()))
    if not late:
        return Finding("order of imports", Verdict.OK, "no module was imported too early for the patch")
    shown = ", ".join(f"{module} ({name})" for module, name in late[:MODULES_SHOWN])
    more = f" and {len(late) - MODULES_SHOWN} more" if len(late) > MODULES_SHOWN else ""
    text = f"imported before patch_all, so they block the hub: {shown}{more}; patch before every other import"
    return Finding("order of imports", Verdict.FAIL, text)


def _holders() -> Iterator[tuple[str, str]]:
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
    """Locks of the program that are native: under the patch a greenlet that waits for one stops its hub."""
    if not is_module_patched("threading") and not diverted_for("the pool"):
        return None
    names = native_locks()
    if not names:
        return Finding("locks", Verdict.OK, "no lock of the program was made before the patch")
    more = f" and {len(names) - MODULES_SHOWN} more" if len(names) > MODULES_SHOWN else ""
    text = (
        f"native, made before patch_all: {', '.join(names[:MODULES_SHOWN])}{more}; a greenlet that runs a query under "
        "such a lock lets others run, and the next one that wants the lock stops the hub for ever. Make it on first "
        "use, take greendata.single_flight, or, with gunicorn --preload, call patch_all at the head of gunicorn.conf.py"
    )
    return Finding("locks", Verdict.WARN, text)


def _polars_patched() -> Finding:
    if missing := missing_for("the pool"):
        text = f"this Polars lacks {', '.join(missing)}; what has taken their place blocks the hub, the rest yields"
        return Finding("Polars patch", Verdict.WARN, text)
    if diverted_for("the pool"):
        return Finding("Polars patch", Verdict.OK, "every Polars execution yields to the hub")
    text = f"plain Polars calls block the hub; greendata's verbs do not. {_why_not_patched()}"
    return Finding("Polars patch", Verdict.WARN, text)


def _native_waits() -> Finding | None:
    if not is_module_patched("threading"):
        return None
    if sharing.are_off():
        text = (
            f"off, by {sharing.VARIABLE}: a lock, a log handler or a connection that native threads share with "
            "greenlets parks them for ever"
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
    """How many Polars will start with its first query. To ask it would start them, and forking would be over."""
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
        return Finding("gevent monitor", Verdict.OK, f"on, tells of {gevent.config.max_blocking_time:g} s")
    text = "off; greendata.observe.watch_blocks() tells who blocks the hub without it"
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
