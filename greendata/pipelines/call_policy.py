"""`CallPolicy`: what a stage does with one element: the call, its injected arguments, its place, its failures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any, Literal

from gevent import GreenletExit, Timeout

from greendata.errors import BadArgument, BadChoice, ElementTimeout
from greendata.errors.notes import note, shown
from greendata.hub.contexts import contextmanager
from greendata.hub.deadline import seconds_of
from greendata.pipelines.channel import clock
from greendata.pipelines.element import Mark, path_of
from greendata.pipelines.injection import StageStatus, WorkerInfo, asked, check_given, chosen
from greendata.pool import pool
from greendata.pool.cleanup import shielded

__all__ = (
    "Budget",
    "CallPolicy",
    "NATIVE_RUN",
    "On",
    "OnError",
)

On = Literal["greenlet", "native", "inline"]
OnError = Literal["raise", "skip"] | Callable[[BaseException, Any], object]

NATIVE_RUN = 100  # elements that one job takes from an iterator that is read natively: a job costs as much as some 50

_END = object()


class CallPolicy:
    """A function with its place of execution, its timeout, its error policy and what comes before and after.

    Args:
        func: called with an element's value, and by name with what it asks for.
        label: what the stage is called in notes and errors.
        on: "greenlet" and "inline" call it on the hub, "native" in the pool.
        timeout: seconds for the function over one element; 0 or None for no bound.
        on_error: "raise", "skip", or a function of the error and the value, after which the element is dropped.
        on_start: called once by each worker; the dict that it returns is there to be asked for.
        on_done: called once by each worker that has started, however it ends.

    Raises:
        NotCallable, BadArgument, BadChoice, BadSignature, BadTimeout: the arguments cannot be used.
    """

    def __init__(
        self,
        func: Callable[..., Any],
        label: str,
        *,
        on: On = "greenlet",
        timeout: float | None = None,
        on_error: OnError = "raise",
        on_start: Callable[..., Any] | None = None,
        on_done: Callable[..., Any] | None = None,
    ) -> None:
        if on not in ("greenlet", "native", "inline"):
            raise BadChoice("on", on, ("greenlet", "native", "inline"))
        if on_error not in ("raise", "skip") and not callable(on_error):
            raise BadArgument("on_error", on_error, "'raise', 'skip' or a function of the error and the value")
        self.label = label
        self.on = on
        self.timeout = seconds_of(timeout) or 0.0
        self._func = func
        self._on_error = on_error
        self._on_start = on_start
        self._on_done = on_done
        names = asked(
            func, ("worker_info", "stage_status", "element_index"), has_element=True, is_open=on_start is not None
        )
        self.wants_index = "element_index" in names
        self._asked = names - {"element_index"}
        self._start_asked = asked(on_start, ("worker_info", "stage_status")) if on_start is not None else frozenset()
        self._done_asked = (
            asked(on_done, ("worker_info", "stage_status"), is_open=on_start is not None)
            if on_done is not None
            else frozenset()
        )

    @contextmanager
    def opened(self, info: WorkerInfo, status: StageStatus) -> Iterator[Callable[..., Any]]:
        """Between ``on_start`` and ``on_done`` of one worker; yields the function with what it asked for."""
        given: dict[str, Any] = {"worker_info": info, "stage_status": status}
        try:
            given |= self._start(given, status)
            check_given(self._func, self._asked, given)
        except BaseException:
            status.active_workers -= 1
            raise
        try:
            injected = chosen(given, self._asked)
            yield partial(self._func, **injected) if injected else self._func
        except (Exception, Timeout) as error:
            self._end(status, given, error)
            raise
        except BaseException:  # the worker is sent home
            self._end(status, given)
            raise
        else:
            self._end(status, given)

    def _start(self, given: dict[str, Any], status: StageStatus) -> dict[str, Any]:
        """Call ``on_start``; a native one, which nobody can stop, is waited for, and ``on_done`` follows it."""
        if self._on_start is None:
            return {}
        returned: list[Any] = []
        call = partial(self._on_start, **chosen(given, self._start_asked))
        try:
            if self.on == "native":
                shielded(lambda: returned.append(self.run(call)))
            else:
                returned.append(call())
        except GreenletExit:
            if returned:
                self._end(StageStatus(status.active_workers), {**given, **_checked(returned[0])})
            raise
        return _checked(returned[0])

    def _end(self, status: StageStatus, given: dict[str, Any], error: BaseException | None = None) -> None:
        """Call ``on_done``; what it raises after an *error* is a note of that."""
        status.active_workers -= 1
        if self._on_done is None:
            return
        now = StageStatus(status.active_workers)  # when the others are done is not this worker's business
        done = partial(self._on_done, **chosen({**given, "stage_status": now}, self._done_asked))
        try:
            shielded(partial(self.run, done))
        except (Exception, Timeout) as second:
            if error is None:
                raise
            note(error, f"on_done raised, after that: {shown(second)}")

    def run(self, func: Callable[[], Any]) -> Any:
        """Call *func* where this step runs, without a timeout."""
        return pool.call(func) if self.on == "native" else func()

    def failed(self, error: BaseException, index: Any, value: Any, *, deferred: bool) -> Mark | None:
        """What is left of an element over which the function raised *error*: nothing, or a mark.

        Args:
            deferred: the error is to be raised in its turn, by whoever puts the elements in order.

        Raises:
            BaseException: *error*, if the policy says so.
        """
        if self._on_error == "skip":
            return None
        path = path_of(index)
        note(error, f"raised by {self.label} over element {path[0] if len(path) == 1 else path}")
        if callable(self._on_error):
            self._on_error(error, value)
            return None
        if not deferred:
            raise error
        return Mark(error)

    def call_of(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """*call*, where this step runs and within its timeout."""
        if not self.timeout:
            return partial(pool.call, call) if self.on == "native" else call

        def within(value: Any, **index: Any) -> Any:
            return Budget(self).run(call, value, **index)

        return within

    def children(self, call: Callable[..., Any], value: Any, **index: Any) -> Iterator[Any]:
        """What the iterable gives that the function returns; the timeout bounds the running time of both."""
        if not self.timeout and self.on != "native":
            yield from call(value, **index)
            return
        budget = Budget(self)
        iterator: Iterator[Any] = budget.run(lambda: iter(call(value, **index)))
        if self.on == "native":
            while run := budget.run(list, islice(iterator, NATIVE_RUN)):
                yield from run
        else:
            while (child := budget.run(next, iterator, _END)) is not _END:
                yield child


class Budget:
    """The seconds that a step's function has for one element, spent in one call or in several."""

    def __init__(self, step: CallPolicy) -> None:
        self._step = step
        self._left = step.timeout

    def run(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call *func* where the step runs.

        Raises:
            ElementTimeout: the seconds are spent. A native call goes on; its slot counts as abandoned.
        """
        step = self._step
        if not step.timeout:
            return step.run(partial(func, *args, **kwargs))
        if step.on == "native":
            return self._run_native(partial(func, *args, **kwargs))
        began = clock()
        try:
            with Timeout(max(self._left, 0.0)) as timer:
                return func(*args, **kwargs)
        except Timeout as expired:
            if expired is not timer:
                raise
            raise ElementTimeout(step.label, step.timeout) from None
        finally:
            self._left -= clock() - began

    def _run_native(self, func: Callable[[], Any]) -> Any:
        """The time in the queue does not count; whether it has begun shows when the seconds have passed."""
        step = self._step
        result = pool.submit(func, label=step.label)
        try:
            while not result.ready():
                left = self._left - result.run_seconds
                if left <= 0:
                    raise ElementTimeout(step.label, step.timeout)
                result.wait(left)
            self._left -= result.run_seconds
            return result.get()
        finally:
            result.cancel()


def _checked(started: Any) -> dict[str, Any]:
    if started is not None and not isinstance(started, dict):
        raise BadArgument("what on_start returns", started, "a dict or None")
    return started or {}
