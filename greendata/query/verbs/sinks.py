"""Sinks: write the result of a lazy frame to a file while it is computed."""

from __future__ import annotations

from collections.abc import Hashable
from typing import IO, TYPE_CHECKING, Literal

import polars as pl
from polars.lazyframe.opt_flags import DEFAULT_QUERY_OPT_FLAGS

from greendata.hub.result import Result
from greendata.query.options import lazy, submitted

if TYPE_CHECKING:
    from pathlib import Path

    from greendata.internals.polars import (
        ArrowSchemaExportable,
        CsvQuoteStyle,
        EngineType,
        IpcCompression,
        ParquetCompression,
        ParquetMetadata,
        SinkedPathsCallback,
        StorageOptionsDict,
        SyncOnCloseMethod,
    )

__all__ = ("sink_csv", "sink_ipc", "sink_ndjson", "sink_parquet")


def sink_csv(
    lf: pl.LazyFrame,
    path: str | Path | IO[bytes] | IO[str] | pl.PartitionBy,
    *,
    include_bom: bool = False,
    compression: Literal["uncompressed", "gzip", "zstd"] = "uncompressed",
    compression_level: int | None = None,
    check_extension: bool = True,
    include_header: bool = True,
    separator: str = ",",
    line_terminator: str = "\n",
    quote_char: str = '"',
    batch_size: int = 1024,
    datetime_format: str | None = None,
    date_format: str | None = None,
    time_format: str | None = None,
    float_scientific: bool | None = None,
    float_precision: int | None = None,
    decimal_comma: bool = False,
    null_value: str | None = None,
    quote_style: CsvQuoteStyle | None = None,
    maintain_order: bool = True,
    storage_options: StorageOptionsDict | None = None,
    credential_provider: pl.CredentialProviderFunction | Literal["auto"] | None = "auto",
    sync_on_close: SyncOnCloseMethod | None = None,
    mkdir: bool = False,
    engine: EngineType = "auto",
    optimizations: pl.QueryOptFlags = DEFAULT_QUERY_OPT_FLAGS,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[None]:
    """Write the result of *lf* to *path* while it is computed: ``lf.sink_csv(path)`` in the pool.

    Safe from any thread.

    Args:
        lf: the query.
        path: a path, an open file, or a `polars.PartitionBy` for several files.
        include_bom: begin with a byte order mark, which Excel needs to read UTF-8.
        compression: "uncompressed", "gzip" or "zstd".
        compression_level: the level of *compression*; None for its default. Higher means smaller and slower.
        check_extension: refuse a path whose extension does not fit *compression*.
        include_header: write the names of the columns in the first line.
        separator: the character between two values.
        line_terminator: the text at the end of each line.
        quote_char: the character around values that need quoting.
        batch_size: the number of rows that one thread writes at a time.
        datetime_format: a strftime format for datetimes; None for the precision of the column.
        date_format: a strftime format for dates.
        time_format: a strftime format for times.
        float_scientific: write floats always (True) or never (False) with an exponent; None lets Polars choose.
        float_precision: the number of decimal places of floats; None for as many as needed.
        decimal_comma: write floats with a comma as the decimal separator.
        null_value: the text for nulls; None for nothing.
        quote_style: which values are quoted: "necessary" (also if None), "always", "non_numeric" or "never".
        maintain_order: write the rows in the order of the query. False can be faster.
        storage_options: options of the object store, for a path in a cloud.
        credential_provider: a function that returns credentials for the cloud; "auto" finds them; None uses none.
        sync_on_close: flush the file to the disk at the end: its "data", "all" with its metadata; None for neither.
        mkdir: create missing folders of the path.
        engine: the engine that computes: "auto", "in-memory", "streaming", "gpu" or a `polars.Engine`.
        optimizations: the optimizations that Polars may use, a `polars.QueryOptFlags`.
        timeout: the deadline in seconds, for queue wait and run time together; None for no deadline.
        key: jobs with different keys, for example tenants or routes, take turns.
        label: the name of the job in errors and statistics; the verb's name if None.

    Raises:
        NotAFrame, BadEngine, BadTimeout: an argument that cannot be used. Here and below, nothing was queued.
        RouteFailed, BadSetting: the route, or the engine of the settings, failed.
        PoolFull, PoolClosed, PolarsForked: the pool does not accept the job.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     sink_csv(pl.LazyFrame({"a": [1, 2]}), folder + "/a.csv").get(timeout=5)
    """
    return submitted(sink_csv, lazy(lf).sink_csv, locals(), path)


def sink_ipc(
    lf: pl.LazyFrame,
    path: str | Path | IO[bytes] | pl.PartitionBy,
    *,
    compression: IpcCompression | None = "uncompressed",
    compat_level: pl.CompatLevel | None = None,
    record_batch_size: int | None = None,
    maintain_order: bool = True,
    storage_options: StorageOptionsDict | None = None,
    credential_provider: pl.CredentialProviderFunction | Literal["auto"] | None = "auto",
    sync_on_close: SyncOnCloseMethod | None = None,
    mkdir: bool = False,
    engine: EngineType = "auto",
    optimizations: pl.QueryOptFlags = DEFAULT_QUERY_OPT_FLAGS,
    sinked_paths_callback: SinkedPathsCallback | None = None,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[None]:
    """Write the result of *lf* to *path* while it is computed: ``lf.sink_ipc(path)`` in the pool.

    Safe from any thread.

    Args:
        lf: the query.
        path: a path, an open file, or a `polars.PartitionBy` for several files.
        compression: "uncompressed", "lz4" or "zstd".
        compat_level: the version of Arrow's types that the file uses, a `polars.CompatLevel`; None for the newest.
        record_batch_size: the number of rows in a record batch; None to keep those of the query.
        maintain_order: write the rows in the order of the query. False can be faster.
        storage_options: options of the object store, for a path in a cloud.
        credential_provider: a function that returns credentials for the cloud; "auto" finds them; None uses none.
        sync_on_close: flush the file to the disk at the end: its "data", "all" with its metadata; None for neither.
        mkdir: create missing folders of the path.
        engine: the engine that computes: "auto", "in-memory", "streaming", "gpu" or a `polars.Engine`.
        optimizations: the optimizations that Polars may use, a `polars.QueryOptFlags`.
        sinked_paths_callback: called with the paths of the files that were written.
        timeout: the deadline in seconds, for queue wait and run time together; None for no deadline.
        key: jobs with different keys, for example tenants or routes, take turns.
        label: the name of the job in errors and statistics; the verb's name if None.

    Raises:
        NotAFrame, BadEngine, BadTimeout: an argument that cannot be used. Here and below, nothing was queued.
        RouteFailed, BadSetting: the route, or the engine of the settings, failed.
        PoolFull, PoolClosed, PolarsForked: the pool does not accept the job.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     sink_ipc(pl.LazyFrame({"a": [1, 2]}), folder + "/a.ipc").get(timeout=5)
    """
    return submitted(sink_ipc, lazy(lf).sink_ipc, locals(), path)


def sink_ndjson(
    lf: pl.LazyFrame,
    path: str | Path | IO[bytes] | IO[str] | pl.PartitionBy,
    *,
    compression: Literal["uncompressed", "gzip", "zstd"] = "uncompressed",
    compression_level: int | None = None,
    check_extension: bool = True,
    maintain_order: bool = True,
    storage_options: StorageOptionsDict | None = None,
    credential_provider: pl.CredentialProviderFunction | Literal["auto"] | None = "auto",
    sync_on_close: SyncOnCloseMethod | None = None,
    mkdir: bool = False,
    engine: EngineType = "auto",
    optimizations: pl.QueryOptFlags = DEFAULT_QUERY_OPT_FLAGS,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[None]:
    """Write the result of *lf* to *path* while it is computed: ``lf.sink_ndjson(path)`` in the pool.

    Safe from any thread.

    Args:
        lf: the query.
        path: a path, an open file, or a `polars.PartitionBy` for several files.
        compression: "uncompressed", "gzip" or "zstd".
        compression_level: the level of *compression*; None for its default. Higher means smaller and slower.
        check_extension: refuse a path whose extension does not fit *compression*.
        maintain_order: write the rows in the order of the query. False can be faster.
        storage_options: options of the object store, for a path in a cloud.
        credential_provider: a function that returns credentials for the cloud; "auto" finds them; None uses none.
        sync_on_close: flush the file to the disk at the end: its "data", "all" with its metadata; None for neither.
        mkdir: create missing folders of the path.
        engine: the engine that computes: "auto", "in-memory", "streaming", "gpu" or a `polars.Engine`.
        optimizations: the optimizations that Polars may use, a `polars.QueryOptFlags`.
        timeout: the deadline in seconds, for queue wait and run time together; None for no deadline.
        key: jobs with different keys, for example tenants or routes, take turns.
        label: the name of the job in errors and statistics; the verb's name if None.

    Raises:
        NotAFrame, BadEngine, BadTimeout: an argument that cannot be used. Here and below, nothing was queued.
        RouteFailed, BadSetting: the route, or the engine of the settings, failed.
        PoolFull, PoolClosed, PolarsForked: the pool does not accept the job.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     sink_ndjson(pl.LazyFrame({"a": [1, 2]}), folder + "/a.ndjson").get(timeout=5)
    """
    return submitted(sink_ndjson, lazy(lf).sink_ndjson, locals(), path)


def sink_parquet(
    lf: pl.LazyFrame,
    path: str | Path | IO[bytes] | pl.PartitionBy,
    *,
    compression: ParquetCompression = "zstd",
    compression_level: int | None = None,
    statistics: bool | str | dict[str, bool] = True,
    row_group_size: int | None = None,
    data_page_size: int | None = None,
    maintain_order: bool = True,
    storage_options: StorageOptionsDict | None = None,
    credential_provider: pl.CredentialProviderFunction | Literal["auto"] | None = "auto",
    sync_on_close: SyncOnCloseMethod | None = None,
    metadata: ParquetMetadata | None = None,
    arrow_schema: ArrowSchemaExportable | None = None,
    encryption: pl.ParquetEncryptionProperties | None = None,
    mkdir: bool = False,
    engine: EngineType = "auto",
    optimizations: pl.QueryOptFlags = DEFAULT_QUERY_OPT_FLAGS,
    sinked_paths_callback: SinkedPathsCallback | None = None,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[None]:
    """Write the result of *lf* to *path* while it is computed: ``lf.sink_parquet(path)`` in the pool.

    Safe from any thread.

    Args:
        lf: the query.
        path: a path, an open file, or a `polars.PartitionBy` for several files.
        compression: "zstd", "lz4", "snappy", "gzip", "brotli" or "uncompressed".
        compression_level: the level of *compression*; None for its default. Higher means smaller and slower.
        statistics: write statistics of columns: True, False, "full", or a dict of the kinds.
        row_group_size: the number of rows in a row group; None lets Polars choose.
        data_page_size: the size of a data page in bytes; None for 1 MiB.
        maintain_order: write the rows in the order of the query. False can be faster.
        storage_options: options of the object store, for a path in a cloud.
        credential_provider: a function that returns credentials for the cloud; "auto" finds them; None uses none.
        sync_on_close: flush the file to the disk at the end: its "data", "all" with its metadata; None for neither.
        metadata: texts for the metadata of the file, or a function that returns them.
        arrow_schema: the Arrow schema that is stored in the file; None for that of the query.
        encryption: how the file is encrypted; needs Polars 2.1.
        mkdir: create missing folders of the path.
        engine: the engine that computes: "auto", "in-memory", "streaming", "gpu" or a `polars.Engine`.
        optimizations: the optimizations that Polars may use, a `polars.QueryOptFlags`.
        sinked_paths_callback: called with the paths of the files that were written.
        timeout: the deadline in seconds, for queue wait and run time together; None for no deadline.
        key: jobs with different keys, for example tenants or routes, take turns.
        label: the name of the job in errors and statistics; the verb's name if None.

    Raises:
        NotAFrame, BadEngine, BadTimeout: an argument that cannot be used. Here and below, nothing was queued.
        RouteFailed, BadSetting: the route, or the engine of the settings, failed.
        PoolFull, PoolClosed, PolarsForked: the pool does not accept the job.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     sink_parquet(pl.LazyFrame({"a": [1, 2]}), folder + "/a.parquet").get(timeout=5)
    """
    return submitted(sink_parquet, lazy(lf).sink_parquet, locals(), path)
