"""The verbs: Polars' own names and keyword arguments, each returning a `Result` at once.

Every verb takes three more arguments than the Polars function of that name:

- ``timeout``: the deadline in seconds, for queue wait and run time together. If the call is inside `greendata.deadline`
  blocks, the nearest deadline counts. When it passes, the result fails with `DeadlineExceeded`.
- ``key``: jobs with different keys, for example tenants or routes, take turns.
- ``label``: the name of the job in errors and statistics; the verb's name if None.

Every verb raises these errors when it is called, and then no job is queued: `NotAFrame`, `BadEngine`, `BadTimeout`,
TypeError for an argument that Polars does not have, `PoolFull`, `PoolClosed` and `PolarsForked`. Errors of Polars are
raised by the result. A sink that is cancelled or expires leaves what Polars has written by then. Safe from any thread.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable
from functools import lru_cache, partial
from io import StringIO
from typing import IO, Any, TypeVar

import polars as pl

from greendata.errors import NotAFrame, NotCallable
from greendata.hub.result import Result
from greendata.pool import pool
from greendata.query.batches import Batches
from greendata.query.chunked_text import json_text, ndjson_text
from greendata.query.engine import engine_of

__all__ = (
    "batches",
    "collect",
    "collect_all",
    "collect_schema",
    "explain",
    "read_csv",
    "read_database_uri",
    "read_ipc",
    "read_ndjson",
    "read_parquet",
    "run",
    "sink_csv",
    "sink_ipc",
    "sink_ndjson",
    "sink_parquet",
    "write_csv",
    "write_ipc",
    "write_json",
    "write_ndjson",
    "write_parquet",
)

T = TypeVar("T")

_SINK_DOC = """Write *lf* to *path* while it is computed: ``lf.{name}(path, **options)`` in the pool.

Example:
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     {name}(pl.LazyFrame({{"a": [1, 2]}}), folder + "/a.{suffix}").get(timeout=5)
"""

_READ_DOC = """Read a frame: ``polars.{name}(source, **options)`` in the pool.

Example:
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     sink_{suffix}(pl.LazyFrame({{"a": [1, 2]}}), folder + "/a.{suffix}").get(timeout=5)
    ...     {name}(folder + "/a.{suffix}").get(timeout=5).height
    2
"""

_WRITE_DOC = """Write a frame: ``df.{name}(file, **options)`` in the pool.

Example:
    >>> from io import BytesIO
    >>> file = BytesIO()
    >>> _ = {name}(pl.DataFrame({{"a": [1, 2]}}), file).get(timeout=5)
    >>> len(file.getvalue()) > 0
    True
"""


def run(
    func: Callable[..., T],
    /,
    *args: Any,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
    **kwargs: Any,
) -> Result[T]:
    """Run ``func(*args, **kwargs)`` in the pool.

    *func* runs in a native thread, with the caller's context variables. It must not use greenlets. If it takes
    arguments named timeout, key or label, bind them with `functools.partial`.

    Raises:
        NotCallable: *func* is not callable.

    Example:
        >>> run(sorted, [3, 1, 2], reverse=True).get(timeout=5)
        [3, 2, 1]
    """
    if not callable(func):
        raise NotCallable(func)
    name = label or getattr(func, "__name__", type(func).__name__)
    work = partial(func, **kwargs) if kwargs else func
    return pool.submit(work, *args, timeout=timeout, key=key, label=name)


def collect(
    lf: pl.LazyFrame,
    *,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
    **options: Any,
) -> Result[pl.DataFrame]:
    """Collect *lf*: ``lf.collect(**options)`` in the pool.

    Example:
        >>> collect(pl.LazyFrame({"a": [1, 2, 3]}).filter(pl.col("a") > 1)).get(timeout=5).height
        2
    """
    return _on_lazy(lf, "collect", (), options, timeout, key, label)


def collect_all(
    lazy_frames: Iterable[pl.LazyFrame],
    *,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
    **options: Any,
) -> Result[list[pl.DataFrame]]:
    """Collect several frames as one job with `polars.collect_all`, which computes common parts once.

    Example:
        >>> lf = pl.LazyFrame({"a": [1, 2, 3]})
        >>> [df.height for df in collect_all([lf, lf.head(1)]).get(timeout=5)]
        [3, 1]
    """
    frames = [_lazy(lf) for lf in lazy_frames]
    _check(pl.collect_all, "collect_all", options)
    work = partial(pl.collect_all, frames, **options)
    return pool.submit(work, timeout=timeout, key=key, label=label or "collect_all")


def batches(
    lf: pl.LazyFrame,
    *,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
    **options: Any,
) -> Batches[pl.DataFrame]:
    """Return the result of *lf* in batches while it is computed; see `Batches`.

    ``timeout`` applies to the whole stream.

    Args:
        options: as for `polars.LazyFrame.collect_batches`: ``chunk_size`` (rows), ``maintain_order``, ``engine``.

    Example:
        >>> with batches(pl.LazyFrame({"a": range(10)}), chunk_size=5) as stream:
        ...     sum(batch["a"].sum() for batch in stream)
        45
    """
    _check(pl.LazyFrame.collect_batches, "collect_batches", options)
    start = partial(_lazy(lf).collect_batches, **options)
    return Batches(start, timeout=timeout, key=key, label=label or "batches")


def explain(
    lf: pl.LazyFrame,
    *,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
    **options: Any,
) -> Result[str]:
    """Return the query plan of *lf*: ``lf.explain(**options)`` in the pool, because it may read files.

    Example:
        >>> "FILTER" in explain(pl.LazyFrame({"a": [1]}).filter(pl.col("a") > 1)).get(timeout=5)
        True
    """
    return _on_lazy(lf, "explain", (), options, timeout, key, label)


def collect_schema(
    lf: pl.LazyFrame, *, timeout: float | None = None, key: Hashable = None, label: str | None = None
) -> Result[pl.Schema]:
    """Return the schema of *lf*: ``lf.collect_schema()`` in the pool, because it may read files.

    Example:
        >>> dict(collect_schema(pl.LazyFrame({"a": [1]})).get(timeout=5))
        {'a': Int64}
    """
    return _on_lazy(lf, "collect_schema", (), {}, timeout, key, label)


def _sink(name: str) -> Callable[..., Result[None]]:
    def sink(
        lf: pl.LazyFrame,
        path: Any,
        *,
        timeout: float | None = None,
        key: Hashable = None,
        label: str | None = None,
        **options: Any,
    ) -> Result[None]:
        return _on_lazy(lf, name, (path,), options, timeout, key, label)

    suffix = name.removeprefix("sink_")
    return _named(sink, name, _SINK_DOC.format(name=name, suffix=suffix))


def _read(name: str) -> Callable[..., Result[pl.DataFrame]]:
    polars_read = getattr(pl, name)

    def read(
        source: Any,
        *args: Any,
        timeout: float | None = None,
        key: Hashable = None,
        label: str | None = None,
        **options: Any,
    ) -> Result[pl.DataFrame]:
        _check(polars_read, name, options)
        work = partial(polars_read, source, *args, **options)
        return pool.submit(work, timeout=timeout, key=key, label=label or name)

    return _named(read, name, _READ_DOC.format(name=name, suffix=name.removeprefix("read_")))


def _write(name: str) -> Callable[..., Result[Any]]:
    def write(
        df: pl.DataFrame,
        file: Any = None,
        *,
        timeout: float | None = None,
        key: Hashable = None,
        label: str | None = None,
        **options: Any,
    ) -> Result[Any]:
        method = getattr(_eager(df), name)
        _check(getattr(pl.DataFrame, name), name, options)
        work = partial(method, file, **options)
        return pool.submit(work, timeout=timeout, key=key, label=label or name)

    return _named(write, name, _WRITE_DOC.format(name=name))


def _named(func: Callable[..., T], name: str, doc: str) -> Callable[..., T]:
    func.__name__ = func.__qualname__ = name
    func.__doc__ = doc
    return func


def read_database_uri(
    query: str | list[str],
    uri: str,
    *,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
    **options: Any,
) -> Result[pl.DataFrame]:
    """Read what *query* selects: ``polars.read_database_uri(query, uri, **options)`` in the pool.

    Polars' database engines contain another copy of SQLite. It corrupts files that `sqlite3` writes in the same
    process, so use `read_sql` for SQLite.

    Example:
        >>> refused = read_database_uri("SELECT 1", "postgresql://127.0.0.1:1/none", timeout=5)
        >>> refused.wait() is None, refused.successful()
        (True, False)
    """
    _check(pl.read_database_uri, "read_database_uri", {name: options[name] for name in options if name != "engine"})
    work = partial(pl.read_database_uri, query, uri, **options)
    return pool.submit(work, timeout=timeout, key=key, label=label or "read_database_uri")


sink_csv = _sink("sink_csv")
sink_ipc = _sink("sink_ipc")
sink_ndjson = _sink("sink_ndjson")
sink_parquet = _sink("sink_parquet")
read_csv = _read("read_csv")
read_ipc = _read("read_ipc")
read_ndjson = _read("read_ndjson")
read_parquet = _read("read_parquet")
write_csv = _write("write_csv")
write_ipc = _write("write_ipc")
write_parquet = _write("write_parquet")


def write_ndjson(
    df: pl.DataFrame,
    file: Any = None,
    *,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
    **options: Any,
) -> Result[str | None]:
    r"""Run ``df.write_ndjson(file, **options)`` in the pool. Text in memory is made in slices, to keep the hub running.

    Example:
        >>> write_ndjson(pl.DataFrame({"a": [1]})).get(timeout=5)
        '{"a":1}\n'
    """
    _check(pl.DataFrame.write_ndjson, "write_ndjson", options)
    whole = partial(_eager(df).write_ndjson, file, **options)
    work = whole if options else _in_slices(df, file, ndjson_text, whole)
    return pool.submit(work, timeout=timeout, key=key, label=label or "write_ndjson")


def write_json(
    df: pl.DataFrame,
    file: Any = None,
    *,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[str | None]:
    """Run ``df.write_json(file)`` in the pool. Text in memory is made in slices, to keep the hub running.

    Example:
        >>> write_json(pl.DataFrame({"a": [1]})).get(timeout=5)
        '[{"a":1}]'
    """
    work = _in_slices(df, file, json_text, partial(_eager(df).write_json, file))
    return pool.submit(work, timeout=timeout, key=key, label=label or "write_json")


def _in_slices(
    df: pl.DataFrame, file: Any, text: Callable[[pl.DataFrame], str], whole: Callable[[], str | None]
) -> Callable[[], str | None]:
    if file is None:
        return partial(text, df)
    if isinstance(file, StringIO):
        return partial(_write_text, file, text, df)
    return whole


def _write_text(file: IO[str], text: Callable[[pl.DataFrame], str], df: pl.DataFrame) -> None:
    file.write(text(df))


def _on_lazy(
    lf: pl.LazyFrame,
    name: str,
    args: tuple[Any, ...],
    options: dict[str, Any],
    timeout: float | None,
    key: Hashable,
    label: str | None,
) -> Result[Any]:
    method = getattr(_lazy(lf), name)
    if options:
        _check(getattr(pl.LazyFrame, name), name, options)
        method = partial(method, **options)
    return pool.submit(method, *args, timeout=timeout, key=key, label=label or name)


def _lazy(lf: object) -> pl.LazyFrame:
    if not isinstance(lf, pl.LazyFrame):
        raise NotAFrame(lf, "LazyFrame")
    return lf


def _eager(df: object) -> pl.DataFrame:
    if not isinstance(df, pl.DataFrame):
        raise NotAFrame(df, "DataFrame")
    return df


def _check(polars_function: Callable[..., Any], name: str, options: dict[str, Any]) -> None:
    """Raise, at the call, the error that Polars raises for an argument that it does not have."""
    if not options.keys() <= (known := _parameters(polars_function)):
        raise TypeError(f"{name}() got an unexpected keyword argument {sorted(options.keys() - known)[0]!r}")
    if "engine" in options:
        engine_of(options["engine"])


@lru_cache
def _parameters(polars_function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(polars_function).parameters)
