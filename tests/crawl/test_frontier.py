"""The frontier: each URL once, windows in the order of discovery, transactions, and other people's databases."""

from __future__ import annotations

import sqlite3
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import pytest

from greendata.crawl import frontier as module
from greendata.crawl.frontier import Counts, Done, Entry, Frontier, Link, _Recent
from greendata.errors import BadArgument, CrawlFolderRefused, CrawlNotSaved
from tests.support.processes import run_python

pytestmark = pytest.mark.once("patched")  # native calls in the calling thread

HOST = "https://a.example:443"


def link(path: str, host: str = "a.example", depth: int = 0) -> Link:
    return (f"https://{host}/{path}", f"https://{host}:443", depth)


@pytest.fixture
def frontier() -> Iterator[Frontier]:
    made = Frontier.temporary()
    yield made
    made.close()


def todo(frontier: Frontier, origin: str = HOST, after: int = 0, limit: int = 100) -> list[Entry]:
    [window] = frontier.windows([(origin, after, limit)])
    return window


def test_a_url_is_added_once_and_keeps_its_first_depth(frontier: Frontier) -> None:
    assert frontier.add([link("1", depth=1), link("1", depth=0), link("2", depth=2)]) == {HOST}
    assert frontier.add([link("2"), link("1")]) == set()
    assert [(entry.href, entry.depth) for entry in todo(frontier)] == [
        ("https://a.example/1", 1),
        ("https://a.example/2", 2),
    ]
    assert frontier.counts() == Counts(todo=2, done=0)


def test_urls_with_equal_checksums_are_different_urls(frontier: Frontier) -> None:
    same = [link("plumless"), link("buckeroo")]
    assert crc32(same[0][0].encode()) == crc32(same[1][0].encode())
    assert frontier.add(same) == {HOST}
    assert frontier.add([*same, link("x")]) == {HOST}
    assert [entry.href[-8:] for entry in todo(frontier)[:2]] == ["plumless", "buckeroo"]
    assert frontier.counts().todo == 3


def test_only_origins_with_new_urls_are_returned(frontier: Frontier) -> None:
    frontier.add([link("1"), link("1", "b.example")])
    assert frontier.add([link("1"), link("2", "b.example"), link("1", "c.example")]) == {
        "https://b.example:443",
        "https://c.example:443",
    }


def test_windows_go_on_after_an_id_and_leave_out_what_is_done(frontier: Frontier) -> None:
    frontier.add([link(str(n)) for n in range(5)])
    first = todo(frontier, limit=2)
    assert [entry.id for entry in first] == [1, 2]
    frontier.commit([Done(3)])
    assert [entry.id for entry in todo(frontier, after=first[-1].id, limit=2)] == [4, 5]
    assert frontier.windows([(HOST, 4, 9), ("https://nowhere.example:443", 0, 9)]) == [
        [Entry(5, "https://a.example/4", 0, None, None)],
        [],
    ]


def test_more_urls_than_one_slice_keep_their_order(frontier: Frontier) -> None:
    frontier.add(link(str(n)) for n in range(2_500))
    assert [entry.href for entry in todo(frontier, limit=5_000)] == [link(str(n))[0] for n in range(2_500)]


def test_each_url_is_added_once_when_more_are_offered_than_are_remembered(
    frontier: Frontier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECENT", module.SLICE)
    offered = [link(str(n)) for n in range(2_500)]
    for _ in range(3):
        frontier.add([*offered, *offered[::-1]])
    assert frontier.counts() == Counts(todo=2_500, done=0)
    assert [entry.href for entry in todo(frontier, limit=5_000)] == [href for href, _, _ in offered]


def test_origins_are_those_with_something_to_do_page_by_page(frontier: Frontier) -> None:
    frontier.add([link("1", name) for name in ("c.example", "a.example", "b.example")])
    assert frontier.origins("", 2) == ["https://a.example:443", "https://b.example:443"]
    assert frontier.origins("https://b.example:443", 2) == ["https://c.example:443"]
    [entry] = todo(frontier, "https://b.example:443")
    frontier.commit([Done(entry.id)])
    assert frontier.origins("", 9) == ["https://a.example:443", "https://c.example:443"]


@pytest.mark.parametrize("done", [[Done(1), Done(1)], [Done(2)], [Done(9)]], ids=["twice", "done already", "unknown"])
def test_what_is_not_to_do_cannot_be_done(frontier: Frontier, done: list[Done]) -> None:
    frontier.add([link("1"), link("2")])
    frontier.commit([Done(2)])
    with pytest.raises(BadArgument, match="done must be pending entries, each once"):
        frontier.commit(done, [link("3")])
    assert frontier.counts() == Counts(todo=1, done=1)
    assert frontier.add([link("3")]) == {HOST}  # the failed transaction has not added it


def test_validators_return_when_all_begins_again(frontier: Frontier) -> None:
    frontier.add([link("1"), link("2"), link("3")])
    frontier.commit([Done(1, etag='W/"\xe9"'), Done(2, last_modified="Mon, 01 Jan 2024 00:00:00 GMT"), Done(3)])
    frontier.begin_again({})
    assert [entry[3:] for entry in todo(frontier)] == [
        ('W/"\xe9"', None),
        (None, "Mon, 01 Jan 2024 00:00:00 GMT"),
        (None, None),
    ]
    frontier.commit([Done(1)])  # its new response has none
    frontier.begin_again({})
    assert todo(frontier)[0].etag is None


def test_it_is_all_there_when_opened_again(tmp_path: Path) -> None:
    first = Frontier(tmp_path / "frontier.sqlite")
    first.add([link("1"), link("2")])
    first.commit([Done(1, "e")])
    first.close()
    second = Frontier(tmp_path / "frontier.sqlite")
    assert second.counts() == Counts(todo=1, done=1)
    assert second.add([link("1"), link("2")]) == set()
    second.close()


def test_a_temporary_frontier_has_no_name_on_disk(tmp_path: Path) -> None:
    """So nothing of it is left, even after ``kill -9``."""
    code = f"""
        import os
        from greendata.crawl.frontier import Frontier

        frontier = Frontier.temporary()
        frontier.add((f"https://a.example/{{n:0200}}", "https://a.example:443", 0) for n in range(100_000))
        assert [*os.scandir({str(tmp_path)!r})] == []
        descriptors = [f"/proc/self/fd/{{number}}" for number in range(3, 50)]
        files = [os.readlink(descriptor) for descriptor in descriptors if os.path.lexists(descriptor)]
        print({{file.rpartition(" ")[2] for file in files if file.startswith({str(tmp_path)!r})}})
        frontier.close()
        frontier.close()
        """
    ended = run_python(code, env={"SQLITE_TMPDIR": str(tmp_path)})
    assert (ended.returncode, ended.stdout) == (0, "{'(deleted)'}\n"), ended.stderr  # it has outgrown the memory


def test_databases_of_others_are_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "frontier.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE t (a)")
    other.close()
    with pytest.raises(CrawlFolderRefused, match="it is a database of another program; give another folder"):
        Frontier(path)
    path.write_bytes(b"no database at all, but long enough to look like a file of one" * 9)
    with pytest.raises(CrawlFolderRefused, match="it is damaged, or not a frontier"):
        Frontier(path)


def test_a_frontier_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "frontier.sqlite"
    Frontier(path).close()
    changed = sqlite3.connect(path)
    changed.execute("PRAGMA user_version = 7")
    changed.close()
    with pytest.raises(CrawlFolderRefused, match="a frontier of version 7, and this greendata knows version 1; finish"):
        Frontier(path)


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CrawlNotSaved, match=r"frontier\.sqlite could not be written: unable to open"):
        Frontier(tmp_path / "missing" / "frontier.sqlite")


def test_long_urls_are_known_again_and_take_no_memory(frontier: Frontier) -> None:
    recent = _Recent()
    tracemalloc.start()
    try:
        for _ in range(2):
            first = [recent.first_offer(f"{'x' * 8_000}{number}") for number in range(1_000)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert first == [False] * 1_000
    assert peak < 1 << 20
    frontier.add([link("x" * 8_000), link("x" * 8_000)])
    frontier.add([link("x" * 8_000)])
    assert frontier.counts() == Counts(1, 0)
