"""ProcessEngine(inner="module:factory"): engines of a test's own that block, hold the GIL, fail, or are no engines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gevent
import polars as pl
import pytest

import greendata
from greendata import ProcessEngine
from greendata.errors import BadArgument, ChildFailed, DeadlineExceeded, EngineFailed, JobCancelled, WorkerDied
from tests.support.natives import until

PLACE = "tests.support.child_engines"
LF = pl.LazyFrame({"a": [1, 2]})


@pytest.fixture(params=["Sleeping", "Holding"])
def stuck(request: pytest.FixtureRequest) -> Iterator[ProcessEngine]:
    """An engine whose client never returns."""
    with ProcessEngine(workers=1, inner=f"{PLACE}:{request.param}") as made:
        yield made


def wait_gone(path: Path) -> None:
    pid = int(path.read_text())
    until(lambda: not Path(f"/proc/{pid}").exists())


def test_an_engine_of_a_factory_computes() -> None:
    with ProcessEngine(workers=1, inner=f"{PLACE}:Base") as engine:
        assert greendata.collect(LF.sum(), engine=engine).get().item() == 3
        assert LF.sum().collect(engine=greendata.GreenEngine(engine)).item() == 3
        assert engine.plan_engine == "auto"
        assert not engine.has_engines_of_polars


def test_a_client_that_never_returns_is_cancelled_and_the_hub_runs_on(stuck: ProcessEngine, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    result = greendata.collect(pl.LazyFrame({"path": [str(path)]}), engine=stuck)
    until(path.exists)  # the hub runs, though the client may hold the GIL of its process
    assert gevent.spawn(sum, [1, 2]).get() == 3
    result.cancel()
    with pytest.raises(JobCancelled):
        result.get()
    wait_gone(path)


def test_a_client_that_never_returns_ends_at_the_deadline(stuck: ProcessEngine, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    result = greendata.collect(pl.LazyFrame({"path": [str(path)]}), engine=stuck)
    until(path.exists)
    with pytest.raises(DeadlineExceeded):
        greendata.collect(pl.LazyFrame({"path": [str(path)]}), engine=stuck, timeout=0.01).get()
    result.cancel()
    wait_gone(path)


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        (
            "failing",
            r"cannot use the engine 'tests\.support\.child_engines:failing': its factory raised Connection",
        ),
        ("unruly", "its factory raised SystemExit: the license has expired"),
        ("no_engine", r"its factory returned \{'engine': 'none'\}, expected a polars\.Engine"),
        ("NOT_CALLABLE", r"expected a function that returns a polars\.Engine, got 3"),
        ("missing", r"AttributeError: .*has no attribute 'missing'"),
    ],
)
def test_an_engine_that_cannot_be_made_fails_each_query_and_says_why(factory: str, says: str) -> None:
    with ProcessEngine(workers=1, inner=f"{PLACE}:{factory}") as engine:
        for _ in range(2):
            with pytest.raises(EngineFailed, match=says):
                greendata.collect(LF, engine=engine).get()


def test_a_factory_that_never_returns_is_cancelled(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with ProcessEngine(workers=1, inner=f"{PLACE}:endless", environment={"PID_PATH": str(path)}) as engine:
        result = greendata.collect(LF, engine=engine)
        until(path.exists)
        result.cancel()
        wait_gone(path)


def test_a_module_that_does_not_exist() -> None:
    with (
        ProcessEngine(workers=1, inner="no_such_module:make") as engine,
        pytest.raises(EngineFailed, match="ModuleNotFoundError: No module named 'no_such_module'"),
    ):
        LF.collect(engine=engine)


def test_a_factory_that_ends_the_process() -> None:
    with ProcessEngine(workers=1, inner=f"{PLACE}:abrupt") as engine, pytest.raises(WorkerDied) as caught:
        LF.collect(engine=engine)
    assert caught.value.status in (7, None)  # None: the loop of a hub reaps all children once it watches one


def test_an_error_that_only_the_child_knows() -> None:
    with (
        ProcessEngine(workers=1, inner=f"{PLACE}:Failing") as engine,
        pytest.raises((ChildFailed, Exception), match="the cluster has no nodes"),
    ):
        LF.collect(engine=engine)


def test_what_is_not_a_frame_is_an_error() -> None:
    with (
        ProcessEngine(workers=1, inner=f"{PLACE}:Odd") as engine,
        pytest.raises(EngineFailed, match=r"its collect\(\) returned dict, expected a polars\.DataFrame"),
    ):
        LF.collect(engine=engine)


def test_a_method_that_it_does_not_have() -> None:
    with (
        ProcessEngine(workers=1, inner=f"{PLACE}:Base") as engine,
        pytest.raises(NotImplementedError, match="`collect_all` is not supported by Base"),
    ):
        pl.collect_all([LF], engine=engine)


@pytest.mark.parametrize("inner", ["a b:c", ":", "a:", ":b", "a:b:c", "1a:b"])
def test_what_does_not_name_a_function_is_refused_at_once(inner: str) -> None:
    with pytest.raises(BadArgument, match=r"inner must be 'auto', 'in-memory', 'streaming' or 'module:factory', got"):
        ProcessEngine(inner=inner)
