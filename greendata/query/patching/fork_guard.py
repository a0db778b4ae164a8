"""Detect that a fork has lost Polars' threads, and make every query in the child raise `PolarsForked`.

Polars' threads do not survive a fork, and a query in the child waits for them silently forever (the warning was
removed: github.com/pola-rs/polars/pull/20309). So if a process has Polars threads when it forks, every execution in
the child raises `PolarsForked` at once, in the verbs and in plain ``lf.collect()`` calls.

    parent   import polars ── this module ── a query ── fork ── continues
    child                                                 └──── every execution raises

The parent may never load greendata, for example gunicorn's master with ``--preload -k gevent``. Then this module is
loaded in the child, by gevent's `patch_all`, and finds Polars imported but without threads. The parent may have run a
query or not. The first execution in the child finds out: it asks Polars for the size of its thread pool. That starts
the threads, unless Polars believes that they run already. If no thread was started, they were lost.

    parent   import polars ── a query ── fork ── continues
    child                                  └──── patch_all ── this module ── a query: no threads, it raises

Resolving a schema starts fewer threads, those of a tokio runtime for files and object stores. They are lost by a fork
too. Other libraries have such runtimes with the same thread names. So a child that inherits a runtime is undecided,
and its first execution resolves a schema. If that starts no threads, Polars believes that its runtime exists, and the
runtime was lost.

Every program that imports greendata and Polars loads this module. It imports the pool only for a fork after a query.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Set
from importlib import import_module
from pathlib import Path
from typing import Any

import polars as pl

from greendata.hub import native
from greendata.startup.importing import is_being_imported, when_imported

__all__ = ("POLARS_THREADS", "polars_has_run", "polars_was_lost")

POLARS_THREADS = ("polars-", "async-executor-", "tokio-rt-worker")  # as Polars 2.0 and 2.1 name them
OTHER_THREADS = ("jemalloc_bg_thd",)  # of Polars' allocator; they start with the import
TOKIO_THREADS = "tokio-rt-worker"  # of Polars, or of any other library that uses tokio

# A thread sets its name once it runs. That may be 100 us after a first small query has returned, or later on a busy
# machine. So `polars_has_run` waits for unknown threads. It waits long for a thread that has hardly run yet. It waits a
# short time for a young thread that sleeps, because that is probably an unnamed thread of another library.
PAUSE = 0.001  # seconds
PAUSES = 50
MOST_PAUSES = 2000
YOUNG = 1.0  # seconds
BARELY_RUN = 1_000_000  # nanoseconds of processor time

FORKED_WITHOUT_EXEC = 0x40  # PF_FORKNOEXEC of Linux, in the flags of proc(5), /proc/pid/stat
EDGE_TRIGGERED = 0x80000000  # EPOLLET, which tokio uses; gevent and Python do not

_threads_lost = False  # Polars' threads ran at the fork; written by the fork hooks
_runtime_seen = False  # a tokio runtime existed at the fork; written by the fork hooks
_failing = False  # Polars' threads were lost, here or in an ancestor; set to True once, on any thread
# What a fork may have lost. Written when this module is imported and in the child of a fork, and emptied once while
# _check_lock is held; read on any thread.
_undecided: frozenset[str] = frozenset()
_check_lock = native.allocate_lock()
_THREADS, _RUNTIME = "threads", "runtime"


def polars_has_run() -> bool:
    """Return True if Polars has started its threads, here or before the fork. They start with the first query.

    Example:
        >>> import polars as pl
        >>> _ = pl.LazyFrame({"a": [1]}).collect()
        >>> polars_has_run()
        True
    """
    if _threads_lost or _failing:
        return True
    for pauses in range(MOST_PAUSES):
        names = native.thread_names()
        if not names:  # no /proc: only the queries of the pool are known
            pool = sys.modules.get("greendata.pool.pool")
            return pool is not None and pool.stats().done > 0
        if any(name.startswith("polars-") and name[7:].isdigit() for name in names.values()):
            return True
        unknown = [task for task, name in names.items() if not name.startswith((*POLARS_THREADS, *OTHER_THREADS))]
        if len(unknown) <= len(sys._current_frames()):
            return False
        if not any(_is_about_to_run(task) or (pauses < PAUSES and _is_young(task)) for task in unknown):
            return False
        native.sleep(PAUSE)  # there are unknown threads, which Polars may have just started
    return False


def polars_was_lost() -> bool:
    """Return True if this process was forked after Polars had run. Then every execution raises `PolarsForked`.

    If the process was forked before greendata was imported, the check makes Polars start its threads.

    Example:
        >>> polars_was_lost()
        False
    """
    if _undecided:
        _check_undecided()
    return _failing


def _before_fork() -> None:
    global _threads_lost, _runtime_seen
    _threads_lost = polars_has_run()
    _runtime_seen = not _threads_lost and _tokio_runs()
    if _threads_lost or _runtime_seen:
        _polars_forked().prepare()


def _after_fork_in_parent() -> None:
    global _threads_lost
    _threads_lost = _failing


def _after_fork_in_child() -> None:
    global _check_lock
    _check_lock = native.allocate_lock()
    if _threads_lost and not _failing:
        _fail_all()
    elif _runtime_seen:
        _check_at_first_execution({_RUNTIME})


def _polars_forked() -> Any:
    """Return the module that makes executions raise. The parent imports it: in the child an import lock may be held."""
    return import_module("greendata.query.patching.polars_forked")


def _fail_all() -> None:
    global _failing
    _failing = True
    _polars_forked().fail_all()


def _check_at_first_execution(lost: Set[str]) -> None:
    """Have the first execution check whether Polars has lost any of *lost*."""
    global _undecided
    _undecided |= lost
    if _undecided:
        _polars_forked().fail_if(polars_was_lost)


def _check_undecided() -> None:
    """Find out, once, whether Polars has lost its threads. If so, make every execution raise."""
    global _undecided
    with _check_lock:
        if not _undecided:
            return
        lost = _THREADS in _undecided and not _starts(pl.thread_pool_size) and not polars_has_run()
        lost = lost or (_RUNTIME in _undecided and not _starts(_polars_forked().resolve_schema) and not _tokio_runs())
        _undecided = frozenset()
        if lost:
            _fail_all()


def _starts(func: Callable[[], object]) -> bool:
    """Return True if *func* starts threads other than the allocator's. They exist when it returns, named or not.

    Return True too if *func* returns False, which means that it could not do its work.
    """
    before = native.thread_names()
    if func() is False:
        return True
    started = [name for task, name in native.thread_names().items() if task not in before]
    return any(name not in OTHER_THREADS for name in started)


def _tokio_runs() -> bool:
    return any(name.startswith(TOKIO_THREADS) for name in native.thread_names().values())


def _inherits_runtime() -> bool:
    """Return True if there is an epoll instance of tokio. In a process that was just forked, the parent created it."""
    return any(map(_is_edge_triggered, os.listdir("/proc/self/fdinfo")))


def _is_edge_triggered(descriptor: str) -> bool:
    try:
        lines = Path("/proc/self/fdinfo", descriptor).read_text(encoding="ascii").splitlines()
        events = [int(line.split()[3], 16) for line in lines if line.startswith("tfd:")]  # proc(5), of an epoll
    except (OSError, IndexError, ValueError):  # it was closed meanwhile
        return False
    return any(event & EDGE_TRIGGERED for event in events)


def _is_forked() -> bool:
    """Return True if this process is a fork without an exec since. Return False if that cannot be found out."""
    try:
        return bool(int(_stat_of("self")[6]) & FORKED_WITHOUT_EXEC)
    except (OSError, IndexError, ValueError):
        return False


def _is_young(task: int) -> bool:
    try:
        began = int(_stat_of(f"self/task/{task}")[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):  # it has ended
        return False
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began < YOUNG


def _is_about_to_run(task: int) -> bool:
    try:
        on_processor = int(Path(f"/proc/self/task/{task}/schedstat").read_text(encoding="ascii").split()[0])
        return _stat_of(f"self/task/{task}")[0] != "S" and on_processor < BARELY_RUN
    except (OSError, IndexError, ValueError):  # it has ended, or this kernel does not provide it
        return False


def _stat_of(task: str) -> list[str]:
    """Return the fields of /proc/pid/stat, see proc(5), from the third on."""
    return Path("/proc", task, "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()


def _register_inline_threads() -> None:
    sys.modules["greendata.pool.workers"].register_inline_threads(*POLARS_THREADS)


when_imported("greendata.pool.workers", _register_inline_threads)
os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
if not is_being_imported("polars") and _is_forked() and not polars_has_run():
    _check_at_first_execution({_THREADS, _RUNTIME} if _inherits_runtime() else {_THREADS})
