"""A million rows against a model: `greendata.validate` and pydantic on the frame's dicts."""

from __future__ import annotations

import random
from time import perf_counter
from typing import Annotated

import polars as pl
from pydantic import BaseModel, Field, TypeAdapter, field_validator

import greendata
from tests.bench.rows import Row, interleaved, ratio

__all__ = ("rows",)

HEIGHT = 1_000_000  # rows
ROUNDS = 3


class Order(BaseModel):
    id: Annotated[int, Field(ge=0)]
    customer: Annotated[str, Field(min_length=1, max_length=20)]
    price: Annotated[float, Field(gt=0)]
    country: Annotated[str, Field(pattern="^[A-Z]{2}$")]
    paid: bool
    note: str | None = None


class Checked(Order):
    @field_validator("customer")
    @classmethod
    def known(cls, customer: str) -> str:
        if customer == "nobody":
            raise ValueError("nobody")
        return customer


def rows() -> list[Row]:
    """The figures of the bench's table."""
    df = _orders()
    what = f"validate {HEIGHT:,} rows, 6 columns, 4 constraints"
    return [_row(what, df, Order, 25), _row(what + ", a validator of one", df, Checked, 3)]


def _row(what: str, df: pl.DataFrame, model: type[Order], bound: float) -> Row:
    adapter = TypeAdapter(list[model])  # type: ignore[valid-type]
    times = interleaved(
        {
            "ours": lambda: _seconds(lambda: greendata.validate(df, model)),
            "pydantic": lambda: _seconds(lambda: adapter.validate_python(df.to_dicts())),
        },
        ROUNDS,
    )
    faster = 1 / ratio(times["ours"], times["pydantic"])
    ours, theirs = (f"{min(times[name]) * 1000:.0f} ms" for name in ("ours", "pydantic"))
    return Row(what, ours, theirs + " TypeAdapter", faster, "x", bound, at_most=False)


def _seconds(call: object) -> float:
    begun = perf_counter()
    call()  # type: ignore[operator]
    return perf_counter() - begun


def _orders() -> pl.DataFrame:
    dice = random.Random(0)
    return pl.DataFrame(
        {
            "id": range(HEIGHT),
            "customer": [f"customer {dice.randrange(10**6)}" for _ in range(HEIGHT)],
            "price": [dice.random() + 0.01 for _ in range(HEIGHT)],
            "country": [dice.choice(("FR", "DE", "JP", "BR")) for _ in range(HEIGHT)],
            "paid": [dice.random() < 0.5 for _ in range(HEIGHT)],
            "note": [None if dice.random() < 0.9 else "by hand" for _ in range(HEIGHT)],
        }
    )
