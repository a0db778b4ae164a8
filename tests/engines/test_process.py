"""ProcessEngine: queries in child processes, how they are stopped, and how they end."""

from __future__ import annotations

import gc
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import polars as pl
import pytest
from polars.exceptions import ColumnNotFoundError
from polars.testing import assert_frame_equal

import greendata
from greendata.engines import children as children_
from greendata.engines.process import ProcessEngine
from greendata.engines.sharing import packed_frames
from greendata.errors import (
    BadArgument,
    ChildFailed,
    EngineClosed,
    JobCancelled,
    MemoryLimitExceeded,
    NotAFrame,
    NotSendable,
    WorkerDied,
)
from greendata.hub import native
from greendata.pool import pool
from tests.support import child_tasks
from tests.support.child_tasks import held_query, hold
from tests.support.frames import killed_before_it_hears
from tests.support.natives import Native, until
from tests.support.processes import children_end, run_python

MIB = 1 << 20


@pytest.fixture(scope="module")
def engine() -> Iterator[ProcessEngine]:
    with ProcessEngine(workers=2) as made:
        yield made


@pytest.fixture
def one() -> Iterator[ProcessEngine]:
    """An engine that runs one query at a time."""
    with ProcessEngine(workers=1) as made:
        yield made


def pid_in(path: Path) -> int:
    until(path.exists)
    return int(path.read_text())


def call_in_order(engine: ProcessEngine, number: int, order: list[int]) -> None:
    order.append(engine.call(abs, number))


def has_waiting(engine: ProcessEngine, number: int) -> bool:
    return len(engine._children.waiting) == number


def is_gone(pid: int) -> bool:
    """True if the process has ended and was reaped."""
    return not Path(f"/proc/{pid}").exists()


# -- values -------------------------------------------------------------------------------------------------


def every_dtype(rows: int) -> pl.DataFrame:
    """Return a frame with *rows* rows and a column of each dtype."""
    now = datetime(2026, 1, 2, 3, 4, 5, 678901)
    values: dict[str, tuple[Any, list[Any]]] = {
        "null": (pl.Null, [None]),
        "bool": (pl.Boolean, [True, None]),
        "binary": (pl.Binary, [b"\0x", None]),
        "string": (pl.String, ["é\0", None, ""]),
        "float": (pl.Float64, [0.5, float("nan"), None, -0.0]),
        "float32": (pl.Float32, [0.5, None]),
        "decimal": (pl.Decimal(38, 2), [Decimal("1.25"), None]),
        "date": (pl.Date, [date(2026, 1, 2), None]),
        "time": (pl.Time, [time(1, 2, 3, 4), None]),
        "datetime": (pl.Datetime("us"), [now, None]),
        "zoned": (pl.Datetime("ns", "Europe/Rome"), [now, None]),
        "duration": (pl.Duration("ms"), [timedelta(milliseconds=5), None]),
        "categorical": (pl.Categorical, ["a", None, "b"]),
        "enum": (pl.Enum(["x", "y"]), ["x", None]),
        "list": (pl.List(pl.Int8), [[1, None], None, []]),
        "array": (pl.Array(pl.Int16, 2), [[1, 2], None]),
        "struct": (pl.Struct({"a": pl.Int8, "b": pl.List(pl.String)}), [{"a": 1, "b": ["x"]}, None]),
        **{str(dtype): (dtype, [1, None]) for dtype in (pl.Int8, pl.UInt64, pl.Int64, pl.Int128, pl.UInt128)},
    }
    return pl.DataFrame(
        [pl.Series(name, (found * rows)[:rows], dtype, strict=True) for name, (dtype, found) in values.items()]
    )


@pytest.mark.parametrize("rows", [0, 1, 3, 5000])
def test_a_frame_comes_back_as_it_is_in_process(engine: ProcessEngine, rows: int) -> None:
    """Small ones travel in the message, large ones in a sealed file; both ways with every dtype."""
    frame = every_dtype(rows)
    assert (frame.estimated_size() > 64 * 1024) is (rows == 5000)
    assert_frame_equal(frame.lazy().collect(engine=engine), frame, categorical_as_str=True)


@pytest.mark.parametrize("name", ["", "^a$", "*", "a\0"])
@pytest.mark.parametrize("rows", [2, 100_000])
def test_any_text_is_a_column_name(engine: ProcessEngine, name: str, rows: int) -> None:
    frame = pl.DataFrame({name: range(rows), "b": range(rows)})
    query = frame.head(0).lazy() if rows > 2 else frame.lazy()
    made = pl.concat([query, pl.LazyFrame().select(pl.int_range(rows).alias(name), b=pl.int_range(rows))])
    assert made.collect(engine=engine).columns == [name, "b"]
    assert_frame_equal(engine.share(frame).collect(engine=engine), frame)


def test_every_width_of_large_frames_comes_back(engine: ProcessEngine) -> None:
    """128-bit integers are copied: pyarrow, which maps the others, does not know them."""
    query = pl.LazyFrame().select(a=pl.int_range(100_000)).with_columns(b=pl.col("a").cast(pl.Int128))
    for each in (query, query.select("a"), query.select(pl.struct("b"))):
        assert_frame_equal(each.collect(engine=engine), each.collect())


def test_without_pyarrow_large_frames_are_copied(engine: ProcessEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    query = pl.LazyFrame().select(a=pl.int_range(100_000))
    assert_frame_equal(query.collect(engine=engine), query.collect())


def test_mapped_frames_live_as_long_as_they_are_used(engine: ProcessEngine) -> None:
    frame = pl.LazyFrame().select(a=pl.int_range(1_000_000)).collect(engine=engine)
    part = frame["a"].slice(999_990, 10)
    del frame
    gc.collect()
    assert part.to_list() == list(range(999_990, 1_000_000))


def test_several_queries_run_in_one_child(engine: ProcessEngine) -> None:
    lf = pl.LazyFrame({"a": [1, 2]})
    frames = pl.collect_all([lf.sum(), lf.max()], engine=engine)
    assert [frame.item() for frame in frames] == [3, 2]


def test_options_and_optimizations_reach_the_child(engine: ProcessEngine, tmp_path: Path) -> None:
    lf = pl.LazyFrame({"a": [1, 2], "b": [3, 4]})
    lf.sink_csv(tmp_path / "a.csv", separator=";", include_header=False, engine=engine)
    assert (tmp_path / "a.csv").read_text() == "1;3\n2;4\n"
    lf.sink_parquet(tmp_path / "a.parquet", engine=engine)
    assert_frame_equal(pl.read_parquet(tmp_path / "a.parquet"), lf.collect())
    assert lf.select("a").collect(engine=engine, optimizations=pl.QueryOptFlags.none()).width == 1


def test_errors_are_those_of_polars(engine: ProcessEngine) -> None:
    with pytest.raises(ColumnNotFoundError, match="zz"):
        pl.LazyFrame({"a": [1]}).select("zz").collect(engine=engine)
    with pytest.raises(FileNotFoundError):
        pl.scan_parquet("/nowhere.parquet").collect(engine=engine)


def test_the_verbs_the_engine_of_greenlets_and_functions_use_it(engine: ProcessEngine) -> None:
    lf = pl.LazyFrame({"a": [1, 2]}).sum()
    assert greendata.collect(lf, engine=engine).get().item() == 3
    assert lf.collect(engine=greendata.GreenEngine(engine)).item() == 3
    assert engine.call(os.getpid) != os.getpid()
    assert engine.call(sorted, [2, 1], reverse=True) == [2, 1]
    assert engine.execute(lf, optimizations=pl.QueryOptFlags()).lazy().collect().item() == 3


# -- shared frames ------------------------------------------------------------------------------------------


def test_a_shared_frame_travels_once_and_is_forgotten_with_its_last_plan(one: ProcessEngine) -> None:
    shared = one.share(pl.DataFrame({"a": range(1_000_000)}))
    query = shared.filter(pl.col("a") > 5).select(pl.col("a").sum())
    expected = sum(range(6, 1_000_000))
    assert len(query.serialize()) < 2000
    assert [query.collect(engine=one).item() for _ in range(2)] == [expected, expected]
    assert query.collect().item() == expected
    (child,) = [child for child in one._children.idle if child.keys]
    (key,) = child.keys
    _, (file,) = packed_frames[key]
    assert is_open(file)
    del shared, query
    gc.collect()
    assert key not in packed_frames
    assert not is_open(file)
    pl.LazyFrame({"a": [1]}).collect(engine=one)
    assert child.keys == set()


def test_other_engines_and_other_children_have_a_shared_frame_too(engine: ProcessEngine, one: ProcessEngine) -> None:
    shared = engine.share(pl.DataFrame({"a": [1, 2]})).sum()
    assert shared.collect(engine=one).item() == 3
    one._children.idle[0].kill()
    assert shared.collect(engine=one).item() == 3


def test_many_shared_frames_in_one_plan(engine: ProcessEngine) -> None:
    """Polars resolves them in several threads, which share the socket of the child."""
    for _ in range(3):
        frames = [engine.share(pl.DataFrame({"a": [number, 1000]})) for number in range(20)]
        joined = frames[0]
        for frame in frames[1:]:
            joined = joined.join(frame, on="a")
        assert joined.collect(engine=engine).rows() == [(1000,)]
        assert pl.concat(frames).sum().collect(engine=engine).item() == 20 * 1000 + sum(range(20))


def test_a_shared_frame_that_nobody_waits_for_any_more_is_forgotten(one: ProcessEngine) -> None:
    """The greenlet is killed when the frame has been packed, and before the hub has brought it back."""
    before, packed = set(packed_frames), list[str]()
    frame = pl.DataFrame({"a": range(100_000)})
    end = killed_before_it_hears(one.share, frame, seen=lambda: packed.extend(packed_frames.keys() - before))
    assert isinstance(end, gevent.GreenletExit)
    (key,) = packed
    del end  # its traceback refers to the outcome
    until(lambda: key not in packed_frames)


def is_open(file: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{file}").startswith("/memfd:greendata")
    except FileNotFoundError:
        return False


def test_only_frames_are_shared(engine: ProcessEngine) -> None:
    with pytest.raises(NotAFrame):
        engine.share([1])  # type: ignore[arg-type]


def test_a_plan_with_a_large_frame_is_refused_with_the_way_out(engine: ProcessEngine) -> None:
    large = pl.DataFrame({"a": range(2_000_000)}).lazy().sum()
    with pytest.raises(NotSendable, match=r"ProcessEngine\.share"):
        large.collect(engine=engine)


# -- the end of a query -------------------------------------------------------------------------------------


def test_a_cancelled_query_ends_with_its_process(engine: ProcessEngine, tmp_path: Path) -> None:
    result = greendata.collect(held_query(str(tmp_path / "pid")), engine=engine)
    pid = pid_in(tmp_path / "pid")
    assert result.cancel_wait() is True
    assert is_gone(pid)
    with pytest.raises(JobCancelled):
        result.get()
    assert pool.stats().abandoned == 0
    assert engine.call(abs, -1) == 1


def test_a_killed_greenlet_ends_the_process_of_its_query(engine: ProcessEngine, tmp_path: Path) -> None:
    greenlet = gevent.spawn(engine.call, hold, str(tmp_path / "pid"))
    pid = pid_in(tmp_path / "pid")
    greenlet.kill()
    until(lambda: is_gone(pid))


def test_a_query_that_waits_for_a_child_can_be_cancelled(one: ProcessEngine, tmp_path: Path) -> None:
    running = greendata.run(one.call, hold, str(tmp_path / "pid"))
    pid_in(tmp_path / "pid")
    waiting = greendata.run(one.call, abs, -1)
    until(lambda: one._children.waiting)
    assert waiting.cancel_wait() is True
    assert not one._children.waiting
    running.cancel_wait()
    assert one.call(abs, -2) == 2


def test_waiting_queries_run_in_their_order(one: ProcessEngine, tmp_path: Path) -> None:
    running = greendata.run(one.call, hold, str(tmp_path / "pid"))
    pid_in(tmp_path / "pid")
    order: list[int] = []
    waiting = []
    for number in range(3):
        waiting.append(greendata.run(call_in_order, one, number, order))
        until(partial(has_waiting, one, number + 1))
    running.cancel()
    greendata.gather(*waiting).get()
    assert order == [0, 1, 2]


@pytest.mark.parametrize(
    ("task", "status", "text"),
    [
        ((child_tasks.exit_with, 3), 3, "ended with exit status 3"),
        ((child_tasks.abort,), -signal.SIGSEGV, "was ended by SIGSEGV"),
    ],
)
def test_a_child_that_ends_fails_its_query_alone(
    engine: ProcessEngine, task: tuple[Any, ...], status: int, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(WorkerDied) as caught:
        engine.call(*task)
    error = caught.value
    if error.status is None:  # the loop of a hub reaps all children once it watches one
        text = "ended"
    else:
        assert error.status == status
    words = "the last words" if status == 3 else ""
    assert str(error) == f"the process that ran the query {text}" + (f"; it wrote: {words}" if words else "")
    assert pickle.loads(pickle.dumps(error)).args == error.args
    assert engine.call(abs, -1) == 1
    assert capfd.readouterr().err.strip() == words


def test_a_child_that_was_killed_between_two_queries_is_replaced(one: ProcessEngine) -> None:
    first = one.call(os.getpid)
    os.kill(first, signal.SIGKILL)
    until(lambda: not any(child.is_alive for child in one._children.idle if child.pid == first))
    assert one.call(os.getpid) != first
    assert is_gone(first)


def test_a_stopped_child_is_ended(one: ProcessEngine, tmp_path: Path) -> None:
    result = greendata.run(one.call, hold, str(tmp_path / "pid"))
    os.kill(pid_in(tmp_path / "pid"), signal.SIGSTOP)
    with pytest.raises(WorkerDied):
        result.get()


def test_garbage_ends_a_child_and_at_most_one_query(one: ProcessEngine) -> None:
    assert one.call(abs, -1) == 1
    child = next(child for child in one._children.idle if child.is_ready)
    child._sock.send(b"\x08\0\0\0\0\0\0\0garbage!")
    with suppress(WorkerDied):  # unless the child has ended already
        assert one.call(abs, -1) == 1
    assert one.call(abs, -1) == 1
    assert is_gone(child.pid)


def test_a_child_that_never_starts_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children_, "START_TIMEOUT", 0.0)
    monkeypatch.setattr(children_, "_STATE_INTERVAL", 0)
    with ProcessEngine(workers=1) as engine, pytest.raises(WorkerDied):
        engine.call(abs, -1)


def test_errors_that_cannot_be_pickled_arrive_as_text(engine: ProcessEngine) -> None:
    with pytest.raises(ChildFailed, match="Unruly: unruly"):
        engine.call(child_tasks.fail)


def test_what_a_child_writes_to_stderr_is_written_here(one: ProcessEngine, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        one.call(child_tasks.write_to_stderr, 1 << 20)
    assert capfd.readouterr().err == "e" * (3 << 20)
    assert all(os.fstat(child._stderr.fileno()).st_size <= 1 << 20 for child in one._children.idle)


def test_what_a_running_function_writes_to_stderr_is_written_here_meanwhile(
    one: ProcessEngine, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = greendata.run(one.call, child_tasks.write_to_stderr_and_hold, 65 * MIB, str(tmp_path / "pid"))
    pid_in(tmp_path / "pid")
    (child,) = one._children.busy
    until(lambda: not os.fstat(child._stderr.fileno()).st_size)
    result.cancel_wait()
    assert capfd.readouterr().err == "e" * (65 * MIB)


def test_what_a_child_prints_appears_though_it_is_killed_in_the_end() -> None:
    finished = run_python(
        """
        from greendata.engines.process import ProcessEngine

        with ProcessEngine(workers=1) as engine:
            engine.call(print, "printed")
        print("the end")
        """,
        env={"PYTHONUNBUFFERED": None},
    )
    assert finished == (0, "printed\nthe end\n", "")


def test_frames_that_find_no_descriptor_are_an_error_of_their_query() -> None:
    finished = run_python(
        """
        import os, resource
        import polars as pl
        from greendata.engines.process import ProcessEngine

        with ProcessEngine(workers=1) as engine:
            query = pl.LazyFrame().select(pl.int_range(100_000))
            pid = engine.call(os.getpid)
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
            try:
                query.collect(engine=engine)
            except OSError as error:
                print(error)
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            print(query.collect(engine=engine).height, engine.call(os.getpid) == pid)
        """
    )
    text = "[Errno 24] Too many open files: data have come in a file that cannot be opened"
    assert finished == (0, f"{text}\n100000 True\n", "")


# -- memory -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "work",
    [
        lambda engine: pl.LazyFrame().select(pl.int_range(200_000_000).shuffle(1).sort()).collect(engine=engine),
        lambda engine: engine.call(child_tasks.allocate_and_hold, MIB, 300),
    ],
    ids=["Polars", "Python"],
)
def test_a_query_over_the_memory_limit_fails_alone(work: Callable[[ProcessEngine], object]) -> None:
    with ProcessEngine(workers=1, memory_limit=256 * MIB) as engine:
        with pytest.raises(MemoryLimitExceeded, match="268435456 bytes") as caught:
            work(engine)
        assert isinstance(caught.value, MemoryError)
        assert engine.call(abs, -1) == 1


def test_many_small_queries_in_turn_stay_within_the_limit() -> None:
    with ProcessEngine(workers=1, memory_limit=256 * MIB) as engine:
        for _ in range(10):
            assert engine.call(child_tasks.allocate, MIB, 100) == 100 * MIB
            assert pl.LazyFrame().select(pl.int_range(8_000_000).shuffle(1).sort().sum()).collect(engine=engine).height


# -- the engine ---------------------------------------------------------------------------------------------


def test_children_are_replaced_after_a_number_of_queries() -> None:
    with ProcessEngine(workers=1, recycle_after=2) as engine:
        pids = [engine.call(os.getpid) for _ in range(5)]
    assert len(set(pids)) == 3


def test_closing_ends_everything(tmp_path: Path) -> None:
    engine = ProcessEngine(workers=1)
    running = greendata.run(engine.call, hold, str(tmp_path / "pid"))
    pid = pid_in(tmp_path / "pid")
    waiting = greendata.run(engine.call, abs, -1)
    until(lambda: engine._children.waiting)
    spares = [child.pid for child in engine._children.idle]
    engine.close()
    with pytest.raises(WorkerDied):
        running.get()
    with pytest.raises(EngineClosed):
        waiting.get()
    with pytest.raises(EngineClosed):
        engine.call(abs, -1)
    assert all(is_gone(each) for each in (pid, *spares))
    engine.close()


def test_the_reason_of_an_end_is_found_before_the_stack_of_the_interpreter() -> None:
    """Python 3.14 writes a long stack of C functions after it, if faulthandler is on."""
    with ProcessEngine(workers=1, memory_limit=256 * MIB) as engine:
        with pytest.raises(MemoryLimitExceeded) as caught:
            engine.call(abort_with_stack)
        assert engine.call(abs, -1) == 1
    assert "memory allocation of 99 bytes failed" in caught.value.stderr
    assert len(caught.value.stderr) <= 2000


def abort_with_stack() -> None:
    os.write(
        2, b"memory allocation of 99 bytes failed\nFatal Python error: Aborted\n" + b"  Binary file, at +0x1\n" * 1000
    )
    os.abort()


def test_an_engine_that_is_dropped_ends_its_children() -> None:
    engine = ProcessEngine(workers=1)
    pid = engine.call(os.getpid)
    del engine
    gc.collect()
    until(lambda: is_gone(pid))


@pytest.mark.parametrize("end", ["close", "drop"])
def test_the_end_of_an_engine_does_not_block_the_hub(end: str) -> None:
    """The system needs 0.1 s for each GB of a process. Here the hub is needed for its end: it releases the lock."""
    engine = ProcessEngine(workers=1)
    pid = engine.call(os.getpid)
    (child,) = [child for child in engine._children.idle if child.pid == pid]
    child._using.acquire()
    gevent.get_hub().loop.run_callback(child._using.release)
    if end == "close":
        engine.close()
        assert is_gone(pid)
    else:
        del engine
        gc.collect()
        until(lambda: is_gone(pid))


def test_the_hub_itself_may_close_an_engine() -> None:
    engine = ProcessEngine(workers=1)
    pid = engine.call(os.getpid)
    gevent.get_hub().loop.run_callback(engine.close)
    until(lambda: is_gone(pid))


def test_an_engine_is_closed_whatever_the_pool_accepts() -> None:
    finished = run_python(
        """
        import os
        import gevent
        import greendata
        from greendata.engines.process import ProcessEngine
        from tests.engines.test_process import is_gone
        from tests.support.gates import Gate

        gate = Gate()
        greendata.configure(max_workers=1, max_queue=1)
        with ProcessEngine(workers=1) as engine:
            pid = engine.call(os.getpid)
            held = [greendata.run(gate) for _ in range(2)]
            gate.wait_arrived()
            gevent.spawn(gate.open)  # it runs while this greenlet waits
        print(is_gone(pid))
        with ProcessEngine(workers=1) as engine:
            pid = engine.call(os.getpid)
            greendata.drain()
        print(is_gone(pid))
        """
    )
    assert finished == (0, "True\nTrue\n", "")


def test_all_waiters_fail_when_no_process_can_be_started(tmp_path: Path) -> None:
    finished = run_python(
        """
        import os, resource
        from pathlib import Path
        import greendata
        from greendata.engines.process import ProcessEngine
        from tests.engines.test_process import pid_in
        from tests.support.child_tasks import hold
        from tests.support.natives import until

        engine = ProcessEngine(workers=1)
        file = Path(os.environ["FOLDER"], "pid")
        running = greendata.run(engine.call, hold, str(file))
        pid_in(file)
        waiting = [greendata.run(engine.call, abs, -1) for _ in range(2)]
        until(lambda: len(engine._children.waiting) == 2)
        (spare,) = engine._children.idle
        os.kill(spare.pid, 9)
        until(lambda: not spare.is_alive)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        running.cancel()
        errors = []
        for result in waiting:
            result.wait()
            errors.append(type(result.exception).__name__)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        print(*errors, engine.call(abs, -2))
        engine.close()
        """,
        env={"FOLDER": str(tmp_path)},
    )
    assert finished == (0, "OSError OSError 2\n", "")


def test_nothing_is_left_after_deaths(tmp_path: Path) -> None:
    """No descriptor, no zombie, no folder for what Polars moves out of memory."""
    finished = run_python(
        """
        import os, signal
        from collections import Counter
        from pathlib import Path
        import greendata
        from greendata.engines.process import ProcessEngine
        from greendata.errors import WorkerDied
        from tests.engines.test_chaos import descriptors
        from tests.engines.test_process import is_gone, pid_in
        from tests.support.child_tasks import hold
        from tests.support.natives import until

        with ProcessEngine(workers=1) as engine:
            greendata.run(engine.call, abs, -1).get()
        before = Counter(descriptors())
        folders = set()
        with ProcessEngine(workers=2) as engine:
            for number in range(3):
                file = Path(os.environ["FOLDER"]) / str(number)
                result = greendata.run(engine.call, hold, str(file))
                pid = pid_in(file)
                folders |= {child._spill for child in (*engine._children.busy, *engine._children.idle)}
                os.kill(pid, signal.SIGKILL)
                try:
                    result.get()
                except WorkerDied as error:
                    print(error.status, is_gone(pid))
        until(lambda: not Counter(descriptors()) - before)  # a worker may be reading names of threads
        print(any(Path(folder).exists() for folder in folders), len(folders))
        """,
        env={"FOLDER": str(tmp_path)},
    )
    assert finished == (0, "-9 True\n" * 3 + "False 4\n", "")


@children_end
def test_a_fork_of_the_server_leaves_its_children_alone() -> None:
    finished = run_python(
        """
        import os
        from greendata.engines.process import ProcessEngine

        engine = ProcessEngine(workers=1)
        first = engine.call(os.getpid)
        before = len(os.listdir("/proc/self/fd"))
        if not (child := os.fork()):
            open_now = len(os.listdir("/proc/self/fd"))
            second = engine.call(os.getpid)
            engine.close()
            os._exit(0 if second != first and open_now < before else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), engine.call(os.getpid) == first)
        """
    )
    assert finished == (0, "0 True\n", "")


@children_end
def test_a_fork_of_the_server_leaves_the_children_of_isolated_reads_alone() -> None:
    """It drops their engine, whose finalizer ends children. It may run before the fork has forgotten them."""
    finished = run_python(
        """
        import os
        import greendata
        from greendata.formats import isolation

        def read():
            return greendata.decode(b"a\\n1", format="csv", isolate=True).item()

        def children():
            (place,) = isolation._places.values()
            return [(child.pid, child.is_alive) for child in place._engine._children.idle]

        read()
        before = children()
        if not (child := os.fork()):
            os._exit(0 if not isolation._places and read() == 1 else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(before), children() == before)
        """
    )
    assert finished == (0, "0 2 True\n", "")


def test_plain_threads_use_it_inline(engine: ProcessEngine) -> None:
    assert Native(lambda: engine.call(abs, -1)).join() == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"workers": 0},
        {"workers": True},
        {"memory_limit": 1},
        {"memory_limit": "1 GB"},
        {"recycle_after": 0},
        {"inner": "streming"},
        {"environment": {"A=B": "c"}},
        {"environment": {"A": "b\0"}},
        {"inner": pl.Engine},
    ],
)
def test_bad_arguments_are_refused_at_the_call(arguments: dict[str, Any]) -> None:
    with pytest.raises(BadArgument):
        ProcessEngine(**arguments)


@pytest.mark.parametrize(
    "work",
    [
        lambda engine: pl.LazyFrame({"a": [1]}).sink_csv(open(os.devnull, "wb"), engine=engine),  # noqa: SIM115
        lambda engine: pl.LazyFrame({"a": [1]}).collect(engine=engine, background=True),
        lambda engine: engine.call(native.allocate_lock().acquire),
    ],
    ids=["file", "background", "function"],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore:.*background.*", "ignore:.*unstable.*")
def test_what_cannot_be_sent_is_refused(engine: ProcessEngine, work: Callable[[ProcessEngine], object]) -> None:
    with pytest.raises(NotSendable):
        work(engine)
