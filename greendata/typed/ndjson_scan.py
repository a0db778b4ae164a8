"""Scan NDJSON files as lazy frames, and check each row against its text while it is read.

The type of a column is known only when the whole file has been read, and by then the original text of a cell is lost.
So rows are validated while they are read, batch by batch, and the columns are those of the model (`scan_validated`).
If the model runs code, rows are validated only when they are taken, since its code should run once. Their columns have
the types that Polars infers from all rows, and a row whose columns differ from its text is an error (`scan_inferred`).
Workers call these functions, and Polars' own threads, which run the query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from polars.exceptions import PolarsError
from polars.io.plugins import register_io_source
from pydantic import BaseModel
from pydantic_core import from_json

from greendata.errors import FrameInvalid, Malformed, UnreadableFile
from greendata.formats.json.cells import CellMismatch, compare
from greendata.formats.json.partition import InvalidJson, JsonPartitioner, lines_of
from greendata.formats.json.reader import read_ndjson
from greendata.formats.json.stored import stored_rows
from greendata.hub.pacing import release_gil
from greendata.schema.column_names import referred
from greendata.schema.failures import LISTED, concatenated
from greendata.schema.fields import columns_of
from greendata.schema.models import schema_of
from greendata.typed.confinement import Sources
from greendata.typed.plan import message_without_plan
from greendata.validation.verbs import Filtered, complete_validation, filter_valid

__all__ = ("LINE", "SCAN_LINES_OPTIONS", "TEXT", "scan_inferred", "scan_json_lines", "scan_validated", "unreadable")

ROWS = 50_000  # rows that are validated at once
SCAN_LINES_OPTIONS = frozenset({"credential_provider", "storage_options"})  # of `polars.scan_lines`
LINE, TEXT = "line", "text"  # the columns of `scan_json_lines`
COMPARED_BYTES = 1 << 16  # bytes of rows that are compared at once: less than a millisecond of Python

_NOT_BLANK = r"[^ \t\r]"


def scan_json_lines(places: Any, **options: Any) -> pl.LazyFrame:
    r"""Return a lazy frame of the lines (`TEXT`) that are not blank, and their numbers (`LINE`).

    Args:
        places: the source argument of `polars.scan_lines`.
        options: keyword arguments named in `SCAN_LINES_OPTIONS`.

    Example:
        >>> scan_json_lines(b"{}\n\n{}").collect().rows()
        [(1, '{}'), (3, '{}')]
    """
    lines = pl.scan_lines(places, name=TEXT, row_index_name=LINE, row_index_offset=1, **options)
    return lines.with_columns(pl.col(TEXT).str.strip_prefix("\ufeff")).filter(pl.col(TEXT).str.contains(_NOT_BLANK))


def scan_validated(lines: pl.LazyFrame, found: Sources, model: type[BaseModel]) -> pl.LazyFrame:
    r"""Return a lazy frame over lines of JSON in the schema of *model*.

    Collecting it raises FrameInvalid with the failures of all rows, including rows that a filter leaves out. It stops
    after the batch that reaches 10 000 failures. It raises UnreadableFile if a line is not JSON.

    Args:
        lines: see `scan_json_lines`.
        found: the same files, for error messages.

    Raises:
        FileNotFoundError: there is no such file.

    Example:
        >>> import tempfile
        >>> class User(BaseModel):
        ...     age: int = 7
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write(b'{"age": 1.0}\n{}')
        ...     file.flush()
        ...     lines, sources = scan_json_lines(file.name), Sources("ages", (file.name,), None)
        ...     scan_validated(lines, sources, User).collect()["age"].to_list()
        [1, 7]
    """
    lines.head(1).collect(engine=pl.InMemoryEngine())
    schema = schema_of(model)
    batches = partial(_validated_batches, lines, found, model)
    return register_io_source(partial(_batches, batches), schema=schema, explain_name="validated NDJSON")


def scan_inferred(lines: pl.LazyFrame, found: Sources, model: type[BaseModel]) -> tuple[pl.LazyFrame, pl.Schema]:
    r"""Return a lazy frame over lines of JSON, with the types that Polars infers from all lines, and its schema.

    Collecting it raises UnreadableFile, with the line and the position, if a value would differ from its text: an
    integer is rounded because the column has fractions, a number becomes text because the column has strings, or a key
    appears twice. It also does so if a key is absent and null has another meaning for the model.

    Args:
        lines: see `scan_json_lines`.
        found: the same files, for error messages.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableFile: a line is not JSON, or there is no common type for all lines.

    Example:
        >>> import tempfile
        >>> class User(BaseModel):
        ...     age: int = 7
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write(b'{"age": 1.0}\n{"age": 2}')
        ...     file.flush()
        ...     lf, _ = scan_inferred(scan_json_lines(file.name), Sources("ages", (file.name,), None), User)
        ...     lf.collect()["age"].to_list()
        [1.0, 2.0]
    """
    heads = [pl.DataFrame(schema=df.schema) for _, _, df in _line_frames(lines, found, None)]
    try:
        schema = pl.concat(heads, how="diagonal_relaxed").schema if heads else pl.Schema()
    except PolarsError as error:
        raise UnreadableFile([found.shown], f"no type fits all rows: {message_without_plan(error)}") from error
    source = partial(_batches, partial(_compared_batches, lines, found, model, schema))
    return register_io_source(source, schema=schema, explain_name="compared NDJSON"), schema


def _batches(
    frames: Callable[[], Iterator[pl.DataFrame]],
    columns: list[str] | None,
    predicate: pl.Expr | None,
    rows: int | None,
    _batch_size: int | None,
) -> Iterator[pl.DataFrame]:
    """Yield what Polars requests: *columns* of the first *rows* rows, filtered by *predicate*."""
    for good in frames():
        if rows is not None:
            good = good.head(rows)  # noqa: PLW2901 - the uncut batch is not needed again
            rows -= good.height
        chosen = good if predicate is None else good.filter(predicate)
        yield chosen if columns is None else chosen.select(referred(columns, chosen.columns))
        if rows == 0:
            return


def _validated_batches(lines: pl.LazyFrame, found: Sources, model: type[BaseModel]) -> Iterator[pl.DataFrame]:
    """Yield valid rows in batches. After the first invalid row, only collect failures, until there are `LISTED`."""
    partitioner = JsonPartitioner(model)
    names = [*schema_of(model)]
    failures: list[pl.DataFrame] = []
    height = failed = 0
    for numbers, texts in _line_batches(lines):
        try:
            count, checked = _validated(partitioner, texts, model)
        except InvalidJson as broken:
            reason = broken.reason.partition(" at line ")[0]
            raise unreadable(found, numbers[broken.row], reason) from broken
        if checked.failures.height:
            failures.append(checked.failures.with_columns(pl.col("row") + pl.lit(height, pl.UInt32)))
            failed += checked.failures.height
        height += count
        if not failures:
            yield checked.good.select(referred(names, checked.good.columns))
        if failed >= LISTED:
            break
    if failures:
        raise FrameInvalid.with_text(model.__name__, height, concatenated(failures))


def _validated(partitioner: JsonPartitioner, texts: pl.Series, model: type[BaseModel]) -> tuple[int, Filtered]:
    """Return the number of rows with these *texts*, and the valid ones. They may be what `Frame.write_ndjson` wrote."""
    stored = stored_rows(texts, model, is_rejected=False)
    if stored is None:
        rows, found = complete_validation(partitioner(texts))
        stored = stored_rows(texts, model, is_rejected=True) if found.failures.height else None
    return (rows, found) if stored is None else (stored.height, filter_valid(stored, model))


def _compared_batches(
    lines: pl.LazyFrame, found: Sources, model: type[BaseModel], schema: pl.Schema
) -> Iterator[pl.DataFrame]:
    """Yield the rows in batches, after a comparison of each row with its text."""
    columns = columns_of(model)
    for numbers, texts, df in _line_frames(lines, found, schema):
        if not df.width:
            raise unreadable(
                found, numbers[0], "no row of the file has a key, and a frame cannot have rows without columns"
            )
        step = max(1, df.height * COMPARED_BYTES // max(1, int(texts.str.len_bytes().sum())))
        for begin in range(0, df.height, step):
            rows = map(from_json, texts.slice(begin, step).to_list())
            cells = df.slice(begin, step).to_dicts()
            for at, (row, had) in enumerate(zip(rows, cells, strict=True), begin):
                try:
                    compare(row, had, columns)
                except CellMismatch as mismatch:
                    raise unreadable(found, numbers[at], str(mismatch)) from mismatch
            release_gil()
        yield df


def _line_frames(
    lines: pl.LazyFrame, found: Sources, schema: pl.Schema | None
) -> Iterator[tuple[pl.Series, pl.Series, pl.DataFrame]]:
    """Yield line numbers, texts of lines, and the frame of these, a few megabytes at a time."""
    for numbers, texts in _line_batches(lines):
        for begin, end, content in lines_of(texts):
            try:
                df = read_ndjson(content, schema)
            except Malformed as error:
                if error.line is None:
                    raise UnreadableFile([found.shown], error.reason) from error
                raise unreadable(found, numbers[begin + error.line - 1], error.reason) from error
            yield numbers[begin:end], texts[begin:end], df


def _line_batches(lines: pl.LazyFrame) -> Iterator[tuple[pl.Series, pl.Series]]:
    """Yield *lines* in batches of line numbers and texts."""
    for batch in lines.collect_batches(chunk_size=ROWS, maintain_order=True, engine=pl.StreamingEngine()):
        yield batch[LINE], batch[TEXT].alias("")


def unreadable(found: Sources, line: int, reason: str) -> UnreadableFile:
    """Return the error for a line of a file. Looks at the file system, so call it on a worker.

    Example:
        >>> unreadable(Sources("rows.ndjson", (__file__,), None), 7, "it is not JSON")
        UnreadableFile('cannot read rows.ndjson: line 7: it is not JSON')
    """
    is_one = len(found.paths) == 1 and Path(found.paths[0]).is_file()
    where = f"line {line}" if is_one else f"line {line} of all its files"
    return UnreadableFile([found.shown], f"{where}: {reason}")
