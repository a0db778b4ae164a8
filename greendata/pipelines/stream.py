"""`Stream`: the iterator over what a pipeline gives, which ends its run."""

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
    """An iterator over what a stage gives, and a context manager that ends the run.

    Leaving the block and `close` return when no worker is left and every ``on_done`` has run. A stream that is
    dropped (by a ``break``, say) or whose consumer was killed ends its run in the hub's next turns.

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
            BaseException: what an ``on_done`` raised meanwhile, or a worker that nobody has heard of yet.
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
        """The run is over, by its end, an error, or what struck the consumer while it waited."""
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
        is_told = not isinstance(error, Stopped | StopIteration)
        if is_told and run.error is None:
            run.error = error
        run.close()
        if not is_told and run.error is not None:
            raise run.error
        if isinstance(error, Stopped):
            raise StopIteration


def _ended() -> Item:
    raise StopIteration
