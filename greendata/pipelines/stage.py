"""`Stage`: a lazy, re-iterable piece of a pipeline. `Partial`: one that still waits for its source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from greendata.errors import NotIterable
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
    """What a pipeline is made of. Nothing happens until it is iterated; every iteration runs all of it anew.

    A stage that feeds several others runs once for all of them.

    Attributes:
        label: what it is called in errors.
        maxsize: elements that may wait before it, and behind the last stage; 0 for no bound.
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
        """All elements, in a list.

        Args:
            block: False raises `ResultTimeout` at once, since nothing has run yet.
            timeout: seconds; past them the run is ended.

        Raises:
            ResultTimeout: not all were there in time.
            BadTimeout: *timeout* is negative or NaN.
            BaseException: what a function or the source raised.
        """
        result = self.submit()
        try:
            return result.get(block, timeout)
        finally:
            result.cancel()

    def submit(self) -> Result[list[T]]:
        """Run in a greenlet; the `Result` is the list of all elements. Cancelling it ends the run."""
        task: Task[list[T]] = Task(EntryQueue.here(), list, (self,), {})
        task.call.label = self.label
        return task.dispatch(task.start)

    def run(self) -> None:
        """Run to the end, for what the stages do; the elements are dropped."""
        for _ in self:
            pass

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.label!r} at {id(self):#x}>"

    # -- for a run ----------------------------------------------------------------------------------

    @property
    def expected(self) -> int | None:
        """How many elements it will give, if that is known."""
        return None

    def reach(self, behind: int) -> int:
        """The smallest window that the sources' elements will pass, given the smallest *behind* this stage."""
        return behind

    @abstractmethod
    def flow(self, run: Run, windows: Windows) -> Flow:
        """The elements, to be pulled by one greenlet."""

    def feed(self, run: Run, channel: Channel, windows: Windows) -> None:
        """Have the elements come into *channel*."""
        run.spawn_feeder(self.flow(run, windows), channel, windows)


class Partial(Generic[R]):
    """A stage without its source: ``source | partial``, ``partial(source)``; two of them joined are one.

    Example:
        >>> from greendata.pipelines import stages
        >>> double_and_sort = stages.map(lambda x: 2 * x, workers=3) | stages.ordered()
        >>> list([3, 1, 2] | double_and_sort)
        [6, 2, 4]
    """

    def __init__(self, make: Callable[[Any], R]) -> None:
        self._make = make

    def __call__(self, source: Iterable[Any]) -> R:
        """The stage, with its source."""
        return self._make(source)

    def __ror__(self, source: Iterable[Any]) -> R:
        if not isinstance(source, Iterable):
            raise NotIterable(source)
        return self._make(source)

    def __or__(self, following: Callable[[R], Any]) -> Partial[Any]:
        return Partial(lambda source: following(self._make(source)))
