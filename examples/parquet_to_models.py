"""Read a Parquet file as pydantic models: columns are checked when the plan is built, rows when they are read.

The path is confined to a folder. The hub runs while the file is read and its rows become models.
"""

from __future__ import annotations

import tempfile
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated

import polars as pl
from pydantic import BaseModel, Field

from greendata import Frame, FrameInvalid, PathRefused
from greendata.errors import UnknownColumn

__all__ = ("Sale", "main", "write_sales")


class Sale(BaseModel):
    """One sale, as reported by the shops."""

    day: date
    city: str
    amount: Annotated[float, Field(gt=0)]
    note: str | None = None


class Total(BaseModel):
    """The sales of a city."""

    city: str
    amount: float
    sales: int


def main() -> None:
    """Write a file with two bad rows, and read it in several ways."""
    with tempfile.TemporaryDirectory() as folder:
        write_sales(Path(folder) / "sales.parquet")
        sales = Frame[Sale].scan_parquet("sales.parquet", root=folder)

        for city, amount, count in best_cities(sales):
            print(f"{city}: {amount:.0f} in {count} sales")
        try:
            sales.collect()
        except FrameInvalid as error:
            print(f"{error.failures.height} bad values, the first in row {error.failures['row'][0]}")
        with sales.filter(pl.col("amount") > 0).stream(batch_size=1_000) as batches:
            print([batch.height for batch in batches])
        try:
            sales.sort("ammount")
        except UnknownColumn as error:
            print(error)
        try:
            Frame[Sale].scan_parquet("../passwords.parquet", root=folder)
        except PathRefused as error:
            print(error)


def write_sales(path: Path) -> None:
    """Write 2 500 sales, of which two have an invalid amount."""
    amounts = [float(number % 90 + 1) for number in range(2_500)]
    amounts[700] = amounts[1_400] = -1.0
    days = [date(2026, 1, 1) + timedelta(days=number % 365) for number in range(2_500)]
    cities = ["Oslo", "Rome", "Lima", "Bonn"] * 625
    pl.DataFrame({"day": days, "city": cities, "amount": amounts}).write_parquet(path)


def best_cities(sales: Frame[Sale]) -> list[tuple[str, float, int]]:
    """Return the two cities with the highest sales."""
    totals = sales.filter(pl.col("amount") > 0).group_by("city").agg(pl.col("amount").sum(), sales=pl.len())
    rows = totals.as_model(Total).sort("amount", descending=True).head(2).collect()
    return [(row.city, row.amount, row.sales) for row in rows]


if __name__ == "__main__":
    main()
