"""Codecs: how the values of a Python type are stored in a column.

A `ColumnCodec` knows the dtype of the column and encodes values for it. While Polars builds a column, it rounds,
truncates and casts values that do not fit. A codec raises `EncodeError` instead, so no value is changed silently.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Literal
from zoneinfo import ZoneInfo

import polars as pl
from polars.datatypes import DataTypeClass
from polars.exceptions import PolarsError

from greendata.errors.plural import counted
from greendata.schema.failures import text_of

__all__ = (
    "Column",
    "ColumnCodec",
    "EncodeError",
    "LeafCodec",
    "ListCodec",
    "MemberCodec",
    "PairsCodec",
    "RootCodec",
    "StructCodec",
    "bounds_of",
    "decoders_of",
    "leaf_codec",
    "series_of",
    "struct_codec",
    "tuple_codec",
)

Convert = Callable[[Any], Any]
Dtype = pl.DataType | DataTypeClass  # how Polars annotates the inner dtype of nested dtypes

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
INT64 = 2**63  # the first integer too large for a 64-bit column
TICKS = {"ns": 1000, "us": 1, "ms": 1}  # per microsecond; "ms" is counted in microseconds, in whole thousands


class EncodeError(Exception):
    """A value does not fit its column; the text says why. Validation catches it and reports a failure."""


@dataclass(frozen=True, slots=True)
class ColumnCodec(ABC):
    """How values are stored in a column: the dtype of the column, and the conversion of values in both directions."""

    dtype: pl.DataType

    @abstractmethod
    def encode(self, value: Any) -> Any:
        """Return what Polars stores for *value* in a column of this dtype. None stays None.

        Raises:
            EncodeError: the column cannot hold the value.
        """

    def decoder(self, dtype: Dtype) -> Convert | None:
        """Return the function that decodes a stored value of *dtype* for pydantic, or None if no decoding is needed."""
        return None


@dataclass(frozen=True, slots=True)
class LeafCodec(ColumnCodec):
    """One value per row."""

    convert: Convert

    def encode(self, value: Any) -> Any:
        """See `ColumnCodec.encode`."""
        return None if value is None else self.convert(value)


@dataclass(frozen=True, slots=True)
class ListCodec(ColumnCodec):
    """Several values per row, of a variable or fixed number: lists, tuples, and sets, which are stored sorted."""

    items: ColumnCodec
    is_set: bool = False

    def encode(self, value: Any) -> Any:
        """See `ColumnCodec.encode`."""
        if value is None:
            return None
        if isinstance(value, str | bytes) or not isinstance(value, Iterable):
            raise EncodeError(f"{type(value).__name__} is not a list")
        encoded = [self.items.encode(item) for item in value]
        if self.is_set:
            encoded.sort(key=_as_polars_sorts)
        elif isinstance(self.dtype, pl.Array) and len(encoded) != self.dtype.size:
            raise EncodeError(f"{counted(len(encoded), 'value does', 'values do')} not fit {self.dtype}")
        return encoded

    def decoder(self, dtype: Dtype) -> Convert | None:
        """See `ColumnCodec.decoder`."""
        inner = getattr(dtype, "inner", None)
        decode = None if inner is None else self.items.decoder(inner)
        if decode is None:
            return None
        return lambda value: None if value is None else [decode(item) for item in value]


@dataclass(frozen=True, slots=True)
class PairsCodec(ColumnCodec):
    """A dict, stored as a list of structs with the fields ``key`` and ``value``, or as a map."""

    keys: ColumnCodec
    values: ColumnCodec

    def encode(self, value: Any) -> Any:
        """See `ColumnCodec.encode`."""
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise EncodeError(f"{type(value).__name__} is not a mapping")
        pairs = [(self.keys.encode(key), self.values.encode(item)) for key, item in value.items()]
        if not isinstance(self.dtype, pl.List):
            return dict(pairs)
        return [{"key": key, "value": item} for key, item in pairs]

    def decoder(self, dtype: Dtype) -> Convert | None:
        """See `ColumnCodec.decoder`."""
        key_dtype, value_dtype = getattr(dtype, "key", None), getattr(dtype, "value", None)
        if key_dtype is not None and value_dtype is not None:  # a map, whose values are dicts already
            decoders = self._key_decoder(key_dtype), self.values.decoder(value_dtype)
            if decoders == (None, None):
                return None
            decode_key, decode_value = decoders[0] or _same, decoders[1] or _same
            return lambda value: value and {decode_key(key): decode_value(item) for key, item in value.items()}
        if not isinstance(dtype, pl.List) or not isinstance(dtype.inner, pl.Struct):
            return None
        kinds = dict(dtype.inner)
        if kinds.keys() != {"key", "value"}:
            return None
        key = self._key_decoder(kinds["key"]) or _same
        item = self.values.decoder(kinds["value"]) or _same

        def decode(value: Any) -> Any:
            if value is None or None in value:
                return value
            decoded = {key(pair["key"]): item(pair["value"]) for pair in value}
            return decoded if len(decoded) == len(value) else value  # a dict has each key once

        return decode

    def _key_decoder(self, dtype: Dtype) -> Convert | None:
        """Return the decoder of keys. Keys are hashable: lists become tuples, of which pydantic makes sets as well."""
        decode = self.keys.decoder(dtype)
        if not isinstance(self.keys, ListCodec | StructCodec):
            return decode
        return _hashable if decode is None else lambda value: _hashable(decode(value))


@dataclass(frozen=True, slots=True)
class MemberCodec(ColumnCodec):
    """Members of enumerations that a Literal names, stored as their values. pydantic accepts only the members.

    Attributes:
        cell: the codec of the values.
        members: the members by their values. A value that the Literal names as well is not among them.
    """

    cell: LeafCodec
    members: Mapping[Any, Enum]

    def encode(self, value: Any) -> Any:
        """See `ColumnCodec.encode`."""
        encoded = self.cell.encode(value)
        if isinstance(value, Enum) and self.members.get(encoded) is not value:
            raise EncodeError(f"{value!r} does not come back from {self.dtype} as it was")
        return encoded

    def decoder(self, dtype: Dtype) -> Convert | None:
        """See `ColumnCodec.decoder`."""
        is_alike = dtype.is_integer() if self.dtype.is_integer() else isinstance(dtype, pl.String | pl.Enum)
        is_alike = is_alike or isinstance(dtype, pl.Categorical | type(self.dtype))
        return (lambda value: self.members.get(value, value)) if is_alike else None


@dataclass(frozen=True, slots=True)
class Column:
    """One field of a model, as a column of a frame or as a field of a struct.

    Attributes:
        name: the name of the column: the field's first validation alias, or the field's name.
        field: the name of the field.
        sources: the columns that may hold the field; the first one present is used. Empty for a computed field.
        codec: how the values are stored.
        nullable: True if the type of the field admits None.
        missing: what happens if the frame lacks the column: "fails"; "fixed" (every value is *default*); or "made"
            (pydantic makes each value).
        default: the encoded default if *missing* is "fixed".
        is_hidden: True if no message may show its values: they hold secrets, or the model hides its input.
    """

    name: str
    field: str
    sources: tuple[str, ...]
    codec: ColumnCodec
    nullable: bool = False
    missing: Literal["fails", "fixed", "made"] = "fails"
    default: Any = None
    is_hidden: bool = False

    def constant(self) -> pl.Expr:
        """Return the default as an expression of the column's dtype."""
        if self.default is None:  # Polars confuses literal series of one null that differ only in dtype
            return pl.lit(None, dtype=self.codec.dtype)
        return pl.lit(pl.Series([self.default], dtype=self.codec.dtype)).first()

    def source(self, columns: Container[str]) -> str | None:
        """Return the first of the field's sources that is in *columns*, or None."""
        return next((source for source in self.sources if source in columns), None)


@dataclass(frozen=True, slots=True)
class StructCodec(ColumnCodec):
    """Several values per row, each with its codec: a nested model, or a tuple of different types.

    Attributes:
        columns: the fields.
        is_tuple: True if the values are tuples, whose items have no names.
        is_dict: True if the values are dicts; otherwise their fields are attributes, as those of models.
    """

    columns: tuple[Column, ...]
    is_tuple: bool = False
    is_dict: bool = False

    def encode(self, value: Any) -> Any:
        """See `ColumnCodec.encode`."""
        if value is None:
            return None
        items = self._items(value)
        return {column.name: column.codec.encode(item) for column, item in zip(self.columns, items, strict=True)}

    def _items(self, value: Any) -> Sequence[Any]:
        """Return one value per column. Check the value first: a validator may have returned something else."""
        if not self.is_tuple:
            try:
                if self.is_dict:
                    return [value[column.field] for column in self.columns]
                return [getattr(value, column.field) for column in self.columns]
            except (AttributeError, LookupError, TypeError) as missing:
                raise EncodeError(str(missing)) from missing
        if not isinstance(value, tuple | list) or len(value) != len(self.columns):
            raise EncodeError(f"{type(value).__name__} is not a tuple of {len(self.columns)}")
        return value

    def decoder(self, dtype: Dtype) -> Convert | None:
        """See `ColumnCodec.decoder`."""
        if not isinstance(dtype, pl.Struct):
            return None
        decoders = decoders_of(self.columns, dict(dtype))
        if not self.is_tuple:
            if not decoders:
                return None
            return lambda row: row and row | {name: decode(row[name]) for name, decode in decoders}
        if [field.name for field in dtype.fields] != [column.name for column in self.columns]:
            return None
        by_column = [dict(decoders).get(column.name, _same) for column in self.columns]
        return lambda row: row and tuple(decode(item) for decode, item in zip(by_column, row.values(), strict=True))


@dataclass(frozen=True, slots=True)
class RootCodec(ColumnCodec):
    """A `RootModel`, stored as its root."""

    root: ColumnCodec

    def encode(self, value: Any) -> Any:
        """See `ColumnCodec.encode`."""
        if value is None:
            return None
        try:
            return self.root.encode(value.root)
        except AttributeError as missing:
            raise EncodeError(f"{type(value).__name__} is not a RootModel") from missing

    def decoder(self, dtype: Dtype) -> Convert | None:
        """See `ColumnCodec.decoder`."""
        return self.root.decoder(dtype)


def decoders_of(columns: Iterable[Column], dtypes: Mapping[str, Any]) -> list[tuple[str, Convert]]:
    """Return (column name, decoder) for each source column of *dtypes* that must be decoded for pydantic."""
    return [
        (source, decode)
        for column in columns
        for source in column.sources
        if source in dtypes and (decode := column.codec.decoder(dtypes[source])) is not None
    ]


def series_of(values: Sequence[Any], dtype: pl.DataType) -> pl.Series:
    """Return encoded *values* as a column.

    Polars takes 10 us per row to build a Series of lists of structs, because it checks each value. A DataFrame built
    from rows takes a quarter of that, but silently turns values that do not fit into null. Therefore such a column is
    built from rows and compared with the values.

    Raises:
        TypeError: a value is of another type. Polars raises other errors as well.

    Example:
        >>> series_of([[{"a": 1}], None], pl.List(pl.Struct({"a": pl.Int8}))).to_list()
        [[{'a': 1}], None]
    """
    if isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct):
        try:
            made = pl.DataFrame([(value,) for value in values], {"": dtype}, orient="row").to_series()
        except (TypeError, PolarsError):  # for example for integers and floats in one list
            return pl.Series(values, dtype=dtype)
        if made.to_list() == values:
            return made
    return pl.Series(values, dtype=dtype)


def struct_codec(columns: tuple[Column, ...], *, is_tuple: bool = False, is_dict: bool = False) -> StructCodec:
    """Return the codec of a struct with *columns*."""
    return StructCodec(pl.Struct({column.name: column.codec.dtype for column in columns}), columns, is_tuple, is_dict)


def tuple_codec(codecs: Iterable[ColumnCodec]) -> StructCodec:
    """Return the codec of a tuple of different types: a struct with the fields ``field_0``, ``field_1``, ..."""
    names = ((f"field_{number}", codec) for number, codec in enumerate(codecs))
    return struct_codec(tuple(Column(name, name, (name,), codec) for name, codec in names), is_tuple=True)


def bounds_of(dtype: Dtype) -> tuple[int, int]:
    """Return the smallest integer that a column of *dtype* holds, and the first integer that is too large."""
    bits = int(str(dtype).lstrip("UInt"))
    return (0, 2**bits) if dtype.is_unsigned_integer() else (-(2 ** (bits - 1)), 2 ** (bits - 1))


def leaf_codec(dtype: pl.DataType, *, as_text: bool = False) -> LeafCodec:
    """Return the codec of single values in a column of *dtype*. If *as_text*, store any value as its ``str()``."""
    if as_text:
        return LeafCodec(dtype, lambda value: _text(str(value)))
    if dtype.is_integer():
        low, high = bounds_of(dtype)
        return LeafCodec(dtype, _checked(int, dtype, lambda value: low <= value < high))
    match dtype:
        case pl.Decimal():
            return LeafCodec(dtype, _decimal_converter(dtype))
        case pl.Enum():
            known = frozenset(dtype.categories)
            return LeafCodec(dtype, _checked(str, dtype, known.__contains__))
        case pl.Datetime():
            return LeafCodec(dtype, _checked(datetime, dtype, _fits_datetime(dtype)))
        case pl.Duration():
            return LeafCodec(dtype, _checked(timedelta, dtype, _fits_ticks(dtype.time_unit)))
    kinds: dict[type[pl.DataType], Convert] = {
        pl.Boolean: _checked(bool, dtype),
        pl.Float16: _checked(float, dtype, _fits_float(65_520.0)),
        pl.Float32: _checked(float, dtype, _fits_float(2.0**128 - 2.0**103)),
        pl.Float64: _checked(float, dtype, _fits_float(math.inf)),
        pl.String: _text,
        pl.Categorical: _text,
        pl.Binary: _checked(bytes, dtype),
        pl.Date: _checked(date, dtype, lambda value: not isinstance(value, datetime)),
        pl.Time: _checked(time, dtype, lambda value: value.tzinfo is None),
        pl.Null: _checked(type(None), dtype),
    }
    return LeafCodec(dtype, kinds.get(type(dtype), _same))


def _checked(kind: type, dtype: pl.DataType, fits: Callable[[Any], bool] | None = None) -> Convert:
    """Return a function that passes values of *kind* that fit. A member of an enumeration is stored as its value."""

    def convert(value: Any) -> Any:
        if isinstance(value, Enum):
            value = value.value
        if not isinstance(value, kind) and not (kind is float and isinstance(value, int)):
            raise EncodeError(f"{type(value).__name__} does not fit {dtype}")
        if fits is not None and not fits(value):
            raise EncodeError(f"{_short(value)} does not fit {dtype}")
        return value

    return convert


def _text(value: Any) -> str:
    if isinstance(value, Enum):
        value = value.value
    if not isinstance(value, str):
        raise EncodeError(f"{type(value).__name__} does not fit String")
    if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        raise EncodeError("a lone surrogate is not Unicode text")
    return value


def _decimal_converter(dtype: pl.Decimal) -> Convert:
    scale, whole = dtype.scale, (dtype.precision or 38) - dtype.scale

    def convert(value: Any) -> Decimal:
        if not isinstance(value, Decimal) or not value.is_finite():
            raise EncodeError(f"{_short(value)} does not fit {dtype}")
        sign, digits, exponent = value.as_tuple()
        assert isinstance(exponent, int)
        if not any(digits):
            return Decimal(0)
        cut = max(0, -scale - exponent)
        if any(digits[len(digits) - cut :]) or len(digits) <= cut or value.adjusted() >= whole:
            raise EncodeError(f"{_short(value)} does not fit {dtype}")
        return Decimal((sign, digits[:-cut], -scale)) if cut else value

    return convert


def _fits_datetime(dtype: pl.Datetime) -> Callable[[datetime], bool]:
    in_ticks = _fits_ticks(dtype.time_unit)
    zone = None if dtype.time_zone is None else ZoneInfo(dtype.time_zone)

    def fits(value: datetime) -> bool:
        if (value.tzinfo is None) is not (zone is None):
            return False
        try:
            local = value.replace(tzinfo=UTC) if zone is None else value.astimezone(zone)
        except OverflowError:  # Python could not read it from the column
            return False
        return in_ticks(local - EPOCH)

    return fits


def _fits_ticks(unit: str) -> Callable[[timedelta], bool]:
    def fits(value: timedelta) -> bool:
        ticks = value // MICROSECOND * TICKS[unit]
        return -INT64 <= ticks < INT64 and not (unit == "ms" and ticks % 1000)

    return fits


def _fits_float(limit: float) -> Callable[[float], bool]:
    """Return a function that is true for floats that the column can round, and for integers that it holds exactly.

    A finite value of *limit* or more would become infinite in the column.
    """

    def fits(value: float) -> bool:
        if isinstance(value, int):
            return value.bit_length() < 1024 and abs(value) < limit and float(value) == value
        return abs(value) < limit or not math.isfinite(value)

    return fits


def _as_polars_sorts(value: Any) -> tuple[bool, bool, Any]:
    """Return a sort key: nulls first, NaN last, values without an order by their text."""
    is_nan = value != value
    return (value is not None, is_nan, "" if is_nan else str(value) if isinstance(value, dict | list) else value)


def _short(value: object) -> str:
    text = text_of(value)
    return text if len(text) <= 50 else text[:47] + "..."


def _same(value: Any) -> Any:
    return value


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value
