"""What operators see of a request: the label of its queries, their number, and where they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import gevent
import polars as pl
import pytest
from flask import Blueprint, Flask
from pydantic import BaseModel

import greendata
from greendata import observe
from greendata.web.flask import GreenData, body, respond
from tests.conftest import Gate
from tests.support.natives import until


class Row(BaseModel):
    a: int


LAZY = pl.LazyFrame({"a": range(100)})


@pytest.fixture(autouse=True)
def _observed() -> Iterator[None]:
    gevent.get_hub()
    greendata.patch_polars()
    observe.start()
    yield
    observe.stop()
    greendata.unpatch_polars()


@pytest.fixture
def app() -> Flask:
    made = Flask("service")
    GreenData(made)
    return made


def labels() -> dict[str, int]:
    return {label: found.done for label, found in observe.stats().labels.items()}


def test_a_plain_query_has_the_label_of_its_endpoint(app: Flask) -> None:
    pages = Blueprint("sales", __name__)
    pages.add_url_rule("/report/<int:number>", "report", lambda number: str(LAZY.head(number).collect().height))
    app.register_blueprint(pages)
    for number in range(3):
        assert app.test_client().get(f"/report/{number}").text == str(number)
    until(lambda: labels() == {"sales.report": 3})
    LAZY.collect()
    until(lambda: labels() == {"sales.report": 3, "collect": 1})


VIEWS: dict[str, Callable[[], object]] = {
    "a frame": lambda: respond(LAZY.collect(), "csv"),
    "a query": lambda: respond(LAZY, "csv"),
    "rows": lambda: LAZY.collect().to_dicts(),
    "a body": lambda: str(body(Row).height),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_three_reports_are_three_queries(app: Flask, view: Callable[[], object]) -> None:
    app.add_url_rule("/report", "report", view, methods=["POST"])
    for _ in range(3):
        answer = app.test_client().post("/report", json=[{"a": 1}])
        assert (answer.status_code, bool(answer.get_data())) == (200, True)
    until(lambda: observe.stats().queries.done >= 3)
    assert sum(labels().values()) == 3


@pytest.mark.parametrize(("is_on", "origin"), [(False, None), (True, "GET /report/7")])
def test_the_path_is_shown_only_where_it_is_asked_for(held: Gate, is_on: bool, origin: str | None) -> None:  # noqa: FBT001
    app = Flask("service")
    app.config["GREENDATA_DASHBOARD_PATHS"] = is_on
    GreenData(app)
    app.add_url_rule("/report/<int:number>", "report", lambda number: greendata.run(held, str(number)).get())
    asking = gevent.spawn(app.test_client().get, "/report/7")
    held.wait_arrived()
    (job,) = [job for job in observe.running() if job.label == "Gate"]
    assert job.origin == origin
    held.open()
    assert asking.get().text == "7"
