"""The sieve: one query that finds the rows of a frame that are surely valid, and who judges the others.

A column that no rule covers is judged apart, in the rows where nothing else is in doubt. Where it takes the whole row
to judge it, as with a validator of the model or one that is given the fields before, all rows are judged as a whole.

Where many rows are in doubt, a second query looks at these with wider rules: for numbers that are written in other
ways, and for values that are surely invalid.
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
from greendata.schema.codecs import Column, Dtype
from greendata.schema.column_names import column as by_name
from greendata.schema.column_names import referred
from greendata.schema.failures import FAILURES, LISTED, ROW_KEY, TEXT, failures_of, name_of
from greendata.schema.limits import failures_where, obstacles
from greendata.validation.column_validation import Apart, ColumnValidator, apart_of
from greendata.validation.nested import is_plain, resolved, rule_of_field
from greendata.validation.row_validation import AT, JUDGE, SURELY_BAD, RowValidator, Validator
from greendata.validation.rules import FALSE, TRUE, Context, Rule, all_of
from greendata.validation.trust import shape_failures

__all__ = (
    "Part",
    "Partitioned",
    "Partitioner",
    "Plan",
    "Sorted",
    "asked_of",
    "in_base64",
    "numbered",
)

MODELS = ("dataclass", "model", "typed-dict")  # nodes with a configuration of their own
SURE = f"sure {uuid4()}"
MANY = 200  # rows in doubt: a second query takes as long as pydantic for these
ENOUGH = 2 * LISTED  # rows in doubt, where no more than some are to be judged if enough of them fail


class Part(NamedTuple):
    """Rows that no query has anything against.

    Attributes:
        sure: the rows in the form of their columns, with their numbers; but for the columns that are judged apart.
        is_spoilt: True if these are invalid all the same: a column is missing, or there is one too many.
        judge: of the columns that pydantic judges apart, by its number; None if there are none.
    """

    sure: pl.DataFrame
    is_spoilt: bool
    validator: int | None


@dataclass(frozen=True, slots=True)
class Partitioned:
    """Rows, sifted.

    Attributes:
        height: how many there are.
        parts: those that are sure.
        judges: of whole rows; and, where columns are judged apart, of these.
        asked: the rows that pydantic is asked about, see `asked_of`.
        bad: those of them that are surely invalid, see `Sorted`.
        beyond: the failures of those that it cannot be asked about.
        extras: makes the columns that are kept as they are, for rows of these numbers; None if there are none.
    """

    height: int
    parts: Sequence[Part]
    validators: tuple[Validator, ...]
    asked: pl.DataFrame
    bad: pl.DataFrame
    beyond: pl.DataFrame
    extras: Callable[[pl.Series], pl.DataFrame] | None


@dataclass(frozen=True, slots=True)
class Plan:
    """How the columns of a frame are judged.

    Attributes:
        values: the values of those with a rule.
        sure: where nothing is wrong with these.
        apart: those that pydantic judges by themselves.
        bad: of columns with values that are surely invalid: what pydantic calls them, where, and as text.
    """

    values: Sequence[pl.Expr]
    sure: pl.Expr
    apart: Sequence[Apart] = ()
    bad: Sequence[tuple[str, pl.Expr, pl.Expr]] = ()


class Sorted(NamedTuple):
    """Rows, sorted by what a query can tell of them.

    Attributes:
        parts: those that are sure.
        doubtful: the numbers of the others.
        bad: those of them that are surely invalid: their numbers, and the ``column`` and ``value`` of a failure.
    """

    parts: list[Part]
    doubtful: pl.Series
    bad: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Partitioner:
    """What sifts frames for a model. Call it on a worker.

    Attributes:
        model: the model.
        columns: its columns.
        strict: pydantic's strict mode; None leaves it to the model.
        from_json: True if columns that are judged apart are the texts of JSON values.
        all_rows: True if all valid rows are to be found, however many fail.
    """

    model: type[BaseModel]
    columns: Sequence[Column]
    strict: bool | None
    from_json: bool = False
    all_rows: bool = False

    @property
    def core(self) -> Any:
        """What the rules are read off."""
        core = core_schema_of(self.model)
        return in_base64(core) if self.from_json else core

    def __call__(self, frame: pl.DataFrame | pl.LazyFrame) -> Partitioned:
        """The rows of *frame*, sifted."""
        df = frame.collect() if isinstance(frame, pl.LazyFrame) else frame
        computed = [column.name for column in self.columns if not column.sources]
        df = df.drop(referred(computed, df.columns), strict=False)
        unused, plan = self.unused(df.schema), self.plan(df.schema)
        extra = self.model.model_config.get("extra") or "ignore"
        if plan is None:  # nothing is sure, and validators see the row as it is
            seen = df
        else:
            blank = [pl.lit(None).alias(name) for name in unused]  # forbidden, whatever is in them
            seen = df.with_columns(blank) if extra == "forbid" else df.drop(referred(unused, df.columns))
        parts, doubtful, bad = self.sift(df, plan, is_spoilt=self.is_spoilt(df.schema))
        askable, beyond = _askable(seen, doubtful)
        apart = [part.sure[ROW_KEY] for part in parts if part.validator is not None]
        if not df.height:
            beyond = failures_of(shape_failures(seen.schema, self.columns, extra=extra))
        kept = df.select(referred(unused if extra == "allow" else [], df.columns))
        return Partitioned(
            height=df.height,
            parts=parts,
            validators=self._judges(seen, plan),
            asked=asked_of([(0, askable, askable), *((1, some, some) for some in apart)], bad[ROW_KEY]),
            bad=bad,
            beyond=beyond,
            extras=kept.__getitem__ if kept.width else None,
        )

    def sift(self, df: pl.DataFrame, plan: Plan | None, *, is_spoilt: bool) -> Sorted:
        """The rows of *df*, sorted by *plan*, which is that of its dtypes."""
        if plan is None:
            values = [pl.lit(None, column.form.dtype).alias(column.name) for column in self.columns]
            plan = Plan(values, pl.lit(value=False))
            return _sorted(df, plan, is_spoilt=is_spoilt)
        parts, doubtful, bad = _sorted(df, plan, is_spoilt=is_spoilt)
        wide = self._plan(df.schema, is_wide=True) if doubtful.len() > MANY and not is_spoilt else None
        if wide is None:
            return Sorted(parts, doubtful, bad)
        if not self.all_rows and doubtful.len() > ENOUGH:
            first = doubtful.head(ENOUGH)
            bad = numbered(_sorted(df[first], wide, is_spoilt=False).bad, first)
            if bad.height >= LISTED:  # no more of them will be judged
                return Sorted(parts, doubtful, bad)
        again, places, bad = _sorted(df[doubtful], wide, is_spoilt=False)
        found = [part._replace(sure=numbered(part.sure, doubtful)) for part in again]
        return Sorted([*parts, *found], doubtful[places], numbered(bad, doubtful))

    def unused(self, dtypes: Mapping[str, Dtype]) -> list[str]:
        """Those of the columns that are no field's."""
        used = {column.source(dtypes) for column in self.columns}
        return [name for name in dtypes if name not in used]

    def plan(self, dtypes: Mapping[str, Dtype]) -> Plan | None:
        """How columns of *dtypes* are judged; None if it takes the whole row."""
        plan = self._plan(dtypes)
        return None if plan is not None and plan.apart and self.is_spoilt(dtypes) else plan

    def is_spoilt(self, dtypes: Mapping[str, Dtype]) -> bool:
        """True if no row with columns of *dtypes* is valid: one is missing, or there is one too many."""
        if any(column.missing == "fails" and column.source(dtypes) is None for column in self.columns):
            return True
        return self.model.model_config.get("extra") == "forbid" and bool(self.unused(dtypes))

    def _plan(self, dtypes: Mapping[str, Dtype], *, is_wide: bool = False) -> Plan | None:
        top = self.core
        refs = {node["ref"]: node for node in top["definitions"]} if top["type"] == "definitions" else {}
        node = resolved(top["schema"] if refs else top, Context(refs, {}, self.strict))
        if not is_plain(node) or not all(column.sources for column in self.columns):
            return None
        context = Context(refs, node.get("config", {}), self.strict, is_wide)
        values, sures, apart, bad = [], [], [], []
        for column in self.columns:
            source = column.source(dtypes)
            if source is None and column.missing == "fails":
                rule: Rule | None = Rule(pl.lit(None, column.form.dtype))
            else:
                rule = rule_of_field(node["schema"], context, column, by_name, dtypes)
            if rule is not None:
                values.append(rule.value.alias(column.name))
                sures.append(rule.sure)
                if source is not None and rule.bad is not FALSE:
                    name = source if node.get("config", {}).get("loc_by_alias", True) else column.field
                    bad.append((name, rule.bad, _text(by_name(source), dtypes[source])))
            elif (alone := apart_of(node, context, column, dtypes, from_json=self.from_json)) is not None:
                apart.append(alone)
                sures.append(TRUE if source is None else _can_be_asked(source, dtypes[source]))
            else:
                return None
        return Plan(values, all_of(*sures), apart, bad)

    def _judges(self, rows: pl.DataFrame, plan: Plan | None) -> tuple[Validator, ...]:
        check = partial(validates(self.model), strict=self.strict)
        whole = RowValidator(rows, self.columns, check)
        if plan is None or not plan.apart:
            return (whole,)
        return (whole, ColumnValidator(rows, [field.column for field in plan.apart], plan.apart, whole))


def in_base64(part: Any, *, is_said: bool = False) -> Any:
    """Return a core schema, or a part of one, by which JSON has bytes in base64, as `encode` writes them.

    A model that says something else of ``val_json_bytes`` keeps it, and what pydantic itself decodes (Base64Bytes) is
    not decoded before.

    Args:
        is_said: True within a model that says something else.
    """
    if isinstance(part, list | tuple):
        return type(part)(in_base64(inner, is_said=is_said) for inner in part)
    if not isinstance(part, dict):
        return part
    kind = type_of(part)
    if kind in MODELS:
        is_said = "val_json_bytes" in part.get("config", {})
    changed = {
        key: in_base64(inner, is_said=is_said) if holds_parts(part, key) else inner for key, inner in part.items()
    }
    if not is_said and kind == "function-after" and _decodes(part["function"]["function"]):
        changed["schema"] = core_schema.no_info_after_validator_function(str.encode, core_schema.str_schema())
    if kind in MODELS:
        changed["config"] = {"val_json_bytes": "base64", **part.get("config", {})}
    return changed


def _decodes(function: object) -> bool:
    return isinstance(getattr(function, "__self__", None), EncodedBytes)


def _can_be_asked(name: str, dtype: Dtype) -> pl.Expr:
    return all_of(*(~is_so.fill_null(value=False) for _, is_so in obstacles(name, dtype)))


def asked_of(some: Iterable[tuple[int, pl.Series, pl.Series]], bad: pl.Series | None = None) -> pl.DataFrame:
    """Which judges are asked about which rows, for `greendata.validation.row_validation.judged`.

    Args:
        some: a judge, the numbers of rows, and their places in the judge's frame.
        bad: the numbers of those that are surely invalid.
    """
    asked = [
        pl.DataFrame([numbers.alias(ROW_KEY), places.alias(AT)]).with_columns(pl.lit(validator, pl.UInt8).alias(JUDGE))
        for validator, numbers, places in some
    ]
    is_bad = pl.lit(value=False) if bad is None else pl.col(ROW_KEY).is_in(bad.implode())
    return pl.concat(asked).sort(ROW_KEY).with_columns(is_bad.alias(SURELY_BAD))


def numbered(rows: pl.DataFrame, numbers: pl.Series) -> pl.DataFrame:
    """*rows* of a part of a frame, with their *numbers* in the whole."""
    return rows.with_columns(numbers[rows[ROW_KEY]].alias(ROW_KEY))


def _sorted(df: pl.DataFrame, plan: Plan, *, is_spoilt: bool) -> Sorted:
    """The rows of *df*, sorted by *plan* alone."""
    looks = df.select(*plan.values, _numbers().alias(ROW_KEY), plan.sure.alias(SURE))
    sure = looks.drop(SURE) if looks[SURE].all() else looks.filter(SURE).drop(SURE)
    part = Part(sure, is_spoilt, 1 if plan.apart else None)
    doubtful = looks[ROW_KEY].filter(~looks[SURE])
    return Sorted([part], doubtful, _bad(df, plan, doubtful))


def _bad(df: pl.DataFrame, plan: Plan, doubtful: pl.Series) -> pl.DataFrame:
    """Those of the *doubtful* rows of *df* that are surely invalid, see `Sorted`."""
    names, values = [pl.lit(None, pl.String)], [pl.lit(None, pl.String)]
    for name, is_bad, text in plan.bad:
        names.append(pl.when(is_bad).then(pl.lit(name_of(name))))
        values.append(pl.when(is_bad).then(text))
    some = df[doubtful] if plan.bad else df.head(0)
    looks = some.select(_numbers().alias(ROW_KEY), column=pl.coalesce(names), value=pl.coalesce(values))
    return numbered(looks.filter(pl.col("column").is_not_null()), doubtful)


def _text(value: pl.Expr, dtype: Dtype) -> pl.Expr:
    """*value* as it stands among the failures; null where that takes Python."""
    if dtype.is_nested() or dtype.is_temporal() or isinstance(dtype, pl.Binary | pl.Object):
        return pl.lit(None, pl.String)
    text = value.cast(pl.String, strict=False)
    return pl.when(text.str.len_chars() <= TEXT).then(text).otherwise(text.str.slice(0, TEXT - 3) + "...")


def _askable(rows: pl.DataFrame, doubtful: pl.Series) -> tuple[pl.Series, pl.DataFrame]:
    """The numbers of *doubtful* rows that pydantic can be asked about, and the failures of the others."""
    found = [pl.DataFrame(schema=FAILURES)]
    for name, dtype in rows.schema.items() if doubtful.len() else ():
        for message, is_so in obstacles(name, dtype):
            found.append(failures_where(rows, is_so, name, message))
    beyond = pl.concat(found)
    beyond = beyond.filter(pl.col("row").is_in(doubtful.implode()))
    return doubtful.filter(~doubtful.is_in(beyond["row"].implode())), beyond


def _numbers() -> pl.Expr:
    return pl.int_range(pl.len(), dtype=pl.UInt32)
