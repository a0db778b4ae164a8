"""A report service with greendata's extension, over the sales of `examples/sales.py`.

The extension adds a deadline for requests, cancels the queries of clients that have left, streams the export in the
format that the client wants, and adds two health pages. In debug mode it shows its dashboard, too. `make serve` serves
it; `/` lists the routes.
"""

__all__ = ("app", "create_app")

from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    current_app,
    jsonify,
    render_template_string,
    request,
)
from werkzeug.exceptions import HTTPException

import greendata
from examples import sales
from greendata.web.flask import GreenData, health, respond

MOST_ROWS = 1_000  # in one JSON response
TIMEOUT = 30  # seconds for the queries of a request

INDEX = """<!doctype html>
<html lang="en">
<title>Sales</title>
<meta name="viewport" content="width=device-width">
<style>
  :root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
  body { max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
  td, th { padding: .2rem 1rem .2rem 0; text-align: left; vertical-align: top; }
  form { display: flex; flex-wrap: wrap; gap: .7rem; align-items: end; margin: .6rem 0; }
  label { display: grid; font-size: .85rem; }
  input { width: 8rem; }
</style>
<h1>Sales</h1>
<p>{{ "{:,}".format(rows) }} invented sales of {{ stores }} stores. The first request makes the file, which takes a few
seconds.</p>
{% if dashboard %}
<p><a href="{{ dashboard }}">The dashboard</a> shows the hub and the queries of this process. Ask for some reports, and
watch them there.</p>
{% endif %}
<form action="{{ url_for('sales.report') }}">
  <label>rows <input name="top" type="number" value="20" min="1" max="{{ most }}" required></label>
  <button>Report</button>
</form>
<form action="{{ url_for('sales.search') }}">
  <label>store <input name="store" type="number" value="7" min="0" max="{{ stores - 1 }}" required></label>
  <label>rows <input name="limit" type="number" value="50" min="1" max="{{ most }}" required></label>
  <button>Search</button>
</form>
<form action="{{ url_for('sales.export') }}">
  <label>store <input name="store" type="number" value="7" min="0" max="{{ stores - 1 }}" required></label>
  <label>format <select name="format">
    {% for name in ("csv", "json", "ndjson", "arrow", "parquet") %}<option>{{ name }}</option>{% endfor %}
  </select></label>
  <button>Export</button>
</form>
<h2>Routes</h2>
<table>
{% for path, what in routes %}<tr><td><a href="{{ path }}"><code>{{ path }}</code></a></td><td>{{ what }}</td></tr>
{% endfor %}</table>
"""

# Routes of the extension, which are listed with those of the service.
EXTENSION = {
    "/greendata/": "The dashboard.",
    "/greendata/stats.json": "Its data, for python -m greendata top.",
    "/livez": "200 as long as this process responds.",
    "/readyz": "200 if this process should get requests, otherwise 503.",
}

routes = Blueprint("sales", __name__)
green = GreenData()


def create_app(folder: Path = sales.FOLDER, *, rows: int = sales.ROWS) -> Flask:
    """Return the service over `folder`."""
    service = Flask(__name__)
    service.config["SALES"] = folder, rows
    service.config["GREENDATA_REQUEST_TIMEOUT"] = TIMEOUT
    service.config["GREENDATA_DASHBOARD"] = service.debug
    green.init_app(service)
    service.register_blueprint(routes)
    service.register_blueprint(health())
    service.register_error_handler(HTTPException, in_json)
    return service


@routes.get("/")
def index() -> str:
    """This page."""
    documented = EXTENSION | {
        rule.rule: str(current_app.view_functions[rule.endpoint].__doc__)
        for rule in current_app.url_map.iter_rules()
        if rule.endpoint.startswith("sales.")
    }
    paths = sorted(rule.rule for rule in current_app.url_map.iter_rules() if rule.rule in documented)
    return render_template_string(
        INDEX,
        rows=current_app.config["SALES"][1],
        stores=sales.MOST_STORES,
        most=MOST_ROWS,
        dashboard="/greendata/" if current_app.config["GREENDATA_DASHBOARD"] else None,
        routes=[(path, documented[path]) for path in paths],
    )


@routes.get("/ping")
def ping() -> Response:
    """Respond at once, if the hub is free."""
    return Response("pong\n", mimetype="text/plain")


@routes.get("/report")
def report() -> Response:
    """Return the stores and quarters with the highest revenue (top=)."""
    top = whole_number("top", default=20, low=1, high=MOST_ROWS)
    return jsonify(sales.report(sales_file(), top).collect().to_dicts())


@routes.get("/search")
def search() -> Response:
    """Return the largest sales of one store (store=, limit=), or of one of its days (day=)."""
    store = whole_number("store", low=0, high=sales.MOST_STORES - 1)
    limit = whole_number("limit", default=50, low=1, high=MOST_ROWS)
    found = pl.read_parquet(sales_file()).filter(pl.col("store") == store)
    day = iso_day("day")
    if day is not None:
        found = found.filter(pl.col("day") == day)
    hits = found.with_columns(revenue=sales.REVENUE.round(2)).sort("revenue", descending=True).head(limit)
    return jsonify(hits.with_columns(pl.col("day").cast(pl.String)).to_dicts())


@routes.get("/export")
@green.deadline(600)
def export() -> Response:
    """Stream the sales of one store (store=), or of all, in the format that Accept or format= names."""
    found = pl.scan_parquet(sales_file())
    if "store" in request.args:
        found = found.filter(pl.col("store") == whole_number("store", low=0, high=sales.MOST_STORES - 1))
    return respond(found, filename="sales")


def sales_file() -> Path:
    return made_once(*current_app.config["SALES"])


made_once = greendata.single_flight(sales.sales_file)  # requests that find no file wait for the one that makes it


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
