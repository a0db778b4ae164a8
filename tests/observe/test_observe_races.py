"""Races between two steps of callers, logs, traces, metrics and the end of a server."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import gevent
import pytest
from prometheus_client import CollectorRegistry

import greendata
from greendata.errors import CallerStopped
from greendata.hub.logs import LogRouter, route_logging
from greendata.observe.metrics import Metrics
from greendata.observe.trace import trace
from greendata.tasks.caller import Caller
from greendata.tasks.hub_thread import HubThread
from greendata.web import drain
from tests.conftest import Gate
from tests.support.natives import Native, in_a_plain_thread, once_counted, until
from tests.support.races import at


def test_a_caller_is_not_stopped_if_a_user_enters_as_the_last_one_leaves() -> None:
    side, entered = Caller.new(), []

    def leave() -> None:
        with side:
            sys.setprofile(at("call", "stop", HubThread.__exit__.__code__, lambda: entered.append(side.__enter__())))

    in_a_plain_thread(leave)
    assert not (entered and side.is_stopped)
    with pytest.raises(CallerStopped):
        side.__enter__()


class Kept(logging.Handler):
    """Keeps the records that it handles; raises for a record that asks for it."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() == "bad":
            int("provoked")
        self.heard.append(record.getMessage())


@pytest.fixture
def kept() -> Kept:
    return Kept()


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("example", logging.INFO, __file__, 1, text, (), None)


def test_a_record_on_its_way_when_the_router_is_closed_is_handled(kept: Kept, held: Gate) -> None:
    router = route_logging(kept)

    def log() -> None:
        sys.setprofile(at("c_call", "append", LogRouter.route.__code__, held))
        kept.handle(record("late"))

    logging_ = Native(log)
    held.wait_arrived()
    router.close()
    held.open()
    logging_.join()
    assert kept.heard == ["late"]


def test_a_failing_handler_holds_up_no_record(kept: Kept, hub_errors: list[str]) -> None:
    def log() -> None:
        for text in ("bad", "good"):
            kept.handle(record(text))

    with route_logging(kept):
        Native(log)
        until(lambda: kept.heard)
    assert kept.heard == ["good"]
    assert "provoked" in hub_errors.pop()


def test_a_job_finishes_while_a_trace_is_written(tmp_path: Path) -> None:
    with trace(tmp_path / "a.json") as seen:
        once_counted(greendata.run(int, label="first"))
        events = seen.events()
        found = [next(event for event in events if event["ph"] == "b")]
        once_counted(greendata.run(int, label="second"))
        found += events
    assert {event["name"] for event in found if event["ph"] == "b"} == {"first", "run"}


def test_a_rejected_submit_is_counted_once_by_two_concurrent_readers() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    before = registry.get_sample_value("greendata_jobs_rejected_total") or 0
    greendata.drain()
    with pytest.raises(greendata.PoolClosed):
        greendata.run(int)
    greendata.configure()
    sys.setprofile(at("call", "inc", Metrics._set_gauges.__code__, metrics.exposition))
    metrics.exposition()
    assert registry.get_sample_value("greendata_jobs_rejected_total") == before + 1
    metrics.close()
    greendata.observe.stop()


def test_a_second_signal_while_the_first_begins_the_end() -> None:
    told: list[Any] = []

    class Seconds:
        def __float__(self) -> float:
            drain.begin(0.0, told.append)
            return 60.0

    drain.begin(Seconds(), told.append)  # type: ignore[arg-type]
    gevent.sleep(0.01)
    drain.reset()
    greendata.configure()
    assert told == []
