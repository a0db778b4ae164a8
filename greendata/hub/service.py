"""`Service`: a function that runs until it is told to stop, and says when it is there."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar

from greendata.errors import JobCancelled, ServiceEnded
from greendata.hub.call import Call
from greendata.hub.outcome import Status
from greendata.hub.result import Result

__all__ = ("Service",)

T = TypeVar("T")


class Service(Generic[T]):
    """A function that runs in a greenlet from `Caller.service` to `stop`.

    The function gets the service as its first argument. It calls ``service.started.set()`` when it is ready for use and
    waits for ``service.stopping``. As a context manager: entering waits until it has started, leaving stops it and
    waits for its end. A block that shall not go on without it holds it in a group: ``group.add(service.stopped)``.

    Attributes:
        label: what it is called: the function's name.
        started: set by the function; fails if the function ends before.
        stopping: set by `stop`.
        stopped: the outcome of the function; `ServiceEnded` if it returned before it was told to stop.

    Safe from any thread.
    """

    __slots__ = ("label", "started", "stopped", "stopping")

    stopped: Call[T]

    def __init__(self, label: str) -> None:
        self.label = label
        self.started: Result[None] = Result(f"start of {label}")
        self.stopping: Result[None] = Result(f"stop of {label}")
        self.started.bind(None, None)
        self.stopping.bind(None, None)

    def stop(self) -> Call[T]:
        """Tell the function to end; returns `stopped`. Idempotent."""
        self.stopping.over()
        return self.stopped

    def run(self, func: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        """Call the function, and hold it to its word. Called in the service's greenlet."""
        value = func(self, *args, **kwargs)
        if not self.stopping.ready():
            raise ServiceEnded(self.label, value)
        return value

    def follow(self, call: Call[T]) -> None:
        """Tie the service to the call that runs it. Called once, before it is scheduled."""
        call.label = self.label
        self.stopped = call
        call.add_waker(self._note_end)

    def _note_end(self) -> None:
        never = JobCancelled(self.started.label, running=True, native=False, message="the service ended before")
        error = self.stopped.exception
        self.started.settle(Status.FAILED, error=never if error is None else error)
        self.started.wake()

    def __enter__(self) -> Self:
        try:
            self.started.get()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        self.stop()
        if error is None:
            self.stopped.get()
        else:
            self.stopped.wait()
        return False

    def __repr__(self) -> str:
        state = "stopped" if self.stopped.ready() else "stopping" if self.stopping.ready() else "running"
        return f"<Service {self.label!r} {state}>"
