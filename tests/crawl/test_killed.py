"""A crawl whose process is killed, again and again: at its end every page is one row, and few were fetched twice.

``CRAWL_KILLS=200`` is the long form: that many kills, at moments that a seed chooses.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

import polars as pl
import pytest

from greendata.testing import Request, Site
from tests.support.gates import rest
from tests.support.processes import ROOT

pytestmark = pytest.mark.once("unpatched")  # the crawls are processes

KILLS = int(os.environ.get("CRAWL_KILLS", "3"))
PAGES = 400
KILLS_OF_A_CRAWL = 10
WORKERS = 16
IN_HAND = 64 + 16  # pages that are fetched and not parsed yet, and those of one job
BATCH = 100  # pages of one commit

PROGRAM = """
from gevent import monkey; monkey.patch_all()
import sys
from greendata.crawl import crawl

url, out = sys.argv[1:]
crawl(
    url, user_agent="testbot (testbot@example.com)", out=out, resume=True, delay=0, per_host=16, workers=16,
    allow_private=["127.0.0.1"],
).run()
"""


def page(request: Request) -> str | None:
    """Return a page that links to two others, and to one of long ago."""
    number = request.path.strip("/")
    if not number.isdigit() or int(number) >= PAGES:
        return None
    links = [2 * int(number) + 1, 2 * int(number) + 2, int(number) // 3]
    return f"<title>{number}</title>" + "".join(f"<a href=/{link}>x</a>" for link in links if link < PAGES)


@pytest.mark.guard(60.0 + 10.0 * KILLS)
def test_a_killed_crawl_is_whole_in_the_end(tmp_path: Path) -> None:
    random = Random(7)
    left, figures = KILLS, []
    while left:
        kills = min(left, KILLS_OF_A_CRAWL)
        figures.append(killed(tmp_path / f"pages{left}", kills, random))
        left -= kills
    print(f"{KILLS} kills in {len(figures)} crawls of {PAGES} pages; fetched again: {figures}")


def killed(out: Path, kills: int, random: Random) -> int:
    """Crawl the site with *kills* kills, and return how many pages were fetched again."""
    with Site(page, robots="", delay=0.002) as site:
        for _ in range(kills):
            asked = len(site.requests) + random.randrange(1, 3 * PAGES // kills)
            with started(site.url("/0"), out) as process:
                while len(site.requests) < asked and process.poll() is None:
                    rest()
                time.sleep(random.random() / 100)  # not only at the arrival of a request
                process.kill()
            assert_sound(out)
        with started(site.url("/0"), out) as process:
            assert process.wait() == 0
        rows = pl.read_parquet(out).filter(pl.col("status") == 200)
        assert sorted(rows["url"].to_list()) == sorted(site.url(f"/{number}") for number in range(PAGES))
        fetched = Counter(request.path for request in site.requests if request.path != "/robots.txt")
        again = fetched.total() - PAGES
        assert again <= kills * (WORKERS + IN_HAND + BATCH)
        return again


def started(url: str, out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PROGRAM, url, str(out)], cwd=ROOT)


def assert_sound(out: Path) -> None:
    """Whenever the process ends, what is there can be read, and no page is there twice."""
    if out.exists() and any(out.iterdir()):
        urls = pl.scan_parquet(out).select("url").collect()["url"]
        assert urls.is_unique().all()
