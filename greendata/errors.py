"""Every error greendata raises, one class for one situation.

    GreenDataError                  the root: ``except GreenDataError`` catches all of them
    ├── ResultTimeout               get(timeout=) gave up waiting; also gevent.Timeout and TimeoutError
    ├── DeadlineExceeded            the job itself was out of time; also TimeoutError
    ├── JobCancelled                cancel() was called before the outcome
    ├── JobAborted                  the job let out something that is no Exception; also RuntimeError
    ├── PoolFull                    the queue is at its bound; also RuntimeError
    ├── PoolClosed                  the pool is drained and takes no more work; also RuntimeError
    ├── PolarsForked                this process was forked after Polars ran; also RuntimeError
    ├── ResultLost                  the job belongs to the process this one was forked from; also RuntimeError
    ├── BatchesBusy                 two greenlets asked one batch stream at once; also RuntimeError
    ├── BatchesSpent                a batch stream that was begun cannot be exported; also RuntimeError
    ├── SeamMissing                 the Polars in place cannot be patched; also RuntimeError
    ├── BadTimeout                  a timeout that is negative or no number; also ValueError
    ├── BadSetting                  configure() or a GREENDATA_* variable; also ValueError
    ├── BadEngine                   no such Polars engine; also ValueError
    ├── NotCallable                 the thing to run is no callable; also TypeError
    └── NotAFrame                   the thing to collect or write is no frame; also TypeError

The text of an error lives in its class, and the object it is about is its attribute.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from gevent import Timeout

if TYPE_CHECKING:
    from greendata.hub.result import Result

__all__ = (
    "BadEngine",
    "BadSetting",
    "BadTimeout",
    "BatchesBusy",
    "BatchesSpent",
    "DeadlineExceeded",
    "GreenDataError",
    "JobAborted",
    "JobCancelled",
    "NotAFrame",
    "NotCallable",
    "PolarsForked",
    "PoolClosed",
    "PoolFull",
    "ResultLost",
    "ResultTimeout",
    "SeamMissing",
)


class GreenDataError(Exception):
    """The root of every error raised by greendata.

    Example:
        >>> issubclass(PoolFull, GreenDataError)
        True
    """


class ResultTimeout(GreenDataError, Timeout, TimeoutError):
    """``Result.get(timeout=)`` gave up waiting. The work goes on for its other waiters.

    It is a `gevent.Timeout`, for code that speaks gevent, and a `TimeoutError`, which is an
    `Exception`, so that the error handlers of Flask and gunicorn see it.

    Attributes:
        result: the result that was waited for.
        seconds: how long the wait was allowed to take.

    Example:
        >>> from gevent.event import AsyncResult
        >>> str(ResultTimeout(AsyncResult(), 2.0)).startswith("no outcome within 2 seconds")
        True
    """

    def __init__(self, result: Result[Any], seconds: float | None, *, armed: bool = False) -> None:
        # A gevent.Timeout with seconds takes a timer and so a hub; only the waiting greenlet arms it.
        Timeout.__init__(self, seconds if armed else None)
        self.seconds = seconds
        self.result = result

    def __str__(self) -> str:
        limit = "without waiting" if self.seconds is None else f"within {self.seconds:g} seconds"
        return f"no outcome {limit} from {self.result!r}; the work goes on, call cancel() to give it up"


class DeadlineExceeded(GreenDataError, TimeoutError):
    """The job's deadline passed: queue wait and run time together took longer than allowed.

    Attributes:
        label: what the job was called.
        seconds: the time it was allowed.
        running: True if a worker had begun it; the native call goes on and is counted as abandoned.
    """

    def __init__(self, label: str, seconds: float, *, running: bool) -> None:
        super().__init__(label, seconds)
        self.label = label
        self.seconds = seconds
        self.running = running

    def __str__(self) -> str:
        where = "was still running (its native call cannot be stopped)" if self.running else "had not begun"
        return f"{self.label} {where} at its deadline of {self.seconds:g} seconds"


class JobCancelled(GreenDataError):
    """``Result.cancel()`` was called before the job had an outcome.

    Attributes:
        label: what the job was called.
        running: True if a worker had begun it; the native call goes on and is counted as abandoned.
    """

    def __init__(self, label: str, *, running: bool) -> None:
        super().__init__(label)
        self.label = label
        self.running = running

    def __str__(self) -> str:
        where = "while it ran (its native call cannot be stopped)" if self.running else "before it began"
        return f"{self.label} was cancelled {where}"


class JobAborted(GreenDataError, RuntimeError):
    """The job let out something that is no `Exception`; ``__cause__`` is the original.

    A Rust panic, `SystemExit`, `KeyboardInterrupt`, `GreenletExit` or a `gevent.Timeout` from inside a
    job would end the thread or pass through ``except Exception`` in the waiter; so it is wrapped.

    Attributes:
        label: what the job was called.

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
        return f"{self.label} ended with {type(cause).__name__}: {cause}"


class PoolFull(GreenDataError, RuntimeError):
    """The queue is at its bound. Nothing was queued; answer 503, or try again later.

    Attributes:
        queued: how many jobs wait.
        max_queue: the bound.
    """

    def __init__(self, queued: int, max_queue: int) -> None:
        super().__init__(queued, max_queue)
        self.queued = queued
        self.max_queue = max_queue

    def __str__(self) -> str:
        return (
            f"{self.queued} jobs wait already and max_queue is {self.max_queue}; "
            "try again later, or raise it with greendata.configure(max_queue=...)"
        )


class PoolClosed(GreenDataError, RuntimeError):
    """The pool has been drained, or the process is exiting, and takes no more work."""

    def __str__(self) -> str:
        return "the pool is drained and takes no more work; greendata.configure() opens it again"


class PolarsForked(GreenDataError, RuntimeError):
    """This process was forked from one that had run a Polars query, where every query hangs for ever.

    Polars' own threads do not survive a fork, and its queries wait for them silently.
    """

    def __str__(self) -> str:
        return (
            "this process was forked after its parent had run a Polars query; every query would hang here. "
            "Run no query before the fork: load data in post_worker_init or on the first request, "
            "do without gunicorn --preload, or start children with multiprocessing's 'spawn'"
        )


class ResultLost(GreenDataError, RuntimeError):
    """The job was pending when this process was forked; it goes on in the parent, not here.

    Attributes:
        label: what the job was called.
    """

    def __init__(self, label: str) -> None:
        super().__init__(label)
        self.label = label

    def __str__(self) -> str:
        return f"{self.label} was submitted before the fork and belongs to the parent process; submit it again here"


class BatchesBusy(GreenDataError, RuntimeError):
    """Two greenlets or threads asked one batch stream for its next batch at once."""

    def __str__(self) -> str:
        return "another greenlet waits for the next batch already; give each consumer its own batches()"


class BatchesSpent(GreenDataError, RuntimeError):
    """A batch stream that has been begun or closed was asked for the whole of it as an Arrow stream."""

    def __str__(self) -> str:
        return "the stream has been begun or closed already; export it before its first batch, from a new batches()"


class SeamMissing(GreenDataError, RuntimeError):
    """The Polars in place does not have the functions that the patch stands on. Nothing was patched.

    Attributes:
        missing: the names that were looked for and not found.
    """

    def __init__(self, missing: Iterable[str], version: str) -> None:
        self.missing = tuple(sorted(missing))
        super().__init__(self.missing, version)
        self.version = version

    def __str__(self) -> str:
        names = ", ".join(self.missing)
        return (
            f"{len(self.missing)} functions not found in Polars {self.version}: {names}; greendata supports "
            "polars>=2.0,<3. Nothing was patched; greendata.collect() and GreenEngine work without the patch"
        )


class BadTimeout(GreenDataError, ValueError):
    """A timeout that is negative, NaN or no number.

    Attributes:
        timeout: what was given.

    Example:
        >>> print(BadTimeout(-1))
        timeout must be None or a number of seconds >= 0, got -1
    """

    def __init__(self, timeout: object) -> None:
        super().__init__(timeout)
        self.timeout = timeout

    def __str__(self) -> str:
        return f"timeout must be None or a number of seconds >= 0, got {self.timeout!r}"


class BadSetting(GreenDataError, ValueError):
    """A setting of `greendata.configure` or of a ``GREENDATA_*`` variable that cannot be used.

    Attributes:
        name: the setting.
        value: what was given.
        expected: what it should be.
    """

    def __init__(self, name: str, value: object, expected: str) -> None:
        super().__init__(name, value, expected)
        self.name = name
        self.value = value
        self.expected = expected

    def __str__(self) -> str:
        return f"{self.name} must be {self.expected}, got {self.value!r}"


class BadEngine(GreenDataError, ValueError):
    """Neither the name of a Polars engine nor a `polars.Engine` object.

    Attributes:
        engine: what was given.
    """

    def __init__(self, engine: object) -> None:
        super().__init__(engine)
        self.engine = engine

    def __str__(self) -> str:
        return f"engine must be 'auto', 'in-memory', 'streaming', 'gpu' or a polars.Engine, got {self.engine!r}"


class NotCallable(GreenDataError, TypeError):
    """The thing to run is no callable.

    Attributes:
        func: what was given.
    """

    def __init__(self, func: object) -> None:
        super().__init__(func)
        self.func = func

    def __str__(self) -> str:
        return f"expected a callable to run, got {self.func!r}; pass the function itself, not what it returned"


class NotAFrame(GreenDataError, TypeError):
    """The thing to collect, sink or write is no Polars frame of the kind asked for.

    Attributes:
        frame: what was given.
        expected: the kind of frame, "LazyFrame" or "DataFrame".
    """

    def __init__(self, frame: object, expected: str) -> None:
        super().__init__(frame, expected)
        self.frame = frame
        self.expected = expected

    def __str__(self) -> str:
        hint = {"LazyFrame": "df.lazy() makes one of a DataFrame", "DataFrame": "collect the LazyFrame first"}
        return f"expected a polars.{self.expected}, got {type(self.frame).__name__}; {hint[self.expected]}"
