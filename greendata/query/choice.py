"""Where a query runs: one choice for the verbs, `GreenEngine` and the patch.

An engine *object* that a call passes runs the query, whatever else is set. Otherwise these decide, in this order:

1. the route, a function of the label and the key of the query, if it returns an engine;
2. the setting ``engine``: "threads", or a place that `greendata.configure`, the config of an app or the variable
   ``GREENDATA_ENGINE`` names.

An engine that a call gives by *name* says how Polars computes, and not where: "streaming" is the engine that computes
in the children if the query runs in a child. An engine that has no others ignores the name if a route chose it, and
gets no such query from the setting. "gpu" stays in this process, and so do eager operations and readers.

What cannot be sent to a child, because it lives in this process (a file object, ``background=True``, a large frame in
the plan, a function that cannot be pickled), is never lost:

- If the setting chose the place, the query runs in a thread instead, and a `RuntimeWarning` says so, once for each
  function of the program: a service that is given another place from outside must keep working.
- If the call or the route chose it, the query fails with `NotSendable`: who wants a child for one query relies on it.

Nothing has been sent or written when either happens. If it takes long to find out, because a large frame is in the
plan, queries of the same line and label run in threads for a minute.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl
from polars.lazyframe.engine_config import get_engine_affinity_override

from greendata.errors import BadEngine, BadSetting, NotSendable, RouteFailed
from greendata.errors.notes import shortened
from greendata.hub.origin import Origin, line_of, origin_here
from greendata.internals.polars import engine_affinity, engine_named
from greendata.pool import pool
from greendata.pool.engine_setting import FORMS, LOCAL, engine_setting
from greendata.pool.job import default_key, default_label
from greendata.pool.workers import is_inline_thread, job_of_this_worker, run_in_new_thread

if TYPE_CHECKING:
    from greendata.internals.polars import EngineType

__all__ = ("PlacedEngine", "check_engine", "engine_for", "engine_of", "is_made", "local_engine")

COSTLY = 0.05  # seconds of an attempt to send a query: Polars takes 0.5 s to find that a frame of 350 MB is inside
COSTLY_FOR = 60.0  # seconds without another attempt for queries of the same line and label

_PLACES = 1000  # lines of the program that are remembered
_NAMED = ("auto", "in-memory", "streaming")  # engines that a child has too


class _Choice(NamedTuple):
    engine: object  # a setting, or an engine
    route: Callable[[str, Hashable], object] | None


def is_made() -> bool:
    """Return True if queries that name no engine may run elsewhere than in threads of this process.

    Example:
        >>> is_made()
        False
    """
    return _choice is not None


def engine_of(engine: object) -> pl.Engine:
    """Return the engine with the name *engine*, or *engine* itself if it is one.

    Raises:
        BadEngine: *engine* is neither.
    """
    if isinstance(engine, pl.Engine):
        return engine
    if not isinstance(engine, str):
        raise BadEngine(engine)
    try:
        return engine_named(engine)
    except ValueError as error:
        raise BadEngine(engine) from error


def local_engine(name: str = "auto") -> pl.Engine:
    """Return the engine of this process that Polars would use for *name*.

    Example:
        >>> local_engine().name
        'auto'
    """
    return engine_named(engine_affinity() if name == "auto" else name)


def engine_for(engine: EngineType, verb: str, *, label: str | None = None, key: Hashable = None) -> EngineType:
    """Return the engine for a query that was given *engine*: itself, or a `PlacedEngine`.

    Call it in the greenlet of the query: the route is called here.

    Args:
        engine: a name or an object.
        verb: what is done with the query; its label if it has no other.
        label, key: of the query; by default those of the context, such as a request.

    Raises:
        BadEngine: *engine* is neither a name nor an engine.
        BadSetting: the engine of the setting cannot be made.
        RouteFailed: the route raised, or returned something else than an engine or None.
    """
    choice = _choice
    if choice is None or not isinstance(engine, str) or engine not in _NAMED:
        engine_of(engine)
        return engine
    affinity = get_engine_affinity_override()
    if engine == "auto" and affinity is not None and not getattr(affinity, "is_green", False):
        return engine  # the program has set an engine object in Polars' own way
    job = job_of_this_worker()
    label = label or (job and job.result.label) or default_label.get() or verb
    key = (job.key if job else default_key.get()) if key is None else key
    routed = None if choice.route is None else _routed(choice.route, label, key)
    chosen = _made(choice.engine) if routed is None else routed
    has_names = chosen is not None and _has_engines_of_polars(chosen)
    if chosen is None or (engine != "auto" and not has_names and (routed is None or chosen.name in LOCAL)):
        return local_engine(engine)  # a route that chose another place is obeyed, whatever the name
    name = engine if engine != "auto" and has_names else None
    return PlacedEngine(chosen, local_engine(engine), name, label, origin_here(1), must=routed is not None)


def check_engine() -> None:
    """Check that the engine of the setting exists, without starting anything.

    Raises:
        BadSetting: its module or its factory does not exist.

    Example:
        >>> check_engine()
    """
    if _choice is not None and isinstance(_choice.engine, str):
        setting = engine_setting("engine", _choice.engine)
        if setting.kind == "factory":
            _factory(_choice.engine)


class PlacedEngine(pl.Engine):
    """The engine that was chosen for one query, and the one of this process, for what the first cannot run.

    Args:
        chosen: the engine.
        local: the other one.
        name: of the engine of Polars that computes there; None for that of *chosen*.
        label: of the query, for the warning.
        origin: the line of the query.
        must: raise `NotSendable` instead of using *local*.
    """

    def __init__(
        self, chosen: pl.Engine, local: pl.Engine, name: str | None, label: str, origin: Origin, *, must: bool
    ) -> None:
        self._chosen = chosen
        self._local = local
        self._options = {} if name is None else {"engine": name}
        self._label = label
        self._origin = origin
        self._must = must

    @property
    def name(self) -> str:
        """The name of the chosen engine."""
        return self._chosen.name

    @property
    def plan_engine(self) -> str:
        """The engine name that query plans are rendered for."""
        return self._chosen.plan_engine

    def __repr__(self) -> str:
        return f"PlacedEngine({self._chosen!r})"

    def collect(self, lf: pl.LazyFrame, **options: Any) -> Any:
        """See `polars.Engine.collect`."""
        return self._call("collect", lf, **options)

    def collect_all(self, lfs: Iterable[pl.LazyFrame], **options: Any) -> list[pl.DataFrame]:
        """See `polars.Engine.collect_all`."""
        return self._call("collect_all", list(lfs), **options)  # type: ignore[no-any-return]

    def execute(self, lf: pl.LazyFrame, **options: Any) -> Any:
        """See `polars.Engine.execute`."""
        return self._call("execute", lf, **options)

    def _call(self, method: str, *args: Any, **options: Any) -> Any:
        place = (*self._origin, self._label, method)
        if self._must or _costly.get(place, 0.0) <= monotonic():
            began = monotonic()
            try:
                return self._call_chosen(method, *args, **options)
            except NotSendable as error:
                if self._must:
                    raise
                reason = error.reason
                if monotonic() - began >= COSTLY:
                    if len(_costly) >= _PLACES:  # labels may be without end; most of these are out of date
                        _costly.clear()
                    _costly[place] = monotonic() + COSTLY_FOR
            self._warn(" ".join(reason.split()))
        local = self._local
        if method == "collect_batches" and local.name == "auto":  # "auto" does not stream; Polars makes the same choice
            local = engine_named("streaming")
        return getattr(local, method)(*args, **options)

    def _call_chosen(self, method: str, *args: Any, **options: Any) -> Any:
        if getattr(type(self._chosen), method) is getattr(pl.Engine, method):
            raise NotSendable(f"{type(self._chosen).__name__} has no {method}()")
        return getattr(self._chosen, method)(*args, **options, **self._options)

    def _warn(self, reason: str) -> None:
        """Issue the warning, once for each function. A worker must not: a handler of the user may wait for its lock."""
        code, _ = self._origin
        if code in _warned or len(_warned) >= _PLACES:
            return
        _warned.add(code)
        text = (
            f"the query {self._label!r} runs in a thread of this process and not in {self._chosen!r}: {reason}. Other "
            "queries of this function may do so, too; this is said once"
        )
        file, line = line_of(self._origin)
        warn = partial(warnings.warn_explicit, text, RuntimeWarning, file, line)
        if is_inline_thread():
            run_in_new_thread(partial(_without_error, warn))
        else:
            warn()


def _forwarded(name: str) -> Callable[..., Any]:
    def method(self: PlacedEngine, *args: Any, **options: Any) -> Any:
        return self._call(name, *args, **options)

    method.__name__ = name
    method.__qualname__ = f"PlacedEngine.{name}"
    method.__doc__ = f"See `polars.Engine.{name}`."
    return method


for _name in [name for name in vars(pl.Engine) if name.startswith(("sink_", "collect_")) and name != "collect_all"]:
    setattr(PlacedEngine, _name, _forwarded(_name))


def _without_error(warn: Callable[[], None]) -> None:
    with suppress(RuntimeWarning):  # the program turns warnings into errors; there is no caller here to raise it in
        warn()


def _routed(route: Callable[[str, Hashable], object], label: str, key: Hashable) -> pl.Engine | None:
    """Return the engine that the route chooses, or None. Queries of the route itself are not routed."""
    if _in_route.get():
        return None
    token = _in_route.set(True)
    try:
        found = route(label, key)
    except Exception as error:
        raise RouteFailed(label, f"it raised {type(error).__name__}: {error}") from error
    finally:
        _in_route.reset(token)
    try:
        return None if found is None else (_made(found) or local_engine())
    except BadSetting as error:
        raise RouteFailed(label, f"it returned {shortened(error.value)}; expected None or {error.expected}") from error


def _made(engine: object) -> pl.Engine | None:
    """Return the engine of a setting; None for threads. The engine of a text is made once.

    Raises:
        BadSetting: it is not an engine, or cannot be made.
    """
    if isinstance(engine, pl.Engine):
        return engine
    if not isinstance(engine, str):
        raise BadSetting("engine", engine, FORMS)
    if (known := _engines.get(engine)) is not None:
        return known
    kind, options = engine_setting("engine", engine)
    if kind == "threads":
        return None
    if kind in LOCAL:
        return engine_named(kind)
    if kind == "process":
        made = import_module("greendata.engines.process").ProcessEngine(**options)
    else:
        factory = _factory(engine)
        try:
            made = factory()
        except Exception as error:
            raised = f"{type(error).__name__}: {error}"
            raise BadSetting("engine", engine, f"a factory that returns a polars.Engine; it raised {raised}") from error
        if not isinstance(made, pl.Engine):
            raise BadSetting("engine", engine, f"a factory that returns a polars.Engine, not {type(made).__name__}")
    return _engines.setdefault(engine, made)


def _factory(text: str) -> Callable[[], Any]:
    module, _, path = text.strip().partition(":")
    try:
        found: Any = import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise BadSetting("engine", text, f"the place of a function that can be imported ({error})") from error
    if not callable(found):
        raise BadSetting("engine", text, f"the place of a function, not of a {type(found).__name__}")
    factory: Callable[[], Any] = found
    return factory


def _has_engines_of_polars(engine: pl.Engine) -> bool:
    """Return True if *engine* runs queries with an engine of Polars, elsewhere."""
    return bool(getattr(engine, "has_engines_of_polars", False))


def _follow_settings() -> None:
    global _choice
    settings = pool.shared.settings
    is_default = settings.route is None and settings.engine in ("threads", "auto")
    _choice = None if is_default else _Choice(settings.engine, settings.route)
    if settings.route is None:  # which may return texts
        for text in [text for text in _engines if text != settings.engine]:
            _engines.pop(text, None)  # its children end when no query uses it any more
    for listener in listeners:
        listener()


_choice: _Choice | None = None  # replaced as a whole by the thread that changes the settings; any thread reads
_engines: dict[str, pl.Engine] = {}  # those that were made, by text; any thread, one step at a time
_warned: set[object] = set()  # the functions that were warned of; any thread adds
_costly: dict[tuple[object, ...], float] = {}  # by line and label, on time.monotonic's clock; any thread writes
_in_route: ContextVar[bool] = ContextVar("greendata.in_route", default=False)
listeners: tuple[Callable[[], object], ...] = ()  # called after a change of the choice; the patch adds one at import
pool.settings_listeners += (_follow_settings,)
_follow_settings()
