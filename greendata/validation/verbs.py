"""Validation of frames against a pydantic model, and the rows that fail it.

The result is pydantic's, row for row: that of ``TypeAdapter(list[Model]).validate_python(df.to_dicts())``. One query
in the pool finds the rows that are certainly valid, and their values. pydantic validates the others on the hub, in
slices (`greendata.validation.row_validation`). Of the accepted rows, pydantic sees only the columns that no query can
check, such as those with a validator (`greendata.validation.column_validation`).

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
from greendata.schema.column_names import referred
from greendata.schema.failures import BEYOND_LISTED, FAILURES, LISTED, ROW_KEY, UNLISTED, joined
from greendata.schema.fields import columns_of
from greendata.validation.partitioner import Partitioned, Partitioner, assign
from greendata.validation.row_validation import Validated, validate_rows
from greendata.validation.trust import trusted

__all__ = ("Filtered", "Trust", "filter_valid", "own_validate", "validate", "complete_validation")

Trust = Literal["off", "shape_only", "strict"]


class Filtered(NamedTuple):
    """A frame in two parts.

    Attributes:
        good: the valid rows, in the model's schema and their order.
        failures: every failure of the others, in the order of the rows: ``row`` (its number in the frame, from 0;
            null where the column as a whole fails), ``column`` (with the place inside of it: ``address.zip``,
            ``tags.3``; null where the row as a whole fails), ``value`` as text, ``rule`` and ``message``. After 10 000
            failures each invalid row has one line, with the rule ``unlisted``.

    Example:
        >>> class User(BaseModel):
        ...     age: int
        >>> good, failures = filter_valid(pl.DataFrame({"age": ["7", "x"]}), User)
        >>> good["age"].to_list(), failures["row"].to_list(), failures["rule"].to_list()
        ([7], [1], ['int_parsing'])
    """

    good: pl.DataFrame
    failures: pl.DataFrame


def validate(
    frame: pl.DataFrame | pl.LazyFrame, model: type, *, trust: Trust = "off", strict: bool | None = None
) -> pl.DataFrame:
    """*frame* in the schema of *model*, its values coerced as pydantic coerces them, or an error with all failures.

    Columns come in the order of the fields. A missing one is filled from the field's default; one that is no
    field's is dropped (``extra="ignore"``), fails (``"forbid"``) or is kept as it is (``"allow"``). The caller's
    greenlet waits, the hub goes on. Validators run on the caller's greenlet; they must not wait.

    Args:
        model: a pydantic model; or a class with its own ``validate(frame)`` (patito, dataframely, pandera), which
            runs in the pool: *trust* and *strict* are not for it, and its errors are its own.
        trust: "off" checks everything. "shape_only" checks that the columns are there, and that there is no null
            where none may be, and leaves the dtypes as they are. "strict" checks that the dtypes are the model's
            as well. Neither looks at a value.
        strict: pydantic's strict mode; None leaves it to the model. A column's values are what ``to_dicts`` makes
            of them, so no column is strictly a UUID, an Enum, a set or a tuple.

    The verdicts are pydantic's own, with three bounds, because it takes a row in one go while the hub waits: more than
    1000 failures of a row are one, with their number (rule ``too_many_failures``), and a value with more than 65 536
    elements that no query can judge fails (rule ``column_form``). After 10 000 failures of a frame no more rows are
    validated: how many are left stands in a last line (rule ``unchecked``). `filter_valid` judges them all.

    Raises:
        FrameInvalid: rows that do not fit.
        NotAFrame, NotAModel, BadChoice: at the call.
        NoColumnForm, DuplicateColumn: the model has no schema, see `schema_of`.

    Example:
        >>> class User(BaseModel):
        ...     id: int
        ...     name: str = "?"
        >>> validate(pl.DataFrame({"id": ["1", "2"]}), User).rows()
        [(1, '?'), (2, '?')]
    """
    if (own := own_validate(model)) is not None:
        return pool.call(_validated_by, own, _known(frame))
    rows, found = _checked(frame, model, trust=trust, strict=strict, all_rows=False)
    if found.failures.height:
        raise pool.call(FrameInvalid.with_text, model.__name__, rows, found.failures)
    return found.good


def filter_valid(
    frame: pl.DataFrame | pl.LazyFrame, model: type[BaseModel], *, trust: Trust = "off", strict: bool | None = None
) -> Filtered:
    """The rows of *frame* that fit *model*, and the failures of the others. For the arguments see `validate`.

    Where the frame as a whole fails, for want of a column, no row is good.

    Raises:
        NotAFrame, NotAModel, BadChoice: at the call.
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
    """The rows of the frame, and what became of them."""
    frame = _known(frame)
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
    """How many rows were *partitioned*, and what becomes of them. pydantic is asked on the caller's greenlet.

    Args:
        all_rows: also find the valid rows where so many fail that no more failures are listed.

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
        _failures_of_first(partitioned, part.accepted[ROW_KEY].head(1))
        if part.all_invalid and part.accepted.height
        else None
        for part in partitioned.parts
    ]
    return partitioned.height, pool.call(_merged, partitioned, outcome, failures_of_parts, all_rows=all_rows)


def _failures_of_first(partitioned: Partitioned, number: pl.Series) -> pl.DataFrame:
    return validate_rows(partitioned.validators, assign([(0, number, number)]), all_rows=False).failures[0]


def _merged(
    partitioned: Partitioned, outcome: Validated, failures_of_parts: list[pl.DataFrame | None], *, all_rows: bool
) -> Filtered:
    """All rows together, in their order. Call on a worker.

    Args:
        outcome: on the rows that pydantic was asked about. Its lists are emptied.
        failures_of_parts: for each part whose rows all fail, the failures of one of its rows.
        all_rows: True if each row that fails has a line.
    """
    failing = [joined(outcome.failures), partitioned.over_limits]
    left = [outcome.left[ROW_KEY]]
    good, *apart = map(joined, outcome.good)
    fitting = [good]
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
                accepted = accepted.join(apart[part.validator - 1], on=ROW_KEY, maintain_order="left")
            fitting.append(accepted.select(referred(good.columns, good.columns)))
    fitting = [rows for rows in fitting if rows.height] or [good]
    rows = fitting[0] if len(fitting) == 1 else pl.concat(fitting).sort(ROW_KEY)
    if partitioned.extras is not None:
        rows = rows.hstack(partitioned.extras(rows[ROW_KEY]))
    failing.append(_lines(pl.concat(left), partitioned.rejected, all_rows=all_rows))
    return Filtered(rows.drop(ROW_KEY), pl.concat(failing).sort("row", maintain_order=True))


def _lines(rows: pl.Series, rejected: pl.DataFrame, *, all_rows: bool) -> pl.DataFrame:
    """What is told of *rows* whose failures are not listed: of each by itself, or of all at once.

    Args:
        rejected: what is known of some of them, see `greendata.validation.partitioner.Classified`.
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


def _known(frame: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame | pl.LazyFrame:
    if not isinstance(frame, pl.DataFrame | pl.LazyFrame):
        raise NotAFrame(frame, "DataFrame")
    return frame


def own_validate(model: object) -> Any:
    """The ``validate`` of a model that brings its own; None for pydantic's models, whose own takes an object."""
    if not isinstance(model, type):
        raise NotAModel(model)
    own = getattr(model, "validate", None)
    if issubclass(model, BaseModel) and getattr(own, "__func__", None) is BaseModel.__dict__["validate"].__func__:
        return None
    return own if callable(own) else None


def _validated_by(own: Any, frame: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame:
    df = frame.collect() if isinstance(frame, pl.LazyFrame) else frame
    valid = own(df)
    return valid if isinstance(valid, pl.DataFrame) else df
