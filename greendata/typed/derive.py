"""Which model the rows of a frame have after an operation, and whether a frame's columns can be a model's at all.

A column that keeps its name and its type keeps its field, with constraints and validators. Any other column gets a
field of its type. Where no column of the model is gone, the new model is a subclass of it, and so keeps all the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from copy import copy
from typing import Any

import polars as pl
from pydantic import BaseModel, BeforeValidator, PlainValidator, WrapValidator, create_model
from pydantic import field_validator as decorated
from pydantic.fields import FieldInfo

from greendata.errors import ModelMismatch
from greendata.internals.pydantic import field_validators_of
from greendata.schema.codecs import Column
from greendata.schema.dtypes import plain_of
from greendata.schema.fields import columns_of
from greendata.schema.models import model_of

__all__ = ("check_fit", "model_after")

_CHANGERS = (BeforeValidator, PlainValidator, WrapValidator)  # they see a value before its type is looked at


def check_fit(schema: pl.Schema, model: type[BaseModel]) -> None:
    """Make sure that rows with *schema* may be valid rows of *model*.

    Only what no value can mend is refused: a required column that is missing, a type of another kind. pydantic takes
    numbers and times from text, for one, and so does the validation.

    Raises:
        ModelMismatch: it names all columns in question.
    """
    missing: list[str] = []
    misfits: dict[str, tuple[object, object]] = {}
    for column in _inputs(model):
        source = column.source(schema)
        if source is None:
            missing += [column.name] if column.missing == "fails" else []
        elif not _has_changers(model, column.field) and not _may_fit(schema[source], column.codec.dtype):
            misfits[source] = schema[source], column.codec.dtype
    if missing or misfits:
        raise ModelMismatch(model.__name__, missing, misfits)


def model_after(
    verb: str,
    model: type[BaseModel],
    before: pl.Schema,
    after: pl.Schema,
    *,
    computed: Collection[str] = (),
    names_all: bool = False,
) -> type[BaseModel]:
    """The model of the rows after an operation.

    Args:
        verb: what the operation is called; part of the model's name.
        model: that of the rows before.
        before: the columns before.
        after: the columns after.
        computed: columns that are new, whatever they are called.
        names_all: the operation names every column that it leaves. Otherwise those that the model did not know, and
            that are as they were, stay unknown to it.
    """
    fields = {source: column.field for column in _inputs(model) if (source := column.source(before)) is not None}
    same = {name for name in before if name not in computed and after.get(name) == before[name]}
    kept = {source: field for source, field in fields.items() if source in same}
    unknown = set() if names_all else same - kept.keys()
    added = {name: dtype for name, dtype in after.items() if name not in kept and name not in unknown}
    is_whole = kept.keys() == fields.keys()
    if is_whole and not added:
        return model
    made = model_of(added).model_fields.items() if added else ()
    by_column = dict(zip(added, made, strict=True))
    name = f"{model.__name__}.{verb}"
    if is_whole and not {field for field, _ in by_column.values()} & model.model_fields.keys():
        return _made(name, by_column.values(), __base__=model)
    by_column |= {source: (field, model.model_fields[field]) for source, field in kept.items()}
    fields_in_order = [by_column[column] for column in after if column in by_column]
    validators = _validators(model, set(kept.values()))
    return _made(name, fields_in_order, __config__=model.model_config, __validators__=validators)


def _made(name: str, fields: Iterable[tuple[str, FieldInfo]], **how: Any) -> type[BaseModel]:
    definitions: dict[str, Any] = {field: (info.annotation, copy(info)) for field, info in fields}
    made: type[BaseModel] = create_model(name, __module__=__name__, **how, **definitions)
    return made


def _validators(model: type[BaseModel], fields: set[str]) -> dict[str, Callable[..., Any]]:
    """The field validators of *model* that are about *fields*; those of a whole row need the whole row."""
    found: dict[str, Callable[..., Any]] = {}
    for name, decorator in field_validators_of(model).items():
        about = [field for field in fields if field in decorator.info.fields or "*" in decorator.info.fields]
        if about:
            found[name] = decorated(*sorted(about), mode=decorator.info.mode)(staticmethod(decorator.func))
    return found


def _inputs(model: type[BaseModel]) -> list[Column]:
    """The columns of *model* without those that it computes."""
    return [column for column in columns_of(model) if column.sources]


def _has_changers(model: type[BaseModel], name: str) -> bool:
    field: FieldInfo = model.model_fields[name]
    validators = field_validators_of(model).values()
    return any(isinstance(part, _CHANGERS) for part in field.metadata) or any(
        v.info.mode != "after" and (name in v.info.fields or "*" in v.info.fields) for v in validators
    )


def _may_fit(got: pl.DataType, wanted: pl.DataType) -> bool:
    """False if no value of *got* can become one of *wanted* in pydantic's lax mode."""
    if got == wanted or got == pl.Null or _kind(wanted) == "other":
        return True
    return _kind(got) in _TAKEN_FROM[_kind(wanted)]


_TAKEN_FROM = {
    "number": {"number", "text", "bytes", "time"},
    "text": {"text", "bytes"},
    "bytes": {"text", "bytes"},
    "time": {"time", "number", "text", "bytes"},
    "nested": {"nested"},
}


def _kind(dtype: pl.DataType) -> str:
    dtype = plain_of(dtype)
    if dtype.is_numeric() or dtype == pl.Boolean:
        return "number"
    if isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
        return "text"
    if dtype == pl.Binary:
        return "bytes"
    if dtype.is_temporal():
        return "time"
    return "nested" if dtype.is_nested() else "other"
