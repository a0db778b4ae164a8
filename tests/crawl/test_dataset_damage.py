"""A crawl's dataset whose files were damaged, removed or joined by others, and folders that cannot be written to."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest

from greendata.crawl import dataset as module
from greendata.crawl.dataset import Dataset
from greendata.crawl.frontier import Counts, Done
from greendata.errors import CrawlFolderRefused, CrawlNotSaved
from tests.support.crashes import HOST, SCHEMA, href
from tests.support.processes import run_python

pytestmark = pytest.mark.once("patched")  # native calls in the calling thread

URLS = 6  # three parts of two commits with one page each
EVERYTHING = [href(n) for n in range(URLS)]
SECOND = "crawl-001-part-000002.parquet"


@pytest.fixture(autouse=True)
def _short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART_GROUPS", 2)


def opened(folder: Path) -> Dataset:
    return Dataset.open(folder, SCHEMA, resume=True)


def fetch(dataset: Dataset, pages: int) -> None:
    for _ in range(pages):
        [[entry]] = dataset.frontier.windows([(HOST, 0, 1)])
        dataset.commit(pl.DataFrame({"url": [entry.href], "text": ["x" * 999]}, schema=SCHEMA), [Done(entry.id)])


def crawled(home: Path, pages: int) -> Path:
    """Fetch that many pages, and leave the folder as ``kill -9`` would: nothing is closed."""
    folder = home / "pages"
    dataset = opened(folder)
    dataset.frontier.add((url, HOST, 0) for url in EVERYTHING)
    fetch(dataset, pages)
    dataset._folder_lock.release()
    dataset.frontier.close()
    return folder


def finish(dataset: Dataset) -> list[str]:
    fetch(dataset, dataset.frontier.counts().todo)
    dataset.close(is_finished=True)
    return sorted(pl.scan_parquet(dataset.folder).collect()["url"])


def state(folder: Path) -> Path:
    return folder.with_name("pages.crawl")


def test_a_part_that_grows_is_cut_to_its_recorded_length(tmp_path: Path) -> None:
    folder = crawled(tmp_path, 3)
    with (state(folder) / "part").open("ab") as file:
        file.write(b"half of a row group" * 9_999)  # more than what is appended later
    dataset = opened(folder)
    assert dataset.repairs == ((), ())
    assert dataset.frontier.counts() == Counts(todo=3, done=3)
    assert finish(dataset) == EVERYTHING


@pytest.mark.parametrize("left", [0, 10, -1])
def test_a_part_that_grows_and_was_cut_short_is_fetched_again(tmp_path: Path, left: int) -> None:
    folder = crawled(tmp_path, 3)
    part = state(folder) / "part"
    os.truncate(part, left if left >= 0 else part.stat().st_size - 1)
    dataset = opened(folder)
    assert dataset.repairs.fetched_again == (SECOND,)
    assert dataset.frontier.counts() == Counts(todo=4, done=2)
    assert finish(dataset) == EVERYTHING


def test_a_part_that_grows_and_was_zeroed_is_fetched_again(tmp_path: Path) -> None:
    folder = crawled(tmp_path, 3)
    part = state(folder) / "part"
    part.write_bytes(b"\0" * part.stat().st_size)  # as some file systems leave it when the power fails
    dataset = opened(folder)
    assert dataset.repairs.fetched_again == (SECOND,)
    assert finish(dataset) == EVERYTHING


@pytest.mark.parametrize("length", [0, 5, None], ids=["emptied", "cut short", "removed"])
def test_a_part_of_the_dataset_that_is_lost_is_fetched_again(tmp_path: Path, length: int | None) -> None:
    folder = crawled(tmp_path, 5)
    if length is None:
        (folder / SECOND).unlink()
    else:
        os.truncate(folder / SECOND, length)
    dataset = opened(folder)
    assert dataset.repairs == ((SECOND,), ())
    assert dataset.frontier.counts() == Counts(todo=3, done=3)
    assert sorted(pl.scan_parquet(folder).collect()["url"]) == EVERYTHING[:2]
    assert finish(dataset) == EVERYTHING


def test_an_opening_that_fails_leaves_nothing_open(
    tmp_path: Path, keeps_descriptors: Callable[[], AbstractContextManager[None]]
) -> None:
    folder = crawled(tmp_path, 1)  # so that a part grows
    for file in folder.iterdir():
        file.unlink()
    (state(folder) / "schema").mkdir()
    with keeps_descriptors(), pytest.raises(CrawlNotSaved, match="schema could not be written"):
        opened(folder)
    (state(folder) / "schema").rmdir()
    opened(folder).close()


def test_a_part_that_was_changed_is_not_touched(tmp_path: Path) -> None:
    folder = crawled(tmp_path, 5)
    with (folder / SECOND).open("ab") as file:
        file.write(b"PAR1")
    with pytest.raises(CrawlFolderRefused, match=f"{SECOND} was changed after the crawl wrote it; delete it to have"):
        opened(folder)
    (folder / SECOND).unlink()
    assert finish(opened(folder)) == EVERYTHING


def test_a_foreign_file_is_named_and_left_alone(tmp_path: Path) -> None:
    folder = crawled(tmp_path, 5)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(CrawlFolderRefused, match=r"pages: it has 'notes\.txt', which is not part of this crawl; move"):
        opened(folder)
    assert (folder / "notes.txt").read_text() == "mine"
    (folder / "notes.txt").unlink()
    assert finish(opened(folder)) == EVERYTHING


def test_a_part_that_the_frontier_does_not_know_is_set_aside(tmp_path: Path) -> None:
    folder = crawled(tmp_path, 2)
    shutil.copytree(state(folder), tmp_path / "copy")
    dataset = opened(folder)
    fetch(dataset, 2)
    dataset.close()
    shutil.rmtree(state(folder))
    (tmp_path / "copy").rename(state(folder))  # an older state was put back
    dataset = opened(folder)
    assert dataset.repairs == ((), (SECOND,))
    assert dataset.repairs.text() == f"1 file was set aside that this crawl did not write: {SECOND}"
    assert (state(folder) / "set-aside" / SECOND).exists()
    assert finish(dataset) == EVERYTHING


def test_old_parts_of_an_earlier_crawl_may_be_taken_away(tmp_path: Path) -> None:
    folder = crawled(tmp_path, 5)
    assert finish(opened(folder)) == EVERYTHING
    dataset = Dataset.open(folder, SCHEMA, again=True)
    fetch(dataset, 1)
    dataset.close()
    (folder / SECOND).unlink()
    dataset = Dataset.open(folder, SCHEMA, again=True)
    assert (dataset.generation, dataset.repairs) == (2, ((), ()))
    dataset.close()


def test_a_lost_folder_is_made_again_and_all_is_fetched_again(tmp_path: Path) -> None:
    folder = crawled(tmp_path, 4)
    shutil.rmtree(folder)
    dataset = opened(folder)
    assert dataset.repairs.text().startswith("2 parts were cut short or removed, and their pages are fetched again: c")
    assert finish(dataset) == EVERYTHING


def test_a_lost_frontier_is_said(tmp_path: Path) -> None:
    folder = crawled(tmp_path, 4)
    shutil.rmtree(state(folder))
    with pytest.raises(CrawlFolderRefused, match=re.escape("no frontier of a crawl beside it (pages.crawl)")):
        opened(folder)


def test_a_clock_that_was_set_back_changes_nothing(tmp_path: Path) -> None:
    folder = crawled(tmp_path, 3)
    for path in [*folder.iterdir(), *state(folder).iterdir()]:
        os.utime(path, (4e9, 4e9))  # all was written in the year 2096
    dataset = opened(folder)
    assert dataset.repairs == ((), ())
    assert finish(dataset) == EVERYTHING


def test_paths_that_cannot_be_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, text in {
        "/": "it is the root of the file system; give a folder below it",
        tmp_path / "missing" / "pages": f"there is no folder {tmp_path / 'missing'}; create it first",
        tmp_path / "file": "it is a file; give the path of a folder",
    }.items():
        with pytest.raises(CrawlFolderRefused, match=re.escape(text)):
            Dataset.open(path, SCHEMA)


def test_a_link_to_a_folder_is_the_folder(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "pages").symlink_to(tmp_path / "disk")
    dataset = Dataset.open(tmp_path / "pages", SCHEMA)
    dataset.close()
    assert (tmp_path / "disk.crawl").is_dir()


FULL = """
    import resource, sys
    import polars as pl
    from pathlib import Path
    from greendata.errors import CrawlNotSaved
    from tests.support.crashes import crawl, problem_of

    home, limit = Path(sys.argv[1]), int(sys.argv[2])
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        crawl(home, 40, 5, text="".join(map(chr, range(32, 3_000))))
    except CrawlNotSaved as error:
        print(error)
        raise SystemExit(9 if problem_of(home, 1, 40, 5, is_over=False) else 3)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(problem_of(home, 4, 40, 5, is_over=True))
"""


@pytest.mark.parametrize("limit", [100, 4_200, 20_000, 50_000, 90_000])
def test_files_that_cannot_grow_end_the_crawl_and_lose_nothing(tmp_path: Path, limit: int) -> None:
    code = ["-c", "import textwrap; exec(textwrap.dedent('''" + FULL + "'''))", str(tmp_path)]
    ended = run_python([*code, str(limit)])
    assert ended.returncode == 3, ended.stderr
    assert "could not be written: " in ended.stdout
    assert "mend that, and resume the crawl" in ended.stdout
    ended = run_python([*code, "0"])
    assert (ended.returncode, ended.stdout) == (0, "None\n"), ended.stderr


def test_a_full_disk_ends_the_crawl_and_loses_nothing(tmp_path: Path) -> None:
    """A file system of 400 kB in memory, mounted in a name space of its own."""
    inner = f"mount -t tmpfs -o size=400k none {tmp_path} || exit 77\n" + "".join(
        f'{sys.executable} -c "$CODE" {tmp_path} 0; echo "status $?"\n{after}\n'
        for after in (f"mount -o remount,size=9m {tmp_path}", "")
    )
    environment = {**os.environ, "CODE": "import textwrap; exec(textwrap.dedent('''" + FULL + "'''))"}
    ended = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", inner],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if ended.returncode == 77 or "unshare" in ended.stderr:
        pytest.skip(f"no file system can be mounted here: {ended.stderr.strip()}")
    lines = ended.stdout.splitlines()
    assert "could not be written: " in lines[0], ended.stderr
    assert lines[1:] == ["status 3", "None", "status 0"], ended.stderr


READ_ONLY = """
    import os, sys
    from pathlib import Path
    from greendata.crawl.dataset import Dataset
    from tests.support.crashes import SCHEMA

    if not os.getuid():
        os.setuid(65534)
    Dataset.open(sys.argv[1], SCHEMA, resume=True)
"""


@pytest.mark.parametrize("which", ["home", "pages", "pages.crawl", "file"])
def test_a_read_only_folder_is_named(which: str) -> None:
    with TemporaryDirectory() as folder:  # the folders of pytest are for its own user only
        _check_read_only(Path(folder), which)


def _check_read_only(home: Path, which: str) -> None:
    if which != "home":
        crawled(home, 3)
    for path in (home, *home.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    locked = {"home": home, "file": home / "pages.crawl" / "frontier.sqlite"}.get(which, home / which)
    locked.chmod(0o555 if locked.is_dir() else 0o444)
    ended = run_python(["-c", "import textwrap; exec(textwrap.dedent('''" + READ_ONLY + "'''))", str(home / "pages")])
    locked.chmod(0o777)
    assert "CrawlNotSaved" in ended.stderr.splitlines()[-1], ended.stderr
    assert str(home) in ended.stderr.splitlines()[-1]
    dataset = opened(home / "pages")
    dataset.close()


HOLDER = """
    import os, sys, time
    from greendata.crawl.dataset import Dataset
    from tests.support.crashes import SCHEMA

    dataset = Dataset.open(sys.argv[1], SCHEMA, resume=True)
    child = os.fork()
    if not child:
        print(os.getpid(), flush=True)  # it has let go of the lock of its parent
        sys.stdin.read()
        os._exit(0)
    time.sleep(600)
"""


def test_another_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    code = "import textwrap; exec(textwrap.dedent('''" + HOLDER + "'''))"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "pages")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline().strip().isdigit()  # it has a child that outlives it
            with pytest.raises(RuntimeError, match=f"process {holder.pid} is crawling into "):
                opened(tmp_path / "pages")
        finally:
            holder.send_signal(signal.SIGKILL)
            holder.wait()
        opened(tmp_path / "pages").close()


def test_after_a_failed_commit_only_closing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = crawled(tmp_path, 1)
    dataset = opened(folder)

    def full(*args: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(CrawlNotSaved, match=r"pages\.crawl could not be written: No space left on device; mend"):
            fetch(dataset, 1)
    with pytest.raises(ValueError, match="the dataset must be one that is open"):
        fetch(dataset, 1)
    dataset.close()
    assert finish(opened(folder)) == EVERYTHING
