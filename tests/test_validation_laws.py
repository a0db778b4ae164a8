"""The law: what greendata says of a frame is what pydantic says of its rows, value by value, lax and strict."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, Optional
from uuid import UUID

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import UUID4, AwareDatetime, Field, NaiveDatetime

from tests.laws import COLUMNS, columns, holds, model_with

STRICT = st.sampled_from((None, True, False))


class Colour(Enum):
    RED = "red"
    GREEN = "green"


class Number(IntEnum):
    ONE = 1
    TEN = 10


LEAVES: Mapping[str, tuple[Any, ...]] = {
    "int": (int, Annotated[int, Field(ge=0)], Annotated[int, Field(gt=-1, lt=1000, multiple_of=5)], Annotated[int, Field(strict=True, le=2**70)], Annotated[int, pl.UInt8], Annotated[int, pl.Int128()]),
    "float": (float, Annotated[float, Field(ge=0)], Annotated[float, Field(le=1, gt=-1)], Annotated[float, Field(allow_inf_nan=False)], Annotated[float, Field(multiple_of=0.5)], Annotated[float, Field(strict=True)]),
    "bool": (bool, Annotated[bool, Field(strict=True)]),
    "str": (str, Annotated[str, Field(min_length=2, max_length=3)], Annotated[str, Field(pattern=r"^[a-zA-Z]\w*$")], Annotated[str, Field(pattern=r"\d|^$")], Annotated[str, pl.Categorical()]),
    "bytes": (bytes, Annotated[bytes, Field(min_length=1, max_length=3)]),
    "decimal": (Decimal, Annotated[Decimal, Field(max_digits=5, decimal_places=2)], Annotated[Decimal, Field(ge=0, decimal_places=3)], Annotated[Decimal, Field(max_digits=4)], Annotated[Decimal, Field(lt=Decimal("99.99"))], Annotated[Decimal, Field(max_digits=2, decimal_places=2)]),
    "date": (date, Annotated[date, Field(ge=date(2000, 1, 1), lt=date(2024, 2, 29))]),
    "datetime": (datetime, NaiveDatetime, AwareDatetime, Annotated[datetime, Field(gt=datetime(2000, 1, 1))], Annotated[NaiveDatetime, pl.Datetime("ms")], Annotated[AwareDatetime, pl.Datetime("us", "Europe/Paris")]),
    "time": (time, Annotated[time, Field(lt=time(12))]),
    "timedelta": (timedelta, Annotated[timedelta, Field(ge=timedelta(0))]),
    "uuid": (UUID, UUID4),
    "enum": (Colour, Number),
    "literal": (Literal["red", "abc"], Literal[1, 7], Literal[True], Literal["red", None]),
}


@pytest.mark.parametrize("kind", LEAVES)
@given(data=st.data(), strict=STRICT)
@settings(max_examples=150)
def test_values_of_one_column(kind: str, data: st.DataObject, strict: bool | None) -> None:
    annotation = data.draw(st.sampled_from(LEAVES[kind]))
    if data.draw(st.booleans()):
        annotation = Optional[annotation]  # noqa: UP045 - of a type made at run time
    series = data.draw(COLUMNS[data.draw(st.sampled_from([*COLUMNS]))])
    holds(series.to_frame("a") if False else pl.DataFrame({"a": series}), model_with(annotation), strict=strict)
