"""Every verb: Polars' values and keyword arguments, deadline, key and label, and a hub that keeps running."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest
from polars.exceptions import ColumnNotFoundError
from polars.testing import assert_frame_equal

import greendata
from greendata import BadArgument, BadEngine, BadTimeout, DeadlineExceeded, JobCancelled, NotAFrame, NotCallable, Result
from greendata.query import verbs
from tests.support.frames import ROWS, GatedFile, gated, gated_schema, one_worker
from tests.support.gates import Gate
from tests.support.natives import expiring

FORMATS = ("csv", "ipc", "ndjson", "parquet")
SINKS = tuple(f"sink_{format_}" for format_ in FORMATS)
READS = tuple(f"read_{format_}" for format_ in FORMATS)
WRITES = (*(f"write_{format_}" for format_ in FORMATS), "write_json")

BAD_TIMEOUTS = (-1, -0.001, float("nan"), "2", True)


def _content(name: str) -> bytes:
    file = io.BytesIO()
    getattr(ROWS, name.replace("read_", "write_"))(file)
    return file.getvalue()


def _database(gate: Callable[[Any], Any], **options: Any) -> Result[pl.DataFrame]:
    stand_in = sys.modules["connectorx"]
    stand_in.read_sql = lambda **_: gate(ROWS)  # type: ignore[attr-defined]
    return greendata.read_database_uri("select a from t", "sqlite://t", engine="connectorx", **options)


# Each verb with work that waits at a gate; batches is a stream and has tests of its own.
HELD: dict[str, Callable[..., Result[Any]]] = {
    "collect": lambda gate, **options: greendata.collect(gated(gate), **options),
    "collect_all": lambda gate, **options: greendata.collect_all([gated(gate), gated(gate)], **options),
    "collect_schema": lambda gate, **options: greendata.collect_schema(gated_schema(gate), **options),
    "explain": lambda gate, **options: greendata.explain(gated_schema(gate), **options),
    "run": lambda gate, **options: greendata.run(gate, None, **options),
    "read_database_uri": _database,
}


def _held_sink(name: str) -> Callable[..., Result[Any]]:
    return lambda gate, **options: getattr(greendata, name)(gated(gate), io.BytesIO(), **options)


def _held_read(name: str) -> Callable[..., Result[Any]]:
    return lambda gate, **options: getattr(greendata, name)(GatedFile(gate, _content(name)), **options)


def _held_write(name: str) -> Callable[..., Result[Any]]:
    return lambda gate, **options: getattr(greendata, name)(ROWS, GatedFile(gate), **options)


HELD |= {name: _held_sink(name) for name in SINKS}
HELD |= {name: _held_read(name) for name in READS}
HELD |= {name: _held_write(name) for name in WRITES}

every_verb = pytest.mark.parametrize("name", HELD)


@pytest.fixture(autouse=True)
def _connectorx(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for connectorx, which needs a database: it gets the rows from the test."""
    module = ModuleType("connectorx")
    module.__version__ = "0.4.4"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "connectorx", module)


# -- what all verbs have in common --------------------------------------------------------------------


def test_every_verb_is_held_here() -> None:
    assert set(HELD) | {"batches"} == set(verbs.__all__)


@every_verb
def test_the_hub_keeps_running_during_it(name: str, hub_alive: Gate) -> None:
    HELD[name](hub_alive).get(timeout=60)
    assert hub_alive.is_open


@every_verb
def test_the_deadline_of_a_verb_ends_the_wait(name: str, held: Gate) -> None:
    result = expiring(lambda timeout: HELD[name](held, timeout=timeout), held)
    with pytest.raises(DeadlineExceeded, match=f"{result.label} was still running") as caught:
        result.get()
    assert (caught.value.running, greendata.stats().abandoned) == (True, 1)
    held.open()


@every_verb
def test_a_verb_can_be_cancelled(name: str, held: Gate) -> None:
    result = HELD[name](held)
    held.wait_arrived()
    assert result.cancel()
    with pytest.raises(JobCancelled):
        result.get()
    held.open()


@every_verb
def test_the_label_is_the_name_of_the_verb_or_the_given_one(name: str, held: Gate) -> None:
    own, given = HELD[name](held), HELD[name](held, label="report 7")
    held.open()
    assert own.label == ("Gate" if name == "run" else name)
    assert given.label == "report 7"
    for result in (own, given):
        result.get()


@every_verb
def test_keys_take_turns(name: str, held: Gate) -> None:
    order: list[str] = []

    def note(value: object = None) -> object:
        order.append("ours")
        return value

    with one_worker():
        busy = greendata.run(held, None)
        held.wait_arrived()
        theirs = [greendata.run(order.append, "theirs", key="them") for _ in range(2)]
        ours = HELD[name](note, key="us")
        held.open()
        for result in (busy, *theirs, ours):
            result.get()
    assert [who for who, _ in groupby(order)] == ["theirs", "ours", "theirs"]


@every_verb
@pytest.mark.parametrize("timeout", BAD_TIMEOUTS)
def test_a_bad_timeout_queues_nothing(name: str, timeout: object) -> None:
    seen: list[object] = []
    with pytest.raises(BadTimeout, match=r"number of seconds >= 0, got ") as caught:
        HELD[name](seen.append, timeout=timeout)
    assert caught.value.timeout is timeout
    assert not seen


@pytest.mark.parametrize("name", sorted(set(HELD) - {"run"}))
def test_an_unknown_keyword_is_rejected_at_the_call(name: str) -> None:
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'colour'"):
        HELD[name](lambda value: value, colour="blue")


@pytest.mark.parametrize("name", ["collect", "collect_all", "explain", *SINKS])
@pytest.mark.parametrize("engine", ["warp", None, 7])
def test_an_unknown_engine_is_rejected_at_the_call(name: str, engine: object) -> None:
    with pytest.raises(BadEngine, match=r"'auto', 'in-memory', 'streaming', 'gpu' or a polars.Engine, got ") as caught:
        HELD[name](lambda value: value, engine=engine)
    assert caught.value.engine == engine


@pytest.mark.parametrize("name", ["collect", "collect_schema", "explain", "batches"])
@pytest.mark.parametrize("frame", [ROWS, None, "lf", ROWS["a"]], ids=lambda frame: type(frame).__name__)
def test_not_a_lazy_frame(name: str, frame: object) -> None:
    with pytest.raises(NotAFrame, match=rf"expected a polars\.LazyFrame, got {type(frame).__name__}; call lazy\(\)"):
        getattr(greendata, name)(frame)


def test_not_a_lazy_frame_among_several() -> None:
    with pytest.raises(NotAFrame, match="got DataFrame"):
        greendata.collect_all([ROWS.lazy(), ROWS])  # type: ignore[list-item]


@pytest.mark.parametrize("thing", [ROWS.lazy(), 3, None], ids=lambda thing: type(thing).__name__)
def test_collect_all_wants_several(thing: Any) -> None:
    with pytest.raises(BadArgument, match="lazy_frames must be several LazyFrames, for example a list, got "):
        greendata.collect_all(thing)


@pytest.mark.parametrize("name", SINKS)
def test_a_sink_wants_a_lazy_frame(name: str) -> None:
    with pytest.raises(NotAFrame, match=r"expected a polars.LazyFrame, got DataFrame"):
        getattr(greendata, name)(ROWS, io.BytesIO())


@pytest.mark.parametrize("name", WRITES)
def test_a_writer_wants_a_frame(name: str) -> None:
    with pytest.raises(NotAFrame, match=r"expected a polars.DataFrame, got LazyFrame; collect the LazyFrame first"):
        getattr(greendata, name)(ROWS.lazy(), io.BytesIO())


@pytest.mark.parametrize("thing", [None, 3, "len", ROWS], ids=lambda thing: type(thing).__name__)
def test_run_wants_a_callable(thing: object) -> None:
    with pytest.raises(NotCallable, match="expected a callable to run, got "):
        greendata.run(thing)  # type: ignore[arg-type]


# -- each verb's own values and arguments -------------------------------------------------------------


def test_collect_takes_polars_arguments() -> None:
    lf = ROWS.lazy().filter(pl.col("a") > 1)
    for options in ({}, {"engine": "streaming"}, {"engine": "in-memory", "optimizations": pl.QueryOptFlags.none()}):
        assert_frame_equal(greendata.collect(lf, **options).get(), lf.collect(**options))


def test_collect_all_gives_a_frame_for_each() -> None:
    lf = ROWS.lazy()
    first, second = greendata.collect_all(iter([lf, lf.head(1)]), engine="streaming").get()
    assert_frame_equal(first, ROWS)
    assert_frame_equal(second, ROWS.head(1))
    assert greendata.collect_all([]).get() == []


def test_explain_and_schema_are_polars_own() -> None:
    lf = ROWS.lazy().filter(pl.col("a") > 1).select(b=pl.col("a") * 2)
    for options in ({}, {"optimized": False}, {"format": "tree"}, {"engine": "streaming"}):
        assert greendata.explain(lf, **options).get() == lf.explain(**options)
    assert greendata.collect_schema(lf).get() == pl.Schema({"b": pl.Int64})


@pytest.mark.parametrize(
    ("format_", "writing", "reading"),
    [
        ("csv", {"separator": ";"}, {"separator": ";"}),
        ("ipc", {"compression": "zstd"}, {"n_rows": 3}),
        ("ndjson", {}, {"schema": {"a": pl.Int64}}),
        ("parquet", {"compression": "snappy"}, {"columns": ["a"]}),
    ],
)
def test_files_are_written_and_read(
    tmp_path: Path, format_: str, writing: dict[str, Any], reading: dict[str, Any]
) -> None:
    sunk, written, own = (tmp_path / f"{name}.{format_}" for name in ("sunk", "written", "own"))
    assert getattr(greendata, f"sink_{format_}")(ROWS.lazy(), sunk, **writing).get() is None
    assert getattr(greendata, f"write_{format_}")(ROWS, written, **writing).get() is None
    getattr(ROWS, f"write_{format_}")(own, **writing)
    for path in (sunk, written, own):
        assert_frame_equal(getattr(greendata, f"read_{format_}")(path, **reading).get(), ROWS)


@pytest.mark.parametrize("name", WRITES)
def test_writers_return_what_polars_returns(name: str) -> None:
    own = getattr(ROWS, name)(None) if name not in ("write_ipc", "write_parquet") else None
    if own is not None:
        assert getattr(greendata, name)(ROWS).get() == own
    file, own_file = io.BytesIO(), io.BytesIO()
    getattr(greendata, name)(ROWS, file).get()
    getattr(ROWS, name)(own_file)
    assert file.getvalue() == own_file.getvalue()


@pytest.mark.parametrize("name", ["write_csv", "write_ndjson", "write_json"])
def test_writers_of_text_take_text_files(name: str) -> None:
    file, own_file = io.StringIO(), io.StringIO()
    getattr(greendata, name)(ROWS, file).get()
    getattr(ROWS, name)(own_file)
    assert file.getvalue() == own_file.getvalue()


def test_a_database_is_read() -> None:
    assert_frame_equal(_database(lambda rows: rows).get(), ROWS)


def test_a_missing_driver_is_polars_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "connectorx")
    with pytest.raises(ModuleNotFoundError, match="connectorx"):
        greendata.read_database_uri("select 1", "sqlite://t").get()


@pytest.mark.parametrize("name", READS)
def test_a_missing_file_is_polars_own_error(name: str, tmp_path: Path) -> None:
    result = getattr(greendata, name)(tmp_path / "nothing.here")
    with pytest.raises(FileNotFoundError, match=r"nothing\.here"):
        result.get()
    assert not result.successful()


def test_errors_of_a_query_are_polars_own() -> None:
    result = greendata.collect(ROWS.lazy().select("b"))
    with pytest.raises(ColumnNotFoundError, match="b"):
        result.get()
