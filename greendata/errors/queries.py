"""Errors of queries: batch streams, the patch, engines and frames."""

from __future__ import annotations

import signal as signals
from collections.abc import Iterable
from difflib import get_close_matches
from os import PathLike

from greendata.errors.notes import shortened
from greendata.errors.plural import counted
from greendata.errors.root import GreenDataError

__all__ = (
    "BadEngine",
    "BatchesBusy",
    "BatchesHaveNoResult",
    "BatchesSpent",
    "ChildFailed",
    "ClusterUnreachable",
    "EngineClosed",
    "EngineFailed",
    "MemoryLimitExceeded",
    "NodeDiffers",
    "NodeLost",
    "NotAFrame",
    "NotSendable",
    "RouteFailed",
    "RunsNoFunctions",
    "SeamMissing",
    "WorkerDied",
)


ENGINES = ("auto", "in-memory", "streaming", "gpu")


class BatchesBusy(GreenDataError, RuntimeError):
    """Two greenlets or threads asked one batch stream for its next batch at the same time."""

    def __str__(self) -> str:
        return "another greenlet is already waiting for the next batch; give each consumer its own batches()"


class BatchesHaveNoResult(GreenDataError, AttributeError):
    """A stream of batches was used like a result.

    Attributes:
        attribute: the name that it does not have.
    """

    def __init__(self, attribute: str) -> None:
        super().__init__(attribute)
        self.attribute = attribute  # ``name`` is a field of AttributeError, which copies do not have

    def __str__(self) -> str:
        return (
            f"a stream of batches has no {self.attribute}(), it is an iterator: `with batches(lf) as stream:` and then "
            "`for df in stream:`; for one frame call collect(lf).get()"
        )


class BatchesSpent(GreenDataError, RuntimeError):
    """A batch stream that was started or closed cannot be exported as an Arrow stream."""

    def __str__(self) -> str:
        return "the stream has already been started or closed; call batches() again and export before the first batch"


class SeamMissing(GreenDataError, RuntimeError):
    """The installed Polars lacks functions that the patch requires. Nothing was patched.

    Attributes:
        missing: the names that were not found, sorted.
    """

    def __init__(self, missing: Iterable[str], version: str) -> None:
        self.missing = tuple(sorted(missing))
        super().__init__(self.missing, version)
        self.version = version

    def __str__(self) -> str:
        names = ", ".join(self.missing)
        return (
            f"{counted(len(self.missing), 'function')} not found in Polars {self.version}: {names}; greendata supports "
            "polars>=2.0,<3. Nothing was patched; greendata.collect() and GreenEngine work without the patch"
        )


class BadEngine(GreenDataError, ValueError):
    """The engine is neither the name of a Polars engine nor a `polars.Engine` object.

    Attributes:
        engine: what was given.
    """

    def __init__(self, engine: object) -> None:
        super().__init__(engine)
        self.engine = engine

    def __str__(self) -> str:
        return f"engine must be {', '.join(map(repr, ENGINES))} or a polars.Engine, got {self._got}"

    @property
    def _got(self) -> str:
        got = shortened(self.engine)
        if isinstance(self.engine, type) and _is_engine(self.engine):
            return f"{got}; pass an instance: {self.engine.__name__}()"
        if isinstance(self.engine, str) and self.engine.partition(":")[0] == "process":
            return f"{got}; pass a greendata.ProcessEngine(), or set it for all: greendata.configure(engine={got})"
        if isinstance(self.engine, str):
            close = get_close_matches(self.engine.lower().replace("_", "-"), ENGINES, n=1, cutoff=0.5)
            return f"{got}; did you mean {close[0]!r}?" if close else got
        if hasattr(self.engine, "submit"):
            return f"{got}; greendata has its own pool of threads, leave engine= out"
        return got


def _is_engine(kind: type) -> bool:
    return any(base.__name__ == "Engine" and base.__module__.startswith("polars.") for base in kind.__mro__)


class NotAFrame(GreenDataError, TypeError):
    """The object to collect, sink or write is not a Polars frame of the expected kind.

    Attributes:
        frame: what was given.
        expected: the kind of frame, "LazyFrame" or "DataFrame".
    """

    def __init__(self, frame: object, expected: str, remedy: str = "") -> None:
        super().__init__(frame, expected)
        self.frame = frame
        self.expected = expected
        self.remedy = remedy  # "" for the usual one

    def __str__(self) -> str:
        return f"expected a polars.{self.expected}, got {type(self.frame).__name__}{self._hint}"

    @property
    def _hint(self) -> str:
        if self.remedy and type(self.frame).__name__ not in ("LazyFrame", "Result", "TaskResult"):
            return f"; {self.remedy}"
        kind, wants_plan = type(self.frame).__name__, self.expected == "LazyFrame"
        if kind in ("Result", "TaskResult"):
            return "; call get() on it first"
        if kind == "DataFrame" and type(self.frame).__module__.partition(".")[0] == "pandas":
            return f"; convert it: polars.from_pandas(df){'.lazy()' if wants_plan else ''}"
        if kind == "DataFrame":
            return "; call lazy() on it" if wants_plan else ""
        if kind.startswith("Frame["):
            return "; call its submit(), or pass frame.to_frame().lazy()" if wants_plan else "; pass frame.to_frame()"
        if kind == "LazyFrame":
            return "; collect the LazyFrame first: collect(lf).get()"
        if kind in ("dict", "list", "tuple"):
            return f"; make a frame of it: polars.{self.expected}({'data' if kind == 'dict' else 'rows'})"
        if kind == "Table":
            return f"; convert it: polars.from_arrow(table){'.lazy()' if wants_plan else ''}"
        if isinstance(self.frame, str | PathLike):
            path = "call lazy() on a DataFrame, or open a file with polars.scan_parquet(path)"
            return f"; {path if wants_plan else 'the frame comes first'}"
        return "; call lazy() on a DataFrame" if wants_plan else ""


class WorkerDied(GreenDataError, RuntimeError):
    """The process that ran the query ended before it had an outcome. The next query runs in another one.

    Attributes:
        status: its exit status; minus the signal's number if a signal ended it; None if it is unknown, because other
            code has waited for the process.
        stderr: the last lines that it wrote there.

    Example:
        >>> print(WorkerDied(-9, ""))
        the process that ran the query was ended by SIGKILL
    """

    def __init__(self, status: int | None, stderr: str) -> None:
        super().__init__(status, stderr)
        self.status = status
        self.stderr = stderr

    def __str__(self) -> str:
        if self.status is None:
            how = "ended"
        elif self.status < 0:
            how = f"was ended by {_name_of_signal(-self.status)}"
        else:
            how = f"ended with exit status {self.status}"
        wrote = f"; it wrote: {self.stderr}" if self.stderr else ""
        return f"the process that ran the query {how}{wrote}"


class MemoryLimitExceeded(WorkerDied, MemoryError):
    """The query needed more memory than its engine allows. Its child process was ended; the server was not affected.

    Attributes:
        limit: in bytes.

    Example:
        >>> print(MemoryLimitExceeded(500_000_000, -6, ""))
        the query needed more than 500000000 bytes of memory, the limit of its engine
    """

    def __init__(self, limit: int, status: int | None, stderr: str) -> None:
        super().__init__(status, stderr)
        self.args = (limit, status, stderr)
        self.limit = limit

    def __str__(self) -> str:
        return f"the query needed more than {counted(self.limit, 'byte')} of memory, the limit of its engine"


class ChildFailed(GreenDataError, RuntimeError):
    """The query failed in its child process with an error that cannot be sent here as an object.

    Attributes:
        text: the name of its class and its text.

    Example:
        >>> print(ChildFailed("DriverError: no connection"))
        the child process raised DriverError: no connection
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"the child process raised {self.text}"


class NotSendable(GreenDataError, ValueError):
    """The query or one of its arguments cannot be sent to another process.

    Attributes:
        reason: why, and what to do.

    Example:
        >>> print(NotSendable("a file object exists in this process only; pass a path"))
        cannot run in a child process: a file object exists in this process only; pass a path
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot run in a child process: {self.reason}"


class EngineFailed(GreenDataError, RuntimeError):
    """The engine of a ``"module:factory"`` cannot be made in the child process, or does not behave as an engine.

    Attributes:
        engine: the place of its factory.
        reason: what is wrong with it.

    Example:
        >>> print(EngineFailed("shop.engines:cluster", "ConnectionRefusedError: no cluster at 10.0.0.1:5001"))
        cannot use the engine 'shop.engines:cluster': ConnectionRefusedError: no cluster at 10.0.0.1:5001
    """

    def __init__(self, engine: str, reason: str) -> None:
        super().__init__(engine, reason)
        self.engine = engine
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot use the engine {self.engine!r}: {self.reason}"


class RouteFailed(GreenDataError, RuntimeError):
    """The route of `greendata.configure` raised an error, or did not return an engine. The query did not run.

    Attributes:
        label: of the query.
        reason: what the route did.

    Example:
        >>> print(RouteFailed("report", "it raised KeyError: 'tenant 7'"))
        no engine for the query 'report': the route of greendata.configure failed, it raised KeyError: 'tenant 7'
    """

    def __init__(self, label: str, reason: str) -> None:
        super().__init__(label, reason)
        self.label = label
        self.reason = reason

    def __str__(self) -> str:
        return f"no engine for the query {self.label!r}: the route of greendata.configure failed, {self.reason}"


class RunsNoFunctions(GreenDataError, TypeError):
    """The engine that was passed to `greendata.run` runs queries, and no functions.

    Attributes:
        engine: what was given.

    Example:
        >>> print(RunsNoFunctions("streaming"))
        'streaming' runs queries and no functions; pass a greendata.ProcessEngine, or leave engine= out for a thread
    """

    def __init__(self, engine: object) -> None:
        super().__init__(engine)
        self.engine = engine

    def __str__(self) -> str:
        got = shortened(self.engine)
        return f"{got} runs queries and no functions; pass a greendata.ProcessEngine, or leave engine= out for a thread"


class ClusterUnreachable(GreenDataError, ConnectionError):
    """The Ray cluster is not there, or does not accept this process. No query was sent.

    Attributes:
        address: of the cluster.
        reason: what was tried, and how it failed.

    Example:
        >>> print(ClusterUnreachable("10.0.0.1:6379", "Connection refused"))
        the Ray cluster at 10.0.0.1:6379 cannot be used: Connection refused
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address = address
        self.reason = reason

    def __str__(self) -> str:
        return f"the Ray cluster at {self.address} cannot be used: {self.reason}"


class NodeDiffers(GreenDataError, RuntimeError):
    """A node of the cluster has other versions than this process. The query did not run.

    Attributes:
        name: of what differs: Polars, greendata or Python.
        here: the version in this process.
        there: the version on the node.

    Example:
        >>> print(NodeDiffers("Polars", "2.1.0", "2.0.0"))
        a node has Polars 2.0.0, this process 2.1.0; plans are not portable: install the same version everywhere
    """

    def __init__(self, name: str, here: str, there: str) -> None:
        super().__init__(name, here, there)
        self.name = name
        self.here = here
        self.there = there

    def __str__(self) -> str:
        return (
            f"a node has {self.name} {self.there}, this process {self.here}; plans are not portable: install the same "
            "version everywhere"
        )


class NodeLost(GreenDataError, RuntimeError):
    """The node that ran the query died, and the query was not tried again: no retry was left, or no other node.

    Attributes:
        node: its name in the cluster, "" if that is not known.
        reason: what the cluster reports.

    Example:
        >>> print(NodeLost("5f2c", "its raylet crashed"))
        node 5f2c died while it ran the query, which was not tried again: its raylet crashed
    """

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(node, reason)
        self.node = node
        self.reason = reason

    def __str__(self) -> str:
        which = f"node {self.node}" if self.node else "a node"
        return f"{which} died while it ran the query, which was not tried again: {self.reason}"


class EngineClosed(GreenDataError, RuntimeError):
    """The engine was closed, and runs no more queries.

    Example:
        >>> print(EngineClosed())
        the engine is closed; make another one
    """

    def __str__(self) -> str:
        return "the engine is closed; make another one"


def _name_of_signal(number: int) -> str:
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"
