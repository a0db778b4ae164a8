"""Pipelines of greenlets: stages that run concurrently, connected by bounded channels.

    pages = urls | stages.map(fetch, workers=20, on_error="skip") | stages.ordered()
    pages | stages.flat_map(rows) | stages.batch(rows=10_000) | stages.sink_parquet("pages.parquet")

Most stages have these keyword arguments:

- ``workers``: the number of greenlets that call the function. It limits native calls too.
- ``maxsize``: elements that may wait before the stage, and after the last one; 0 for no limit. With a limit a stage
  is never more than ``maxsize + workers`` elements ahead of the next one.
- ``timeout``: seconds that the function may take for one element; 0 for no limit. Time spent waiting for a full
  channel does not count.
- ``on``: "greenlet" for functions that wait cooperatively; "native" for functions that block or compute, which run in
  the process-wide pool; "inline" for cheap functions, which run without a worker when the next stage pulls an element.
- ``on_error``: "raise" ends the pipeline with the function's exception, which gets the element's index as a note;
  "skip" drops the element; a function is called with the error and the value, and then the element is dropped.
- ``on_start``, ``on_done``: called once by each worker, ``on_done`` also when the worker fails or is killed. The items
  of the dict that ``on_start`` returns, ``worker_info``, ``stage_status`` and (for the function only)
  ``element_index`` are passed to functions that have a parameter of that name.
- ``progress``: True, or the label of a tqdm bar that counts the elements the stage produces. Needs the extra
  ``progress``.

Without a source each function returns a `Partial`, to be used with ``|``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeVar, overload

from greendata.errors import BadArgument, BadChoice, NotIterable
from greendata.hub.checks import checked_count, naming_arguments
from greendata.pipelines.call_policy import CallPolicy, On, OnError
from greendata.pipelines.element import Element
from greendata.pipelines.injection import StageStatus, WorkerInfo
from greendata.pipelines.operators import Concat, FunctionStage, Kind, Ordered, Source, as_stage
from greendata.pipelines.sinks import Written, batch, sink_parquet
from greendata.pipelines.stage import Partial, Stage
from greendata.pipelines.stream import Stream
from greendata.pool.job import name_of

__all__ = (
    "Element",
    "Partial",
    "Stage",
    "StageStatus",
    "Stream",
    "WorkerInfo",
    "Written",
    "batch",
    "concat",
    "each",
    "filter",
    "flat_map",
    "from_iterable",
    "map",
    "ordered",
    "run",
    "sink_parquet",
    "to_iterable",
)

T = TypeVar("T")

MAXSIZE = 100  # elements: enough that greenlet switches cost little, few enough to stay in the CPU cache
WINDOW = 1_000  # elements: one may take as long as 1 000 later ones before the pipeline waits for it


def __dir__() -> list[str]:
    return [*__all__]


class _Absent:
    """The type of the default that means no source was given."""


_ABSENT = _Absent()


@overload
def map(
    func: Callable[..., T],
    source: Iterable[Any],
    *,
    workers: int = 1,
    maxsize: int = MAXSIZE,
    timeout: float | None = None,
    on_start: Callable[..., Any] | None = None,
    on_done: Callable[..., Any] | None = None,
    on_error: OnError = "raise",
    on: On = "greenlet",
    progress: str | bool | None = None,
) -> Stage[T]: ...
@overload
def map(
    func: Callable[..., T],
    *,
    workers: int = 1,
    maxsize: int = MAXSIZE,
    timeout: float | None = None,
    on_start: Callable[..., Any] | None = None,
    on_done: Callable[..., Any] | None = None,
    on_error: OnError = "raise",
    on: On = "greenlet",
    progress: str | bool | None = None,
) -> Partial[Stage[T]]: ...
@naming_arguments
def map(
    func: Callable[..., Any],
    source: Any = _ABSENT,
    *,
    workers: int = 1,
    maxsize: int = MAXSIZE,
    timeout: float | None = None,
    on_start: Callable[..., Any] | None = None,
    on_done: Callable[..., Any] | None = None,
    on_error: OnError = "raise",
    on: On = "greenlet",
    progress: str | bool | None = None,
) -> Any:
    """Return a stage of the results of *func* for each element.

    Args:
        func: called with each element, and with the arguments that its parameters name.
        source: a stage or an iterable; without it a `Partial` is returned.
        workers: the number of greenlets that call *func*.
        maxsize: elements that may wait before the stage; 0 for no limit.
        timeout: seconds that *func* may take for one element; None or 0 for no limit.
        on_start: called once by each worker before its first element; the items of the dict that it returns are passed
            to functions that have a parameter of that name.
        on_done: called once by each worker at its end.
        on_error: "raise" ends the pipeline, "skip" drops the element, a function gets the error and the value first.
        on: "greenlet" for functions that wait cooperatively, "native" for those that block or compute, "inline" for
            cheap ones.
        progress: show a progress bar: True, or the label of the bar. Needs the extra ``progress``.

    Raises:
        NotCallable, AsyncFunction, NotIterable, BadArgument, BadChoice, BadSignature, BadTimeout,
            UnknownArgument: the arguments cannot be used.

    Example:
        >>> sorted(map(lambda x: x * x, range(4), workers=2))
        [0, 1, 4, 9]
    """
    return _work("map", **locals())


@overload
def filter(
    func: Callable[..., object],
    source: Iterable[T],
    *,
    workers: int = 1,
    maxsize: int = MAXSIZE,
    timeout: float | None = None,
    on_start: Callable[..., Any] | None = None,
    on_done: Callable[..., Any] | None = None,
    on_error: OnError = "raise",
    on: On = "greenlet",
    progress: str | bool | None = None,
) -> Stage[T]: ...
@overload
def filter(
    func: Callable[..., object],
    *,
    workers: int = 1,
    maxsize: int = MAXSIZE,
    timeout: float | None = None,
    on_start: Callable[..., Any] | None = None,
    on_done: Callable[..., Any] | None = None,
    on_error: OnError = "raise",
    on: On = "greenlet",
    progress: str | bool | None = None,
) -> Partial[Stage[Any]]: ...
@naming_arguments
def filter(
    func: Callable[..., object],
    source: Any = _ABSENT,
    *,
    workers: int = 1,
    maxsize: int = MAXSIZE,
    timeout: float | None = None,
    on_start: Callable[..., Any] | None = None,
    on_done: Callable[..., Any] | None = None,
    on_error: OnError = "raise",
    on: On = "greenlet",
    progress: str | bool | None = None,
) -> Any:
    """Return a stage of the elements for which *func* returns a true value.

    Args:
        func: called with each element; a false value drops it.
        source: a stage or an iterable; without it a `Partial` is returned.
        workers: the number of greenlets that call *func*.
        maxsize: elements that may wait before the stage; 0 for no limit.
        timeout: seconds that *func* may take for one element; None or 0 for no limit.
        on_start: called once by each worker before its first element; the items of the dict that it returns are passed
            to functions that have a parameter of that name.
        on_done: called once by each worker at its end.
        on_error: "raise" ends the pipeline, "skip" drops the element, a function gets the error and the value first.
        on: "greenlet" for functions that wait cooperatively, "native" for those that block or compute, "inline" for
            cheap ones.
        progress: show a progress bar: True, or the label of the bar. Needs the extra ``progress``.

    Raises:
        NotCallable, AsyncFunction, NotIterable, BadArgument, BadChoice, BadSignature, BadTimeout,
            UnknownArgument: the arguments cannot be used.

    Example:
        >>> list(filter(str.isalpha, ["a", "1", "b"]))
        ['a', 'b']
    """
    return _work("filter", **locals())


@overload
def flat_map(
    func: Callable[..., Iterable[T]],
    source: Iterable[Any],
    *,
    workers: int = 1,
    maxsize: int = MAXSIZE,
    timeout: float | None = None,
    on_start: Callable[..., Any] | None = None,
    on_done: Callable[..., Any] | None = None,
    on_error: OnError = "raise",
    on: On = "greenlet",
    progress: str | bool | None = None,
) -> Stage[T]: ...
@overload
def flat_map(
    func: Callable[..., Iterable[T]],
    *,
    workers: int = 1,
    maxsize: int = MAXSIZE,
    timeout: float | None = None,
    on_start: Callable[..., Any] | None = None,
    on_done: Callable[..., Any] | None = None,
    on_error: OnError = "raise",
    on: On = "greenlet",
    progress: str | bool | None = None,
) -> Partial[Stage[T]]: ...
@naming_arguments
def flat_map(
    func: Callable[..., Iterable[Any]],
    source: Any = _ABSENT,
    *,
    workers: int = 1,
    maxsize: int = MAXSIZE,
    timeout: float | None = None,
    on_start: Callable[..., Any] | None = None,
    on_done: Callable[..., Any] | None = None,
    on_error: OnError = "raise",
    on: On = "greenlet",
    progress: str | bool | None = None,
) -> Any:
    """Return a stage of the items of the iterables that *func* returns, as they are produced.

    Args:
        func: called with each element; returns an iterable, perhaps a generator.
        source: a stage or an iterable; without it a `Partial` is returned.
        workers: the number of greenlets that call *func*.
        maxsize: elements that may wait before the stage; 0 for no limit.
        timeout: seconds that *func* may take for one element; None or 0 for no limit.
        on_start: called once by each worker before its first element; the items of the dict that it returns are passed
            to functions that have a parameter of that name.
        on_done: called once by each worker at its end.
        on_error: "raise" ends the pipeline, "skip" drops the element, a function gets the error and the value first.
        on: "greenlet" for functions that wait cooperatively, "native" for those that block or compute, "inline" for
            cheap ones.
        progress: show a progress bar: True, or the label of the bar. Needs the extra ``progress``.

    Raises:
        NotCallable, AsyncFunction, NotIterable, BadArgument, BadChoice, BadSignature, BadTimeout,
            UnknownArgument: the arguments cannot be used.

    Example:
        >>> list(flat_map(range, [1, 3]))
        [0, 0, 1, 2]
    """
    return _work("flat_map", **locals())


@overload
def each(
    func: Callable[..., object],
    source: Iterable[Any],
    *,
    run: Literal[True],
    workers: int = 1,
    maxsize: int = MAXSIZE,
    timeout: float | None = None,
    on_start: Callable[..., Any] | None = None,
    on_done: Callable[..., Any] | None = None,
    on_error: OnError = "raise",
    on: On = "greenlet",
    progress: str | bool | None = None,
) -> None: ...
@overload
def each(
    func: Callable[..., object],
    source: Iterable[Any],
    *,
    run: Literal[False] = False,
    workers: int = 1,
    maxsize: int = MAXSIZE,
    timeout: float | None = None,
    on_start: Callable[..., Any] | None = None,
    on_done: Callable[..., Any] | None = None,
    on_error: OnError = "raise",
    on: On = "greenlet",
    progress: str | bool | None = None,
) -> Stage[Any]: ...
@overload
def each(
    func: Callable[..., object],
    *,
    workers: int = 1,
    maxsize: int = MAXSIZE,
    timeout: float | None = None,
    on_start: Callable[..., Any] | None = None,
    on_done: Callable[..., Any] | None = None,
    on_error: OnError = "raise",
    on: On = "greenlet",
    progress: str | bool | None = None,
) -> Partial[Stage[Any]]: ...
@naming_arguments
def each(
    func: Callable[..., object],
    source: Any = _ABSENT,
    *,
    run: bool = False,
    workers: int = 1,
    maxsize: int = MAXSIZE,
    timeout: float | None = None,
    on_start: Callable[..., Any] | None = None,
    on_done: Callable[..., Any] | None = None,
    on_error: OnError = "raise",
    on: On = "greenlet",
    progress: str | bool | None = None,
) -> Any:
    """Call *func* for each element for its side effects; the stage produces no elements.

    Args:
        func: called with each element.
        source: a stage or an iterable; without it a `Partial` is returned.
        run: run the pipeline at once and wait for its end.
        workers: the number of greenlets that call *func*.
        maxsize: elements that may wait before the stage; 0 for no limit.
        timeout: seconds that *func* may take for one element; None or 0 for no limit.
        on_start: called once by each worker before its first element; the items of the dict that it returns are passed
            to functions that have a parameter of that name.
        on_done: called once by each worker at its end.
        on_error: "raise" ends the pipeline, "skip" drops the element, a function gets the error and the value first.
        on: "greenlet" for functions that wait cooperatively, "native" for those that block or compute, "inline" for
            cheap ones.
        progress: show a progress bar: True, or the label of the bar. Needs the extra ``progress``.

    Raises:
        NotCallable, AsyncFunction, NotIterable, BadArgument, BadChoice, BadSignature, BadTimeout,
            UnknownArgument: the arguments cannot be used.

    Example:
        >>> each(print, ["a", "b"], run=True)
        a
        b
    """
    given = locals()
    del given["run"]
    stage = _work("each", **given)
    return stage.run() if run and isinstance(stage, Stage) else stage


@naming_arguments
def concat(stages: Iterable[Iterable[T]], *, maxsize: int = MAXSIZE) -> Stage[T]:
    """Return a stage of the elements of several stages as they arrive.

    A later `ordered` sorts them by index, then by stage.

    Args:
        stages: stages and iterables.
        maxsize: elements that may wait after it; 0 for no limit.

    Raises:
        NotIterable, BadArgument: the arguments cannot be used.

    Example:
        >>> sorted(concat([map(abs, [-1, -2]), [3]]))
        [1, 2, 3]
    """
    checked_count("maxsize", maxsize, least=0)
    if not isinstance(stages, Iterable):
        raise NotIterable(stages)
    return Concat([as_stage(stage, maxsize) for stage in stages], maxsize)


@overload
def ordered(source: Iterable[T], *, window: int = WINDOW) -> Stage[T]: ...
@overload
def ordered(*, window: int = WINDOW) -> Partial[Stage[Any]]: ...
@naming_arguments
def ordered(source: Any = _ABSENT, *, window: int = WINDOW) -> Any:
    """Return a stage of the elements in the order of the source. An error is raised after all earlier elements.

    Args:
        source: a stage or an iterable; without it a `Partial` is returned.
        window: the number of elements that may be between their source and this stage, and so be kept in memory.
            Before and after a ``flat_map`` or a ``concat`` the same limit applies separately.

    Raises:
        NotIterable, BadArgument: the arguments cannot be used.

    Example:
        >>> list(ordered(map(str, range(3), workers=3)))
        ['0', '1', '2']
    """
    checked_count("window", window)
    if source is _ABSENT:
        return Partial(lambda given: Ordered(as_stage(given, window), window))
    return Ordered(as_stage(source, window), window)


@naming_arguments
def from_iterable(
    iterable: Iterable[T], *, maxsize: int = MAXSIZE, on: Literal["greenlet", "native"] = "greenlet"
) -> Stage[T]:
    """Return *iterable* as a stage.

    Args:
        iterable: any iterable; each run of the pipeline iterates over it.
        maxsize: elements that may wait after it; 0 for no limit.
        on: "greenlet", or "native" for an iterable that blocks: it is read in the pool.

    Raises:
        NotIterable, BadArgument, BadChoice: the arguments cannot be used.

    Example:
        >>> list(from_iterable("ab"))
        ['a', 'b']
    """
    if on not in ("greenlet", "native"):
        raise BadChoice("on", on, ("greenlet", "native"))
    return Source(iterable, checked_count("maxsize", maxsize, least=0), on=on)


@overload
def to_iterable(source: Iterable[Any], *, return_index: Literal[True]) -> Stream[Element]: ...
@overload
def to_iterable(source: Iterable[T], *, return_index: bool = ...) -> Stream[T]: ...
@naming_arguments
def to_iterable(source: Iterable[Any], *, return_index: bool = False) -> Stream[Any]:
    """Return an iterator that can be closed and used in a ``with`` block. Iterating over a `Stage` makes one too.

    Args:
        source: a stage or an iterable.
        return_index: yield each value as an `Element`, which has the index too.

    Example:
        >>> list(to_iterable(["a"], return_index=True))
        [Element(index=(0,), value='a')]
    """
    return Stream(as_stage(source, MAXSIZE), return_index=return_index)


def run(*stages: Iterable[Any], maxsize: int = MAXSIZE) -> None:
    """Run *stages* concurrently to their end, for their side effects.

    Args:
        stages: stages and iterables; their elements are discarded.
        maxsize: elements that may wait after them; 0 for no limit.

    Example:
        >>> run(each(print, "a"), map(abs, [1]))
        a
    """
    concat(stages, maxsize=maxsize).run()


def _work(
    kind: Kind,
    func: Callable[..., Any],
    source: Any,
    *,
    workers: int,
    maxsize: int,
    timeout: float | None,
    on_start: Callable[..., Any] | None,
    on_done: Callable[..., Any] | None,
    on_error: OnError,
    on: On,
    progress: str | bool | None,
) -> Any:
    checked_count("workers", workers)
    checked_count("maxsize", maxsize, least=0)
    if not isinstance(progress, str | bool | None):
        raise BadArgument("progress", progress, "True, False or the label of the bar")
    policy = CallPolicy(
        func, f"{kind}({name_of(func)})", on=on, timeout=timeout, on_error=on_error, on_start=on_start, on_done=on_done
    )

    label = policy.label if progress is True else progress or None

    def make(given: Any) -> Stage[Any]:
        return FunctionStage(kind, policy, as_stage(given, maxsize), workers=workers, maxsize=maxsize, progress=label)

    return Partial(make) if source is _ABSENT else make(source)
