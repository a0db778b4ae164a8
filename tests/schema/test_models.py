"""Polars schemas of pydantic models, and models of schemas, for every type that a user would write."""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, NewType
from uuid import UUID

import polars as pl
import pytest
from hypothesis import given
from polars.testing.parametric import dtypes
from pydantic import (
    UUID4,
    AliasChoices,
    AliasPath,
    AnyUrl,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    NaiveDatetime,
    PositiveInt,
    RootModel,
    SecretStr,
    computed_field,
    conint,
    constr,
    create_model,
)

import greendata
from greendata.errors import DuplicateColumn, NoColumnForm, NotAModel


class Colour(Enum):
    RED = "red"
    GREEN = "green"


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


class Word(StrEnum):
    YES = "yes"


class Place(BaseModel):
    zip: str = Field(alias="zipCode")
    number: int


class Tags(RootModel[list[str]]):
    pass


UserId = NewType("UserId", int)

DTYPES: list[tuple[Any, pl.DataType]] = [
    (int, pl.Int64()),
    (float, pl.Float64()),
    (bool, pl.Boolean()),
    (str, pl.String()),
    (bytes, pl.Binary()),
    (Decimal, pl.Decimal(38, 18)),
    (Annotated[Decimal, Field(max_digits=10, decimal_places=2)], pl.Decimal(10, 2)),
    (Annotated[Decimal, Field(decimal_places=2)] | None, pl.Decimal(38, 2)),
    (Annotated[Decimal, Field(max_digits=5)], pl.Decimal(38, 18)),
    (date, pl.Date()),
    (datetime, pl.Datetime("us")),
    (NaiveDatetime, pl.Datetime("us")),
    (AwareDatetime, pl.Datetime("us", "UTC")),
    (time, pl.Time()),
    (timedelta, pl.Duration("us")),
    (UUID, pl.String()),
    (UUID4, pl.String()),
    (Path, pl.String()),
    (AnyUrl, pl.String()),
    (ipaddress.IPv4Address, pl.String()),
    (Colour, pl.Enum(["red", "green"])),
    (Word, pl.Enum(["yes"])),
    (Size, pl.Int64()),
    (Literal["b", "a"], pl.Enum(["b", "a"])),
    (Literal["a", None], pl.Enum(["a"])),
    (Literal[1, 2], pl.Int64()),
    (Literal[True], pl.Boolean()),
    (Literal[Colour.RED], pl.Enum(["red"])),
    (type(None), pl.Null()),
    (int | None, pl.Int64()),
    (list[int], pl.List(pl.Int64())),
    (list[list[str | None]], pl.List(pl.List(pl.String()))),
    (Sequence[int], pl.List(pl.Int64())),
    (deque[int], pl.List(pl.Int64())),
    (set[str], pl.List(pl.String())),
    (frozenset[date], pl.List(pl.Date())),
    (tuple[int, ...], pl.List(pl.Int64())),
    (tuple[float, float], pl.Array(pl.Float64(), 2)),
    (tuple[int, str], pl.Struct({"field_0": pl.Int64(), "field_1": pl.String()})),
    (dict[str, int], pl.List(pl.Struct({"key": pl.String(), "value": pl.Int64()}))),
    (Mapping[int, list[str]], pl.List(pl.Struct({"key": pl.Int64(), "value": pl.List(pl.String())}))),
    (Place, pl.Struct({"zipCode": pl.String(), "number": pl.Int64()})),
    (list[Place], pl.List(pl.Struct({"zipCode": pl.String(), "number": pl.Int64()}))),
    (Tags, pl.List(pl.String())),
    (UserId, pl.Int64()),
    (PositiveInt, pl.Int64()),
    (conint(ge=0), pl.Int64()),
    (constr(pattern="a"), pl.String()),
    (Annotated[int, pl.UInt8], pl.UInt8()),
    (Annotated[int, Field(ge=0), pl.UInt8()] | None, pl.UInt8()),
    (list[Annotated[float, pl.Float32()]], pl.List(pl.Float32())),
    (Annotated[list[int], pl.List(pl.Int8())], pl.List(pl.Int8())),
    (Annotated[UUID | int, pl.String], pl.String()),
    (Annotated[AwareDatetime, pl.Datetime("ms", "Europe/Paris")], pl.Datetime("ms", "Europe/Paris")),
]


@pytest.mark.parametrize(("annotation", "dtype"), DTYPES, ids=lambda case: str(case)[:40])
def test_every_type_has_its_column(annotation: Any, dtype: pl.DataType) -> None:
    model = create_model("Model", a=(annotation, ...))
    assert greendata.schema_of(model) == pl.Schema({"a": dtype})


class Odd:
    pass


WITHOUT_COLUMN: list[tuple[Any, str]] = [
    (Callable[[int], int], "pydantic has no JSON for it; give its type a validator and a serializer"),
    (type[int], "pydantic has no JSON for it; give its type a validator and a serializer"),
    (Odd, "pydantic has no schema for it; give its type a validator and a serializer"),
    (Iterable[int], "its values can be read only once; write list[...] for its type"),
    (InstanceOf[Place], "only instances are valid, which no column gives; drop InstanceOf"),
    (Literal[b"a", 1], "b'a' is not what pydantic makes of its JSON; choose a dtype"),
    (dict[Place, int], "a struct cannot be the key of a dict again; write list[tuple[key, value]] for its type"),
    (dict[tuple[Place, int], int], "a struct cannot be the key of a dict again"),
    (SecretStr, "a secret has to be a column of its own; write Annotated[SecretStr, polars.String]"),
    (dict[str, SecretStr], "a secret has to be a column of its own; write Annotated[SecretStr, polars.String]"),
    (SecretStr | int, "it contains a secret, which no JSON shows; write Annotated[SecretStr, polars.String]"),
    (
        Annotated[Place, pl.Struct({"x": pl.Int8})],
        "not Struct({'x': Int8}); write the dtypes of the fields into the model",
    ),
]


@pytest.mark.parametrize(("annotation", "reason"), WITHOUT_COLUMN, ids=lambda case: str(case)[:40])
def test_a_type_without_a_column_names_the_field(annotation: Any, reason: str) -> None:
    inner = create_model("Inner", __config__={"arbitrary_types_allowed": True}, deep=(annotation, ...))
    model = create_model("Outer", fine=(int, 0), nested=(list[inner], ...))  # type: ignore[valid-type]
    with pytest.raises(NoColumnForm) as caught:
        greendata.schema_of(model)
    assert caught.value.field.startswith("Outer.nested.deep")
    assert reason in str(caught.value)
    assert isinstance(caught.value, TypeError)


def test_a_model_without_fields_has_no_columns() -> None:
    with pytest.raises(NoColumnForm, match="Empty: Empty cannot be stored in a column: it has no fields; give it a fi"):
        greendata.schema_of(create_model("Empty"))


def test_columns_have_the_name_of_the_validation_alias() -> None:
    class Person(BaseModel):
        model_config = ConfigDict(alias_generator=str.upper, populate_by_name=True)
        a: int
        b: int = Field(alias="bee")
        c: int = Field(validation_alias=AliasChoices("sea", "c1"), serialization_alias="out")
        d: int = Field(validation_alias=AliasPath("dee"))

    assert greendata.schema_of(Person).names() == ["A", "bee", "sea", "dee"]


def test_aliases_that_cannot_be_columns() -> None:
    class Deep(BaseModel):
        a: int = Field(validation_alias=AliasPath("x", 0))

    class Twice(BaseModel):
        a: int = Field(alias="x")
        b: int = Field(alias="x")
        c: int = 0

    with pytest.raises(NoColumnForm, match=r"Deep\.a: .* its alias is a path into another value; give it the name of"):
        greendata.schema_of(Deep)
    with pytest.raises(DuplicateColumn) as caught:
        greendata.schema_of(Twice)
    assert str(caught.value) == "2 fields of Twice have the column 'x': a, b; give each a different alias"
    assert (caught.value.model, caught.value.column, caught.value.fields) == ("Twice", "x", ("a", "b"))
    assert isinstance(caught.value, ValueError)


def test_computed_fields_are_columns() -> None:
    class Box(BaseModel):
        side: int

        @computed_field  # type: ignore[prop-decorator]
        @property
        def volume(self) -> int:
            return self.side**3

    assert greendata.schema_of(Box) == pl.Schema({"side": pl.Int64, "volume": pl.Int64})
    assert greendata.validate(pl.DataFrame({"side": [2, 3]}), Box)["volume"].to_list() == [8, 27]
    again = greendata.validate(greendata.validate(pl.DataFrame({"side": [2]}), Box), Box)
    assert again.rows() == [(2, 8)]


@pytest.mark.parametrize("thing", [int, "User", None, Place(zipCode="1", number=1), list[int], Tags], ids=repr)
def test_what_is_not_a_model(thing: Any) -> None:
    with pytest.raises(NotAModel, match="expected a pydantic model class"):
        greendata.schema_of(thing)


def test_forward_references_are_resolved() -> None:
    class Late(BaseModel):
        model_config = ConfigDict(defer_build=True)
        place: Place
        tags: list[str] = []

    assert greendata.schema_of(Late).names() == ["place", "tags"]
    assert greendata.validate(pl.DataFrame({"place": [{"zipCode": "1", "number": 2}]}), Late).height == 1


# -- models of schemas ----------------------------------------------------------------------------------

NO_FIELD = (pl.Object, pl.Extension)


@given(dtype=dtypes(excluded_dtypes=NO_FIELD))
def test_a_schema_is_that_of_its_model(dtype: pl.DataType) -> None:
    schema = pl.Schema({"a": dtype, "unit price": dtype})
    assert greendata.schema_of(greendata.model_of(schema)) == schema


NAMES = (
    "class",
    "_private",
    "copy",
    "model_dump",
    "schema",
    "1st",
    "unit price",
    "",
    "naïve",
    "column_0",
    "self",
    "in",
)


def test_columns_whose_names_cannot_be_field_names() -> None:
    schema = pl.Schema(dict.fromkeys(NAMES, pl.Int64))
    model = greendata.model_of(schema, "Odd")
    assert model.__name__ == "Odd"
    assert greendata.schema_of(model) == schema
    df = pl.DataFrame({name: [number, None] for number, name in enumerate(NAMES)})
    assert greendata.validate(df, model).equals(df)


def test_a_dtype_without_a_type() -> None:
    for dtype in (pl.Object(), pl.List(pl.Object()), pl.Struct([])):
        with pytest.raises(
            NoColumnForm,
            match=r"Row\.a: .* pydantic has no type for it; (cast\(\) it first|keep its name and its rows), or drop",
        ):
            greendata.model_of({"a": dtype})


def test_a_mapping_of_dtype_classes_is_accepted() -> None:
    model = greendata.model_of({"a": pl.UInt8, "b": pl.List(pl.Int16)})
    assert greendata.schema_of(model) == pl.Schema({"a": pl.UInt8, "b": pl.List(pl.Int16)})
    assert not greendata.filter_valid(pl.DataFrame({"a": [256], "b": [[1]]}), model).good.height
