"""The demo's service with its `/report` rewritten: through the thread pool of gevent's hub."""

__all__ = ("app",)

import gevent
from flask import Response, jsonify

from examples import legacy_app
from examples.sales import report, sales_file


def report_view() -> Response:
    rows = gevent.get_hub().threadpool.apply(report(sales_file(), 20).collect)
    return jsonify(rows.to_dicts())


app = legacy_app.app
app.view_functions["report"] = report_view
