"""Pipelines of greenlets: stages that work side by side, joined by bounded channels.

    pages = urls | stages.map(fetch, workers=20, on_error="skip") | stages.ordered()
    pages | stages.flat_map(rows) | stages.batch(rows=10_000) | stages.sink_parquet("pages.parquet")

The keywords that most stages share:

- ``workers``: how many greenlets call the function; native calls are bounded by it too.
- ``maxsize``: elements that may wait before the stage, and behind the last one; 0 for no bound. With it a stage
  is never more than ``maxsize + workers`` elements ahead of the next.
- ``timeout``: seconds that the function may take over one element; waiting for room does not count. 0: no bound.
- ``on``: "greenlet" for functions that wait the gevent way, "native" for those that block or compute (they run in
  the one pool), "inline" for cheap ones: they run where their elements are asked for, without a worker.
- ``on_error``: "raise" ends the pipeline with the function's own exception, which gets the element's index as a
  note; "skip" drops the element; a function of the error and the value is called, then the element is dropped.
- ``on_start``, ``on_done``: called once by each worker, the latter however the worker ends. What ``on_start``
  returns in a dict, ``worker_info``, ``stage_status`` and (the function only) ``element_index`` are handed to those
  that have a parameter of that name.
- ``progress``: the label of a tqdm bar that counts what the stage puts out. Needs the extra ``progress``.

Without a source each function returns a `Partial`, to be used with ``|``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, TypedDict, TypeVar, Unpack, overload

from greendata.errors import BadChoice, NotIterable
from greendata.hub.checks import checked_count
from greendata.pipelines.call_policy import CallPolicy, On, OnError
from greendata.pipelines.element import Element
from greendata.pipelines.injection import StageStatus, WorkerInfo
from greendata.pipelines.operators import Concat, Kind, Ordered, Source, Work, as_stage
from greendata.pipelines.sinks import Written, batch, sink_parquet
from greendata.pipelines.stage import Partial, Stage
from greendata.pipelines.stream import Stream
from greendata.tasks.task import name_of

__all__ = (
    "Element",
    "Options",
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

MAXSIZE = 100  # elements: long enough runs that a greenlet switch costs nothing, short enough to stay in the cache
WINDOW = 1_000  # elements: an element may take as long as 1 000 of its successors before the pipeline waits for it


class Options(TypedDict, total=False):
    """The keywords of `map`, `filter`, `flat_map` and `each`; the room's docstring says what they mean."""

    workers: int
    maxsize: int
    timeout: float | None
    on_start: Callable[..., Any] | None
    on_done: Callable[..., Any] | None
    on_error: OnError
    on: On
    progress: str | None


class _Absent:
    """No source was given."""


_ABSENT = _Absent()


@overload
def map(func: Callable[..., T], source: Iterable[Any], **options: Unpack[Options]) -> Stage[T]: ...
@overload
def map(func: Callable[..., T], **options: Unpack[Options]) -> Partial[Stage[T]]: ...
def map(func: Callable[..., Any], source: Any = _ABSENT, **options: Unpack[Options]) -> Any:
    """What *func* returns for each element.

    Raises:
        NotCallable, NotIterable, BadArgument, BadChoice, BadSignature, BadTimeout: the arguments cannot be used.

    Example:
        >>> sorted(map(lambda x: x * x, range(4), workers=2))
        [0, 1, 4, 9]
    """
    return _work("map", func, source, **options)


@overload
def filter(func: Callable[..., object], source: Iterable[T], **options: Unpack[Options]) -> Stage[T]: ...
@overload
def filter(func: Callable[..., object], **options: Unpack[Options]) -> Partial[Stage[Any]]: ...
def filter(func: Callable[..., object], source: Any = _ABSENT, **options: Unpack[Options]) -> Any:
    """The elements for which *func* returns something true.

    Raises:
        NotCallable, NotIterable, BadArgument, BadChoice, BadSignature, BadTimeout: the arguments cannot be used.

    Example:
        >>> list(filter(str.isalpha, ["a", "1", "b"]))
        ['a', 'b']
    """
    return _work("filter", func, source, **options)


@overload
def flat_map(func: Callable[..., Iterable[T]], source: Iterable[Any], **options: Unpack[Options]) -> Stage[T]: ...
@overload
def flat_map(func: Callable[..., Iterable[T]], **options: Unpack[Options]) -> Partial[Stage[T]]: ...
def flat_map(func: Callable[..., Iterable[Any]], source: Any = _ABSENT, **options: Unpack[Options]) -> Any:
    """All that is in the iterables which *func* returns, as they give it.

    Raises:
        NotCallable, NotIterable, BadArgument, BadChoice, BadSignature, BadTimeout: the arguments cannot be used.

    Example:
        >>> list(flat_map(range, [1, 3]))
        [0, 0, 1, 2]
    """
    return _work("flat_map", func, source, **options)


@overload
def each(
    func: Callable[..., object], source: Iterable[Any], *, run: Literal[True], **options: Unpack[Options]
) -> None: ...
@overload
def each(func: Callable[..., object], source: Iterable[Any], **options: Unpack[Options]) -> Stage[Any]: ...
@overload
def each(func: Callable[..., object], **options: Unpack[Options]) -> Partial[Stage[Any]]: ...
def each(func: Callable[..., object], source: Any = _ABSENT, *, run: bool = False, **options: Unpack[Options]) -> Any:
    """Calls *func* for each element, for what it does; the stage gives nothing.

    Args:
        func: called with each element.
        source: a stage or an iterable; without it the outcome is a `Partial`.
        run: run it at once, to its end.
        options: see the room's docstring.

    Raises:
        NotCallable, NotIterable, BadArgument, BadChoice, BadSignature, BadTimeout: the arguments cannot be used.

    Example:
        >>> each(print, ["a", "b"], run=True)
        a
        b
    """
    stage = _work("each", func, source, **options)
    return stage.run() if run and isinstance(stage, Stage) else stage


def concat(stages: Iterable[Iterable[T]], *, maxsize: int = MAXSIZE) -> Stage[T]:
    """The elements of several stages, as they come; behind it `ordered` sorts by index, then by stage.

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
def ordered(source: Iterable[T], *, window: int = ...) -> Stage[T]: ...
@overload
def ordered(*, window: int = ...) -> Partial[Stage[Any]]: ...
def ordered(source: Any = _ABSENT, *, window: int = WINDOW) -> Any:
    """The elements in the order of the source; an error is raised after all that came before its element.

    Args:
        source: a stage or an iterable; without it the outcome is a `Partial`.
        window: how many elements may be under way between their source and here, and so be kept here. Where
            elements are multiplied (``flat_map``) or brought together (``concat``), the same again on each side.

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


def from_iterable(
    iterable: Iterable[T], *, maxsize: int = MAXSIZE, on: Literal["greenlet", "native"] = "greenlet"
) -> Stage[T]:
    """*iterable* as a stage; with ``on="native"`` it is read in the pool, for one that blocks.

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
def to_iterable(source: Iterable[Any], *, return_index: bool = False) -> Stream[Any]:
    """An iterator that can be closed, and used in a ``with`` block; every `Stage` makes one when it is iterated.

    Args:
        source: a stage or an iterable.
        return_index: give an `Element`, which has the index with the value.

    Example:
        >>> list(to_iterable(["a"], return_index=True))
        [Element(index=(0,), value='a')]
    """
    return Stream(as_stage(source, MAXSIZE), return_index=return_index)


def run(*stages: Iterable[Any], maxsize: int = MAXSIZE) -> None:
    """Run *stages* side by side to their end, for what they do.

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
    workers: int = 1,
    maxsize: int = MAXSIZE,
    timeout: float | None = None,
    on_start: Callable[..., Any] | None = None,
    on_done: Callable[..., Any] | None = None,
    on_error: OnError = "raise",
    on: On = "greenlet",
    progress: str | None = None,
) -> Any:
    checked_count("workers", workers)
    checked_count("maxsize", maxsize, least=0)
    step = CallPolicy(
        func, f"{kind}({name_of(func)})", on=on, timeout=timeout, on_error=on_error, on_start=on_start, on_done=on_done
    )

    def make(given: Any) -> Stage[Any]:
        return Work(kind, step, as_stage(given, maxsize), workers=workers, maxsize=maxsize, progress=progress)

    return Partial(make) if source is _ABSENT else make(source)
