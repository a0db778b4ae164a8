"""The dataset of a crawl: commits, resuming, what may be in its folders, and errors of the disk."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import polars as pl
import pytest

from greendata.crawl import dataset as module
from greendata.crawl.dataset import Dataset
from greendata.crawl.frontier import Counts, Done
from greendata.errors import (
    BadArgument,
    CrawlFolderRefused,
    CrawlMismatch,
    CrawlNotSaved,
    CrawlRunning,
    FrameMismatch,
)

pytestmark = pytest.mark.once("patched")  # native calls in the calling thread

SCHEMA = pl.Schema({"url": pl.String, "n": pl.Int64})
HOST = "https://a.example:443"


def href(number: int) -> str:
    return f"https://a.example/{number}"


def opened(folder: Path, *, urls: int = 0, resume: bool = False, again: bool = False) -> Dataset:
    dataset = Dataset.open(folder, SCHEMA, {"seeds": "abc"}, resume=resume, again=again)
    dataset.frontier.add((href(n), HOST, 0) for n in range(urls))
    return dataset


def fetch(dataset: Dataset, count: int) -> None:
    """Commit the next *count* URLs, as a crawler would."""
    [window] = dataset.frontier.windows([(HOST, 0, count)])
    rows = pl.DataFrame([(entry.href, entry.id) for entry in window], schema=SCHEMA, orient="row")
    dataset.commit(rows, [Done(entry.id, etag=f"e{entry.id}") for entry in window])


def urls_in(folder: Path) -> list[str]:
    return sorted(pl.scan_parquet(folder).collect()["url"])


def test_commits_become_one_dataset(tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    dataset = opened(folder, urls=5)
    assert urls_in(folder) == []  # it can be read before the first page
    fetch(dataset, 2)
    assert urls_in(folder) == []
    fetch(dataset, 3)
    dataset.close()
    assert urls_in(folder) == [href(n) for n in range(5)]
    assert sorted(os.listdir(folder)) == ["crawl-001-part-000000.parquet", "crawl-001-part-000001.parquet"]


def test_a_full_part_is_moved_into_the_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART_GROUPS", 2)
    folder = tmp_path / "pages"
    dataset = opened(folder, urls=5)
    for expected in (0, 2, 2, 4, 4):
        fetch(dataset, 1)
        assert len(urls_in(folder)) == expected
    dataset.close()
    assert len(urls_in(folder)) == 5


def test_a_resumed_crawl_goes_on_where_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    dataset = opened(folder, urls=4)
    fetch(dataset, 1)
    dataset.close()
    dataset = opened(folder, resume=True)
    assert dataset.repairs == ((), ())
    assert dataset.frontier.counts() == Counts(todo=3, done=1)
    fetch(dataset, 3)
    dataset.close(is_finished=True)
    assert urls_in(folder) == [href(n) for n in range(4)]
    dataset = opened(folder, resume=True)  # of a finished crawl
    assert (dataset.is_finished, dataset.frontier.counts().todo) == (True, 0)
    dataset.close()


def test_the_next_crawl_of_a_dataset_asks_for_all_again(tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    dataset = opened(folder, urls=2)
    fetch(dataset, 2)
    dataset.close(is_finished=True)
    dataset = opened(folder, again=True)
    assert (dataset.generation, dataset.is_seeded, dataset.frontier.counts().todo) == (2, False, 2)
    assert [entry.etag for entry in dataset.frontier.windows([(HOST, 0, 9)])[0]] == ["e1", "e2"]
    fetch(dataset, 1)
    dataset.close()
    dataset = opened(folder, again=True)  # it was interrupted, so this continues it
    assert (dataset.generation, dataset.frontier.counts()) == (2, Counts(todo=1, done=1))
    fetch(dataset, 1)
    dataset.close(is_finished=True)
    assert urls_in(folder) == [href(0)] * 2 + [href(1)] * 2
    assert sorted(pl.scan_parquet(folder / "crawl-002-*.parquet").collect()["url"]) == [href(0), href(1)]


def test_the_next_crawl_begins_with_a_new_part_after_a_kill_at_the_end_of_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    dataset = opened(folder, urls=2)
    dataset.set_seeded("2")
    fetch(dataset, 2)
    dataset._folder_lock.release()  # as ``kill -9`` does: all is done, and nothing is closed
    dataset.frontier.close()
    dataset = opened(folder, again=True)
    assert (dataset.generation, urls_in(folder)) == (2, [href(0), href(1)])
    fetch(dataset, 2)
    dataset.close(is_finished=True)
    for generation in (1, 2):
        found = pl.scan_parquet(folder / f"crawl-00{generation}-*.parquet").collect()
        assert sorted(found["url"]) == [href(0), href(1)]


def test_a_resume_with_other_seeds_is_refused_and_the_next_crawl_may_have_others(tmp_path: Path) -> None:
    dataset = opened(tmp_path / "pages", urls=1)
    assert not dataset.is_seeded
    dataset.set_seeded("1 URL")
    dataset.set_seeded("1 URL")
    assert dataset.is_seeded
    with pytest.raises(
        CrawlMismatch, match="pages was begun with seeds '1 URL', got '2 URLs'; resume it with the same"
    ):
        dataset.set_seeded("2 URLs")
    dataset.close(is_finished=True)
    dataset = opened(tmp_path / "pages", again=True)
    dataset.set_seeded("2 URLs")
    dataset.close()


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(CrawlNotSaved, match="lock could not be written: No locks available"):
        opened(tmp_path / "pages")


def test_one_process_at_a_time(tmp_path: Path) -> None:
    dataset = opened(tmp_path / "pages")
    with pytest.raises(CrawlRunning, match=f"process {os.getpid()} is crawling into .*pages; wait") as caught:
        opened(tmp_path / "pages", resume=True)
    assert caught.value.pid == os.getpid()
    dataset.close()
    opened(tmp_path / "pages", resume=True).close()


def test_a_crawl_that_is_there_is_not_begun_anew(tmp_path: Path) -> None:
    opened(tmp_path / "pages").close()
    with pytest.raises(CrawlFolderRefused) as caught:
        opened(tmp_path / "pages")
    ways = "continue it with resume=True (--resume), fetch all again with again=True (--again)"
    remove = f"remove {tmp_path / 'pages'} and {tmp_path / 'pages.crawl'}"
    assert caught.value.reason == f"there is a crawl already; {ways}, or {remove}"


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_with_other_files_is_refused(tmp_path: Path, *, resume: bool) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(
        CrawlFolderRefused, match=r"no frontier of a crawl beside it \(.*\); give an empty folder or a new"
    ):
        opened(tmp_path, resume=resume)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not tmp_path.with_name(tmp_path.name + ".crawl").exists()


def test_a_resume_with_other_arguments_names_the_first(tmp_path: Path) -> None:
    opened(tmp_path / "pages").close()
    with pytest.raises(CrawlMismatch, match="pages was begun with seeds 'abc', got 'abd'; resume it with the same"):
        Dataset.open(tmp_path / "pages", SCHEMA, {"seeds": "abd"}, resume=True)
    with pytest.raises(CrawlMismatch, match="with column 'n' 'Int64', got 'absent'"):
        Dataset.open(tmp_path / "pages", pl.Schema({"url": pl.String}), {"seeds": "abc"}, resume=True)
    for text, changed in {
        "column 'n' 'Int64', got 'Float64'": {**SCHEMA, "n": pl.Float64},
        "column 'm' 'absent', got 'Int8'": {**SCHEMA, "m": pl.Int8},
        "column 'url' 'String', got 'n'": dict(reversed(SCHEMA.items())),
    }.items():
        with pytest.raises(CrawlMismatch, match=text):
            Dataset.open(tmp_path / "pages", pl.Schema(changed), {"seeds": "abc"}, resume=True)
    with pytest.raises(CrawlMismatch, match="with depth 'absent', got '3'"):
        Dataset.open(tmp_path / "pages", SCHEMA, {"seeds": "abc", "depth": "3"}, resume=True)
    opened(tmp_path / "pages", resume=True).close()


def test_rows_have_to_be_those_of_the_dataset_and_one_for_each_url(tmp_path: Path) -> None:
    dataset = opened(tmp_path / "pages", urls=2)
    with pytest.raises(FrameMismatch, match="1 column missing: n"):
        dataset.commit(pl.DataFrame({"url": ["a"]}), [Done(1)])
    with pytest.raises(BadArgument, match="done must be one for each of 0 rows, got '1 entry'"):
        dataset.commit(pl.DataFrame(schema=SCHEMA), [Done(1)])
    fetch(dataset, 2)
    dataset.close()
    with pytest.raises(BadArgument, match="the dataset must be one that is open"):
        dataset.commit(pl.DataFrame(schema=SCHEMA), [])
