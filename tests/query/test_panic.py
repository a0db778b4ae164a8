"""A panic in Polars' Rust code is raised like any other error, and the pool continues."""

from __future__ import annotations

import io

import gevent
import polars as pl
import pytest
from polars.exceptions import PanicException

import greendata
from greendata import JobAborted
from tests.support.frames import ROWS
from tests.support.processes import run_python

# Polars 2 has no reader for so small a number in NDJSON, and panics.
LINES = b'{"a": 1}\n'
SMALL = {"a": pl.UInt8}

# With POLARS_PANIC_ON_ERR=1 every error that Polars makes is a panic, in every engine.
FORCED = """
import gevent, greendata, polars as pl
from polars.exceptions import PanicException
from tests.support.natives import until

gevent.get_hub()
wrong, right = pl.LazyFrame({"a": [1]}).select("b"), pl.LazyFrame({"a": [1, 2]})
for engine in ("in-memory", "streaming"):
    try:
        greendata.collect(wrong, engine=engine).get(timeout=60)
    except greendata.JobAborted as aborted:
        print("verb", type(aborted.__cause__) is PanicException)
greendata.patch_polars()
for engine in ("in-memory", "streaming"):
    try:
        wrong.collect(engine=engine)
    except PanicException as panic:
        print("patched", panic.__cause__, panic.__context__)
print([right.collect().height for _ in range(8)])
until(lambda: not greendata.stats().running)  # a waiter may get the outcome before it is counted
print(greendata.stats().failed, greendata.stats().running, greendata.stats().abandoned)
"""


@pytest.fixture(autouse=True)
def _usable_afterwards(capfd: pytest.CaptureFixture[str]) -> object:
    """Each worker responds after any panic. The output comes from Rust's panic hook."""
    yield
    capfd.readouterr()
    workers = greendata.configure().max_workers
    assert [result.get().height for result in [greendata.collect(ROWS.lazy()) for _ in range(2 * workers)]]


def test_a_verb_fails_with_the_panic_as_its_cause() -> None:
    result = greendata.read_ndjson(io.BytesIO(LINES), schema_overrides=SMALL, label="upload 7")
    with pytest.raises(JobAborted, match="upload 7 ended with PanicException: unexpected dtype") as caught:
        result.get()
    assert type(caught.value.__cause__) is PanicException
    assert isinstance(caught.value, Exception)
    assert (result.status, result.successful()) == ("failed", False)


def test_a_failed_greenlet_does_not_end_its_neighbours() -> None:
    def answer() -> str:
        try:
            greendata.read_ndjson(io.BytesIO(LINES), schema_overrides=SMALL).get()
        except Exception as error:  # noqa: BLE001 - as a server's handler does
            return type(error).__name__
        return "nothing"

    jobs = [gevent.spawn(answer) for _ in range(20)]
    gevent.joinall(jobs)
    assert [job.value for job in jobs] == ["JobAborted"] * 20


def test_under_the_patch_the_panic_itself_is_raised() -> None:
    gevent.get_hub()
    greendata.patch_polars()
    try:
        with pytest.raises(PanicException, match="unexpected dtype") as caught:
            pl.read_ndjson(io.BytesIO(LINES), schema_overrides=SMALL)
    finally:
        greendata.unpatch_polars()
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def test_every_engine_may_panic() -> None:
    finished = run_python(FORCED, env={"POLARS_PANIC_ON_ERR": "1"})
    assert finished.returncode == 0, finished.stderr
    lines = finished.stdout.splitlines()
    assert lines[:4] == ["verb True"] * 2 + ["patched None None"] * 2
    assert lines[4:] == ["[2, 2, 2, 2, 2, 2, 2, 2]", "4 0 0"]
