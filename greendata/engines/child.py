"""The program of a child process. `serve` runs queries and functions for an engine, one at a time.

`main` is called with a socket as descriptor 3 and the read end of a pipe as descriptor 4. The first message says which
function is to serve the socket. Nothing is ever written to the pipe. Its only other end is in the parent, so the kernel
reports its end when the parent is gone, for whatever reason. The report is a SIGKILL (fcntl's F_SETSIG), which works
even while native code holds the GIL, and before the interpreter has begun, because the parent asks for it. Linux's
PR_SET_PDEATHSIG would not do: it fires when the *thread* that started the child ends.
"""

from __future__ import annotations

import _socket
import fcntl
import io
import os
import pickle
import resource
import signal
import sys
import traceback
from _thread import allocate_lock
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import import_module
from typing import Any

from greendata.engines.messages import ConnectionLost, close_all, dumps, receive, remedy_for, send
from greendata.errors import EngineFailed, NotSendable

__all__ = (
    "DONE",
    "FAILED",
    "LIFELINE",
    "NEEDS",
    "OUT_OF_MEMORY",
    "SOCKET",
    "end_with_last_writer",
    "last_lines",
    "main",
    "object_named",
    "packed_error",
    "serve",
)

DONE, FAILED, NEEDS = "done", "failed", "needs"  # the first word of a message from a child
OUT_OF_MEMORY = ("POLARS_OOMKILL_THRESHOLD", "memory allocation of")  # what Polars and Rust write when they abort
_LAST_LINES = 2000  # characters of stderr in an error

SOCKET, LIFELINE = 3, 4  # descriptors
_LIBRARIES = ("greendata", "polars", "cloudpickle")  # whose lines in a traceback say nothing to the user
_MAX_TRACE = 10_000  # characters of a traceback
_F_SETSIG = 10
_ROOM = 32 << 30  # bytes of address space beyond four times the limit: allocators reserve more than they use


def main() -> None:
    """Have the function of the first message serve the engine until that closes the socket."""
    _end_with_parent()
    for descriptor in [int(name) for name in os.listdir("/proc/self/fd")]:
        if descriptor > LIFELINE:
            with suppress(OSError):  # the descriptor of the listing itself
                os.close(descriptor)
    os.set_inheritable(SOCKET, False)
    os.set_inheritable(LIFELINE, False)
    if isinstance(sys.stdout, io.TextIOWrapper):  # it may be closed
        # This process is killed in the end, and the contents of a buffer would be lost.
        sys.stdout.reconfigure(line_buffering=True)
    sock = _socket.socket(fileno=SOCKET)
    try:
        (program, arguments, memory_limit), _ = receive(sock)
        _limit_memory(memory_limit)
        object_named(program)(sock, *arguments)
    except (ConnectionLost, BrokenPipeError, ConnectionResetError):
        os._exit(0)


def last_lines(wrote: str) -> str:
    """Return the last lines of *wrote*, the stderr of a process that has ended.

    If the interpreter aborted, these are the lines around its message: the stack of C functions after it is long.
    """
    died = wrote.rfind("Fatal Python error")
    end = len(wrote) if died < 0 else died + _LAST_LINES // 2
    return wrote[max(0, end - _LAST_LINES) : end].strip()


def serve(sock: _socket.socket, inner: str) -> None:
    """Serve one request after the other. *inner* is the engine that computes, see `ProcessEngine`.

    Raises:
        ConnectionLost, OSError: the engine has closed the socket.
    """
    server = _Server(inner, sock)
    send(sock, "ready")
    while True:
        (directory, task, arguments), files = receive(sock)
        if directory is not None:
            with suppress(OSError):  # the server has entered a directory that has become inaccessible
                os.chdir(directory)
        _answer(sock, getattr(server, task), (*arguments, files) if files else arguments)
        close_all(files)


def end_with_last_writer(lifeline: int, pid: int) -> None:
    """Have the kernel end the process *pid*, and those that it starts, when the last writer of the pipe is gone."""
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -pid)  # its process group
    fcntl.fcntl(lifeline, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)


def _end_with_parent() -> None:
    """End now if the parent is gone: it may have been killed before it could say how this process ends."""
    end_with_last_writer(LIFELINE, os.getpid())
    with suppress(BlockingIOError):  # the parent lives
        os.read(LIFELINE, 1)
        os._exit(0)


def _limit_memory(memory_limit: int | None) -> None:
    """Have the kernel choose this process rather than the server when memory runs out, and set a loose limit."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")
    if memory_limit is not None:
        most = 4 * memory_limit + _ROOM
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _answer(sock: _socket.socket, work: Callable[..., tuple[Any, list[int]]], arguments: Any) -> None:
    try:
        value, files = work(*arguments)
    except BaseException as error:  # noqa: BLE001 - every error is the caller's
        send(sock, (FAILED, packed_error(error)))
    else:
        _send_done(sock, value, files)


def _send_done(sock: _socket.socket, value: Any, files: list[int]) -> None:
    try:
        send(sock, (DONE, value), files)
    finally:
        close_all(files)


def _receive_or_end(sock: _socket.socket) -> tuple[Any, list[int]]:
    """Return the next message. Without one the process ends, because the query must not see that as its own error."""
    try:
        return receive(sock)
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        os._exit(1)


def packed_error(error: BaseException) -> tuple[bytes, str, str]:
    """Return *error* as a pickle, which is empty if that is impossible, as text, and its traceback, see `_trace_of`."""
    try:
        text = f"{type(error).__qualname__}: {error}"
    except BaseException:  # noqa: BLE001 - here and below, anything can go wrong in the methods of a foreign error
        text = type(error).__qualname__
    try:
        packed = dumps(error)
        pickle.loads(packed)  # an error whose arguments are not those of its class can be pickled, but not loaded
    except BaseException:  # noqa: BLE001
        packed = b""
    return packed, text, _trace_of(error)


def _trace_of(error: BaseException) -> str:
    """Return the traceback of *error* without the lines of libraries; empty if *error* has no others."""
    libraries = [os.path.dirname(sys.modules[name].__file__ or name) for name in _LIBRARIES if name in sys.modules]
    try:
        shown = traceback.TracebackException.from_exception(error)
        _remove_lines(shown, ("<dynamic-code>", *libraries))  # the first is Polars' name for code that it makes
        return "".join(shown.format())[-_MAX_TRACE:] if shown.stack else ""
    except BaseException:  # noqa: BLE001 - as above
        return ""


def _remove_lines(shown: traceback.TracebackException, files: tuple[str, ...]) -> None:
    """Remove the lines of *files*, and the errors that only they have handled."""
    shown.stack[:] = [line for line in shown.stack if not line.filename.startswith(files)]
    if shown.__cause__ is not None:
        _remove_lines(shown.__cause__, files)
    if shown.__context__ is not None:
        _remove_lines(shown.__context__, files)
        if not shown.__context__.stack:
            shown.__context__ = None


class _Server:
    """What a child can do. Each method returns a value for the message, and the descriptors of its files."""

    def __init__(self, inner: str, sock: _socket.socket) -> None:
        import polars as pl  # after the limits are set

        from greendata.engines import plans, shared

        self._pl, self._plans, self._shared = pl, plans, shared
        self._sock = sock
        self._fetching = allocate_lock()  # Polars resolves the sources of a plan in several threads
        shared.fetch_by(self._fetch)
        self._inner = inner
        self._made: Any = None  # the engine of a factory

    @property
    def _engine(self) -> Any:
        """The engine. A factory is called with the first query, and with the next one if it has failed.

        Raises:
            EngineFailed: the factory does not exist, or raised an error, or returned no engine.
        """
        if ":" not in self._inner:
            return self._inner
        if self._made is None:
            self._made = self._make()
        return self._made

    def _make(self) -> Any:
        try:
            factory = object_named(self._inner)
        except (ImportError, AttributeError) as error:
            raise EngineFailed(self._inner, f"{type(error).__name__}: {error}") from error
        if not callable(factory):
            raise EngineFailed(self._inner, f"expected a function that returns a polars.Engine, got {factory!r}")
        try:
            engine = factory()
        except BaseException as error:
            raise EngineFailed(self._inner, f"its factory raised {type(error).__name__}: {error}") from error
        if not isinstance(engine, self._pl.Engine):
            raise EngineFailed(self._inner, f"its factory returned {engine!r}, expected a polars.Engine")
        return engine

    def query(self, unshared: list[str], plans: list[bytes], options: bytes, method: str) -> tuple[Any, list[int]]:
        """Forget the frames with the keys *unshared*, call *method* of the engine, and return the frames."""
        queries, keywords = self._read(unshared, plans, options)
        if method == "collect_all":
            return self._plans.pack(self._pl.collect_all(queries, **keywords))
        frame = getattr(queries[0], method)(**keywords)
        if method != "collect":
            return self._plans.pack([])
        if not isinstance(frame, self._pl.DataFrame):
            raise EngineFailed(
                self._inner, f"its collect() returned {type(frame).__name__}, expected a polars.DataFrame"
            )
        return self._plans.pack([frame])

    def batches(self, unshared: list[str], plans: list[bytes], options: bytes) -> tuple[Any, list[int]]:
        """Send the result of a query in batches, each when it is asked for, and return at the end.

        The replies are pairs: whether it is the last one, and a list with the batch. If there was no batch, the last
        one has a frame without rows. Polars' own iterator of batches would end early, without an error, where a query
        panics. This raises.
        """
        (query,), keywords = self._read(unshared, plans, options)
        sent = False

        def send_batch(frame: Any) -> None:
            nonlocal sent
            packed, files = self._plans.pack([frame])
            _send_done(self._sock, (False, packed), files)
            sent = True
            _receive_or_end(self._sock)  # the request for the next one; Polars computes a few in advance

        engine = keywords.pop("engine")
        if isinstance(engine, str):
            chosen = "streaming" if engine == "auto" else engine  # as Polars chooses for batches
            query.sink_batches(send_batch, engine=chosen, **keywords)
        else:
            for frame in query.collect_batches(engine=engine, **keywords):
                send_batch(frame)
        packed, files = self._plans.pack([] if sent else [self._pl.DataFrame(schema=query.collect_schema())])
        return (True, packed), files

    def _read(self, unshared: list[str], plans: list[bytes], options: bytes) -> tuple[list[Any], dict[str, Any]]:
        self._forget(unshared)
        queries = [self._plans.read_plan(plan) for plan in plans]
        return queries, {"engine": self._engine, **self._plans.options_of(options)}

    def _forget(self, unshared: list[str]) -> None:
        for key in unshared:
            self._shared.frames.pop(key, None)

    def _fetch(self, key: str) -> Any:
        with self._fetching:
            if key in self._shared.frames:
                return self._shared.frames[key]
            send(self._sock, (NEEDS, key))
            packed, files = _receive_or_end(self._sock)
        try:
            parts = self._plans.unpack(packed, files)
            return parts[0] if len(parts) == 1 else self._pl.concat(parts, rechunk=False)
        finally:
            close_all(files)

    def call(self, unshared: list[str], work: Any, files: Iterable[int] = ()) -> tuple[Any, list[int]]:
        """Call a function and return its value, packed.

        Raises:
            NotSendable: this process cannot import the function or what is in an argument, or cannot pickle the value.
        """
        self._forget(unshared)
        try:
            func, args, kwargs = self._plans.unpack_object(work, list(files))
        except (AttributeError, ImportError) as error:
            reason = f"a child cannot import the function or an argument ({error}){remedy_for(error)}"
            raise NotSendable(reason) from error
        value = func(*args, **kwargs)
        try:
            return self._plans.pack_object(value)
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            raise NotSendable(f"the value that the function has returned cannot be pickled ({error})") from error


def object_named(name: str) -> Any:
    """Return the object with the name *name*, such as "package.module:function"."""
    module, _, path = name.partition(":")
    found: Any = import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found
