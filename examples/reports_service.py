"""A report service for several tenants, whose queries can be stopped: small ones in threads, reports in children.

    gunicorn -k greendata.web.gunicorn.GreenWorker 'examples.reports_service:create_app()'

A report runs in a child process. It ends, with all its memory, when the tenant cancels it or leaves, when the deadline
of the request is over, and when it needs more memory than its child has. The server and the other tenants continue.
`main` shows it, with a real gunicorn.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import requests
from flask import Blueprint, Flask, Response, abort, jsonify, request

import greendata
from greendata.web.flask import GreenData

__all__ = ("create_app", "main")

MEMORY = 400_000_000  # bytes for a report, the interpreter of its child included
TIMEOUT = 60  # seconds for the queries of a request
ROWS = 200_000

SALES = pl.LazyFrame().select(
    store=pl.int_range(ROWS) % 50,
    price=(pl.int_range(ROWS) * 7919 % 10_000) / 100,
)
PAIRS = SALES.join(SALES, how="cross", suffix="_other")

REPORTS: dict[str, pl.LazyFrame] = {
    "stores": SALES.group_by("store").agg(pl.col("price").sum()).sort("store"),
    "pairs": PAIRS.select((pl.col("price") * pl.col("price_other")).sum()),  # 40 billion rows: nobody waits for them
    "everything": PAIRS.sort("price_other"),  # and nobody has the memory for these
}

reports = Blueprint("reports", __name__)
running: dict[tuple[str, str], greendata.Result[pl.DataFrame]] = {}  # by tenant and name; greenlets of one thread


def create_app() -> Flask:
    """Return the service."""
    app = Flask(__name__)
    app.config["GREENDATA_REQUEST_TIMEOUT"] = TIMEOUT
    GreenData(app, key=tenant)  # tenants take turns
    children = greendata.ProcessEngine(workers=2, memory_limit=MEMORY)
    greendata.configure(route=lambda label, _key: children if label == "report" else None)
    app.register_blueprint(reports)
    return app


def tenant() -> Hashable:
    """Return the name of the tenant. A real service takes it from a token that it has checked."""
    return request.headers.get("X-Tenant", "nobody")


@reports.get("/prices")
def prices() -> Response:
    """Run a small query, in a thread: reports of other tenants do not delay it."""
    found = SALES.select(pl.col("price").min().alias("least"), pl.col("price").max().alias("most"))
    return jsonify(greendata.collect(found).get().to_dicts()[0])


@reports.get("/reports/<name>")
@GreenData.deadline(30)
def report(name: str) -> Response:
    """Return a report: 409 if the tenant cancels it, 504 after the deadline, 507 if it needs too much memory."""
    place = str(tenant()), name
    if name not in REPORTS or place in running:
        abort(409 if place in running else 404)
    seconds = request.args.get("timeout", type=float)
    result = running[place] = greendata.collect(REPORTS[name], label="report", timeout=seconds)
    try:
        return jsonify(result.get().to_dicts())
    except greendata.JobCancelled:
        abort(409, "the report was cancelled")
    finally:
        del running[place]


@reports.delete("/reports/<name>")
def cancel(name: str) -> tuple[str, int]:
    """Stop a report of this tenant. Its process has ended when the client reads the response."""
    result = running.get((str(tenant()), name))
    if result is None:
        abort(404)
    result.cancel()
    return "", 204


def main() -> None:
    """Serve, and act as three tenants: one with small queries, and two with reports that must be stopped."""
    with served() as url:

        def ask(who: str, path: str, method: str = "GET") -> requests.Response:
            return requests.request(method, url + path, headers={"X-Tenant": who}, timeout=60)

        print("ada, prices:", ask("ada", "/prices").json())
        print("ada, a report:", len(ask("ada", "/reports/stores").json()), "stores")

        with ThreadPoolExecutor() as clients:
            endless = clients.submit(ask, "eve", "/reports/pairs")
            while ask("eve", "/reports/pairs", "DELETE").status_code == 404:  # it has not begun
                time.sleep(0.05)
        print("eve, a report that she cancels:", endless.result().status_code)

        show("bob, a report that takes too long:", ask("bob", "/reports/pairs?timeout=1"))
        show("bob, a report that takes too much:", ask("bob", "/reports/everything"))
        print("ada, a report:", len(ask("ada", "/reports/stores").json()), "stores")


def show(what: str, response: requests.Response) -> None:
    """Print an error response."""
    print(what, response.status_code, response.json()["title"])


@contextmanager
def served() -> Iterator[str]:
    """Serve with a gunicorn on loopback, and yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        options = ["-k", "greendata.web.gunicorn.GreenWorker", "-b", f"fd://{listener.fileno()}"]
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *options, "examples.reports_service:create_app()"],
            cwd=Path(__file__).parents[1],
            pass_fds=[listener.fileno()],
            stderr=subprocess.DEVNULL,
        )
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
