"""GreenEngine as an engine of Polars: every method, every inner engine, every way to select it."""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import greendata
from greendata import BadEngine, Batches, GreenEngine, JobAborted, Result
from greendata.hub import native
from tests.support.frames import ROWS, crowded, gated, gated_schema
from tests.support.gates import Gate, rest, timeout_at

SINKS = ("sink_csv", "sink_ipc", "sink_ndjson", "sink_parquet")


class Recorder(pl.Engine):
    """An engine of a user, which collects in memory and records the thread."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.options: list[dict[str, Any]] = []

    @property
    def name(self) -> str:
        return "recorder"

    @property
    def plan_engine(self) -> str:
        return "streaming"

    def collect(self, lf: pl.LazyFrame, **options: Any) -> Any:
        self.threads.append(native.get_ident())
        self.options.append(options)
        return pl.InMemoryEngine().collect(lf, **options)

    def execute(self, lf: pl.LazyFrame, **options: Any) -> Any:
        self.threads.append(native.get_ident())
        return pl.InMemoryEngine().execute(lf, **options)


@pytest.fixture
def affinity() -> Iterator[Callable[[Any], object]]:
    """Set the process-wide engine affinity, and restore it after the test."""
    with pl.Config():
        yield pl.Config.set_engine_affinity


def test_every_public_method_of_an_engine_is_overridden() -> None:
    names = {
        name for name, value in vars(pl.Engine).items() if inspect.isfunction(value) or isinstance(value, property)
    }
    public = {name for name in names if not name.startswith("_")}
    assert public >= {"collect", "collect_all", "execute", "sink_parquet"}
    assert public <= set(vars(GreenEngine))


@pytest.mark.parametrize(
    "inner", ["auto", "in-memory", "streaming", pl.InMemoryEngine(), pl.StreamingEngine()], ids=repr
)
def test_engines_by_name_and_by_object(inner: Any, hub_alive: Gate) -> None:
    assert_frame_equal(gated(hub_alive).collect(engine=GreenEngine(inner)), ROWS)
    assert hub_alive.is_open


@pytest.mark.parametrize("engine", ["warp", None, 3, pl.InMemoryEngine])
def test_an_object_that_is_not_an_engine_is_rejected_at_once(engine: Any) -> None:
    with pytest.raises(BadEngine, match=r"'auto', 'in-memory', 'streaming', 'gpu' or a polars\.Engine, got "):
        GreenEngine(engine)


def test_the_name_contains_that_of_the_inner_engine() -> None:
    assert GreenEngine("streaming").name == "green streaming"
    assert GreenEngine("streaming").plan_engine == "streaming"
    assert repr(GreenEngine("in-memory")) == "GreenEngine(InMemoryEngine())"
    assert isinstance(GreenEngine("streaming").inner, pl.StreamingEngine)


# -- what the lazy frame does with it -----------------------------------------------------------------


def test_collect_all(hub_alive: Gate) -> None:
    first, second = pl.collect_all([gated(hub_alive), ROWS.lazy().head(1)], engine=GreenEngine())
    assert_frame_equal(first, ROWS)
    assert_frame_equal(second, ROWS.head(1))


@pytest.mark.parametrize("name", SINKS)
def test_sinks(name: str, hub_alive: Gate) -> None:
    file, own = io.BytesIO(), io.BytesIO()
    getattr(gated(hub_alive), name)(file, engine=GreenEngine())
    getattr(ROWS.lazy(), name)(own)
    assert file.getvalue() == own.getvalue()
    assert hub_alive.is_open


def test_sink_batches(hub_alive: Gate) -> None:
    seen: list[int] = []
    gated(hub_alive).sink_batches(lambda df: seen.extend(df["a"]), engine=GreenEngine())
    assert sorted(seen) == [1, 2, 3]


def test_execute(hub_alive: Gate) -> None:
    lf = gated(hub_alive)
    result = GreenEngine().execute(lf, optimizations=pl.QueryOptFlags())
    assert_frame_equal(result.lazy().collect(), ROWS)


def test_collect_batches_returns_batches(hub_alive: Gate) -> None:
    stream = gated(hub_alive).collect_batches(engine=GreenEngine(), chunk_size=2)
    assert isinstance(stream, Batches)
    assert_frame_equal(pl.concat(list(stream)), ROWS)


def test_collect_async_returns_a_result(held: Gate) -> None:
    result: Any = gated(held).collect_async(gevent=True, engine=GreenEngine())
    assert isinstance(result, Result)
    assert not result.ready()
    held.open()
    assert_frame_equal(result.get(timeout=60), ROWS)


def test_collect_all_async_returns_a_result(held: Gate) -> None:
    result: Any = pl.collect_all_async([gated(held), ROWS.lazy()], gevent=True, engine=GreenEngine())
    assert isinstance(result, Result)
    held.open()
    for df in result.get(timeout=60):
        assert_frame_equal(df, ROWS)


def test_async_results_come_from_the_pool() -> None:
    with crowded():
        result: Any = ROWS.lazy().collect_async(gevent=True, engine=GreenEngine())
        assert_frame_equal(result.get(), ROWS)


def test_an_exception_of_a_function_is_raised_by_an_async_result() -> None:
    result: Any = ROWS.lazy().map_batches(exit).collect_async(gevent=True, engine=GreenEngine())
    with pytest.raises(JobAborted) as caught:
        result.get()
    assert isinstance(caught.value.__cause__, SystemExit)


@pytest.mark.filterwarnings("ignore:background mode is considered unstable")
def test_a_background_query_is_polars_own() -> None:
    query = ROWS.lazy().collect(background=True, engine=GreenEngine())
    assert isinstance(query, pl.lazyframe.in_process.InProcessQuery)
    assert_frame_equal(query.fetch_blocking(), ROWS)


def test_plans_are_those_of_the_inner_engine() -> None:
    lf = ROWS.lazy().group_by("a").agg(pl.len())
    for name in ("in-memory", "streaming"):
        assert lf.explain(engine=GreenEngine(name)) == lf.explain(engine=name)


def test_errors_are_those_of_the_inner_engine() -> None:
    with pytest.raises(pl.exceptions.ColumnNotFoundError):
        ROWS.lazy().select("b").collect(engine=GreenEngine())
    with pytest.raises(SystemExit):
        ROWS.lazy().map_batches(exit).collect(engine=GreenEngine())


# -- engines that are not here, and a user's own ------------------------------------------------------


def test_a_gpu_engine_raises_the_error_of_polars() -> None:
    with pytest.raises(ModuleNotFoundError, match="GPU engine requested") as own:
        ROWS.lazy().collect(engine=pl.GPUEngine())
    with pytest.raises(ModuleNotFoundError) as ours:
        ROWS.lazy().collect(engine=GreenEngine(pl.GPUEngine()))
    assert str(ours.value) == str(own.value)
    with pytest.raises(ModuleNotFoundError):
        ROWS.lazy().collect(engine=GreenEngine("gpu"))


def test_a_remote_engine_raises_the_error_of_polars() -> None:
    def outcome(make: Callable[[], Any]) -> tuple[type[BaseException], str]:
        with pytest.raises((ImportError, RuntimeError)) as caught:
            ROWS.lazy().collect(engine=make())
        return caught.type, str(caught.value)

    assert outcome(lambda: GreenEngine(pl.RemoteEngine())) == outcome(pl.RemoteEngine)


def test_a_users_engine_runs_in_the_pool_with_its_arguments() -> None:
    inner = Recorder()
    flags = pl.QueryOptFlags.none()
    assert_frame_equal(ROWS.lazy().collect(engine=GreenEngine(inner), optimizations=flags), ROWS)
    GreenEngine(inner).execute(ROWS.lazy(), optimizations=flags)
    assert native.get_ident() not in inner.threads
    assert len(inner.threads) == 2
    assert inner.options[0]["optimizations"] is flags
    assert GreenEngine(inner).name == "green recorder"
    assert GreenEngine(inner).plan_engine == "streaming"


def test_a_missing_method_of_a_users_engine_raises_the_error_of_polars() -> None:
    with pytest.raises(NotImplementedError, match="`sink_csv` is not supported by Recorder"):
        ROWS.lazy().sink_csv(io.BytesIO(), engine=GreenEngine(Recorder()))
    with pytest.raises(NotImplementedError, match="`collect_all` is not supported by Recorder"):
        pl.collect_all([ROWS.lazy()], engine=GreenEngine(Recorder()))


# -- as the engine affinity ---------------------------------------------------------------------------


def test_the_affinity_applies_to_calls_without_an_engine(affinity: Callable[[Any], object], hub_alive: Gate) -> None:
    affinity(GreenEngine())
    assert_frame_equal(gated(hub_alive).collect(), ROWS)
    assert isinstance(ROWS.lazy().collect_async(gevent=True), Result)


def test_auto_inside_an_affinity_is_polars_default(affinity: Callable[[Any], object]) -> None:
    engine = GreenEngine()
    assert engine.inner.name == "auto"
    affinity(engine)
    assert engine.inner.name == "auto"
    affinity("streaming")
    assert engine.inner.name == "streaming"
    recorder = Recorder()
    affinity(recorder)
    assert engine.inner is recorder


# -- where there is no greenlet to give way to --------------------------------------------------------


def test_in_a_thread_without_a_hub_it_runs_inline() -> None:
    recorder, threads, over = Recorder(), [], Gate()

    def work() -> None:
        threads.append(native.get_ident())
        ROWS.lazy().collect(engine=GreenEngine(recorder))
        over.open()

    native.start_thread(work, ())
    while not over.is_open:
        rest()
    assert recorder.threads == threads


def test_on_a_worker_it_runs_inline() -> None:
    recorder = Recorder()
    result = greendata.collect(ROWS.lazy(), engine=GreenEngine(recorder))
    assert_frame_equal(result.get(), ROWS)
    assert len(recorder.threads) == 1


def test_an_outer_timeout_ends_the_wait_and_gives_the_work_up(held: Gate) -> None:
    with pytest.raises(gevent.Timeout) as caught, timeout_at(held) as outer:
        gated(held).collect(engine=GreenEngine())
    assert caught.value is outer
    assert greendata.stats().abandoned == 1
    held.open()


def test_schemas_and_plans_of_the_verbs_take_it(hub_alive: Gate) -> None:
    assert "PYTHON SCAN" in greendata.explain(gated_schema(hub_alive), engine=GreenEngine()).get()
