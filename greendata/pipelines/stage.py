"""`Stage`, a lazy and re-iterable part of a pipeline, and `Partial`, a stage that has no source yet."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from greendata.errors import NotIterable, PipelineTimeout, ResultTimeout
from greendata.hub.entry_queue import EntryQueue
from greendata.hub.result import Result
from greendata.pipelines.channel import Channel
from greendata.pipelines.run import Flow, Run, Windows
from greendata.pipelines.stream import Stream
from greendata.tasks.task import Task

__all__ = ("Partial", "Stage")

T = TypeVar("T", covariant=True)
R = TypeVar("R")


class Stage(ABC, Generic[T]):
    """A part of a pipeline. It does nothing until it is iterated; every iteration runs the whole pipeline again.

    A stage that feeds several others runs once for all of them.

    Attributes:
        label: the name of the stage in errors.
        maxsize: elements that may wait before the stage, and after the last stage; 0 for no limit.
        sources: the stages before it.

    Example:
        >>> from greendata.pipelines import stages
        >>> stage = range(3) | stages.map(lambda x: x + 1) | stages.filter(lambda x: x != 2)
        >>> list(stage), stage.get(timeout=5)
        ([1, 3], [1, 3])
    """

    def __init__(self, label: str, maxsize: int, sources: tuple[Stage[Any], ...]) -> None:
        self.label = label
        self.maxsize = maxsize
        self.sources = sources

    # -- for the user -------------------------------------------------------------------------------

    def __iter__(self) -> Stream[T]:
        return Stream(self)

    def __or__(self, consumer: Callable[[Stage[T]], R]) -> R:
        """``stage | consumer`` is ``consumer(stage)``: a partial stage, ``list``, any function."""
        return consumer(self)

    def get(self, block: bool = True, timeout: float | None = None) -> list[T]:  # noqa: FBT001, FBT002
        """Run the pipeline and return all elements in a list.

        Args:
            block: if false, raise `PipelineTimeout` at once, because nothing has run yet.
            timeout: seconds after which the run is ended.

        Raises:
            PipelineTimeout: the run did not finish in time, and was cancelled. It is a `ResultTimeout`.
            BadTimeout: *timeout* is negative or NaN.
            BaseException: an exception of a function or of the source.
        """
        result = self.submit()
        try:
            return result.get(block, timeout)
        except ResultTimeout as expired:
            if expired.result is not result:  # one that a function of the pipeline raised
                raise
            raise PipelineTimeout(result, expired.seconds) from expired
        finally:
            result.cancel()

    def submit(self) -> Result[list[T]]:
        """Run the pipeline in a greenlet and return a `Result` of all elements. Cancelling it ends the run."""
        task: Task[list[T]] = Task(EntryQueue.here(), list, (self,), {})
        task.call.label = self.label
        return task.dispatch(task.start)

    def run(self) -> None:
        """Run the pipeline to the end for its side effects, and discard the elements."""
        for _ in self:
            pass

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.label!r} at {id(self):#x}>"

    def __dir__(self) -> list[str]:  # without what only a run uses
        return [name for name in super().__dir__() if name not in ("expected", "feed", "flow", "upstream_window")]

    # -- for a run ----------------------------------------------------------------------------------

    @property
    def expected(self) -> int | None:
        """The number of elements it will produce, or None if that is not known."""
        return None

    def upstream_window(self, downstream: int) -> int:
        """Return the smallest window after the sources, given the smallest window *downstream* of this stage."""
        return downstream

    @abstractmethod
    def flow(self, run: Run, windows: Windows) -> Flow:
        """Return the elements, to be pulled by one greenlet."""

    def feed(self, run: Run, channel: Channel, windows: Windows) -> None:
        """Have the elements put into *channel*."""
        run.spawn_feeder(self.flow(run, windows), channel, windows)


class Partial(Generic[R]):
    """A stage without its source, for ``source | partial`` or ``partial(source)``. ``partial | partial`` is one too.

    Example:
        >>> from greendata.pipelines import stages
        >>> double_and_sort = stages.map(lambda x: 2 * x, workers=3) | stages.ordered()
        >>> list([3, 1, 2] | double_and_sort)
        [6, 2, 4]
    """

    def __init__(self, make: Callable[[Any], R]) -> None:
        self._make = make

    def __call__(self, source: Iterable[Any]) -> R:
        """Return the stage with its source."""
        return self._make(source)

    def __ror__(self, source: Iterable[Any]) -> R:
        if not isinstance(source, Iterable):
            raise NotIterable(source)
        return self._make(source)

    def __or__(self, following: Callable[[R], Any]) -> Partial[Any]:
        return Partial(lambda source: following(self._make(source)))
