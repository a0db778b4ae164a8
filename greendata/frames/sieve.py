"""The sieve: one query that finds the rows of a frame that are surely valid, and who judges the others.

A column that no rule covers is judged apart, in the rows where nothing else is in doubt. Where it takes the whole row
to judge it, as with a validator of the model or one that is given the fields before, all rows are judged as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple
from uuid import uuid4

import polars as pl
from pydantic import BaseModel, EncodedBytes
from pydantic_core import core_schema

from greendata.frames.apart import Apart, ColumnJudge, apart_of
from greendata.frames.forms import Column, Dtype
from greendata.frames.limits import failures_where, obstacles
from greendata.frames.names import column as by_name
from greendata.frames.names import referred
from greendata.frames.nested import is_plain, resolved, rule_of_field
from greendata.frames.pydantic_internals import core_schema_of, holds_parts, type_of, validates
from greendata.frames.rules import TRUE, Context, Rule, all_of
from greendata.frames.trust import shape_failures
from greendata.frames.verdicts import FAILURES, JUDGE, ROW_KEY, Judge, RowJudge, failures_of

__all__ = ("Part", "Plan", "Sieve", "Sifted", "asked_of", "in_base64")

MODELS = ("dataclass", "model", "typed-dict")  # nodes with a configuration of their own
SURE = f"sure {uuid4()}"


class Part(NamedTuple):
    """Rows that no query has anything against.

    Attributes:
        sure: the rows in the form of their columns, with their numbers; but for the columns that are judged apart.
        is_spoilt: True if these are invalid all the same: a column is missing, or there is one too many.
        judge: of the columns that pydantic judges apart, by its number; None if there are none.
    """

    sure: pl.DataFrame
    is_spoilt: bool
    judge: int | None


@dataclass(frozen=True, slots=True)
class Sifted:
    """Rows, sifted.

    Attributes:
        height: how many there are.
        parts: those that are sure.
        judges: of whole rows; and, where columns are judged apart, of these.
        asked: the rows that pydantic is asked about: their numbers and those of their judges.
        beyond: the failures of those that it cannot be asked about.
        extras: makes the columns that are kept as they are, for rows of these numbers; None if there are none.
    """

    height: int
    parts: Sequence[Part]
    judges: tuple[Judge, ...]
    asked: pl.DataFrame
    beyond: pl.DataFrame
    extras: Callable[[pl.Series], pl.DataFrame] | None


@dataclass(frozen=True, slots=True)
class Plan:
    """How the columns of a frame are judged.

    Attributes:
        values: the values of those with a rule.
        sure: where nothing is wrong with these.
        apart: those that pydantic judges by themselves.
    """

    values: Sequence[pl.Expr]
    sure: pl.Expr
    apart: Sequence[Apart] = ()


@dataclass(frozen=True, slots=True)
class Sieve:
    """What sifts frames for a model. Call it on a worker.

    Attributes:
        model: the model.
        columns: its columns.
        strict: pydantic's strict mode; None leaves it to the model.
        from_json: True if columns that are judged apart are the texts of JSON values.
    """

    model: type[BaseModel]
    columns: Sequence[Column]
    strict: bool | None
    from_json: bool = False

    @property
    def core(self) -> Any:
        """What the rules are read off."""
        core = core_schema_of(self.model)
        return in_base64(core) if self.from_json else core

    def __call__(self, frame: pl.DataFrame | pl.LazyFrame) -> Sifted:
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
        part, doubtful = self.sift(df, plan, is_spoilt=self.is_spoilt(df.schema))
        doubtful, beyond = _askable(seen, doubtful)
        if not df.height:
            beyond = failures_of(shape_failures(seen.schema, self.columns, extra=extra))
        kept = df.select(referred(unused if extra == "allow" else [], df.columns))
        return Sifted(
            height=df.height,
            parts=[part],
            judges=self._judges(seen, plan),
            asked=asked_of(doubtful, part.sure[ROW_KEY] if part.judge else None),
            beyond=beyond,
            extras=kept.__getitem__ if kept.width else None,
        )

    def sift(self, df: pl.DataFrame, plan: Plan | None, *, is_spoilt: bool) -> tuple[Part, pl.Series]:
        """The rows of *df* that are sure by *plan*, which is that of its dtypes, and the numbers of the others."""
        if plan is None:
            values = [pl.lit(None, column.form.dtype).alias(column.name) for column in self.columns]
            plan = Plan(values, pl.lit(value=False))
        sifted = df.select(*plan.values, _numbers().alias(ROW_KEY), plan.sure.alias(SURE))
        sure = sifted.drop(SURE) if sifted[SURE].all() else sifted.filter(SURE).drop(SURE)
        part = Part(sure, is_spoilt, 1 if plan.apart else None)
        return part, sifted[ROW_KEY].filter(~sifted[SURE])

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

    def _plan(self, dtypes: Mapping[str, Dtype]) -> Plan | None:
        top = self.core
        refs = {node["ref"]: node for node in top["definitions"]} if top["type"] == "definitions" else {}
        node = resolved(top["schema"] if refs else top, Context(refs, {}, self.strict))
        if not is_plain(node) or not all(column.sources for column in self.columns):
            return None
        context = Context(refs, node.get("config", {}), self.strict)
        values, sures, apart = [], [], []
        for column in self.columns:
            source = column.source(dtypes)
            if source is None and column.missing == "fails":
                rule: Rule | None = Rule(pl.lit(None, column.form.dtype))
            else:
                rule = rule_of_field(node["schema"], context, column, by_name, dtypes)
            if rule is not None:
                values.append(rule.value.alias(column.name))
                sures.append(rule.sure)
            elif (alone := apart_of(node, context, column, dtypes, from_json=self.from_json)) is not None:
                apart.append(alone)
                sures.append(TRUE if source is None else _can_be_asked(source, dtypes[source]))
            else:
                return None
        return Plan(values, all_of(*sures), apart)

    def _judges(self, rows: pl.DataFrame, plan: Plan | None) -> tuple[Judge, ...]:
        check = partial(validates(self.model), strict=self.strict)
        whole = RowJudge(rows, self.columns, check)
        if plan is None or not plan.apart:
            return (whole,)
        return (whole, ColumnJudge(rows, [field.column for field in plan.apart], plan.apart, whole))


def in_base64(part: Any) -> Any:
    """Return a core schema, or a part of one, by which JSON has bytes in base64, as `encode` writes them.

    A model that says something else of ``val_json_bytes`` keeps it, and what pydantic itself decodes (Base64Bytes) is
    not decoded before.
    """
    if isinstance(part, list | tuple):
        return type(part)(map(in_base64, part))
    if not isinstance(part, dict):
        return part
    kind = type_of(part)
    changed = {key: in_base64(inner) if holds_parts(part, key) else inner for key, inner in part.items()}
    if kind == "function-after" and _decodes(part["function"]["function"]):
        changed["schema"] = core_schema.no_info_after_validator_function(str.encode, core_schema.str_schema())
    if kind in MODELS:
        changed["config"] = {"val_json_bytes": "base64", **part.get("config", {})}
    return changed


def _decodes(function: object) -> bool:
    return isinstance(getattr(function, "__self__", None), EncodedBytes)


def _can_be_asked(name: str, dtype: Dtype) -> pl.Expr:
    return all_of(*(~is_so.fill_null(value=False) for _, is_so in obstacles(name, dtype)))


def asked_of(*numbers: pl.Series | None) -> pl.DataFrame:
    """Which judge is asked about which row: the first about the rows of the first *numbers*, and so on."""
    asked = [
        some.to_frame(ROW_KEY).with_columns(pl.lit(index, pl.UInt8).alias(JUDGE))
        for index, some in enumerate(numbers)
        if some is not None
    ]
    return pl.concat(asked).sort(ROW_KEY)


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
