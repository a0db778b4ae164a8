"""Usual mistakes: each is answered at the call, and the text has the next step."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import gevent
import polars as pl
import pytest
from pydantic import BaseModel

import greendata
from greendata import stages
from greendata.errors import (
    AsyncFunction,
    BadArgument,
    BadEngine,
    BadTimeout,
    FileMissing,
    GreenDataError,
    NotAFrame,
    NotAResult,
    NotCallable,
    NotFromHere,
    OptionTaken,
    PipelineTimeout,
    QueryFailed,
    ResultTimeout,
    TableExists,
    UnknownDatabase,
)
from tests.conftest import Gate


class User(BaseModel):
    a: int


DF = pl.DataFrame({"a": [1]})
LF = DF.lazy()
PANDAS = type("DataFrame", (), {"__module__": "pandas.core.frame"})()  # the tests do not install pandas
LIBRARY: Any = greendata  # what type checkers reject is called all the same
FRAME: Any = greendata.Frame
STAGES: Any = stages
LONG = list(range(100_000))


async def fetch(_: object = None) -> int:
    return 1


async def follow(_: object = None) -> AsyncIterator[int]:
    yield 1


class Fetcher:
    async def __call__(self, _: object = None) -> int:
        return 1

    async def fetch(self, _: object = None) -> int:
        return 1


def needs_timeout(x: int, timeout: float) -> tuple[int, float]:
    return x, timeout


def has_timeout(x: int, timeout: float = 7) -> tuple[int, float]:
    return x, timeout


class Job:
    def __init__(self, *, label: str) -> None:
        self.label = label


def with_connection(use: Callable[[sqlite3.Connection], object]) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        use(connection)


MISTAKES: dict[str, tuple[Callable[[], object], type[GreenDataError], str]] = {
    "Frame(df)": (lambda: FRAME(DF), NotFromHere, "Frame() does not take a DataFrame; write Frame[User].from_frame("),
    "Frame[U](df)": (lambda: FRAME[User](DF), NotFromHere, "write Frame[User].from_frame("),
    "Frame[U](lf)": (lambda: FRAME[User](LF), NotFromHere, "write Frame[User].from_frame("),
    "Frame[U](rows)": (lambda: FRAME[User]([{"a": 1}]), NotFromHere, "write Frame[User].from_rows("),
    "Frame[U](dict)": (lambda: FRAME[User]({"a": [1]}), NotFromHere, "write Frame[User].from_columns("),
    "Frame[U](result)": (lambda: FRAME[User](greendata.collect(LF)), NotFromHere, "call get() on it first"),
    "from_rows(df)": (lambda: FRAME[User].from_rows(DF), NotFromHere, "write Frame[User].from_frame("),
    "from_rows(lf)": (lambda: FRAME[User].from_rows(LF), NotFromHere, "write Frame[User].from_frame("),
    "from_rows(dict)": (lambda: FRAME[User].from_rows({"a": [1]}), NotFromHere, "write Frame[User].from_columns("),
    "from_columns(df)": (lambda: FRAME[User].from_columns(DF), NotFromHere, "write Frame[User].from_frame("),
    "an engine's class": (
        lambda: LIBRARY.collect(LF, engine=greendata.GreenEngine),
        BadEngine,
        "; pass an instance: GreenEngine()",
    ),
    "an executor": (
        lambda: LIBRARY.collect(LF, engine=ThreadPoolExecutor()),
        BadEngine,
        "; greendata has its own pool of threads, leave engine= out",
    ),
    "an executor's class": (lambda: LIBRARY.collect(LF, engine=ThreadPoolExecutor), BadEngine, "has its own pool"),
    "a wrong name": (lambda: LIBRARY.collect(LF, engine="strming"), BadEngine, "did you mean 'streaming'?"),
    "a Python name": (lambda: LIBRARY.sink_csv(LF, "x", engine="in_memory"), BadEngine, "did you mean 'in-memory'?"),
    "an inner engine": (lambda: greendata.GreenEngine("Streaming"), BadEngine, "did you mean 'streaming'?"),
    "collect(dict)": (
        lambda: LIBRARY.collect({"a": [1]}),
        NotAFrame,
        "got dict; make a frame of it: polars.LazyFrame(",
    ),
    "collect(df)": (lambda: LIBRARY.collect(DF), NotAFrame, "got DataFrame; call lazy() on it"),
    "collect(pandas)": (lambda: LIBRARY.collect(PANDAS), NotAFrame, "polars.from_pandas(df).lazy()"),
    "collect(Frame)": (lambda: LIBRARY.collect(FRAME[User].from_frame(DF)), NotAFrame, "frame.to_frame().lazy()"),
    "write_csv(Frame)": (lambda: LIBRARY.write_csv(FRAME[User].from_frame(DF)), NotAFrame, "frame.to_frame()"),
    "paced(async)": (lambda: LIBRARY.paced(fetch, [1]), AsyncFunction, "is an async function"),
    "paced(items, func)": (lambda: LIBRARY.paced([1], str), NotCallable, "the function comes first"),
    "encode(series)": (lambda: LIBRARY.encode(DF["a"], "csv"), NotAFrame, "expected a polars.DataFrame, got Series"),
    "encode(result)": (lambda: LIBRARY.encode(greendata.collect(LF), "csv"), NotAFrame, "call get() on it first"),
    "a number in environment": (
        lambda: LIBRARY.ProcessEngine(environment={"POLARS_MAX_THREADS": 2}),
        BadArgument,
        "environment must be a dict of names and values of variables, both str",
    ),
    "a list for environment": (lambda: LIBRARY.ProcessEngine(environment=["A=1"]), BadArgument, "environment must be"),
    "batch(frames)": (lambda: list(STAGES.batch([DF], rows=2)), BadArgument, "one row, such as a dict"),
    "batch(results)": (
        lambda: list(STAGES.batch([greendata.collect(LF)], rows=2)),
        BadArgument,
        "call get() on a result",
    ),
    "an idle_after of text": (lambda: LIBRARY.Caller("c", idle_after="1"), BadTimeout, "a number of seconds >= 0"),
    "an idle_after below 0": (lambda: LIBRARY.Caller("c", idle_after=-1), BadTimeout, "a number of seconds >= 0"),
    "collect(result)": (lambda: LIBRARY.collect(greendata.collect(LF)), NotAFrame, "call get() on it first"),
    "collect(path)": (lambda: LIBRARY.collect("a.parquet"), NotAFrame, "polars.scan_parquet(path)"),
    "validate(dict)": (lambda: LIBRARY.validate({"a": [1]}, User), NotAFrame, "polars.DataFrame(data)"),
    "validate(rows)": (lambda: LIBRARY.validate([{"a": 1}], User), NotAFrame, "polars.DataFrame(rows)"),
    "write_csv(lf)": (lambda: LIBRARY.write_csv(LF), NotAFrame, "collect the LazyFrame first: collect(lf).get()"),
    "gather(lf)": (lambda: LIBRARY.gather(LF), NotAResult, "start it first: collect(lf)"),
    "gather([f])": (lambda: LIBRARY.gather([int]), NotAResult, "start it first: run(func)"),
    "map(urls, f)": (
        lambda: STAGES.map(LONG, abs),
        NotCallable,
        "got [0, 1, 2, 3, 4, 5, ...]; the function comes first",
    ),
    "map(f(x))": (lambda: STAGES.map(7, LONG), NotCallable, "pass the function itself, not what it returned"),
    "map(f, f)": (lambda: STAGES.map(abs, abs), GreenDataError, "expected a stage or an iterable as the source"),
    "progress=1": (lambda: STAGES.map(abs, [1], progress=1), BadArgument, "progress must be True, False or the label"),
    "dicts into a sink": (
        lambda: list([{"a": 1}] | STAGES.sink_parquet("/tmp/never.parquet")),
        NotAFrame,
        "got dict; put stages.batch(rows=10_000) before the sink",
    ),
    "no folder": (lambda: STAGES.sink_parquet("/nothing/here/a.parquet"), FileMissing, "'/nothing/here'"),
    "run(f, timeout=3)": (
        lambda: LIBRARY.run(needs_timeout, 1, timeout=3),
        OptionTaken,
        "run() takes timeout= for itself",
    ),
    "run(partial, timeout=3)": (
        lambda: LIBRARY.run(functools.partial(needs_timeout, 1), timeout=3),
        OptionTaken,
        "pass functools.partial(func, timeout=...)",
    ),
    "run(class, label=)": (lambda: LIBRARY.run(Job, label="x"), OptionTaken, "partial(func, label=...)"),
    "a cursor": (
        lambda: with_connection(lambda connection: LIBRARY.read_sql("SELECT 1", connection.cursor())),
        UnknownDatabase,
        "got Cursor; pass its connection",
    ),
    "sqlite3 itself": (lambda: LIBRARY.read_sql("SELECT 1", sqlite3), UnknownDatabase, "got module; pass a connection"),
    "a connection as query": (
        lambda: with_connection(lambda connection: LIBRARY.read_sql(connection, "SELECT 1")),
        BadArgument,
        "and the database comes after it",
    ),
    "an address as query": (lambda: LIBRARY.read_sql("sqlite:///a", "SELECT 1"), BadArgument, "comes after it"),
    "a path as query": (lambda: LIBRARY.read_sql(Path("a.db"), "SELECT 1"), BadArgument, "comes after it"),
    "a table first": (lambda: LIBRARY.write_sql("t", DF, "a.sqlite"), NotAFrame, "the frame comes first"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_with_the_next_step(mistake: str) -> None:
    call, kind, text = MISTAKES[mistake]
    with pytest.raises(kind) as caught:
        call()
    assert text in str(caught.value)
    assert len(str(caught.value)) < 400


ASYNC: dict[str, Callable[..., Any]] = {
    "a function": fetch,
    "a generator": follow,
    "a partial": functools.partial(functools.partial(fetch), None),
    "an object": Fetcher(),
    "a method": Fetcher().fetch,
}

RUNNING: dict[str, Callable[[Any], object]] = {
    "run": greendata.run,
    "a call": lambda func: greendata.Caller.current().call_soon(func),
    "a thread": lambda func: greendata.Caller.current().to_thread(func),
    "a stage": lambda func: STAGES.map(func, [1]),
    "single_flight": LIBRARY.single_flight,
}


@pytest.mark.parametrize("way", RUNNING)
@pytest.mark.parametrize("kind", ASYNC)
def test_an_async_function_is_refused(kind: str, way: str) -> None:
    gevent.get_hub()
    with pytest.raises(AsyncFunction, match="only an asyncio event loop can run"):
        RUNNING[way](ASYNC[kind])


def test_what_makes_an_async_object_may_run() -> None:
    assert isinstance(greendata.run(Fetcher).get(), Fetcher)


def test_options_that_a_function_has_a_default_for_are_the_job_s() -> None:
    assert greendata.run(has_timeout, 1, timeout=3).get() == (1, 7)
    assert greendata.run(needs_timeout, 1, 2, timeout=3).get() == (1, 2)
    with pytest.raises(TypeError, match="takes 2 positional arguments but 3 were given"):
        LIBRARY.run(needs_timeout, 1, 2, 3, timeout=3).get()
    assert greendata.run(functools.partial(needs_timeout, timeout=2), 1, timeout=3).get() == (1, 2)


def test_gather_takes_a_list() -> None:
    assert greendata.gather([greendata.run(lambda: 1), greendata.run(lambda: 2)]).get() == [1, 2]


def test_a_bar_without_a_name_has_that_of_the_stage(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(stages.map(abs, [-1, 2], progress=True)) == [1, 2]
    assert "map(abs): 100%" in capsys.readouterr().err
    assert list(stages.map(abs, [-1, 2], progress=False)) == [1, 2]
    assert capsys.readouterr().err == ""


def test_a_pipeline_out_of_time_says_that_it_was_cancelled(make_gate: Callable[[], Gate]) -> None:
    held = stages.map(make_gate(), [1], on="native")
    with pytest.raises(PipelineTimeout, match=r"was not done within 0\.01 seconds and was cancelled") as caught:
        held.get(timeout=0.01)
    assert isinstance(caught.value, ResultTimeout | gevent.Timeout)
    with pytest.raises(PipelineTimeout, match="has not run yet"):
        held.get(block=False)


def test_a_timeout_inside_a_pipeline_is_its_own(make_gate: Callable[[], Gate]) -> None:
    waiting = greendata.run(make_gate())
    with pytest.raises(ResultTimeout) as caught:
        stages.map(lambda _: waiting.get(timeout=0), [1]).get(timeout=60)
    assert type(caught.value) is ResultTimeout
    assert caught.value.result is waiting


def test_a_table_that_exists_names_the_choices(tmp_path: Path) -> None:
    file = tmp_path / "a.sqlite"
    greendata.write_sql(DF, "t", file).get()
    with pytest.raises(TableExists, match="table 't' already exists; pass if_exists='append'") as caught:
        greendata.write_sql(DF, "t", file).get()
    assert isinstance(caught.value, QueryFailed)
    assert greendata.write_sql(DF, "t", file, if_exists="append").get() == 1


def test_a_connection_of_one_thread_names_the_argument() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        result = greendata.read_sql("SELECT 1", connection)
        with pytest.raises(QueryFailed, match=r"check_same_thread=False\), or pass the path"):
            result.get()


@pytest.mark.parametrize("seconds", [0.02, 1e-05])
def test_a_deadline_is_shown_as_it_was_given(seconds: float, held: Gate) -> None:
    with greendata.deadline(60), greendata.deadline(seconds), greendata.deadline(30):
        result = greendata.run(held, timeout=50)
    result.wait()
    assert f"at the deadline of the block around it, {seconds} seconds" in str(result.exception)
