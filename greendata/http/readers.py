"""Read frames from URLs: fetch the body into a temporary file through a guarded session, then read it in the pool.

If gevent has patched the sockets, the fetch runs in a greenlet of the calling thread's hub, otherwise in the pool. The
temporary file is always removed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ParamSpec, TypeVar

import polars as pl
from gevent.monkey import is_module_patched

from greendata.errors import BadTimeout, UrlRefused
from greendata.formats.decoders import decode
from greendata.formats.format import Format
from greendata.formats.guards.size_guard import reject_unsafe_file
from greendata.formats.json.partition import lines_of
from greendata.formats.json.rows import BOM
from greendata.http.limits import MAX_BYTES, TIMEOUT
from greendata.hub.deadline import deadline, seconds_of
from greendata.hub.result import Result
from greendata.internals.gevent import get_hub_if_exists
from greendata.pool import pool, workers
from greendata.pool.cleanup import run_to_completion
from greendata.pool.job import bypassing_queue_limit
from greendata.pool.operation import operation
from greendata.tasks.caller import Caller
from greendata.typed.ndjson_scan import SCAN_LINES_OPTIONS, TEXT, scan_json_lines
from greendata.typed.scans import csv_options, csv_to_model
from greendata.validation.verbs import own_validate, validate

__all__ = ("STORES", "read_csv_url", "read_ndjson_url", "read_parquet_url")

if TYPE_CHECKING:
    from greendata.http.session import GuardedSession

P = ParamSpec("P")
T = TypeVar("T")

STORES = ("s3", "s3a", "gs", "gcs", "az", "azure", "abfs", "abfss", "adl", "hf")  # schemes that Polars reads directly
_FORMATS: dict[str, Format] = {"read_csv": "csv", "read_ndjson": "ndjson", "read_parquet": "parquet"}
_WRITE_BYTES = 1024**2  # bytes that one job writes
_BYTES = ("application/octet-stream", "binary/octet-stream")
_TYPES = {
    "read_csv": (
        "text/csv",
        "text/tab-separated-values",
        "text/plain",
        "application/csv",
        "application/vnd.ms-excel",
        *_BYTES,
    ),
    "read_ndjson": (
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonlines",
        "application/json",
        "text/plain",
        *_BYTES,
    ),
    "read_parquet": ("application/vnd.apache.parquet", "application/x-parquet", "application/parquet", *_BYTES),
}

_DOC = """Fetch *url* and read it as {format}: ``polars.read_{suffix}(file, **options)``.

``http`` and ``https`` URLs are fetched through a `GuardedSession`. URLs of object stores, such as ``s3://``, ``gs://``
and ``az://``, are passed to ``polars.scan_{suffix}(url, **options)`` with Polars' own ``storage_options``; of the
limits, only the deadline applies to them. NDJSON without options for its reader is read by
`greendata.formats.decoders.decode`: the columns are those of all rows, not of the first 100 as in Polars, and the
values of a row do not depend on other rows.

Args:
    timeout: the deadline in seconds for fetching the whole body and reading it.
    max_bytes: the limit of the body, both compressed and decompressed.
    allow_private: True for every address, or a list of addresses and networks to allow besides the public ones.
    headers: sent to the host of *url*, but not to another host that it redirects to.
    model: a pydantic model that the rows must satisfy, see `greendata.formats.decoders.decode`; with options, or from
        an object store, see `greendata.validation.verbs.validate`.

Raises:
    UrlRefused, BadTimeout: at the call.
    UrlRefused, FetchFailed, FetchTimeout, AnswerTooLarge, AnswerBroken, WrongContentType: from the result, as are
        errors of Polars.
    Malformed: from the result; the body is malformed, or its frame would not fit into memory.
    FrameInvalid: from the result; *model* rejects rows.

Example:
    >>> refused = read_{suffix}_url("http://127.0.0.1:1/a.{suffix}", timeout=5)
    >>> refused.wait() is None, refused.successful()
    (True, False)
"""


def _reader(suffix: str, name: str) -> Callable[..., Result[pl.DataFrame]]:
    def read_url(
        url: str,
        *,
        timeout: float = TIMEOUT,
        max_bytes: int = MAX_BYTES,
        allow_private: bool | Iterable[str] = False,
        headers: dict[str, str] | None = None,
        model: type | None = None,
        key: Hashable = None,
        label: str | None = None,
        **options: Any,
    ) -> Result[pl.DataFrame]:
        seconds = seconds_of(timeout)
        if seconds is None:
            raise BadTimeout(timeout)
        label = label or f"read_{suffix}_url"
        scheme = str(url).partition("://")[0].lower()
        if scheme in STORES:
            work = partial(_read_store, f"scan_{suffix}", url, model, options)
            return pool.submit(work, timeout=seconds, key=key, label=label)
        if scheme not in ("http", "https"):
            raise UrlRefused(str(url), f"expected http, https or one of {', '.join(STORES)}")
        # Imported here because it imports ssl, which gevent has to patch before its first import.
        from greendata.http.session import GuardedSession

        session = GuardedSession(allow_private=allow_private, headers=headers)
        work = partial(_read_body, session, url, f"read_{suffix}", seconds, max_bytes, model, options)
        return _submit(work, seconds, key, label)

    read_url.__name__ = read_url.__qualname__ = f"read_{suffix}_url"
    read_url.__doc__ = _DOC.format(suffix=suffix, format=name)
    return read_url


read_csv_url = _reader("csv", "CSV")
read_ndjson_url = _reader("ndjson", "NDJSON")
read_parquet_url = _reader("parquet", "Parquet")


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
    options: dict[str, Any],
) -> pl.DataFrame:
    file = tempfile.NamedTemporaryFile(prefix="greendata-")  # noqa: SIM115 - closed in a native thread
    try:
        with session, session.get(url, timeout=seconds, max_bytes=max_bytes, accept=_TYPES[reader]) as response:
            _write_chunks(response.chunks(), file)
        path = Path(file.name)
        if not options and (model is not None or reader == "read_ndjson"):
            content = _call_bypassing_limit(path.read_bytes)
            return bypassing_queue_limit(decode, content, _FORMATS[reader], model=model, max_bytes=max_bytes)
        return _validated(_call_bypassing_limit(_read_file, reader, path, model, options), model)
    finally:
        run_to_completion(file.close, label=f"close the file of {reader}").get()


def _write_chunks(chunks: Iterator[bytes], file: IO[bytes]) -> None:
    """Write *chunks* to *file* in the pool. A full pool rejects only the first job, when little work would be lost."""
    buffer: list[bytes] = []
    call: Callable[..., None] = pool.call
    for chunk in chunks:
        buffer.append(chunk)
        if sum(map(len, buffer)) >= _WRITE_BYTES:
            call(_write, file, buffer)
            buffer, call = [], _call_bypassing_limit
    call(_write, file, buffer)


def _call_bypassing_limit(func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call *func* in the pool, past the queue limit, for a fetch that has already begun."""
    return bypassing_queue_limit(partial(pool.call, func, *args, **kwargs))


def _write(file: IO[bytes], chunks: list[bytes]) -> None:
    file.writelines(chunks)
    file.flush()


def _read_file(reader: str, path: Path, model: type | None, options: dict[str, Any]) -> pl.DataFrame:
    reject_unsafe_file(path, reader.removeprefix("read_"), options)
    if reader == "read_csv" and model is not None and own_validate(model) is None:
        known = csv_options(model, options)
        return csv_to_model(model, pl.read_csv(path, **known).lazy(), known).collect()
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
        for begin, _, lines in lines_of(scan_json_lines(url, **options).collect()[TEXT]):
            content.write(b"\n" + lines if begin else lines)
        body = content.getvalue()
        return bypassing_queue_limit(decode, body, "ndjson", model=model, max_bytes=len(body))
    if model is None or scanner != "scan_csv" or own_validate(model) is not None:
        lf: pl.LazyFrame = getattr(pl, scanner)(url, **options)
    else:
        options = csv_options(model, options)
        lf = csv_to_model(model, pl.scan_csv(url, **options), options)
    return _validated(lf.collect(), model)


def _validated(df: pl.DataFrame, model: type | None) -> pl.DataFrame:
    return df if model is None else bypassing_queue_limit(validate, df, model)
