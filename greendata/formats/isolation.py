"""Read untrusted input in a child process: input that crashes, hangs or fills a parser is an error of its own.

A parser is native code, and no exception of Python can stop what hostile bytes make it do: it may abort, loop, or
allocate without end. In a child the first is an exit status, the second ends at an alarm that the kernel delivers, and
the third at the memory limit of the child. The server continues to serve, and another child is ready.

    greenlet                                worker                  child
    --------                                ------                  -----
    waits for a slot (one a child)
    pool.submit(isolated) --------------->  sends the bytes   --->  sets the alarm, reads the frame
                          <---------------  maps the frame    <---  sends it

Only parsing moves. A model validates here, where its functions belong: its validators may use a database, or what
belongs to the request. The checks of `greendata.formats.guards` run in the child too, for their errors say more.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

from greendata.errors import BadArgument, DeadlineExceeded, Malformed, MemoryLimitExceeded, TooCostly, WorkerDied
from greendata.errors.plural import counted
from greendata.formats.guards import parquet_pages
from greendata.hub.contexts import contextmanager
from greendata.hub.deadline import nearest_limit
from greendata.hub.result import Result
from greendata.pool import pool
from greendata.pool.engine_setting import Isolation, isolation
from greendata.pool.workers import elsewhere
from greendata.threads.parking import ParkingLot

if TYPE_CHECKING:
    from greendata.engines.process import ProcessEngine

__all__ = ("Isolated", "Read", "isolated_by", "read_here", "reading")

# The signals of a process that its own native code ends.
_CRASHES = (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGTRAP, signal.SIGSYS)

Reader = Callable[..., pl.DataFrame]
# Called with a reader, the source, the format and arguments of the reader.
Read = Callable[..., pl.DataFrame]
T = TypeVar("T")


def isolated_by(isolate: bool | None) -> Isolated | None:  # noqa: FBT001 - an argument of the functions that call it
    """Return where untrusted input is read: a child, or None for a thread of this process.

    Args:
        isolate: True or False; None for the setting.

    Raises:
        BadArgument: *isolate* is something else.

    Example:
        >>> isolated_by(None) is None
        True
    """
    if isolate not in (None, True, False):
        raise BadArgument("isolate", isolate, "True, False, or None for the setting")
    if isolate is False:
        return None
    limits = isolation("isolate", pool.shared.settings.isolate) or (Isolation() if isolate else None)
    if limits is None:
        return None
    return _places.get(limits) or _places.setdefault(limits, Isolated(limits))


def reading(
    place: Isolated | None,
    work: Callable[[Read], T],
    submit: Callable[[Callable[[], T]], Result[T]],
    *,
    label: str,
    timeout: float | None,
) -> T:
    """Return ``work(read)`` from the pool, where ``read(reader, source, format, ...)`` calls the reader in *place*.

    Args:
        place: see `isolated_by`.
        work: runs on a worker.
        submit: submits to the pool.
        label: of the job.
        timeout: of the wait for a child, in seconds; `submit` limits the rest.

    Raises:
        DeadlineExceeded: no child was free in time. Other errors are those of *work* and *submit*.

    Example:
        >>> from greendata.formats.readers import read
        >>> work = lambda read_in: read_in(read, b"a,b", "csv", "csv")
        >>> reading(None, work, pool.submit, label="decode", timeout=None).columns
        ['a', 'b']
    """
    if place is None:
        return submit(partial(work, read_here)).get()
    with place.slot(label, timeout):
        result = submit(partial(work, place.read))
        try:
            return result.get()
        finally:
            result.cancel()  # if the wait was interrupted: it ends the child
            del result  # the error's traceback has this frame: avoid a cycle


def read_here(reader: Reader, source: bytes | Path, _format: str, *args: Any, **kwargs: Any) -> pl.DataFrame:
    r"""Return ``reader(source, *args, **kwargs)``.

    Example:
        >>> read_here(pl.read_csv, b"a\n1", "csv").item()
        1
    """
    return reader(source, *args, **kwargs)


class Isolated:
    """The children that read untrusted input within *limits*. Started at the first use, and safe from any thread."""

    def __init__(self, limits: Isolation) -> None:
        self._limits = limits
        self._engine: ProcessEngine | None = None  # any thread writes; see `_engine_here`
        self._slots = [None] * limits.workers  # any thread pops and appends
        self._lot = ParkingLot()

    @contextmanager
    def slot(self, label: str, timeout: float | None) -> Iterator[None]:
        """Wait for a child that is not busy, so that no more workers wait for children than there are.

        Raises:
            DeadlineExceeded: there was none within *timeout* seconds, or the deadline around the caller.
        """
        limit = nearest_limit(timeout)
        left = None if limit is None else max(0.0, limit.until - monotonic())
        with elsewhere():  # a job that waits here leaves its worker to others: those that have the children need it
            has_slot = self._take() or self._lot.wait(self._take, left)
        if not has_slot:
            assert limit is not None
            raise DeadlineExceeded(label, limit.seconds, running=False, in_block=limit.in_block)
        try:
            yield
        finally:
            self._slots.append(None)
            self._lot.wake_one()

    def read(self, reader: Reader, source: bytes | Path, format: str, *args: Any, **kwargs: Any) -> pl.DataFrame:
        """Return ``reader(source, *args, **kwargs)``, computed in a child. Call on a worker, with a slot.

        Args:
            reader: a function that a child can import.
            source: the bytes, which are sent, or a file, whose path is sent.
            format: for errors.

        Raises:
            TooCostly: it takes too much memory or time.
            Malformed: it crashes the parser, or the reader raised it. Other errors are those of the reader.
            WorkerDied: the child ended for another reason.
            NotSendable: an argument cannot be sent.
        """
        engine = self._engine_here()
        began = monotonic()
        try:
            return engine.call(_read, self._limits.timeout, reader, source, args, kwargs)
        except MemoryLimitExceeded as died:
            raise TooCostly(format, f"{counted(died.limit, 'byte')} of memory") from died
        except WorkerDied as died:
            is_late = monotonic() - began >= self._limits.timeout
            # Without a status, which other code has taken, such as gevent's handler of SIGCHLD, the time must tell.
            if died.status == -signal.SIGALRM or (died.status is None and is_late):
                raise TooCostly(format, counted(self._limits.timeout, "second")) from died
            if died.status is None or -died.status in _CRASHES:
                raise Malformed(format, "it crashes the parser") from died
            raise

    def _take(self) -> bool:
        try:
            self._slots.pop()
        except IndexError:
            return False
        return True

    def _engine_here(self) -> ProcessEngine:
        """Return the engine. Two threads may make one each: no child runs before one of them has a query."""
        if self._engine is None:
            limits = self._limits
            processes = import_module("greendata.engines.process")
            self._engine = processes.ProcessEngine(limits.workers, memory_limit=limits.memory_limit)
        return self._engine


def _read(
    timeout: float, reader: Reader, source: bytes | Path, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> pl.DataFrame:
    """Read in the child. An alarm ends it natively, whatever holds the GIL."""
    parquet_pages.memory_is_limited = True
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        return reader(source, *args, **kwargs)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


_places: dict[Isolation, Isolated] = {}  # any thread, one step at a time
os.register_at_fork(after_in_child=_places.clear)  # the greenlets that have slots are the parent's
