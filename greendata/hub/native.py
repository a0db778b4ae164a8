"""The native thread primitives, whatever `gevent.monkey` has put in their place.

A worker thread that waits on a greenlet primitive makes itself a hub; so every lock, thread and
thread-local that a native thread touches comes from here.
"""

from __future__ import annotations

import _queue
import _thread
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ref

from gevent.monkey import get_original

__all__ = (
    "Empty",
    "Local",
    "Lock",
    "RLock",
    "SimpleQueue",
    "TIMEOUT_MAX",
    "allocate_lock",
    "get_ident",
    "get_native_id",
    "name_this_thread",
    "program_name",
    "sleep",
    "start_thread",
    "start_thread_watched",
    "this_thread_name",
    "thread_names",
)

if TYPE_CHECKING:
    from _thread import LockType as Lock
    from threading import local as Local
else:
    Lock = type(get_original("_thread", "allocate_lock")())
    Local = get_original("_thread", "_local")

RLock: Callable[[], Any] = get_original("_thread", "RLock")
SimpleQueue = _queue.SimpleQueue
Empty = _queue.Empty
TIMEOUT_MAX = _thread.TIMEOUT_MAX  # seconds
allocate_lock: Callable[[], Lock] = get_original("_thread", "allocate_lock")
get_ident: Callable[[], int] = get_original("_thread", "get_ident")
get_native_id: Callable[[], int] = _thread.get_native_id
sleep: Callable[[float], None] = get_original("time", "sleep")
start_thread: Callable[..., int] = get_original("_thread", "start_new_thread")


class _Thread(ref[Callable[[], object]]):
    """What `start_thread_watched` returns."""

    on_end: Callable[[], object] = bool  # there is nothing to do until the thread has been started


def start_thread_watched(run: Callable[[], object], on_end: Callable[[], object]) -> ref[Callable[[], object]]:
    """Start a native thread that calls *run*; returns a reference that is dead once the thread has ended.

    If it ends while that reference is kept, a new thread calls *on_end*. Nothing keeps *run* but the thread itself, and
    what follows on its end is done in C: no exception raised asynchronously comes in between.

    Raises:
        RuntimeError: the system has no more threads to give.

    Example:
        >>> ended = allocate_lock()
        >>> ended.acquire()
        True
        >>> thread = start_thread_watched(lambda: None, ended.release)
        >>> ended.acquire(timeout=5), thread() is None
        (True, True)
    """
    thread = _Thread(run, methodcaller("on_end"))
    start_thread(run, ())
    thread.on_end = partial(start_thread, on_end, ())  # not too late: this frame has kept *run* until now
    return thread


_TASKS = Path("/proc/self/task")  # Linux; elsewhere threads have no names that we could read


def name_this_thread(name: str) -> None:
    """Give the calling native thread the name that ``top -H``, gdb and py-spy show (15 bytes count)."""
    with suppress(OSError):  # no /proc, or one that is read only
        (_TASKS / str(get_native_id()) / "comm").write_text(name[:15])


def this_thread_name() -> str:
    """The name the operating system has for the calling thread, or "" where it tells none."""
    return _name_of(str(get_native_id()))


def program_name() -> str:
    """The name that the operating system has for the main thread, and so for threads that nobody has named; or ""."""
    return _name_of(str(os.getpid()))


def thread_names() -> dict[int, str]:
    """The native id and name of every thread of this process; empty where the system tells none."""
    try:
        tasks = os.listdir(_TASKS)
    except OSError:  # no /proc, or no descriptor to read it with
        return {}
    return {int(task): name for task in tasks if (name := _name_of(task))}


def _name_of(task: str) -> str:
    try:
        return (_TASKS / task / "comm").read_text().rstrip("\n")
    except OSError:  # the thread has ended meanwhile, or there is no /proc
        return ""
