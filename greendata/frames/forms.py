"""Forms: how the values of a Python type are kept in a column.

A `Form` has the column's dtype and packs values for it. Polars rounds, cuts and casts what does not fit a
column while it builds one; a form refuses it (`Unfit`), so that no value is changed on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

import polars as pl

__all__ = ("Form", "Leaf", "Listed", "Pairs", "Struct", "Unfit", "fields_of_tuple", "leaf")

Pack = Callable[[Any], Any]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
INT64 = 2**63  # the first integer above what a column of 64 bits holds
TICKS = {"ns": 1000, "us": 1, "ms": 1}  # ticks a microsecond, or less than one


class Unfit(Exception):
    """A value that its column cannot hold; the text says why. Never leaves the validation."""


@dataclass(frozen=True, slots=True)
class Form:
    """How values are kept in a column: its dtype, and what becomes of them on the way in."""

    dtype: pl.DataType

    def pack(self, value: Any) -> Any:
        """What Polars takes for *value* in a column of this dtype; None stays None.

        Raises:
            Unfit: the column cannot hold it.
        """
        raise NotImplementedError

    def unpacker(self, dtype: pl.DataType) -> Pack | None:
        """What makes of a value of a column of *dtype* what pydantic knows; None if it knows it as it is."""
        return None


@dataclass(frozen=True, slots=True)
class Leaf(Form):
    """One value a row."""

    into: Pack

    def pack(self, value: Any) -> Any:
        return None if value is None else self.into(value)


@dataclass(frozen=True, slots=True)
class Listed(Form):
    """Any number of values a row, or a fixed one: list, tuple, and sets in the order of their values."""

    items: Form
    is_set: bool = False

    def pack(self, value: Any) -> Any:
        if value is None:
            return None
        packed = [self.items.pack(item) for item in value]
        if self.is_set:
            packed.sort(key=_null_first)
        elif isinstance(self.dtype, pl.Array) and len(packed) != self.dtype.size:
            raise Unfit(f"{len(packed)} values do not fit {self.dtype}")
        return packed

    def unpacker(self, dtype: pl.DataType) -> Pack | None:
        inner = getattr(dtype, "inner", None)
        unpack = None if inner is None else self.items.unpacker(inner)
        if unpack is None:
            return None
        return lambda value: None if value is None else [unpack(item) for item in value]


@dataclass(frozen=True, slots=True)
class Pairs(Form):
    """A dict: a list of structs with the fields ``key`` and ``value``."""

    keys: Form
    values: Form

    def pack(self, value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise Unfit(f"{type(value).__name__} is no mapping")
        return [{"key": self.keys.pack(key), "value": self.values.pack(item)} for key, item in value.items()]

    def unpacker(self, dtype: pl.DataType) -> Pack | None:
        if not isinstance(dtype, pl.List) or not isinstance(dtype.inner, pl.Struct):
            return None
        kinds = dict(dtype.inner)
        if kinds.keys() != {"key", "value"}:
            return None
        key = self.keys.unpacker(kinds["key"]) or _same
        item = self.values.unpacker(kinds["value"]) or _same

        def unpack(value: Any) -> Any:
            if value is None or None in value:
                return value
            return {key(pair["key"]): item(pair["value"]) for pair in value}

        return unpack


@dataclass(frozen=True, slots=True)
class Struct(Form):
    """Several values a row, each with a form of its own: a nested model, or a tuple of different types.

    Attributes:
        fields: the form of each field of the struct.
        take: the values of these fields, of one Python value.
        is_tuple: True if Python has a tuple.
        sources: for each field, the names under which it may come in.
    """

    fields: Mapping[str, Form]
    take: Callable[[Any], Iterable[Any]]
    is_tuple: bool = False
    sources: Mapping[str, Sequence[str]] | None = None

    def pack(self, value: Any) -> Any:
        if value is None:
            return None
        return {name: form.pack(item) for (name, form), item in zip(self.fields.items(), self.take(value), strict=True)}

    def unpacker(self, dtype: pl.DataType) -> Pack | None:
        if not isinstance(dtype, pl.Struct):
            return None
        unpackers = self._unpackers(dict(dtype))
        if self.is_tuple:
            if [*dict(dtype)] != [*self.fields]:
                return None
            takes = [unpackers.get(name, _same) for name in self.fields]
            return lambda row: row and tuple(take(item) for take, item in zip(takes, row.values(), strict=True))
        if not unpackers:
            return None
        return lambda row: row and row | {name: unpack(row[name]) for name, unpack in unpackers.items()}

    def _unpackers(self, kinds: Mapping[str, Any]) -> dict[str, Pack]:
        found = {}
        for name, form in self.fields.items():
            for source in (self.sources or {}).get(name, (name,)):
                if source in kinds and (unpack := form.unpacker(kinds[source])) is not None:
                    found[source] = unpack
        return found


def fields_of_tuple(forms: Sequence[Form]) -> Struct:
    """The form of a tuple of different types: a struct with the fields ``field_0``, ``field_1``, ..."""
    fields = {f"field_{number}": form for number, form in enumerate(forms)}
    return Struct(pl.Struct({name: form.dtype for name, form in fields.items()}), fields, tuple, is_tuple=True)


def leaf(dtype: pl.DataType, *, as_text: bool = False) -> Leaf:
    """The form of single values in a column of *dtype*; *as_text*: of anything, by its text."""
    if as_text:
        return Leaf(dtype, lambda value: _text(str(value)))
    if dtype.is_integer():
        bits = int(str(dtype).lstrip("UInt"))
        low, high = (0, 2**bits) if dtype.is_unsigned_integer() else (-(2 ** (bits - 1)), 2 ** (bits - 1))
        return Leaf(dtype, _checked(int, dtype, lambda value: low <= value < high))
    match dtype:
        case pl.Decimal():
            return Leaf(dtype, _checked(Decimal, dtype, _fits_decimal(dtype.precision or 38, dtype.scale)))
        case pl.Enum():
            known = frozenset(dtype.categories)
            return Leaf(dtype, _checked(str, dtype, known.__contains__))
        case pl.Datetime():
            return Leaf(dtype, _checked(datetime, dtype, _fits_datetime(dtype)))
        case pl.Duration():
            return Leaf(dtype, _checked(timedelta, dtype, _fits_ticks(dtype.time_unit)))
    kinds: dict[type[pl.DataType], Pack] = {
        pl.Boolean: _checked(bool, dtype),
        pl.Float32: _checked(float, dtype),
        pl.Float64: _checked(float, dtype),
        pl.String: _text,
        pl.Categorical: _text,
        pl.Binary: _checked(bytes, dtype),
        pl.Date: _checked(date, dtype, lambda value: not isinstance(value, datetime)),
        pl.Time: _checked(time, dtype, lambda value: value.tzinfo is None),
        pl.Null: _checked(type(None), dtype),
    }
    return Leaf(dtype, kinds.get(type(dtype), _same))


def _checked(kind: type, dtype: pl.DataType, fits: Callable[[Any], bool] | None = None) -> Pack:
    """Pass values of *kind* that fit; the value of an enumeration's member stands for the member."""

    def into(value: Any) -> Any:
        if isinstance(value, Enum):
            value = value.value
        if not isinstance(value, kind) and not (kind is float and isinstance(value, int)):
            raise Unfit(f"{type(value).__name__} does not fit {dtype}")
        if fits is not None and not fits(value):
            raise Unfit(f"{_short(value)} does not fit {dtype}")
        return value

    return into


def _text(value: Any) -> str:
    if isinstance(value, Enum):
        value = value.value
    if not isinstance(value, str):
        raise Unfit(f"{type(value).__name__} does not fit String")
    if not value.isascii() and any("\ud800" <= sign <= "\udfff" for sign in value):
        raise Unfit("a lone surrogate is no Unicode text")
    return value


def _fits_decimal(precision: int, scale: int) -> Callable[[Decimal], bool]:
    def fits(value: Decimal) -> bool:
        if not value.is_finite():
            return False
        _, digits, exponent = value.as_tuple()
        assert isinstance(exponent, int)
        if not any(digits):
            return True
        if len(digits) + exponent > precision - scale:  # too large, however many zeros lead
            return len(str(abs(int(value)))) <= precision - scale and exponent <= 0
        cut = -scale - exponent
        return cut <= 0 or not any(digits[-cut:])

    return fits


def _fits_datetime(dtype: pl.Datetime) -> Callable[[datetime], bool]:
    in_ticks = _fits_ticks(dtype.time_unit)

    def fits(value: datetime) -> bool:
        if (value.tzinfo is None) is not (dtype.time_zone is None):
            return False
        return in_ticks((value if value.tzinfo else value.replace(tzinfo=UTC)) - EPOCH)

    return fits


def _fits_ticks(unit: str) -> Callable[[timedelta], bool]:
    def fits(value: timedelta) -> bool:
        ticks = value // MICROSECOND * TICKS[unit]
        return -INT64 <= ticks < INT64 and not (unit == "ms" and ticks % 1000)

    return fits


def _null_first(value: Any) -> tuple[bool, Any]:
    return (value is not None, str(value) if isinstance(value, dict | list) else value)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 50 else text[:47] + "..."


def _same(value: Any) -> Any:
    return value
