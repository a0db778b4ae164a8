"""The completion of an object shows what its user may call, and nothing that only greendata itself calls."""

from __future__ import annotations

from collections.abc import Callable

import gevent
import polars as pl
import pytest
from gevent.event import AsyncResult
from pydantic import BaseModel

import greendata
from greendata import Caller, Frame, Group, Result, stages


class Row(BaseModel):
    a: int


def _shown(thing: object) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


OF_GEVENT = _shown(AsyncResult())
OF_A_RESULT = {"cancel_wait", "end", "label", "queued_seconds", "run_seconds", "status", "worker"}

RESULTS: dict[str, Callable[[], Result[object]]] = {
    "a job": lambda: greendata.run(int),
    "a query": lambda: greendata.collect(pl.LazyFrame({"a": [1]})),
    "gather": lambda: greendata.gather(greendata.run(int)),
    "shield": lambda: greendata.shield(greendata.run(int)),
    "the end": lambda: greendata.run(int).end(),
    "a pipeline": lambda: stages.map(abs, [1]).submit(),
    "settable": Result,
}


@pytest.mark.parametrize("make", RESULTS.values(), ids=RESULTS.keys())
def test_a_result_shows_what_gevents_has_and_seven_names_more(make: Callable[[], Result[object]]) -> None:
    result = make()
    of_a_call = {"context", "metadata"} if hasattr(result, "metadata") else set()
    assert _shown(result) == OF_GEVENT | OF_A_RESULT | of_a_call


def test_every_shown_name_of_a_result_can_be_read_and_called() -> None:
    result = greendata.run(int)
    gevent.wait([result])
    for name in _shown(result):
        getattr(result, name)
    assert [result.get(), result.result(), result.value, result.get_nowait(), result.wait()] == [0] * 5


def test_a_group_shows_its_verbs() -> None:
    assert _shown(Group()) == {"abandoned", "add", "cancel", "collect", "label", "pending", "remove", "run", "spawn"}


def test_streams_show_their_end() -> None:
    assert _shown(greendata.batches(pl.LazyFrame({"a": [1]}))) == {"close"}
    assert _shown(stages.to_iterable([1])) == {"close"}


def test_a_stage_shows_how_it_is_run() -> None:
    assert _shown(stages.map(abs, [1])) == {"get", "label", "maxsize", "run", "sources", "submit"}
    assert _shown(stages) == set(stages.__all__)


def test_a_service_shows_its_states() -> None:
    with Caller.new(name="side") as side:
        service = side.service(lambda service: service.stopping.get())
        assert _shown(service) == {"label", "started", "stop", "stopped", "stopping"}
        service.stop().wait()


def test_a_typed_frame_shows_operations_results_and_files() -> None:
    kinds = ("csv", "ipc", "ndjson", "parquet")
    made = {"from_arrow", "from_columns", "from_frame", "from_rows", *(f"scan_{kind}" for kind in kinds)}
    operations = {
        "as_model",
        "drop",
        "filter",
        "group_by",
        "head",
        "join",
        "limit",
        "rename",
        "select",
        "slice",
        "sort",
    }
    operations |= {"tail", "unique", "with_columns"}
    results = {"collect", "stream", "submit", "to_dict", "to_frame", *(f"write_{kind}" for kind in kinds)}
    attributes = {"model", "plan", "schema", "trust"}
    assert _shown(Frame[Row].from_rows([])) == made | operations | results | attributes


def test_errors_are_all_that_their_module_shows() -> None:
    assert _shown(greendata.errors) == set(greendata.errors.__all__)
