"""What a fork does to Polars, and how the child gets to know.

Polars' threads do not survive a fork, and a query in the child waits for them silently, for ever (the warning was
removed: github.com/pola-rs/polars/pull/20309). So a process that has Polars threads when it forks leaves its child
a refusal: every execution there raises `PolarsForked` at once, the verbs and plain ``lf.collect()`` alike.

    parent   import polars ── this module ── a query ── fork ── goes on
    child                                                 └──── refuses from its first moment

Where the parent never loads greendata, as gunicorn's master with ``--preload -k gevent``, this module comes into the
child only, with gevent's `patch_all`, and finds Polars imported and no threads of it. Then the parent has run a query
or it has not. The child's first execution tells: it asks Polars for the size of its thread pool, which starts the
threads unless Polars believes that they run. If none has come, they were lost.

    parent   import polars ── a query ── fork ── goes on
    child                                  └──── patch_all ── this module ── a query: no threads, it refuses

Every program that imports greendata and Polars loads this module. It loads the pool only to fork after a query.
"""

from __future__ import annotations

import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import polars as pl

from greendata.hub import native
from greendata.start.importing import is_being_imported, when_imported

__all__ = ("POLARS_THREADS", "polars_has_run", "polars_was_lost")

POLARS_THREADS = ("polars-", "async-executor-", "tokio-rt-worker")  # as Polars 2.0 and 2.1 name them
OTHER_THREADS = ("jemalloc_bg_thd",)  # of Polars' allocator: they come with the import

# A thread names itself once it runs, some 100 us after a first tiny query may have returned already, or much later on a
# busy machine. So a thread that nobody knows is waited for: one that has hardly had the processor yet for long; one
# that sleeps already while it is young and for a short time, for it is likely another library's, without a name.
PAUSE = 0.001  # seconds
PAUSES = 50
MOST_PAUSES = 2000
YOUNG = 1.0  # seconds
HARDLY = 1_000_000  # nanoseconds on the processor

FORKED_WITHOUT_EXEC = 0x40  # PF_FORKNOEXEC of Linux, in the flags of proc(5), /proc/pid/stat

_threads_lost = False  # written by the fork hooks, in a process with one thread
_refusing = False  # this process, or one it was forked from, lost Polars' threads; goes to True once, on any thread
_undecided = False  # this process came here by a fork that we did not see; goes to False once, under _deciding
_deciding = native.allocate_lock()


def polars_has_run() -> bool:
    """True if Polars has started its threads, here or before the fork; they start with the first query.

    Example:
        >>> import polars as pl
        >>> _ = pl.LazyFrame({"a": [1]}).collect()
        >>> polars_has_run()
        True
    """
    if _threads_lost or _refusing:
        return True
    for pauses in range(MOST_PAUSES):
        names = native.thread_names()
        if not names:  # no /proc here: what went through the pool is all we know of
            pool = sys.modules.get("greendata.hub.pool")
            return pool is not None and pool.stats().done > 0
        if any(name.startswith("polars-") and name[7:].isdigit() for name in names.values()):
            return True
        unknown = [task for task, name in names.items() if not name.startswith((*POLARS_THREADS, *OTHER_THREADS))]
        if len(unknown) <= len(sys._current_frames()):
            return False
        if not any(_is_about_to_run(task) or (pauses < PAUSES and _is_young(task)) for task in unknown):
            return False
        native.sleep(PAUSE)  # there are threads of neither Python nor a known name: Polars' may be just born
    return False


def polars_was_lost() -> bool:
    """True if this process was forked after Polars had run, so that every execution raises `PolarsForked`.

    In a process that was forked before greendata was imported, this asks Polars, which starts its threads.

    Example:
        >>> polars_was_lost()
        False
    """
    if _undecided:
        _decide()
    return _refusing


def _before_fork() -> None:
    global _threads_lost
    _threads_lost = polars_has_run()
    if _threads_lost:
        _refusal()


def _after_fork_in_parent() -> None:
    global _threads_lost
    _threads_lost = _refusing


def _after_fork_in_child() -> None:
    global _deciding
    _deciding = native.allocate_lock()
    if _threads_lost and not _refusing:
        _refuse_all()


def _refusal() -> Any:
    """The module that refuses. It is not imported in the child, where a lost thread may hold the lock of an import."""
    return import_module("greendata.frames.refusal")


def _refuse_all() -> None:
    global _refusing
    _refusing = True
    _refusal().refuse_all()


def _doubt() -> None:
    """Have the first execution look whether Polars has threads, if this process may have lost them unseen."""
    global _undecided
    if _is_forked() and not polars_has_run():
        _undecided = True
        _refusal().refuse_if(polars_was_lost)


def _decide() -> None:
    """Find out, once, whether Polars has lost its threads; refuse every execution if so."""
    global _undecided
    with _deciding:
        if _undecided:
            before = native.thread_names()
            pl.thread_pool_size()  # which starts the threads, unless Polars believes that they run
            born = {task: name for task, name in native.thread_names().items() if task not in before}
            lost = all(name in OTHER_THREADS for name in born.values()) and not polars_has_run()
            _undecided = False
            if lost:
                _refuse_all()


def _is_forked() -> bool:
    """True if this process began as a fork and has not become another program since; False where it cannot be known."""
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
        return _stat_of(f"self/task/{task}")[0] != "S" and on_processor < HARDLY
    except (OSError, IndexError, ValueError):  # it has ended, or this kernel does not tell
        return False


def _stat_of(task: str) -> list[str]:
    """The fields of proc(5), /proc/pid/stat, from the third on."""
    return Path("/proc", task, "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()


def _tell_the_workers() -> None:
    sys.modules["greendata.hub.crew"].inline_on(*POLARS_THREADS)


when_imported("greendata.hub.crew", _tell_the_workers)
os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
if not is_being_imported("polars"):
    _doubt()
