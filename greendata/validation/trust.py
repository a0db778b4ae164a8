"""Trusted frames: check the columns, the nulls and, if requested, the dtypes, but no values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from greendata.query.choice import engine_for
from greendata.schema.codecs import Column, Dtype
from greendata.schema.column_names import column as by_name
from greendata.schema.failures import FAILURES, ROW_KEY, Failure, failures_of, shown_name

__all__ = ("shape_failures", "trusted")

MADE = "Field required: its default is made row by row, which needs trust='off'"
COMPUTED = "Field required: it is computed row by row, which needs trust='off'"


def trusted(
    frame: pl.DataFrame | pl.LazyFrame, columns: Sequence[Column], *, extra: str, check_dtypes: bool
) -> tuple[int, pl.DataFrame, pl.DataFrame]:
    """Return the number of rows of *frame*, the rows without forbidden nulls, and the failures. Call on a worker.

    Args:
        columns: the columns of the model.
        extra: how the model treats other columns: "ignore", "forbid" or "allow".
        check_dtypes: True if each column must have the dtype of its codec.
    """
    df = frame.collect(engine=engine_for("auto", "collect")) if isinstance(frame, pl.LazyFrame) else frame
    sources = {column.name: _source(column, df.schema) for column in columns}
    failures = [*shape_failures(df.schema, columns, extra=extra), *_missing_values(columns, sources)]
    if check_dtypes:
        failures += _wrong_dtypes(df.schema, columns, sources)
    selected = [_selected(column, sources[column.name]) for column in columns]
    if extra == "allow":
        selected += [by_name(name) for name in df.columns if name not in sources.values()]
    if failures:
        return df.height, df.head(0), failures_of(failures)
    nulls = pl.concat([pl.DataFrame(schema=FAILURES), *_nulls(df, columns, sources)]).sort("row", maintain_order=True)
    good = df.select(*selected, pl.int_range(pl.len(), dtype=pl.UInt32).alias(ROW_KEY))
    if nulls.height:
        good = good.filter(~pl.col(ROW_KEY).is_in(nulls["row"].implode()))
    return df.height, good.drop(ROW_KEY), nulls


def shape_failures(dtypes: Mapping[str, Dtype], columns: Sequence[Column], *, extra: str) -> list[Failure]:
    """Return the failures of a frame that follow from *dtypes* alone: missing columns and forbidden columns."""
    required = (column for column in columns if column.sources and column.missing == "fails")
    missing = [column.name for column in required if column.source(dtypes) is None]
    found: list[Failure] = [(None, shown_name(name), None, "missing", "Field required") for name in missing]
    if extra == "forbid":
        known = {_source(column, dtypes) for column in columns}
        unknown = [name for name in dtypes if name not in known]
        found += [
            (None, shown_name(name), None, "extra_forbidden", "Extra inputs are not permitted") for name in unknown
        ]
    return found


def _source(column: Column, dtypes: Mapping[str, Dtype]) -> str | None:
    """Return the source of a column. A computed column, present in frames validated before, is its source itself."""
    return column.source(dtypes) if column.sources else column.name if column.name in dtypes else None


def _missing_values(columns: Sequence[Column], sources: Mapping[str, str | None]) -> Iterator[Failure]:
    """Yield a failure for each missing column whose values pydantic would have to make."""
    for column in columns:
        if sources[column.name] is None and (not column.sources or column.missing == "made"):
            yield None, column.name, None, "missing", MADE if column.sources else COMPUTED


def _wrong_dtypes(
    dtypes: Mapping[str, Dtype], columns: Sequence[Column], sources: Mapping[str, str | None]
) -> Iterator[Failure]:
    for column in columns:
        source = sources[column.name]
        if source is not None and dtypes[source] != column.codec.dtype:
            yield None, source, str(dtypes[source]), "dtype", f"Column should be {column.codec.dtype}"


def _selected(column: Column, source: str | None) -> pl.Expr:
    """Return the values of a column of the model: those of its source, or its default."""
    if source is not None:
        return by_name(source).alias(column.name)
    return column.constant().alias(column.name)


def _nulls(df: pl.DataFrame, columns: Sequence[Column], sources: Mapping[str, str | None]) -> Iterator[pl.DataFrame]:
    """Yield the failures of each column that has nulls and may not have them."""
    for column in columns:
        source = sources[column.name]
        if source is None or column.nullable or not df[source].null_count():
            continue
        rows = df[source].alias("row").is_null().arg_true().cast(pl.UInt32).to_frame()
        yield rows.select(
            "row",
            pl.lit(shown_name(source)).alias("column"),
            pl.lit(None, pl.String).alias("value"),
            pl.lit("null").alias("rule"),
            pl.lit("Column should have no nulls").alias("message"),
        )
