"""The fields of a pydantic model as columns: their names, their codecs, and the defaults for missing columns.

The codec of a field follows from its annotation, because the annotation describes a valid value. Whether a value is
valid follows from pydantic's core schema (`greendata.validation.rules`). A Polars dtype in the metadata of an
annotation, as in ``Annotated[int, polars.UInt8]``, sets the dtype of the column.
"""

from __future__ import annotations

import collections
import dataclasses
import ipaddress
from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache, partial
from pathlib import PurePath
from types import NoneType
from typing import (
    Annotated,
    Any,
    ForwardRef,
    Literal,
    NotRequired,
    Required,
    get_args,
    get_origin,
    get_type_hints,
)
from uuid import UUID

import polars as pl
import pydantic
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ByteSize,
    EncodedBytes,
    EncodedStr,
    PydanticUndefinedAnnotation,
    PydanticUserError,
    RootModel,
)
from pydantic.fields import FieldInfo

from greendata.errors import DuplicateColumn, NoColumnForm, NotAModel
from greendata.internals.pydantic import dataclass_config_of, dataclass_fields_of
from greendata.schema.annotations import (
    SECRETS,
    alias_of,
    holds_secret,
    is_optional,
    is_typed_dict,
    plain_type,
    tags_of,
    union_members,
)
from greendata.schema.codecs import (
    Column,
    ColumnCodec,
    EncodeError,
    LeafCodec,
    ListCodec,
    MemberCodec,
    PairsCodec,
    RootCodec,
    StructCodec,
    leaf_codec,
    struct_codec,
    tuple_codec,
)
from greendata.schema.dtypes import map_type
from greendata.schema.named_dtypes import NamedDtypeCodec, is_json, json_type, named_codec

__all__ = ("columns_of", "hidden_places")

DIGITS = 38  # of a Decimal without max_digits: as many as a column holds
PLACES = 18  # of these after the decimal point; this leaves as many digits before it as a 64-bit integer has

LEAVES: dict[object, pl.DataType] = {
    ByteSize: pl.Int64(),
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
LISTS = (list, tuple, collections.deque, Sequence, collections.abc.MutableSequence)
SETS = (set, frozenset, Set, collections.abc.MutableSet)
DICTS = (dict, Mapping, collections.abc.MutableMapping, collections.OrderedDict)
READ_ONCE = (collections.abc.Iterable, collections.abc.Iterator, collections.abc.Generator)
WITHOUT_JSON = (type, collections.abc.Callable)

ALIAS_PATH = "give it the name of a column as its alias, and put the value into that column with with_columns()"
NO_JSON = "give its type a validator and a serializer, as in Annotated[..., PlainValidator(...), PlainSerializer(...)]"
WRONG_DTYPE = "write the dtypes of the fields into the model, as in Annotated[int, polars.Int8]"
LIST_OF_PAIRS = "write list[tuple[key, value]] for its type, or keys that are text or numbers"
PLAIN_SECRET = "write Annotated[SecretStr, polars.String] for its type to store it in plain text"


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


def hidden_places(columns: Sequence[Column]) -> frozenset[str]:
    """Return the names of the columns and fields whose values no message may show, see `Column.is_hidden`.

    Example:
        >>> class User(BaseModel):
        ...     name: str
        ...     password: pydantic.SecretStr
        >>> hidden_places(columns_of(User))
        frozenset({'password'})
    """
    hidden = (column for column in columns if column.is_hidden)
    return frozenset(name for column in hidden for name in (column.name, column.field, *column.sources))


@lru_cache(maxsize=512)  # keys are classes; bounded for programs that create models dynamically
def _columns(model: type[BaseModel]) -> tuple[Column, ...]:
    computed = []
    for name, info in model.model_computed_fields.items():
        codec = _codec(info.return_type, (), f"{model.__name__}.{name}", (model,))
        is_hidden = holds_secret(info.return_type, or_hidden=True)
        computed.append(Column(info.alias or name, name, (), codec, is_optional(info.return_type), is_hidden=is_hidden))
    if not model.model_fields and not computed:
        raise NoColumnForm(model.__name__, model, "it has no fields", "give it a field")
    fields = _fields(model.model_fields, model.model_config, model.__name__, (model,))
    return _unique(model, (*fields, *computed))


def _fields(
    fields: Mapping[str, FieldInfo], config: Mapping[str, Any], where: str, inside: tuple[Any, ...]
) -> tuple[Column, ...]:
    """Return the columns of the fields of a model or dataclass."""
    columns = []
    for name, info in fields.items():
        path = f"{where}.{name}"
        codec = _codec(info.annotation, tags_of(info), path, inside)
        sources = _sources(config, name, info, path)
        missing, default = _default(config, info, codec)
        is_hidden = bool(config.get("hide_input_in_errors")) or holds_secret(info.annotation, or_hidden=True)
        columns.append(
            Column(sources[0], name, sources, codec, is_optional(info.annotation), missing, default, is_hidden)
        )
    return tuple(columns)


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


def _sources(config: Mapping[str, Any], name: str, info: FieldInfo, path: str) -> tuple[str, ...]:
    """Return the column names that may hold a field, in the order in which pydantic looks for them."""
    alias = info.validation_alias
    by_name = alias is None or config.get("validate_by_name") or config.get("populate_by_name")
    choices: list[Any] = alias.choices if isinstance(alias, AliasChoices) else [alias]
    found = []
    if alias is not None and config.get("validate_by_alias", True) is not False:
        for choice in choices:
            if isinstance(choice, AliasPath) and len(choice.path) > 1:
                raise NoColumnForm(path, choice, "its alias is a path into another value", ALIAS_PATH)
            found.append(str(choice.path[0]) if isinstance(choice, AliasPath) else choice)
    return tuple(dict.fromkeys([*found, name] if by_name or not found else found))


def _default(
    config: Mapping[str, Any], info: FieldInfo, codec: ColumnCodec
) -> tuple[Literal["fails", "fixed", "made"], Any]:
    """Return `Column.missing` and `Column.default` for a field."""
    if info.is_required():
        return "fails", None
    factory = info.default_factory
    validated = info.validate_default or (info.validate_default is None and config.get("validate_default"))
    if validated or (factory is not None and factory not in {list, dict, set, tuple, frozenset, str, int, float, bool}):
        return "made", None
    try:
        return "fixed", codec.encode(info.default if factory is None else factory())
    except EncodeError:
        return "made", None  # pydantic makes the value, and its failure then names a row and a reason


# -- from annotations to codecs --------------------------------------------------------------------------


def _codec(annotation: Any, metadata: Sequence[Any], where: str, inside: tuple[Any, ...]) -> ColumnCodec:
    """Return the codec of *annotation*.

    Args:
        where: the path of the field, for errors.
        inside: the models and type aliases that contain the field, the innermost last.
    """
    named = next((tag for tag in metadata if _is_dtype(tag)), None)
    if named is not None:
        others = tuple(tag for tag in metadata if not _is_dtype(tag))
        return _codec_with_dtype(annotation, others, named() if isinstance(named, type) else named, where, inside)
    if (plain := alias_of(annotation)) is not None:
        is_recursive = any(annotation is outer for outer in inside)
        if is_recursive or isinstance(plain, str | ForwardRef) or len(union_members(plain)) > 1:
            return _as_json(annotation, metadata, where)
        return _codec(plain, metadata, where, (*inside, annotation))
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        tags = [part for tag in args[1:] for part in tags_of(tag)]
        return _codec(args[0], (*tags, *metadata), where, inside)
    if any(isinstance(tag, pydantic.InstanceOf) for tag in metadata):
        raise NoColumnForm(where, annotation, "only instances are valid, which no column gives", "drop InstanceOf")
    if annotation is pydantic.Json or any(map(is_json, metadata)):
        return dataclasses.replace(_as_json(annotation, metadata, where), null="null", is_default=False)
    if members := union_members(annotation):
        if len(members) > 1 or (_is_root(members[0]) and is_optional(members[0])):
            return _as_json(annotation, metadata, where)
        codec = _codec(members[0], metadata, where, inside)
        return dataclasses.replace(codec, null=None) if isinstance(codec, NamedDtypeCodec) else codec
    if origin is Literal:
        return _choices(annotation, args, metadata, where)
    return _of_class(annotation, metadata, where, inside)


def _is_dtype(tag: object) -> bool:
    return isinstance(tag, pl.DataType) or (isinstance(tag, type) and issubclass(tag, pl.DataType))


def _is_root(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, RootModel)


def _of_class(annotation: Any, metadata: Sequence[Any], where: str, inside: tuple[Any, ...]) -> ColumnCodec:
    encoded = next((tag for tag in metadata if isinstance(tag, EncodedBytes | EncodedStr)), None)
    if encoded is not None:
        return LeafCodec(pl.String(), partial(_encoded, encoded))
    if annotation is Decimal:
        return leaf_codec(_decimal(metadata))
    if annotation in LEAVES:
        return leaf_codec(LEAVES[annotation])
    kind = get_origin(annotation) or annotation
    if kind in {*LISTS, *SETS, *DICTS}:
        return _container(annotation, kind, metadata, where, inside)
    if not isinstance(kind, type) or kind in READ_ONCE:
        return _as_json(annotation, metadata, where)
    if issubclass(kind, SECRETS):
        return LeafCodec(pl.Object(), _secret)
    if issubclass(kind, TEXTS) or kind.__module__ == "pydantic.networks":
        return leaf_codec(pl.String(), as_text=True)
    if issubclass(kind, Enum):
        return _choices(annotation, tuple(kind), metadata, where)
    if issubclass(kind, BaseModel):
        return _model(kind, metadata, where, inside)
    return _record(annotation, kind, metadata, where, inside)


def _record(annotation: Any, kind: type, metadata: Sequence[Any], where: str, inside: tuple[Any, ...]) -> ColumnCodec:
    """Return the codec of a dataclass, TypedDict or NamedTuple, or of any other class."""
    columns = None if kind is not annotation or kind in inside else _columns_of_record(kind, where, (*inside, kind))
    if columns is None:
        return _as_json(annotation, metadata, where)
    return struct_codec(columns, is_dict=is_typed_dict(kind))


def _as_json(annotation: Any, metadata: Sequence[Any], where: str) -> NamedDtypeCodec:
    """Return the codec of a type for whose values there is nothing better than text, mostly their JSON.

    Raises:
        NoColumnForm: pydantic does not read the values back from JSON.
    """
    if holds_secret(annotation):
        raise NoColumnForm(where, annotation, "it contains a secret, which no JSON shows", PLAIN_SECRET)
    kind = get_origin(annotation) or annotation
    if kind in READ_ONCE:
        raise NoColumnForm(where, annotation, "its values can be read only once", "write list[...] for its type")
    try:
        codec = named_codec(annotation, metadata, pl.String())
    except (PydanticUserError, PydanticUndefinedAnnotation) as error:
        raise NoColumnForm(where, annotation, "pydantic has no schema for it", NO_JSON) from error
    if kind in WITHOUT_JSON or json_type(codec.adapter) is False:
        raise NoColumnForm(where, annotation, "pydantic has no JSON for it", NO_JSON)
    return dataclasses.replace(codec, is_default=True)


def _is_json_alone(codec: ColumnCodec) -> bool:
    """Return True if the values of *codec* have no form but JSON, although no annotation asks for text.

    A value of a union may need the name of its member as well, and keeps its own text within another value.
    """
    if isinstance(codec, RootCodec):
        return _is_json_alone(codec.root)
    return isinstance(codec, NamedDtypeCodec) and codec.is_default and codec.kind != "text" and not codec.members


def _container(
    annotation: Any, kind: type, metadata: Sequence[Any], where: str, inside: tuple[Any, ...]
) -> ColumnCodec:
    """Return the codec of a list, set, tuple or dict: JSON for the whole value if its items have no form but JSON.

    Sets are sorted, which JSON is not. The keys of a dict would be strings in JSON.
    """
    args = [arg for arg in get_args(annotation) if arg is not Ellipsis]
    if not args:
        return _as_json(annotation, metadata, where)
    inner = [_codec(arg, (), where, inside) for arg in args]
    _check_inner(inner, annotation, where)
    if kind not in SETS and any(map(_is_json_alone, inner[1:] if kind in DICTS else inner)):
        return _as_json(annotation, metadata, where)
    if kind is tuple and Ellipsis not in get_args(annotation):
        return _tuple(inner)
    if kind in DICTS:
        keys, values = inner
        if _holds_named_fields(keys):
            raise NoColumnForm(where, annotation, "a struct cannot be the key of a dict again", LIST_OF_PAIRS)
        return PairsCodec(pl.List(pl.Struct({"key": keys.dtype, "value": values.dtype})), keys, values)
    return ListCodec(pl.List(inner[0].dtype), inner[0], is_set=kind in SETS)


def _holds_named_fields(codec: ColumnCodec) -> bool:
    """Return True if the values of *codec*, read from a column, are dicts or contain some."""
    match codec:
        case ListCodec():
            return _holds_named_fields(codec.items)
        case RootCodec():
            return _holds_named_fields(codec.root)
        case StructCodec():
            return not codec.is_tuple or any(_holds_named_fields(column.codec) for column in codec.columns)
    return False


def _check_inner(codecs: Sequence[ColumnCodec], annotation: Any, where: str) -> None:
    """Raise NoColumnForm if the values of one of *codecs* cannot be part of another value."""
    if any(isinstance(codec.dtype, pl.Object) for codec in codecs):
        raise NoColumnForm(where, annotation, "a secret has to be a column of its own", PLAIN_SECRET)


def _tuple(codecs: list[ColumnCodec]) -> ColumnCodec:
    first = codecs[0]
    if isinstance(first, LeafCodec) and all(
        isinstance(codec, LeafCodec) and codec.dtype == first.dtype for codec in codecs
    ):
        return ListCodec(pl.Array(first.dtype, len(codecs)), first)
    return tuple_codec(codecs)


def _model(model: type[BaseModel], metadata: Sequence[Any], where: str, inside: tuple[Any, ...]) -> ColumnCodec:
    if model in inside:
        return _as_json(model, metadata, where)
    model.model_rebuild()  # nothing happens if it is complete
    if issubclass(model, RootModel):
        info = model.model_fields["root"]
        root = _codec(info.annotation, tags_of(info), where, (*inside, model))
        return RootCodec(root.dtype, root)
    if not model.model_fields or model.model_config.get("extra") == "allow":  # a struct has no other keys
        return _as_json(model, metadata, where)
    columns = _unique(model, _fields(model.model_fields, model.model_config, where, (*inside, model)))
    for column in columns:
        _check_inner([column.codec], model.model_fields[column.field].annotation, f"{where}.{column.field}")
    return struct_codec(columns)


def _columns_of_record(kind: type, where: str, inside: tuple[Any, ...]) -> tuple[Column, ...] | None:
    """Return the columns of a dataclass, TypedDict or NamedTuple, or None if a struct does not hold its values.

    A struct has no absent keys, and a dataclass does not take a field with ``init=False`` back.
    """
    if dataclasses.is_dataclass(kind):
        fields = dataclass_fields_of(kind)
        if not fields or any(info.init is False or info.init_var for info in fields.values()):
            return None
        columns = _fields(fields, dataclass_config_of(kind), where, inside)
    else:
        columns = tuple(_named_fields(kind, where, inside))
    for column in columns:
        _check_inner([column.codec], kind, f"{where}.{column.field}")
    return columns or None


def _named_fields(kind: Any, where: str, inside: tuple[Any, ...]) -> Iterator[Column]:
    """Yield the columns of a TypedDict or NamedTuple. Yield nothing if it is neither, or has more than plain fields."""
    names = kind.__annotations__ if is_typed_dict(kind) else getattr(kind, "_fields", ())
    if not (is_typed_dict(kind) or issubclass(kind, tuple)) or dataclass_config_of(kind):
        return
    try:
        hints = get_type_hints(kind, include_extras=True)
    except NameError:  # a name that only pydantic can resolve
        return
    hints = {name: get_args(hint)[0] if get_origin(hint) is Required else hint for name, hint in hints.items()}
    is_plain = hints.keys() == {*names} and not getattr(kind, "__optional_keys__", None)
    if not is_plain or any(get_origin(hint) is NotRequired or _has_alias(hint) for hint in hints.values()):
        return
    for name, hint in hints.items():
        codec = _codec(hint, (), f"{where}.{name}", inside)
        yield Column(name, name, (name,), codec, is_optional(hint))


def _has_alias(hint: Any) -> bool:
    return any(isinstance(tag, FieldInfo) and tag.validation_alias is not None for tag in get_args(hint)[1:])


def _secret(value: Any) -> Any:
    """Return a secret as it is: printed, its column shows what pydantic shows, and no file takes it."""
    if not isinstance(value, SECRETS):
        raise EncodeError(f"{type(value).__name__} is not a secret")
    return value


def _encoded(tag: EncodedBytes | EncodedStr, value: Any) -> str:
    """Return the encoded text of *value*. Columns store it encoded, because pydantic decodes it at each validation."""
    try:
        return tag.encode_str(value) if isinstance(tag, EncodedStr) else tag.encode(value).decode()
    except (AttributeError, TypeError, ValueError) as error:
        raise EncodeError(f"{type(value).__name__} cannot be encoded") from error


def _choices(annotation: Any, values: tuple[Any, ...], metadata: Sequence[Any], where: str) -> ColumnCodec:
    """Return the codec of a Literal or an Enum: an Enum of its strings, the common type of its values, or text."""
    plain = [value.value if isinstance(value, Enum) else value for value in values]
    kinds = {type(value) for value in plain} - {NoneType}
    if kinds == {str}:
        return _choice(annotation, values, pl.Enum([value for value in dict.fromkeys(plain) if value is not None]))
    if len(kinds) != 1 or not kinds <= LEAVES.keys():
        codec = _as_json(annotation, metadata, where)
        try:
            for value in values:
                codec.encode(value)
        except EncodeError as unfit:
            raise NoColumnForm(where, annotation, f"{value!r} is not what pydantic makes of its JSON") from unfit
        return codec
    return _choice(annotation, values, LEAVES[kinds.pop()])


def _choice(annotation: Any, values: tuple[Any, ...], dtype: pl.DataType) -> ColumnCodec:
    codec = leaf_codec(dtype)
    members = [value for value in values if isinstance(value, Enum)]
    if get_origin(annotation) is not Literal or not members:
        return codec
    plain = [value for value in values if not isinstance(value, Enum)]
    return MemberCodec(dtype, codec, {member.value: member for member in members if member.value not in plain})


def _decimal(metadata: Sequence[Any]) -> pl.Decimal:
    digits, places = (
        next((found for tag in metadata if (found := getattr(tag, name, None)) is not None), None)
        for name in ("max_digits", "decimal_places")
    )
    if places is None:
        return pl.Decimal(DIGITS, PLACES)
    return pl.Decimal(min(max(digits or DIGITS, places, 1), DIGITS), min(places, DIGITS))


def _codec_with_dtype(
    annotation: Any, metadata: Sequence[Any], dtype: pl.DataType, where: str, inside: tuple[Any, ...]
) -> ColumnCodec:
    """Return the codec for an annotation whose metadata names *dtype*."""
    plain = plain_type(annotation)
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
            raise NoColumnForm(where, annotation, f"its dtype is {codec.dtype}, not {dtype}", WRONG_DTYPE)
        return codec
    if plain in _types_held_by(dtype):
        return leaf_codec(dtype)
    try:
        return named_codec(plain, metadata, dtype)
    except PydanticUserError as error:
        raise NoColumnForm(where, annotation, "pydantic has no schema for it", NO_JSON) from error


def _default_dtype(annotation: Any, metadata: Sequence[Any], where: str, inside: tuple[Any, ...]) -> pl.DataType | None:
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
