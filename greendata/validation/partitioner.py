"""Partition the rows of a frame: one query accepts those that are certainly valid, validators check the others.

A column that has no rule gets a column check, which runs on the rows where every rule accepts its values. If such a
check needs the whole row, as for a validator of the model or one that receives the fields before it, pydantic
validates all rows as a whole.

If the first query leaves many rows undecided, a second query examines these with wider rules. The wider rules accept
numbers that are written in unusual ways, and reject values that are certainly invalid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple
from uuid import uuid4

import polars as pl
from pydantic import BaseModel, EncodedBytes
from pydantic_core import core_schema

from greendata.internals.pydantic import core_schema_of, holds_parts, type_of, validates
from greendata.query.choice import engine_for
from greendata.schema.codecs import Column, Dtype
from greendata.schema.column_names import column as by_name
from greendata.schema.column_names import referred
from greendata.schema.failures import FAILURES, HIDDEN, LISTED, ROW_KEY, TEXT, Failure, failures_of, shown_name
from greendata.schema.limits import failures_where, obstacles
from greendata.validation.column_validation import ColumnCheck, ColumnValidator, column_check
from greendata.validation.nested import is_plain, resolved, rule_of_field
from greendata.validation.row_validation import PLACE, SURELY_INVALID, VALIDATOR, RowValidator, Validator
from greendata.validation.rules import FALSE, TRUE, Context, Rule, all_of
from greendata.validation.trust import shape_failures

__all__ = ("Classified", "ColumnPlan", "Part", "Partitioned", "Partitioner", "assign", "in_base64", "numbered")

MODELS = ("dataclass", "model", "typed-dict")  # nodes that carry their own configuration
ACCEPTED = f"accepted {uuid4()}"
MANY = 200  # undecided rows; for these, pydantic takes as long as a second query
ENOUGH = 2 * LISTED  # undecided rows; if there are more, the first of them are classified alone: `LISTED` may fail


class Part(NamedTuple):
    """Rows whose values a query has accepted.

    Attributes:
        accepted: the encoded rows with their numbers, without the columns that have a column check.
        all_invalid: True if these rows are nevertheless invalid, because a column is missing or not permitted.
        validator: the index of the validator of the columns with a column check; None if there are none.
    """

    accepted: pl.DataFrame
    all_invalid: bool
    validator: int | None


@dataclass(frozen=True, slots=True)
class Partitioned:
    """The rows of a frame after a query, with what pydantic needs to validate the rest.

    Attributes:
        height: the number of rows.
        parts: the accepted rows.
        validators: the validator of whole rows, followed by those of columns with a column check.
        assigned: the rows that pydantic validates, see `assign`.
        rejected: those of the assigned rows that are certainly invalid, see `Classified`.
        over_limits: the failures of rows that pydantic cannot validate, see `greendata.schema.limits`.
        extras: returns the extra columns, which are kept unchanged, for given row numbers; None if there are none.
    """

    height: int
    parts: Sequence[Part]
    validators: tuple[Validator, ...]
    assigned: pl.DataFrame
    rejected: pl.DataFrame
    over_limits: pl.DataFrame
    extras: Callable[[pl.Series], pl.DataFrame] | None


@dataclass(frozen=True, slots=True)
class ColumnPlan:
    """How the columns of a frame are validated.

    Attributes:
        values: the converted values of each column that has a rule.
        accepted: True where all rules accept the row.
        checks: the columns that pydantic checks one by one.
        rejected: for each column with values that are certainly invalid: its name in pydantic's errors, where the
            values are invalid, and the values as text.
    """

    values: Sequence[pl.Expr]
    accepted: pl.Expr
    checks: Sequence[ColumnCheck] = ()
    rejected: Sequence[tuple[str, pl.Expr, pl.Expr]] = ()


class Classified(NamedTuple):
    """Rows classified by a query.

    Attributes:
        parts: the accepted rows.
        undecided: the numbers of the other rows.
        rejected: those of the undecided rows that are certainly invalid: the row numbers, and the ``column`` and
            ``value`` of one failure each.
    """

    parts: list[Part]
    undecided: pl.Series
    rejected: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Partitioner:
    """Partition frames for a model. Call it on a worker.

    Attributes:
        model: the model.
        columns: the columns of the model.
        strict: pydantic's strict mode; None leaves it to the model.
        from_json: True if columns with a column check hold the text of JSON values.
        all_rows: True to find all valid rows, however many rows fail.
    """

    model: type[BaseModel]
    columns: Sequence[Column]
    strict: bool | None
    from_json: bool = False
    all_rows: bool = False

    @property
    def core(self) -> Any:
        """The core schema from which rules are derived."""
        core = core_schema_of(self.model)
        return in_base64(core) if self.from_json else core

    def __call__(self, frame: pl.DataFrame | pl.LazyFrame) -> Partitioned:
        """Partition the rows of *frame*."""
        df = frame.collect(engine=engine_for("auto", "collect")) if isinstance(frame, pl.LazyFrame) else frame
        computed = [column.name for column in self.columns if not column.sources]
        df = df.drop(referred(computed, df.columns), strict=False)
        unused, plan = self.unused(df.schema), self.plan(df.schema)
        extra = self.model.model_config.get("extra") or "ignore"
        if plan is None:  # no row is accepted, and validators see unchanged rows
            seen = df
        elif extra == "forbid":  # forbidden columns fail whatever their values are
            seen = df.with_columns(pl.lit(None).alias(name) for name in unused)
        else:
            seen = df.drop(referred(unused, df.columns))
        parts, undecided, rejected = self.partition(df, plan, all_invalid=self.all_invalid(df.schema))
        allowed, over_limits = _within_limits(seen, undecided)
        checked = [part.accepted[ROW_KEY] for part in parts if part.validator is not None]
        if not df.height:
            over_limits = failures_of(shape_failures(seen.schema, self.columns, extra=extra))
        kept = df.select(referred(unused if extra == "allow" else [], df.columns))
        return Partitioned(
            height=df.height,
            parts=parts,
            validators=self._validators(seen, plan),
            assigned=assign([(0, allowed, allowed), *((1, some, some) for some in checked)], rejected[ROW_KEY]),
            rejected=rejected,
            over_limits=over_limits,
            extras=kept.__getitem__ if kept.width else None,
        )

    def partition(self, df: pl.DataFrame, plan: ColumnPlan | None, *, all_invalid: bool) -> Classified:
        """Classify the rows of *df*. *plan* is the plan for its dtypes."""
        if plan is None:
            values = [pl.lit(None, column.codec.dtype).alias(column.name) for column in self.columns]
            plan = ColumnPlan(values, pl.lit(value=False))
            return _classify(df, plan, all_invalid=all_invalid)
        parts, undecided, rejected = _classify(df, plan, all_invalid=all_invalid)
        wide = self._plan(df.schema, is_wide=True) if undecided.len() > MANY and not all_invalid else None
        if wide is None:
            return Classified(parts, undecided, rejected)
        if not self.all_rows and undecided.len() > ENOUGH:
            first = undecided.head(ENOUGH)
            rejected = numbered(_classify(df[first], wide, all_invalid=False).rejected, first)
            if rejected.height >= LISTED:  # the other rows will not be validated
                return Classified(parts, undecided, rejected)
        again, places, rejected = _classify(df[undecided], wide, all_invalid=False)
        found = [part._replace(accepted=numbered(part.accepted, undecided)) for part in again]
        return Classified([*parts, *found], undecided[places], numbered(rejected, undecided))

    def unused(self, dtypes: Mapping[str, Dtype]) -> list[str]:
        """Return the names of the columns that belong to no field."""
        used = {column.source(dtypes) for column in self.columns}
        return [name for name in dtypes if name not in used]

    def plan(self, dtypes: Mapping[str, Dtype]) -> ColumnPlan | None:
        """Return how to validate columns of *dtypes*, or None if pydantic must see whole rows."""
        plan = self._plan(dtypes)
        return None if plan is not None and plan.checks and self.all_invalid(dtypes) else plan

    def all_invalid(self, dtypes: Mapping[str, Dtype]) -> bool:
        """Return True if no row can be valid, because a column is missing from *dtypes* or not permitted."""
        if any(column.missing == "fails" and column.source(dtypes) is None for column in self.columns):
            return True
        return self.model.model_config.get("extra") == "forbid" and bool(self.unused(dtypes))

    def failures_of_all(self, dtypes: Mapping[str, Dtype]) -> list[Failure]:
        """Return the failures that all rows have, because a column is missing from *dtypes* or not permitted.

        Return none if code of the model sees the rows first, and may add or remove columns.

        Example:
            >>> class User(BaseModel):
            ...     age: int
            >>> from greendata.schema.fields import columns_of
            >>> [failure[1] for failure in Partitioner(User, columns_of(User), None).failures_of_all({})]
            ['age']
        """
        top = self.core
        refs = {node["ref"]: node for node in top["definitions"]} if top["type"] == "definitions" else {}
        context = Context(refs, {}, self.strict)
        node = resolved(top["schema"] if refs else top, context)
        while node["type"] == "function-after":
            node = resolved(node["schema"], context)
        if not is_plain(node):
            return []
        return shape_failures(dtypes, self.columns, extra=self.model.model_config.get("extra") or "ignore")

    def _plan(self, dtypes: Mapping[str, Dtype], *, is_wide: bool = False) -> ColumnPlan | None:
        top = self.core
        refs = {node["ref"]: node for node in top["definitions"]} if top["type"] == "definitions" else {}
        node = resolved(top["schema"] if refs else top, Context(refs, {}, self.strict))
        if not is_plain(node) or not all(column.sources for column in self.columns):
            return None
        context = Context(refs, node.get("config", {}), self.strict, is_wide)
        values, conditions, checks, rejected = [], [], [], []
        for column in self.columns:
            source = column.source(dtypes)
            if source is None and column.missing == "fails":
                rule: Rule | None = Rule(pl.lit(None, column.codec.dtype))
            else:
                rule = rule_of_field(node["schema"], context, column, by_name, dtypes)
            if rule is not None:
                values.append(rule.value.alias(column.name))
                conditions.append(rule.accepted)
                if source is not None and rule.rejected is not FALSE:
                    name = source if node.get("config", {}).get("loc_by_alias", True) else column.field
                    text = pl.lit(HIDDEN) if column.is_hidden else _text(by_name(source), dtypes[source])
                    rejected.append((name, rule.rejected, text))
            elif (check := column_check(node, context, column, dtypes, from_json=self.from_json)) is not None:
                checks.append(check)
                conditions.append(TRUE if source is None else _is_within_limits(source, dtypes[source]))
            else:
                return None
        return ColumnPlan(values, all_of(*conditions), checks, rejected)

    def _validators(self, rows: pl.DataFrame, plan: ColumnPlan | None) -> tuple[Validator, ...]:
        check = partial(validates(self.model), strict=self.strict)
        whole = RowValidator(rows, self.columns, check)
        if plan is None or not plan.checks:
            return (whole,)
        return (whole, ColumnValidator(rows, [field.column for field in plan.checks], plan.checks, whole))


def in_base64(part: Any, *, is_configured: bool = False) -> Any:
    """Return a core schema, or a part of one, changed to read bytes in JSON as base64, as `encode` writes them.

    A model that configures ``val_json_bytes`` is left unchanged. Values that pydantic decodes anyway (Base64Bytes) are
    not decoded twice.

    Args:
        is_configured: True within a model that configures ``val_json_bytes``.
    """
    if isinstance(part, list | tuple):
        return type(part)(in_base64(inner, is_configured=is_configured) for inner in part)
    if not isinstance(part, dict):
        return part
    kind = type_of(part)
    if kind in MODELS:
        is_configured = "val_json_bytes" in part.get("config", {})
    changed = {
        key: in_base64(inner, is_configured=is_configured) if holds_parts(part, key) else inner
        for key, inner in part.items()
    }
    if not is_configured and kind == "function-after" and _decodes(part["function"]["function"]):
        changed["schema"] = core_schema.no_info_after_validator_function(str.encode, core_schema.str_schema())
    if kind in MODELS:
        changed["config"] = {"val_json_bytes": "base64", **part.get("config", {})}
    return changed


def _decodes(function: object) -> bool:
    return isinstance(getattr(function, "__self__", None), EncodedBytes)


def _is_within_limits(name: str, dtype: Dtype) -> pl.Expr:
    return all_of(*(~exceeds.fill_null(value=False) for _, exceeds in obstacles(name, dtype)))


def assign(assignments: Iterable[tuple[int, pl.Series, pl.Series]], rejected: pl.Series | None = None) -> pl.DataFrame:
    """Return which validator checks which rows, as a frame for `greendata.validation.row_validation.validate_rows`.

    Args:
        assignments: tuples of the index of a validator, row numbers, and the places of these rows in its frame.
        rejected: the numbers of the rows that are certainly invalid.
    """
    assigned = [
        pl.DataFrame([numbers.alias(ROW_KEY), places.alias(PLACE)]).with_columns(
            pl.lit(validator, pl.UInt8).alias(VALIDATOR)
        )
        for validator, numbers, places in assignments
    ]
    is_rejected = pl.lit(value=False) if rejected is None else pl.col(ROW_KEY).is_in(rejected.implode())
    return pl.concat(assigned).sort(ROW_KEY).with_columns(is_rejected.alias(SURELY_INVALID))


def numbered(rows: pl.DataFrame, numbers: pl.Series) -> pl.DataFrame:
    """Return *rows* of a part of a frame, renumbered with their *numbers* in the whole frame."""
    return rows.with_columns(numbers[rows[ROW_KEY]].alias(ROW_KEY))


def _classify(df: pl.DataFrame, plan: ColumnPlan, *, all_invalid: bool) -> Classified:
    """Classify the rows of *df* by *plan* alone."""
    classified = df.select(*plan.values, _numbers().alias(ROW_KEY), plan.accepted.alias(ACCEPTED))
    accepted = classified.drop(ACCEPTED) if classified[ACCEPTED].all() else classified.filter(ACCEPTED).drop(ACCEPTED)
    part = Part(accepted, all_invalid, 1 if plan.checks else None)
    undecided = classified[ROW_KEY].filter(~classified[ACCEPTED])
    return Classified([part], undecided, _rejected(df, plan, undecided))


def _rejected(df: pl.DataFrame, plan: ColumnPlan, undecided: pl.Series) -> pl.DataFrame:
    """Return those of the *undecided* rows of *df* that are certainly invalid, see `Classified`."""
    names, values = [pl.lit(None, pl.String)], [pl.lit(None, pl.String)]
    for name, is_rejected, text in plan.rejected:
        names.append(pl.when(is_rejected).then(pl.lit(shown_name(name))))
        values.append(pl.when(is_rejected).then(text))
    undecided_rows = df[undecided] if plan.rejected else df.head(0)
    classified = undecided_rows.select(_numbers().alias(ROW_KEY), column=pl.coalesce(names), value=pl.coalesce(values))
    return numbered(classified.filter(pl.col("column").is_not_null()), undecided)


def _text(value: pl.Expr, dtype: Dtype) -> pl.Expr:
    """Return *value* as failures show it, or null if only Python can format it."""
    if dtype.is_nested() or dtype.is_temporal() or isinstance(dtype, pl.Binary | pl.Object):
        return pl.lit(None, pl.String)
    text = value.cast(pl.String, strict=False)
    return pl.when(text.str.len_chars() <= TEXT).then(text).otherwise(text.str.slice(0, TEXT - 3) + "...")


def _within_limits(rows: pl.DataFrame, undecided: pl.Series) -> tuple[pl.Series, pl.DataFrame]:
    """Return the numbers of the *undecided* rows that pydantic can validate, and the failures of the others."""
    found = [pl.DataFrame(schema=FAILURES)]
    for name, dtype in rows.schema.items() if undecided.len() else ():
        for message, exceeds in obstacles(name, dtype):
            found.append(failures_where(rows, exceeds, name, message))
    over_limits = pl.concat(found)
    over_limits = over_limits.filter(pl.col("row").is_in(undecided.implode()))
    return undecided.filter(~undecided.is_in(over_limits["row"].implode())), over_limits


def _numbers() -> pl.Expr:
    return pl.int_range(pl.len(), dtype=pl.UInt32)
