"""Readers: files and databases into frames."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import IO, TYPE_CHECKING, Any, Literal

import polars as pl

from greendata.hub.result import Result
from greendata.query.options import submitted

if TYPE_CHECKING:
    from pathlib import Path

    from greendata.internals.polars import (
        CsvEncoding,
        DbReadEngine,
        FileSource,
        ParallelStrategy,
        PolarsDataType,
        SchemaDefinition,
        SchemaDict,
        StorageOptionsDict,
    )

__all__ = ("read_csv", "read_database_uri", "read_ipc", "read_ndjson", "read_parquet")


def read_csv(
    source: str
    | Path
    | IO[str]
    | IO[bytes]
    | bytes
    | list[str]
    | list[Path]
    | list[IO[str]]
    | list[IO[bytes]]
    | list[bytes],
    *,
    columns: Sequence[int] | Sequence[str] | None = None,
    has_header: bool = True,
    separator: str = ",",
    comment_prefix: str | None = None,
    quote_char: str | None = '"',
    skip_rows: int = 0,
    skip_lines: int = 0,
    schema: SchemaDict | None = None,
    schema_overrides: SchemaDict | Sequence[PolarsDataType] | None = None,
    null_values: str | Sequence[str] | dict[str, str] | None = None,
    empty_string_is_null: bool = True,
    ignore_errors: bool = False,
    with_column_names: Callable[[list[str]], list[str]] | None = None,
    infer_schema: bool = True,
    infer_schema_length: int | None = 100,
    infer_schema_files: int = 10,
    n_rows: int | None = None,
    encoding: CsvEncoding | str = "utf8",
    low_memory: bool = False,
    skip_rows_after_header: int = 0,
    row_index_name: str | None = None,
    row_index_offset: int = 0,
    try_parse_dates: bool = False,
    eol_char: str = "\n",
    new_columns: Sequence[str] | None = None,
    truncate_ragged_lines: bool | None = None,
    raise_if_empty: bool | None = None,
    decimal_comma: bool = False,
    glob: bool = True,
    storage_options: StorageOptionsDict | None = None,
    credential_provider: pl.CredentialProviderFunction | Literal["auto"] | None = "auto",
    include_file_paths: str | None = None,
    extra_columns: Literal["ignore", "raise"] | None = None,
    missing_columns: Literal["insert", "raise"] | None = None,
    use_pyarrow: bool = False,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[pl.DataFrame]:
    """Read a frame: ``polars.read_csv(source)`` in the pool. Safe from any thread.

    Args:
        source: a path, a URL, an open file, the text or the bytes of a file, or a list of these.
        columns: the columns to read, by name or by index; None for all.
        has_header: the first line has the names of the columns.
        separator: the character between two values.
        comment_prefix: lines that begin with this text are skipped.
        quote_char: the character around quoted values; None if nothing is quoted.
        skip_rows: the number of rows to skip before the header.
        skip_lines: the number of lines to skip before the header, whatever is in them.
        schema: the names and types of all columns, in their order; nothing is inferred then.
        schema_overrides: the types of some columns: by name, or for the first ones in order.
        null_values: the texts that mean null: one, several, or one for each column.
        empty_string_is_null: read empty values as null.
        ignore_errors: read values that do not fit their type as null.
        with_column_names: a function that is given the names of the columns and returns new ones.
        infer_schema: infer types; otherwise all columns are text.
        infer_schema_length: the number of rows from which types are inferred; None for all rows.
        infer_schema_files: the number of files from which types are inferred.
        n_rows: stop after so many rows.
        encoding: the encoding of the text, for example "utf8", "utf8-lossy" or "latin-1".
        low_memory: use less memory, and more time.
        skip_rows_after_header: the number of rows to skip after the header.
        row_index_name: the name of a column to add that numbers the rows.
        row_index_offset: the number of the first row in it.
        try_parse_dates: read texts that look like dates or times as dates or times.
        eol_char: the character at the end of a line.
        new_columns: new names for the columns, from the first on.
        truncate_ragged_lines: drop the values of a line that are more than the columns.
        raise_if_empty: raise an error if there is no data.
        decimal_comma: read floats with a comma as the decimal separator.
        glob: the characters ``*``, ``?`` and ``[`` in a path form a pattern.
        storage_options: options of the object store, for a path in a cloud.
        credential_provider: a function that returns credentials for the cloud; "auto" finds them; None uses none.
        include_file_paths: the name of a column to add that has the path of each row's file.
        extra_columns: for columns that only some files have: "ignore" or "raise".
        missing_columns: for columns that some files lack: "insert" nulls, or "raise".
        use_pyarrow: let pyarrow read the file instead of Polars.
        timeout: the deadline in seconds, for queue wait and run time together; None for no deadline.
        key: jobs with different keys, for example tenants or routes, take turns.
        label: the name of the job in errors and statistics; the verb's name if None.

    Raises:
        BadTimeout: an argument that cannot be used. Here and below, nothing was queued.
        PoolFull, PoolClosed, PolarsForked: the pool does not accept the job.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     pl.DataFrame({"a": [1, 2]}).write_csv(folder + "/a.csv")
        ...     read_csv(folder + "/a.csv").get(timeout=5).height
        2
    """
    return submitted(read_csv, pl.read_csv, locals(), source)


def read_ipc(
    source: str | Path | IO[bytes] | bytes,
    *,
    columns: list[int] | list[str] | None = None,
    n_rows: int | None = None,
    use_pyarrow: bool = False,
    storage_options: StorageOptionsDict | None = None,
    row_index_name: str | None = None,
    row_index_offset: int = 0,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[pl.DataFrame]:
    """Read a frame: ``polars.read_ipc(source)`` in the pool. Safe from any thread.

    Args:
        source: a path, a URL, an open file or the bytes of a file.
        columns: the columns to read, by name or by index; None for all.
        n_rows: stop after so many rows.
        use_pyarrow: let pyarrow read the file instead of Polars.
        storage_options: options of the object store, for a path in a cloud.
        row_index_name: the name of a column to add that numbers the rows.
        row_index_offset: the number of the first row in it.
        timeout: the deadline in seconds, for queue wait and run time together; None for no deadline.
        key: jobs with different keys, for example tenants or routes, take turns.
        label: the name of the job in errors and statistics; the verb's name if None.

    Raises:
        BadTimeout: an argument that cannot be used. Here and below, nothing was queued.
        PoolFull, PoolClosed, PolarsForked: the pool does not accept the job.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     pl.DataFrame({"a": [1, 2]}).write_ipc(folder + "/a.ipc")
        ...     read_ipc(folder + "/a.ipc").get(timeout=5).height
        2
    """
    return submitted(read_ipc, pl.read_ipc, locals(), source)


def read_ndjson(
    source: str | Path | IO[str] | IO[bytes] | bytes | list[str] | list[Path] | list[IO[str]] | list[IO[bytes]],
    *,
    schema: SchemaDefinition | None = None,
    schema_overrides: SchemaDefinition | None = None,
    infer_schema_length: int | None = 100,
    batch_size: int | None = 1024,
    n_rows: int | None = None,
    low_memory: bool = False,
    row_index_name: str | None = None,
    row_index_offset: int = 0,
    ignore_errors: bool = False,
    storage_options: StorageOptionsDict | None = None,
    credential_provider: pl.CredentialProviderFunction | Literal["auto"] | None = "auto",
    include_file_paths: str | None = None,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[pl.DataFrame]:
    """Read a frame: ``polars.read_ndjson(source)`` in the pool. Safe from any thread.

    Args:
        source: a path, a URL, an open file, the bytes of a file, or a list of these.
        schema: the names and types of all columns; nothing is inferred then.
        schema_overrides: the types of some columns, by name.
        infer_schema_length: the number of rows from which types are inferred; None for all rows.
        batch_size: the number of rows that one thread reads at a time.
        n_rows: stop after so many rows.
        low_memory: use less memory, and more time.
        row_index_name: the name of a column to add that numbers the rows.
        row_index_offset: the number of the first row in it.
        ignore_errors: read values that do not fit their type as null.
        storage_options: options of the object store, for a path in a cloud.
        credential_provider: a function that returns credentials for the cloud; "auto" finds them; None uses none.
        include_file_paths: the name of a column to add that has the path of each row's file.
        timeout: the deadline in seconds, for queue wait and run time together; None for no deadline.
        key: jobs with different keys, for example tenants or routes, take turns.
        label: the name of the job in errors and statistics; the verb's name if None.

    Raises:
        BadTimeout: an argument that cannot be used. Here and below, nothing was queued.
        PoolFull, PoolClosed, PolarsForked: the pool does not accept the job.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     pl.DataFrame({"a": [1, 2]}).write_ndjson(folder + "/a.ndjson")
        ...     read_ndjson(folder + "/a.ndjson").get(timeout=5).height
        2
    """
    return submitted(read_ndjson, pl.read_ndjson, locals(), source)


def read_parquet(
    source: FileSource,
    *,
    columns: list[int] | list[str] | None = None,
    n_rows: int | None = None,
    row_index_name: str | None = None,
    row_index_offset: int = 0,
    parallel: ParallelStrategy = "auto",
    use_statistics: bool = True,
    hive_partitioning: bool | None = None,
    glob: bool = True,
    schema: SchemaDict | None = None,
    hive_schema: SchemaDict | None = None,
    try_parse_hive_dates: bool = True,
    low_memory: bool = False,
    storage_options: StorageOptionsDict | None = None,
    credential_provider: pl.CredentialProviderFunction | Literal["auto"] | None = "auto",
    use_pyarrow: bool = False,
    pyarrow_options: dict[str, Any] | None = None,
    memory_map: bool = True,
    include_file_paths: str | None = None,
    missing_columns: Literal["insert", "raise"] = "raise",
    decryption: pl.ParquetDecryptionProperties | None = None,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[pl.DataFrame]:
    """Read a frame: ``polars.read_parquet(source)`` in the pool. Safe from any thread.

    Args:
        source: a path, a URL, an open file, the bytes of a file, or a list of these.
        columns: the columns to read, by name or by index; None for all.
        n_rows: stop after so many rows.
        row_index_name: the name of a column to add that numbers the rows.
        row_index_offset: the number of the first row in it.
        parallel: what is read in parallel: "auto", "columns", "row_groups", "prefiltered" or "none".
        use_statistics: skip what cannot match by the statistics in the file.
        hive_partitioning: read columns from names of folders such as ``year=2024``; None: only if the path is a folder.
        glob: the characters ``*``, ``?`` and ``[`` in a path form a pattern.
        schema: the names and types of all columns; nothing is inferred then.
        hive_schema: the types of the columns from names of folders.
        try_parse_hive_dates: read those of these columns as dates that look like dates.
        low_memory: use less memory, and more time.
        storage_options: options of the object store, for a path in a cloud.
        credential_provider: a function that returns credentials for the cloud; "auto" finds them; None uses none.
        use_pyarrow: let pyarrow read the file instead of Polars.
        pyarrow_options: keyword arguments for pyarrow.
        memory_map: map the file into memory; with pyarrow only.
        include_file_paths: the name of a column to add that has the path of each row's file.
        missing_columns: for columns that some files lack: "insert" nulls, or "raise".
        decryption: how an encrypted file is decrypted; needs Polars 2.1.
        timeout: the deadline in seconds, for queue wait and run time together; None for no deadline.
        key: jobs with different keys, for example tenants or routes, take turns.
        label: the name of the job in errors and statistics; the verb's name if None.

    Raises:
        BadTimeout: an argument that cannot be used. Here and below, nothing was queued.
        PoolFull, PoolClosed, PolarsForked: the pool does not accept the job.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     pl.DataFrame({"a": [1, 2]}).write_parquet(folder + "/a.parquet")
        ...     read_parquet(folder + "/a.parquet").get(timeout=5).height
        2
    """
    return submitted(read_parquet, pl.read_parquet, locals(), source)


def read_database_uri(
    query: str | list[str],
    uri: str,
    *,
    partition_on: str | None = None,
    partition_range: tuple[int, int] | None = None,
    partition_num: int | None = None,
    protocol: str | None = None,
    engine: DbReadEngine | None = None,
    schema_overrides: SchemaDict | None = None,
    execute_options: dict[str, Any] | None = None,
    pre_execution_query: str | list[str] | None = None,
    timeout: float | None = None,
    key: Hashable = None,
    label: str | None = None,
) -> Result[pl.DataFrame]:
    """Read what *query* selects: ``polars.read_database_uri(query, uri)`` in the pool. Safe from any thread.

    Polars' database engines contain another copy of SQLite. It corrupts files that `sqlite3` writes in the same
    process, so use `read_sql` for SQLite.

    Args:
        query: the statement, or several that select parts of one result.
        uri: the address of the database, with user and password.
        partition_on: the column by which the query is split, to be read over several connections.
        partition_range: the least and the greatest value of that column.
        partition_num: the number of parts.
        protocol: the protocol of connectorx, for the databases that have several.
        engine: the library that reads: "connectorx" (also if None) or "adbc".
        schema_overrides: the types of some columns, by name.
        execute_options: keyword arguments for the call that runs the query; with ADBC only.
        pre_execution_query: statements to run before the query; with connectorx only.
        timeout: the deadline in seconds, for queue wait and run time together; None for no deadline.
        key: jobs with different keys, for example tenants or routes, take turns.
        label: the name of the job in errors and statistics; the verb's name if None.

    Raises:
        BadTimeout: an argument that cannot be used. Here and below, nothing was queued.
        PoolFull, PoolClosed, PolarsForked: the pool does not accept the job.

    Example:
        >>> refused = read_database_uri("SELECT 1", "postgresql://127.0.0.1:1/none", timeout=5)
        >>> refused.wait() is None, refused.successful()
        (True, False)
    """
    return submitted(read_database_uri, pl.read_database_uri, locals(), query, uri)
