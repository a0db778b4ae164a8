"""A typical report service: plain Flask and plain Polars over one Parquet file.

greendata's extension adds a deadline for requests, cancels the queries of clients that have left, streams the export in
the format that the client wants, and adds two health pages.

The file is made on first use, in the folder that `SALES_DATA` names (default: `examples/data`), with `SALES_ROWS` rows.
"""

__all__ = ("app", "create_app", "report", "sales_file")

import os
import uuid
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
from flask import Blueprint, Flask, Response, abort, current_app, jsonify, request
from werkzeug.exceptions import HTTPException

import greendata
from greendata.web.flask import GreenData, health, respond

ROWS = 3_000_000
FOLDER = Path(__file__).parent / "data"
STORES = 200
PRODUCTS = 5_000
FIRST_DAY = date(2024, 1, 1)
DAYS = 730
MOST_ROWS = 1_000  # in one JSON response
TIMEOUT = 30  # seconds for the queries of a request

REVENUE = pl.col("price") * pl.col("quantity")

routes = Blueprint("sales", __name__)
green = GreenData()


def create_app(folder: Path | None = None, *, rows: int | None = None) -> Flask:
    """Return the service over `folder`; defaults come from the environment."""
    service = Flask(__name__)
    service.config["SALES_DATA"] = Path(folder or os.environ.get("SALES_DATA") or FOLDER)
    service.config["SALES_ROWS"] = rows or int(os.environ.get("SALES_ROWS") or ROWS)
    service.config["GREENDATA_REQUEST_TIMEOUT"] = TIMEOUT
    green.init_app(service)
    service.register_blueprint(routes)
    service.register_blueprint(health())
    service.register_error_handler(HTTPException, in_json)
    return service


@routes.get("/ping")
def ping() -> Response:
    return Response("pong\n", mimetype="text/plain")


@routes.get("/report", endpoint="report")
def report_view() -> Response:
    """Return the stores and quarters with the highest revenue."""
    top = whole_number("top", default=20, low=1, high=MOST_ROWS)
    return jsonify(report(top).collect().to_dicts())


@routes.get("/search")
def search() -> Response:
    """Return the largest sales of one store, or of one of its days if `day=` is given."""
    store = whole_number("store", low=0, high=STORES - 1)
    limit = whole_number("limit", default=50, low=1, high=MOST_ROWS)
    sales = pl.read_parquet(sales_file()).filter(pl.col("store") == store)
    day = iso_day("day")
    if day is not None:
        sales = sales.filter(pl.col("day") == day)
    hits = sales.with_columns(revenue=REVENUE.round(2)).sort("revenue", descending=True).head(limit)
    return jsonify(hits.with_columns(pl.col("day").cast(pl.String)).to_dicts())


@routes.get("/export")
@green.deadline(600)
def export() -> Response:
    """Stream every sale of one store, or of all, in the format that `Accept` or `format=` names."""
    sales = pl.scan_parquet(sales_file())
    if "store" in request.args:
        sales = sales.filter(pl.col("store") == whole_number("store", low=0, high=STORES - 1))
    return respond(sales, filename="sales")


def report(top: int) -> pl.LazyFrame:
    """Return the query behind `/report`, which is deliberately heavy: it uses every row."""
    return (
        pl.scan_parquet(sales_file())
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


def sales_file() -> Path:
    """Return the path of the sales file, which is made if it does not exist."""
    folder: Path = current_app.config["SALES_DATA"]
    rows: int = current_app.config["SALES_ROWS"]
    path = folder / f"sales-{rows}.parquet"
    if not path.exists():
        make_sales(path, rows)
    return path


@greendata.single_flight  # one call in a process; between processes the rename decides
def make_sales(path: Path, rows: int) -> None:
    """Write the sales beside `path` and rename the file, so that an incomplete file is never read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{uuid.uuid4().hex}-{path.name}")
    try:
        invent_sales(rows).lazy().sink_parquet(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def invent_sales(rows: int) -> pl.DataFrame:
    """Return `rows` rows of sales. They are the same every time: hashes of row numbers replace random numbers."""

    def up_to(limit: int, seed: int) -> pl.Expr:
        return pl.int_range(rows, dtype=pl.UInt64).hash(seed) % limit

    return pl.select(
        day=pl.lit(FIRST_DAY) + pl.duration(days=up_to(DAYS, 1)),
        store=up_to(STORES, 2).cast(pl.UInt16),
        product=up_to(PRODUCTS, 3).cast(pl.UInt16),
        customer=up_to(150_000, 4).cast(pl.UInt32),
        quantity=(up_to(9, 5) + 1).cast(pl.UInt8),
        price=((up_to(20_000, 6) + 50) / 100).round(2),
    )


def whole_number(name: str, *, low: int, high: int, default: int | None = None) -> int:
    """Return the query parameter `name`, or respond with 400 unless it is a whole number from `low` to `high`."""
    text = request.args.get(name)
    if text is None and default is not None:
        return default
    # `isdecimal` alone would accept digits of other scripts.
    if text is None or not (text.isascii() and text.isdecimal() and len(text) < 10 and low <= int(text) <= high):
        abort(400, f"{name}: got {text!r}, expected a whole number from {low} to {high}")
    return int(text)


def iso_day(name: str) -> date | None:
    """Return the query parameter `name` as a day, or respond with 400 unless it has the form 2024-01-31."""
    text = request.args.get(name)
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        abort(400, f"{name}: {error}")


def in_json(error: HTTPException) -> tuple[dict[str, Any], int]:
    return {"error": error.description}, error.code or 500


app = create_app()
