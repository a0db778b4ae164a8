"""The service for tests with load and faults: reports, streams, expired queries, and the outcomes of its jobs."""

from __future__ import annotations

import os
from collections.abc import Iterator

import polars as pl
import pydantic
from flask import Flask, Response, jsonify, request

import greendata
from greendata.web.flask import GreenData, body, health, respond
from tests.support.gates import Gate

__all__ = ("app",)

SALES = pl.select(
    store=pl.int_range(200_000) * 7919 % 200, price=pl.int_range(200_000) * 31 % 10_007 / 100, day=pl.int_range(200_000)
)
BATCHES, ROWS = 5, 10_000  # of a streamed response: a few chunks

app = Flask(__name__)
green = GreenData(app)
app.register_blueprint(health())
gate = Gate()
outcomes: list[str] = []


@app.get("/report")
def report() -> Response:
    """Work for some milliseconds."""
    stores = SALES.lazy().group_by("store").agg(pl.col("price").sum().round(2), typical=pl.col("price").median())
    return jsonify(stores.sort("store").collect().to_dicts())


@app.get("/brief")
@green.deadline(0.02)
def brief() -> Response:
    """Work as `report`, with a deadline that expires if other jobs are queued."""
    return report()


@app.get("/export")
def export() -> Response:
    """Stream several chunks, each made by a separate job."""
    return respond(SALES.lazy().head(BATCHES * ROWS).with_columns(pl.col("price") * 2), "ndjson")


@app.get("/frames")
def frames() -> Response:
    """Stream frames that separate queries make during the response."""

    def made() -> Iterator[pl.DataFrame]:
        for number in range(BATCHES):
            yield SALES.lazy().slice(number * ROWS, ROWS).select("store", "price").collect()

    return respond(made(), "csv")


@app.get("/held")
def held() -> str:
    """Run a native job that waits at the gate, and record its outcome."""
    try:
        number = greendata.run(gate, 1, label="held").get()
    except greendata.GreenDataError as error:
        outcomes.append(f"{type(error).__name__}: {error}")
        raise
    outcomes.append("done")
    return str(number)


@app.get("/long")
def long() -> Response:
    """Stream all rows of a Parquet file."""
    return respond(pl.scan_parquet(request.args["path"]), "ndjson")


class Row(pydantic.BaseModel):
    a: int


@app.post("/rows")
def rows() -> str:
    """Return the number of rows in the body."""
    return str(body(Row).height)


@app.get("/open")
def opened() -> str:
    """Open the gate."""
    gate.open()
    return "open"


@app.get("/state")
def state() -> Response:
    """Return the state of this process, and the outcomes of the held jobs."""
    stats = greendata.stats()
    return jsonify(
        pid=os.getpid(),
        running=stats.running,
        queued=stats.queued,
        done=stats.done,
        cancelled=stats.cancelled,
        abandoned=stats.abandoned,
        arrived=len(gate.arrived),
        outcomes=outcomes,
    )
