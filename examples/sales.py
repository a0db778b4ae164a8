"""The data of the report services: invented sales in one Parquet file, and a query over all of them.

Plain Polars. The file is made on first use, in the folder that `SALES_DATA` names (default: `examples/data`), with
`SALES_ROWS` rows.
"""

__all__ = ("MOST_STORES", "REVENUE", "report", "sales_file")

import os
import uuid
from datetime import date
from pathlib import Path

import polars as pl

FOLDER = Path(os.environ.get("SALES_DATA") or Path(__file__).parent / "data")
ROWS = int(os.environ.get("SALES_ROWS") or 3_000_000)
MOST_STORES = 200
PRODUCTS = 5_000
FIRST_DAY = date(2024, 1, 1)
DAYS = 730

REVENUE = pl.col("price") * pl.col("quantity")


def report(path: Path, top: int) -> pl.LazyFrame:
    """Return the stores and quarters with the highest revenue. It is deliberately heavy: it uses every row."""
    return (
        pl.scan_parquet(path)
        .group_by("store", pl.col("day").dt.truncate("1q").alias("quarter"))
        .agg(
            orders=pl.len(),
            revenue=REVENUE.sum().round(2),
            typical=REVENUE.median().round(2),
            customers=pl.col("customer").n_unique(),
        )
        .sort("revenue", "store", "quarter", descending=[True, False, False])
        .head(top)
        .with_columns(pl.col("quarter").cast(pl.String))
    )


def sales_file(folder: Path = FOLDER, rows: int = ROWS) -> Path:
    """Return the path of the sales file, which is made if it does not exist.

    It is written beside its path and renamed, so that an incomplete file is never read: neither by this process nor by
    another one that makes it at the same time.
    """
    path = folder / f"sales-{rows}.parquet"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{uuid.uuid4().hex}-{path.name}")
    try:
        invent_sales(rows).lazy().sink_parquet(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def invent_sales(rows: int) -> pl.DataFrame:
    """Return `rows` rows of sales. They are the same every time: hashes of row numbers replace random numbers."""

    def up_to(limit: int, seed: int) -> pl.Expr:
        return pl.int_range(rows, dtype=pl.UInt64).hash(seed) % limit

    return pl.select(
        day=pl.lit(FIRST_DAY) + pl.duration(days=up_to(DAYS, 1)),
        store=up_to(MOST_STORES, 2).cast(pl.UInt16),
        product=up_to(PRODUCTS, 3).cast(pl.UInt16),
        customer=up_to(150_000, 4).cast(pl.UInt32),
        quantity=(up_to(9, 5) + 1).cast(pl.UInt8),
        price=((up_to(20_000, 6) + 50) / 100).round(2),
    )
