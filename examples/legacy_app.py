"""A report service that has run for years: Flask and Polars, without a line of greendata.

The demo runs it twice, without and with `GREENDATA_AUTOPATCH=1` in its environment.
"""

__all__ = ("app",)

from flask import Flask, Response, jsonify, request

from examples.sales import report, sales_file

MOST_ROWS = 1_000  # in one response

app = Flask(__name__)


@app.get("/ping")
def ping() -> Response:
    return Response("pong\n", mimetype="text/plain")


@app.get("/report", endpoint="report")
def report_view() -> Response:
    """Return the stores and quarters with the highest revenue."""
    top = min(request.args.get("top", default=20, type=int), MOST_ROWS)
    return jsonify(report(sales_file(), top).collect().to_dicts())
