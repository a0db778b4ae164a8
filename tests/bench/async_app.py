"""The bench's third server: the example's service, its `/report` through Polars' own `collect_async(gevent=True)`."""

__all__ = ("app",)

from flask import Response, jsonify

from examples import flask_app


def report_view() -> Response:
    top = flask_app.whole_number("top", default=20, low=1, high=flask_app.MOST_ROWS)
    return jsonify(flask_app.report(top).collect_async(gevent=True).get().to_dicts())


app = flask_app.create_app()
app.view_functions["sales.report"] = report_view
