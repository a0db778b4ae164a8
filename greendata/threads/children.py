"""Child processes where `gevent.monkey` has patched them, on threads without a hub.

gevent waits for a child in the hub of the main thread. Other threads have no part in that: there `subprocess` and
`os.fork` raise, also where Polars itself uses them, to ask a program for credentials. So a thread whose hub is not the
main one, or does not turn, gets Python's own `Popen`, and forks and waits natively. So does a child that a job has
forked.

Who waits on the other side sends the call to where the child was started: a greenlet to a native thread of its own, and
a thread to the main hub.

One thing is shared by all threads of a process: once gevent has started a child, libev reaps every one that ends, so
that who waits natively may come too late, and Python would take that for a return code of 0. So the main hub notes what
became of the children of native threads.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from functools import cache, partial, wraps
from typing import Any, TypeVar

import gevent
import gevent.os
import gevent.subprocess
from gevent.monkey import get_original, is_object_patched
from greenlet import getcurrent

from greendata.hub import native
from greendata.hub.contexts import contextmanager
from greendata.hub.result import Result
from greendata.internals.gevent import get_hub_if_exists, get_loop_of_child
from greendata.threads.parking import ParkingLot, hub_here, hub_runs_here

__all__ = ("share_children",)

T = TypeVar("T")

PATIENCE = 10.0  # seconds until the main hub has told of a child that is reaped; it does so in the same turn


def share_children() -> None:
    """Let native threads start programs, fork, and wait for the end of what they have started."""
    if not hasattr(os, "fork"):  # Windows, where gevent waits for a child in its thread pool
        return
    if is_object_patched("subprocess", "Popen"):
        _GreenPopen.__new__ = staticmethod(_new)
        _GreenPopen.wait = _wait_for_green
        _GreenPopen.communicate = _communicate_with_green
        if is_object_patched("subprocess", "_fork_exec"):  # which gevent's Popen has no use for, and takes away
            module: Any = subprocess
            module._fork_exec = get_original("subprocess", "_fork_exec")
    for name in ("fork", "forkpty", "posix_spawn", "posix_spawnp"):
        if is_object_patched("os", name):
            natively = getattr(gevent.os, f"{name}_gevent", None) or get_original("os", name)
            setattr(os, name, _either(getattr(os, name), natively))
    if is_object_patched("os", "waitpid"):
        os.waitpid = _waitpid
        os.system = _system


def _new(kind: type, *_args: Any, **_kwargs: Any) -> Any:
    """An instance of *kind*; on a native thread it is one of Python's own `Popen` as well, which goes first."""
    if _waits_in_main_hub():
        _note_all()
        return object.__new__(kind)
    return object.__new__(_native_kind(kind))


_NativePopen: Any = get_original("subprocess", "Popen")
_GreenPopen: Any = gevent.subprocess.Popen
_wait_green, _communicate_green = _GreenPopen.wait, _GreenPopen.communicate


class _Popen(_NativePopen, _GreenPopen):  # type: ignore[misc]
    """A program that a native thread has started. Of gevent's class it is for `isinstance` and subclasses alone."""

    def wait(self, timeout: float | None = None, _raise_exc: bool = True) -> int:  # noqa: FBT001, FBT002
        """As Python's own; gevent's functions also say that they want the error."""
        code: int = _natively(partial(super().wait, timeout))
        return code

    def communicate(self, *args: Any, **kwargs: Any) -> Any:
        """As Python's own."""
        return _natively(partial(super().communicate, *args, **kwargs))

    def _execute_child(self, *args: Any, **kwargs: Any) -> None:
        with _starting() as begun:
            _natively(partial(super()._execute_child, *args, **kwargs))  # its pipe is closed at once there
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
        if _waits_in_main_hub():
            _note_all()
            return in_greenlet(*args, **kwargs)
        with _starting() as begun:
            started = natively(*args, **kwargs)
            begun(started[0] if isinstance(started, tuple) else started)
        return started

    return start


def _waitpid(pid: int, options: int) -> tuple[int, int]:
    """`os.waitpid`."""
    if pid in _children:
        wait = partial(_wait_for, pid, options)
        return wait() if options & os.WNOHANG else _natively(wait)
    ended: tuple[int, int]
    if pid <= 0 or _waits_in_main_hub():
        ended = _wait_in_greenlet(pid, options)
    elif _watcher is None:  # no greenlet has started one
        ended = _native_waitpid(pid, options)
    else:
        ended = _in_main_hub(_watcher.loop, partial(_wait_in_greenlet, pid, options))
    return ended


def _system(command: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> int:
    """`os.system`, whose own way to wait comes too late where the main hub reaps the child."""
    if _waits_in_main_hub():
        return _system_in_greenlet(command)
    shell = os.fsdecode(command)
    return _waitpid(os.posix_spawn("/bin/sh", ["sh", "-c", shell], os.environ), 0)[1]


def _wait_for_green(self: Any, timeout: float | None = None, _raise_exc: bool = True) -> Any:  # noqa: FBT001, FBT002
    """`Popen.wait` for what a greenlet has started."""
    return _in_main_hub(get_loop_of_child(self), partial(_wait_green, self, timeout, _raise_exc))


def _communicate_with_green(self: Any, *args: Any, **kwargs: Any) -> Any:
    """`Popen.communicate` with what a greenlet has started."""
    return _in_main_hub(get_loop_of_child(self), partial(_communicate_green, self, *args, **kwargs))


def _waits_in_main_hub() -> bool:
    """True where gevent can start children and wait for them."""
    return hub_runs_here() and bool(hub_here().loop.default)


def _natively(func: Callable[[], T]) -> T:
    """``func()``, in a native thread where the hub of the calling one is to go on."""
    if not hub_runs_here() or getcurrent() is get_hub_if_exists():
        return func()
    result: Result[T] = Result("wait for a child")
    native.start_thread(_settle, (result, func))
    return result.get()


def _in_main_hub(loop: Any, func: Callable[[], T]) -> T:
    """``func()``, in a greenlet of the main hub, whose *loop* is, if the calling thread has another."""
    hub = get_hub_if_exists()
    if hub is not None and hub.loop is loop:
        return func()
    result: Result[T] = Result("wait for a child")
    loop.run_callback_threadsafe(gevent.spawn, _settle, result, func)
    return result.get()


def _settle(result: Result[T], func: Callable[[], T]) -> None:
    try:
        result.set(func())
    except BaseException as error:  # noqa: BLE001 - it is of the one that waits
        result.set_exception(error)


@cache
def _native_kind(kind: type) -> type:
    """A class as *kind*, a `Popen` of gevent's, that starts and waits natively."""
    if issubclass(kind, _Popen):
        return kind
    return _Popen if kind is _GreenPopen else type(kind.__name__, (kind, _Popen), {"__module__": kind.__module__})


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
    if _watcher is None or _watcher.loop is not loop:
        _watcher = loop.child(0, ref=False)
        _watcher.start(_note, _watcher)


def _note(watcher: Any) -> None:
    if _starts or watcher.rpid in _children:
        _statuses[watcher.rpid] = watcher.rstatus
        _lot.wake_all()


def _after_fork_in_child() -> None:
    """The parent's children are not the child's."""
    global _watcher
    _watcher = None  # its loop goes on in the child of a greenlet alone, which makes another
    for state in (_starts, _children, _statuses, _lot):
        state.clear()


# Any thread adds and takes away, one C call each.
_starts: set[object] = set()  # one for each child that is being started
_children: set[int] = set()  # of native threads, until they were waited for
_statuses: dict[int, int] = {}  # of those that the main hub has reaped; it adds
_lot = ParkingLot()  # where threads wait for a status
_watcher: Any = None  # of every child; the main hub's
_system_in_greenlet = os.system
_native_waitpid: Callable[[int, int], tuple[int, int]] = get_original("os", "waitpid")
_wait_in_greenlet: Any = getattr(gevent.os, "waitpid", None)
if hasattr(os, "fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
