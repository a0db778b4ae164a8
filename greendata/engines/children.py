"""`Child`: a process that runs queries, as its engine uses it: starts it, sends requests, kills it, reaps it.

It uses native system calls only. gevent's child watchers and handlers of SIGCHLD are not involved, so it does not
matter who has installed one, or which thread starts the child.

    worker                                   child                    any thread
    ------                                   -----                    ----------
    Child(): posix_spawn        -------->    imports Polars
    ask(): sends the request    -------->    runs the query
           polls the socket and the                     <--------     kill(): SIGKILL
           descriptor of the process
           reads the reply, or reaps
"""

from __future__ import annotations

import _socket
import fcntl
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from time import monotonic
from typing import Any

from gevent.monkey import get_original

from greendata.engines import spill
from greendata.engines.child import FAILED, LIFELINE, NEEDS, OUT_OF_MEMORY, SOCKET, end_with_last_writer, last_lines
from greendata.engines.messages import ConnectionLost, receive, send
from greendata.errors import ChildFailed, MemoryLimitExceeded, WorkerDied
from greendata.errors.notes import note
from greendata.hub import native

__all__ = ("Child", "error_of", "working_directory")

START_TIMEOUT = 60.0  # seconds until a child must have imported Polars: 0.4 on an idle core

_posix_spawn = get_original("os", "posix_spawn")
_waitid = get_original("os", "waitid")
_poll: Any = get_original("select", "poll")
_POLLIN, _POLLOUT = 1, 4

_MEMORY_INTERVAL = 10  # milliseconds between two looks at a child with a memory limit: 4 to 8 MiB of overshoot
_STATE_INTERVAL = 1000  # milliseconds between two looks at any other
_END_TIMEOUT = 1000  # milliseconds for a process to end that has closed its socket
_FIRST_FREE = 64  # descriptors are moved above this number before they get the fixed numbers of the child
_MAX_STDERR = 1 << 20  # bytes of stderr that are kept when a request is over
_STDERR_READ = 1 << 16  # last bytes of it that are searched for the reason of an end
_MAX_STDERR_NOW = 64 << 20  # the same while it runs: what is written at the moment of the cut is lost
_PROCESS_GROUP = 4  # PIDFD_SIGNAL_PROCESS_GROUP of Linux
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MIB = 1 << 20


class Child:
    """One child process. One worker at a time uses it; `kill` is safe from any thread.

    Args:
        program: the name of the function that serves the engine there, see `greendata.engines.child`.
        arguments: for that function.
        memory_limit: in bytes, or None.
        environment: of the process.

    Raises:
        OSError: the system has no more processes or descriptors.
    """

    def __init__(
        self, program: str, arguments: tuple[Any, ...], memory_limit: int | None, environment: dict[str, str]
    ) -> None:
        self.is_ready = False  # it has imported Polars; the worker that uses the child writes
        self._owner = os.getpid()
        self._has_closed = False  # it was reaped, or forgotten; written under the lock
        self.requests = 0  # that it was sent; the worker that uses it writes
        self.keys: set[str] = set()  # of the shared frames that it has; the worker that uses it writes
        self.was_killed = False  # any thread sets it, under the lock
        self._using = native.allocate_lock()  # held by the thread that asks, and by the one that reaps
        self._status: int | None = None  # of its end; set before `is_gone`
        self._wrote = ""  # the end of its stderr; set before `is_gone`
        self._limit = memory_limit
        self._is_over_limit = False
        self._latest_start = monotonic() + START_TIMEOUT
        self._passed_on = 0  # bytes of stderr
        # Guards the descriptor of the process against `kill` while it is closed. A finalizer may kill in any thread.
        self._lock = native.RLock()
        with _fork_lock, ExitStack() as undo:
            self._spill = spill.folder_for_child(environment)  # Polars makes it if it moves data out of memory
            self._stderr = undo.enter_context(tempfile.TemporaryFile())
            fcntl.fcntl(self._stderr, fcntl.F_SETFL, os.O_APPEND)  # for the child: `_pass_stderr_on` cuts the file
            ours, theirs = _socket.socketpair()
            undo.callback(ours.close)
            lifeline, self._lifeline = os.pipe2(os.O_CLOEXEC)
            undo.callback(os.close, self._lifeline)
            try:
                self.pid = self._spawn(theirs.fileno(), lifeline, environment)
                undo.callback(_end, self.pid)
                end_with_last_writer(lifeline, self.pid)  # before its interpreter has begun
            finally:
                theirs.close()
                os.close(lifeline)
            self._process = os.pidfd_open(self.pid)
            self._sock = ours
            _living.add(self)
            undo.pop_all()
        self._poll = _poll()
        self._poll.register(self._process, _POLLIN)
        self._poll.register(ours.fileno(), _POLLIN)
        with suppress(OSError):  # it has ended already, which the first request will find
            send(ours, (program, arguments, memory_limit))

    def _spawn(self, sock: int, lifeline: int, environment: dict[str, str]) -> int:
        environment = {**environment, spill.VARIABLE: self._spill}
        if self._limit is not None:
            environment["POLARS_OOMKILL_THRESHOLD_MB"] = str(max(1, self._limit // _MIB))
        path = [entry for entry in sys.path if isinstance(entry, str)]  # as imports do, which skip a pathlib.Path
        program = f"import sys; sys.path[:] = {path!r}; from greendata.engines.child import main; main()"
        moved: list[int] = []
        try:
            for each in (self._stderr.fileno(), sock, lifeline):
                moved.append(fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE))  # noqa: PERF401 - closed below
            numbers = zip(moved, (2, SOCKET, LIFELINE), strict=True)
            found: int = _posix_spawn(
                sys.executable,
                [sys.executable, *subprocess._args_from_interpreter_flags(), "-c", program],  # type: ignore[attr-defined]
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    *((os.POSIX_SPAWN_DUP2, each, number) for each, number in numbers),
                ],
                setpgroup=0,  # a Ctrl-C in the terminal is for the server; processes that it starts end with it
                setsigmask=[],
                setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
            )
        finally:
            for each in moved:
                os.close(each)
        return found

    # -- the worker that uses it ----------------------------------------------------------------------

    def ask(
        self,
        task: str,
        *arguments: Any,
        files: list[int] | None = None,
        frame: Callable[[str], tuple[Any, list[int]]] | None = None,
    ) -> tuple[Any, list[int]]:
        """Have the child do *task*; return its value and the descriptors of its files. Blocks natively.

        Args:
            task: a method of the child's server, for *arguments*.
            files: descriptors of files that *arguments* refer to.
            frame: called with the key of a shared frame that the child needs; returns it packed, and its files.

        Raises:
            WorkerDied, MemoryLimitExceeded: it has ended, or was killed.
            BaseException: what the task raised.
        """
        with self._using:
            return self._ask((working_directory(), task, arguments), files, frame)

    def _ask(
        self, request: object, files: list[int] | None, frame: Callable[[str], tuple[Any, list[int]]] | None
    ) -> tuple[Any, list[int]]:
        if self.is_gone:  # it ended between two batches of a stream
            raise WorkerDied(self._status, last_lines(self._wrote))
        try:
            if not self.is_ready:
                self._receive()
                self.is_ready = True
            self.requests += 1
            (word, value), received = self._exchange(request, files)
            while word == NEEDS:
                assert frame is not None
                (word, value), received = self._exchange(*frame(value), key=value)
        except (ConnectionLost, OSError) as error:
            raise self._died() from error
        except BaseException as error:  # garbage, or an interruption of the calling thread: the reply will not be read
            self.kill()
            died = self._died()
            if isinstance(error, Exception):
                raise died from error
            raise
        self._pass_stderr_on()
        if word == FAILED:
            raise error_of(*value)
        return value, received

    def _exchange(self, message: object, files: list[int] | None = None, key: str | None = None) -> tuple[Any, Any]:
        """Send *message*, which brings the frame with that *key*, and return the reply."""
        send(self._sock, message, files, self._wait_to_send)
        if key is not None:
            self.keys.add(key)
        return self._receive()

    def _receive(self) -> tuple[Any, list[int]]:
        self._wait()
        return receive(self._sock, self._wait)

    @property
    def is_gone(self) -> bool:
        """True if it was reaped, and in every fork of the process that started it, which must not end it."""
        return self._has_closed or os.getpid() != self._owner

    @property
    def is_alive(self) -> bool:
        """True if it can be asked."""
        return not (self.is_gone or self.was_killed or self._process in dict(self._poll.poll(0)))

    @property
    def memory(self) -> int:
        """The memory that belongs to the child alone, in bytes; 0 if it has ended."""
        found = self._read("statm").split()
        return (int(found[1]) - int(found[2])) * _PAGE if found else 0

    @property
    def is_stopped(self) -> bool:
        """True if a signal has stopped it."""
        return self._read("stat").rpartition(")")[2].split()[:1] == ["T"]

    def reap(self) -> int | None:
        """Wait until the process, which was killed or has ended, is gone; release what belongs to it. Idempotent.

        Return its exit status. Below 0 it is minus the number of the signal that ended it. None means that other code
        has reaped it.
        """
        with self._using:
            self._reap()
        return self._status

    def reap_if_unused(self) -> None:
        """Do the same unless a worker waits for a reply: that worker reaps it. Safe from any thread."""
        if self._using.acquire(False):
            try:
                self._reap()
            finally:
                self._using.release()

    # -- any thread -----------------------------------------------------------------------------------

    def kill(self) -> None:
        """End the process at once. Never blocks; the worker that waits for a reply reaps it."""
        with self._lock:
            self.was_killed = True
            if not self.is_gone:
                with suppress(ProcessLookupError):  # it has ended
                    signal.pidfd_send_signal(self._process, signal.SIGKILL)

    def forget(self) -> None:
        """Close the descriptors of a child of the parent process. Call in the child of a fork."""
        if not self._has_closed:
            self._lock = native.RLock()
            self._using = native.allocate_lock()
            self._close()

    # -- private --------------------------------------------------------------------------------------

    def _close(self) -> None:
        with self._lock:
            self._has_closed = True
            os.close(self._process)
        self._sock.close()
        self._stderr.close()
        os.close(self._lifeline)

    def _wait_to_send(self) -> None:
        self._poll.modify(self._sock.fileno(), _POLLOUT)
        try:
            self._wait()
        finally:
            self._poll.modify(self._sock.fileno(), _POLLIN)

    def _wait(self) -> None:
        """Return when the socket can be read or written, whichever is polled. Kill a process that must not continue.

        Raises:
            ConnectionLost: the process has ended.
        """
        interval = _STATE_INTERVAL if self._limit is None else _MEMORY_INTERVAL
        while not (ready := self._poll.poll(interval)):
            self._pass_stderr_on(_MAX_STDERR_NOW)
            self._is_over_limit = self._limit is not None and self.memory > self._limit
            is_late = not self.is_ready and monotonic() > self._latest_start
            if self._is_over_limit or is_late or self.is_stopped:
                self.kill()
                raise ConnectionLost
        if self._sock.fileno() not in dict(ready):  # a program that it has started may hold the socket open
            raise ConnectionLost

    def _died(self) -> WorkerDied:
        self._poll.unregister(self._sock.fileno())
        if not self._poll.poll(_END_TIMEOUT):
            self.kill()  # it has closed its end and still lives: it will not reply
        self._reap()
        status, wrote = self._status, last_lines(self._wrote)
        if self._limit is not None:
            has_aborted = status in (-signal.SIGABRT, None) and any(text in self._wrote for text in OUT_OF_MEMORY)
            if self._is_over_limit or has_aborted:
                return MemoryLimitExceeded(self._limit, status, wrote)
        return WorkerDied(status, wrote)

    def _reap(self) -> None:
        if self.is_gone:
            return
        with suppress(ChildProcessError):  # other code has reaped it, or SIGCHLD is ignored
            ended = _waitid(os.P_PIDFD, self._process, os.WEXITED)
            self._status = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        with suppress(OSError):  # end those that it has started, if there are any; Linux before 6.9 lacks the flag
            signal.pidfd_send_signal(self._process, signal.SIGKILL, None, _PROCESS_GROUP)
        self._pass_stderr_on()
        self._wrote = self._read_stderr()
        with _fork_lock:
            _living.discard(self)
            self._close()
        spill.remove(self._spill)

    def _read(self, name: str) -> str:
        try:
            with open(f"/proc/{self.pid}/{name}") as file:
                return file.read()
        except OSError:  # it has ended
            return ""

    def _pass_stderr_on(self, most: int = _MAX_STDERR) -> None:
        """Write to this process's stderr what the child has written to its own, and keep *most* bytes of it."""
        file = self._stderr.fileno()
        size = os.fstat(file).st_size
        while self._passed_on < size:
            data = os.pread(file, 1 << 16, self._passed_on)
            self._passed_on += len(data)
            with suppress(OSError):  # there is none
                os.write(2, data)
        if size > most:
            os.ftruncate(file, 0)
            self._passed_on = 0

    def _read_stderr(self) -> str:
        file = self._stderr.fileno()
        start = max(0, os.fstat(file).st_size - _STDERR_READ)
        return os.pread(file, _STDERR_READ, start).decode(errors="replace")


def error_of(packed: bytes, text: str, trace: str) -> BaseException:
    """Return the error that a child has sent. Its traceback there is a note: a pickle has none."""
    error: BaseException = ChildFailed(text)
    with suppress(Exception):  # there is no pickle, or its class exists in the child only
        found = pickle.loads(packed)  # both ends are ours
        error = found if isinstance(found, BaseException) else error
    if trace:
        note(error, f"in the other process: {trace.rstrip()}")
    return error


def working_directory() -> str | None:
    """Return the current directory, which relative paths in a query mean; None if it was removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def _end(pid: int) -> None:
    """End a process that has no descriptor."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        _waitid(os.P_PID, pid, os.WEXITED)


def _before_fork() -> None:
    global _is_forking
    _fork_lock.acquire()
    _is_forking = True


def _after_fork_in_parent() -> None:
    global _is_forking
    if _is_forking:  # this module may be imported while a fork is prepared
        _is_forking = False
        _fork_lock.release()


def _after_fork_in_child() -> None:
    for child in _living:
        child.forget()
    _living.clear()
    _after_fork_in_parent()


# A fork copies descriptors. If its child kept the lifeline of a process, that process would outlive the server.
_fork_lock = native.RLock()  # held while a process is started, and for a fork
_is_forking = False  # under the lock
_living: set[Child] = set()  # those that have descriptors here; any thread, under the lock
os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
