"""A function inside a Polars query asks the hub, from a native thread, to fetch by HTTP and to update a progress bar.

Polars calls `Rates.of` on a worker, where there are no greenlets. Through a `Caller` it asks the hub to do both:
the fetch runs in a greenlet with cooperative sockets, and only the hub's thread draws the bar.
"""

# ruff: noqa: E402 - patching comes before the imports that it patches

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import sys
from collections.abc import Callable, Iterable
from typing import Any

import polars as pl
import requests
from gevent.pywsgi import WSGIServer
from tqdm import tqdm

import greendata
from greendata import Caller

__all__ = ("Rates", "main")

RATES = {"CHF": 0.94, "CZK": 25.1, "DKK": 7.46, "GBP": 0.84, "HUF": 402.0, "NOK": 11.7, "PLN": 4.27, "SEK": 11.2}

ORDERS = pl.LazyFrame({"currency": list(RATES) * 1_250}).with_columns(amount=pl.int_range(pl.len()) % 97 + 1)


class Rates:
    """Exchange rates of an HTTP service, for functions that run on native threads."""

    def __init__(self, url: str, hub: Caller, bar: tqdm[Any]) -> None:
        self._url = url
        self._hub = hub
        self._bar = bar

    def of(self, currency: str) -> float:
        """Return the rate of *currency*. Called by Polars, on a worker."""
        rate = self._hub.call_soon(self._fetch, currency).get(timeout=10)
        self._hub.call_soon(self._bar.update)
        return rate

    def _fetch(self, currency: str) -> float:
        """Request the rate from the service. Called in a greenlet."""
        response = requests.get(f"{self._url}/rate/{currency}", timeout=5)
        response.raise_for_status()
        return float(response.text)


def main() -> None:
    """Turn ten thousand orders into euros and print the sum by currency."""
    with (
        WSGIServer(("127.0.0.1", 0), exchange, log=None) as server,
        tqdm(desc="rates", total=len(RATES), file=sys.stdout) as bar,
        greendata.deadline(30),
    ):
        server.start()
        rates = Rates(f"http://127.0.0.1:{server.server_port}", Caller.current(), bar)
        known = ORDERS.select(pl.col("currency").unique()).with_columns(
            rate=pl.col("currency").map_elements(rates.of, return_dtype=pl.Float64)
        )
        euros = ORDERS.join(known, on="currency").select("currency", euros=pl.col("amount") / pl.col("rate"))
        total = greendata.collect(euros.group_by("currency").sum().sort("currency")).get()
        Caller.current().call_soon(bar.refresh).get()  # runs after the updates, which were called before
    print(total)


def exchange(environ: dict[str, str], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Serve the rates: a WSGI application."""
    currency = environ["PATH_INFO"].rpartition("/")[2]
    status = "200 OK" if currency in RATES else "404 Not Found"
    start_response(status, [("Content-Type", "text/plain")])
    return [str(RATES.get(currency, "unknown")).encode()]


if __name__ == "__main__":
    main()
