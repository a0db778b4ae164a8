"""`RayTasks`: a Polars engine whose queries run as tasks of a Ray cluster."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import count
from typing import Any
from weakref import finalize

import polars as pl

from greendata.engines.child import DONE, FAILED
from greendata.engines.children import working_directory
from greendata.engines.closing import close_at_exit, reset_after_fork
from greendata.engines.messages import close_all, dumps
from greendata.engines.plans import pack_options, pack_plan, unpack
from greendata.engines.ray_cluster.driver import Answers, Driver
from greendata.engines.ray_cluster.node import REDUCED, versions
from greendata.engines.ray_cluster.program import CANCELLED
from greendata.engines.sending import SendingEngine
from greendata.engines.sharing import KEY, packed_frames
from greendata.errors import BadArgument, ClusterUnreachable, EngineClosed, JobCancelled, NotAFrame, NotSendable
from greendata.errors.plural import counted
from greendata.hub import native
from greendata.hub.checks import check_function, is_count
from greendata.pool import pool
from greendata.pool.stopping import stopped_by
from greendata.pool.workers import elsewhere

__all__ = ("Partitions", "RayTasks")

_MIB = 1 << 20


class RayTasks(SendingEngine):
    """A Polars engine that runs each query as a task of a Ray cluster (``pip install 'greendata[ray]'``).

    One child process, which gevent has not patched, is the driver of all queries of the engine: it submits them, and
    hands their frames over in files in memory, which this process maps. The nodes must be able to import greendata, and
    must have the same versions of greendata, Polars and Python (3.11, 3.12 and so on) as this process. They read and
    write files by the paths in the query.

    `Result.cancel`, a deadline, and a client that leaves end the task with its process. If a node dies, its queries run
    on another one, *retries* times each, and so do those whose process crashes. Queries that write files are not
    repeated, because they may have written. If the driver dies, its queries fail, and the next one starts another.

    `polars.collect_all` runs each query as a task of its own, on all nodes. A single query runs on one node: Ray tasks
    do not exchange rows, so there is no join or group-by across nodes. `scan_partitions` does what is possible without
    that.

    If the cluster requires a token, set Ray's own variables: ``RAY_AUTH_MODE=token`` and ``RAY_AUTH_TOKEN``. Safe from
    any thread; a greenlet that calls it waits without blocking the hub. Queries that wait for the cluster leave the
    workers of the pool to others.

    Args:
        address: of the head, such as "10.0.0.1:6379"; "auto" for the cluster of this machine.
        memory_limit: bytes that Polars may allocate in a process of a node; None for no limit.
        inner: the engine that computes there: "auto", "in-memory", "streaming", or ``"module:factory"``, a function
            that is called there and returns any `polars.Engine`.
        retries: how often a query is tried again after its node or process has died.
        cpus: CPUs of a node that a query reserves, and threads of Polars in it, two at least.
        resources: of a node that a query reserves, by their names in the cluster, such as ``{"ssd": 1}``.
        environment: variables for the driver, in addition to this process's own, such as ``RAY_AUTH_TOKEN``.

    Raises:
        BadArgument: an argument that cannot be used.
        ImportError: Ray is not installed.

    Example:
        >>> engine = RayTasks("127.0.0.1:6379", retries=2)  # starts nothing
        >>> engine.close()
    """

    def __init__(
        self,
        address: str = "auto",
        *,
        memory_limit: int | None = None,
        inner: str = "auto",
        retries: int = 1,
        cpus: int = 1,
        resources: dict[str, float] | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
            raise BadArgument("address", address, "'auto', or the host and port of the head, such as '10.0.0.1:6379'")
        if memory_limit is not None and not is_count(memory_limit, least=64 * _MIB):
            raise BadArgument("memory_limit", memory_limit, "None or a number of bytes, at least 64 << 20 (64 MiB)")
        if not is_count(retries, least=0):
            raise BadArgument("retries", retries, "a whole number >= 0")
        if not is_count(cpus):
            raise BadArgument("cpus", cpus, "a whole number >= 1")
        if resources is not None and not isinstance(resources, dict):
            raise BadArgument("resources", resources, "a dict of names and numbers")
        super().__init__(inner, environment)
        spec = find_spec("ray")
        if spec is None or spec.origin is None:  # not installed, or a folder of that name
            raise ImportError("RayTasks needs Ray; install it with: pip install 'greendata[ray]'")
        self._address = address
        self._memory_limit = memory_limit
        self._retries = retries
        self._cpus = cpus
        self._resources = resources or {}
        self._reset()
        reset_after_fork(self)

    def _reset(self) -> None:
        self._lock = native.allocate_lock()  # guards everything below; held for the start of a process at most
        self._is_closed = False
        self._drivers: list[Driver] = []  # the last one started, if any
        finalize(self, _kill_all, self._drivers).atexit = False
        self._numbers = count(1)  # of requests

    @property
    def name(self) -> str:
        """The name of the engine."""
        return "ray"

    def __repr__(self) -> str:
        return f"RayTasks({self._address!r}, memory_limit={self._memory_limit}, inner={self._inner!r})"

    def scan_partitions(
        self,
        paths: Iterable[str | os.PathLike[str]],
        map: Callable[[pl.LazyFrame], pl.LazyFrame],
        reduce: Callable[[pl.LazyFrame], pl.LazyFrame] | None = None,
        *,
        scan: Callable[[str], pl.LazyFrame] = pl.scan_parquet,
    ) -> Partitions:
        """Return a query that runs one plan on each of many files, on all nodes, and reduces the parts on one.

        Nothing runs before `Partitions.collect`. The parts stay in the object stores of the nodes until they are
        reduced. There is no shuffle: rows of two files meet in *reduce* only, which gets all parts on one node, so they
        must fit there. A join of two such scans, a median, or a count of distinct values over all files needs all rows
        in *reduce*. Sums, counts, extremes and the rows of a filter need only their parts; a mean is a sum and a count.

        Args:
            paths: of the files, as the nodes know them.
            map: makes the plan for one file. It is called here, once for each path.
            reduce: makes the result from all parts, in the order of the paths. It is called on a node, so cloudpickle
                must be able to pickle it. None returns the parts one after the other.
            scan: opens a file, such as `polars.scan_parquet`.

        Raises:
            BadArgument: *paths* is one path, or there are none.
            NotCallable, AsyncFunction: *map*, *reduce* or *scan* is not a function that can be called.
            NotAFrame: *map* does not return a LazyFrame. With *reduce*, from the methods of the query.
            NotSendable: from `Partitions.collect`; *reduce* cannot be pickled.

        Example:
            >>> engine = RayTasks("127.0.0.1:6379")
            >>> sums = engine.scan_partitions(
            ...     ["/data/2025.parquet", "/data/2026.parquet"],
            ...     map=lambda lf: lf.group_by("city").agg(pl.col("sales").sum()),
            ...     reduce=lambda parts: parts.group_by("city").agg(pl.col("sales").sum()),
            ... )
            >>> sums
            <Partitions of 2 files>
        """
        if isinstance(paths, str | bytes | os.PathLike):
            raise BadArgument("paths", paths, "a list of paths; for those of a pattern: glob.glob(pattern)")
        for function in (map, scan) if reduce is None else (map, scan, reduce):
            check_function(function)
        names = [os.fspath(path) for path in paths]
        if not names:
            raise BadArgument("paths", names, "at least one path")
        plans = []
        for name in names:
            lf = map(scan(name))
            if not isinstance(lf, pl.LazyFrame):
                raise NotAFrame(lf, "LazyFrame", "map must return the LazyFrame of a part")
            plans.append(lf)
        return Partitions(self, plans, reduce or _same)

    # -- queries: a worker ----------------------------------------------------------------------------

    def _run(self, method: str, plans: list[bytes], options: bytes) -> list[pl.DataFrame]:
        if method == "collect_all":
            method = "collect"
        return self._ask("run", plans, method, options)

    def _reduce(self, lfs: list[pl.LazyFrame], reduce: Callable[..., Any]) -> pl.DataFrame:
        try:
            function = dumps(reduce)
        except Exception as error:
            raise NotSendable(f"reduce cannot be pickled ({error})") from error
        plans = [pack_plan(lf, "RayTasks") for lf in lfs]
        return self._ask("reduce", plans, pack_options({}), function)[0]

    def _ask(self, word: str, plans: list[bytes], *arguments: Any) -> list[pl.DataFrame]:
        """Send the request *word* to the driver, and return its frames in the order of the plans."""
        number, driver, answers = self._begin(word, plans, arguments)
        frames: dict[int, list[pl.DataFrame]] = {}
        try:
            with elsewhere(), stopped_by(partial(driver.cancel, number)):
                while True:
                    answer, value, files = answers.get()
                    if answer == FAILED:
                        raise value
                    if answer == CANCELLED:
                        raise JobCancelled("a query on a Ray cluster", running=True)
                    if value is not None:
                        index, packed = value
                        try:
                            frames[index] = unpack(packed, files)
                        finally:
                            close_all(files)
                    if answer == DONE:
                        return [frame for index in sorted(frames) for frame in frames[index]]
        finally:
            driver.end(number, answers)

    def _begin(self, word: str, plans: list[bytes], arguments: Any) -> tuple[int, Driver, Answers]:
        keys = [sorted({key.decode() for key in KEY.findall(plan)} & packed_frames.keys()) for plan in plans]
        with self._lock:
            if self._is_closed:
                raise EngineClosed
            driver = self._driver()
            number = next(self._numbers)
            messages: list[tuple[tuple[Any, ...], list[int]]] = []
            missing = sorted({key for each in keys for key in each} - driver.keys)
            try:
                for key in missing:
                    (packed,), files = packed_frames[key]
                    messages.append((("put", key, packed), [os.dup(file) for file in files]))  # closed once it is sent
            except OSError:  # there are no more descriptors
                close_all([file for _, files in messages for file in files])
                raise
            driver.keys.update(missing)
            if unshared := [key for key in driver.keys if key not in packed_frames]:
                driver.keys.difference_update(unshared)
                messages.append((("forget", unshared), []))
            request = (word, number, working_directory(), list(zip(plans, keys, strict=True)), *arguments)
            return number, driver, driver.begin(number, *messages, (request, []))

    # -- the driver -----------------------------------------------------------------------------------

    def _driver(self) -> Driver:
        """Return the driver, or start one. Call under the lock.

        Raises:
            OSError, RuntimeError: the system has no more processes, descriptors or threads.
        """
        if self._drivers and self._drivers[0].is_alive:
            return self._drivers[0]
        close_at_exit()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GREENDATA_")}
        settings = {
            "versions": versions(),
            "inner": self._inner,
            "retries": self._retries,
            "memory_limit": self._memory_limit,
            "options": {"num_cpus": self._cpus, "resources": self._resources},
            "variables": self._variables(),
        }
        arguments = (self._address, settings)
        unready = partial(_unready, self._address)
        self._drivers[:] = [Driver(_PROGRAM, arguments, {**environment, **self._environment}, unready)]
        return self._drivers[0]

    def _variables(self) -> dict[str, str]:
        """Return the environment of the processes that run the queries."""
        found = {"POLARS_MAX_THREADS": str(max(2, self._cpus))}
        if self._memory_limit is not None:
            found["POLARS_OOMKILL_THRESHOLD_MB"] = str(self._memory_limit // _MIB)
        return found

    def end_processes(self) -> None:
        """End the driver and wait for that natively; see `close`."""
        with self._lock:
            self._is_closed = True
            drivers = [*self._drivers]
        for driver in drivers:
            driver.close(EngineClosed)

    def forget(self) -> None:
        """Leave the driver to the process that has started it. Called in a fork of it."""
        drivers = self._drivers
        self._reset()
        for driver in drivers:
            driver.forget()


class Partitions:
    """A query over many files, see `RayTasks.scan_partitions`. It can be collected more than once."""

    def __init__(
        self, engine: RayTasks, lfs: Sequence[pl.LazyFrame], reduce: Callable[[pl.LazyFrame], pl.LazyFrame]
    ) -> None:
        self._engine = engine
        self._lfs = list(lfs)
        self._reduce = reduce

    def __repr__(self) -> str:
        return f"<Partitions of {len(self._lfs)} files>"

    def collect(self) -> pl.DataFrame:
        """Run the query and return its frame. The calling greenlet waits; for a `Result`: ``greendata.run(q.collect)``.

        Raises:
            NotAFrame: *reduce* does not return a LazyFrame.
            SchemaError: the parts differ in their columns.
            NodeLost, WorkerDied, ClusterUnreachable and others: see `RayTasks.collect`.
        """
        return pool.execute(self._collect)

    def _collect(self) -> pl.DataFrame:
        return self._engine._reduce(self._lfs, self._reduce)

    def explain(self) -> str:
        """Return the plan for the first file, and the plan that reduces the parts.

        Polars reads the schema of the first file for it, so this process must have access to that. The calling greenlet
        waits.

        Raises:
            NotAFrame: *reduce* does not return a LazyFrame.
        """
        return pool.call(self._explain)

    def _explain(self) -> str:
        first = self._lfs[0]
        reduced = self._reduce(pl.LazyFrame(schema=first.collect_schema()))
        if not isinstance(reduced, pl.LazyFrame):
            raise NotAFrame(reduced, "LazyFrame", REDUCED)
        plan = _indented(first.explain())
        return f"MAP, {counted(len(self._lfs), 'task')}\n{plan}\nREDUCE, 1 task\n{_indented(reduced.explain())}"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _same(parts: pl.LazyFrame) -> pl.LazyFrame:
    return parts


def _unready(address: str, wrote: str) -> ClusterUnreachable:
    return ClusterUnreachable(address, wrote or "its driver did not start")


def _kill_all(drivers: list[Driver]) -> None:
    for driver in drivers:
        driver.kill()


_PROGRAM = "greendata.engines.ray_cluster.program:serve"
_ADDRESS = re.compile(r"auto|[^/\s]+:\d+")
