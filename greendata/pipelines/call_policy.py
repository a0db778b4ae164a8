"""`CallPolicy`: how a stage calls its function: where, with which injected arguments, timeout and error policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any, Literal

from gevent import GreenletExit, Timeout

from greendata.errors import BadArgument, BadChoice, ElementTimeout
from greendata.errors.notes import note, shortened, shown
from greendata.hub.contexts import contextmanager
from greendata.hub.deadline import seconds_of
from greendata.pipelines.channel import clock
from greendata.pipelines.element import Placeholder, path_of
from greendata.pipelines.injection import StageStatus, WorkerInfo, check_given, requested_names, select
from greendata.pool import pool
from greendata.pool.cleanup import run_uninterrupted

__all__ = (
    "Budget",
    "CallPolicy",
    "NATIVE_RUN",
    "On",
    "OnError",
)

On = Literal["greenlet", "native", "inline"]
OnError = Literal["raise", "skip"] | Callable[[BaseException, Any], object]

NATIVE_RUN = 100  # elements that one job reads from an iterator in the pool; a job costs as much as about 50 elements

_END = object()


class CallPolicy:
    """A function with its place of execution, timeout, error policy, and the callbacks before and after.

    Args:
        func: called with an element's value, and with the injected arguments that its parameters name.
        label: the name of the stage in notes and errors.
        on: "greenlet" and "inline" call it on the hub, "native" in the pool.
        timeout: seconds that the function may take for one element; 0 or None for no limit.
        on_error: "raise", "skip", or a function that is called with the error and the value before the element is
            dropped.
        on_start: called once by each worker; the items of the dict that it returns can be injected.
        on_done: called once by each worker that has started, whether it succeeds or fails.

    Raises:
        NotCallable, AsyncFunction, BadArgument, BadChoice, BadSignature, BadTimeout: the arguments cannot be used.
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
        names = requested_names(
            func, ("worker_info", "stage_status", "element_index"), has_element=True, is_open=on_start is not None
        )
        self.wants_index = "element_index" in names
        self._requested = names - {"element_index"}
        self._start_requested = (
            requested_names(on_start, ("worker_info", "stage_status")) if on_start is not None else frozenset()
        )
        self._done_requested = (
            requested_names(on_done, ("worker_info", "stage_status"), is_open=on_start is not None)
            if on_done is not None
            else frozenset()
        )

    @contextmanager
    def worker_scope(self, info: WorkerInfo, status: StageStatus) -> Iterator[Callable[..., Any]]:
        """Call ``on_start``, yield the function with its injected arguments, and call ``on_done`` at the end."""
        given: dict[str, Any] = {"worker_info": info, "stage_status": status}
        try:
            given |= self._start(given, status)
            check_given(self._func, self._requested, given)
        except BaseException:
            status.active_workers -= 1
            raise
        try:
            injected = select(given, self._requested)
            yield partial(self._func, **injected) if injected else self._func
        except (Exception, Timeout) as error:
            self._end(status, given, error)
            raise
        except BaseException:  # the worker was killed
            self._end(status, given)
            raise
        else:
            self._end(status, given)

    def _start(self, given: dict[str, Any], status: StageStatus) -> dict[str, Any]:
        """Call ``on_start`` and return what it returned.

        A native call cannot be stopped. If the worker is killed meanwhile, it waits for the call and then calls
        ``on_done``.
        """
        if self._on_start is None:
            return {}
        returned: list[Any] = []
        call = partial(self._on_start, **select(given, self._start_requested))
        try:
            if self.on == "native":
                run_uninterrupted(lambda: returned.append(self.run(call)))
            else:
                returned.append(call())
        except GreenletExit:
            if returned:
                self._end(StageStatus(status.active_workers), {**given, **_checked(returned[0])})
            raise
        return _checked(returned[0])

    def _end(self, status: StageStatus, given: dict[str, Any], error: BaseException | None = None) -> None:
        """Call ``on_done``. If *error* has ended the worker, an exception of ``on_done`` is added to it as a note."""
        status.active_workers -= 1
        if self._on_done is None:
            return
        now = StageStatus(status.active_workers)  # a copy: workers that end later do not change it
        done = partial(self._on_done, **select({**given, "stage_status": now}, self._done_requested))
        try:
            run_uninterrupted(partial(self.run, done))
        except (Exception, Timeout) as second:
            if error is None:
                raise
            note(error, f"on_done raised, after that: {shown(second)}")

    def run(self, func: Callable[[], Any]) -> Any:
        """Call *func* in the place that the policy names, without a timeout."""
        return pool.execute(func) if self.on == "native" else func()

    def handle_error(self, error: BaseException, index: Any, value: Any, *, deferred: bool) -> Placeholder | None:
        """Apply the error policy to an element for which the function raised *error*.

        Return None if the element is dropped, or a placeholder that carries the error.

        Args:
            deferred: return the error in a placeholder; the stage that orders the elements raises it in its turn.

        Raises:
            BaseException: *error*, if the policy is "raise" and *deferred* is false.
        """
        if self._on_error == "skip":
            return None
        path = path_of(index)
        note(error, f"raised by {self.label} over element {path[0] if len(path) == 1 else path}: {shortened(value)}")
        if callable(self._on_error):
            self._on_error(error, value)
            return None
        if not deferred:
            raise error
        return Placeholder(error)

    def bound(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return *call* bound to the place of execution and the timeout of the policy."""
        if not self.timeout:
            return partial(pool.execute, call) if self.on == "native" else call

        def within(value: Any, **index: Any) -> Any:
            return Budget(self).run(call, value, **index)

        return within

    def children(self, call: Callable[..., Any], value: Any, **index: Any) -> Iterator[Any]:
        """Yield the items of the iterable that the function returns. The timeout limits the running time of both."""
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
    """The running time that a function has for one element, in one call or several."""

    def __init__(self, policy: CallPolicy) -> None:
        self._policy = policy
        self._left = policy.timeout

    def run(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call *func* in the place that the policy names.

        Raises:
            ElementTimeout: no time is left. A native call continues; its worker counts as abandoned.
        """
        policy = self._policy
        if not policy.timeout:
            return policy.run(partial(func, *args, **kwargs))
        if policy.on == "native":
            return self._run_native(partial(func, *args, **kwargs))
        began = clock()
        try:
            with Timeout(max(self._left, 0.0)) as timer:
                return func(*args, **kwargs)
        except Timeout as expired:
            if expired is not timer:
                raise
            raise ElementTimeout(policy.label, policy.timeout) from None
        finally:
            self._left -= clock() - began

    def _run_native(self, func: Callable[[], Any]) -> Any:
        """Call *func* in the pool. Time in the queue does not count, so the running time is checked after each wait."""
        policy = self._policy
        result = pool.submit(func, label=policy.label, depth=None)  # the stage adds its own note
        try:
            while not result.ready():
                left = self._left - result.run_seconds
                if left <= 0:
                    raise ElementTimeout(policy.label, policy.timeout)
                result.wait(left)
            self._left -= result.run_seconds
            return result.get()
        finally:
            result.cancel()


def _checked(started: Any) -> dict[str, Any]:
    if started is not None and not isinstance(started, dict):
        raise BadArgument("what on_start returns", started, "a dict or None")
    return started or {}
