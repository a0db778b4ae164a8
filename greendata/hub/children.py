"""Child processes where `gevent.monkey` has patched them, on threads without a hub.

gevent waits for a child in the hub of the main thread. A native thread has no part in that: there `subprocess` and
`os.fork` raise, also where Polars itself uses them, to ask a program for credentials. So a thread whose hub does not
turn gets Python's own `Popen`, and forks and waits natively.

One thing is shared by all threads of a process: once gevent has started a child, libev reaps every one that ends, so
that who waits natively may come too late, and Python would take that for a return code of 0. So the main hub notes what
became of the children of native threads.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import gevent.os
import gevent.subprocess
from gevent.monkey import get_original, is_object_patched

from greendata.hub.blocks import contextmanager
from greendata.hub.parking import ParkingLot, hub_here, hub_turns_here

__all__ = ("share_children",)

PATIENCE = 10.0  # seconds until the main hub has told of a child that is reaped; it does so in the same turn


def share_children() -> None:
    """Let native threads start programs, fork, and wait for the end of what they have started."""
    if not hasattr(os, "fork"):  # Windows, where gevent waits for a child in its thread pool
        return
    if is_object_patched("subprocess", "Popen"):
        green: Any = gevent.subprocess.Popen
        green.__new__ = staticmethod(_new)
        if is_object_patched("subprocess", "_fork_exec"):  # which gevent's Popen has no use for, and takes away
            module: Any = subprocess
            module._fork_exec = get_original("subprocess", "_fork_exec")
    for name in ("fork", "forkpty", "posix_spawn", "posix_spawnp"):
        if is_object_patched("os", name):
            natively = getattr(gevent.os, f"{name}_gevent", None) or get_original("os", name)
            setattr(os, name, _either(getattr(os, name), natively))
    if is_object_patched("os", "waitpid"):
        os.waitpid = _waitpid


def _new(kind: type, *args: Any, **kwargs: Any) -> Any:
    """A `Popen` of gevent, or on a native thread one of Python's own, which is no instance of *kind*."""
    if kind is not gevent.subprocess.Popen or hub_turns_here():
        _note_all()
        return object.__new__(kind)
    return _Popen(*args, **kwargs)


_NativePopen: Any = get_original("subprocess", "Popen")


class _Popen(_NativePopen):  # type: ignore[misc]
    """A program that a native thread has started."""

    def wait(self, timeout: float | None = None, _raise_exc: bool = True) -> int:  # noqa: FBT001, FBT002
        """As Python's own; gevent's functions also say that they want the error."""
        code: int = super().wait(timeout)
        return code

    def _execute_child(self, *args: Any, **kwargs: Any) -> None:
        with _starting() as begun:
            super()._execute_child(*args, **kwargs)
            begun(self.pid)

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        try:
            return _wait_for(self.pid, wait_flags)
        except ChildProcessError:  # as Python does, where a process has switched off to wait for children
            return self.pid, 0

    def _internal_poll(self, *_private: Any, **_more: Any) -> int | None:
        lock = self._waitpid_lock
        if self.returncode is None and lock.acquire(False):
            try:
                pid, status = (0, 0) if self.returncode is not None else self._try_wait(os.WNOHANG)
                if pid == self.pid:
                    self._handle_exitstatus(status)
            finally:
                lock.release()
        code: int | None = self.returncode
        return code


def _either(in_greenlet: Callable[..., Any], natively: Callable[..., Any]) -> Callable[..., Any]:
    """A function of `os` that starts a child, and returns its number or a tuple that begins with it."""

    @wraps(in_greenlet)
    def start(*args: Any, **kwargs: Any) -> Any:
        if hub_turns_here():
            _note_all()
            return in_greenlet(*args, **kwargs)
        with _starting() as begun:
            started = natively(*args, **kwargs)
            begun(started[0] if isinstance(started, tuple) else started)
        return started

    return start


def _waitpid(pid: int, options: int) -> tuple[int, int]:
    """`os.waitpid`."""
    return _wait_for(pid, options) if pid in _children else _wait_in_greenlet(pid, options)


def _wait_for(pid: int, options: int) -> tuple[int, int]:
    """Wait natively for a child that a native thread has started.

    Raises:
        ChildProcessError: there is no such child any more.
    """
    try:
        ended = _native_waitpid(pid, options)
    except ChildProcessError:  # the main hub was faster
        if _watcher is None or pid not in _children or not _lot.wait(lambda: pid in _statuses, PATIENCE):
            raise
        ended = pid, _statuses[pid]
    if ended[0]:
        _children.discard(pid)
        _statuses.pop(pid, None)
    return ended


@contextmanager
def _starting() -> Iterator[Callable[[int], None]]:
    """While a child is started its number is not known, so everyone that ends is noted."""
    token = object()
    _starts.add(token)
    try:
        yield (lambda pid: _children.add(pid) if pid else None)  # which is 0 in the child itself
    finally:
        _starts.discard(token)
        noted = list(_statuses)  # before the look at those that start: of theirs none is in it
        for pid in noted if not _starts else ():
            if pid not in _children:
                _statuses.pop(pid, None)


def _note_all() -> None:
    """Have the main hub note the end of each child, from before its first one on. Call where it turns."""
    global _watcher
    loop = hub_here().loop
    if loop.default and (_watcher is None or _watcher.loop is not loop):
        _watcher = loop.child(0, ref=False)
        _watcher.start(_note, _watcher)


def _note(watcher: Any) -> None:
    if _starts or watcher.rpid in _children:
        _statuses[watcher.rpid] = watcher.rstatus
        _lot.wake_all()


def _after_fork_in_child() -> None:
    """The parent's children are not the child's."""
    for state in (_starts, _children, _statuses, _lot):
        state.clear()


# Any thread adds and takes away, one C call each.
_starts: set[object] = set()  # one for each child that is being started
_children: set[int] = set()  # of native threads, until they were waited for
_statuses: dict[int, int] = {}  # of those that the main hub has reaped; it adds
_lot = ParkingLot()  # where threads wait for a status
_watcher: Any = None  # of every child; the main hub's
_native_waitpid: Callable[[int, int], tuple[int, int]] = get_original("os", "waitpid")
_wait_in_greenlet: Any = getattr(gevent.os, "waitpid", None)
if hasattr(os, "fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
