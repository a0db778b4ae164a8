"""Make child processes work in threads without a hub, where `gevent.monkey` has patched them.

gevent waits for a child in the main thread's hub. In other threads the patched `subprocess` and `os.fork` raise, even
when Polars itself uses them to ask a program for credentials. Here a thread uses Python's own `Popen`, and forks and
waits natively, if its hub is not the main hub or is not running. So does a child process that a job has forked.

The wait runs where the child was started. If it is called elsewhere, the call is sent there::

                                      waited for in the main hub      waited for in a native thread
                                      --------------------------      -----------------------------
    started by a greenlet of the      its hub waits, as in gevent     the thread sends the call to the
    main hub                                                            main hub, and waits
    started by a native thread        the greenlet starts a native    the thread calls waitpid()
                                        thread that calls waitpid()

All threads of a process share one list of ended children. Once gevent has started a child, libev reaps every child that
ends, so a native waitpid() may come too late and Python would report the return code 0. Therefore the main hub records
the exit status of native threads' children::

    the main hub                                  a native thread
    ------------                                  ---------------
    reaps the child                               waitpid() raises ChildProcessError
    _statuses[pid] = status
    wakes the threads in `_lot`   ------------->  reads _statuses[pid]
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

STATUS_TIMEOUT = 10.0  # seconds to wait for the status of a reaped child; the main hub records it in the same iteration


def share_children() -> None:
    """Let native threads start programs, fork, and wait for their children."""
    if not hasattr(os, "fork"):  # Windows, where gevent waits for a child in its thread pool
        return
    if is_object_patched("subprocess", "Popen"):
        _GreenPopen.__new__ = staticmethod(_new)
        _GreenPopen.wait = _wait_for_green
        _GreenPopen.communicate = _communicate_with_green
        if is_object_patched("subprocess", "_fork_exec"):  # gevent removes it, because its Popen does not use it
            module: Any = subprocess
            module._fork_exec = get_original("subprocess", "_fork_exec")
    for name in ("fork", "forkpty", "posix_spawn", "posix_spawnp"):
        if is_object_patched("os", name):
            natively = getattr(gevent.os, f"{name}_gevent", None) or get_original("os", name)
            setattr(os, name, _choose_by_thread(getattr(os, name), natively))
    if is_object_patched("os", "waitpid"):
        os.waitpid = _waitpid
        os.system = _system


def _new(kind: type, *_args: Any, **_kwargs: Any) -> Any:
    """Return a new instance of *kind*. In a native thread its class also inherits from Python's `Popen`, first."""
    if _waits_in_main_hub():
        _record_all()
        return object.__new__(kind)
    return object.__new__(_native_kind(kind))


_NativePopen: Any = get_original("subprocess", "Popen")
_GreenPopen: Any = gevent.subprocess.Popen
_wait_green, _communicate_green = _GreenPopen.wait, _GreenPopen.communicate


class _Popen(_NativePopen, _GreenPopen):  # type: ignore[misc]
    """A program that a native thread has started. gevent's class is a base only for `isinstance` and subclasses."""

    def wait(self, timeout: float | None = None, _raise_exc: bool = True) -> int:  # noqa: FBT001, FBT002
        """Wait as Python's `Popen` does. gevent's functions pass *_raise_exc*, which has no effect."""
        code: int = _natively(partial(super().wait, timeout))
        return code

    def communicate(self, *args: Any, **kwargs: Any) -> Any:
        """Communicate as Python's `Popen` does."""
        return _natively(partial(super().communicate, *args, **kwargs))

    def _execute_child(self, *args: Any, **kwargs: Any) -> None:
        with _starting() as begun:
            _natively(partial(super()._execute_child, *args, **kwargs))  # a native thread closes its pipe at once
            begun(self.pid)

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        try:
            return _wait_for(self.pid, wait_flags)
        except ChildProcessError:  # as in Python, if the process ignores SIGCHLD
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


def _choose_by_thread(in_greenlet: Callable[..., Any], natively: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of `os` that starts a child with *in_greenlet* or *natively*, depending on the thread.

    Both return the child's process id, or a tuple that begins with it.
    """

    @wraps(in_greenlet)
    def start(*args: Any, **kwargs: Any) -> Any:
        if _waits_in_main_hub():
            _record_all()
            return in_greenlet(*args, **kwargs)
        with _starting() as begun:
            started = natively(*args, **kwargs)
            begun(started[0] if isinstance(started, tuple) else started)
        return started

    return start


def _waitpid(pid: int, options: int) -> tuple[int, int]:
    """Wait for a child: the replacement of `os.waitpid`. It runs where the child was started."""
    if pid in _children:
        wait = partial(_wait_for, pid, options)
        return wait() if options & os.WNOHANG else _natively(wait)
    ended: tuple[int, int]
    if pid <= 0 or _waits_in_main_hub():
        ended = _wait_in_greenlet(pid, options)
    elif _watcher is None:  # no greenlet has started a child
        ended = _native_waitpid(pid, options)
    else:
        ended = _in_main_hub(_watcher.loop, partial(_wait_in_greenlet, pid, options))
    return ended


def _system(command: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> int:
    """Run *command*: the replacement of `os.system`, whose own wait comes too late if the main hub reaps the child."""
    if _waits_in_main_hub():
        return _system_in_greenlet(command)
    shell = os.fsdecode(command)
    return _waitpid(os.posix_spawn("/bin/sh", ["sh", "-c", shell], os.environ), 0)[1]


def _wait_for_green(self: Any, timeout: float | None = None, _raise_exc: bool = True) -> Any:  # noqa: FBT001, FBT002
    """Wait, in the main hub, for a program that a greenlet has started: `Popen.wait` for any thread."""
    return _in_main_hub(get_loop_of_child(self), partial(_wait_green, self, timeout, _raise_exc))


def _communicate_with_green(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Communicate, in the main hub, with a program that a greenlet has started: `Popen.communicate` for any thread."""
    return _in_main_hub(get_loop_of_child(self), partial(_communicate_green, self, *args, **kwargs))


def _waits_in_main_hub() -> bool:
    """Return True in a thread in which gevent can start children and wait for them."""
    return hub_runs_here() and bool(hub_here().loop.default)


def _natively(func: Callable[[], T]) -> T:
    """Return ``func()``. If the calling thread's hub has to continue meanwhile, run it in a new native thread."""
    if not hub_runs_here() or getcurrent() is get_hub_if_exists():
        return func()
    result: Result[T] = Result("wait for a child")
    native.start_thread(_settle, (result, func))
    return result.get()


def _in_main_hub(loop: Any, func: Callable[[], T]) -> T:
    """Return ``func()``. Unless the calling thread's hub has *loop*, the main hub's, run it in a greenlet there."""
    hub = get_hub_if_exists()
    if hub is not None and hub.loop is loop:
        return func()
    result: Result[T] = Result("wait for a child")
    loop.run_callback_threadsafe(gevent.spawn, _settle, result, func)
    return result.get()


def _settle(result: Result[T], func: Callable[[], T]) -> None:
    try:
        result.set(func())
    except BaseException as error:  # noqa: BLE001 - it is raised in the waiting thread
        result.set_exception(error)


@cache
def _native_kind(kind: type) -> type:
    """Return a subclass of *kind*, a `Popen` class of gevent, that starts and waits natively."""
    if issubclass(kind, _Popen):
        return kind
    return _Popen if kind is _GreenPopen else type(kind.__name__, (kind, _Popen), {"__module__": kind.__module__})


def _wait_for(pid: int, options: int) -> tuple[int, int]:
    """Wait natively for a child that a native thread has started.

    Raises:
        ChildProcessError: the child no longer exists.
    """
    try:
        ended = _native_waitpid(pid, options)
    except ChildProcessError:  # the main hub has reaped it
        if _watcher is None or pid not in _children or not _lot.wait(lambda: pid in _statuses, STATUS_TIMEOUT):
            raise
        ended = pid, _statuses[pid]
    if ended[0]:
        _children.discard(pid)
        _statuses.pop(pid, None)
    return ended


@contextmanager
def _starting() -> Iterator[Callable[[int], None]]:
    """Record every child that ends while one is being started, because its process id is not known yet."""
    token = object()
    _starts.add(token)
    try:
        yield (lambda pid: _children.add(pid) if pid else None)  # the id is 0 in the child itself
    finally:
        _starts.discard(token)
        recorded = list(_statuses)  # read before `_starts`: no child of a later start is in it
        for pid in recorded if not _starts else ():
            if pid not in _children:
                _statuses.pop(pid, None)


def _record_all() -> None:
    """Make the main hub record the end of each child. Call in its thread, before it starts its first child."""
    global _watcher
    loop = hub_here().loop
    if _watcher is None or _watcher.loop is not loop:
        _watcher = loop.child(0, ref=False)
        _watcher.start(_record, _watcher)


def _record(watcher: Any) -> None:
    if _starts or watcher.rpid in _children:
        _statuses[watcher.rpid] = watcher.rstatus
        _lot.wake_all()


def _after_fork_in_child() -> None:
    """Clear the state: the children of the parent are not children of this process."""
    global _watcher
    hub = get_hub_if_exists()
    if _watcher is not None and hub is not None and hub.loop is _watcher.loop:  # it continues in this process
        _watcher.close()
    _watcher = None
    for state in (_starts, _children, _statuses, _lot):
        state.clear()


# Any thread adds and removes items, in one C call each.
_starts: set[object] = set()  # one for each child that is being started
_children: set[int] = set()  # process ids of native threads' children, until they were waited for
_statuses: dict[int, int] = {}  # exit statuses of children that the main hub has reaped; the main hub adds them
_lot = ParkingLot()  # the threads that wait for a status
_watcher: Any = None  # the main hub's watcher of all children
_system_in_greenlet = os.system
_native_waitpid: Callable[[int, int], tuple[int, int]] = get_original("os", "waitpid")
_wait_in_greenlet: Any = getattr(gevent.os, "waitpid", None)
if hasattr(os, "fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
