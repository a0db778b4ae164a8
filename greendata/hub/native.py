"""The native thread primitives, even where `gevent.monkey` has replaced them.

A worker thread that waits on a greenlet primitive creates a hub. Therefore every lock, thread and thread-local that a
native thread uses comes from this module.
"""

from __future__ import annotations

import _queue
import _thread
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
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
    "blocked",
    "get_ident",
    "get_native_id",
    "name_this_thread",
    "program_name",
    "sleep",
    "start_thread",
    "start_thread_watched",
    "surround_waits",
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


class _ThreadRef(ref[Callable[[], object]]):
    """The return value of `start_thread_watched`."""

    on_end: Callable[[], object] = bool  # does nothing until the thread has been started


def start_thread_watched(run: Callable[[], object], on_end: Callable[[], object]) -> ref[Callable[[], object]]:
    """Start a native thread that calls *run*; return a weak reference that is dead once the thread has ended.

    If the thread ends while the caller keeps that reference, a new thread calls *on_end*. Only the thread itself keeps
    *run* alive, and the reaction to its end runs in C, so no asynchronously raised exception can prevent it.

    Raises:
        RuntimeError: the system cannot start another thread.

    Example:
        >>> ended = allocate_lock()
        >>> ended.acquire()
        True
        >>> thread = start_thread_watched(lambda: None, ended.release)
        >>> ended.acquire(timeout=5), thread() is None
        (True, True)
    """
    thread = _ThreadRef(run, methodcaller("on_end"))
    start_thread(run, ())
    thread.on_end = partial(start_thread, on_end, ())  # in time: this frame has kept *run* alive until now
    return thread


def blocked() -> AbstractContextManager[None]:
    """Return the context manager for a block in which the calling thread waits for another thread.

    Example:
        >>> with blocked():
        ...     sleep(0)
    """
    return _blocked()


def surround_waits(context: Callable[[], AbstractContextManager[None]]) -> None:
    """Enter *context* around each `blocked` block from now on. The pool does, to let another worker take the place."""
    global _blocked
    _blocked = context


_blocked: Callable[[], AbstractContextManager[None]] = nullcontext  # set once, when the pool is imported
_TASKS = Path("/proc/self/task")  # Linux; on other systems thread names cannot be read


def name_this_thread(name: str) -> None:
    """Set the name of the calling native thread that ``top -H``, gdb and py-spy show (the first 15 bytes)."""
    with suppress(OSError):  # there is no /proc, or it is read-only
        (_TASKS / str(get_native_id()) / "comm").write_text(name[:15])


def this_thread_name() -> str:
    """Return the calling thread's name in the operating system, or "" if it cannot be read."""
    return _name_of(str(get_native_id()))


def program_name() -> str:
    """Return the main thread's name in the operating system, which unnamed threads inherit, or "" if unreadable."""
    return _name_of(str(os.getpid()))


def thread_names() -> dict[int, str]:
    """Return the native id and name of every thread of this process; empty if they cannot be read."""
    try:
        tasks = os.listdir(_TASKS)
    except OSError:  # there is no /proc, or no free file descriptor
        return {}
    return {int(task): name for task in tasks if (name := _name_of(task))}


def _name_of(task: str) -> str:
    try:
        return (_TASKS / task / "comm").read_text().rstrip("\n")
    except OSError:  # the thread has ended, or there is no /proc
        return ""
