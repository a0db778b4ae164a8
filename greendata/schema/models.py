"""pydantic models as Polars schemas, and schemas as models."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from keyword import iskeyword
from typing import Annotated, Any, Literal, Optional

import polars as pl
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NaiveDatetime, create_model

from greendata.errors import NoColumnForm
from greendata.schema.codecs import Dtype, bounds_of
from greendata.schema.dtypes import map_type
from greendata.schema.fields import columns_of

__all__ = ("model_of", "schema_of")

# Dtypes that `schema_of` derives from these types. For any other dtype the annotation names the dtype as well.
PLAIN: dict[pl.DataType, Any] = {
    pl.Binary(): bytes,
    pl.Boolean(): bool,
    pl.Date(): date,
    pl.Datetime("us"): NaiveDatetime,
    pl.Datetime("us", "UTC"): AwareDatetime,
    pl.Duration("us"): timedelta,
    pl.Float64(): float,
    pl.Int64(): int,
    pl.Null(): None,
    pl.String(): str,
    pl.Time(): time,
}


def schema_of(model: type[BaseModel]) -> pl.Schema:
    """Return the Polars schema of *model*: the columns of a valid frame, computed fields last.

    A column has the name of the field's validation alias (the first one, if there are several). The annotation of the
    field determines the dtype:

    ==================================  ======================================================================
    int, float, bool, str, bytes        Int64, Float64, Boolean, String, Binary
    ByteSize                            Int64
    Decimal                             Decimal of max_digits and decimal_places; Decimal(38, 18) without places
    date, time, timedelta               Date, Time, Duration("us")
    datetime, NaiveDatetime             Datetime("us"), which aware values do not fit
    AwareDatetime                       Datetime("us", "UTC")
    UUID, paths, addresses, URLs        String
    Enum, Literal                       Enum of the values if these are strings, otherwise the type of the values;
                                        String if they are of several types
    list, set, tuple[T, ...]            List; the values of a set are sorted
    tuple[T, T], tuple[T, U]            Array; Struct of ``field_0``, ``field_1``
    dict[K, V]                          List of Struct of ``key`` and ``value``
    a model, dataclass or NamedTuple    Struct; String if it contains itself, or allows keys without fields
    TypedDict                           Struct; String if keys may be absent
    RootModel                           the dtype of its root
    Optional[T]                         the dtype of T
    a union, Any, list, dict[str, Any]  String: text, or JSON
    Json, Json[T]                       String: the JSON
    SecretStr, SecretBytes, Secret[T]   Object: the secrets themselves
    Base64Str, Base64Bytes and so on    String, encoded
    Annotated[T, polars.UInt8]          the named dtype; values must fit it
    Annotated[T, polars.String]         String; each value must be recoverable from its text
    ==================================  ======================================================================

    `greendata.schema.named_dtypes` describes the last two rows, and the text of unions. Every value comes back as it
    was, or is a failure with the rule ``column_form``. There are two exceptions: a `Sequence` comes back as a list, and
    a `Mapping` as a dict. Text that another program wrote is validated as a string, unless it begins with a tab or the
    type admits no strings.

    A column of secrets holds pydantic's own objects. It prints as ``**********`` and can be filtered by other columns,
    joined and turned into models, but no file, response or database takes it: a secret that a program did not mean to
    store is never stored. ``Annotated[SecretStr, polars.String]`` stores it in plain text. Failures never show the
    value of a field that holds secrets, nor of a model that sets ``hide_input_in_errors``.

    Raises:
        NotAModel: *model* is not a pydantic model, or is a `RootModel`.
        NoColumnForm: no column can hold the type of a field; the error says what to write instead.
        DuplicateColumn: two fields have the same alias.

    Example:
        >>> class User(BaseModel):
        ...     id: int
        ...     name: str | None = Field(default=None, alias="fullName")
        >>> dict(schema_of(User))
        {'id': Int64, 'fullName': String}
    """
    return pl.Schema({column.name: column.codec.dtype for column in columns_of(model)})


def model_of(schema: pl.Schema | Mapping[str, Any], name: str = "Row") -> type[BaseModel]:
    """Return a pydantic model whose schema is *schema*. Its fields are required and may be None, as in a column.

    A column whose name cannot be a field name (``"unit price"``, ``"_id"``, ``"copy"``) becomes the alias of a field.

    Args:
        schema: the names and dtypes of the columns.
        name: the name of the model.

    Raises:
        NoColumnForm: no field can have a dtype of *schema*, such as Object.

    Example:
        >>> Row = model_of({"id": pl.UInt8, "unit price": pl.Float64})
        >>> Row.model_validate({"id": 7, "unit price": None})
        Row(id=7, column_1=None)
        >>> dict(schema_of(Row))
        {'id': UInt8, 'unit price': Float64}
    """
    columns = pl.Schema(schema)
    fields: dict[str, Any] = {}
    for number, (column, dtype) in enumerate(columns.items()):
        annotation = _or_none(_annotation(dtype, f"{name}.{column}"))
        if _is_field_name(column):
            fields[column] = (annotation, ...)
        else:
            fields[_free_name(f"column_{number}", columns)] = (annotation, Field(alias=column))
    made: type[BaseModel] = create_model(name, __config__=ConfigDict(protected_namespaces=()), **fields)
    return made


def _annotation(dtype: Dtype, where: str) -> Any:
    """Return an annotation for which `schema_of` returns *dtype*."""
    if (plain := PLAIN.get(dtype, Ellipsis)) is not Ellipsis:  # type: ignore[arg-type]
        return plain
    if dtype.is_integer():
        return Annotated[int, _bounds(dtype), dtype]
    if dtype.is_float():
        return Annotated[float, dtype]
    match dtype:
        case pl.Decimal():
            return Annotated[Decimal, Field(max_digits=dtype.precision, decimal_places=dtype.scale)]
        case pl.Datetime():
            return Annotated[NaiveDatetime if dtype.time_zone is None else AwareDatetime, dtype]
        case pl.Duration():
            return Annotated[timedelta, dtype]
        case pl.Enum() | pl.Categorical():
            values = dtype.categories.to_list() if isinstance(dtype, pl.Enum) else []
            return Literal[tuple(values)] if values else Annotated[str, dtype]
    return _nested(dtype, where)


def _nested(dtype: Dtype, where: str) -> Any:
    if isinstance(dtype, pl.List | pl.Array):
        items = list.__class_getitem__(_or_none(_annotation(dtype.inner, where)))
        if isinstance(dtype, pl.List):
            return items
        return Annotated[items, Field(min_length=dtype.size, max_length=dtype.size), dtype]
    if isinstance(dtype, map_type):
        keys, values = _annotation(dtype.key, where), _or_none(_annotation(dtype.value, where))
        return Annotated[dict.__class_getitem__((keys, values)), dtype]
    if isinstance(dtype, pl.Struct) and dtype.fields:
        return model_of({field.name: field.dtype for field in dtype.fields}, where.replace(".", "_"))
    hint = "keep its name and its rows" if dtype == pl.Object else "cast() it first"
    raise NoColumnForm(where, dtype, "pydantic has no type for it", f"{hint}, or drop() the column")


def _or_none(annotation: Any) -> Any:
    return Optional[annotation]  # noqa: UP045 - None | None is a TypeError


def _bounds(dtype: Dtype) -> Any:
    low, high = bounds_of(dtype)
    return Field(ge=low, lt=high)


def _is_field_name(column: str) -> bool:
    return column.isidentifier() and not iskeyword(column) and column[0] != "_" and not hasattr(BaseModel, column)


def _free_name(name: str, taken: Mapping[str, Any]) -> str:
    while name in taken:
        name += "_"
    return name
