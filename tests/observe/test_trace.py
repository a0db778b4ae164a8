"""Traces in Chrome's format."""

from __future__ import annotations

import json
import resource
from collections import Counter
from pathlib import Path
from typing import Any

import gevent
import pytest

import greendata
from greendata.errors import BadArgument
from greendata.observe import trace as trace_module
from greendata.observe.trace import trace
from greendata.pool import job as jobs
from tests.conftest import Gate
from tests.support.frames import crowded
from tests.support.natives import once_counted, until


def events_of(path: Path) -> list[dict[str, Any]]:
    whole = json.loads(path.read_text(encoding="utf-8"))
    assert whole.keys() == {"displayTimeUnit", "otherData", "traceEvents"}
    found: list[dict[str, Any]] = whole["traceEvents"]
    return found


def check_format(events: list[dict[str, Any]]) -> None:
    """Assert what the format requires of each kind of event."""
    opened: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for event in events:
        assert {"ph", "name", "pid", "tid"} <= event.keys()
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if event["ph"] == "M":
            assert event["name"] in {"process_name", "thread_name"}
            assert isinstance(event["args"]["name"], str)
            continue
        assert event["ts"] >= 0
        if event["ph"] == "C":
            assert all(isinstance(value, int | float) for value in event["args"].values())
            continue
        stack = opened.setdefault((event["cat"], event["id"]), [])
        if event["ph"] == "b":
            stack.append(event)
        else:
            assert event["ph"] == "e"
            begin = stack.pop()
            assert begin["name"] == event["name"]
            assert begin["ts"] <= event["ts"]
    assert not any(opened.values()), "every slice that begins has its end"


def fail() -> None:
    raise ValueError("a value of the data: cake of mine")


def test_jobs_are_slices_on_the_tracks_of_their_workers(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    with trace(path) as seen:
        results = [greendata.run(int, label="quick"), greendata.run(fail, label="broken")]
        for result in results:
            once_counted(result)
        until(lambda: any(event["ph"] == "C" for event in seen.events()))
        assert not path.exists()
    events = events_of(path)
    check_format(events)
    threads = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    begins = {event["name"]: event for event in events if event["ph"] == "b" and event["name"] != "run"}
    assert {name: event["args"]["status"] for name, event in begins.items()} == {"quick": "done", "broken": "failed"}
    for result, name in zip(results, ("quick", "broken"), strict=True):
        assert threads[begins[name]["tid"]] == begins[name]["args"]["worker"] == result.worker
    assert Counter(event["ph"] for event in events if event["ph"] in "be") == {"b": 4, "e": 4}
    assert {event["name"] for event in events if event["ph"] == "C"} == {"hub lag", "jobs"}
    assert "cake of mine" not in path.read_text(encoding="utf-8")


def test_what_still_runs_ends_with_the_trace(tmp_path: Path, held: Gate) -> None:
    path = tmp_path / "out.json"
    with trace(path):
        running = greendata.run(held, label="long")
        held.wait_arrived()
    held.open()
    running.get(timeout=10)
    events = events_of(path)
    check_format(events)
    assert [event["args"]["status"] for event in events if event["name"] == "long" and event["ph"] == "b"] == [
        "running"
    ]


def test_an_abandoned_job_is_traced_once(tmp_path: Path, held: Gate) -> None:
    path = tmp_path / "out.json"
    with trace(path) as seen:
        greendata.run(held, label="long").cancel()
        until(lambda: any(event["name"] == "long" for event in seen.events()))
    held.open()
    events = events_of(path)
    check_format(events)
    assert sum(event["name"] == "long" for event in events) == 2


def test_memory_is_bounded_and_what_is_dropped_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_module, "JOBS", 3)
    path = tmp_path / "out.json"
    with trace(path) as seen:
        for number in range(5):
            once_counted(greendata.run(int, label=f"job {number}"))
        assert seen.dropped == 2
    check_format(events_of(path))
    assert json.loads(path.read_text(encoding="utf-8"))["otherData"] == {"jobs_dropped": 2}
    labels = {event["name"] for event in events_of(path) if event["ph"] == "b"}
    assert labels == {"job 2", "job 3", "job 4", "run"}


def test_an_error_in_the_block_leaves_a_complete_file_and_is_raised(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    with pytest.raises(ValueError, match="cake of mine"), trace(path):
        greendata.run(fail, label="before").get(timeout=10)
    check_format(events_of(path))
    assert not jobs.listeners


def test_a_file_that_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("before", encoding="utf-8")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OSError, match="File too large"), trace(path):
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text(encoding="utf-8") == "before"
    assert list(tmp_path.iterdir()) == [path]
    assert not jobs.listeners


def test_it_is_written_by_a_native_thread(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    with trace(path):
        pass
    before = path.read_text(encoding="utf-8")
    with crowded(), trace(path):
        greendata.stats()
    assert path.read_text(encoding="utf-8") != before


def test_a_drained_pool_takes_no_trace_away(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    try:
        with trace(path):
            once_counted(greendata.run(int, label="last"))
            greendata.drain()
    finally:
        greendata.configure()
    assert "last" in {event["name"] for event in events_of(path)}


def test_a_path_that_cannot_be_written_is_refused_at_the_call(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere" / "out.json"):
        with pytest.raises(BadArgument, match="path must be a file in an existing writable folder"), trace(path):
            pytest.fail("the block was entered")
    assert not jobs.listeners


def test_the_hub_goes_on_while_a_long_trace_is_written(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    turns: list[int] = []

    def count() -> None:
        while True:
            turns.append(0)
            gevent.sleep(0.0005)

    seen = trace_module.Trace(path)
    greendata.run(int, label="job").get(timeout=10)
    seen._slices.extend([trace_module._Slice("job", "done", "greendata-0", 0.0, 0.0, 1.0)] * 20_000)
    ticker = gevent.spawn(count)
    seen.write()
    ticker.kill()
    assert len(turns) > 5
    assert len(events_of(path)) == 80_002
