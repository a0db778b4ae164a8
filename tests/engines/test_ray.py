"""RayTasks, on a cluster of this machine whose nodes are killed."""

from __future__ import annotations

import os
import pickle
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.exceptions import ColumnNotFoundError, SchemaError
from polars.testing import assert_frame_equal

import greendata
from greendata.engines.child import FAILED
from greendata.engines.children import error_of
from greendata.engines.plans import pack_options
from greendata.engines.ray import RayTasks
from greendata.engines.ray_cluster.node import run_plan, versions
from greendata.errors import (
    BadArgument,
    ClusterUnreachable,
    DeadlineExceeded,
    JobCancelled,
    MemoryLimitExceeded,
    NodeDiffers,
    NodeLost,
    NotAFrame,
    NotCallable,
    NotSendable,
    WorkerDied,
)
from greendata.hub import native
from greendata.pool import pool
from tests.engines.test_process import every_dtype
from tests.support import child_tasks
from tests.support.child_tasks import gated_query
from tests.support.natives import TIMEOUTS, Native, until
from tests.support.processes import children_end, run_python
from tests.support.ray_cluster import Cluster, has_ended, processes_of

# Starting the cluster takes its time, and the tests show the same in both runs but for the last one, which is patched.
pytestmark = pytest.mark.once("unpatched")

MIB = 1 << 20


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(nodes=3) as made:
        yield made
    assert [processes_of(node.session) for node in made.nodes] == [[]] * len(made.nodes)


@pytest.fixture(scope="module")
def stranger(cluster: Cluster) -> Iterator[Native[pl.DataFrame]]:
    """A query with a wrong token, which Ray refuses after 20 seconds: begun first, and asked for last."""
    environment = {**cluster.environment, "RAY_AUTH_TOKEN": "w" * 40}
    with RayTasks(cluster.address, environment=environment) as engine:
        yield Native(lambda: pl.LazyFrame({"a": [1]}).collect(engine=engine))


@pytest.fixture(scope="module")
def engine(cluster: Cluster, stranger: object) -> Iterator[RayTasks]:
    with RayTasks(cluster.address, environment=cluster.environment) as made:
        yield made


@pytest.fixture(scope="module")
def strict(cluster: Cluster) -> Iterator[RayTasks]:
    """An engine with a memory limit that gives a query one try."""
    environment = cluster.environment
    with RayTasks(cluster.address, environment=environment, memory_limit=256 * MIB, retries=0) as made:
        yield made


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A folder for `gated_query`, which is open when the test is over."""
    folder = tmp_path / "gate"
    folder.mkdir()
    yield folder
    (folder / "open").touch()


def arrived(gate: Path, number: int) -> list[int]:
    """Return the ids of the processes at the gate, once there are *number*."""
    until(lambda: len(os.listdir(gate)) >= number)
    return [int(name) for name in os.listdir(gate)]


def driver_of(engine: RayTasks) -> int:
    return engine._drivers[0].pid


# -- values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [0, 3, 5000])
def test_a_frame_comes_back_as_it_is_in_process(engine: RayTasks, rows: int) -> None:
    """Small ones travel in the outcome of the task, large ones through the object store; both ways with every dtype."""
    frame = every_dtype(rows)
    assert_frame_equal(frame.lazy().collect(engine=engine), frame, categorical_as_str=True)


def test_several_queries_are_tasks_of_their_own(engine: RayTasks) -> None:
    lf = pl.LazyFrame({"a": [1, 2]})
    large = pl.LazyFrame().select(a=pl.int_range(100_000))
    queries = [lf.sum(), large, lf.max(), lf]
    frames = pl.collect_all(queries, engine=engine)
    for frame, query in zip(frames, queries, strict=True):
        assert_frame_equal(frame, query.collect())
    assert pl.collect_all([], engine=engine) == []


def test_options_and_sinks_reach_the_node(engine: RayTasks, tmp_path: Path) -> None:
    lf = pl.LazyFrame({"a": [1, 2], "b": [3, 4]})
    lf.sink_csv(tmp_path / "a.csv", separator=";", include_header=False, engine=engine)
    assert (tmp_path / "a.csv").read_text() == "1;3\n2;4\n"
    assert lf.select("a").collect(engine=engine, optimizations=pl.QueryOptFlags.none()).width == 1


def test_errors_are_those_of_polars(engine: RayTasks) -> None:
    with pytest.raises(ColumnNotFoundError, match="zz"):
        pl.LazyFrame({"a": [1]}).select("zz").collect(engine=engine)
    with pytest.raises(FileNotFoundError):
        pl.scan_parquet("/nowhere.parquet").collect(engine=engine)
    with pytest.raises(ColumnNotFoundError):
        pl.collect_all([pl.LazyFrame({"a": [1]}), pl.LazyFrame({"a": [1]}).select("zz")], engine=engine)


def test_the_verbs_the_engine_of_greenlets_and_plain_threads_use_it(engine: RayTasks) -> None:
    lf = pl.LazyFrame({"a": [1, 2]}).sum()
    assert greendata.collect(lf, engine=engine).get().item() == 3
    assert lf.collect(engine=greendata.GreenEngine(engine)).item() == 3
    assert Native(lambda: lf.collect(engine=engine).item()).join() == 3


def test_a_shared_frame_is_stored_once_and_forgotten_with_its_last_plan(engine: RayTasks) -> None:
    shared = engine.share(pl.DataFrame({"a": range(1_000_000)}))
    query = shared.filter(pl.col("a") > 5).select(pl.col("a").sum())
    expected = sum(range(6, 1_000_000))
    assert len(query.serialize()) < 2000
    assert [query.collect(engine=engine).item() for _ in range(2)] == [expected, expected]
    assert query.collect().item() == expected
    small = engine.share(every_dtype(3))
    assert_frame_equal(small.join(shared.head(1), how="cross").collect(engine=engine).drop("a"), every_dtype(3))
    (driver,) = engine._drivers
    assert len(driver.keys) == 2
    del shared, query, small
    assert pl.LazyFrame({"a": [1]}).collect(engine=engine).item() == 1
    assert driver.keys == set()


# -- many files ---------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.parquet" for number in range(5)]
    for number, path in enumerate(paths):
        pl.DataFrame({"city": ["a", "b"] * 1000, "sales": [number, 1] * 1000}).write_parquet(path)
    return paths


def total(lf: pl.LazyFrame) -> pl.LazyFrame:
    return lf.group_by("city").agg(pl.col("sales").sum()).sort("city")


def test_one_plan_over_many_files_equals_the_query_over_all(engine: RayTasks, files: list[Path]) -> None:
    query = engine.scan_partitions(files, total, total)
    assert_frame_equal(query.collect(), total(pl.scan_parquet(files)).collect())
    assert_frame_equal(greendata.run(query.collect).get(), query.collect())
    rows = engine.scan_partitions(map(str, files), lambda lf: lf.filter(pl.col("sales") > 1))
    assert_frame_equal(rows.collect(), pl.scan_parquet(files).filter(pl.col("sales") > 1).collect())


def test_the_plan_over_many_files_is_visible(engine: RayTasks, files: list[Path]) -> None:
    plan = engine.scan_partitions(files, total, lambda parts: total(parts).head(1)).explain()
    assert plan.startswith("MAP, 5 tasks\n  SORT BY")
    assert f"Parquet SCAN [{files[0]}]" in plan
    map_, reduce = plan.split("\nREDUCE, 1 task\n")
    assert 'DF ["city", "sales"]' in reduce
    assert "DF" not in map_


def test_what_a_scan_of_many_files_cannot_use_is_refused(engine: RayTasks, files: list[Path]) -> None:
    with pytest.raises(BadArgument, match="glob"):
        engine.scan_partitions(str(files[0]), total)
    with pytest.raises(BadArgument, match="at least one path"):
        engine.scan_partitions([], total)
    with pytest.raises(NotAFrame, match="map must return"):
        engine.scan_partitions(files, lambda lf: lf.collect())  # type: ignore[arg-type, return-value]
    with pytest.raises(NotAFrame, match="reduce must return"):
        engine.scan_partitions(files, total, lambda parts: 1).collect()  # type: ignore[arg-type, return-value]
    lock = native.allocate_lock()
    with pytest.raises(NotSendable, match="reduce cannot be pickled"):
        engine.scan_partitions(files, total, lambda parts: parts.filter(lock.locked())).collect()
    other = files[0].with_name("other.parquet")
    pl.DataFrame({"town": ["a"], "sales": [1]}).write_parquet(other)
    with pytest.raises(SchemaError):
        engine.scan_partitions([files[0], other], lambda lf: lf).collect()


# -- the end of a query -------------------------------------------------------------------------------------


def test_a_cancelled_query_ends_with_its_process(engine: RayTasks, gate: Path) -> None:
    result = greendata.collect(gated_query(str(gate)), engine=engine)
    (pid,) = arrived(gate, 1)
    assert result.cancel_wait() is True
    until(lambda: has_ended(pid))
    with pytest.raises(JobCancelled):
        result.get()
    assert pool.stats().abandoned == 0


def test_a_deadline_ends_the_process(engine: RayTasks, gate: Path) -> None:
    for timeout in TIMEOUTS:
        result = greendata.collect(gated_query(str(gate)), engine=engine, timeout=timeout)
        with pytest.raises(DeadlineExceeded):
            result.get()
        result.end().get()
        if os.listdir(gate):
            break
    (pid,) = arrived(gate, 1)
    until(lambda: has_ended(pid))


def test_queries_run_side_by_side_and_waiting_ones_can_be_cancelled(engine: RayTasks, gate: Path) -> None:
    """Three nodes with one CPU each; the driver has all of these queries, which are more than the pool has workers."""
    number = 2 * pool.shared.settings.max_workers
    results = [greendata.collect(gated_query(str(gate)), engine=engine) for _ in range(number)]
    pids = arrived(gate, 3)
    until(lambda: len(engine._drivers[0]._answers) == number)
    assert greendata.collect(pl.LazyFrame({"a": [1]})).get().item() == 1
    assert len({os.getsid(pid) for pid in pids}) == 3
    assert results[-1].cancel_wait() is True
    (gate / "open").touch()
    assert [result.get().item() for result in results[:-1]] == [1] * (number - 1)


def test_a_process_that_crashes_fails_its_query_alone(engine: RayTasks) -> None:
    crash = pl.LazyFrame({"a": [3]}).select(pl.col("a").map_elements(child_tasks.exit_with, return_dtype=pl.Int64))
    with pytest.raises(WorkerDied, match="the process that ran the query ended"):
        crash.collect(engine=engine)
    assert pl.LazyFrame({"a": [1]}).collect(engine=engine).item() == 1


def test_a_query_over_the_memory_limit_fails_alone(cluster: Cluster, strict: RayTasks) -> None:
    large = pl.LazyFrame().select(pl.int_range(100_000_000).shuffle(1).sort())
    with pytest.raises(MemoryLimitExceeded, match="268435456 bytes") as caught:
        large.collect(engine=strict)
    assert "POLARS_OOMKILL_THRESHOLD" in caught.value.stderr
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args
    assert pl.LazyFrame({"a": [1]}).collect(engine=strict).item() == 1
    assert not list(cluster.folder.rglob("greendata-*"))


def test_when_the_driver_dies_its_queries_fail_and_the_next_one_starts_another(engine: RayTasks, gate: Path) -> None:
    results = [greendata.collect(gated_query(str(gate)), engine=engine) for _ in range(2)]
    pids = arrived(gate, 2)
    driver = driver_of(engine)
    os.kill(driver, signal.SIGKILL)
    for result in results:
        with pytest.raises(WorkerDied) as caught:
            result.get()
        assert caught.value.status in (-signal.SIGKILL, None)  # None: the loop of a hub reaps all children
    until(lambda: all(has_ended(pid) for pid in (driver, *pids)))
    assert pl.LazyFrame({"a": [1]}).collect(engine=engine).item() == 1
    assert driver_of(engine) != driver


# -- the engine ---------------------------------------------------------------------------------------------


def test_other_versions_are_refused() -> None:
    plan = pl.LazyFrame({"a": [1]}).serialize()
    options = pack_options({})
    for name in versions():
        context = ({**versions(), name: "1.99"}, "auto", None, None, 0)
        (word, packed), buffers = run_plan(pickle.dumps((context, "collect", plan, options, [])))
        assert (word, buffers) == (FAILED, [])
        with pytest.raises(NodeDiffers, match=f"a node has {name} .*, this process 1.99"):
            raise error_of(*packed)


def test_a_wrong_token_is_refused(stranger: Native[pl.DataFrame]) -> None:
    with pytest.raises(ClusterUnreachable, match="cannot be used"):
        stranger.join()


def test_no_cluster_at_the_address() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        host, port = sock.getsockname()
        with (
            RayTasks(f"{host}:{port}") as engine,
            pytest.raises(ClusterUnreachable, match=f"{port} cannot be used: ConnectionRefusedError"),
        ):
            pl.LazyFrame({"a": [1]}).collect(engine=engine)


@pytest.mark.parametrize(
    "arguments",
    [
        {"address": "ray://127.0.0.1:10001"},
        {"address": "head"},
        {"address": 6379},
        {"memory_limit": 1},
        {"retries": -1},
        {"cpus": 0},
        {"resources": ["ssd"]},
        {"inner": "streming"},
        {"environment": ["A=1"]},
    ],
)
def test_bad_arguments_are_refused_at_the_call(arguments: dict[str, Any]) -> None:
    with pytest.raises(BadArgument):
        RayTasks(**arguments)


def test_functions_of_a_scan_are_checked_at_the_call(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"a": [1]}).write_parquet(path)
    with RayTasks("127.0.0.1:1") as engine:
        for functions in ({"map": 3}, {"map": total, "reduce": "sum"}, {"map": total, "scan": "parquet"}):
            with pytest.raises(NotCallable):
                engine.scan_partitions([path], **functions)  # type: ignore[arg-type]
        with pytest.raises(NotAFrame, match="reduce must return"):
            engine.scan_partitions([path], lambda lf: lf, lambda parts: parts.collect()).explain()  # type: ignore[arg-type, return-value]


def test_what_cannot_be_sent_is_refused(engine: RayTasks) -> None:
    large = pl.DataFrame({"a": range(2_000_000)}).lazy().sum()
    with pytest.raises(NotSendable, match=r"RayTasks\.share"):
        large.collect(engine=engine)


@children_end
def test_a_patched_server_uses_it_and_leaves_nothing_behind(cluster: Cluster) -> None:
    """The hub goes on meanwhile; a fork leaves the driver alone; the driver ends with the server."""
    finished = run_python(
        """
        from gevent import monkey; monkey.patch_all()
        import os
        import gevent
        import polars as pl
        from greendata import RayTasks

        engine = RayTasks(os.environ["ADDRESS"])
        ticks = []
        ticker = gevent.spawn(lambda: [(ticks.append(1), gevent.sleep(0.001)) for _ in iter(int, 1)])
        lf = pl.LazyFrame({"a": [1, 2]}).sum()
        jobs = [gevent.spawn(lf.collect, engine=engine) for _ in range(20)]
        print({job.get().item() for job in jobs}, len(ticks) > 100)
        ticker.kill()
        before = len(os.listdir("/proc/self/fd"))
        if not (child := os.fork()):
            os._exit(0 if len(os.listdir("/proc/self/fd")) < before else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), lf.collect(engine=engine).item())
        print("driver", engine._drivers[0].pid)
        """,
        env={"ADDRESS": cluster.address, **cluster.environment},
    )
    *lines, last = finished.stdout.splitlines()
    assert (finished.returncode, lines) == (0, ["{3} True", "0 3"])
    with suppress(FileNotFoundError):
        until(lambda: has_ended(int(last.removeprefix("driver "))))


# -- the end of a node: each of these tests ends one ------------------------------------------------------------


def test_a_query_whose_node_dies_runs_on_another(cluster: Cluster, engine: RayTasks, gate: Path) -> None:
    result = greendata.collect(gated_query(str(gate)), engine=engine)
    (first,) = arrived(gate, 1)
    node = cluster.node_of(first)
    node.kill()
    (second,) = {*arrived(gate, 2)} - {first}
    assert has_ended(first)
    assert cluster.node_of(second) is not node
    (gate / "open").touch()
    assert_frame_equal(result.get(), gated_query(str(gate)).collect())


def test_parts_that_die_with_their_node_are_made_again(
    cluster: Cluster, engine: RayTasks, gate: Path, files: list[Path]
) -> None:
    folder = str(gate)

    def gated(lf: pl.LazyFrame) -> pl.LazyFrame:
        return total(pl.concat([lf, gated_query(folder).select(city=pl.lit("a"), sales=pl.col("a"))]))

    result = greendata.run(engine.scan_partitions(files, gated, total).collect)
    first, *_ = arrived(gate, 2)
    cluster.node_of(first).kill()
    (gate / "open").touch()
    expected = total(pl.scan_parquet(files)).with_columns(sales=pl.col("sales") + pl.Series([5, 0]))
    assert_frame_equal(result.get(), expected.collect())


def test_a_query_is_not_tried_again_without_end(cluster: Cluster, strict: RayTasks, gate: Path) -> None:
    result = greendata.collect(gated_query(str(gate)), engine=strict)
    (pid,) = arrived(gate, 1)
    cluster.node_of(pid).kill()
    with pytest.raises(NodeLost, match=r"node [0-9a-f]+ died while it ran the query"):
        result.get()
