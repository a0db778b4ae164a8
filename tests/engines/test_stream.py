"""Batches of a query in a child, and every way in which Polars calls an engine: each works there or says why not."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import gevent
import polars as pl
import pytest
from polars.io.plugins import register_io_source
from polars.testing import assert_frame_equal

import greendata
from greendata.engines import child_pool
from greendata.engines.child_pool import ChildPool
from greendata.engines.messages import close_all
from greendata.engines.plans import pack_object, unpack_object
from greendata.engines.process import ProcessEngine
from greendata.errors import (
    AsyncFunction,
    BatchesBusy,
    DeadlineExceeded,
    JobCancelled,
    NotCallable,
    NotSendable,
    WorkerDied,
)
from greendata.hub import native
from tests.engines.test_process import every_dtype, is_gone, pid_in
from tests.support.child_tasks import held_query, hold
from tests.support.frames import killed_before_it_hears
from tests.support.gates import Gate, open_from_hub, rest
from tests.support.natives import TIMEOUTS, Native, until
from tests.support.races import at

T = TypeVar("T")

NUMBERS = pl.LazyFrame().select(a=pl.int_range(100_000))


@pytest.fixture(scope="module")
def engine() -> Iterator[ProcessEngine]:
    with ProcessEngine(workers=2) as made:
        yield made


@pytest.fixture
def one() -> Iterator[ProcessEngine]:
    with ProcessEngine(workers=1) as made:
        yield made


def free(engine: ProcessEngine) -> bool:
    return not (engine._children.busy or engine._children.aside)


def pulled(path: str, rows: int) -> pl.LazyFrame:
    """Return a query of which each batch of *rows* leaves a mark when it is computed, and which never ends."""

    def mark(series: pl.Series) -> Any:
        Path(path, str(series[0])).touch()
        return series

    many = pl.LazyFrame().select(a=pl.int_range(rows * 10_000))
    return many.select(pl.col("a").map_batches(mark, return_dtype=pl.Int64, is_elementwise=True))


# -- batches ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", [None, 7, 30_000])
def test_batches_are_those_of_polars(engine: ProcessEngine, chunk_size: int | None) -> None:
    """Small ones travel in messages, those of 30 000 rows in files."""
    query = NUMBERS if chunk_size != 7 else NUMBERS.head(100)
    expected = [batch.height for batch in query.collect_batches(chunk_size=chunk_size)]
    with greendata.batches(query, engine=engine, chunk_size=chunk_size) as stream:
        batches = list(stream)
    assert_frame_equal(pl.concat(batches), query.collect())
    assert chunk_size is None or [batch.height for batch in batches] == expected
    assert free(engine)


def test_batches_have_every_dtype(engine: ProcessEngine) -> None:
    frame = every_dtype(5000)
    batches = list(frame.lazy().collect_batches(engine=engine, chunk_size=1000))
    assert_frame_equal(pl.concat(batches), frame, categorical_as_str=True)


def test_a_stream_keeps_the_shared_frames_of_its_query(engine: ProcessEngine) -> None:
    """Nothing else refers to the query when the child asks for the frame, with the first batch."""
    frame = pl.DataFrame({"a": range(100_000)})
    assert_frame_equal(pl.concat(engine.share(frame).collect_batches(engine=engine)), frame)
    assert_frame_equal(pl.concat(greendata.batches(engine.share(frame), engine=engine)), frame)


def test_the_child_of_a_stream_that_has_ended_is_used_again(one: ProcessEngine) -> None:
    pid = one.call(os.getpid)
    assert rows_in(NUMBERS.collect_batches(engine=one, chunk_size=50_000)) == 100_000
    assert list(NUMBERS.filter(pl.col("a") < 0).collect_batches(engine=one)) == []
    assert one.call(os.getpid) == pid


def test_the_child_computes_a_bounded_number_of_batches_in_advance(one: ProcessEngine, tmp_path: Path) -> None:
    """Unread, a query of 10 000 batches does not go on: the number of marks stays where it is."""
    stream = pulled(str(tmp_path), 1000).collect_batches(engine=one, chunk_size=1000)
    next(stream)
    pid = next(iter(one._children.aside)).pid
    sleeps = 0
    while sleeps < 100:  # all its threads wait: for the next request, and for room
        sleeps = sleeps + 1 if all_threads_sleep(pid) else 0
        rest()
    marks = len(list(tmp_path.iterdir()))
    assert 0 < marks < 2000
    next(stream)
    stream.close()
    until(lambda: is_gone(pid))


def pid_of_what_is_out_of_time(start: Callable[[float], object], path: Path) -> int:
    """Call *start* with longer and longer deadlines, until its work has begun and written its process id to *path*."""
    for timeout in TIMEOUTS:
        with pytest.raises(DeadlineExceeded):
            start(timeout)
        if path.exists():
            return pid_in(path)
    raise AssertionError("no child began")


def all_threads_sleep(pid: int) -> bool:
    with suppress(OSError):
        stats = [(task / "stat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
        return all(stat.rpartition(")")[2].split()[0] == "S" for stat in stats)
    return False


@pytest.mark.parametrize("end", ["close", "drop", "break"])
def test_an_unfinished_stream_ends_with_its_child(one: ProcessEngine, tmp_path: Path, end: str) -> None:
    stream = greendata.batches(pulled(str(tmp_path), 1000), engine=one, chunk_size=1000)
    assert next(stream).height == 1000
    (child,) = one._children.aside
    if end == "close":
        stream.close()
    elif end == "break":
        with stream:
            for _ in stream:
                break
    else:
        del stream
        gc.collect()
    until(lambda: is_gone(child.pid))
    until(lambda: free(one))
    assert one.call(abs, -1) == 1


def rows_in(batches: Iterator[pl.DataFrame]) -> int:
    """Return the number of rows. That of batches differs: Polars may make smaller ones on a busy machine."""
    return sum(batch.height for batch in batches)


def test_a_slow_consumer_keeps_nobody_waiting(one: ProcessEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even itself, when it runs a query for each batch: there is one place, and its stream would have it."""
    monkeypatch.setattr(child_pool, "MOST_ASIDE", 2)
    streams = [NUMBERS.collect_batches(engine=one, chunk_size=50_000) for _ in range(3)]
    first = []
    for stream in streams:
        place = one if stream is not streams[2] else "auto"
        first.append(next(stream).lazy().select(pl.len()).collect(engine=place).item())
    waiting = greendata.run(one.call, abs, -1)  # the third stream has the place
    until(lambda: one._children.waiting)
    assert first[2] + rows_in(streams[2]) == 100_000
    assert waiting.get() == 1
    assert [first[number] + rows_in(streams[number]) for number in range(2)] == [100_000] * 2
    assert free(one)
    assert len(one._children.idle) == 2  # one and a spare one: the others have ended


def test_a_wait_that_is_interrupted_ends_the_stream(one: ProcessEngine) -> None:
    """The batch has arrived, and the hub has not brought it back: the next batch would not be the one that follows."""
    stream = NUMBERS.collect_batches(engine=one, chunk_size=1000)
    assert isinstance(killed_before_it_hears(next, stream), gevent.GreenletExit)
    assert list(stream) == []
    until(lambda: free(one))


def test_a_stream_is_dropped_by_a_thread_that_starts_a_child(one: ProcessEngine) -> None:
    """The garbage collector runs anywhere: the thread has the lock that is needed to give the child back."""

    def collect_then(work: Callable[[], T]) -> T:
        sys.setprofile(at("call", "_start", ChildPool._take.__code__, gc.collect))
        try:
            return work()
        finally:
            sys.setprofile(None)

    stream = NUMBERS.collect_batches(engine=one, chunk_size=1000)
    next(stream)
    (child,) = one._children.aside
    cycle: list[Any] = [stream]
    cycle.append(cycle)
    for each in one._children.idle:
        os.kill(each.pid, signal.SIGKILL)
    until(lambda: not any(each.is_alive for each in one._children.idle))
    gc.disable()
    try:
        del stream, cycle
        assert greendata.run(collect_then, partial(one.call, abs, -1)).get() == 1
    finally:
        gc.enable()
    until(lambda: is_gone(child.pid))
    until(lambda: free(one))


def test_a_wait_for_a_child_is_given_up_by_a_thread_that_starts_one(one: ProcessEngine, tmp_path: Path) -> None:
    """As above: what is dropped waits for a child."""
    running = greendata.run(one.call, hold, str(tmp_path / "pid"))
    pid_in(tmp_path / "pid")
    waiting = greendata.run(one.call, abs, -1)
    until(lambda: one._children.waiting)
    with one._children._lock:
        assert waiting.cancel()
    with pytest.raises(JobCancelled):
        waiting.get()
    running.cancel_wait()
    assert one.call(abs, -2) == 2


def test_a_stream_that_is_closed_while_it_waits_ends_with_its_child(one: ProcessEngine, tmp_path: Path) -> None:
    stream = held_query(str(tmp_path / "pid")).collect_batches(engine=one)
    waiting = greendata.run(next, stream)
    pid = pid_in(tmp_path / "pid")
    with pytest.raises(BatchesBusy):
        next(stream)
    stream.close()
    with pytest.raises(JobCancelled):
        waiting.get()
    assert is_gone(pid)
    assert list(stream) == []


def test_the_deadline_of_a_stream_ends_its_child(one: ProcessEngine, tmp_path: Path) -> None:

    def first(timeout: float) -> pl.DataFrame:
        return next(greendata.batches(held_query(str(tmp_path / "pid")), engine=one, timeout=timeout))

    pid = pid_of_what_is_out_of_time(first, tmp_path / "pid")
    until(lambda: is_gone(pid))
    until(lambda: free(one))


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_a_child_that_ends_between_two_batches_is_an_error(one: ProcessEngine, blow: int) -> None:
    stream = NUMBERS.collect_batches(engine=one, chunk_size=1000)
    next(stream)
    (child,) = one._children.aside
    os.kill(child.pid, blow)
    with pytest.raises(WorkerDied):
        for _ in stream:
            pass
    assert is_gone(child.pid)
    assert one.call(abs, -1) == 1


def test_closing_the_engine_ends_its_streams(tmp_path: Path) -> None:
    engine = ProcessEngine(workers=1)
    stream = NUMBERS.collect_batches(engine=engine, chunk_size=1000)
    next(stream)
    (child,) = engine._children.aside
    engine.close()
    assert is_gone(child.pid)
    with pytest.raises(WorkerDied):
        next(stream)
    assert list(stream) == []


def test_errors_in_the_middle_of_a_stream_are_raised(one: ProcessEngine) -> None:
    """Polars' own iterator ends as if it were complete where a query panics."""

    def fail(series: pl.Series) -> Any:
        if series[0] >= 50_000:
            raise ZeroDivisionError("in the middle")
        return series

    query = NUMBERS.select(pl.col("a").map_batches(fail, return_dtype=pl.Int64, is_elementwise=True))
    pid = one.call(os.getpid)
    with pytest.raises((pl.exceptions.ComputeError, ZeroDivisionError), match="in the middle"):
        list(query.collect_batches(engine=one, chunk_size=1000))
    assert one.call(os.getpid) == pid
    with pytest.raises(pl.exceptions.ColumnNotFoundError):
        list(NUMBERS.select("zz").collect_batches(engine=one))


def test_a_stream_of_any_engine_by_factory(tmp_path: Path) -> None:
    with ProcessEngine(workers=1, inner="polars:InMemoryEngine") as engine:
        assert sum(batch.height for batch in NUMBERS.collect_batches(engine=engine, chunk_size=30_000)) == 100_000


def test_a_stream_is_an_arrow_stream(engine: ProcessEngine) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    stream = NUMBERS.collect_batches(engine=engine, chunk_size=30_000)
    assert pl.from_arrow(pyarrow.RecordBatchReader.from_stream(stream).read_all()).equals(NUMBERS.collect())  # type: ignore[union-attr]
    with greendata.batches(NUMBERS.filter(pl.col("a") < 0), engine=engine) as empty:
        assert pyarrow.RecordBatchReader.from_stream(empty).read_all().schema.names == ["a"]


# -- functions ----------------------------------------------------------------------------------------------


def test_run_calls_a_function_in_a_child(engine: ProcessEngine) -> None:
    result = greendata.run(sorted, [2, 1], reverse=True, engine=engine, label="sorting")
    assert (result.get(), result.label) == ([2, 1], "sorting")
    assert greendata.run(os.getpid, engine=engine).get() != os.getpid()
    assert greendata.run(os.getpid, engine=greendata.GreenEngine(engine)).get() != os.getpid()


def test_what_is_not_a_function_is_refused_at_the_call(engine: ProcessEngine) -> None:
    async def later() -> None: ...

    with pytest.raises(NotCallable):
        engine.call("sorted", [2, 1])  # type: ignore[arg-type]
    with pytest.raises(AsyncFunction):
        engine.call(later)


def test_lambdas_and_functions_of_the_program_run_in_a_child(engine: ProcessEngine) -> None:
    pytest.importorskip("cloudpickle")
    factor = 3
    assert greendata.run(lambda number: number * factor, 2, engine=engine).get() == 6
    threes = pl.col("a").map_elements(lambda number: factor if number else 0, return_dtype=pl.Int64)
    assert greendata.collect(NUMBERS.head(3).select(threes), engine=engine).get()["a"].to_list() == [0, 3, 3]


def test_without_cloudpickle_functions_that_can_be_imported_run(one: ProcessEngine, monkeypatch: Any) -> None:
    from greendata.engines import plans

    plans._pickler.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "cloudpickle", None)
    try:
        assert greendata.run(os.path.basename, "a/b", engine=one).get() == "b"
        with pytest.raises(NotSendable, match=r"pip install 'greendata\[process\]'"):
            greendata.run(lambda: 1, engine=one).get()
        with pytest.raises(NotSendable, match=r"lock[^;]*$"):  # cloudpickle would not help
            greendata.run(len, native.allocate_lock(), engine=one).get()
        udf = NUMBERS.select(pl.col("a").map_elements(lambda number: number, return_dtype=pl.Int64))
        with pytest.raises(NotSendable, match=r"pip install 'greendata\[process\]'"):
            greendata.collect(udf, engine=one).get()
    finally:
        plans._pickler.cache_clear()


def test_frames_in_arguments_and_values_travel_beside_the_pickle(
    engine: ProcessEngine, keeps_descriptors: Callable[[], AbstractContextManager[None]]
) -> None:
    large, small = NUMBERS.collect(), pl.DataFrame({"b": [1]})
    found = greendata.run(swapped, large, {"small": small}, engine=engine).get()
    assert_frame_equal(found["large"], large)
    assert_frame_equal(found["small"][0], small)
    assert greendata.run(rows_of, engine.share(large), engine=engine).get() == 100_000
    gc.collect()  # the shared frame
    with keeps_descriptors():
        assert len(greendata.run(many_frames, large, 300, engine=engine).get()) == 300


def swapped(large: pl.DataFrame, rest: dict[str, pl.DataFrame]) -> dict[str, Any]:
    return {"large": large, "small": [rest["small"]]}


def rows_of(lf: pl.LazyFrame) -> int:
    return lf.collect().height


def many_frames(frame: pl.DataFrame, number: int) -> list[pl.DataFrame]:
    return [frame.head(10_000) for _ in range(number)]


def test_large_bytes_travel_in_files_once_each(
    engine: ProcessEngine, keeps_descriptors: Callable[[], AbstractContextManager[None]]
) -> None:
    """More than a message may have; a body that is there twice is one object, as pickle makes it."""
    bodies = [bytes([number % 256]) * (64 * 1024 + number) for number in range(300)]
    greendata.run(abs, -1, engine=engine).get()  # it has a process now
    frame = NUMBERS.collect()  # and Polars its own descriptors
    with keeps_descriptors():
        found = greendata.run(reversed_twice, {"bodies": bodies, "short": b"x"}, engine=engine).get()
        assert found == (bodies[::-1] * 2, b"x")
        assert found[0][0] is found[0][300]
        same, other = greendata.run(tuple, [frame] * 2, engine=engine).get()
        assert same is other


def reversed_twice(given: dict[str, Any]) -> tuple[list[bytes], bytes]:
    return given["bodies"][::-1] * 2, given["short"]


def test_the_hub_runs_while_a_large_value_is_unpickled() -> None:
    """A job waits between two pieces until the hub opens the gate."""
    value = [{"a": number} for number in range(100_000)]
    packed, files = pack_object(value)
    gate = Gate()

    def unpack() -> Any:
        sys.setprofile(at("call", "peek", unpack_object.__code__, gate))
        try:
            return unpack_object(packed, files)
        finally:
            sys.setprofile(None)
            close_all(files)

    opening = open_from_hub(gate)
    assert greendata.run(unpack).get() == value
    opening.join()


def test_a_cancel_ends_the_function_with_its_process(one: ProcessEngine, tmp_path: Path) -> None:
    result = greendata.run(hold, str(tmp_path / "a"), engine=one)
    pid = pid_in(tmp_path / "a")
    assert result.cancel_wait() is True
    assert is_gone(pid)


def test_a_deadline_ends_the_function_with_its_process(one: ProcessEngine, tmp_path: Path) -> None:
    def held(timeout: float) -> None:
        late = greendata.run(hold, str(tmp_path / "pid"), engine=one, timeout=timeout)
        late.wait()
        late.end().get()
        late.get()

    assert is_gone(pid_of_what_is_out_of_time(held, tmp_path / "pid"))


@pytest.mark.parametrize("engine", ["streaming", pl.InMemoryEngine(), greendata.GreenEngine("in-memory"), 7])
def test_engines_that_run_no_functions_are_refused_at_the_call(engine: Any) -> None:
    with pytest.raises(greendata.errors.RunsNoFunctions, match="ProcessEngine"):
        greendata.run(abs, -1, engine=engine)


def test_a_function_that_takes_an_engine_gets_it() -> None:
    assert greendata.run(NUMBERS.collect, engine="in-memory").get().height == 100_000
    assert greendata.run(pl.collect_all, [NUMBERS], engine="streaming").get()[0].height == 100_000


def test_errors_of_a_call_are_those_of_a_call(engine: ProcessEngine) -> None:
    with pytest.raises(greendata.errors.NotCallable):
        greendata.run(7, engine=engine)  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        greendata.run(abs, engine=engine).get()
    with pytest.raises(NotSendable, match="object"):
        greendata.run(objects, engine=engine).get()
    with pytest.raises(NotSendable, match="value that the function has returned") as caught:
        greendata.run(numbers, engine=engine).get()
    assert not any("Traceback" in note for note in caught.value.__notes__)


def numbers() -> Iterator[int]:
    yield 1


def test_an_error_tells_where_the_functions_of_the_user_raised_it(engine: ProcessEngine) -> None:
    """A pickle has no traceback and no cause. The lines of Polars and of greendata say nothing."""
    queries = NUMBERS.select(pl.col("a").map_batches(divided, return_dtype=pl.Int64))
    for work in (lambda: engine.call(divided, 0), lambda: queries.collect(engine=engine)):
        with pytest.raises(ValueError, match="no divisor") as caught:
            work()
        (note,) = caught.value.__notes__
        assert note.startswith("in the other process: Traceback (most recent call last):\n")
        assert "in divided\n    return 1 // 0\n" in note
        assert "\nZeroDivisionError: " in note
        assert note.endswith("ValueError: no divisor")
        assert "greendata/engines" not in note
        assert "polars" not in note
    with pytest.raises(pl.exceptions.ColumnNotFoundError) as missing:
        NUMBERS.select("zz").collect(engine=engine)
    assert not hasattr(missing.value, "__notes__")


def divided(_: object) -> int:
    try:
        return 1 // 0
    except ZeroDivisionError as error:
        raise ValueError("no divisor") from error


def objects() -> pl.DataFrame:
    return pl.DataFrame({"a": [object()]}, schema={"a": pl.Object})


# -- every way in -------------------------------------------------------------------------------------------


def test_sinks_write_what_they_write_in_process(engine: ProcessEngine, tmp_path: Path) -> None:
    lf = pl.LazyFrame({"a": [1, 2], "b": ["x", None]})
    for name in ("sink_csv", "sink_ipc", "sink_ndjson", "sink_parquet"):
        getattr(lf, name)(tmp_path / "here")
        getattr(lf, name)(tmp_path / "there", engine=engine)
        assert (tmp_path / "here").read_bytes() == (tmp_path / "there").read_bytes()
        getattr(lf, name)(tmp_path / "lazy", lazy=True).collect(engine=engine)
        assert (tmp_path / "here").read_bytes() == (tmp_path / "lazy").read_bytes()
    sinks = [lf.sink_csv(tmp_path / "1", lazy=True), lf.sink_csv(tmp_path / "2", lazy=True)]
    pl.collect_all(sinks, engine=engine)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes() == b"a,b\n1,x\n2,\n"
    lf.sink_parquet(pl.PartitionBy(tmp_path / "parts", key="a"), mkdir=True, engine=engine)
    assert pl.read_parquet(tmp_path / "parts").height == 2


def test_relative_paths_are_those_of_the_server(one: ProcessEngine, tmp_path: Path, monkeypatch: Any) -> None:
    assert one.call(abs, -1) == 1
    monkeypatch.chdir(tmp_path)
    NUMBERS.sink_csv("numbers.csv", engine=one)
    assert pl.scan_csv("numbers.csv").collect(engine=one).height == 100_000
    assert (tmp_path / "numbers.csv").exists()


def test_the_other_methods_of_an_engine(engine: ProcessEngine) -> None:
    query = NUMBERS.select(pl.col("a").sum())
    expected = 4_999_950_000
    assert query.collect_async(gevent=True, engine=engine).get().item() == expected
    assert [frame.item() for frame in pl.collect_all_async([query], gevent=True, engine=engine).get()] == [expected]
    assert engine.execute(query, optimizations=pl.QueryOptFlags()).n_rows_total == 1
    assert "SELECT" in query.explain(engine=engine)
    heights: list[int] = []
    NUMBERS.sink_batches(lambda batch: heights.append(batch.height), chunk_size=30_000, engine=engine)
    assert heights == [30_000, 30_000, 30_000, 10_000]
    heights.clear()
    NUMBERS.sink_batches(lambda batch: heights.append(1) or True, chunk_size=30_000, engine=engine)
    assert heights == [1]
    until(lambda: free(engine))


def test_an_affinity_covers_calls_without_an_engine(engine: ProcessEngine) -> None:
    pid = pl.LazyFrame({"a": [0]}).select(pl.col("a").map_batches(plus_pid, return_dtype=pl.Int64))
    with pl.Config(engine_affinity=engine):  # type: ignore[arg-type]
        assert pid.collect().item() != os.getpid()
        assert pl.DataFrame({"a": [2, 1]}).sort("a")["a"].to_list() == [1, 2]


def plus_pid(series: pl.Series) -> Any:
    return series + os.getpid()


REFUSED: dict[str, Callable[[ProcessEngine], object]] = {
    "asyncio": lambda engine: asyncio.run(collected(engine)),
    "asyncio, several": lambda engine: pl.collect_all_async([NUMBERS], engine=engine),
    "a file": lambda engine: NUMBERS.sink_csv(io.BytesIO(), engine=engine),
    "a file in a plan": lambda engine: NUMBERS.sink_csv(io.BytesIO(), lazy=True).collect(engine=engine),
    "a callback": lambda engine: NUMBERS.sink_parquet("a", sinked_paths_callback=print, engine=engine),
    "Python objects": lambda engine: objects().lazy().collect(engine=engine),
    "a large frame": lambda engine: pl.DataFrame({"a": range(2_000_000)}).lazy().collect_batches(engine=engine),
    "a source with a lock": lambda engine: register_io_source(locked(), schema={"a": pl.Int64}).collect(engine=engine),
}


def locked() -> Any:
    lock = native.allocate_lock()

    def read(*_: object) -> Iterator[pl.DataFrame]:
        with lock:
            yield pl.DataFrame({"a": [1]})

    return read


async def collected(engine: ProcessEngine) -> None:
    await NUMBERS.collect_async(engine=engine)


@pytest.mark.parametrize("work", REFUSED.values(), ids=list(REFUSED))
@pytest.mark.filterwarnings("ignore:.*unstable.*")
def test_what_cannot_run_in_a_child_says_so(engine: ProcessEngine, work: Callable[[ProcessEngine], object]) -> None:
    with pytest.raises(NotSendable):
        work(engine)
    assert free(engine)


def test_a_plain_thread_reads_batches_inline(engine: ProcessEngine) -> None:
    assert Native(lambda: rows_in(NUMBERS.collect_batches(engine=engine, chunk_size=50_000))).join() == 100_000
