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

To read a schema starts fewer threads, those of a tokio runtime for files and object stores, and they are missed as
much. Other libraries have such runtimes too, with the same names. So a child that inherits one is in doubt, and its
first execution resolves a schema: if that starts no threads, Polars believes in its runtime, and it was lost.

Every program that imports greendata and Polars loads this module. It loads the pool only to fork after a query.
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
OTHER_THREADS = ("jemalloc_bg_thd",)  # of Polars' allocator: they come with the import
TOKIO_THREADS = "tokio-rt-worker"  # of Polars, and of any other library with the same runtime

# A thread names itself once it runs, some 100 us after a first tiny query may have returned already, or much later on a
# busy machine. So a thread that nobody knows is waited for: one that has hardly had the processor yet for long; one
# that sleeps already while it is young and for a short time, for it is likely another library's, without a name.
PAUSE = 0.001  # seconds
PAUSES = 50
MOST_PAUSES = 2000
YOUNG = 1.0  # seconds
HARDLY = 1_000_000  # nanoseconds on the processor

FORKED_WITHOUT_EXEC = 0x40  # PF_FORKNOEXEC of Linux, in the flags of proc(5), /proc/pid/stat
EDGE_TRIGGERED = 0x80000000  # EPOLLET: so tokio polls, and neither gevent nor Python do

_threads_lost = False  # written by the fork hooks, in a process with one thread
_runtime_seen = False  # a tokio runtime was there at the fork; written by the fork hooks
_refusing = False  # this process, or one it was forked from, lost Polars' threads; goes to True once, on any thread
# What may have been lost at a fork. Written when this module is imported and in the child of a fork, and emptied once,
# under _deciding; read on any thread.
_undecided: frozenset[str] = frozenset()
_deciding = native.allocate_lock()
_THREADS, _RUNTIME = "threads", "runtime"


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
            pool = sys.modules.get("greendata.pool.pool")
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
    global _threads_lost, _runtime_seen
    _threads_lost = polars_has_run()
    _runtime_seen = not _threads_lost and _tokio_runs()
    if _threads_lost or _runtime_seen:
        _refusal()


def _after_fork_in_parent() -> None:
    global _threads_lost
    _threads_lost = _refusing


def _after_fork_in_child() -> None:
    global _deciding
    _deciding = native.allocate_lock()
    if _threads_lost and not _refusing:
        _refuse_all()
    elif _runtime_seen:
        _doubt({_RUNTIME})


def _refusal() -> Any:
    """The module that refuses. It is not imported in the child, where a lost thread may hold the lock of an import."""
    return import_module("greendata.query.patching.refusal")


def _refuse_all() -> None:
    global _refusing
    _refusing = True
    _refusal().refuse_all()


def _doubt(lost: Set[str]) -> None:
    """Have the first execution look whether Polars has lost what it may have lost."""
    global _undecided
    _undecided |= lost
    if _undecided:
        _refusal().refuse_if(polars_was_lost)


def _decide() -> None:
    """Find out, once, whether Polars has lost its threads; refuse every execution if so."""
    global _undecided
    with _deciding:
        if not _undecided:
            return
        lost = _THREADS in _undecided and not _starts(pl.thread_pool_size) and not polars_has_run()
        lost = lost or (_RUNTIME in _undecided and not _starts(_refusal().resolve_a_schema) and not _tokio_runs())
        _undecided = frozenset()
        if lost:
            _refuse_all()


def _starts(func: Callable[[], object]) -> bool:
    """Whether *func* starts threads that are not the allocator's; they are there when it returns, named or not.

    True as well if it returns False, which says that it could not do its work.
    """
    before = native.thread_names()
    if func() is False:
        return True
    born = [name for task, name in native.thread_names().items() if task not in before]
    return any(name not in OTHER_THREADS for name in born)


def _tokio_runs() -> bool:
    return any(name.startswith(TOKIO_THREADS) for name in native.thread_names().values())


def _inherits_a_runtime() -> bool:
    """True if there is a poller as tokio makes it; with this process just forked, it is one that the parent had."""
    return any(map(_is_edge_triggered, os.listdir("/proc/self/fdinfo")))


def _is_edge_triggered(descriptor: str) -> bool:
    try:
        lines = Path("/proc/self/fdinfo", descriptor).read_text(encoding="ascii").splitlines()
        events = [int(line.split()[3], 16) for line in lines if line.startswith("tfd:")]  # proc(5), of an epoll
    except (OSError, IndexError, ValueError):  # it is closed meanwhile
        return False
    return any(event & EDGE_TRIGGERED for event in events)


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
    sys.modules["greendata.pool.workers"].inline_on(*POLARS_THREADS)


when_imported("greendata.pool.workers", _tell_the_workers)
os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
if not is_being_imported("polars") and _is_forked() and not polars_has_run():
    _doubt({_THREADS, _RUNTIME} if _inherits_a_runtime() else {_THREADS})
