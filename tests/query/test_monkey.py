"""The patch: every execution runs in the pool while the hub keeps running, and all else is unchanged."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import polars as pl
import polars._plr as plr
import pytest
from gevent import get_hub
from gevent.pywsgi import WSGIServer
from polars.testing import assert_frame_equal

import greendata
from greendata import SeamMissing
from greendata.hub import native
from greendata.internals.polars import ESSENTIAL, EXECUTIONS, HANDOFFS
from greendata.query.patching.function_patch import FunctionPatch
from tests.support.frames import ROWS, crowded, gated, gated_batches, gated_schema, one_worker
from tests.support.gates import Gate, rest, timeout_at
from tests.support.natives import TIMEOUTS


def written(write: Callable[[io.BytesIO], object]) -> bytes:
    """Return what *write* writes to a file."""
    file = io.BytesIO()
    write(file)
    return file.getvalue()


KEYS = pl.DataFrame({"k": ["x", "y", "x", "z"], "v": [4, 3, 2, 1]})
DAYS = pl.DataFrame({"d": pl.Series(["2024-01-01", "2024-01-03"]).str.to_date(), "v": [1, 2]})
SQL = pl.SQLContext(keys=KEYS)
PLAN = KEYS.lazy().filter(pl.col("v") > 1)
SERIALIZED, SERIALIZED_FRAME = PLAN.serialize(), KEYS.serialize()
ARROW, PARQUET = written(KEYS.write_ipc), written(KEYS.write_parquet)

# Whatever makes Polars compute, under the name of what a user calls it.
EXECUTE: dict[str, Callable[[], object]] = {
    "collect": lambda: KEYS.lazy().collect(),
    "collect in memory": lambda: KEYS.lazy().collect(engine="in-memory"),
    "collect streaming": lambda: KEYS.lazy().collect(engine="streaming"),
    "collect with an engine object": lambda: KEYS.lazy().collect(engine=pl.StreamingEngine()),
    "collect_all": lambda: pl.collect_all([KEYS.lazy(), ROWS.lazy()]),
    "collect_batches": lambda: list(KEYS.lazy().collect_batches()),
    "collect_schema": lambda: KEYS.lazy().collect_schema(),
    "describe": KEYS.describe,
    "explain": lambda: KEYS.lazy().explain(),
    "explain a tree": lambda: KEYS.lazy().explain(format="tree", optimized=False),
    "explain_all": lambda: pl.explain_all([KEYS.lazy()]),
    "show_graph": lambda: KEYS.lazy().show_graph(raw_output=True, show=False),
    "filter": lambda: KEYS.filter(pl.col("v") > 1),
    "select": lambda: KEYS.select(pl.col("v").sum()),
    "join": lambda: KEYS.join(KEYS, on="k"),
    "group_by": lambda: KEYS.group_by("k", maintain_order=True).agg(pl.col("v").sum()),
    "map_groups": lambda: KEYS.group_by("k", maintain_order=True).map_groups(lambda df: df.head(1)),
    "map_rows": lambda: KEYS.map_rows(lambda row: (row[1],)),
    "sort": lambda: KEYS.sort("v"),
    "unique": lambda: KEYS.unique("k", maintain_order=True),
    "is_duplicated": KEYS.is_duplicated,
    "is_unique": KEYS.is_unique,
    "hash_rows": lambda: KEYS.hash_rows(seed=1),
    "partition_by": lambda: KEYS.partition_by("k"),
    "pivot": lambda: KEYS.pivot("k", values="v", aggregate_function="sum"),
    "sample": lambda: KEYS.sample(2, seed=1),
    "sample a fraction": lambda: KEYS.sample(fraction=0.5, seed=1),
    "to_dummies": lambda: KEYS.to_dummies("k"),
    "transpose": KEYS.transpose,
    "upsample": lambda: DAYS.upsample("d", every="1d"),
    "Series.sort": KEYS["v"].sort,
    "Series.n_unique": KEYS["k"].n_unique,
    "Series.value_counts": lambda: KEYS["k"].value_counts(sort=True),
    "Series.map_elements": lambda: KEYS["v"].map_elements(abs, return_dtype=pl.Int64),
    "Series.unique": lambda: KEYS["v"].unique(maintain_order=True),
    "DataFrame.sql": lambda: KEYS.sql("select k, v from self where v > 1"),
    "DataFrame.n_unique": KEYS.n_unique,
    "Series.to_dummies": KEYS["k"].to_dummies,
    "str.json_decode": lambda: pl.Series(["[1]", "[2, 3]"]).str.json_decode(infer_schema_length=2),
    "str.to_datetime": pl.Series(["2024-01-01 10:00:00"]).str.to_datetime,
    "str.to_decimal": pl.Series(["1.25"]).str.to_decimal,
    "serialize": PLAN.serialize,
    "serialize a frame": KEYS.serialize,
    "deserialize": lambda: pl.LazyFrame.deserialize(io.BytesIO(SERIALIZED)).explain(),
    "deserialize a frame": lambda: pl.DataFrame.deserialize(io.BytesIO(SERIALIZED_FRAME)),
    "read_ipc_schema": lambda: pl.read_ipc_schema(io.BytesIO(ARROW)),
    "read_parquet_metadata": lambda: pl.read_parquet_metadata(io.BytesIO(PARQUET)),
    "SQLContext": lambda: SQL.execute("select max(v) from keys", eager=True),
}

FILES = ("avro", "csv", "ipc", "ipc_stream", "json", "ndjson", "parquet")
SINKS = ("sink_csv", "sink_ipc", "sink_ndjson", "sink_parquet")


@pytest.fixture
def patched() -> Iterator[None]:
    """Patch Polars during the test."""
    greendata.patch_polars()
    yield
    greendata.unpatch_polars()


def plainly(work: Callable[[], object]) -> object:
    """Return the result of *work* without the patch."""
    assert not greendata.is_polars_patched()
    return work()


def patchedly(work: Callable[[], object]) -> object:
    """Return the result of *work* with the patch, and assert that it ran in the pool."""
    greendata.patch_polars()
    try:
        with crowded():
            return work()
    finally:
        greendata.unpatch_polars()


def assert_same(ours: Any, own: Any) -> None:
    assert type(ours) is type(own)
    if isinstance(own, pl.DataFrame):
        assert_frame_equal(ours, own)
    elif isinstance(own, list):
        for one, other in zip(ours, own, strict=True):
            assert_same(one, other)
    elif isinstance(own, pl.Series):
        assert ours.equals(own)
    elif isinstance(own, str | bytes | dict):
        assert ours == own


# -- putting it on and taking it off ------------------------------------------------------------------


def in_place() -> dict[str, object]:
    """Return the patched functions as raw attributes of their owners."""
    found: dict[str, object] = {}
    for name in EXECUTIONS + HANDOFFS:
        owner, attribute = place_of(name)
        found[name] = vars(owner)[attribute]
    return found


def place_of(name: str) -> tuple[Any, str]:
    """Return the owner of a patched function, and its attribute name."""
    module, _, path = name.partition(":")
    owner: Any = __import__(module, fromlist=["_"])
    *parents, attribute = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    return owner, attribute


def test_it_is_applied_once_and_undone_completely() -> None:
    before = in_place()
    assert not greendata.is_polars_patched()
    greendata.patch_polars()
    once = in_place()
    greendata.patch_polars()
    assert greendata.is_polars_patched()
    assert all(in_place()[name] is function for name, function in once.items())
    assert {name for name in before if once[name] is not before[name]} == set(EXECUTIONS)
    greendata.unpatch_polars()
    greendata.unpatch_polars()
    assert not greendata.is_polars_patched()
    assert all(in_place()[name] is function for name, function in before.items())


@pytest.mark.parametrize("full_name", ESSENTIAL)
def test_nothing_is_patched_if_an_essential_function_is_missing(
    full_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(*place_of(full_name))
    left = dict(vars(plr.PyLazyFrame).items())
    with pytest.raises(SeamMissing, match=rf"1 function not found in Polars {pl.__version__}: {full_name};") as caught:
        greendata.patch_polars()
    assert caught.value.missing == (full_name,)
    assert not greendata.is_polars_patched()
    assert all(vars(plr.PyLazyFrame)[key] is value for key, value in left.items())


@pytest.mark.parametrize("full_name", ["polars._plr:PyLazyFrame.to_dot", "polars._plr:PySeries.sort"])
def test_the_rest_is_patched_if_another_function_is_missing(full_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name = place_of(full_name)
    monkeypatch.delattr(owner, name)
    with pytest.warns(
        RuntimeWarning, match=rf"1 function not found in Polars {pl.__version__}: {full_name}\."
    ) as caught:
        greendata.patch_polars()
    assert caught[0].filename == __file__
    with crowded():
        KEYS.lazy().collect()
    successor = vars(plr.PyLazyFrame)["clone"]
    setattr(owner, name, successor)  # a later replacement is not changed
    greendata.unpatch_polars()
    assert vars(owner)[name] is successor


def test_nothing_is_patched_if_the_warning_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(plr, "explain_all")
    before = vars(plr.PyLazyFrame)["collect"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="explain_all"):
            greendata.patch_polars()
    assert not greendata.is_polars_patched()
    assert vars(plr.PyLazyFrame)["collect"] is before


def test_missing_modules_and_classes_are_missing_functions() -> None:
    names = ("polars._plr:PyLazyFrame.collect", "polars.nowhere:f", "polars._plr:PyNothing.f")
    patch, seen = FunctionPatch(names, "a test"), []
    before = vars(plr.PyLazyFrame)["collect"]
    with pytest.warns(
        RuntimeWarning, match=r"2 functions not found .*: polars\.nowhere:f, polars\._plr:PyNothing\.f\."
    ):
        patch.apply(lambda function: lambda plan, *args: seen.append(plan) or function(plan, *args))
    KEYS.lazy().collect(engine="in-memory")
    assert len(seen) == 1
    patch.undo()
    assert vars(plr.PyLazyFrame)["collect"] is before
    assert not patch.is_applied


# -- the hub turns ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXECUTE)
def test_an_execution_goes_through_the_pool(name: str) -> None:
    assert_same(patchedly(EXECUTE[name]), plainly(EXECUTE[name]))


@pytest.mark.filterwarnings("ignore:`Catalog` functionality is considered unstable")
@pytest.mark.usefixtures("patched")
def test_a_catalog_in_this_process_can_answer() -> None:
    def answer(_environ: object, start_response: Callable[..., object]) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "application/json")])
        return [b'{"catalogs": [{"name": "main", "created_at": 1, "updated_at": 1}]}']

    server = WSGIServer(("127.0.0.1", 0), answer, log=None)
    server.start()
    try:
        catalog = pl.Catalog(f"http://127.0.0.1:{server.server_port}", bearer_token=None, require_https=False)
        assert [found.name for found in catalog.list_catalogs()] == ["main"]
    finally:
        server.stop()


@pytest.mark.parametrize("name", FILES)
def test_readers_and_writers_go_through_the_pool(name: str, tmp_path: Path) -> None:
    file = tmp_path / f"rows.{name}"
    patchedly(lambda: getattr(KEYS, f"write_{name}")(file))
    own = io.BytesIO()
    getattr(KEYS, f"write_{name}")(own)
    if name != "avro":  # Avro files contain a random number
        assert file.read_bytes() == own.getvalue()
    assert_same(patchedly(lambda: getattr(pl, f"read_{name}")(file)), KEYS)


@pytest.mark.parametrize("name", SINKS)
@pytest.mark.parametrize("engine", ["auto", "in-memory", "streaming"])
def test_sinks_go_through_the_pool(name: str, engine: str) -> None:
    ours, own = io.BytesIO(), io.BytesIO()
    patchedly(lambda: getattr(KEYS.lazy(), name)(ours, engine=engine))
    getattr(KEYS.lazy(), name)(own, engine=engine)
    assert ours.getvalue() == own.getvalue()


USERS_FUNCTIONS: dict[str, Callable[[Callable[[Any], Any]], object]] = {
    "map_batches": lambda f: gated(f).collect(),
    "map_batches streaming": lambda f: gated(f).collect(engine="streaming"),
    "map_batches of a column": lambda f: ROWS.select(pl.col("a").map_batches(f, return_dtype=pl.Int64)),
    "map_elements": lambda f: ROWS["a"].map_elements(f, return_dtype=pl.Int64),
    "map_rows": ROWS.map_rows,
    "map_groups": lambda f: ROWS.group_by("a").map_groups(f),
    "a source": lambda f: gated_batches(f, 3).collect(),
    "a source in batches": lambda f: list(gated_batches(f, 3).collect_batches()),
    "a source's schema": lambda f: gated_schema(f).collect_schema(),
    "a source's schema in a plan": lambda f: gated_schema(f).explain(optimized=False),
    "a sink's function": lambda f: ROWS.lazy().sink_batches(lambda df: f(None)),
}


@pytest.mark.usefixtures("patched")
@pytest.mark.parametrize("name", USERS_FUNCTIONS)
def test_the_hub_turns_while_a_users_function_runs(name: str, hub_alive: Gate) -> None:
    USERS_FUNCTIONS[name](hub_alive)
    assert hub_alive.is_open


@pytest.mark.usefixtures("patched")
@pytest.mark.filterwarnings("ignore:background mode is considered unstable")
def test_the_hub_turns_while_a_background_query_is_waited_for(hub_alive: Gate) -> None:
    assert_frame_equal(gated(hub_alive).collect(background=True).fetch_blocking(), ROWS)


# -- where it does not leave the thread ---------------------------------------------------------------


@pytest.mark.usefixtures("patched")
@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_a_query_inside_a_users_function_runs_where_it_is(engine: Any) -> None:
    def nested(df: pl.DataFrame) -> pl.DataFrame:
        return df.lazy().map_batches(lambda inner: inner.filter(pl.col("a") > 1)).collect(engine=engine)

    def source(number: int) -> int:
        return nested(ROWS)["a"][0] + number

    with one_worker():
        assert ROWS.lazy().map_batches(nested).collect(engine=engine)["a"].to_list() == [2, 3]
        assert gated_batches(source, 2).collect(engine=engine)["a"].to_list() == [2, 3]
        assert greendata.collect(ROWS.lazy().map_batches(nested), engine=engine).get().height == 2


@pytest.mark.usefixtures("patched")
def test_a_thread_without_a_hub_computes_itself(held: Gate) -> None:
    heights: list[int] = []
    over = Gate()

    def work() -> None:
        heights.append(KEYS.filter(pl.col("v") > 1).height)
        over.open()

    with one_worker():
        busy = greendata.run(held, None)
        native.start_thread(work, ())
        while not over.is_open:
            rest()
        held.open()
        busy.get()
    assert heights == [3]


@pytest.mark.usefixtures("patched")
def test_the_hub_itself_computes_where_it_is(held: Gate) -> None:
    heights: list[int] = []
    with one_worker():
        busy = greendata.run(held, None)
        get_hub().loop.run_callback(lambda: heights.append(KEYS.filter(pl.col("v") > 1).height))
        gevent.idle()
        held.open()
        busy.get()
    assert heights == [3]


# -- the wait is a greenlet's wait --------------------------------------------------------------------


@pytest.mark.usefixtures("patched")
def test_a_timeout_around_a_query_cancels_it(held: Gate) -> None:
    with pytest.raises(gevent.Timeout) as caught, timeout_at(held) as outer:
        gated(held).collect()
    assert caught.value is outer
    assert greendata.stats().abandoned == 1
    held.open()


@pytest.mark.usefixtures("patched")
def test_a_killed_greenlet_cancels_its_query(held: Gate) -> None:
    worker = gevent.spawn(gated(held).collect)
    held.wait_arrived()
    worker.kill()
    assert isinstance(worker.value, gevent.GreenletExit)
    assert greendata.stats().abandoned == 1
    held.open()


@pytest.mark.usefixtures("patched")
def test_a_deadline_around_a_query_applies(held: Gate) -> None:
    for seconds in TIMEOUTS:
        with pytest.raises(greendata.DeadlineExceeded) as caught, greendata.deadline(seconds):
            gated(held).collect()
        if caught.value.running:
            break
    assert "collect was still running" in str(caught.value)
    held.open()


@pytest.mark.usefixtures("patched")
def test_greenlets_run_concurrently_under_the_patch() -> None:
    jobs = [gevent.spawn(lambda n=n: KEYS.filter(pl.col("v") > n).height) for n in range(20)]
    gevent.joinall(jobs)
    assert [job.value for job in jobs] == [max(0, 4 - n) for n in range(20)]
