"""Writers: frames into files and texts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial
from io import BytesIO, StringIO
from typing import IO, TYPE_CHECKING, Any, Literal, TypeVar, overload

import polars as pl

from greendata.hub.result import Result
from greendata.pool import pool
from greendata.query.chunked_text import SLICE_BYTES, json_document, ndjson_lines, slices, text_of
from greendata.query.options import eager, options_for, submitted

if TYPE_CHECKING:
    from io import IOBase
    from pathlib import Path

    from greendata.internals.polars import (
        ArrowSchemaExportable,
        CsvQuoteStyle,
        IpcCompression,
        ParquetCompression,
        ParquetMetadata,
        StorageOptionsDict,
    )

__all__ = ("write_csv", "write_ipc", "write_json", "write_ndjson", "write_parquet")

CSV_BYTES = 1 << 22  # of columns that become CSV in one step

T = TypeVar("T", str, bytes)


@overload
def write_csv(
    df: pl.DataFrame,
    file: None = None,
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
    storage_options: StorageOptionsDict | None = None,
    credential_provider: pl.CredentialProviderFunction | Literal["auto"] | None = "auto",
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[str]: ...
@overload
def write_csv(
    df: pl.DataFrame,
    file: str | Path | IO[str] | IO[bytes],
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
    storage_options: StorageOptionsDict | None = None,
    credential_provider: pl.CredentialProviderFunction | Literal["auto"] | None = "auto",
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[None]: ...
def write_csv(
    df: pl.DataFrame,
    file: str | Path | IO[str] | IO[bytes] | None = None,
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
    storage_options: StorageOptionsDict | None = None,
    credential_provider: pl.CredentialProviderFunction | Literal["auto"] | None = "auto",
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[Any]:
    """Write a frame: ``df.write_csv(file)`` in the pool. Safe from any thread.

    Args:
        df: the frame to write.
        file: a path or an open file; None returns the text.
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
        storage_options: options of the object store, for a path in a cloud.
        credential_provider: a function that returns credentials for the cloud; "auto" finds them; None uses none.
        timeout: the deadline in seconds, for queue wait and run time together; None for no deadline.
        key: jobs with different keys, for example tenants or routes, take turns.
        label: the name of the job in errors and statistics; the verb's name if None.

    Raises:
        NotAFrame, BadTimeout: an argument that cannot be used. Here and below, nothing was queued.
        PoolFull, PoolClosed, PolarsForked: the pool does not accept the job.

    Example:
        >>> from io import BytesIO
        >>> file = BytesIO()
        >>> _ = write_csv(pl.DataFrame({"a": [1, 2]}), file).get(timeout=5)
        >>> len(file.getvalue()) > 0
        True
    """
    options = options_for(write_csv, eager(df).write_csv, locals())
    work: Callable[[], str | None] = partial(df.write_csv, file, **options)
    if (file is None or isinstance(file, BytesIO)) and "compression" not in options:
        work = partial(_write_csv, df, file, options)
    return pool.submit(work, timeout=timeout, key=key, label=label or "write_csv")


@overload
def write_ipc(
    df: pl.DataFrame,
    file: None,
    *,
    compression: IpcCompression = "uncompressed",
    compat_level: pl.CompatLevel | None = None,
    record_batch_size: int | None = None,
    storage_options: StorageOptionsDict | None = None,
    credential_provider: pl.CredentialProviderFunction | Literal["auto"] | None = "auto",
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[BytesIO]: ...
@overload
def write_ipc(
    df: pl.DataFrame,
    file: str | Path | IO[bytes],
    *,
    compression: IpcCompression = "uncompressed",
    compat_level: pl.CompatLevel | None = None,
    record_batch_size: int | None = None,
    storage_options: StorageOptionsDict | None = None,
    credential_provider: pl.CredentialProviderFunction | Literal["auto"] | None = "auto",
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[None]: ...
def write_ipc(
    df: pl.DataFrame,
    file: str | Path | IO[bytes] | None,
    *,
    compression: IpcCompression = "uncompressed",
    compat_level: pl.CompatLevel | None = None,
    record_batch_size: int | None = None,
    storage_options: StorageOptionsDict | None = None,
    credential_provider: pl.CredentialProviderFunction | Literal["auto"] | None = "auto",
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[Any]:
    """Write a frame: ``df.write_ipc(file)`` in the pool. Safe from any thread.

    Args:
        df: the frame to write.
        file: a path or an open file; None returns an `io.BytesIO`.
        compression: "uncompressed", "lz4" or "zstd".
        compat_level: the version of Arrow's types that the file uses, a `polars.CompatLevel`; None for the newest.
        record_batch_size: the number of rows in a record batch; None to keep those of the frame.
        storage_options: options of the object store, for a path in a cloud.
        credential_provider: a function that returns credentials for the cloud; "auto" finds them; None uses none.
        timeout: the deadline in seconds, for queue wait and run time together; None for no deadline.
        key: jobs with different keys, for example tenants or routes, take turns.
        label: the name of the job in errors and statistics; the verb's name if None.

    Raises:
        NotAFrame, BadTimeout: an argument that cannot be used. Here and below, nothing was queued.
        PoolFull, PoolClosed, PolarsForked: the pool does not accept the job.

    Example:
        >>> from io import BytesIO
        >>> file = BytesIO()
        >>> _ = write_ipc(pl.DataFrame({"a": [1, 2]}), file).get(timeout=5)
        >>> len(file.getvalue()) > 0
        True
    """
    return submitted(write_ipc, eager(df).write_ipc, locals(), file)


def write_parquet(
    df: pl.DataFrame,
    file: str | Path | IO[bytes],
    *,
    compression: ParquetCompression = "zstd",
    compression_level: int | None = None,
    statistics: bool | str | dict[str, bool] = True,
    row_group_size: int | None = None,
    data_page_size: int | None = None,
    use_pyarrow: bool = False,
    pyarrow_options: dict[str, Any] | None = None,
    partition_by: str | Sequence[str] | None = None,
    partition_chunk_size_bytes: int = 4 * 1024**3,
    storage_options: StorageOptionsDict | None = None,
    credential_provider: pl.CredentialProviderFunction | Literal["auto"] | None = "auto",
    metadata: ParquetMetadata | None = None,
    arrow_schema: ArrowSchemaExportable | None = None,
    encryption: pl.ParquetEncryptionProperties | None = None,
    mkdir: bool = False,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[None]:
    """Write a frame: ``df.write_parquet(file)`` in the pool. Safe from any thread.

    Args:
        df: the frame to write.
        file: a path or an open file.
        compression: "zstd", "lz4", "snappy", "gzip", "brotli" or "uncompressed".
        compression_level: the level of *compression*; None for its default. Higher means smaller and slower.
        statistics: write statistics of columns: True, False, "full", or a dict of the kinds.
        row_group_size: the number of rows in a row group; None lets Polars choose.
        data_page_size: the size of a data page in bytes; None for 1 MiB.
        use_pyarrow: let pyarrow write the file instead of Polars.
        pyarrow_options: keyword arguments for pyarrow.
        partition_by: columns by whose values the rows are written to separate files.
        partition_chunk_size_bytes: the approximate size of each of these files, in bytes.
        storage_options: options of the object store, for a path in a cloud.
        credential_provider: a function that returns credentials for the cloud; "auto" finds them; None uses none.
        metadata: texts for the metadata of the file, or a function that returns them.
        arrow_schema: the Arrow schema that is stored in the file; None for that of the frame.
        encryption: how the file is encrypted; needs Polars 2.1.
        mkdir: create missing folders of the path.
        timeout: the deadline in seconds, for queue wait and run time together; None for no deadline.
        key: jobs with different keys, for example tenants or routes, take turns.
        label: the name of the job in errors and statistics; the verb's name if None.

    Raises:
        NotAFrame, BadTimeout: an argument that cannot be used. Here and below, nothing was queued.
        PoolFull, PoolClosed, PolarsForked: the pool does not accept the job.

    Example:
        >>> from io import BytesIO
        >>> file = BytesIO()
        >>> _ = write_parquet(pl.DataFrame({"a": [1, 2]}), file).get(timeout=5)
        >>> len(file.getvalue()) > 0
        True
    """
    return submitted(write_parquet, eager(df).write_parquet, locals(), file)


@overload
def write_ndjson(
    df: pl.DataFrame,
    file: None = None,
    *,
    compression: Literal["uncompressed", "gzip", "zstd"] = "uncompressed",
    compression_level: int | None = None,
    check_extension: bool = True,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[str]: ...
@overload
def write_ndjson(
    df: pl.DataFrame,
    file: str | Path | IO[bytes] | IO[str],
    *,
    compression: Literal["uncompressed", "gzip", "zstd"] = "uncompressed",
    compression_level: int | None = None,
    check_extension: bool = True,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[None]: ...
def write_ndjson(
    df: pl.DataFrame,
    file: str | Path | IO[bytes] | IO[str] | None = None,
    *,
    compression: Literal["uncompressed", "gzip", "zstd"] = "uncompressed",
    compression_level: int | None = None,
    check_extension: bool = True,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[Any]:
    r"""Write a frame: ``df.write_ndjson(file)`` in the pool. Text in memory is made in slices: the hub keeps running.

    Safe from any thread.

    Args:
        df: the frame to write.
        file: a path or an open file; None returns the text.
        compression: "uncompressed", "gzip" or "zstd".
        compression_level: the level of *compression*; None for its default. Higher means smaller and slower.
        check_extension: refuse a path whose extension does not fit *compression*.
        timeout: the deadline in seconds, for queue wait and run time together; None for no deadline.
        key: jobs with different keys, for example tenants or routes, take turns.
        label: the name of the job in errors and statistics; the verb's name if None.

    Raises:
        NotAFrame, BadTimeout: an argument that cannot be used. Here and below, nothing was queued.
        PoolFull, PoolClosed, PolarsForked: the pool does not accept the job.

    Example:
        >>> write_ndjson(pl.DataFrame({"a": [1]})).get(timeout=5)
        '{"a":1}\n'
    """
    options = options_for(write_ndjson, eager(df).write_ndjson, locals())
    whole = partial(df.write_ndjson, file, **options)
    work = whole if options else _in_slices(df, file, ndjson_lines, whole)
    return pool.submit(work, timeout=timeout, key=key, label=label or "write_ndjson")


@overload
def write_json(
    df: pl.DataFrame,
    file: None = None,
    *,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[str]: ...
@overload
def write_json(
    df: pl.DataFrame,
    file: IOBase | str | Path,
    *,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[None]: ...
def write_json(
    df: pl.DataFrame,
    file: IOBase | str | Path | None = None,
    *,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[Any]:
    """Write a frame: ``df.write_json(file)`` in the pool. Text in memory is made in slices: the hub keeps running.

    Safe from any thread.

    Args:
        df: the frame to write.
        file: a path or an open file; None returns the text.
        timeout: the deadline in seconds, for queue wait and run time together; None for no deadline.
        key: jobs with different keys, for example tenants or routes, take turns.
        label: the name of the job in errors and statistics; the verb's name if None.

    Raises:
        NotAFrame, BadTimeout: an argument that cannot be used. Here and below, nothing was queued.
        PoolFull, PoolClosed, PolarsForked: the pool does not accept the job.

    Example:
        >>> write_json(pl.DataFrame({"a": [1]})).get(timeout=5)
        '[{"a":1}]'
    """
    work = _in_slices(df, file, json_document, partial(eager(df).write_json, file))
    return pool.submit(work, timeout=timeout, key=key, label=label or "write_json")


def _in_slices(
    df: pl.DataFrame,
    file: object,
    pieces: Callable[[pl.DataFrame], Iterator[bytes]],
    whole: Callable[[], str | None],
) -> Callable[[], str | None]:
    if file is None:
        return lambda: text_of(pieces(df))
    if isinstance(file, StringIO):
        return lambda: _write(file, [text_of(pieces(df))])
    if isinstance(file, BytesIO):
        return lambda: _write(file, pieces(df))
    return whole


def _write(file: IO[T], pieces: Iterable[T]) -> None:
    for piece in pieces:
        file.write(piece)


class _Pieces:
    """A file that keeps what is written."""

    def __init__(self) -> None:
        self.pieces: deque[bytes] = deque()

    def write(self, data: bytes) -> int:
        """Keep *data*."""
        self.pieces.append(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing."""


def _write_csv(df: pl.DataFrame, file: BytesIO | None, options: dict[str, Any]) -> str | None:
    """Do the same as ``df.write_csv(file)``, in slices. Polars holds the GIL while it copies the whole text."""
    if df.estimated_size() <= SLICE_BYTES:
        return df.write_csv(file, **options)
    kept = _Pieces()
    target: Any = kept if file is None else file
    for part in slices(df, CSV_BYTES, rows=df.height):
        part.write_csv(target, **options)
        options |= {"include_header": False, "include_bom": False}
    if file is None:
        return text_of(kept.pieces.popleft() for _ in range(len(kept.pieces)))
    return None
