"""Validation of frames against a pydantic model, and the rows that fail it.

The result is pydantic's, row for row: that of ``TypeAdapter(list[Model]).validate_python(df.to_dicts())``. One query
in the pool finds the rows that are certainly valid, and their values. pydantic validates the others on the hub, in
slices (`greendata.validation.row_validation`). Of the accepted rows, pydantic sees only the columns that no query can
check, such as those with a validator (`greendata.validation.column_validation`).

::

    the caller's greenlet                     a worker of the pool
    ---------------------                     --------------------
    filter_valid(frame, model)      --->      Partitioner: one query classifies the rows
    validate_rows: pydantic, in     <---      Partitioned: accepted rows, undecided rows
    slices; the hub runs between
    them                            --->      _merged: valid rows and failures, in order
    Filtered(good, failures)        <---

Three things differ, because a frame is not a list of dicts:

- A dict, or a tuple of different types, may come as its column holds it.
- A valid value that its column cannot hold fails (rule ``column_form``).
- A value that Python cannot hold, such as a date of the year 10 000, fails with the same rule.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import polars as pl
from pydantic import BaseModel

from greendata.errors import BadChoice, FrameInvalid, NotAFrame, NotAModel
from greendata.errors.plural import counted
from greendata.errors.validation import UNCHECKED
from greendata.pool import pool
from greendata.pool.operation import operation
from greendata.query.choice import engine_for
from greendata.schema.column_names import referred
from greendata.schema.failures import BEYOND_LISTED, FAILURES, LISTED, ROW_KEY, UNLISTED, concatenated
from greendata.schema.fields import columns_of
from greendata.schema.similar_names import hints_for
from greendata.validation.partitioner import Partitioned, Partitioner, assign
from greendata.validation.row_validation import Validated, validate_rows
from greendata.validation.trust import trusted

__all__ = ("Filtered", "Trust", "complete_validation", "filter_valid", "own_validate", "validate")

Trust = Literal["off", "shape_only", "strict"]


class Filtered(NamedTuple):
    """The valid rows of a frame, and the failures of the others.

    Attributes:
        good: the valid rows in their order, with the schema of the model.
        failures: a frame with one row per failure, in the order of the rows that fail. After 10 000 failures it has
            one row per invalid row, with the rule ``unlisted``.

    Columns of the failures:
        row: the number of the row in the frame, from 0; null if a column as a whole fails.
        column: the column and the place inside it (``address.zip``, ``tags.3``); null if the row as a whole fails.
        value: the value as text.
        rule: the rule that the value breaks.
        message: what is wrong.

    Example:
        >>> class User(BaseModel):
        ...     age: int
        >>> good, failures = filter_valid(pl.DataFrame({"age": ["7", "x"]}), User)
        >>> good["age"].to_list(), failures["row"].to_list(), failures["rule"].to_list()
        ([7], [1], ['int_parsing'])
    """

    good: pl.DataFrame
    failures: pl.DataFrame


@operation("validate")
def validate(
    frame: pl.DataFrame | pl.LazyFrame, model: type, *, trust: Trust = "off", strict: bool | None = None
) -> pl.DataFrame:
    """Return *frame* in the schema of *model*, with values coerced as pydantic coerces them.

    Columns come in the order of the fields. A missing column is filled with the default of its field. A column that
    belongs to no field is dropped (``extra="ignore"``), fails (``"forbid"``) or is kept unchanged (``"allow"``).

    The caller's greenlet waits while the hub runs other greenlets. Validators of the model run on the caller's greenlet
    and must not wait.

    The result is pydantic's, with three limits, because pydantic validates a row without a pause while the hub waits:

    - More than 1000 failures of one row become a single failure with their number (rule ``too_many_failures``).
    - A value with more than 65 536 elements that no query can check fails (rule ``column_form``).
    - After 10 000 failures no more rows are checked. A last failure has the number of these rows (rule ``unchecked``).
      `filter_valid` checks all rows.

    Args:
        frame: an eager or lazy frame.
        model: a pydantic model, or a class with its own ``validate(frame)`` method (patito, dataframely, pandera). Such
            a method runs in the pool, ignores *trust* and *strict*, and raises its usual errors.
        trust: "off" checks everything. "shape_only" checks that no required column is missing and that there are no
            forbidden nulls, and leaves the dtypes unchanged. "strict" also checks that the dtypes are those of the
            model. "shape_only" and "strict" do not check values.
        strict: pydantic's strict mode; None leaves it to the model. pydantic sees values as ``to_dicts`` returns them,
            so in strict mode no column can be a UUID, an Enum, a set or a tuple.

    Raises:
        FrameInvalid: some rows are invalid. The error holds the failures.
        NotAFrame, NotAModel, BadChoice: an argument is wrong.
        NoColumnForm, DuplicateColumn: the model has no schema, see `schema_of`.

    Example:
        >>> class User(BaseModel):
        ...     id: int
        ...     name: str = "?"
        >>> validate(pl.DataFrame({"id": ["1", "2"]}), User).rows()
        [(1, '?'), (2, '?')]
    """
    if (own := own_validate(model)) is not None:
        return pool.call(_call_own_validate, own, _require_frame(frame))
    rows, found = _checked(frame, model, trust=trust, strict=strict, all_rows=False)
    if found.failures.height:
        raise pool.call(_invalid, model, frame, rows, found.failures)
    return found.good


def _invalid(
    model: type[BaseModel], frame: pl.DataFrame | pl.LazyFrame, rows: int, failures: pl.DataFrame
) -> FrameInvalid:
    """Return the error for the *failures* of a frame, with hints if columns are missing. Call on a worker."""
    is_missing = failures["rule"].is_in(["missing", "extra_forbidden"]).any()
    hints = hints_for(columns_of(model), frame.collect_schema().names()) if is_missing else ()
    return FrameInvalid.with_text(model.__name__, rows, failures, hints)


@operation("filter_valid")
def filter_valid(
    frame: pl.DataFrame | pl.LazyFrame, model: type[BaseModel], *, trust: Trust = "off", strict: bool | None = None
) -> Filtered:
    """Return the valid rows of *frame* and the failures of the others.

    If the frame as a whole fails, for example because a column is missing, no row is valid.

    Args:
        frame: an eager or lazy frame.
        model: a pydantic model.
        trust: what is not checked, see `validate`.
        strict: pydantic's strict mode; None leaves it to the model.

    Raises:
        NotAFrame, NotAModel, BadChoice: an argument is wrong.
        NoColumnForm, DuplicateColumn: the model has no schema, see `schema_of`.

    Example:
        >>> class User(BaseModel):
        ...     age: int
        >>> filter_valid(pl.DataFrame({"age": [7, None]}), User).good.height
        1
    """
    return _checked(frame, model, trust=trust, strict=strict, all_rows=True)[1]


def _checked(
    frame: pl.DataFrame | pl.LazyFrame, model: type[BaseModel], *, trust: Trust, strict: bool | None, all_rows: bool
) -> tuple[int, Filtered]:
    """Return the number of rows of the frame, and the result of their validation."""
    frame = _require_frame(frame)
    if trust not in get_args(Trust):
        raise BadChoice("trust", trust, get_args(Trust))
    columns = columns_of(model)
    extra = model.model_config.get("extra") or "ignore"
    if trust != "off":
        rows, *parts = pool.call(trusted, frame, columns, extra=extra, check_dtypes=trust == "strict")
        return rows, Filtered(*parts)
    return complete_validation(
        pool.call(Partitioner(model, columns, strict, all_rows=all_rows), frame), all_rows=all_rows
    )


def complete_validation(partitioned: Partitioned, *, all_rows: bool = False) -> tuple[int, Filtered]:
    """Validate the rows that a query has left undecided. Return the number of all rows, and the complete result.

    pydantic runs on the caller's greenlet.

    Args:
        all_rows: find all valid rows, even after so many failures that no more are listed.

    Example:
        >>> class User(BaseModel):
        ...     age: int
        >>> partitioner = Partitioner(User, columns_of(User), None)
        >>> rows, found = complete_validation(partitioner(pl.DataFrame({"age": ["7", "x"]})))
        >>> rows, found.good["age"].to_list(), found.failures["row"].to_list()
        (2, [7], [1])
    """
    outcome = validate_rows(partitioned.validators, partitioned.assigned, all_rows=all_rows)
    failures_of_parts = [
        _first_failures(partitioned, part.accepted[ROW_KEY].head(1))
        if part.all_invalid and part.accepted.height
        else None
        for part in partitioned.parts
    ]
    return partitioned.height, pool.call(_merged, partitioned, outcome, failures_of_parts, all_rows=all_rows)


def _first_failures(partitioned: Partitioned, number: pl.Series) -> pl.DataFrame:
    return validate_rows(partitioned.validators, assign([(0, number, number)]), all_rows=False).failures[0]


def _merged(
    partitioned: Partitioned, outcome: Validated, failures_of_parts: list[pl.DataFrame | None], *, all_rows: bool
) -> Filtered:
    """Merge accepted and validated rows, in their order. Call on a worker.

    Args:
        outcome: the result for the rows that pydantic validated. Its lists are emptied.
        failures_of_parts: for each part whose rows all fail, the failures of one of its rows; otherwise None.
        all_rows: True to list each invalid row at least once.
    """
    failing = [concatenated(outcome.failures), partitioned.over_limits]
    left = [outcome.left[ROW_KEY]]
    good, *checked = map(concatenated, outcome.good)
    valid = [good]
    for part, failures in zip(partitioned.parts, failures_of_parts, strict=True):
        if failures is not None:
            numbers = part.accepted.select(pl.col(ROW_KEY).alias("row"))
            listed = LISTED // failures.height
            left.append(part.accepted[ROW_KEY].slice(listed))
            numbers = numbers.head(listed)
            failing.append(failures.drop("row").join(numbers, how="cross").select(FAILURES.names()))
        elif part.accepted.height:
            accepted = part.accepted
            if part.validator is not None:
                accepted = accepted.join(checked[part.validator - 1], on=ROW_KEY, maintain_order="left")
            valid.append(accepted.select(referred(good.columns, good.columns)))
    valid = [rows for rows in valid if rows.height] or [good]
    rows = valid[0] if len(valid) == 1 else pl.concat(valid).sort(ROW_KEY)
    if partitioned.extras is not None:
        rows = rows.hstack(partitioned.extras(rows[ROW_KEY]))
    failing.append(_unlisted_failures(pl.concat(left), partitioned.rejected, all_rows=all_rows))
    return Filtered(rows.drop(ROW_KEY), pl.concat(failing).sort("row", maintain_order=True))


def _unlisted_failures(rows: pl.Series, rejected: pl.DataFrame, *, all_rows: bool) -> pl.DataFrame:
    """Return failures for *rows* whose failures are not listed: one per row, or one for all rows.

    Args:
        rejected: a column and a value for some of them, see `greendata.validation.partitioner.Classified`.
    """
    if all_rows or not rows.len():
        found = (
            rows.to_frame(ROW_KEY)
            .join(rejected, on=ROW_KEY, how="left", maintain_order="left")
            .rename({ROW_KEY: "row"})
        )
        return found.with_columns(rule=pl.lit(UNLISTED), message=pl.lit(BEYOND_LISTED))
    count = rows.len()
    message = f"{counted(count, 'row')} from here on, not all of them invalid, are not checked; filter_valid checks all"
    return pl.DataFrame([(rows.min(), None, str(count), UNCHECKED, message)], FAILURES, orient="row")


def _require_frame(frame: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame | pl.LazyFrame:
    if not isinstance(frame, pl.DataFrame | pl.LazyFrame):
        raise NotAFrame(frame, "DataFrame")
    return frame


def own_validate(model: object) -> Any:
    """Return the ``validate`` method of a class that defines one, or None for a pydantic model.

    The method that every pydantic model inherits does not count: it takes an object, not a frame.

    Raises:
        NotAModel: *model* is not a class.
    """
    if not isinstance(model, type):
        raise NotAModel(model)
    own = getattr(model, "validate", None)
    if issubclass(model, BaseModel) and getattr(own, "__func__", None) is BaseModel.__dict__["validate"].__func__:
        return None
    return own if callable(own) else None


def _call_own_validate(own: Any, frame: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame:
    df = frame.collect(engine=engine_for("auto", "collect")) if isinstance(frame, pl.LazyFrame) else frame
    valid = own(df)
    return valid if isinstance(valid, pl.DataFrame) else df
