"""The demo's service with its `/report` rewritten: through Polars' own `collect_async(gevent=True)`."""

__all__ = ("app",)

from flask import Response, jsonify

from examples import legacy_app
from examples.sales import report, sales_file


def report_view() -> Response:
    return jsonify(report(sales_file(), 20).collect_async(gevent=True).get().to_dicts())


app = legacy_app.app
app.view_functions["report"] = report_view
