"""Validate an upload: respond with the number of rows, or with 422 and the reason for every invalid row.

`body` reads the upload (CSV and NDJSON here) up to a limit, in the pool, and validates it against the model. The
extension turns its errors into responses, so the view handles only the good case.
"""

# ruff: noqa: E402 - patching comes before the imports that it patches

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

from typing import Annotated

import requests
from flask import Flask
from gevent.pywsgi import WSGIServer
from pydantic import BaseModel, Field

import greendata
from greendata.web.flask import GreenData, body

__all__ = ("Customer", "create_app", "main", "upload")

CSV = {"Content-Type": "text/csv"}
NDJSON = {"Content-Type": "application/x-ndjson"}
GOOD = "number,name,discount\n1,Ann,\n2,Bob,0.1\n"
BAD = '{"number": 1, "name": "Ann"}\n{"number": 0, "name": "Bob", "discount": 5}\n{"number": "3b", "name": "Eve"}\n'
CUT = '{"number": 1, "name": "Ann"}\n{"number": 2, "na'


class Customer(BaseModel):
    """A row of an upload."""

    number: Annotated[int, Field(gt=0)]
    name: Annotated[str, Field(min_length=1)]
    discount: Annotated[float, Field(ge=0, lt=1)] | None = None


def main() -> None:
    """Serve on loopback, and send a good upload, one with invalid values, a truncated one, and a large one."""
    with WSGIServer(("127.0.0.1", 0), create_app(), log=None) as server:
        server.start()
        url = f"http://127.0.0.1:{server.server_port}/customers"
        upload(url, GOOD, CSV)
        upload(url, BAD, NDJSON)
        upload(url, CUT, NDJSON)
        upload(url, GOOD * 50_000, CSV)


def create_app() -> Flask:
    """Return a service with one view."""
    greendata.patch_polars()  # so that plain Polars calls of a view yield to other requests, too
    app = Flask(__name__)
    app.config["GREENDATA_MAX_BODY"] = 1 << 20  # bytes
    GreenData(app)

    @app.post("/customers")
    def add() -> dict[str, int]:
        customers = body(Customer)
        return {"customers": customers.height}

    return app


def upload(url: str, text: str, headers: dict[str, str]) -> None:
    """Send *text* and print the response."""
    response = requests.post(url, data=text, headers=headers, timeout=10)
    found = response.json()
    print(response.status_code, *(found[name] for name in ("customers", "title", "detail") if name in found))
    for failure in found.get("failures", ()):
        print("   ", "row {row}, {column}: got {value}: {message}".format(**failure))


if __name__ == "__main__":
    main()
