"""The private names of Polars that greendata uses. No other file uses private names of Polars.

A test classifies every name of the installed version's native classes, so renamed and new functions are noticed. The
lists are:

- `ESSENTIAL`: every query uses one of these. Without them the patch would have no effect.
- `EXECUTIONS`: these compute, read or write. The patch runs them in the pool. Some of them may be missing.
- `ENGINE_CHOICES`: these choose the engine. The patch replaces them while a place was chosen for queries.
- `HANDOFFS`: these return at once and compute elsewhere. They do not block the hub, but they hang after a fork.
- `THREADED`: these are too cheap to run in the pool, but they hang after a fork.

The functions look names up when they are called, so a missing name raises there and not at import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    # Not imported: code that runs when Polars is imported, such as the patch, may be the first to need this file.
    import polars as pl
    from polars._typing import ArrowSchemaExportable as ArrowSchemaExportable
    from polars._typing import ColumnNameOrSelector as ColumnNameOrSelector
    from polars._typing import CsvEncoding as CsvEncoding
    from polars._typing import CsvQuoteStyle as CsvQuoteStyle
    from polars._typing import DbReadEngine as DbReadEngine
    from polars._typing import EngineType as EngineType
    from polars._typing import ExplainFormat as ExplainFormat
    from polars._typing import FileSource as FileSource
    from polars._typing import IntoExpr as IntoExpr
    from polars._typing import IpcCompression as IpcCompression
    from polars._typing import JoinBuildSide as JoinBuildSide
    from polars._typing import JoinStrategy as JoinStrategy
    from polars._typing import JoinValidation as JoinValidation
    from polars._typing import MaintainOrderJoin as MaintainOrderJoin
    from polars._typing import ParallelStrategy as ParallelStrategy
    from polars._typing import ParquetCompression as ParquetCompression
    from polars._typing import ParquetMetadata as ParquetMetadata
    from polars._typing import PolarsDataType as PolarsDataType
    from polars._typing import SchemaDefinition as SchemaDefinition
    from polars._typing import SchemaDict as SchemaDict
    from polars._typing import StorageOptionsDict as StorageOptionsDict
    from polars._typing import SyncOnCloseMethod as SyncOnCloseMethod
    from polars._typing import TimeUnit as TimeUnit
    from polars._typing import UniqueKeepStrategy as UniqueKeepStrategy
    from polars.io.partition import SinkedPathsCallback as SinkedPathsCallback

__all__ = (
    "COLLECT_SCHEMA",
    "ENGINE_CHOICES",
    "ESSENTIAL",
    "EXECUTIONS",
    "HANDOFFS",
    "THREADED",
    "UNTHREADED",
    "engine_affinity",
    "engine_named",
    "flags_of",
    "frame_of",
    "native_frame",
    "native_name",
    "native_plan",
    "plan_of",
    "read_flags",
)

COLLECT_SCHEMA = "polars._plr:PyLazyFrame.collect_schema"

ESSENTIAL = (
    # Lazy frames: every engine, sink, eager operation and eager reader ends in one of these.
    "polars._plr:PyLazyFrame.collect",
    "polars._plr:PyLazyFrame.collect_batches",
    "polars._plr:collect_all",
    "polars.lazyframe.engine:_CollectBatches.__next__",
    # Resolving a schema may read files and object stores; many operations do it implicitly.
    COLLECT_SCHEMA,
)

EXECUTIONS = (
    *ESSENTIAL,
    # Resolving a plan may do so too.
    "polars._plr:PyLazyFrame.describe_optimized_plan",
    "polars._plr:PyLazyFrame.describe_optimized_plan_tree",
    "polars._plr:PyLazyFrame.describe_plan",
    "polars._plr:PyLazyFrame.describe_plan_tree",
    "polars._plr:PyLazyFrame.to_dot",
    "polars._plr:PyLazyFrame.to_dot_streaming_phys",
    "polars._plr:explain_all",
    # Waiting for a query that was started with collect(background=True).
    "polars._plr:PyInProcessQuery.fetch_blocking",
    # Eager readers and writers with a separate native function.
    "polars._plr:PyDataFrame.deserialize_binary",
    "polars._plr:PyDataFrame.deserialize_json",
    "polars._plr:PyDataFrame.read_avro",
    "polars._plr:PyDataFrame.read_ipc_stream",
    "polars._plr:PyDataFrame.read_json",
    "polars._plr:PyDataFrame.serialize_binary",
    "polars._plr:PyDataFrame.serialize_json",
    "polars._plr:PyDataFrame.write_avro",
    "polars._plr:PyDataFrame.write_ipc_stream",
    "polars._plr:PyDataFrame.write_json",
    "polars._plr:PyLazyFrame.deserialize_binary",  # a plan contains its source frames
    "polars._plr:PyLazyFrame.deserialize_json",
    "polars._plr:PyLazyFrame.serialize_binary",
    "polars._plr:PyLazyFrame.serialize_json",
    "polars.io.database._utils:_read_sql_adbc",
    "polars.io.database._utils:_read_sql_connectorx",
    "polars.io.ipc.functions:_read_ipc_schema",  # Polars has imported these two functions by name
    "polars.io.parquet.functions:_read_parquet_metadata",
    # Requests to a catalog, over the network.
    "polars._plr:PyCatalogClient.create_catalog",
    "polars._plr:PyCatalogClient.create_namespace",
    "polars._plr:PyCatalogClient.create_table",
    "polars._plr:PyCatalogClient.delete_catalog",
    "polars._plr:PyCatalogClient.delete_namespace",
    "polars._plr:PyCatalogClient.delete_table",
    "polars._plr:PyCatalogClient.get_table_credentials",
    "polars._plr:PyCatalogClient.get_table_info",
    "polars._plr:PyCatalogClient.list_catalogs",
    "polars._plr:PyCatalogClient.list_namespaces",
    "polars._plr:PyCatalogClient.list_tables",
    # Eager operations with a separate native function that cost more than one pass over the column, and those that
    # call a function of the user: greenlets must not switch inside a Rust frame.
    "polars._plr:PyDataFrame.group_by_map_groups",
    "polars._plr:PyDataFrame.hash_rows",
    "polars._plr:PyDataFrame.is_duplicated",
    "polars._plr:PyDataFrame.is_unique",
    "polars._plr:PyDataFrame.map_rows",
    "polars._plr:PyDataFrame.n_unique",
    "polars._plr:PyDataFrame.partition_by",
    "polars._plr:PyDataFrame.sample_frac",
    "polars._plr:PyDataFrame.sample_n",
    "polars._plr:PyDataFrame.to_dummies",
    "polars._plr:PyDataFrame.transpose",
    "polars._plr:PyDataFrame.upsample",
    "polars._plr:PySeries.map_elements",
    "polars._plr:PySeries.n_unique",
    "polars._plr:PySeries.sort",
    "polars._plr:PySeries.str_json_decode",
    "polars._plr:PySeries.str_to_datetime_infer",
    "polars._plr:PySeries.str_to_decimal_infer",
    "polars._plr:PySeries.to_dummies",
    "polars._plr:PySeries.value_counts",
)

# These return the engine for what a call was given. The modules have imported one function by name.
ENGINE_CHOICES = (
    "polars.lazyframe.frame:_select_engine",
    "polars.functions.lazy:_select_engine",
)

HANDOFFS = (
    "polars._plr:PyLazyFrame.collect_concurrently",
    "polars._plr:PyLazyFrame.collect_with_callback",
    "polars._plr:collect_all_with_callback",
)

# These use Polars' threads, too, though they cost one pass at most: they would hang after a fork.
THREADED = (
    "polars._plr:PyDataFrame.gather",
    "polars._plr:PyDataFrame.gather_with_series",
    "polars._plr:PyDataFrame.to_arrow",
    "polars._plr:concat_df",
    # If a column is in several pieces.
    "polars._plr:PyDataFrame.rechunk",
    "polars._plr:PyDataFrame.row_tuples",
)

# Executions that compute in the calling thread: they work after a fork.
UNTHREADED = (
    "polars._plr:PyDataFrame.deserialize_binary",
    "polars._plr:PyDataFrame.read_ipc_stream",
    "polars._plr:PyDataFrame.write_json",
    "polars._plr:PyLazyFrame.deserialize_binary",
    "polars.lazyframe.engine:_CollectBatches.__next__",
)


def engine_affinity() -> str:
    """Return the name of the engine that ``engine="auto"`` means, if no engine object was set.

    Example:
        >>> engine_affinity()
        'auto'
    """
    from polars._plr import get_engine_affinity

    return get_engine_affinity()


def engine_named(name: str) -> pl.Engine:
    """Return Polars' engine of that name.

    Raises:
        ValueError: there is no such engine.

    Example:
        >>> engine_named("streaming").name
        'streaming'
    """
    from polars.lazyframe.engine_config import _engine_from_name

    return _engine_from_name(name)  # type: ignore[arg-type]


def native_plan(lf: pl.LazyFrame) -> Any:
    """Return the native object of *lf*, or None if this Polars stores it under another name.

    Example:
        >>> import polars as pl
        >>> type(native_plan(pl.LazyFrame())).__name__
        'PyLazyFrame'
    """
    return getattr(lf, "_ldf", None)


def plan_of(native: Any) -> pl.LazyFrame:
    """Return the query whose native object *native* is.

    Example:
        >>> import polars as pl
        >>> plan_of(native_plan(pl.LazyFrame({"a": [1]}))).collect().item()
        1
    """
    from polars._utils.wrap import wrap_ldf

    return wrap_ldf(native)


def frame_of(native: Any) -> pl.DataFrame:
    """Return the frame whose native object *native* is.

    Example:
        >>> import polars as pl
        >>> frame_of(native_frame(pl.DataFrame({"a": [1]}))).item()
        1
    """
    from polars._utils.wrap import wrap_df

    return wrap_df(native)


def native_frame(frame: pl.DataFrame) -> Any:
    """Return the native object of *frame*.

    Example:
        >>> import polars as pl
        >>> type(native_frame(pl.DataFrame())).__name__
        'PyDataFrame'
    """
    return frame._df


def native_name(name: str) -> str:
    """Return the whole name of a native function.

    Example:
        >>> native_name("PyLazyFrame.collect") in EXECUTIONS
        True
    """
    return f"polars._plr:{name}"


def read_flags(optimizations: pl.QueryOptFlags) -> dict[str, bool]:
    """Return the flags of *optimizations* by name, since the object cannot be pickled.

    Example:
        >>> import polars as pl
        >>> read_flags(pl.QueryOptFlags.none())["predicate_pushdown"]
        False
    """
    native = optimizations._pyoptflags
    is_flag = {name for name, value in vars(type(native)).items() if type(value).__name__ == "getset_descriptor"}
    return {name: getattr(native, name) for name in sorted(is_flag)}


def flags_of(flags: Mapping[str, bool]) -> pl.QueryOptFlags:
    """Return the object whose flags `read_flags` has read.

    Example:
        >>> flags_of({"predicate_pushdown": False}).predicate_pushdown
        False
    """
    import polars as pl

    optimizations = pl.QueryOptFlags()
    for name, value in flags.items():
        setattr(optimizations._pyoptflags, name, value)
    return optimizations
