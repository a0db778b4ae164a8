"""Read frames from URLs: fetch the body into a temporary file through a guarded session, then read it in the pool.

If gevent has patched the sockets, the fetch runs in a greenlet of the calling thread's hub, otherwise in the pool. The
temporary file is always removed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar
from urllib.parse import urlsplit

import polars as pl
from gevent.monkey import is_module_patched

from greendata.errors import AnswerTooLarge, BadTimeout, UrlRefused
from greendata.formats.decoders import decode
from greendata.formats.format import Format
from greendata.formats.guards.gunzip import GZIP, MEMBERS, inflate
from greendata.formats.guards.size_guard import HEADER_BYTES, reject_repeated, reject_unsafe_file
from greendata.formats.isolation import Read, isolated_by, reading
from greendata.formats.json.partition import lines_of
from greendata.formats.json.rows import BOM
from greendata.http.limits import MAX_BYTES, TIMEOUT
from greendata.hub.checks import checked_count
from greendata.hub.deadline import deadline, seconds_of
from greendata.hub.pacing import breathing
from greendata.hub.result import Result
from greendata.internals.gevent import get_hub_if_exists
from greendata.pool import pool, workers
from greendata.pool.cleanup import run_to_completion
from greendata.pool.job import bypassing_queue_limit
from greendata.pool.operation import operation
from greendata.query.choice import engine_for
from greendata.query.options import options_for
from greendata.tasks.caller import Caller
from greendata.typed.ndjson_scan import SCAN_LINES_OPTIONS, TEXT, scan_json_lines
from greendata.typed.scans import csv_options, csv_to_model
from greendata.validation.verbs import own_validate, validate

__all__ = ("STORES", "read_csv_url", "read_ndjson_url", "read_parquet_url")

if TYPE_CHECKING:
    from greendata.http.session import GuardedSession, Response
    from greendata.internals.polars import (
        CsvEncoding,
        ParallelStrategy,
        PolarsDataType,
        SchemaDefinition,
        SchemaDict,
        StorageOptionsDict,
    )

P = ParamSpec("P")
T = TypeVar("T")

STORES = ("s3", "s3a", "gs", "gcs", "az", "azure", "abfs", "abfss", "adl", "hf")  # schemes that Polars reads directly
_FORMATS: dict[str, Format] = {"read_csv": "csv", "read_ndjson": "ndjson", "read_parquet": "parquet"}
_WRITE_BYTES = 1024**2  # bytes that one job writes
_BYTES = ("application/octet-stream", "binary/octet-stream")
_GZIP = ("application/gzip", "application/x-gzip")
_TSV = "text/tab-separated-values"
_TYPES = {
    "read_csv": (
        "text/csv",
        _TSV,
        "text/plain",
        "application/csv",
        "application/vnd.ms-excel",
        *_GZIP,
        *_BYTES,
    ),
    "read_ndjson": (
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonlines",
        "application/jsonlines",
        "application/json",
        "text/plain",
        *_GZIP,
        *_BYTES,
    ),
    "read_parquet": ("application/vnd.apache.parquet", "application/x-parquet", "application/parquet", *_BYTES),
}


def read_csv_url(
    url: str,
    *,
    timeout: float = TIMEOUT,
    max_bytes: int = MAX_BYTES,
    allow_private: bool | Iterable[str] = False,
    headers: dict[str, str] | None = None,
    model: type | None = None,
    isolate: bool | None = None,
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
    key: Hashable = None,
    label: str | None = None,
) -> Result[pl.DataFrame]:
    """Fetch *url* and read it as CSV: ``polars.read_csv(file)`` in the pool.

    A gzip file, such as ``a.csv.gz``, is decompressed within *max_bytes*. If the server or the file's name says TSV,
    and the first line has a tab, the default of *separator* is a tab.

    ``http`` and ``https`` URLs are fetched through a `GuardedSession`. URLs of object stores, such as ``s3://``,
    ``gs://`` and ``az://``, are passed to ``polars.scan_csv(url)``; only the deadline limits them.

    Args:
        url: the address.
        timeout: the deadline in seconds for fetching the whole body and reading it.
        max_bytes: the limit of the body, both compressed and decompressed.
        allow_private: True for every address, or a list of addresses and networks to allow besides the public ones.
        headers: sent to the host of *url*, but not to another host that it redirects to.
        model: a pydantic model that the rows must satisfy, see `greendata.formats.decoders.decode`; with options of
            Polars, or from an object store, see `greendata.validation.verbs.validate`.
        isolate: parse the body in a child process, see `greendata.formats.isolation`; None uses ``GREENDATA_ISOLATE``.
            It has no effect on object stores.
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
        try_parse_dates: read texts that look like dates and times as such.
        eol_char: the character at the end of a line.
        new_columns: new names for the columns, from the first on.
        truncate_ragged_lines: drop the values of a line that are more than the columns.
        raise_if_empty: raise an error if there is no data.
        decimal_comma: read floats with a comma as the decimal separator.
        glob: the characters ``*``, ``?`` and ``[`` in a path form a pattern.
        storage_options: options of the object store, for a URL of one.
        credential_provider: a function that returns credentials for the cloud; "auto" finds them; None uses none.
        include_file_paths: the name of a column to add that has the path of each row's file.
        extra_columns: for columns that only some files have: "ignore" or "raise".
        missing_columns: for columns that some files lack: "insert" nulls, or "raise".
        use_pyarrow: let pyarrow read the file instead of Polars.
        key: jobs with different keys, for example tenants or routes, take turns.
        label: the name of the job in errors and statistics; the verb's name if None.

    Raises:
        UrlRefused, BadArgument, BadTimeout, TypeError: at the call.
        UrlRefused, FetchFailed, FetchTimeout, AnswerTooLarge, AnswerBroken, WrongContentType: from the result, as are
            errors of Polars.
        Malformed: from the result; the body is malformed, or its frame would not fit into memory, or it crashes the
            parser of a child.
        TooCostly: from the result; parsing takes a child more memory or time than it has.
        FrameInvalid: from the result; *model* rejects rows.

    Example:
        >>> refused = read_csv_url("http://127.0.0.1:1/a.csv", timeout=5)
        >>> refused.wait() is None, refused.successful()
        (True, False)
    """
    return _read_url(read_csv_url, "csv", locals())


def read_ndjson_url(
    url: str,
    *,
    timeout: float = TIMEOUT,
    max_bytes: int = MAX_BYTES,
    allow_private: bool | Iterable[str] = False,
    headers: dict[str, str] | None = None,
    model: type | None = None,
    isolate: bool | None = None,
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
    key: Hashable = None,
    label: str | None = None,
) -> Result[pl.DataFrame]:
    """Fetch *url* and read it as NDJSON: ``polars.read_ndjson(file)`` in the pool.

    A gzip file, such as ``a.ndjson.gz``, is decompressed within *max_bytes*.

    ``http`` and ``https`` URLs are fetched through a `GuardedSession`. URLs of object stores, such as ``s3://``,
    ``gs://`` and ``az://``, are passed to ``polars.scan_ndjson(url)``; only the deadline limits them.

    Without options for Polars' reader it is read by `greendata.formats.decoders.decode`: the columns are those of all
    rows, not of the first 100 as in Polars, and the values of a row do not depend on other rows.

    Args:
        url: the address.
        timeout: the deadline in seconds for fetching the whole body and reading it.
        max_bytes: the limit of the body, both compressed and decompressed.
        allow_private: True for every address, or a list of addresses and networks to allow besides the public ones.
        headers: sent to the host of *url*, but not to another host that it redirects to.
        model: a pydantic model that the rows must satisfy, see `greendata.formats.decoders.decode`; with options of
            Polars, or from an object store, see `greendata.validation.verbs.validate`.
        isolate: parse the body in a child process, see `greendata.formats.isolation`; None uses ``GREENDATA_ISOLATE``.
            It has no effect on object stores.
        schema: the names and types of all columns; nothing is inferred then.
        schema_overrides: the types of some columns, by name.
        infer_schema_length: the number of rows from which types are inferred; None for all rows.
        batch_size: the number of rows that one thread reads at a time.
        n_rows: stop after so many rows.
        low_memory: use less memory, and more time.
        row_index_name: the name of a column to add that numbers the rows.
        row_index_offset: the number of the first row in it.
        ignore_errors: read values that do not fit their type as null.
        storage_options: options of the object store, for a URL of one.
        credential_provider: a function that returns credentials for the cloud; "auto" finds them; None uses none.
        include_file_paths: the name of a column to add that has the path of each row's file.
        key: jobs with different keys, for example tenants or routes, take turns.
        label: the name of the job in errors and statistics; the verb's name if None.

    Raises:
        UrlRefused, BadArgument, BadTimeout, TypeError: at the call.
        UrlRefused, FetchFailed, FetchTimeout, AnswerTooLarge, AnswerBroken, WrongContentType: from the result, as are
            errors of Polars.
        Malformed: from the result; the body is malformed, or its frame would not fit into memory, or it crashes the
            parser of a child.
        TooCostly: from the result; parsing takes a child more memory or time than it has.
        FrameInvalid: from the result; *model* rejects rows.

    Example:
        >>> refused = read_ndjson_url("http://127.0.0.1:1/a.ndjson", timeout=5)
        >>> refused.wait() is None, refused.successful()
        (True, False)
    """
    return _read_url(read_ndjson_url, "ndjson", locals())


def read_parquet_url(
    url: str,
    *,
    timeout: float = TIMEOUT,
    max_bytes: int = MAX_BYTES,
    allow_private: bool | Iterable[str] = False,
    headers: dict[str, str] | None = None,
    model: type | None = None,
    isolate: bool | None = None,
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
    key: Hashable = None,
    label: str | None = None,
) -> Result[pl.DataFrame]:
    """Fetch *url* and read it as Parquet: ``polars.read_parquet(file)`` in the pool.

    ``http`` and ``https`` URLs are fetched through a `GuardedSession`. URLs of object stores, such as ``s3://``,
    ``gs://`` and ``az://``, are passed to ``polars.scan_parquet(url)``; only the deadline limits them.

    Args:
        url: the address.
        timeout: the deadline in seconds for fetching the whole body and reading it.
        max_bytes: the limit of the body, both compressed and decompressed.
        allow_private: True for every address, or a list of addresses and networks to allow besides the public ones.
        headers: sent to the host of *url*, but not to another host that it redirects to.
        model: a pydantic model that the rows must satisfy, see `greendata.formats.decoders.decode`; with options of
            Polars, or from an object store, see `greendata.validation.verbs.validate`.
        isolate: parse the body in a child process, see `greendata.formats.isolation`; None uses ``GREENDATA_ISOLATE``.
            It has no effect on object stores.
        columns: the columns to read, by name or by index; None for all.
        n_rows: stop after so many rows.
        row_index_name: the name of a column to add that numbers the rows.
        row_index_offset: the number of the first row in it.
        parallel: what is read in parallel: "auto", "columns", "row_groups", "prefiltered" or "none".
        use_statistics: skip what cannot match by the statistics in the file.
        hive_partitioning: read columns from names of folders such as ``year=2024``; None if the path is a folder.
        glob: the characters ``*``, ``?`` and ``[`` in a path form a pattern.
        schema: the names and types of all columns; nothing is inferred then.
        hive_schema: the types of these columns.
        try_parse_hive_dates: read these columns as dates where they look like that.
        low_memory: use less memory, and more time.
        storage_options: options of the object store, for a URL of one.
        credential_provider: a function that returns credentials for the cloud; "auto" finds them; None uses none.
        use_pyarrow: let pyarrow read the file instead of Polars.
        pyarrow_options: keyword arguments for pyarrow.
        memory_map: map the file into memory; with pyarrow only.
        include_file_paths: the name of a column to add that has the path of each row's file.
        missing_columns: for columns that some files lack: "insert" nulls, or "raise".
        decryption: how an encrypted file is decrypted; needs Polars 2.1.
        key: jobs with different keys, for example tenants or routes, take turns.
        label: the name of the job in errors and statistics; the verb's name if None.

    Raises:
        UrlRefused, BadArgument, BadTimeout, TypeError: at the call.
        UrlRefused, FetchFailed, FetchTimeout, AnswerTooLarge, AnswerBroken, WrongContentType: from the result, as are
            errors of Polars.
        Malformed: from the result; the body is malformed, or its frame would not fit into memory, or it crashes the
            parser of a child.
        TooCostly: from the result; parsing takes a child more memory or time than it has.
        FrameInvalid: from the result; *model* rejects rows.

    Example:
        >>> refused = read_parquet_url("http://127.0.0.1:1/a.parquet", timeout=5)
        >>> refused.wait() is None, refused.successful()
        (True, False)
    """
    return _read_url(read_parquet_url, "parquet", locals())


def _read_url(verb: Callable[..., Any], suffix: str, given: dict[str, Any]) -> Result[pl.DataFrame]:
    """Fetch or scan, and read, what the arguments *given* to *verb* say."""
    url, model, key = str(given["url"]), given["model"], given["key"]
    isolated_by(given["isolate"])
    seconds = seconds_of(given["timeout"])
    if seconds is None:
        raise BadTimeout(given["timeout"])
    max_bytes = checked_count("max_bytes", given["max_bytes"])
    label = given["label"] or verb.__name__
    scheme = url.partition("://")[0].lower()
    if scheme in STORES:
        options = options_for(verb, getattr(pl, f"scan_{suffix}"), given)
        work = partial(_read_store, f"scan_{suffix}", url, model, options)
        return pool.submit(work, timeout=seconds, key=key, label=label)
    if scheme not in ("http", "https"):
        raise UrlRefused(url, f"expected http, https or one of {', '.join(STORES)}")
    options = options_for(verb, getattr(pl, f"read_{suffix}"), given)
    # Imported here because it imports ssl, which gevent has to patch before its first import.
    from greendata.http.session import GuardedSession

    session = GuardedSession(allow_private=given["allow_private"], headers=given["headers"])
    work = partial(_read_body, session, url, f"read_{suffix}", seconds, max_bytes, model, given["isolate"], options)
    return _submit(work, seconds, key, label)


def _submit(work: Callable[[], pl.DataFrame], seconds: float, key: Hashable, label: str) -> Result[pl.DataFrame]:
    if is_module_patched("socket") and get_hub_if_exists() is not None and not workers.is_inline_thread():
        with deadline(seconds):
            call = Caller.current().call_soon(_as_one_query, label, work)
        call.label = label
        return call
    return pool.submit(work, timeout=seconds, key=key, label=label)


def _as_one_query(label: str, work: Callable[[], pl.DataFrame]) -> pl.DataFrame:
    with operation(label):
        return work()


def _read_body(
    session: GuardedSession,
    url: str,
    reader: str,
    seconds: float,
    max_bytes: int,
    model: type | None,
    isolate: bool | None,  # noqa: FBT001 - as the readers pass it
    options: dict[str, Any],
) -> pl.DataFrame:
    file = tempfile.NamedTemporaryFile(prefix="greendata-")  # noqa: SIM115 - closed in a native thread
    try:
        with session, session.get(url, timeout=seconds, max_bytes=max_bytes, accept=_TYPES[reader]) as response:
            chunks = response.chunks()
            _write_chunks(chunks if reader == "read_parquet" else _unzipped(chunks, response.url, max_bytes), file)
        path = Path(file.name)
        separator = {}
        if reader == "read_csv" and "separator" not in options and _is_tsv(url, response):
            separator = _call_bypassing_limit(_separator_in, path)
        if not options and (model is not None or reader == "read_ndjson"):
            content = _call_bypassing_limit(path.read_bytes)
            known = _FORMATS[reader]
            work = partial(decode, content, known, model=model, max_bytes=max_bytes, isolate=isolate, **separator)
            return bypassing_queue_limit(work)
        parse = partial(
            reading,
            isolated_by(isolate),
            partial(_read_file, reader, path, model, separator | options),
            partial(pool.submit, label=reader),
            label=reader,
            timeout=None,
        )
        return _validated(bypassing_queue_limit(parse), model)
    finally:
        run_to_completion(file.close, label=f"close the file of {reader}").get()


def _unzipped(chunks: Iterator[bytes], url: str, max_bytes: int) -> Iterator[bytes]:
    """Yield *chunks*, decompressed if they are those of a gzip file.

    Raises:
        AnswerTooLarge: there are more than *max_bytes*.
        Malformed: the file is cut short, garbled, or something else follows it.
    """
    head = b""
    while len(head) < len(GZIP) and (chunk := next(chunks, b"")):
        head += chunk
    chunks = chain([head], chunks)
    if not head.startswith(GZIP):
        yield from chunks
        return
    size = 0
    for piece in breathing(inflate(chunks, max_members=MEMBERS)):
        size += len(piece)
        if size > max_bytes:
            raise AnswerTooLarge(url, max_bytes)
        yield piece


def _is_tsv(url: str, response: Response) -> bool:
    """Return True if the server or the name of the file says that tabs separate the values."""
    if response.headers.get("Content-Type", "").partition(";")[0].strip().lower() == _TSV:
        return True
    return any(urlsplit(place).path.lower().endswith((".tsv", ".tsv.gz")) for place in (url, response.url))


def _separator_in(path: Path) -> dict[str, Any]:
    """Return a tab as the separator if the first line of a file has one."""
    with path.open("rb") as file:
        return {"separator": "\t"} if b"\t" in file.readline(HEADER_BYTES) else {}


def _write_chunks(chunks: Iterator[bytes], file: IO[bytes]) -> None:
    """Write *chunks* to *file* in the pool. A full pool rejects only the first job, when little work would be lost."""
    buffer: list[bytes] = []
    size = 0
    call: Callable[..., None] = pool.call
    for chunk in chunks:
        buffer.append(chunk)
        size += len(chunk)
        if size >= _WRITE_BYTES:
            call(_write, file, buffer)
            buffer, size, call = [], 0, _call_bypassing_limit
    call(_write, file, buffer)


def _call_bypassing_limit(func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call *func* in the pool, past the queue limit, for a fetch that has already begun."""
    return bypassing_queue_limit(partial(pool.call, func, *args, **kwargs))


def _write(file: IO[bytes], chunks: list[bytes]) -> None:
    file.writelines(chunks)
    file.flush()


def _read_file(reader: str, path: Path, model: type | None, options: dict[str, Any], read_in: Read) -> pl.DataFrame:
    known = _FORMATS[reader]
    if reader != "read_csv" or model is None or own_validate(model) is not None:
        df = read_in(_read_frame, path, known, reader, options)
        if model is not None:
            reject_repeated(df, path.stat().st_size, format=known)
        return df
    options = csv_options(model, options)
    df = read_in(_read_frame, path, known, reader, options)
    return csv_to_model(model, df.lazy(), options).collect(engine=pl.InMemoryEngine())


def _read_frame(path: Path, reader: str, options: dict[str, Any]) -> pl.DataFrame:
    reject_unsafe_file(path, reader.removeprefix("read_"), options)
    source: Path | BytesIO = path
    if reader == "read_ndjson":
        options = {"infer_schema_length": None, **options}  # a key that first appears late is a column too
        with path.open("rb") as file:
            source = BytesIO(file.read()) if file.read(len(BOM)) == BOM else path  # Polars does not skip it
    frame: pl.DataFrame = getattr(pl, reader)(source, **options)
    return frame


def _read_store(scanner: str, url: str, model: type | None, options: dict[str, Any]) -> pl.DataFrame:
    if scanner == "scan_ndjson" and options.keys() <= SCAN_LINES_OPTIONS:
        content = BytesIO()
        for begin, _, lines in lines_of(scan_json_lines(url, **options).collect(engine=pl.InMemoryEngine())[TEXT]):
            content.write(b"\n" + lines if begin else lines)
        body = content.getvalue()
        return bypassing_queue_limit(decode, body, "ndjson", model=model, max_bytes=len(body))
    if model is None or scanner != "scan_csv" or own_validate(model) is not None:
        lf: pl.LazyFrame = getattr(pl, scanner)(url, **options)
    else:
        options = csv_options(model, options)
        lf = csv_to_model(model, pl.scan_csv(url, **options), options)
    return _validated(lf.collect(engine=engine_for("auto", "collect")), model)


def _validated(df: pl.DataFrame, model: type | None) -> pl.DataFrame:
    return df if model is None else bypassing_queue_limit(validate, df, model)
