"""Derive the model of a frame's rows after an operation, and check whether a frame's columns fit a model.

A column that keeps its name and its type keeps its field, with constraints and validators. Any other column gets a
field of its type. If no column of the model is lost, the new model is a subclass, and keeps everything else too.
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
from greendata.schema.codecs import Column, ColumnCodec
from greendata.schema.dtypes import plain_of
from greendata.schema.fields import columns_of
from greendata.schema.models import model_of
from greendata.schema.named_dtypes import NamedDtypeCodec
from greendata.schema.similar_names import hints_for

__all__ = ("check_fit", "model_after")

_CHANGERS = (BeforeValidator, PlainValidator, WrapValidator)  # they see a value before its type is checked


def check_fit(schema: pl.Schema, model: type[BaseModel]) -> None:
    """Check that rows with *schema* can be valid rows of *model*.

    Only a mismatch that makes every row invalid is an error: a missing required column, or a type of another kind.
    pydantic converts text to numbers and times, for example, and so does the validation.

    Raises:
        ModelMismatch: the error names all columns that do not fit.
    """
    missing: list[str] = []
    misfits: dict[str, tuple[object, object]] = {}
    for column in _inputs(model):
        source = column.source(schema)
        if source is None:
            missing += [column.name] if column.missing == "fails" else []
        elif not _has_changers(model, column.field) and not _can_convert(schema[source], column.codec):
            misfits[source] = schema[source], column.codec.dtype
    if missing or misfits:
        hints = hints_for(_inputs(model), schema) if missing else ()
        raise ModelMismatch(model.__name__, missing, misfits, hints)


def model_after(
    verb: str,
    model: type[BaseModel],
    before: pl.Schema,
    after: pl.Schema,
    *,
    computed: Collection[str] = (),
    names_all: bool = False,
) -> type[BaseModel]:
    """Return the model of the rows after an operation.

    Args:
        verb: the name of the operation, which becomes part of the model's name.
        model: the model of the rows before.
        before: the columns before.
        after: the columns after.
        computed: columns that are new even if they have the name of an old one.
        names_all: True if the operation names every column that it keeps. Otherwise, columns that the model did not
            know and that are unchanged stay unknown to it.
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
        return _create(name, by_column.values(), __base__=model)
    by_column |= {source: (field, model.model_fields[field]) for source, field in kept.items()}
    fields_in_order = [by_column[column] for column in after if column in by_column]
    validators = _validators(model, set(kept.values()))
    return _create(name, fields_in_order, __config__=model.model_config, __validators__=validators)


def _create(name: str, fields: Iterable[tuple[str, FieldInfo]], **how: Any) -> type[BaseModel]:
    definitions: dict[str, Any] = {field: (info.annotation, copy(info)) for field, info in fields}
    made: type[BaseModel] = create_model(name, __module__=__name__, **how, **definitions)
    return made


def _validators(model: type[BaseModel], fields: set[str]) -> dict[str, Callable[..., Any]]:
    """Return the field validators of *model* for *fields*. Validators of the whole row are left out."""
    found: dict[str, Callable[..., Any]] = {}
    for name, decorator in field_validators_of(model).items():
        about = [field for field in fields if field in decorator.info.fields or "*" in decorator.info.fields]
        if about:
            found[name] = decorated(*sorted(about), mode=decorator.info.mode)(staticmethod(decorator.func))
    return found


def _inputs(model: type[BaseModel]) -> list[Column]:
    """Return the columns of *model* except computed ones."""
    return [column for column in columns_of(model) if column.sources]


def _has_changers(model: type[BaseModel], name: str) -> bool:
    field: FieldInfo = model.model_fields[name]
    validators = field_validators_of(model).values()
    return any(isinstance(part, _CHANGERS) for part in field.metadata) or any(
        v.info.mode != "after" and (name in v.info.fields or "*" in v.info.fields) for v in validators
    )


def _can_convert(got: pl.DataType, codec: ColumnCodec) -> bool:
    """Return False if pydantic's lax mode converts no value of type *got* to a value of *codec*."""
    wanted = codec.dtype
    if isinstance(codec, NamedDtypeCodec) and codec.kind in {"json", "marked"}:
        return True  # for example a number or a struct, although the column stores text
    if got == wanted or got == pl.Null or _kind(wanted) == "other":
        return True
    return _kind(got) in _CONVERTIBLE_FROM[_kind(wanted)]


_CONVERTIBLE_FROM = {
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
