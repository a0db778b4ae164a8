"""Errors of pipelines and their stages."""

from __future__ import annotations

from collections.abc import Iterable

from greendata.errors.jobs import ResultTimeout
from greendata.errors.notes import shortened
from greendata.errors.plural import counted
from greendata.errors.root import GreenDataError

__all__ = (
    "BadSignature",
    "ElementTimeout",
    "NotIterable",
    "PipelineTimeout",
    "StreamBusy",
)


class ElementTimeout(GreenDataError, TimeoutError):
    """A stage's function took longer than its ``timeout`` for one element. A note has the index of the element.

    Attributes:
        label: the name of the stage.
        seconds: the time it was allowed.
    """

    def __init__(self, label: str, seconds: float) -> None:
        super().__init__(label, seconds)
        self.label = label
        self.seconds = seconds

    def __str__(self) -> str:
        return f"{self.label} took longer than its timeout of {counted(self.seconds, 'second')} for one element"


class PipelineTimeout(ResultTimeout):
    """``get(timeout=)`` of a stage gave up waiting, and cancelled the run that it had begun."""

    def __str__(self) -> str:
        if self.seconds is None:
            return f"the pipeline {self.result.label} has not run yet; call get() without block=False, or submit()"
        return (
            f"the pipeline {self.result.label} was not done within {counted(self.seconds, 'second')} and was "
            "cancelled; allow more time, or call submit(), whose Result continues after a timeout"
        )


class StreamBusy(GreenDataError, RuntimeError):
    """Two greenlets called ``next()`` on one iterator of a pipeline at the same time."""

    def __str__(self) -> str:
        return "another greenlet is already waiting for the next element; give each consumer its own iter(stage)"


class BadSignature(GreenDataError, TypeError):
    """A stage cannot call the function with the arguments that it provides.

    Attributes:
        func: the function.
        needs: the parameters without a value, sorted.
        given: the names that the stage provides, sorted.
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
            f"{counted(len(self.needs), 'parameter')} of {self.func!r} without a value: {', '.join(self.needs)}; "
            f"a stage provides {', '.join(self.given)}, and the items of the dict that on_start returns"
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
        got = shortened(self.source)
        return f"expected a stage or an iterable as the source, got {got}; call the function that makes it"
