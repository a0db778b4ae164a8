"""Plans checked when they are built: an operation is tried on frames without rows before it is done to a frame.

What Polars finds out from names and types alone it says when it resolves a schema; some of it (an accessor of another
type, a comparison of text with numbers) only when it computes. So the operation is also computed, over no rows. That
step is left out where a plan has Python functions in it, which may not be called for a check.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import polars as pl
from polars.exceptions import (
    ColumnNotFoundError,
    ComputeError,
    InvalidOperationError,
    PolarsError,
    SchemaError,
    StructFieldNotFoundError,
)

from greendata.errors import PlanRefused, UnknownColumn

__all__ = ("short_message", "plan_schema")

_ABOUT_TYPES = (ColumnNotFoundError, InvalidOperationError, SchemaError, StructFieldNotFoundError)
_A_NAME = re.compile(r'"([^"]+)"')
_PYTHON = ("python_udf", "PYTHON", "map_")  # how a plan's text shows functions of Python


def plan_schema(verb: str, schemas: Sequence[pl.Schema], build: Callable[..., pl.LazyFrame]) -> pl.Schema:
    """The schema of what *build* makes of frames that have *schemas*. Call on a worker.

    Args:
        verb: what the operation is called in errors.
        schemas: that of the frame, and of every other frame that takes part.
        build: the operation, a function of as many lazy frames.

    Raises:
        UnknownColumn: it names a column that is not there.
        PlanRefused: it does not go with the columns' types.

    Example:
        >>> dict(plan_schema("select", [pl.Schema({"a": pl.Int8})], lambda lf: lf.select(pl.col("a").sum().alias("b"))))
        {'b': Int64}
    """
    try:
        lf = build(*(pl.LazyFrame(schema=schema) for schema in schemas))
        schema = lf.collect_schema()
        _dry_run(lf)
    except PolarsError as error:
        raise _refusal(verb, error, schemas[0]) from error
    return schema


def short_message(error: BaseException) -> str:
    r"""What Polars says went wrong, without the plan and the advice that it prints behind it.

    Example:
        >>> short_message(ValueError("bad line\n\nResolved plan until failure: ..."))
        'bad line'
    """
    first, *others = (" ".join(part.split()) for part in str(error).split("\n\n"))
    offset = [part.rstrip(".") for part in others if part.startswith("The current offset")]
    return "; ".join([first, *offset])


def _dry_run(lf: pl.LazyFrame) -> None:
    """Compute *lf*, which has no rows, and raise what it says about types; the lack of rows is no error."""
    if any(sign in lf.explain(optimized=False) for sign in _PYTHON):
        return
    try:
        lf.collect(engine="in-memory")
    except _ABOUT_TYPES:
        raise
    except ComputeError as error:
        if str(error).startswith("cannot compare"):
            raise
    except PolarsError:  # an index out of bounds, a shape: of no rows
        return


def _refusal(verb: str, error: PolarsError, schema: pl.Schema) -> PlanRefused:
    name = _A_NAME.search(str(error))
    if isinstance(error, ColumnNotFoundError) and name is not None:
        return UnknownColumn(verb, name[1], schema)
    return PlanRefused(verb, short_message(error), schema)
