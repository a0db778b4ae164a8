"""What a fork does to Polars, and how the child gets to know.

Polars' threads do not survive a fork, and a query in the child waits for them silently, for ever (the warning was
removed: github.com/pola-rs/polars/pull/20309). So a process that has Polars threads when it forks leaves its child
a refusal: every execution there raises `PolarsForked` at once, the verbs and plain ``lf.collect()`` alike.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from greendata.errors import PolarsForked
from greendata.frames.seam import EXECUTIONS, HANDOFFS, Seam
from greendata.hub import crew, native, pool

__all__ = ("POLARS_THREADS", "polars_has_run", "polars_was_lost")

POLARS_THREADS = ("polars-", "async-executor-", "tokio-rt-worker")  # as Polars 2.0 and 2.1 name them

# A thread names itself once it runs, some 100 us after a first tiny query may have returned already; so a thread that
# nobody knows gets that time. Threads of other libraries that keep no name of their own cost each fork all of it.
PAUSE = 0.001  # seconds
PAUSES = 50

_threads_lost = False  # written by the fork hooks, in a process with one thread


def polars_has_run() -> bool:
    """True if Polars has started its threads, here or before the fork; they start with the first query.

    Example:
        >>> import polars as pl
        >>> _ = pl.LazyFrame({"a": [1]}).collect()
        >>> polars_has_run()
        True
    """
    if _threads_lost:
        return True
    for _ in range(PAUSES):
        names = native.thread_names().values()
        if not names:  # no /proc here: what went through the pool is all we know of
            return pool.stats().done > 0
        if any(name.startswith("polars-") and name[7:].isdigit() for name in names):
            return True
        known = sum(name.startswith((*POLARS_THREADS, "jemalloc_bg_thd")) for name in names)
        if len(names) <= known + len(sys._current_frames()):
            return False
        _nobody.acquire(timeout=PAUSE)  # there are threads of neither Python nor a known name: Polars' may be just born
    return False


def polars_was_lost() -> bool:
    """True if this process was forked after Polars had run, so that every execution raises `PolarsForked`.

    Example:
        >>> polars_was_lost()
        False
    """
    return _refusing


def _before_fork() -> None:
    global _threads_lost
    _threads_lost = polars_has_run()


def _after_fork_in_parent() -> None:
    global _threads_lost
    _threads_lost = _refusing


def _after_fork_in_child() -> None:
    global _refusing
    if _threads_lost and not _refusing:
        _refusing = True
        pool.refuse(PolarsForked)
        Seam(EXECUTIONS + HANDOFFS, "refusal").divert(_refuse)


def _refuse(func: Callable[..., Any]) -> Callable[..., Any]:
    def refused(*_args: object, **_options: object) -> None:
        raise PolarsForked

    return refused


_nobody = native.allocate_lock()  # a lock that nobody releases, to sleep on natively
_nobody.acquire()
_refusing = False  # this process, or one it was forked from, lost Polars' threads; written in the child hook

crew.inline_on(*POLARS_THREADS)
os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
