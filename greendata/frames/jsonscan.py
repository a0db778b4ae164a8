"""Files of NDJSON as lazy frames of rows that a model has judged, each by its own text, while they are read.

What a column of such a file is cannot be told before all of it was read, and what a cell was not told after. So the
rows are judged where they come in, batch by batch, and the columns are those of the model. All of it is for workers and
for Polars' own threads, which run the query.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from polars.io.plugins import register_io_source
from pydantic import BaseModel

from greendata.errors import FrameInvalid, UnreadableFile
from greendata.frames.jsonsieve import JsonSieve, NotJson
from greendata.frames.models import schema_of
from greendata.frames.names import referred
from greendata.frames.roots import Sources
from greendata.frames.validation import verdict
from greendata.frames.verdicts import joined

__all__ = ("scan_judged",)

ROWS = 50_000  # judged at once

_NOT_BLANK = r"[^ \t\r]"


def scan_judged(places: Any, found: Sources, model: type[BaseModel]) -> pl.LazyFrame:
    r"""Return a lazy frame over lines of JSON in the schema of *model*.

    Taking it raises FrameInvalid with the failures of all rows, those that a filter would leave out with them; and
    UnreadableFile if a line is no JSON.

    Args:
        places: what `polars.scan_lines` takes.
        found: the same files, for errors.

    Raises:
        FileNotFoundError: there is none.

    Example:
        >>> import tempfile
        >>> class User(BaseModel):
        ...     age: int = 7
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write(b'{"age": 1.0}\n{}')
        ...     file.flush()
        ...     scan_judged(file.name, Sources("ages", (file.name,), None), User).collect()["age"].to_list()
        [1, 7]
    """
    lines = pl.scan_lines(places)
    lines.head(1).collect()
    schema = schema_of(model)
    return register_io_source(partial(_batches, lines, found, model), schema=schema, explain_name="judged NDJSON")


def _batches(
    lines: pl.LazyFrame,
    found: Sources,
    model: type[BaseModel],
    columns: list[str] | None,
    predicate: pl.Expr | None,
    rows: int | None,
    _batch_size: int | None,
) -> Iterator[pl.DataFrame]:
    """What Polars asks for: some *columns* of the first *rows*, of which it takes those that *predicate* is true of."""
    for good in _judged(lines, found, model):
        if rows is not None:
            good = good.head(rows)  # noqa: PLW2901 - no more of it is wanted
            rows -= good.height
        some = good if predicate is None else good.filter(predicate)
        yield some if columns is None else some.select(referred(columns, some.columns))
        if rows == 0:
            return


def _judged(lines: pl.LazyFrame, found: Sources, model: type[BaseModel]) -> Iterator[pl.DataFrame]:
    """The rows in batches; as soon as one is invalid no more of them, but all failures."""
    sieve = JsonSieve(model)
    names = [*schema_of(model)]
    failures: list[pl.DataFrame] = []
    height = line = 0
    for batch in lines.collect_batches(chunk_size=ROWS, maintain_order=True):
        texts = batch.to_series().str.strip_prefix("\ufeff")
        filled = texts.str.contains(_NOT_BLANK)
        try:
            count, judged = verdict(sieve(texts.filter(filled).alias("")))
        except NotJson as broken:
            number = line + 1 + int(filled.arg_true()[broken.row])
            where = f"line {number}" if _is_one(found) else f"line {number} of all its files"
            raise UnreadableFile([found.shown], f"{where}: {broken.reason.partition(' at line ')[0]}") from broken
        if judged.failures.height:
            failures.append(judged.failures.with_columns(pl.col("row") + pl.lit(height, pl.UInt32)))
        height, line = height + count, line + batch.height
        if not failures:
            yield judged.good.select(referred(names, judged.good.columns))
    if failures:
        raise FrameInvalid(model.__name__, height, joined(failures))


def _is_one(found: Sources) -> bool:
    return len(found.paths) == 1 and Path(found.paths[0]).is_file()
