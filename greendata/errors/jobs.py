"""Errors of jobs, their results and the pool, also after a fork."""

from __future__ import annotations

from typing import Any

from gevent import Timeout

from greendata.errors.notes import text_of
from greendata.errors.plural import counted
from greendata.errors.root import AnyResult, GreenDataError

__all__ = (
    "DeadlineExceeded",
    "JobAborted",
    "JobCancelled",
    "NoThread",
    "PolarsForked",
    "PoolClosed",
    "PoolFull",
    "ResultLost",
    "ResultTimeout",
    "UsedAsValue",
    "WaitsForItself",
    "WorkerLost",
)


class ResultTimeout(GreenDataError, Timeout, TimeoutError):
    """``Result.get(timeout=)`` gave up waiting. The work continues for other waiters.

    It is a `gevent.Timeout`, for code that uses gevent, and a `TimeoutError`, which is an `Exception`, so that the
    error handlers of Flask and gunicorn catch it.

    Attributes:
        result: the result that the caller waited for.
        seconds: the limit of the wait.

    Example:
        >>> from greendata import Result
        >>> str(ResultTimeout(Result(), 2.0)).startswith("no outcome within 2 seconds")
        True
    """

    _not_carried = frozenset({"timer"})
    timer: Any = Timeout().timer  # the timer of copies, which is not armed

    def __init__(self, result: AnyResult, seconds: float | None, *, armed: bool = False) -> None:
        # A gevent.Timeout with seconds creates a timer, and so needs a hub; only the waiting greenlet arms it.
        Timeout.__init__(self, seconds if armed else None)
        self.seconds = seconds
        self.result = result

    def __str__(self) -> str:
        limit = "without waiting" if self.seconds is None else f"within {counted(self.seconds, 'second')}"
        return f"no outcome {limit} from {self.result!r}; the work continues, call cancel() to give it up"


class DeadlineExceeded(GreenDataError, TimeoutError):
    """The job's deadline passed: queue wait and run time together took longer than allowed.

    Attributes:
        label: the name of the job.
        seconds: the time it was allowed.
        running: True if it had started.
        native: True for a native call that cannot be stopped: it continues, and is counted as abandoned.
        in_block: True if the deadline was set by a block around the job, such as that of a request, rather than by its
            own timeout.
    """

    def __init__(
        self, label: str, seconds: float, *, running: bool, native: bool = True, in_block: bool = False
    ) -> None:
        super().__init__(label, seconds)
        self.in_block = in_block
        self.label = label
        self.seconds = seconds
        self.running = running
        self.native = native

    def __str__(self) -> str:
        where = f"was still running{_continues(native=self.native)}" if self.running else "had not begun"
        whose = "the deadline of the block around it," if self.in_block else "its deadline of"
        return f"{self.label} {where} at {whose} {counted(self.seconds, 'second')}"


class JobCancelled(GreenDataError):
    """``Result.cancel()`` was called before the job had an outcome.

    Attributes:
        label: the name of the job.
        running: True if it had started.
        native: True for a native call, which continues and is counted as abandoned; a greenlet is killed.
        message: the reason that was given, or "".
    """

    def __init__(self, label: str, *, running: bool, native: bool = True, message: str = "") -> None:
        super().__init__(label)
        self.label = label
        self.running = running
        self.native = native
        self.message = message

    def __str__(self) -> str:
        where = f"while it ran{_continues(native=self.native)}" if self.running else "before it began"
        return f"{self.label} was cancelled {where}" + (f": {self.message}" if self.message else "")


class JobAborted(GreenDataError, RuntimeError):
    """The job raised something that is not an `Exception`; ``__cause__`` is the original.

    A Rust panic, `SystemExit`, `KeyboardInterrupt`, `GreenletExit` or a `gevent.Timeout` from a job would end the
    thread, or pass through ``except Exception`` in the waiter. So it is wrapped.

    Attributes:
        label: the name of the job.

    Example:
        >>> import greendata
        >>> try:
        ...     greendata.run(exit, 3).get()
        ... except JobAborted as error:
        ...     type(error.__cause__).__name__
        'SystemExit'
    """

    def __init__(self, label: str, cause: BaseException) -> None:
        super().__init__(label)
        self.label = label
        self.__cause__ = cause

    def __str__(self) -> str:
        cause = self.__cause__
        return f"{self.label} ended with {type(cause).__name__}: {text_of(cause)}"


class PoolFull(GreenDataError, RuntimeError):
    """The queue has reached its limit. Nothing was queued; respond with 503, or try again later.

    Attributes:
        queued: the number of jobs that wait.
        max_queue: the limit.
    """

    def __init__(self, queued: int, max_queue: int) -> None:
        super().__init__(queued, max_queue)
        self.queued = queued
        self.max_queue = max_queue

    def __str__(self) -> str:
        return (
            f"{counted(self.queued, 'job is', 'jobs are')} already waiting and max_queue is {self.max_queue}; "
            "try again later, or raise it with greendata.configure(max_queue=...)"
        )


class NoThread(GreenDataError, RuntimeError):
    """The pool has no worker yet, and the system cannot start a native thread. Nothing was queued."""

    def __str__(self) -> str:
        return (
            "no native thread could be started, and the pool has none; try again later, or raise the limits of "
            "this process (ulimit -u, ulimit -v, the pids of its container)"
        )


class WorkerLost(GreenDataError, RuntimeError):
    """The worker that had the job ended, because another thread raised exceptions in it that nothing catches.

    Attributes:
        worker: the name of its thread.
    """

    def __init__(self, worker: str) -> None:
        super().__init__(worker)
        self.worker = worker

    def __str__(self) -> str:
        return (
            f"{self.worker} ended while it had the job, which may have run or not: another thread raised exceptions "
            "in it (PyThreadState_SetAsyncExc)"
        )


class PoolClosed(GreenDataError, RuntimeError):
    """The pool has been drained, or the process is exiting, and takes no more work."""

    def __str__(self) -> str:
        return "the pool is drained and takes no more work; greendata.configure() opens it again"


class PolarsForked(GreenDataError, RuntimeError):
    """This process was forked from one that had run a Polars query, where every query would hang forever.

    Polars' own threads do not survive a fork, and its queries wait for them silently. Reading the schema or the plan of
    a scan starts these threads, as a query does.

    Attributes:
        operation: what cannot run here although the setting ``on_fork`` is "process"; "" if it is not.

    Example:
        >>> str(PolarsForked("PySeries.sort")).partition(",")[0]
        'PySeries.sort cannot run in this process'
    """

    def __init__(self, operation: str = "") -> None:
        super().__init__(operation)
        self.operation = operation

    def __str__(self) -> str:
        if self.operation:
            return (
                f"{self.operation} cannot run in this process, which was forked after its parent had run a Polars "
                "query: only queries of LazyFrames and eager operations that Polars runs as such do, in child "
                "processes. Write it as a query, or call it there: "
                "greendata.run(func, engine=greendata.ProcessEngine())"
            )
        return (
            "this process was forked after its parent had run a Polars query; every query would hang here. "
            "Run no query before the fork: load data in post_worker_init or on the first request "
            "(if under a lock, one that was made after patch_all), "
            "do without gunicorn --preload, start children with multiprocessing's 'spawn', "
            'or have queries run in child processes: greendata.configure(on_fork="process")'
        )


class ResultLost(GreenDataError, RuntimeError):
    """The job was pending when this process was forked. It continues in the parent process only.

    Attributes:
        label: the name of the job.
    """

    def __init__(self, label: str) -> None:
        super().__init__(label)
        self.label = label

    def __str__(self) -> str:
        return f"{self.label} was submitted before the fork and belongs to the parent process; submit it again here"


class UsedAsValue(GreenDataError, AttributeError, TypeError):
    """A result was used as if it were its value, or as an asyncio future.

    Attributes:
        label: the name of the job.
        problem: what a result cannot do.
        remedy: what to write.

    Example:
        >>> print(UsedAsValue("collect", "has no attribute 'height'", "call get() first: result.get().height"))
        the Result of 'collect' has no attribute 'height'; call get() first: result.get().height
    """

    def __init__(self, label: str, problem: str, remedy: str) -> None:
        super().__init__(label, problem, remedy)
        self.label = label
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"the Result of {self.label!r} {self.problem}; {self.remedy}"


class WaitsForItself(GreenDataError, RuntimeError):
    """A job waited for its own result, or a greenlet for its own end, which would never come.

    Attributes:
        result: the result, or the greenlet.
    """

    def __init__(self, result: object) -> None:
        super().__init__(result)
        self.result = result

    def __str__(self) -> str:
        return f"waiting for {self.result!r} would never end: it is the caller itself; leave it out"


def _continues(*, native: bool) -> str:
    return " (its native call cannot be stopped)" if native else ""
