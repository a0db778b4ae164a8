"""The law of validation, with strategies for columns: the result for a frame is the same as pydantic's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Any
from uuid import UUID

import polars as pl
from hypothesis import strategies as st
from pydantic import AliasChoices, BaseModel, TypeAdapter, ValidationError, create_model
from pydantic.fields import FieldInfo

import greendata

__all__ = ("COLUMNS", "TEXTS", "columns", "holds", "model_with")

INTS = (0, 1, -1, 2, 7, 10, 126, 255, 1000, 2**31, 2**53, 2**53 + 1, 2**62, 2**63 - 1, -(2**63), 2**64 - 1, 2**100)
FLOATS = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    2.5,
    1e15,
    2.0**53,
    2.0**63,
    -(2.0**63),
    1e300,
    1e-300,
    math.nan,
    math.inf,
    -math.inf,
)
WORDS = """
    a ab abc Abc ABC 0 1 -1 +1 01 007 -0 1_000 1__0 1.0 1.5 -1.50 .5 5. 1e3 1E-3 0x10 9223372036854775807
    9223372036854775808 -9223372036854775809 999999999999999999 111111111111111111111111111111 0.1 0.30000000000000004
    123456789012345.678901234567891 179769313486231570000 1e400 nan NaN inf -Infinity true True TRUE t T yes Y on ON
    off no N false f oN 2024-02-29 2023-02-29 2024-1-1 0000-01-01 0001-01-01 9999-12-31 20240101 2024-01-01Z
    2024-13-01 2024-02-29T12:30:59 2024-02-29t12:30:59 2024-02-29T12:30:60 2024-02-29T24:00:00 2024-02-29T12:30
    2024-02-29T12:30:59.1 2024-02-29T12:30:59Z 2024-02-29T12:30:59+02:00 2024-02-29_12:30:59 2024-02-29T00:00:00
    1704067200 -1 12:30 12:30:59.5 P1D 123e4567-e89b-12d3-a456-426614174000 123E4567-E89B-12D3-A456-426614174000
    123e4567e89b12d3a456426614174000 {123e4567-e89b-12d3-a456-426614174000} 123e4567-e89b-42d3-a456-426614174000
    123e4567-e89b-42d3-f456-426614174000 urn:uuid:123e4567-e89b-12d3-a456-426614174000 red green RED 1.10 100.00 -0.00
    1e-20 00000000000000000000000000000000000000000000000000
"""
TEXTS = (
    "",
    " ",
    " abc ",
    "\tab\n",
    "\xe9",
    "\xdf",
    "\u0130",
    "\u01c5",
    "\u03a3",
    "\u0391\u03a3",
    "\xa0ab\xa0",
    "\u200bab",
    "\x1cab",
    "abc\n",
    "x\ny",
    "\u0663",
    "\uff11",
    "\U0001f642",
    "e\u0301",
    "\u2028",
    "a\x00",
    " 1 ",
    "1" * 400,
    "\u017f",
    " true",
    "2024-02-29 12:30:59",
    "2024-02-29 12:30:59.123456",
    "2024-02-29 12:30:59.1234567",
    "0000-01-01 00:00:00",
    "2024-02-30 00:00:00",
    "1 day",
    "2024-02-29 12:30:59.123456789",
    "1600-01-01 00:00:00.000000001",
    "2262-04-11 23:47:16.854775807",
    "2262-04-11 23:47:16.854775808",
    "12:30:59.1234567",
    "23:59:60",
    "2024-02-29T12:30:59.123456789Z",
    "2024-02-29 12:30:59.123+05:45",
    "2024-02-30T12:30:59+05:45",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "2024-02-29T12:30:59-00:00",
    "2024-02-29T12:30:59+24:00",
    "2024-02-29T24:00:00+02:00",
    "1600-01-01T00:00:00.000000001Z",
    "25:00:00",
    "PT0.0000019S",
    "-P1DT2H3M4.5S",
    "P1DT25H",
    "P999999999D",
    "-P106751DT23H47M16.854775808S",
    "PT",
    "PT.5S",
    "-0.00",
    "00.5",
    "12.",
    "123.45",
    *WORDS.split(),
)
MOMENTS = (
    datetime(1, 1, 1),
    datetime(1, 1, 1, 5),
    datetime(9999, 12, 31, 23, 59, 59, 999999),
    datetime(1969, 12, 31, 23, 59, 59, 999999),
    datetime(2024, 2, 29),
    datetime(2024, 2, 29, 12, 30, 59, 1),
    datetime(2024, 10, 27, 0, 30),
    datetime(2024, 10, 27, 1, 30),
)
DURATIONS = (
    timedelta(0),
    timedelta(days=-1),
    timedelta(microseconds=1),
    timedelta(days=100_000, seconds=1),
    timedelta(hours=1),
)
DECIMALS = tuple(
    map(Decimal, ("0", "1", "-1", "1.5", "1.50", "0.01", "99.99", "100", "123.45", "-0.001", "9999999", "0.001"))
)


def _some(*dtypes: Any, values: Any) -> st.SearchStrategy[pl.Series]:
    lists = st.lists(st.none() | values, max_size=5)
    return st.builds(
        lambda dtype, items: pl.Series("a", items, dtype=dtype, strict=False), st.sampled_from(dtypes), lists
    )


def _instants(*dtypes: pl.DataType) -> st.SearchStrategy[pl.Series]:
    """Datetimes, and integers as ticks, including the extremes."""
    ticks = st.integers(-(2**63), 2**63 - 1) | st.integers(-(10**6), 10**6) | st.sampled_from((-(2**63), 2**63 - 1))
    by_tick = st.lists(st.none() | ticks, max_size=5)
    of_moments = st.lists(st.none() | st.sampled_from(MOMENTS) | st.datetimes(), max_size=5)
    raw = st.builds(
        lambda dtype, items: pl.Series("a", items, dtype=pl.Int64).cast(dtype), st.sampled_from(dtypes), by_tick
    )
    usual = st.builds(
        lambda dtype, items: _zoned(pl.Series("a", items, dtype=pl.Datetime("us")), dtype),
        st.sampled_from(dtypes),
        of_moments,
    )
    return usual | raw


def _zoned(moments: pl.Series, dtype: pl.Datetime) -> pl.Series:
    in_unit = moments.cast(pl.Datetime(dtype.time_unit), strict=False)
    return in_unit.dt.replace_time_zone("UTC").dt.convert_time_zone(dtype.time_zone) if dtype.time_zone else in_unit


PAIRS = tuple(  # the inner types of the columns for dicts
    pl.Struct({"key": key, "value": value})
    for key in (pl.String, pl.Int64)
    for value in (pl.Int64, pl.String, pl.Float64)
)
ZONES = (None, "UTC", "Europe/Paris", "Asia/Kathmandu")
COLUMNS: Mapping[str, st.SearchStrategy[pl.Series]] = {
    "integers": _some(
        pl.Int8,
        pl.Int16,
        pl.Int32,
        pl.Int64,
        pl.UInt8,
        pl.UInt64,
        pl.Int128,
        values=st.sampled_from(INTS) | st.integers(),
    ),
    "floats": _some(
        pl.Float32, pl.Float64, values=st.sampled_from(FLOATS) | st.floats() | st.integers(-9, 9).map(float)
    ),
    "booleans": _some(pl.Boolean, values=st.booleans()),
    "texts": _some(pl.String, values=st.sampled_from(TEXTS) | st.text(max_size=5)),
    "categories": _some(
        pl.Categorical,
        pl.Enum(["red", "green", "1", " a", "abc"]),
        values=st.sampled_from(["red", "green", "1", " a", "abc"]),
    ),
    "bytes": _some(pl.Binary, values=st.binary(max_size=4)),
    "dates": _some(
        pl.Int32, values=st.integers(-800_000, 3_000_000) | st.sampled_from((-719162, 2932896, 2**31 - 1, 0))
    ).map(lambda s: s.cast(pl.Date)),
    "moments": _instants(*(pl.Datetime(unit, zone) for unit in ("ms", "us", "ns") for zone in ZONES)),
    "times": _some(
        pl.Int64, values=st.integers(0, 86_400 * 10**9 - 1) | st.integers(0, 86_399).map(lambda s: s * 10**9)
    ).map(lambda s: s.cast(pl.Time)),
    "durations": _some(*map(pl.Duration, ("ms", "us", "ns")), values=st.sampled_from(DURATIONS))
    | _some(pl.Int64, values=st.integers(-(2**63), 2**63 - 1)).map(lambda s: s.cast(pl.Duration("ms"))),
    "decimals": _some(
        pl.Decimal(10, 2), pl.Decimal(38, 20), pl.Decimal(5, 0), pl.Decimal(12, 5), values=st.sampled_from(DECIMALS)
    ),
    "nulls": _some(pl.Null, values=st.none()),
}


@st.composite
def columns(draw: st.DrawFn, height: int, kinds: tuple[str, ...] = tuple(COLUMNS)) -> pl.Series:
    """Draw a column of *height* rows, of any dtype."""
    found = draw(COLUMNS[draw(st.sampled_from(kinds))])
    return found.extend_constant(None, height - found.len()) if found.len() < height else found.head(height)


@lru_cache
def model_with(annotation: Any, **config: Any) -> type[BaseModel]:
    """Return a model with one field, ``a``, of this type."""
    return create_model("Model", __config__=config or None, a=(annotation, ...))


def holds(df: pl.DataFrame, model: type[BaseModel], *, strict: bool | None = None) -> None:
    """Assert that *df* validates as its dicts do in pydantic: the same failures, reasons and values."""
    ours = greendata.filter_valid(df, model, strict=strict)
    assert ours.good.schema.items() >= greendata.schema_of(model).items()
    told = {*ours.failures.filter(pl.col("rule") != "column_form").select("row", "column", "rule", "message").rows()}
    unfit = ours.failures.filter(pl.col("rule") == "column_form")
    readable = df.filter(
        ~pl.int_range(pl.len()).is_in(unfit.filter(pl.col("message").str.contains("Python has no"))["row"].implode())
    )
    if readable.height < df.height:  # the other rows cannot be passed to pydantic
        return holds(readable, model, strict=strict)
    if not df.height:
        assert set(ours.failures["row"]) <= {None}  # only whole columns are checked
        return None
    forms = greendata.schema_of(model)
    dicts = [{name: _natural(value, forms.get(name)) for name, value in row.items()} for row in df.to_dicts()]
    dicts = dicts if df.width else [{} for _ in range(df.height)]
    expected = _failures(dicts, model, strict=strict)
    assert told == expected
    rows = iter(ours.good.iter_rows(named=True))
    for number, row in enumerate(dicts):
        if any(number == failing for failing, *_ in expected):
            continue
        valid = model.__pydantic_validator__.validate_python(row, strict=strict)
        values = {name_of(info, name): plain(getattr(valid, name)) for name, info in model.model_fields.items()}
        for name, value in values.items():
            is_unfit = (number, name) in {*unfit.select("row", "column").rows()}
            assert is_unfit is not _fits(value, greendata.schema_of(model)[name]), (name, value)
        if number not in unfit["row"]:
            mine = next(rows)
            assert all(_alike(mine[name], value) for name, value in values.items()), (mine, values)
    assert next(rows, None) is None
    return None


def _natural(value: Any, form: pl.DataType | None) -> Any:
    """Return a stored value as a Python value: the pairs of a dict as a dict, the struct of a tuple as a tuple.

    Pairs that have one key twice remain a list: a dict would lose a value.
    """
    if isinstance(form, pl.Struct) and isinstance(value, dict) and [*value] == [*dict(form)] and "field_0" in value:
        return tuple(value.values())
    is_of_pairs = isinstance(form, pl.List) and form.inner in PAIRS
    if is_of_pairs and isinstance(value, list) and all(item and item.keys() == {"key", "value"} for item in value):
        made = {pair["key"]: pair["value"] for pair in value}
        return made if len(made) == len(value) else value
    return value


def _failures(
    dicts: list[dict[str, Any]], model: type[BaseModel], *, strict: bool | None
) -> set[tuple[int, str | None, str, str]]:
    try:
        TypeAdapter(list[model]).validate_python(dicts, strict=strict)  # type: ignore[valid-type]
    except ValidationError as error:
        return {
            (int(found["loc"][0]), ".".join(map(str, found["loc"][1:])) or None, found["type"], found["msg"])
            for found in error.errors()
        }
    return set()


def name_of(field: FieldInfo, name: str) -> str:
    """Return the column of a field."""
    alias = field.validation_alias or name
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else str(alias)


def plain(value: Any) -> Any:
    """Return a valid value as it is stored in a column."""
    match value:
        case Enum():
            return value.value
        case UUID() | IPv4Address() | IPv6Address():
            return str(value)
        case BaseModel():
            return {name_of(info, name): plain(getattr(value, name)) for name, info in type(value).model_fields.items()}
        case dict():
            return [{"key": plain(key), "value": plain(item)} for key, item in value.items()]
        case set() | frozenset():
            return sorted(map(plain, value), key=lambda item: (item is not None, item != item, item))
        case tuple() if len({*map(type, value)}) > 1 and None not in value:
            return {f"field_{number}": plain(item) for number, item in enumerate(value)}
        case list() | tuple():
            return [plain(item) for item in value]
    return value


def _fits(value: Any, dtype: pl.DataType) -> bool:
    """Return True if a column of one value holds the value."""
    if isinstance(value, datetime) and (value.tzinfo is None) is not (dtype.time_zone is None):  # type: ignore[attr-defined]
        return False
    try:
        return _alike(pl.Series([value], dtype=dtype, strict=True).to_list()[0], value)
    except (
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
        TypeError,
        OverflowError,
        RuntimeError,
        ValueError,
    ):
        return False


def _alike(mine: Any, theirs: Any) -> bool:
    if isinstance(theirs, list):
        return len(mine) == len(theirs) and all(map(_alike, mine, theirs))
    if isinstance(theirs, dict):
        return mine.keys() == theirs.keys() and all(_alike(mine[key], item) for key, item in theirs.items())
    if isinstance(theirs, datetime) and isinstance(mine, datetime) and theirs.tzinfo and mine.tzinfo:
        return mine.astimezone(UTC) == theirs.astimezone(UTC)  # in UTC: between zones, ambiguous times are unequal
    same_kind = type(mine) is type(theirs) or isinstance(theirs, str)
    return same_kind and (mine == theirs or (mine != mine and theirs != theirs))
