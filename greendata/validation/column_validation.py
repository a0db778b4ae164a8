"""Column validation: pydantic validates the values of one column without the rest of their rows.

If a field has no rule, it is not necessary to convert whole rows to Python objects. pydantic validates the fields of a
row one by one, so the core schema of the field alone gives the same result for its value. The exception is a field
whose core schema contains a function that receives other fields (`stands_alone`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any

import polars as pl
from pydantic import BaseModel, ValidationError
from pydantic_core import SchemaError

from greendata.internals.pydantic import core_schema_of, parts_of, type_of, validator_of
from greendata.schema.codecs import Column, Dtype
from greendata.schema.failures import Failures
from greendata.schema.fields import columns_of
from greendata.validation.nested import resolved
from greendata.validation.row_validation import RowValidator, Validator, take_rows
from greendata.validation.rules import Context, Node

__all__ = ("ColumnCheck", "ColumnValidator", "column_check", "runs_code", "stands_alone")


@dataclass(frozen=True, slots=True)
class ColumnCheck:
    """The check of a field that pydantic validates without the rest of the row.

    Attributes:
        column: the column of the field.
        source: the column of the frame that holds its values; None if pydantic makes each value.
        place: the name of the field in pydantic's errors.
        check: returns the valid value for a value of the column, or raises ValidationError.
    """

    column: Column
    source: str | None
    place: str
    check: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class ColumnValidator(Validator):
    """Validate some columns with pydantic, in rows that are valid apart from these columns.

    Attributes:
        fields: the checks of these columns, in the order of `columns`.
        whole: the validator of whole rows.
    """

    fields: Sequence[ColumnCheck]
    whole: RowValidator

    def rows(self, places: pl.Series) -> Iterator[tuple[Any, ...]]:
        """See `Validator.rows`."""
        # Not strict, because the iterators for values that pydantic makes are infinite.
        return zip(*(self._values(field, places) for field in self.fields), strict=False)

    def valid(self, number: int, row: tuple[Any, ...], failures: Failures) -> list[Any] | None:
        """See `Validator.valid`."""
        before, values = len(failures), []
        for at, field in enumerate(self.fields):  # a strict zip of so few takes longer than a check
            try:
                values.append(field.check(row[at]))
            except ValidationError as error:
                hidden = (field.place,) if field.column.is_hidden else ()
                failures.add(error, number, field.place, hidden=hidden)
            except SchemaError:  # a validator omits the field, or asks for a default that does not exist
                del failures[before:]
                return self._as_a_whole(number, failures)
        return values if len(failures) == before else None

    def _as_a_whole(self, number: int, failures: Failures) -> list[Any] | None:
        row = next(self.whole.rows(pl.Series([number], dtype=pl.UInt32)))
        values = self.whole.valid(number, row, failures)
        if values is None:
            return None
        by_field = {column.field: value for column, value in zip(self.whole.columns, values, strict=True)}
        return [by_field[column.field] for column in self.columns]

    def _values(self, field: ColumnCheck, places: pl.Series) -> Iterator[Any]:
        if field.source is None:
            return repeat(None)
        column = self.frame[field.source]
        values: list[Any] = take_rows(column, places).to_list()
        decode = field.column.codec.decoder(column.dtype)
        return iter(values) if decode is None else map(decode, values)


def column_check(
    model: Node, context: Context, column: Column, dtypes: Mapping[str, Dtype], *, from_json: bool = False
) -> ColumnCheck | None:
    """Return the check of one column of *model*, or None if validating it needs the whole row.

    Args:
        from_json: True if the column holds the text of JSON values.
    """
    node, source = model["schema"]["fields"][column.field]["schema"], column.source(dtypes)
    if not stands_alone(node, context):
        return None
    known = [*context.definitions.values()]
    schema: Any = {"type": "definitions", "schema": node, "definitions": known} if known else node
    config: Any = context.config
    validator = validator_of(schema, config)
    if source is not None:
        check = validator.validate_json if from_json else validator.validate_python
        place = source if config.get("loc_by_alias", True) else column.field
        return ColumnCheck(column, source, place, partial(check, strict=context.strict))
    if column.missing != "made" or resolved(node, context)["type"] != "default":
        return None

    def make(_: object) -> Any:
        made = validator.get_default_value(strict=context.strict)
        assert made is not None  # the node has a default
        return made.value

    return ColumnCheck(column, None, column.field, make)


def runs_code(model: type[BaseModel]) -> bool:
    """Return True if validating rows of *model* runs user code. Its result may change when it is validated again.

    Raises:
        NotAModel, NoColumnForm, DuplicateColumn: see `schema_of`.

    Example:
        >>> class Upper(BaseModel):
        ...     name: str
        ...     def model_post_init(self, context):
        ...         self.name = self.name.upper()
        >>> runs_code(Upper)
        True
    """
    columns_of(model)  # completes a model with forward references, whose core schema is still empty
    pending: list[Any] = [core_schema_of(model)]
    while pending:
        part = pending.pop()
        kind = type_of(part)
        if kind is not None and (kind == "json" or kind.startswith("function-") or _has_own_init(part)):
            return True
        pending += parts_of(part)
    return False


def _has_own_init(node: Node) -> bool:
    """Return True for a node of a model with its own ``__init__`` or ``model_post_init``."""
    if node["type"] != "model":
        return False
    post_init = node.get("post_init") and node["cls"].model_post_init.__name__ != "init_private_attributes"
    return bool(post_init or node.get("custom_init"))


def stands_alone(node: Node, context: Context) -> bool:
    """Return True if the result of *node* depends on its value alone, because no function in it receives the row."""
    seen: set[str] = set()
    pending: list[Any] = [node]
    while pending:
        part = pending.pop()
        kind = type_of(part)
        if kind == "with-info" or (kind is not None and part.get("default_factory_takes_data")):
            return False
        if kind == "definition-ref" and part["schema_ref"] not in seen:
            seen.add(part["schema_ref"])
            pending.append(context.definitions[part["schema_ref"]])
        pending += parts_of(part)
    return True
