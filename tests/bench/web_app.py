"""A million rows over HTTP: the views as one writes them with Flask and Polars, and the same with greendata."""

from __future__ import annotations

import os
from collections.abc import Callable
from io import BytesIO

import polars as pl
from flask import Flask, Response, request

from greendata.formats.format import MEDIA_TYPES, Format
from greendata.web.flask import GreenData, respond

__all__ = ("bare", "green", "plain")


def rows() -> pl.LazyFrame:
    """What is asked for: all of the file, or the first ``?rows=`` of it."""
    found = pl.scan_parquet(os.environ["BENCH_ROWS"])
    return found.head(int(request.args["rows"])) if "rows" in request.args else found


def arrow(df: pl.DataFrame) -> bytes:
    file = BytesIO()
    df.write_ipc_stream(file)
    return file.getvalue()


WRITERS: dict[Format, Callable[[pl.DataFrame], str | bytes]] = {
    "ndjson": pl.DataFrame.write_ndjson,
    "csv": pl.DataFrame.write_csv,
    "arrow": arrow,
}


def ping() -> Response:
    return Response("pong\n", mimetype="text/plain")


def service(answer: Callable[[Format], Response]) -> Flask:
    """An app with a page for each format."""
    app = Flask(__name__)
    app.add_url_rule("/ping", "ping", ping)
    for name in WRITERS:
        app.add_url_rule(f"/{name}", name, lambda name=name: answer(name))  # type: ignore[misc]
    return app


plain = service(lambda name: Response(WRITERS[name](rows().collect()), content_type=MEDIA_TYPES[name]))
green = service(lambda name: respond(rows(), name))
bare = service(lambda name: respond(rows(), name))
GreenData(green)
