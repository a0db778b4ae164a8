"""Check plans when they are built: an operation is tried on empty frames before it is applied to a frame.

Polars reports most errors of names and types when it resolves a schema, but some (an accessor of another type, a
comparison of text with numbers) only when it runs the query. So the operation is also run on empty frames. Plans with
Python functions skip that step, since a check must not call them.
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

__all__ = ("message_without_plan", "plan_schema")

_ABOUT_TYPES = (ColumnNotFoundError, InvalidOperationError, SchemaError, StructFieldNotFoundError)
_A_NAME = re.compile(r'"([^"]+)"')
_PYTHON = ("python_udf", "PYTHON", "map_")  # Python functions in the text of a plan


def plan_schema(verb: str, schemas: Sequence[pl.Schema], build: Callable[..., pl.LazyFrame]) -> pl.Schema:
    """Return the schema of the result of *build* for frames that have *schemas*. Call on a worker.

    Args:
        verb: the name of the operation, for error messages.
        schemas: the schemas of the frame and of the other frames that *build* takes.
        build: the operation, a function of that many lazy frames.

    Raises:
        UnknownColumn: the operation names a column that does not exist.
        PlanRefused: the operation does not fit the types of the columns.

    Example:
        >>> dict(plan_schema("select", [pl.Schema({"a": pl.Int8})], lambda lf: lf.select(pl.col("a").sum().alias("b"))))
        {'b': Int64}
    """
    try:
        lf = build(*(pl.LazyFrame(schema=schema) for schema in schemas))
        schema = lf.collect_schema()
        _dry_run(lf)
    except PolarsError as error:
        raise _plan_error(verb, error, schemas[0]) from error
    return schema


def message_without_plan(error: BaseException) -> str:
    r"""Return the message of Polars' *error* without the plan and the advice that follow it.

    Example:
        >>> message_without_plan(ValueError("bad line\n\nResolved plan until failure: ..."))
        'bad line'
    """
    first, *others = (" ".join(part.split()) for part in str(error).split("\n\n"))
    offset = [part.rstrip(".") for part in others if part.startswith("The current offset")]
    return "; ".join([first, *offset])


def _dry_run(lf: pl.LazyFrame) -> None:
    """Run *lf*, which has no rows, and raise errors about types. Ignore errors that come from the lack of rows."""
    if any(sign in lf.explain(optimized=False) for sign in _PYTHON):
        return
    try:
        lf.collect(engine=pl.InMemoryEngine())
    except _ABOUT_TYPES:
        raise
    except ComputeError as error:
        if str(error).startswith("cannot compare"):
            raise
    except PolarsError:  # an index out of bounds or a wrong shape, which come from the lack of rows
        return


def _plan_error(verb: str, error: PolarsError, schema: pl.Schema) -> PlanRefused:
    name = _A_NAME.search(str(error))
    if isinstance(error, ColumnNotFoundError) and name is not None:
        return UnknownColumn(verb, name[1], schema)
    return PlanRefused(verb, message_without_plan(error), schema)
