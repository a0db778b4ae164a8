"""Where a query runs: the setting, the route, and what the verbs, GreenEngine and the patch make of them."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import gevent
import polars as pl
import pytest
from flask import Flask, request
from polars.testing import assert_frame_equal
from pydantic import BaseModel

import greendata
from greendata import BadSetting, GreenEngine, ProcessEngine
from greendata.errors import BadEngine, DeadlineExceeded, NotSendable, RouteFailed
from greendata.pool import pool
from greendata.pool.settings import Settings
from greendata.query import choice
from greendata.web.flask import GreenData
from tests.support.child_tasks import process_ids
from tests.support.gates import Gate
from tests.support.natives import until
from tests.support.processes import run_python

HERE = os.getpid()
LF = pl.LazyFrame({"a": [1, 2]})


class Recorder(pl.Engine):
    """An engine of a user, which computes in memory and counts its queries."""

    def __init__(self) -> None:
        self.queries = 0

    @property
    def name(self) -> str:
        return "recorder"

    @property
    def plan_engine(self) -> str:
        return "in-memory"

    def collect(self, lf: pl.LazyFrame, **options: Any) -> Any:
        self.queries += 1
        return pl.InMemoryEngine().collect(lf, **options)

    def execute(self, lf: pl.LazyFrame, **options: Any) -> Any:
        self.queries += 1
        return pl.InMemoryEngine().execute(lf, **options)


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    before = pool.shared.settings
    choice._warned.clear()
    choice._costly.clear()
    yield
    pool.configure(engine=before.engine, route=before.route or False)


@pytest.fixture
def patched() -> Iterator[None]:
    was_patched = greendata.is_polars_patched()
    greendata.patch_polars()
    yield
    if not was_patched:
        greendata.unpatch_polars()


@pytest.fixture(scope="module")
def engine() -> Iterator[ProcessEngine]:
    with ProcessEngine(workers=1) as made:
        yield made


@contextmanager
def told(text: str) -> Iterator[list[warnings.WarningMessage]]:
    """Expect one warning in the block, with *text*. It may come from a native thread."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", ResourceWarning)  # from what is collected meanwhile
        yield caught
        until(lambda: caught)
    assert [text in str(each.message) for each in caught] == [True]


# -- the setting ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind", "options"),
    [
        ("threads", "threads", {}),
        ("auto", "threads", {}),
        (" streaming ", "streaming", {}),
        ("process", "process", {}),
        (
            "process: workers=3, memory_limit=0.5GiB ,recycle_after=7,inner=cudf_polars.engine:make",
            "process",
            {"workers": 3, "memory_limit": 1 << 29, "recycle_after": 7, "inner": "cudf_polars.engine:make"},
        ),
        ("process:memory_limit=100000000", "process", {"memory_limit": 100_000_000}),
        ("shop.engines:Factories.ray", "factory", {}),
    ],
)
def test_texts(text: str, kind: str, options: dict[str, Any]) -> None:
    assert greendata.pool.engine_setting.engine_setting("engine", text) == (kind, options)
    assert Settings.from_environment({"GREENDATA_ENGINE": text}).engine == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("warp", "'threads', 'in-memory', 'streaming', 'gpu', 'process', .* or a polars.Engine, got 'warp'"),
        ("process:", "some of workers, memory_limit, recycle_after, inner, as in 'process:workers=2,"),
        ("process:workers", "some of workers, memory_limit"),
        ("process:wokers=2", "some of workers, memory_limit"),
        ("process:workers=2,workers=3", "some of workers, memory_limit"),
        ("process:workers=0", r"workers of GREENDATA_ENGINE must be a whole number >= 1, got '0'"),
        ("process:workers=two", "must be a whole number >= 1"),
        ("process:memory_limit=512", "memory_limit of GREENDATA_ENGINE must be at least 64 MiB, such as 512MiB or 2GB"),
        ("process:memory_limit=5XB", "must be at least 64 MiB"),
        ("process:inner=gpu", "'auto', 'in-memory', 'streaming' or 'module:factory', got 'gpu'"),
        ("streaming:workers=2", "'threads', 'in-memory'"),
        ("a b:c", "'threads', 'in-memory'"),
    ],
)
def test_a_text_that_means_nothing_is_an_error_at_the_start(text: str, says: str) -> None:
    with pytest.raises(BadSetting, match=says):
        Settings.from_environment({"GREENDATA_ENGINE": text})
    before = pool.shared.settings
    with pytest.raises(BadSetting):
        greendata.configure(engine=text)
    assert pool.shared.settings == before


@pytest.mark.parametrize("value", [3, ProcessEngine, len, b"process"])
def test_what_is_not_an_engine_is_an_error(value: object) -> None:
    with pytest.raises(BadSetting, match=r"^engine must be 'threads', .* or a polars\.Engine, got"):
        greendata.configure(engine=value)


def test_a_route_must_be_callable() -> None:
    with pytest.raises(BadSetting, match="route must be a function of a label and a key, got 'process'"):
        greendata.configure(route="process")  # type: ignore[arg-type]


def test_a_process_engine_by_name_in_a_call_is_an_error_that_says_what_to_pass() -> None:
    with pytest.raises(BadEngine, match=r"pass a greendata.ProcessEngine\(\), or set it for all"):
        greendata.collect(LF, engine="process")  # type: ignore[arg-type]


def test_the_default_is_threads_and_no_choice() -> None:
    assert not choice.is_made()
    greendata.configure(engine="process")
    assert choice.is_made()
    greendata.configure(engine="threads")
    assert not choice.is_made()


# -- the verbs ------------------------------------------------------------------------------------------------------


def test_the_verbs_run_where_the_setting_says(engine: ProcessEngine, tmp_path: Path) -> None:
    greendata.configure(engine=engine)
    ids = process_ids()
    found = {
        "collect": greendata.collect(ids).get(),
        "streaming": greendata.collect(ids, engine="streaming").get(),
        "in-memory": greendata.collect(ids, engine="in-memory", optimizations=pl.QueryOptFlags.none()).get(),
        "collect_all": greendata.collect_all([ids, ids]).get()[1],
        "batches": pl.concat(list(greendata.batches(ids))),
        "namespace": ids.green.collect().get(),  # type: ignore[attr-defined]
        "GreenEngine": ids.collect(engine=GreenEngine()),
        "collect_async": ids.collect_async(gevent=True, engine=GreenEngine()).get(),
    }
    for name in ("csv", "parquet", "ipc", "ndjson"):
        path = tmp_path / f"a.{name}"
        getattr(greendata, f"sink_{name}")(ids, path).get()
        found[name] = getattr(pl, f"read_{name}")(path)
    assert len({df.item() for df in found.values()} - {HERE}) == 1


def test_engine_objects_and_gpu_are_not_moved(engine: ProcessEngine) -> None:
    greendata.configure(engine=engine)
    ids = process_ids()
    assert greendata.collect(ids, engine=pl.InMemoryEngine()).get().item() == HERE
    assert ids.collect(engine=GreenEngine("in-memory")).item() == HERE
    assert choice.engine_for("gpu", "collect") == "gpu"


def test_the_name_of_an_engine_says_how_the_child_computes(engine: ProcessEngine) -> None:
    greendata.configure(engine=engine)
    for name in ("streaming", "in-memory"):
        placed = choice.engine_for(name, "collect")  # type: ignore[arg-type]
        assert repr(placed) == f"PlacedEngine({engine!r})"
        assert placed._options == {"engine": name}  # type: ignore[union-attr]


def test_an_engine_of_the_user_gets_the_queries_without_a_name_only() -> None:
    recorder = Recorder()
    greendata.configure(engine=recorder)
    greendata.collect(LF).get()
    greendata.collect(LF, engine="streaming").get()
    LF.collect(engine=GreenEngine())
    assert recorder.queries == 2


def test_a_route_is_obeyed_though_the_query_names_an_engine() -> None:
    recorder = Recorder()
    greendata.configure(route=lambda label, _: recorder if label == "untrusted" else "threads")
    greendata.collect(LF, engine="streaming", label="untrusted").get()
    assert recorder.queries == 1
    assert choice.engine_for("streaming", "collect").name == "streaming"  # type: ignore[union-attr]


def test_what_its_engine_lacks_runs_in_a_thread_with_one_warning() -> None:
    greendata.configure(engine=Recorder())
    with told("Recorder has no collect_all()") as caught:
        for _ in range(3):
            LF.green.collect()  # type: ignore[attr-defined]
            assert greendata.collect_all([LF]).get()[0].height == 2
    assert (caught[0].filename, str(caught[0].message)[:26]) == (__file__, "the query 'collect_all' ru")


def test_a_local_engine_may_be_the_default() -> None:
    greendata.configure(engine="in-memory")
    assert greendata.collect(LF).get().height == 2
    assert choice.engine_for("auto", "collect").name == "in-memory"  # type: ignore[union-attr]


def test_an_engine_object_that_polars_was_given_stays(engine: ProcessEngine) -> None:
    recorder = Recorder()
    greendata.configure(engine=engine)
    with pl.Config(engine_affinity=recorder):
        greendata.collect(LF).get()
        LF.collect(engine=GreenEngine())
    assert recorder.queries == 2
    with pl.Config(engine_affinity=GreenEngine()):
        assert process_ids().collect().item() != HERE


def test_other_functions_with_a_query_ask_too(engine: ProcessEngine) -> None:
    class Row(BaseModel):
        pid: int

    greendata.configure(engine=engine)
    ids = process_ids()
    assert greendata.validate(ids, Row)["pid"].item() != HERE
    assert greendata.Frame[Row].from_frame(ids).collect()[0].pid != HERE
    assert int(b"".join(greendata.encode(ids, "csv")).split()[1]) != HERE


# -- the route --------------------------------------------------------------------------------------------------------


def test_the_route_gets_label_and_key_and_decides(engine: ProcessEngine) -> None:
    seen: list[tuple[str, object]] = []

    def route(label: str, key: object) -> pl.Engine | None:
        seen.append((label, key))
        return engine if key == "tenant" else None

    greendata.configure(route=route)
    ids = process_ids()
    assert greendata.collect(ids).get().item() == HERE
    assert greendata.collect(ids, key="tenant", label="report").get().item() != HERE
    assert greendata.collect_all([ids], key="tenant").get()[0].item() != HERE
    assert greendata.run(lambda: ids.collect(engine=GreenEngine()), key="tenant", label="job").get().item() != HERE
    assert seen == [("collect", None), ("report", "tenant"), ("collect_all", "tenant"), ("job", "tenant")]


def test_the_route_gets_the_endpoint_and_the_key_of_a_request() -> None:
    seen: list[tuple[str, object]] = []
    greendata.configure(route=lambda label, key: seen.append((label, key)))
    app = Flask("service")
    GreenData(app, key=lambda: request.headers["X-Tenant"])

    @app.get("/report")
    def report() -> str:
        greendata.collect(LF).get()
        greendata.collect(LF, label="totals").get()
        return str(LF.collect(engine=GreenEngine()).height)

    assert app.test_client().get("/report", headers={"X-Tenant": "7"}).text == "2"
    assert seen == [("report", "7"), ("totals", "7"), ("report", "7")]


def test_a_route_returns_texts_too_and_their_engine_is_made_once() -> None:
    greendata.configure(route=lambda label, _: "process:workers=1" if label == "report" else "threads")
    first, second = (choice.engine_for("auto", "collect", label="report") for _ in range(2))
    assert first._chosen is second._chosen  # type: ignore[union-attr]
    assert choice.engine_for("auto", "collect").name == "auto"  # type: ignore[union-attr]


def test_none_of_the_route_means_the_setting(engine: ProcessEngine) -> None:
    greendata.configure(engine=engine, route=lambda *_: None)
    assert greendata.collect(process_ids()).get().item() != HERE
    greendata.configure(route=False, engine="threads")
    assert not choice.is_made()


def test_a_route_that_raises_fails_the_query_and_nothing_else() -> None:
    greendata.configure(route=lambda label, key: {}[key])  # type: ignore[misc]
    with pytest.raises(RouteFailed, match=r"no engine for the query 'report': .* it raised KeyError: 7") as caught:
        greendata.collect(LF, label="report", key=7)
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(RouteFailed):
        greendata.batches(LF)
    with pytest.raises(RouteFailed):
        LF.collect(engine=GreenEngine())
    assert greendata.run(sum, [1]).get() == 1


@pytest.mark.parametrize("found", [3, "warp", ProcessEngine, True])
def test_a_route_that_returns_something_else_fails_the_query(found: object) -> None:
    greendata.configure(route=lambda *_: found)
    with pytest.raises(RouteFailed, match=r"it returned .*; expected None or 'threads', 'in-memory'"):
        greendata.collect(LF)


def test_a_route_with_another_signature_fails_the_query() -> None:
    greendata.configure(route=lambda: None)  # type: ignore[misc, arg-type]
    with pytest.raises(RouteFailed, match=r"it raised TypeError: .*takes 0 positional arguments"):
        greendata.collect(LF)


def test_queries_of_the_route_itself_are_not_routed() -> None:
    greendata.configure(route=lambda *_: greendata.collect(LF).get().height == 2 and None)
    assert greendata.collect(LF).get().height == 2


def test_a_slow_route_counts_for_a_deadline_around_it_and_leaves_the_hub_alone() -> None:
    gate = Gate()
    other = gevent.spawn(gate.open)
    greendata.configure(route=lambda *_: other.join())
    with greendata.deadline(0), pytest.raises(DeadlineExceeded):
        greendata.collect(LF).get()
    assert gate.is_open


# -- what cannot be sent ----------------------------------------------------------------------------------------------


def locked(series: pl.Series, lock: Any) -> pl.Series:
    with lock:
        return series + 1


UNSENDABLE: dict[str, Callable[[], pl.LazyFrame]] = {
    "a lock": lambda: LF.select(pl.col("a").map_batches(partial(locked, lock=threading.Lock()), return_dtype=pl.Int64)),
    "a large frame": lambda: pl.DataFrame({"a": range(2_000_000)}).lazy().select(pl.col("a").head(2) + 1),
}


@pytest.mark.parametrize("what", UNSENDABLE)
def test_it_runs_in_a_thread_if_the_setting_chose(engine: ProcessEngine, what: str) -> None:
    greendata.configure(engine=engine)
    query = UNSENDABLE[what]()
    with told("runs in a thread of this process and not in ProcessEngine"):
        assert greendata.collect(query).get()["a"].len() == 2


def test_an_attempt_that_takes_long_is_not_repeated_at_once(engine: ProcessEngine, monkeypatch: Any) -> None:
    monkeypatch.setattr(choice, "COSTLY", 0.0)
    greendata.configure(engine=engine)
    asked: list[str] = []
    monkeypatch.setattr(ProcessEngine, "collect", lambda *_, **__: asked.append("collect") or refuse())
    with told("it cannot"):
        for _ in range(3):
            assert greendata.collect(LF).get().height == 2
    assert asked == ["collect"]
    greendata.collect(LF, label="another").get()
    assert len(asked) == 2
    monkeypatch.setattr(choice, "_PLACES", 3)
    for number in range(5):
        for _ in range(2):
            greendata.collect(LF, label=f"report {number}").get()
    assert len(asked) == 7


def refuse() -> None:
    raise NotSendable("it cannot")


@pytest.mark.parametrize("what", UNSENDABLE)
def test_it_fails_if_the_call_or_the_route_chose(engine: ProcessEngine, what: str) -> None:
    query = UNSENDABLE[what]()
    with pytest.raises(NotSendable):
        greendata.collect(query, engine=engine).get()
    greendata.configure(route=lambda *_: engine)
    with pytest.raises(NotSendable):
        greendata.collect(query).get()
    with pytest.raises(NotSendable):
        query.collect(engine=GreenEngine())


def test_a_sink_to_a_file_object_is_written_once(engine: ProcessEngine) -> None:
    greendata.configure(engine=engine)
    file = BytesIO()
    with told("a file object exists in this process only"):
        greendata.sink_csv(LF, file).get()
    assert file.getvalue() == b"a\n1\n2\n"


def test_warnings_that_are_errors_do_not_lose_the_query(engine: ProcessEngine) -> None:
    greendata.configure(engine=engine)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert greendata.collect(UNSENDABLE["a lock"]()).get().height == 2


# -- the patch --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("patched")
def test_the_patch_honours_it(engine: ProcessEngine, tmp_path: Path) -> None:
    greendata.configure(engine=engine)
    ids = process_ids()
    ids.sink_parquet(tmp_path / "a.parquet")
    found = {
        "collect": ids.collect().item(),
        "named": ids.collect(engine="streaming").item(),
        "all": pl.collect_all([ids])[0].item(),
        "execute": ids.execute().lazy().collect().item(),
        "batches": next(iter(ids.collect_batches())).item(),
        "verb": greendata.collect(ids).get().item(),
        "sink": pl.read_parquet(tmp_path / "a.parquet").item(),
    }
    assert HERE not in found.values()
    greendata.configure(engine="threads")
    assert ids.collect().item() == HERE


@pytest.mark.usefixtures("patched")
def test_eager_operations_readers_and_writers_stay_under_the_patch(engine: ProcessEngine, tmp_path: Path) -> None:
    recorder = Recorder()
    greendata.configure(engine=recorder)
    df = pl.DataFrame({"a": [2, 1], "b": [{"x": 1}, None]})
    df.sort("a").filter(pl.col("a") > 0).join(df, on="a").write_parquet(tmp_path / "a.parquet")
    assert pl.read_parquet(tmp_path / "a.parquet").height == 2
    assert recorder.queries == 0


@pytest.mark.usefixtures("patched")
def test_queries_of_greendata_itself_stay_under_the_patch(tmp_path: Path) -> None:
    """Each is over bytes or frames of this process, and would be sent as a whole."""

    class Row(BaseModel):
        a: int
        b: str | None = None

    recorder = Recorder()
    greendata.configure(engine=recorder)
    df = pl.DataFrame({"a": [2, 1], "b": ["x", None]})
    for name in ("csv", "json", "ndjson", "arrow", "parquet"):
        body = b"".join(greendata.encode(df, name))  # type: ignore[arg-type]
        assert_frame_equal(greendata.decode(body, name, model=Row), df)  # type: ignore[arg-type]
        assert_frame_equal(greendata.decode(body, name), df)  # type: ignore[arg-type]
        with suppress(greendata.GreenDataError):  # of JSON, Arrow and Parquet
            greendata.decode(body[:-3], name, model=Row)  # type: ignore[arg-type]
    greendata.validate(df, Row)
    greendata.filter_valid(pl.DataFrame({"a": ["x", "1"]}), Row)
    greendata.to_models(df, Row)
    (tmp_path / "a.csv").write_text("a,b\n1,x\n")
    assert recorder.queries == 0


@pytest.mark.usefixtures("patched")
def test_a_background_query_stays_under_the_patch(engine: ProcessEngine) -> None:
    greendata.configure(engine=engine)
    with pytest.warns() as caught:
        query: Any = process_ids().collect(background=True)
    assert query.fetch_blocking().item() == HERE
    assert any("background=True" in str(each.message) for each in caught)


def test_without_the_patch_a_plain_collect_is_polars_own(engine: ProcessEngine) -> None:
    if greendata.is_polars_patched():
        greendata.unpatch_polars()
    greendata.configure(engine=engine)
    assert process_ids().collect().item() == HERE


@pytest.mark.once("unpatched")
def test_the_environment_alone_is_enough_and_loads_nothing_more_than_needed() -> None:
    code = """
import sys
from gevent import monkey; monkey.patch_all()
import polars as pl
assert not any(name.startswith("greendata.engines") for name in sys.modules), sys.modules
import os
from tests.support.child_tasks import process_ids
print(process_ids().collect().item() == os.getpid())
"""
    for value, same in (("process:workers=1", False), ("threads", True), ("", True), ("in-memory", True)):
        finished = run_python(code, env={"GREENDATA_AUTOPATCH": "1", "GREENDATA_ENGINE": value})
        assert (finished.returncode, finished.stdout, finished.stderr) == (0, f"{same}\n", ""), value
    finished = run_python(code, env={"GREENDATA_AUTOPATCH": "1", "GREENDATA_ENGINE": "proces"})
    assert "GREENDATA_ENGINE must be 'threads', 'in-memory', 'streaming', 'gpu', 'process'" in finished.stderr


FACTORIES = {
    "tests.query.test_choice:Recorder": None,
    "no_such_module:make": "No module named 'no_such_module'",
    "tests.query.test_choice:nothing": "has no attribute 'nothing'",
    "tests.query.test_choice:HERE": "the place of a function, not of a int",
    "tests.query.test_choice:Recorder.name.fget": "it raised TypeError: .*missing 1 required",
    "builtins:dict": "a factory that returns a polars.Engine, not dict",
}


@pytest.mark.parametrize("text", FACTORIES)
def test_factories(text: str) -> None:
    says = FACTORIES[text]
    greendata.configure(engine=text)
    if says is None:
        assert greendata.collect(LF).get().height == 2
        return
    with pytest.raises(BadSetting, match=says):
        greendata.collect(LF)
