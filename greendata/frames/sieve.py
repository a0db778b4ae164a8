"""The sieve: one query that finds the rows of a frame that are surely valid, and what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl
from pydantic import BaseModel

from greendata.frames.forms import Column, Dtype
from greendata.frames.nested import is_plain, resolved, rule_of_field
from greendata.frames.rules import Context, all_of, is_readable
from greendata.frames.verdicts import FAILURES, ROW_KEY

__all__ = ("Sieve", "Sifted")

SURE = "\0sure"
BEYOND = "Python has no date, time or timedelta for the value"


@dataclass(frozen=True, slots=True)
class Sifted:
    """The rows of a frame, sifted.

    Attributes:
        rows: the frame as pydantic is to see it.
        sure: the rows that nothing is wrong with, in the form of their columns, with their numbers.
        is_spoilt: True if these are invalid all the same: a column is missing, or there is one too many.
        doubtful: the numbers of the rows that pydantic is to be asked about.
        beyond: the failures of those that it cannot be asked about.
        extras: the columns that are kept as they are.
    """

    rows: pl.DataFrame
    sure: pl.DataFrame
    is_spoilt: bool
    doubtful: pl.Series
    beyond: pl.DataFrame
    extras: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Sieve:
    """What sifts frames for a model. Call it on a worker.

    Attributes:
        model: the model.
        columns: its columns.
        strict: pydantic's strict mode; None leaves it to the model.
    """

    model: type[BaseModel]
    columns: Sequence[Column]
    strict: bool | None

    def __call__(self, frame: pl.DataFrame | pl.LazyFrame) -> Sifted:
        """The rows of *frame*, sifted."""
        df = frame.collect() if isinstance(frame, pl.LazyFrame) else frame
        computed = [column.name for column in self.columns if not column.sources]
        df = df.drop(computed, strict=False)
        used = {column.source(df.schema) for column in self.columns}
        unused = [name for name in df.columns if name not in used]
        extra = self.model.model_config.get("extra", "ignore")
        values = None if computed else self._values(df.schema)
        if values is None:  # nothing is sure, and validators see the row as it is
            values, seen = [pl.lit(None, column.form.dtype).alias(column.name) for column in self.columns], df
            sure = pl.lit(value=False)
        else:
            *values, sure = values
            blank = [pl.lit(None).alias(name) for name in unused]  # forbidden, whatever is in them
            seen = df.with_columns(blank) if extra == "forbid" else df.drop(unused)
        sifted = df.select(*values, _numbers().alias(ROW_KEY), sure.alias(SURE))
        doubtful, beyond = _readable(seen, sifted[ROW_KEY].filter(~sifted[SURE]))
        return Sifted(
            rows=seen,
            sure=sifted.drop(SURE) if sifted[SURE].all() else sifted.filter(SURE).drop(SURE),
            is_spoilt=(extra == "forbid" and bool(unused))
            or any(column.missing == "fails" and column.source(df.schema) is None for column in self.columns),
            doubtful=doubtful,
            beyond=beyond,
            extras=df.select(unused if extra == "allow" else []),
        )

    def _values(self, dtypes: Mapping[str, Dtype]) -> list[pl.Expr] | None:
        """The values of the columns, and where all are sure; None if pydantic alone can tell, of any row."""
        top = self.model.__pydantic_core_schema__
        refs = {node["ref"]: node for node in top["definitions"]} if top["type"] == "definitions" else {}
        node = resolved(top["schema"] if refs else top, Context(refs, {}, self.strict))
        if not is_plain(node):
            return None
        context = Context(refs, node.get("config", {}), self.strict)
        values, sures = [], []
        for column in self.columns:
            if column.missing == "fails" and column.source(dtypes) is None:
                values.append(pl.lit(None, column.form.dtype).alias(column.name))
                continue
            rule = rule_of_field(node["schema"], context, column, pl.col, dtypes)
            if rule is None:
                return None
            values.append(rule.value.alias(column.name))
            sures.append(rule.sure)
        return [*values, all_of(*sures)]


def _readable(rows: pl.DataFrame, doubtful: pl.Series) -> tuple[pl.Series, pl.DataFrame]:
    """The numbers of *doubtful* rows that Python can hold, and the failures of the others."""
    checks = {name: is_readable(pl.col(name), dtype) for name, dtype in rows.schema.items()}
    found = [pl.DataFrame(schema=FAILURES)]
    for name, check in checks.items():
        if check is not None and doubtful.len():
            failing = rows.lazy().with_columns(_numbers().alias(ROW_KEY)).filter(~check)
            found.append(failing.select(*_failure(name, rows.schema[name])).collect())
    beyond = pl.concat(found)
    beyond = beyond.filter(pl.col("row").is_in(doubtful.implode()))
    return doubtful.filter(~doubtful.is_in(beyond["row"].implode())), beyond


def _failure(name: str, dtype: Dtype) -> tuple[pl.Expr, ...]:
    """The columns of `FAILURES` for values of column *name*; Polars has no text for them either, so it is ticks."""
    value = pl.lit(None, pl.String) if dtype.is_nested() else pl.col(name).to_physical().cast(pl.String)
    return (
        pl.col(ROW_KEY).alias("row"),
        pl.lit(name).alias("column"),
        value.alias("value"),
        pl.lit("column_form").alias("rule"),
        pl.lit(BEYOND).alias("message"),
    )


def _numbers() -> pl.Expr:
    return pl.int_range(pl.len(), dtype=pl.UInt32)
