"""Untrusted input in child processes: what crashes, hangs or fills the parser is an error of its own."""

from __future__ import annotations

import gzip
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import gevent
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from polars.exceptions import PanicException, PolarsError
from polars.testing import assert_frame_equal
from pydantic import BaseModel

import greendata
from greendata.errors import BadArgument, BadSetting, DeadlineExceeded, Malformed, TooCostly, WorkerDied
from greendata.formats.format import FORMATS, Format
from greendata.formats.isolation import Isolated, isolated_by, reading
from greendata.pool import pool
from greendata.pool.engine_setting import Isolation
from tests.formats.test_parquet_pages import PLAIN, file, page
from tests.support.child_tasks import abort, allocate_and_hold, exit_with, hold, hold_the_gil
from tests.support.gates import Gate
from tests.support.natives import until
from tests.support.rawservers import answer, serving

MIB = 1 << 20
DF = pl.DataFrame({"a": [1, 2, 3], "b": ["x", None, "z"]})


class Row(BaseModel):
    a: int
    b: str | None = None


class Extra(BaseModel, extra="allow"):
    a: int


class Marked(BaseModel):
    a: int | str


@pytest.fixture(scope="module")
def place() -> Isolated:
    return Isolated(Isolation(workers=1, memory_limit=400 * MIB, timeout=60.0))


@pytest.fixture
def isolate() -> Iterator[Callable[[bool | str], object]]:
    """Change the setting, and restore it after the test."""
    before = pool.shared.settings.isolate
    yield lambda value: greendata.configure(isolate=value)
    greendata.configure(isolate=before)


def read_in(place: Isolated, reader: Callable[..., Any], *args: Any, timeout: float | None = None) -> Any:
    """Read 4 bytes with *reader* in a child, from the pool."""
    submit = partial(pool.submit, label="read", timeout=timeout)
    work = lambda read: read(reader, b"body", "csv", *args)  # noqa: E731
    return reading(place, work, submit, label="read", timeout=timeout)


# Readers, for the children.


def read_frame(content: bytes) -> pl.DataFrame:
    return pl.DataFrame({"content": [content], "pid": [os.getpid()]})


def read_unchecked_bytes(_content: bytes, hostile: bytes) -> pl.DataFrame:
    return pl.read_parquet(BytesIO(hostile))


def read_timers(_content: bytes) -> pl.DataFrame:
    return pl.DataFrame({"during": [signal.getitimer(signal.ITIMER_REAL)[0]]})


def read_and(task: Callable[..., object]) -> Callable[..., pl.DataFrame]:
    return partial(_read_and, task)


def _read_and(task: Callable[..., object], _content: bytes, *args: Any) -> pl.DataFrame:
    task(*args)
    return pl.DataFrame()


# -- what it returns ----------------------------------------------------------------------------------------------

WHOLE: dict[str, tuple[Format, bytes]] = {
    **{name: (name, b"".join(greendata.encode(DF, name))) for name in FORMATS},
    "large csv": ("csv", b"a,b\n" + b"1,x\n" * 20_000),
    "large json": ("json", b'{"a":[' + b"1," * 20_000 + b'2],"b":["x",' + b"null," * 19_999 + b"null]}"),
    "no rows": ("json", b"[]"),
    "other values": ("json", b'[{"a": 1.0, "c": {"d": [1]}}, {"a": "2", "b": "x"}]'),
    "a marked value": ("ndjson", b'{"a":"\\t7"}\n'),
}
BROKEN: dict[str, tuple[Format, bytes]] = {
    "csv, a line too long": ("csv", b"a,b\n1,x\n1,2,3,4\n"),
    "csv, an open quote": ("csv", b'a,b\n1,"x\n'),
    "json, cut": ("json", b'[{"a": 1}, {"a"'),
    "json, of no rows": ("json", b"7"),
    "json, deep": ("json", b'[{"a": ' + b"[" * 500 + b"]" * 500 + b"}]"),
    "ndjson, a bad line": ("ndjson", b'{"a": 1}\n{"a": x}\n'),
    "arrow, cut": ("arrow", WHOLE["arrow"][1][:-20]),
    "parquet, cut": ("parquet", WHOLE["parquet"][1][:-9]),
    "parquet, garbled": ("parquet", WHOLE["parquet"][1].replace(b"PAR1", b"PAR2", 1)),
    "gzip": ("csv", gzip.compress(b"a\n1\n")),
}


def outcome(content: bytes, format: Format, **options: Any) -> Any:
    try:
        return greendata.decode(content, format, **options)
    except greendata.GreenDataError as error:
        failures = getattr(error, "failures", None)
        return type(error), str(error), None if failures is None else failures.to_dicts()


@pytest.mark.parametrize("model", [None, Row, Extra, Marked], ids=["no model", "Row", "Extra", "Marked"])
@pytest.mark.parametrize("name", [*WHOLE, *BROKEN])
def test_values_and_errors_are_those_of_a_thread(name: str, model: type | None) -> None:
    format, content = {**WHOLE, **BROKEN}[name]
    here, there = (outcome(content, format, model=model, isolate=isolate) for isolate in (False, True))
    if isinstance(here, pl.DataFrame):
        assert_frame_equal(there, here)
    else:
        assert there == here


def test_a_schema_and_the_options_of_csv_reach_the_child() -> None:
    schema = pl.Schema({"b": pl.String, "a": pl.Decimal(10, 2)})
    options: dict[str, Any] = {"separator": ";", "null_values": {"a": "-"}, "comment_prefix": "#", "encoding": "utf-16"}
    content = "# prices\na;b\n1.50;é\n-;\n".encode("utf-16")
    here, there = (greendata.decode(content, "csv", schema=schema, isolate=it, **options) for it in (False, True))
    assert_frame_equal(here, there)


def test_files_and_other_buffers_are_read_here() -> None:
    for source in (BytesIO(WHOLE["csv"][1]), bytearray(WHOLE["csv"][1]), memoryview(WHOLE["csv"][1])):
        assert_frame_equal(greendata.decode(source, "csv", isolate=True), DF)


# -- what ends a child ----------------------------------------------------------------------------------------------


def test_the_reader_runs_in_a_child_and_that_is_used_again(place: Isolated) -> None:
    first, second = (read_in(place, read_frame) for _ in range(2))
    assert first["content"].item() == b"body"
    assert first["pid"].item() == second["pid"].item() != os.getpid()


def test_a_crash_is_malformed_input(place: Isolated) -> None:
    with pytest.raises(Malformed, match=r"^not valid csv: it crashes the parser") as caught:
        read_in(place, read_and(abort))
    assert isinstance(caught.value.__cause__, WorkerDied)
    assert read_in(place, read_frame).height == 1


def test_input_that_hangs_the_parser_is_ended_by_an_alarm_even_if_it_holds_the_gil(tmp_path: Path) -> None:
    place = Isolated(Isolation(workers=1, timeout=0.2))
    with pytest.raises(TooCostly, match=r"^cannot read this csv: it takes more than 0\.2 seconds"):
        read_in(place, read_and(hold_the_gil), str(tmp_path / "pid"))


def test_input_that_fills_the_memory_is_too_costly(place: Isolated) -> None:
    with pytest.raises(TooCostly, match="it takes more than 419430400 bytes of memory"):
        read_in(place, read_and(allocate_and_hold), MIB, 450)


def test_the_alarm_does_not_outlive_the_reading(place: Isolated) -> None:
    left = read_in(place, read_timers)
    assert left["during"].item() > 0
    assert place._engine is not None
    assert place._engine.call(signal.getitimer, signal.ITIMER_REAL) == (0, 0)


def test_a_child_that_ends_for_another_reason_is_not_an_error_of_the_input(place: Isolated) -> None:
    with pytest.raises((WorkerDied, Malformed)) as caught:
        read_in(place, read_and(exit_with), 3)
    found = caught.value if isinstance(caught.value, WorkerDied) else caught.value.__cause__
    assert isinstance(found, WorkerDied)
    assert isinstance(caught.value, Malformed) is (found.status is None)  # gevent's handler of SIGCHLD may take it


def shared_prefixes(values: list[str]) -> bytes:
    """Return Parquet whose texts share prefixes: no header in the file says how long they are."""
    table = pa.table({"a": values})
    written = BytesIO()
    encoding = {"a": "DELTA_BYTE_ARRAY"}
    pq.write_table(table, written, use_dictionary=False, column_encoding=encoding, write_statistics=False)
    return written.getvalue()


def test_text_with_shared_prefixes_is_bounded_by_the_child_alone(isolate: Callable[[str], object]) -> None:
    """Without a child, such text is rejected if it may be too long."""
    urls = [f"https://example.com/products/{number:06}" for number in range(20_000)]
    content = shared_prefixes(urls)
    with pytest.raises(Malformed, match=r"20000 values in a page share prefixes, .* read it with isolate=True"):
        greendata.decode(content, "parquet")
    assert greendata.decode(content, "parquet", isolate=True)["a"].to_list() == urls
    text = "x" * MIB
    content = shared_prefixes([text + str(number) for number in range(250)])  # 250 MiB of text
    assert len(content) < 4 * MIB
    isolate("memory_limit=150MiB,timeout=120")
    with pytest.raises(TooCostly, match="takes more than 157286400 bytes of memory"):
        greendata.decode(content, "parquet")
    pages = {"/a.parquet": answer(content, "application/vnd.apache.parquet")}
    with serving(pages) as server, pytest.raises(TooCostly, match="takes more than 157286400 bytes of memory"):
        greendata.read_parquet_url(server.url + "/a.parquet", allow_private=True).get()


UNCHECKED = {
    "a negative count": file(page(b"\1\0\0\0", -1)),
    "a huge count": file(page(b"\1\0\0\0", 1, kind=2), PLAIN, values=1 << 38),
    "wide values": file(page(b"\1" * 100, 1 << 20), width=1 << 20),
}


@pytest.mark.parametrize("name", UNCHECKED)
def test_without_the_checks_the_child_is_enough(place: Isolated, name: str) -> None:
    """Some of these abort the process that reads them."""
    with pytest.raises((Malformed, PolarsError, PanicException)):
        read_in(place, read_unchecked_bytes, UNCHECKED[name])
    assert read_in(place, read_frame).height == 1


def test_bodies_of_urls(isolate: Callable[[str], object]) -> None:
    types = {"csv": "text/csv", "ndjson": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}
    pages = {f"/a.{name}": answer(WHOLE[name][1], kind) for name, kind in types.items()}
    isolate("on")
    with serving(pages) as server:
        for name in types:
            url, verb = f"{server.url}/a.{name}", getattr(greendata, f"read_{name}_url")
            for options in ({}, {"model": Row}, {"n_rows": 2}, {"n_rows": 2, "model": Row}):
                here, there = (verb(url, allow_private=True, isolate=it, **options).get() for it in (False, None))
                assert_frame_equal(here, there)
        with pytest.raises(BadArgument):
            greendata.read_csv_url(server.url, isolate=1.5)  # type: ignore[arg-type]


# -- slots, deadlines, cancels --------------------------------------------------------------------------------------


def test_readers_that_wait_for_a_child_leave_the_workers_to_others(tmp_path: Path) -> None:
    place = Isolated(Isolation(workers=1))
    holder = gevent.spawn(read_in, place, read_and(hold), str(tmp_path / "pid"))
    until((tmp_path / "pid").exists)
    waiting = [gevent.spawn(read_in, place, read_frame) for _ in range(10)]
    assert greendata.run(sum, [1, 2]).get() == 3
    assert greendata.stats().running <= 2
    holder.kill()
    assert [each.get().height for each in waiting] == [1] * 10
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not Path(f"/proc/{pid}").exists())


def test_a_job_that_waits_for_a_child_leaves_its_worker_to_the_reader_that_has_it() -> None:
    """The job has the only worker. The greenlet has the only child, and the job that reads waits for the worker."""
    place = Isolated(Isolation(workers=1))
    gate = Gate()
    workers = greendata.configure().max_workers
    greendata.configure(max_workers=1)
    try:
        job = greendata.run(lambda: (gate(), read_in(place, read_frame))[1])
        gate.wait_arrived()
        reading = gevent.spawn(read_in, place, read_frame)
        until(lambda: greendata.stats().queued)
        gate.open()
        assert job.get().height == reading.get().height == 1
    finally:
        gate.open()
        greendata.configure(max_workers=workers)


def test_a_deadline_ends_the_wait_for_a_child(tmp_path: Path) -> None:
    place = Isolated(Isolation(workers=1))
    holder = gevent.spawn(read_in, place, read_and(hold), str(tmp_path / "pid"))
    until((tmp_path / "pid").exists)
    with pytest.raises(DeadlineExceeded, match=r"^read had not begun at its deadline of 0\.01 seconds"):
        read_in(place, read_frame, timeout=0.01)
    with greendata.deadline(0.01), pytest.raises(DeadlineExceeded, match="the deadline of the block around it"):
        read_in(place, read_frame)
    holder.kill()
    assert read_in(place, read_frame).height == 1


def test_a_native_thread_and_a_job_may_decode(place: Isolated) -> None:
    decode = partial(greendata.decode, WHOLE["csv"][1], "csv", isolate=True)
    assert_frame_equal(greendata.run(decode).get(), DF)


# -- the setting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("1", Isolation()),
        ("on", Isolation()),
        ("workers=3", Isolation(workers=3)),
        ("memory_limit=2GB, timeout=0.5", Isolation(memory_limit=2 * 10**9, timeout=0.5)),
        ("off", None),
        ("", None),
    ],
)
def test_texts(text: str, limits: Isolation | None) -> None:
    settings = greendata.pool.settings.Settings.from_environment({"GREENDATA_ISOLATE": text})
    assert greendata.pool.engine_setting.isolation("isolate", settings.isolate) == limits


@pytest.mark.parametrize("value", ["maybe", "workers=0", "timeout=0", "timeout=nan", "memory_limit=1MB", "limit=5", 3])
def test_a_setting_that_means_nothing_is_an_error(value: Any) -> None:
    with pytest.raises(BadSetting):
        greendata.configure(isolate=value)


def test_the_argument_is_checked() -> None:
    with pytest.raises(BadArgument, match="isolate must be True, False, or None for the setting, got 'yes'"):
        greendata.decode(b"", "csv", isolate="yes")  # type: ignore[arg-type]


def test_the_setting_is_the_default_of_the_argument(isolate: Callable[[str], object]) -> None:
    isolate("timeout=50")
    assert isolated_by(None) is isolated_by(True) is not None
    assert isolated_by(False) is None
