"""A crawl's dataset after ``kill -9``: between every two steps, at random moments, and as others read it meanwhile."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest

from greendata.crawl import dataset as module
from tests.support.crashes import PAGES, crawl, fetched, href, watched
from tests.support.processes import run_python

pytestmark = pytest.mark.once("patched")  # the crawls run in processes of their own

MEMORY = "/dev/shm"  # a file system in memory: a killed process leaves the same there, and a sync takes no time
KILLS = int(os.environ.get("CRAWL_KILLS", "0"))


@pytest.fixture
def home() -> Iterator[Path]:
    with TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.mark.parametrize(("which", "effects"), [("steps", 45), ("again", 45), ("damaged", 25)])
def test_killed_between_any_two_steps_and_again_while_it_resumes(home: Path, which: str, effects: int) -> None:
    ended = run_python(["-m", "tests.support.crashes", which, str(home)], timeout=120)
    assert ended.returncode == 0, ended.stderr
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [line for line in lines if line["problem"] or line["ends"][2] != 0] == []
    assert {line["effect"] for line in lines} >= {"pwrite", "fsync", "replace", "COMMIT", "ftruncate"}
    assert len(lines) >= effects
    assert all(line["ends"][0] == -9 for line in lines)


@pytest.mark.skipif(not KILLS, reason="CRAWL_KILLS=200 kills crawls at so many random moments")
def test_killed_at_random_moments(home: Path) -> None:
    ended = run_python(["-m", "tests.support.crashes", "moments", str(home), str(KILLS)], timeout=KILLS + 60)
    assert ended.returncode == 0, ended.stderr
    print(ended.stdout)
    assert json.loads(ended.stdout)["kills"] >= KILLS


def test_it_can_be_read_between_any_two_steps(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART_GROUPS", 2)
    folder = home / "pages"
    read: list[set[str]] = []

    def effect(name: str) -> bool:
        if folder.exists() and any(folder.iterdir()):  # open() has not come to its end before
            urls = pl.scan_parquet(folder).collect()["url"].to_list()
            assert len({*urls}) == len(urls)
            assert {*urls} >= (read[-1] if read else set())  # what could be read once, stays
            read.append({*urls})
        return False

    with watched(effect):
        crawl(home)
    assert {*map(len, read)} == {0, 4, PAGES}
    assert fetched(home) == [href(n) for n in range(PAGES)]
