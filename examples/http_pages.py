"""Read the pages of an HTTP API into one frame: fetch a few at a time, parse each on arrival, aggregate in the pool.

`as_completed` takes fetches from a generator, and starts the next one only when another has finished. The `Group`
around it cancels the remaining fetches after an error or the timeout.
"""

# ruff: noqa: E402 - patching comes before the imports that it patches

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json
from collections.abc import Callable, Iterable
from urllib.parse import parse_qs

import gevent
import polars as pl
import requests
from gevent.pywsgi import WSGIServer

import greendata

__all__ = ("main", "pages")

PAGES = 40
ROWS = 250  # in a page
AT_ONCE = 8


def main() -> None:
    """Fetch all pages and print what was sold in each country."""
    with WSGIServer(("127.0.0.1", 0), api, log=None) as server:
        server.start()
        sales = pages(f"http://127.0.0.1:{server.server_port}")
        summary = greendata.collect(
            sales.lazy().group_by("country").agg(pl.len(), pl.col("amount").sum()).sort("country")
        )
        print(f"{sales.height} rows from {PAGES} pages")
        print(summary.get(timeout=30))


def pages(url: str) -> pl.DataFrame:
    """Return every page of the API in one frame, in the order of the pages."""
    session = requests.Session()
    first = fetch(session, url, 1)
    frames = {1: pl.DataFrame(first["rows"])}
    with greendata.Group(timeout=60, label="pages") as group:
        fetches = (group.spawn(fetch, session, url, number) for number in range(2, first["pages"] + 1))
        for arrived in greendata.as_completed(fetches, max_concurrent=AT_ONCE):
            page = arrived.get()
            frames[page["page"]] = pl.DataFrame(page["rows"], schema=frames[1].schema)
    return pl.concat(frames[number] for number in sorted(frames))


def fetch(session: requests.Session, url: str, number: int) -> dict:  # type: ignore[type-arg]  # JSON
    """Return page *number*: its rows, and the number of pages."""
    response = session.get(url, params={"page": number}, timeout=10)
    response.raise_for_status()
    page: dict = response.json()  # type: ignore[type-arg]
    return page


def api(environ: dict[str, str], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Serve the API: a slow WSGI application."""
    number = int(parse_qs(environ["QUERY_STRING"])["page"][0])
    gevent.sleep(0.01)
    rows = [
        {"country": ("AT", "CH", "DE", "FR")[sale % 4], "amount": sale % 100}
        for sale in range((number - 1) * ROWS, number * ROWS)
    ]
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"page": number, "pages": PAGES, "rows": rows}).encode()]


if __name__ == "__main__":
    main()
