"""Errors of queries: batch streams, the patch, engines and frames."""

from __future__ import annotations

from collections.abc import Iterable

from greendata.errors.plural import counted
from greendata.errors.root import GreenDataError

__all__ = (
    "BadEngine",
    "BatchesBusy",
    "BatchesHaveNoResult",
    "BatchesSpent",
    "NotAFrame",
    "SeamMissing",
)


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
        return f"engine must be 'auto', 'in-memory', 'streaming', 'gpu' or a polars.Engine, got {self.engine!r}"


class NotAFrame(GreenDataError, TypeError):
    """The object to collect, sink or write is not a Polars frame of the expected kind.

    Attributes:
        frame: what was given.
        expected: the kind of frame, "LazyFrame" or "DataFrame".
    """

    def __init__(self, frame: object, expected: str) -> None:
        super().__init__(frame, expected)
        self.frame = frame
        self.expected = expected

    def __str__(self) -> str:
        hint = {"LazyFrame": "call lazy() on a DataFrame", "DataFrame": "collect the LazyFrame first"}
        return f"expected a polars.{self.expected}, got {type(self.frame).__name__}; {hint[self.expected]}"
