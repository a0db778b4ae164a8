"""`Stream`: the iterator over the elements of a pipeline. It starts the run and ends it."""

from __future__ import annotations

from collections.abc import Callable
from types import GeneratorType
from typing import Generic, TypeVar

from greendata.errors import StreamBusy
from greendata.hub.closing import Closing
from greendata.hub.entry_queue import EntryQueue
from greendata.pipelines.channel import Stopped
from greendata.pipelines.element import Element, Item, path_of
from greendata.pipelines.run import Operator, Run

__all__ = ("Stream",)

T = TypeVar("T")


class Stream(Closing, Generic[T]):
    """An iterator over the elements of a stage, and a context manager that ends the run.

    `close` and the end of the block return when all workers have ended and every ``on_done`` has run. If a stream is
    dropped, for example by a ``break``, or its consumer is killed, the run ends in the next iterations of the hub.

    Example:
        >>> from greendata.pipelines import stages
        >>> with stages.to_iterable(stages.map(abs, [-1, 2])) as stream:
        ...     next(stream)
        1
    """

    def __init__(self, stage: Operator, *, return_index: bool = False) -> None:
        self._stage: Operator | None = stage  # until it starts
        self._entry_queue: EntryQueue  # of the hub that the run is on
        self._run: Run | None = None
        self._is_closed = False
        self._with_index = return_index
        self._advance: Callable[[], Item] = self._start

    def __iter__(self) -> Stream[T]:
        return self

    def __next__(self) -> T:
        try:
            item = self._advance()
        except BaseException as error:
            self._leave(error)
            raise
        return item[1] if not self._with_index else Element(path_of(item[0]), item[1])  # type: ignore[return-value]

    def close(self) -> None:
        """End the run and wait for it.

        Raises:
            BaseException: an exception of an ``on_done``, or one of a worker that has not been raised yet.
        """
        self._is_closed = True
        run = self._run
        if run is not None:
            self._run = None
            run.close()
            if run.error is not None:
                raise run.error

    def __del__(self) -> None:
        run = getattr(self, "_run", None)
        if run is not None:
            self._entry_queue.post(run.stop)

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "waiting" if self._run is None else "running"
        return f"<Stream {state} at {id(self):#x}>"

    def _start(self) -> Item:
        if self._is_closed or self._stage is None:
            raise StopIteration
        stage, self._stage = self._stage, None
        self._entry_queue = EntryQueue.here()
        self._run = Run(stage)
        self._advance = self._run.items.__next__
        return self._advance()

    def _leave(self, error: BaseException) -> None:
        """End the run, after its last element, an error in it, or an exception in the consumer while it waited."""
        run = self._run
        if run is None:
            if isinstance(error, Stopped):
                raise StopIteration from None
            return
        if isinstance(error, ValueError) and isinstance(run.items, GeneratorType) and run.items.gi_running:
            raise StreamBusy from error
        self._run = None
        self._is_closed = True
        self._advance = _ended
        is_raised = not isinstance(error, Stopped | StopIteration)
        if is_raised and run.error is None:
            run.error = error
        run.close()
        if not is_raised and run.error is not None:
            raise run.error
        if isinstance(error, Stopped):
            raise StopIteration


def _ended() -> Item:
    raise StopIteration
