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
    ├── GroupClosed                 a group that was left, or is being cancelled; also RuntimeError
    ├── GroupTimeout                a group was out of time; also TimeoutError
    ├── CallerStopped               the caller was stopped, or its hub is gone; also RuntimeError
    ├── NoCaller                    no caller can be had in this thread; also RuntimeError
    ├── ServiceEnded                a service returned before it was told to stop; also RuntimeError
    ├── WaitsForItself              a job was to wait for its own result; also RuntimeError
    ├── BatchesSpent                a batch stream that was begun cannot be exported; also RuntimeError
    ├── SeamMissing                 the Polars in place cannot be patched; also RuntimeError
    ├── ElementTimeout              a stage's function took longer than its timeout; also TimeoutError
    ├── StreamBusy                  two greenlets asked one pipeline iterator at once; also RuntimeError
    ├── BadArgument                 a stage's argument that cannot be used; also ValueError
    ├── FrameMismatch               a frame whose schema is not that of the file; also ValueError
    ├── BadSignature                a stage cannot call the function; also TypeError
    ├── NotIterable                 the source of a pipeline is no iterable; also TypeError
    ├── BadTimeout                  a timeout that is negative or no number; also ValueError
    ├── BadSetting                  configure() or a GREENDATA_* variable; also ValueError
    ├── BadEngine                   no such Polars engine; also ValueError
    ├── NotCallable                 the thing to run is no callable; also TypeError
    ├── BadChoice                   a word that is none of those allowed; also ValueError
    ├── NotAResult                  the thing to wait for is no result and no greenlet; also TypeError
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
    "BadArgument",
    "BadChoice",
    "BadEngine",
    "BadSetting",
    "BadSignature",
    "BadTimeout",
    "BatchesBusy",
    "BatchesSpent",
    "CallerStopped",
    "DeadlineExceeded",
    "ElementTimeout",
    "FrameMismatch",
    "GreenDataError",
    "GroupClosed",
    "GroupTimeout",
    "JobAborted",
    "JobCancelled",
    "NoCaller",
    "NotAFrame",
    "NotAResult",
    "NotCallable",
    "NotIterable",
    "PolarsForked",
    "PoolClosed",
    "PoolFull",
    "ResultLost",
    "ResultTimeout",
    "SeamMissing",
    "ServiceEnded",
    "StreamBusy",
    "WaitsForItself",
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
        running: True if it had begun.
        native: True if it is a native call, which goes on and is counted as abandoned; a greenlet is killed.
    """

    def __init__(self, label: str, seconds: float, *, running: bool, native: bool = True) -> None:
        super().__init__(label, seconds)
        self.label = label
        self.seconds = seconds
        self.running = running
        self.native = native

    def __str__(self) -> str:
        where = f"was still running{_goes_on(native=self.native)}" if self.running else "had not begun"
        return f"{self.label} {where} at its deadline of {self.seconds:g} seconds"


class JobCancelled(GreenDataError):
    """``Result.cancel()`` was called before the job had an outcome.

    Attributes:
        label: what the job was called.
        running: True if it had begun.
        native: True if it is a native call, which goes on and is counted as abandoned; a greenlet is killed.
        message: the reason that was given, or "".
    """

    def __init__(self, label: str, *, running: bool, native: bool = True, message: str = "") -> None:
        super().__init__(label)
        self.label = label
        self.running = running
        self.native = native
        self.message = message

    def __str__(self) -> str:
        where = f"while it ran{_goes_on(native=self.native)}" if self.running else "before it began"
        return f"{self.label} was cancelled {where}" + (f": {self.message}" if self.message else "")


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


class GroupClosed(GreenDataError, RuntimeError):
    """The group takes no more members: it was left, it is being cancelled, or it was never entered.

    Attributes:
        label: what the group is called.
        state: what it is now, in words.
    """

    def __init__(self, label: str, state: str) -> None:
        super().__init__(label, state)
        self.label = label
        self.state = state

    def __str__(self) -> str:
        return f"{self.label} {self.state} and takes no members; start them inside `with Group() as g:`, a new one"


class GroupTimeout(GreenDataError, TimeoutError):
    """A group was out of time; its members were cancelled.

    Attributes:
        label: what the group is called.
        seconds: the time it was allowed.
        survivors: the results of members that cannot be stopped and go on: native calls, and greenlets that do
            not let themselves be killed.
    """

    def __init__(self, label: str, seconds: float, survivors: Iterable[Result[Any]]) -> None:
        super().__init__(label, seconds)
        self.label = label
        self.seconds = seconds
        self.survivors = tuple(survivors)

    def __str__(self) -> str:
        names = ", ".join(sorted(result.label for result in self.survivors))
        going = f"{len(self.survivors)} cannot be stopped and go on: {names}" if names else "none of them goes on"
        return f"{self.label} was not done within {self.seconds:g} seconds; its members were cancelled, {going}"


class CallerStopped(GreenDataError, RuntimeError):
    """The caller was stopped, or its thread or hub is gone, and takes no more calls.

    Attributes:
        caller: the caller's name.
    """

    def __init__(self, caller: str) -> None:
        super().__init__(caller)
        self.caller = caller

    def __str__(self) -> str:
        return f"caller {self.caller!r} is stopped, or its hub is gone; Caller.current() and Caller.new() make another"


class NoCaller(GreenDataError, RuntimeError):
    """No caller can be had in this thread.

    Attributes:
        reason: why.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason}; take Caller.current() on the hub's thread and hand it over"


class ServiceEnded(GreenDataError, RuntimeError):
    """A service returned before it was told to stop.

    Attributes:
        label: what the service is called.
        value: what it returned.
    """

    def __init__(self, label: str, value: object) -> None:
        super().__init__(label, value)
        self.label = label
        self.value = value

    def __str__(self) -> str:
        return f"service {self.label} returned {self.value!r} before it was told to stop; it should wait for stopping"


class WaitsForItself(GreenDataError, RuntimeError):
    """A job was to wait for its own result, which would never come.

    Attributes:
        result: the result.
    """

    def __init__(self, result: Result[Any]) -> None:
        super().__init__(result)
        self.result = result

    def __str__(self) -> str:
        return f"{self.result!r} is the job that asks, and would wait for itself for ever; leave it out"


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


class BadChoice(GreenDataError, ValueError):
    """A word that is none of those allowed.

    Attributes:
        name: the argument.
        value: what was given.
        choices: what is allowed.

    Example:
        >>> print(BadChoice("on_error", "ignore", ("cancel", "collect")))
        on_error must be 'cancel' or 'collect', got 'ignore'
    """

    def __init__(self, name: str, value: object, choices: Iterable[str]) -> None:
        self.choices = tuple(choices)
        super().__init__(name, value, self.choices)
        self.name = name
        self.value = value

    def __str__(self) -> str:
        *others, last = (repr(choice) for choice in self.choices)
        return f"{self.name} must be {', '.join(others)} or {last}, got {self.value!r}"


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


class NotAResult(GreenDataError, TypeError):
    """The thing to wait for is no result, AsyncResult or greenlet.

    Attributes:
        thing: what was given.
    """

    def __init__(self, thing: object) -> None:
        super().__init__(thing)
        self.thing = thing

    def __str__(self) -> str:
        return f"expected a Result, an AsyncResult or a Greenlet to wait for, got {self.thing!r}"


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


def _goes_on(*, native: bool) -> str:
    return " (its native call cannot be stopped)" if native else ""


class ElementTimeout(GreenDataError, TimeoutError):
    """A stage's function took longer over one element than its ``timeout``. A note names the element's index.

    Attributes:
        label: what the stage is called.
        seconds: the time it was allowed.
    """

    def __init__(self, label: str, seconds: float) -> None:
        super().__init__(label, seconds)
        self.label = label
        self.seconds = seconds

    def __str__(self) -> str:
        return f"{self.label} took longer than its timeout of {self.seconds:g} seconds over one element"


class StreamBusy(GreenDataError, RuntimeError):
    """Two greenlets asked one iterator of a pipeline for its next element at once."""

    def __str__(self) -> str:
        return "another greenlet waits for the next element already; give each consumer its own iter(stage)"


class BadArgument(GreenDataError, ValueError):
    """An argument of a stage that cannot be used.

    Attributes:
        name: the argument.
        value: what was given.
        expected: what it should be.

    Example:
        >>> print(BadArgument("workers", 0, "a whole number >= 1"))
        workers must be a whole number >= 1, got 0
    """

    def __init__(self, name: str, value: object, expected: str) -> None:
        super().__init__(name, value, expected)
        self.name = name
        self.value = value
        self.expected = expected

    def __str__(self) -> str:
        return f"{self.name} must be {self.expected}, got {self.value!r}"


class FrameMismatch(GreenDataError, ValueError):
    """A frame whose schema is not that of the frames before it in the file. Nothing was written.

    Attributes:
        expected: the schema of the first frame.
        got: that of the frame at hand.
    """

    def __init__(self, expected: object, got: object) -> None:
        super().__init__(expected, got)
        self.expected = expected
        self.got = got

    def __str__(self) -> str:
        return (
            f"a frame has the schema {self.got}, and the frames before it have {self.expected}; "
            "one file has one schema: give it to batch(schema=...), or cast the frames"
        )


class BadSignature(GreenDataError, TypeError):
    """A stage cannot call the function with what it has to give.

    Attributes:
        func: the function.
        needs: the parameters that nobody gives, sorted.
        given: the names that could be asked for, sorted.
    """

    def __init__(self, func: object, needs: Iterable[str], given: Iterable[str]) -> None:
        self.func = func
        self.needs = tuple(sorted(needs))
        self.given = tuple(sorted(given))
        super().__init__(func, self.needs, self.given)

    def __str__(self) -> str:
        if not self.needs:
            return f"{self.func!r} takes no positional argument; the stage calls it with the element"
        return (
            f"{len(self.needs)} parameters of {self.func!r} that nobody gives: {', '.join(self.needs)}; "
            f"by name it can have {', '.join(self.given)}, and what on_start returns in a dict"
        )


class NotIterable(GreenDataError, TypeError):
    """The source of a pipeline is neither a stage nor an iterable.

    Attributes:
        source: what was given.
    """

    def __init__(self, source: object) -> None:
        super().__init__(source)
        self.source = source

    def __str__(self) -> str:
        return f"expected a stage or an iterable as the source, got {self.source!r}; call the function that makes it"
