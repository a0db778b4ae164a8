"""Owners of processes, such as engines: closed when this process exits, and left alone by a fork of it."""

from __future__ import annotations

import atexit
import os
from functools import cache
from typing import Protocol
from weakref import WeakSet

__all__ = ("close_at_exit", "reset_after_fork")


class _Engine(Protocol):
    def end_processes(self) -> None: ...

    def forget(self) -> None: ...


def reset_after_fork(engine: _Engine) -> None:
    """Call the ``forget`` of *engine* in every fork of this process."""
    _engines.add(engine)


@cache
def close_at_exit() -> None:
    """Close all engines when this process exits. Call before a process is started.

    Exit handlers run in reverse order: when a process is started, the pool has registered its own handler, which waits
    for the jobs that use the processes.
    """
    atexit.register(_close_all)


def _close_all() -> None:
    for engine in list(_engines):
        engine.end_processes()


def _after_fork_in_child() -> None:
    for engine in list(_engines):
        engine.forget()


_engines: WeakSet[_Engine] = WeakSet()  # any thread adds
os.register_at_fork(after_in_child=_after_fork_in_child)
