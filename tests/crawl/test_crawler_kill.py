"""Crawls that are killed with ``kill -9`` at any moment, and resumed to their end: no page missing, none doubled."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import polars as pl
import pytest

from greendata.testing import Request, Site
from tests.support.processes import ROOT

KILLS = int(os.environ.get("CRAWL_KILLS", "8"))
SERIES = 20  # kills in one test
PAGES = 240
HOSTS, PER_HOST = 2, 2
BATCH = 100  # pages that are fetched and not committed, at most

pytestmark = pytest.mark.once("unpatched")  # the crawls run in processes of their own


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.support.crawl_child"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("series", range(-(-KILLS // SERIES)))
def test_a_crawl_that_is_killed_again_and_again_has_every_page_once(
    series: int, child: subprocess.Popen[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(f"kills {series}")
    killed = number = worst = again = 0
    while killed < min(KILLS, SERIES):
        number += 1
        with Site(page, robots=404, hosts=HOSTS) as site:
            out = tmp_path / str(number)
            kills = 0
            for _ in range(chance.randint(1, 6)):
                done = rows_of(out).height if out.exists() else 0
                kills += crawled(child, site, out, kill_after=chance.randint(0, PAGES - done))
            assert crawled(child, site, out) == 0
            urls = rows_of(out)["url"]
            assert (urls.len(), urls.n_unique()) == (PAGES, PAGES)
            fetched = sum(request.path != "/robots.txt" for request in site.requests)
            assert fetched - PAGES <= kills * (BATCH + HOSTS * PER_HOST)
            worst = max(worst, (fetched - PAGES) / max(kills, 1))
            again += fetched - PAGES
            killed += kills
    with capsys.disabled():
        print(f"\n{killed} kills of {number} crawls: none missing or doubled, {again} refetched, {worst:.0f} at most")


def page(request: Request) -> str | None:
    """Page n links to two others, on both hosts."""
    number = int(request.path[1:])
    port = request.headers["host"].rpartition(":")[2]
    others = [2 * number + 1, 2 * number + 2]
    names = {1: "127.0.0.1", 0: "127.0.0.2"}
    return "".join(f"<a href='http://{names[n % 2]}:{port}/{n}'>x</a>" for n in others if n < PAGES)


def crawled(child: subprocess.Popen[str], site: Site, out: Path, *, kill_after: int | None = None) -> int:
    """Resume the crawl in a process, and kill it when the site was asked so often more. Return how often it was."""
    assert child.stdin is not None
    assert child.stdout is not None
    options = {
        "seeds": [site.url("/0")],
        "out": str(out),
        "resume": True,
        "scope": "any",
        "user_agent": "killed/1 (test@example.com)",
        "allow_private": True,
        "delay": 0,
        "per_host": PER_HOST,
    }
    before = len(site.requests)
    child.stdin.write(json.dumps(options) + "\n")
    pid = int(child.stdout.readline())
    if kill_after is not None:
        while len(site.requests) < before + kill_after and not is_readable(child.stdout):
            pass
        if not is_readable(child.stdout):
            os.kill(pid, signal.SIGKILL)
    status = int(child.stdout.readline())
    assert status in (0, -signal.SIGKILL)
    return int(status != 0)


def is_readable(file: IO[str]) -> bool:
    return bool(select.select([file], [], [], 0.001)[0])


def rows_of(out: Path) -> pl.DataFrame:
    return pl.scan_parquet(out).collect()
