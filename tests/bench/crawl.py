"""The crawler against Scrapy, Crawlee, and what people write today: requests in a gevent pool with selectolax.

Pages come from a process of their own, and each contender runs in one of its own. What is compared is the CPU time of
that process, which depends less on what else the machine does than time on the clock. Scrapy and Crawlee are installed
once into ``build/peers``, an environment of their own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench import crawl_ours, crawl_peers
from tests.bench.apart import apart, run_apart
from tests.bench.crawl_site import PAGES, Counts, serving
from tests.bench.rows import Row, interleaved, ratio
from tests.support.processes import ROOT

__all__ = ("rows",)

LISTED = 2_000  # pages whose URLs are known
HOPS = 2_000  # requests of the row without parsing
HOSTS, PER_HOST = 40, 2  # of the row about connections; the crawler's default
ROUNDS = 3  # of ours and the nearest peer; of the others one
PATIENCE = 600.0  # seconds for the crawl of 100 000 pages
PEERS = ROOT / "build" / "peers"
REQUIREMENTS = ("scrapy>=2.13", "crawlee[parsel]>=1.0")
LEAST = {"scrapy": 3.0, "crawlee": 10.0, "requests": 1.3}  # pages per CPU second, against each


def rows() -> list[Row]:
    """Pages per CPU second, connections, ticks of the hub, memory, and the frontier alone."""
    python = peers()
    with ExitStack() as stack:
        site = stack.enter_context(serving(hosts=HOSTS))
        known = [site.url(f"/long/{number}") for number in range(LISTED)]
        found = _whole("a list of 2 000 pages of 121 kB", known, "list", "listed", python)
        found += _whole(
            f"{PAGES} pages of 121 kB found by their links", [site.url("/long/0")], "follow", "followed", python
        )
        found += [_ticks(known), _connections(site), _memory(site)]
    with serving(delay=0.02) as site:
        found.append(_hops(site))
    return [*found, *_frontier()]


def peers() -> Path:
    """Return the interpreter of the peers' environment, and make that environment if there is none."""
    python = PEERS / "bin" / "python"
    if not (PEERS / "ready").exists():
        venv.create(PEERS, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
        (PEERS / "ready").touch()
    return python


def ours(what: str, *urls: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return apart(crawl_ours.__name__, what, folder, *urls, patience=PATIENCE)


def theirs(python: Path | str, peer: str, how: str, urls: list[str]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        program = [str(python), "-P", str(crawl_peers.__file__), peer, how, folder, *urls]
        figures: dict[str, float] = run_apart(program, patience=PATIENCE)
        return figures


def _whole(what: str, urls: list[str], how: str, kind: str, python: Path) -> list[Row]:
    """Rows for one whole job: fetched, parsed and stored."""
    contenders: dict[str, Callable[[], float]] = {
        "greendata": lambda: _rate(ours(kind, *urls), len(urls)),
        "requests": lambda: _rate(theirs(sys.executable, "requests", how, urls), len(urls)),
    }
    rates = interleaved(contenders, ROUNDS)
    for peer in ("scrapy", "crawlee"):
        rates[peer] = [_rate(theirs(python, peer, how, urls), len(urls))]
    return [_against(what, rates, peer) for peer in LEAST]


def _rate(figures: dict[str, float], least: int) -> float:
    if figures["pages"] < least:
        sys.exit(f"a contender stored {figures['pages']} pages of {least}")
    return figures["pages"] / figures["cpu"]


def _against(what: str, rates: dict[str, list[float]], peer: str) -> Row:
    shown = [f"{median(rates[name]):.0f}" for name in ("greendata", peer)]
    figure = median(rates["greendata"]) / median(rates[peer])
    return Row(f"{what}: pages per CPU second, against {peer}", *shown, figure, "x", LEAST[peer], at_most=False)


def _ticks(urls: list[str]) -> Row:
    tick = median(ours("ticks", *urls)["tick"] for _ in range(ROUNDS)) * 1e3
    what = "pages of 121 kB, fetched, parsed with their texts and written: the hub's tick, p99"
    return Row(what, f"{tick:.1f} ms", "", tick, " ms", 10.0)


def _connections(site: Counts) -> Row:
    urls = [site.url(f"/small/{number}", number % HOSTS) for number in range(LISTED)]
    before = site.read()
    figures = ours("hosts", *urls)
    made = sum(site.read()["connections"].values()) - sum(before["connections"].values())
    _rate(figures, LISTED)
    return Row(f"{LISTED} pages of {HOSTS} hosts: connections", f"{made}", "", made, "", HOSTS * PER_HOST)


def _memory(site: Counts) -> Row:
    figures = ours("memory", site.url("/wide/0"))
    shown = [f"{figures[str(pages)]:.0f} MiB" for pages in (crawl_ours.LATE, crawl_ours.EARLY)]
    growth = figures[str(crawl_ours.LATE)] - figures[str(crawl_ours.EARLY)]
    what = "a frontier of a million URLs: memory after 100 000 pages, against after 10 000"
    return Row(what, *shown, growth, " MiB", 20.0)


def _hops(site: Counts) -> Row:
    urls = [site.url(f"/small/{number}") for number in range(HOPS)]
    seconds = interleaved({kind: partial(_cpu, kind, urls) for kind in ("hops", "sessions")}, ROUNDS)
    shown = [f"{median(seconds[kind]) * 1e6:.0f} us" for kind in ("hops", "sessions")]
    what = "answers after 20 ms, 100 requests at a time: CPU per page, against requests"
    return Row(what, *shown, ratio(seconds["hops"], seconds["sessions"]), "x", 0.5)


def _cpu(kind: str, urls: list[str]) -> float:
    return 1.0 / _rate(ours(kind, *urls), len(urls))


def _frontier() -> list[Row]:
    figures = ours("frontier")
    per_url = [seconds / (crawl_ours.ENTRIES / 10) * 1e6 for seconds in figures["seconds"]]
    what = "a million URLs into the frontier, out of it, and done: CPU per URL"
    return [
        Row(f"{what}, mean", f"{sum(per_url) / 10:.1f} us", "", sum(per_url) / 10, " us", 60.0),
        Row(f"{what}, the last 100 000", f"{per_url[-1]:.1f} us", "", per_url[-1], " us", 60.0),
    ]
