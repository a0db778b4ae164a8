"""The fields of a pydantic model as columns: their names, their codecs, and the defaults for missing columns.

The codec of a field follows from its annotation, because the annotation describes a valid value. Whether a value is
valid follows from pydantic's core schema (`greendata.validation.rules`). A Polars dtype in the metadata of an
annotation, as in ``Annotated[int, polars.UInt8]``, sets the dtype of the column.
"""

from __future__ import annotations

import collections
import ipaddress
from collections.abc import Mapping, Sequence, Set
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache, partial
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from uuid import UUID

import polars as pl
import pydantic
from pydantic import AliasChoices, AliasPath, BaseModel, EncodedBytes, EncodedStr, PydanticUserError, RootModel
from pydantic.fields import FieldInfo

from greendata.errors import DuplicateColumn, NoColumnForm, NotAModel
from greendata.schema.codecs import (
    Column,
    ColumnCodec,
    EncodeError,
    LeafCodec,
    ListCodec,
    PairsCodec,
    leaf_codec,
    struct_codec,
    tuple_codec,
)
from greendata.schema.dtypes import map_type
from greendata.schema.named_dtypes import named_codec

__all__ = ("columns_of",)

DIGITS = 38  # of a Decimal without max_digits: as many as a column holds
PLACES = 18  # of these after the decimal point; this leaves as many digits before it as a 64-bit integer has

LEAVES: dict[object, pl.DataType] = {
    NoneType: pl.Null(),
    bool: pl.Boolean(),
    bytes: pl.Binary(),
    date: pl.Date(),
    datetime: pl.Datetime("us"),
    float: pl.Float64(),
    int: pl.Int64(),
    pydantic.AwareDatetime: pl.Datetime("us", "UTC"),
    pydantic.FutureDate: pl.Date(),
    pydantic.FutureDatetime: pl.Datetime("us"),
    pydantic.NaiveDatetime: pl.Datetime("us"),
    pydantic.PastDate: pl.Date(),
    pydantic.PastDatetime: pl.Datetime("us"),
    str: pl.String(),
    time: pl.Time(),
    timedelta: pl.Duration("us"),
}
TEXTS = (
    UUID,
    PurePath,
    ipaddress.IPv4Address,
    ipaddress.IPv4Interface,
    ipaddress.IPv4Network,
    ipaddress.IPv6Address,
    ipaddress.IPv6Interface,
    ipaddress.IPv6Network,
    pydantic.AnyUrl,
)
UNIONS = (Union, UnionType)
LISTS = (list, tuple, collections.deque, Sequence, collections.abc.MutableSequence)
SETS = (set, frozenset, Set, collections.abc.MutableSet)
DICTS = (dict, Mapping, collections.abc.MutableMapping, collections.OrderedDict)


def columns_of(model: type[BaseModel]) -> tuple[Column, ...]:
    """Return the columns of *model*: its fields in order, then its computed fields.

    Raises:
        NotAModel: *model* is not a pydantic model, or is a RootModel, which has no fields.
        NoColumnForm: no column can hold a field.
        DuplicateColumn: two fields have the same alias.
    """
    if not (isinstance(model, type) and issubclass(model, BaseModel)) or issubclass(model, RootModel):
        raise NotAModel(model)
    model.model_rebuild()  # nothing happens if it is complete
    return _columns(model)


@lru_cache(maxsize=512)  # keys are classes; bounded for programs that create models dynamically
def _columns(model: type[BaseModel]) -> tuple[Column, ...]:
    computed = []
    for name, info in model.model_computed_fields.items():
        codec = _codec(info.return_type, (), f"{model.__name__}.{name}", (model,))
        computed.append(Column(info.alias or name, name, (), codec, _is_optional(info.return_type)))
    return _unique(model, (*_fields(model, f"{model.__name__}", ()), *computed))


def _fields(model: type[BaseModel], where: str, inside: tuple[type, ...]) -> tuple[Column, ...]:
    if not model.model_fields:
        raise NoColumnForm(where, model, "it has no fields")
    columns = []
    for name, info in model.model_fields.items():
        path = f"{where}.{name}"
        codec = _codec(info.annotation, tuple(info.metadata), path, (*inside, model))
        sources = _sources(model, name, info, path)
        missing, default = _default(model, info, codec)
        columns.append(Column(sources[0], name, sources, codec, _is_optional(info.annotation), missing, default))
    return _unique(model, tuple(columns))


def _unique(model: type[BaseModel], columns: tuple[Column, ...]) -> tuple[Column, ...]:
    """Return *columns*, or raise DuplicateColumn if two fields share a name or an alias."""
    fields: dict[str, list[str]] = {}
    for column in columns:
        for name in {column.name, *column.sources}:
            fields.setdefault(name, []).append(column.field)
    for name, owners in fields.items():
        if len(owners) > 1:
            raise DuplicateColumn(model.__name__, name, owners)
    return columns


def _sources(model: type[BaseModel], name: str, info: FieldInfo, path: str) -> tuple[str, ...]:
    """Return the column names that may hold a field, in the order in which pydantic looks for them."""
    config = model.model_config
    alias = info.validation_alias
    by_name = alias is None or config.get("validate_by_name") or config.get("populate_by_name")
    choices: list[Any] = alias.choices if isinstance(alias, AliasChoices) else [alias]
    found = []
    if alias is not None and config.get("validate_by_alias", True) is not False:
        for choice in choices:
            if isinstance(choice, AliasPath) and len(choice.path) > 1:
                raise NoColumnForm(path, choice, "its alias is a path into another value")
            found.append(str(choice.path[0]) if isinstance(choice, AliasPath) else choice)
    return tuple(dict.fromkeys([*found, name] if by_name or not found else found))


def _default(
    model: type[BaseModel], info: FieldInfo, codec: ColumnCodec
) -> tuple[Literal["fails", "fixed", "made"], Any]:
    """Return `Column.missing` and `Column.default` for a field."""
    if info.is_required():
        return "fails", None
    factory = info.default_factory
    validated = info.validate_default or (info.validate_default is None and model.model_config.get("validate_default"))
    if validated or (factory is not None and factory not in {list, dict, set, tuple, frozenset, str, int, float, bool}):
        return "made", None
    try:
        return "fixed", codec.encode(info.default if factory is None else factory())
    except EncodeError:
        return "made", None  # pydantic makes the value, and its failure then names a row and a reason


# -- from annotations to codecs --------------------------------------------------------------------------


def _codec(annotation: Any, metadata: Sequence[Any], where: str, inside: tuple[type, ...]) -> ColumnCodec:
    """Return the codec of *annotation*.

    Args:
        where: the path of the field, for errors.
        inside: the models that contain the field, the innermost last.
    """
    named = next((tag for tag in metadata if _is_dtype(tag)), None)
    if named is not None:
        others = tuple(tag for tag in metadata if not _is_dtype(tag))
        return _codec_with_dtype(annotation, others, named() if isinstance(named, type) else named, where, inside)
    if (plain := _alias_of(annotation)) is not None:
        return _codec(plain, metadata, where, inside)
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        tags = [part for tag in args[1:] for part in (tag.metadata if isinstance(tag, FieldInfo) else (tag,))]
        return _codec(args[0], (*tags, *metadata), where, inside)
    if origin in UNIONS:
        members = [member for member in args if member is not NoneType]
        if len(members) != 1:
            raise NoColumnForm(where, annotation, "it is one of several types")
        return _codec(members[0], metadata, where, inside)
    if origin is Literal:
        return _choices(annotation, list(args), where)
    return _of_class(annotation, metadata, where, inside)


def _is_dtype(tag: object) -> bool:
    return isinstance(tag, pl.DataType) or (isinstance(tag, type) and issubclass(tag, pl.DataType))


def _alias_of(annotation: Any) -> Any:
    """Return the type behind a ``NewType`` or a ``type`` statement, or None for anything else."""
    supertype = getattr(annotation, "__supertype__", None)
    return supertype if supertype is not None else getattr(annotation, "__value__", None)


def _of_class(annotation: Any, metadata: Sequence[Any], where: str, inside: tuple[type, ...]) -> ColumnCodec:
    encoded = next((tag for tag in metadata if isinstance(tag, EncodedBytes | EncodedStr)), None)
    if encoded is not None:
        return LeafCodec(pl.String(), partial(_encoded, encoded))
    if annotation is Decimal:
        return leaf_codec(_decimal(metadata))
    if annotation in LEAVES:
        return leaf_codec(LEAVES[annotation])
    kind = get_origin(annotation) or annotation
    if isinstance(kind, type):
        if issubclass(kind, Enum):
            return _choices(annotation, [member.value for member in kind], where)
        if issubclass(kind, BaseModel):
            return _model(kind, where, inside)
        if issubclass(kind, TEXTS) or kind.__module__ == "pydantic.networks":
            return leaf_codec(pl.String(), as_text=True)
    if kind in {*LISTS, *SETS, *DICTS}:
        return _container(annotation, kind, where, inside)
    raise NoColumnForm(where, annotation, "it is none of the types that columns can hold")


def _container(annotation: Any, kind: type, where: str, inside: tuple[type, ...]) -> ColumnCodec:
    args = [arg for arg in get_args(annotation) if arg is not Ellipsis]
    if not args:
        raise NoColumnForm(where, annotation, "it does not say what is in it")
    inner = [_codec(arg, (), where, inside) for arg in args]
    if kind is tuple and Ellipsis not in get_args(annotation):
        return _tuple(inner)
    if kind in DICTS:
        keys, values = inner
        return PairsCodec(pl.List(pl.Struct({"key": keys.dtype, "value": values.dtype})), keys, values)
    return ListCodec(pl.List(inner[0].dtype), inner[0], is_set=kind in SETS)


def _tuple(codecs: list[ColumnCodec]) -> ColumnCodec:
    first = codecs[0]
    if isinstance(first, LeafCodec) and all(
        isinstance(codec, LeafCodec) and codec.dtype == first.dtype for codec in codecs
    ):
        return ListCodec(pl.Array(first.dtype, len(codecs)), first)
    return tuple_codec(codecs)


def _model(model: type[BaseModel], where: str, inside: tuple[type, ...]) -> ColumnCodec:
    if model in inside:
        raise NoColumnForm(where, model, "it contains itself")
    model.model_rebuild()  # nothing happens if it is complete
    if issubclass(model, RootModel):
        info = model.model_fields["root"]
        root = _codec(info.annotation, info.metadata, where, (*inside, model))
        return LeafCodec(root.dtype, lambda value: root.encode(value.root))
    return struct_codec(_fields(model, where, inside))


def _encoded(tag: EncodedBytes | EncodedStr, value: Any) -> str:
    """Return the encoded text of *value*. Columns store it encoded, because pydantic decodes it at each validation."""
    try:
        return tag.encode_str(value) if isinstance(tag, EncodedStr) else tag.encode(value).decode()
    except (AttributeError, TypeError, ValueError) as error:
        raise EncodeError(f"{type(value).__name__} cannot be encoded") from error


def _choices(annotation: Any, values: list[Any], where: str) -> ColumnCodec:
    """Return the codec of a Literal or an Enum: a Polars Enum of its strings, or the common type of its values."""
    plain = [value.value if isinstance(value, Enum) else value for value in values]
    kinds = {type(value) for value in plain} - {NoneType}
    if kinds == {str}:
        return leaf_codec(pl.Enum([value for value in dict.fromkeys(plain) if value is not None]))
    if len(kinds) != 1 or not kinds <= LEAVES.keys():
        raise NoColumnForm(where, annotation, "its values are of several types, or of a type that columns cannot hold")
    return leaf_codec(LEAVES[kinds.pop()])


def _decimal(metadata: Sequence[Any]) -> pl.Decimal:
    digits, places = (
        next((found for tag in metadata if (found := getattr(tag, name, None)) is not None), None)
        for name in ("max_digits", "decimal_places")
    )
    if places is None:
        return pl.Decimal(DIGITS, PLACES)
    return pl.Decimal(min(max(digits or DIGITS, places, 1), DIGITS), min(places, DIGITS))


def _codec_with_dtype(
    annotation: Any, metadata: Sequence[Any], dtype: pl.DataType, where: str, inside: tuple[type, ...]
) -> ColumnCodec:
    """Return the codec for an annotation whose metadata names *dtype*."""
    plain = _plain(annotation)
    kind, args = get_origin(plain) or plain, get_args(plain)
    holders = LISTS if isinstance(dtype, pl.Array) else (*LISTS, *SETS)
    if isinstance(dtype, pl.List | pl.Array) and kind in holders and len({*args} - {Ellipsis}) == 1:
        return ListCodec(dtype, _codec(args[0], (dtype.inner,), where, inside), is_set=kind in SETS)
    if isinstance(dtype, map_type) and kind in DICTS and args:
        keys, values = (
            _codec(arg, (tag,), where, inside) for arg, tag in zip(args, (dtype.key, dtype.value), strict=True)
        )
        return PairsCodec(dtype, keys, values)
    if dtype == pl.String and (plain is str or _default_dtype(plain, metadata, where, inside) == dtype):
        return _codec(plain, metadata, where, inside)
    if dtype.is_nested():
        codec = _codec(plain, metadata, where, inside)
        if codec.dtype != dtype:
            raise NoColumnForm(where, annotation, f"its dtype is {codec.dtype}, not {dtype}")
        return codec
    if plain in _types_held_by(dtype):
        return leaf_codec(dtype)
    try:
        return named_codec(plain, metadata, dtype)
    except PydanticUserError as error:
        raise NoColumnForm(where, annotation, "pydantic has no schema for it") from error


def _plain(annotation: Any) -> Any:
    """Return *annotation* without aliases, and without None in a union."""
    if (plain := _alias_of(annotation)) is not None:
        return _plain(plain)
    members = [member for member in get_args(annotation) if member is not NoneType]
    return _plain(members[0]) if get_origin(annotation) in UNIONS and len(members) == 1 else annotation


def _default_dtype(
    annotation: Any, metadata: Sequence[Any], where: str, inside: tuple[type, ...]
) -> pl.DataType | None:
    """Return the dtype that a type has if its metadata names none, or None if no column can hold it."""
    try:
        return _codec(annotation, metadata, where, inside).dtype
    except NoColumnForm:
        return None


def _types_held_by(dtype: pl.DataType) -> Set[Any]:
    """Return the types whose values a column of *dtype* holds unchanged, or rejects with `EncodeError`."""
    if dtype == pl.Decimal:
        return {Decimal}
    if isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
        return {str}
    return {
        kind
        for kind, own in LEAVES.items()
        if type(own) is type(dtype)
        or (own.is_integer() and dtype.is_integer())
        or (own.is_float() and dtype.is_float())
    }


def _is_optional(annotation: Any) -> bool:
    if (plain := _alias_of(annotation)) is not None:
        return _is_optional(plain)
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _is_optional(args[0])
    if origin is Literal:
        return None in args
    return annotation is NoneType or (origin in UNIONS and any(map(_is_optional, args)))
