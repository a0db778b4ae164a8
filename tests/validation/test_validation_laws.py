"""greendata and pydantic agree about every value, in lax and in strict mode: compare them on generated frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, Optional
from uuid import UUID

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    UUID4,
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NaiveDatetime,
    PlainValidator,
    ValidationInfo,
    WrapValidator,
    create_model,
)
from pydantic_core import PydanticCustomError

from tests.support.laws import COLUMNS, columns, holds, model_with

pytestmark = pytest.mark.once("patched")  # tests values only, which do not depend on patching

STRICT = st.sampled_from((None, True, False))


class Colour(Enum):
    RED = "red"
    GREEN = "green"


class Number(IntEnum):
    ONE = 1
    TEN = 10


LEAVES: Mapping[str, tuple[Any, ...]] = {
    "int": (
        int,
        Annotated[int, Field(ge=0)],
        Annotated[int, Field(gt=-1, lt=1000, multiple_of=5)],
        Annotated[int, Field(strict=True, le=2**70)],
        Annotated[int, pl.UInt8],
        Annotated[int, pl.Int128()],
    ),
    "float": (
        float,
        Annotated[float, Field(ge=0)],
        Annotated[float, Field(le=1, gt=-1)],
        Annotated[float, Field(allow_inf_nan=False)],
        Annotated[float, Field(multiple_of=0.5)],
        Annotated[float, Field(strict=True)],
    ),
    "bool": (bool, Annotated[bool, Field(strict=True)]),
    "str": (
        str,
        Annotated[str, Field(min_length=2, max_length=3)],
        Annotated[str, Field(pattern=r"^[a-zA-Z]\w*$")],
        Annotated[str, Field(pattern=r"\d|^$")],
        Annotated[str, pl.Categorical()],
    ),
    "bytes": (bytes, Annotated[bytes, Field(min_length=1, max_length=3)]),
    "decimal": (
        Decimal,
        Annotated[Decimal, Field(max_digits=5, decimal_places=2)],
        Annotated[Decimal, Field(ge=0, decimal_places=3)],
        Annotated[Decimal, Field(max_digits=4)],
        Annotated[Decimal, Field(lt=Decimal("99.99"))],
        Annotated[Decimal, Field(max_digits=2, decimal_places=2)],
    ),
    "date": (date, Annotated[date, Field(ge=date(2000, 1, 1), lt=date(2024, 2, 29))]),
    "datetime": (
        datetime,
        NaiveDatetime,
        AwareDatetime,
        Annotated[datetime, Field(gt=datetime(2000, 1, 1))],
        Annotated[NaiveDatetime, pl.Datetime("ms")],
        Annotated[NaiveDatetime, pl.Datetime("ns")],
        Annotated[NaiveDatetime, pl.Datetime("ns"), Field(ge=datetime(1677, 9, 22), lt=datetime(2024, 2, 29, 12))],
        Annotated[AwareDatetime, pl.Datetime("ns", "Europe/Paris")],
        Annotated[AwareDatetime, pl.Datetime("us", "Europe/Paris")],
    ),
    "time": (time, Annotated[time, Field(lt=time(12))]),
    "timedelta": (
        timedelta,
        Annotated[timedelta, Field(ge=timedelta(0))],
        Annotated[timedelta, pl.Duration("ms")],
        Annotated[timedelta, pl.Duration("ns")],
        Annotated[timedelta, pl.Duration("ns"), Field(gt=timedelta(microseconds=-1))],
    ),
    "uuid": (UUID, UUID4),
    "enum": (Colour, Number),
    "literal": (Literal["red", "abc"], Literal[1, 7], Literal[True], Literal["red", None]),
}


@pytest.mark.parametrize("kind", LEAVES)
@given(data=st.data(), strict=STRICT)
@settings(max_examples=100)
def test_values_of_one_column(kind: str, data: st.DataObject, *, strict: bool | None) -> None:
    annotation = _annotation(data, LEAVES[kind])
    series = unseen(data, COLUMNS[data.draw(st.sampled_from([*COLUMNS]))])
    holds(pl.DataFrame({"a": series}), model_with(annotation), strict=strict)


class Inner(BaseModel):
    x: Annotated[int, Field(ge=0)]
    y: str | None = None
    z: list[float] = Field(default_factory=list)


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, str_to_upper=True)
    x: Annotated[str, Field(max_length=3, pattern="^[A-Za-z]*$")] = Field(alias="ex")


class Careful(BaseModel):
    model_config = ConfigDict(strict=True)
    x: int


NESTED: Mapping[str, tuple[Any, ...]] = {
    "list": (
        list[int],
        list[str | None],
        Annotated[list[float], Field(min_length=1, max_length=2)],
        list[Annotated[int, Field(ge=1)]],
        list[list[int]],
        list[date | None],
        list[Inner],
    ),
    "set": (set[int], frozenset[str | None], Annotated[set[str], Field(min_length=2)], set[float], set[bool]),
    "tuple": (tuple[int, ...], tuple[int, int], tuple[int, str], tuple[str, str, str]),
    "dict": (dict[str, int], dict[int, str | None], Annotated[dict[str, float], Field(max_length=1)]),
    "model": (Inner, Closed, Careful, list[Closed], Careful | None),
}
SMALL = (
    pl.Int64,
    pl.Int8,
    pl.Float64,
    pl.String,
    pl.Boolean,
    pl.Date,
)


def _values(dtype: Any) -> st.SearchStrategy[Any]:
    """Return a few values of a dtype, including nulls, so that duplicates and lists of valid values are frequent."""
    match dtype:
        case pl.List() | pl.Array():
            size = dtype.size if isinstance(dtype, pl.Array) else None
            return st.none() | st.lists(_values(dtype.inner), min_size=size or 0, max_size=size or 3)
        case pl.Struct():
            return st.none() | st.fixed_dictionaries({field.name: _values(field.dtype) for field in dtype.fields})
    some: Mapping[Any, tuple[Any, ...]] = {
        pl.Int64: (0, 1, 2, -1),
        pl.Int8: (0, 1, 7),
        pl.Float64: (1.0, 2.0, 0.5, float("nan")),
        pl.String: ("a", "b", " c ", "1", "2", "", "abcd", "x1"),
        pl.Boolean: (True, False),
        pl.Date: (date(2024, 1, 1), date(2024, 2, 29)),
    }
    return st.sampled_from(some[dtype]) | st.sampled_from((*some[dtype], None))


def _structs(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.sampled_from(
        (("x",), ("x", "y"), ("x", "y", "z"), ("ex",), ("ex", "w"), ("x", "w"), ("field_0", "field_1"))
    )
    return names.flatmap(
        lambda found: st.tuples(*(inner for _ in found)).map(
            lambda kinds: pl.Struct(dict(zip(found, kinds, strict=True)))
        )
    )


LEAF_DTYPES = st.sampled_from(SMALL)
PAIRS = st.tuples(LEAF_DTYPES, LEAF_DTYPES | _structs(LEAF_DTYPES)).map(
    lambda kinds: pl.List(pl.Struct({"key": kinds[0], "value": kinds[1]}))
)
LISTS = (
    LEAF_DTYPES.map(pl.List) | LEAF_DTYPES.map(lambda dtype: pl.Array(dtype, 2)) | _structs(LEAF_DTYPES).map(pl.List)
)
NESTED_DTYPES: Mapping[str, st.SearchStrategy[Any]] = {
    "list": LISTS | LEAF_DTYPES.map(lambda dtype: pl.List(pl.List(dtype))),
    "set": LISTS,
    "tuple": LISTS | _structs(LEAF_DTYPES),
    "dict": PAIRS | _structs(LEAF_DTYPES),
    "model": _structs(LEAF_DTYPES | LEAF_DTYPES.map(pl.List)) | _structs(LEAF_DTYPES).map(pl.List),
}


@pytest.mark.parametrize("kind", NESTED)
@given(data=st.data(), strict=STRICT)
@settings(max_examples=100)
def test_values_of_a_nested_column(kind: str, data: st.DataObject, *, strict: bool | None) -> None:
    annotation = _annotation(data, NESTED[kind])
    dtype = data.draw(NESTED_DTYPES[kind])
    values = data.draw(st.lists(_values(dtype), max_size=4))
    holds(pl.DataFrame({"a": pl.Series(values, dtype=dtype)}), model_with(annotation), strict=strict)


CONFIGS: tuple[Mapping[str, Any], ...] = (
    {"str_strip_whitespace": True},
    {"str_to_lower": True, "str_min_length": 2},
    {"str_to_upper": True, "str_max_length": 3},
    {"strict": True},
    {"coerce_numbers_to_str": True},
    {"allow_inf_nan": False},
    {"regex_engine": "python-re"},
    {"use_enum_values": True},
    {"val_temporal_unit": "milliseconds"},
)


@given(data=st.data(), strict=STRICT)
@settings(max_examples=100)
def test_configurations_of_a_model(data: st.DataObject, *, strict: bool | None) -> None:
    config = data.draw(st.sampled_from(CONFIGS))
    types = (str, Annotated[str, Field(pattern="^[a-zA-Z]")], float, list[str], Colour, datetime, Decimal)
    model = model_with(data.draw(st.sampled_from(types)), **config)
    holds(pl.DataFrame({"a": unseen(data, columns(5))}), model, strict=strict)


class Row(BaseModel):
    id: Annotated[int, Field(ge=0)]
    name: Annotated[str, Field(max_length=3)] = Field(alias="fullName")
    price: Decimal | None = None
    on: date = date(2024, 1, 1)
    kind: Literal["red", "a"] = "a"
    ok: bool = True


class Forbidding(Row):
    model_config = ConfigDict(extra="forbid")


@given(data=st.data(), strict=STRICT)
@settings(max_examples=100)
def test_rows_of_several_columns(data: st.DataObject, *, strict: bool | None) -> None:
    names = data.draw(
        st.lists(st.sampled_from(("id", "fullName", "price", "on", "kind", "ok", "name", "more")), unique=True)
    )
    height = data.draw(st.integers(1, 4))
    likely = {"id": "integers", "price": "decimals", "on": "dates", "kind": "categories", "ok": "booleans"}
    likely |= dict.fromkeys(("fullName", "name", "more"), "texts")
    any_kind = {name: data.draw(st.booleans()) for name in names if name not in {"name", "more"}}
    kinds = {name: tuple(COLUMNS) if any_kind.get(name) else (likely[name],) for name in names}
    df = pl.DataFrame({name: unseen(data, columns(height, kinds[name])) for name in names})
    df = df if names else pl.DataFrame(height=height)
    holds(df, data.draw(st.sampled_from((Row, Forbidding))), strict=strict)


def _checked(value: Any) -> Any:
    """A validator that rejects some values and changes others."""
    if value in (1, "a", -1.0, [1]):
        raise ValueError("not this one")
    if value in (2, "b"):
        raise PydanticCustomError("own_rule", "no {what}", {"what": "b"})
    assert value != "", "empty"
    return value + value if isinstance(value, str) else value


def _by_row(value: Any, info: ValidationInfo) -> Any:
    return _checked(value) if "id" in info.data else value


def _wrapped(value: Any, handler: Callable[[Any], Any]) -> Any:
    return handler(value) if value == 7 else _checked(handler(_checked(value)))


def _plain(value: Any) -> int:
    """A validator that replaces the validation of its field."""
    if not isinstance(value, int):
        raise ValueError("no integer")
    return int(_checked(value))


VALIDATORS = (AfterValidator(_checked), BeforeValidator(_checked), WrapValidator(_wrapped))
OF_INTS = (*VALIDATORS, PlainValidator(_plain))
BY_ROW = AfterValidator(_by_row)
CHECKED: tuple[tuple[Any, tuple[Any, ...]], ...] = (  # types, and dtypes of columns that may hold their values
    (int, (pl.Int64, pl.Int8, pl.String, pl.Float64)),
    (str, (pl.String,)),
    (float | None, (pl.Float64, pl.Int64)),
    (date, (pl.Date,)),
    (Decimal, (pl.Int64, pl.String)),
    (Annotated[str, Field(max_length=2, strict=True)], (pl.String,)),
    (list[int], (pl.List(pl.Int64), pl.Array(pl.Int8, 2))),
    (dict[str, int], (pl.List(pl.Struct({"key": pl.String, "value": pl.Int64})),)),
    (Inner, (pl.Struct({"x": pl.Int64, "y": pl.String}),)),
    (list[Closed], (pl.List(pl.Struct({"ex": pl.String})),)),
    (tuple[int, str], (pl.Struct({"field_0": pl.Int64, "field_1": pl.String}),)),
)


@st.composite
def _fields(draw: st.DrawFn, name: str) -> tuple[Any, Any, Any]:
    """Return a field with a validator for its value or for a part of it, its default, and the dtype of a column."""
    by_row = draw(st.integers(0, 9)) == 7
    of_ints = BY_ROW if by_row else draw(st.sampled_from(OF_INTS))
    of_any = BY_ROW if by_row else draw(st.sampled_from(VALIDATORS))
    number = Annotated[int, of_ints]
    deep = create_model("Deep", x=(number, ...))
    ints = ((number, CHECKED[0][1]), (list[number], (pl.List(pl.Int64),)), (deep, (pl.Struct({"x": pl.Int64}),)))  # type: ignore[valid-type]
    checked, dtypes = draw(st.sampled_from((*ints, *((Annotated[kind, of_any], dtypes) for kind, dtypes in CHECKED))))
    annotation = Optional[checked] if draw(st.booleans()) else checked  # noqa: UP045 - of a type made at run time
    dtype = draw(st.sampled_from(dtypes) if draw(st.integers(0, 5)) else LEAF_DTYPES)
    default = draw(st.sampled_from((..., ..., ..., Field(alias=f"{name}x"), Field(1, validate_default=True), None)))
    return annotation, default, dtype


@given(data=st.data(), strict=st.sampled_from((None, None, True, False)))
@settings(max_examples=300)
def test_rows_with_column_checks(data: st.DataObject, *, strict: bool | None) -> None:
    drawn = {name: data.draw(_fields(name)) for name in data.draw(st.sampled_from(("a", "ab", "abc")))}
    fields = {name: (annotation, default) for name, (annotation, default, _) in drawn.items()}
    config = data.draw(st.sampled_from(({}, {}, {"extra": "forbid"}, {"extra": "allow"}, *CONFIGS)))
    base = create_model("Base", __config__=config or None, id=(int, ...), name=(str, "c"))
    model = create_model("Model", __base__=base, **fields)  # type: ignore[call-overload]
    height = data.draw(st.integers(1, 6))
    ids = st.sampled_from((0, 1, 2)) if strict or config.get("strict") else st.sampled_from(("0", "1", "2", " 3 ", "x"))
    df = pl.DataFrame({"id": data.draw(st.lists(ids, min_size=height, max_size=height))})
    for name, (_, default, dtype) in drawn.items():
        alias = getattr(default, "alias", None) or name
        if data.draw(st.integers(0, 9)):  # the frame has the column
            values = data.draw(st.lists(_values(dtype), min_size=height, max_size=height))
            df = df.with_columns(pl.Series(alias if data.draw(st.integers(0, 9)) else name, values, dtype=dtype))
    holds(df, model, strict=strict)


def _annotation(data: st.DataObject, types: tuple[Any, ...]) -> Any:
    """Return one of the *types*, or its union with None."""
    chosen = data.draw(st.sampled_from(types))
    return Optional[chosen] if data.draw(st.booleans()) else chosen  # noqa: UP045 - of a type made at run time


def unseen(data: st.DataObject, series: st.SearchStrategy[pl.Series]) -> pl.Series:
    """Draw without making the text of the value: Polars 2.0 panics for a date after the year 262 143."""
    drawn: pl.Series = data.draw(series.map(lambda values: lambda: values))()
    return drawn
