"""Crawls that are killed and resumed, as programs.

``python -m tests.support.crashes steps FOLDER`` wraps the calls by which a process changes files: those of `os`, and
the statements of SQLite. The process that runs the crawl is killed before the n-th of them, for each n until it ends by
itself; then the resumed crawl is killed as well, and the third one has to bring it to its end. It prints a line of JSON
for each n.

``python -m tests.support.crashes again FOLDER`` does the same with the second crawl of a folder, in which the first has
ended; ``damaged`` does it with a crawl that has ended, but whose first part was then cut short.

``python -m tests.support.crashes moments FOLDER NUMBER`` kills crawls at random moments, that many times in all.

Nothing of Polars has run in these programs before they fork.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from greendata.crawl import dataset as module
from greendata.crawl.dataset import Dataset
from greendata.crawl.frontier import Done

__all__ = ("BATCH", "HOST", "SCHEMA", "crawl", "fetched", "href", "problem_of", "watched")

SCHEMA = pl.Schema({"url": pl.String, "text": pl.String})
HOST = "https://a.example:443"
BATCH = 2  # pages in a commit
PAGES = 7  # of the site; the first three are seeds, and each page links to the one three further on
LONG = 101  # pages of a crawl that is killed at random moments
SEEDS = 3
GROUPS = 2  # commits in a part

Effect = Callable[[str], bool]  # told what is going to happen; True kills the process during it


def href(number: int) -> str:
    """Return the URL of a page."""
    return f"https://a.example/{number}"


def crawl(home: Path, pages: int = PAGES, batch: int = BATCH, text: str = "", *, again: bool = False) -> int:
    """Crawl the site from where the crawl in *home* stands to its end, and write a line for each page fetched.

    Return the number of that crawl: 1 for the first into the folder.
    """
    dataset = Dataset.open(home / "pages", SCHEMA, {"site": str(pages)}, resume=True, again=again)
    if not dataset.is_seeded:
        dataset.frontier.add((href(n), HOST, 0) for n in range(SEEDS))
        dataset.set_seeded(f"{SEEDS} URLs")
    with (home / "fetched").open("a", buffering=1) as log:
        while todo := dataset.frontier.windows([(HOST, 0, batch)])[0]:
            for entry in todo:
                log.write(f"{entry.href}\n")
            rows = pl.DataFrame({"url": [entry.href for entry in todo], "text": [text] * len(todo)}, schema=SCHEMA)
            numbers = [int(entry.href.rpartition("/")[2]) for entry in todo]
            links = [(href(n + SEEDS), HOST, 1) for n in numbers if n + SEEDS < pages]
            dataset.commit(rows, [Done(entry.id) for entry in todo], links)
    dataset.close(is_finished=True)
    return dataset.generation


def crawl_twice(home: Path) -> None:
    """Crawl the site to its end, and then once more: whatever of that has been done is not done again."""
    if crawl(home) == 1:
        crawl(home, again=True)


def fetched(home: Path) -> list[str]:
    """Return the URLs in the order in which they were fetched. The last line may be cut."""
    path = home / "fetched"
    return path.read_text().split("\n")[:-1] if path.exists() else []


def problem_of(
    home: Path, crashes: int, pages: int = PAGES, batch: int = BATCH, *, is_over: bool, crawls: int = 1
) -> str | None:
    """Return what is wrong with the dataset after that many *crashes* and *crawls*, or None."""
    folder = home / "pages"
    if not folder.exists() or not os.listdir(folder):
        return "no dataset" if is_over else None
    found = pl.scan_parquet(folder, include_file_paths="file").collect()
    rows = found.select("url", pl.col("file").str.extract(r"crawl-(\d+)-part"))
    if doubled := rows.height - rows.n_unique():
        return f"{doubled} doubled"
    if is_over and rows.height != pages * crawls:
        return f"{pages * crawls - rows.height} missing"
    if len(fetched(home)) > pages * crawls + crashes * batch:
        return f"{len(fetched(home)) - pages * crawls} fetched again"
    return None


@contextmanager
def watched(effect: Effect) -> Iterator[None]:
    """Report each effect on files to *effect* within the block."""

    def wrapped(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if (name != "open" or args[1] & os.O_CREAT) and effect(name):
                if name == "pwrite":  # half of it arrives
                    original(args[0], args[1][: len(args[1]) // 2], args[2])
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **options)

        return call

    class Connection(sqlite3.Connection):
        def execute(self, statement: str, *args: Any) -> sqlite3.Cursor:
            if statement.startswith(("COMMIT", "PRAGMA journal_mode")) and effect(statement):
                os.kill(os.getpid(), signal.SIGKILL)
            return super().execute(statement, *args)

    names = ("fsync", "ftruncate", "mkdir", "open", "pwrite", "replace", "unlink")
    originals = {name: getattr(os, name) for name in names}
    connect = sqlite3.connect
    for name, original in originals.items():
        setattr(os, name, wrapped(name, original))
    sqlite3.connect = lambda *args, **options: connect(*args, factory=Connection, **options)
    try:
        yield
    finally:
        sqlite3.connect = connect
        for name, original in originals.items():
            setattr(os, name, original)


class Case(NamedTuple):
    """A crawl that is to be killed.

    Attributes:
        work: crawls from wherever a crawl was killed to the end.
        crawls: how many crawls the dataset has at the end.
        prepare: makes what is there before; None for nothing.
        is_readable: the dataset can be read at every moment.
    """

    work: Callable[[Path], object]
    crawls: int = 1
    prepare: Callable[[Path], object] | None = None
    is_readable: bool = True

    def problem_of(self, home: Path, crashes: int, *, is_over: bool) -> str | None:
        """Return what is wrong with the dataset, or None."""
        if not (is_over or self.is_readable):
            return None
        return problem_of(home, crashes, is_over=is_over, crawls=self.crawls)


def crawl_and_damage(home: Path) -> None:
    """Crawl the site, cut the first part, and add a file with the name of a part."""
    module.PART_GROUPS = GROUPS
    crawl(home)
    (home / "fetched").unlink()
    first, second = (home / "pages" / f"crawl-001-part-00000{number}.parquet" for number in (1, 2))
    os.truncate(first, first.stat().st_size // 2)
    shutil.copy(second, second.with_name("crawl-001-part-000009.parquet"))


CASES = {
    "steps": Case(crawl),
    "again": Case(crawl_twice, 2, crawl),
    "damaged": Case(crawl, 1, crawl_and_damage, is_readable=False),
}


def killed_at(home: Path, number: int, case: Case, report: Callable[[str], None]) -> None:
    """Crawl, and be killed at the effect of that *number*."""
    module.PART_GROUPS = GROUPS
    seen = 0

    def effect(name: str) -> bool:
        nonlocal seen
        seen += 1
        if seen == number:
            report(name)
        return seen == number

    with watched(effect):
        case.work(home)


def in_child(work: Callable[[Callable[[str], None]], None]) -> tuple[int, str]:
    """Run *work* in a forked process; return how it ended, and what it reported."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            work(lambda text: os.write(writing, text.encode()) and None)
        except BaseException as error:  # noqa: BLE001 - it is the parent's to tell
            os.write(writing, f"{type(error).__name__}: {error}".encode())
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), told


def steps(folder: Path, case: Case) -> None:
    """Kill a crawl at each of its effects."""
    if case.prepare is not None:
        (folder / "first").mkdir()
        in_child(partial(prepared, folder / "first", case.prepare))
    number = 1
    while kill_and_resume(folder, number, case):
        number += 1


def prepared(home: Path, prepare: Callable[[Path], object], report: Callable[[str], None]) -> None:
    """Make what is there before a crawl that is to be killed."""
    prepare(home)
    report("done")


def kill_and_resume(folder: Path, number: int, case: Case) -> bool:
    """Kill a crawl at the effect of that *number*, and resume it. Return False if it has ended before."""
    home = folder / str(number)
    if case.prepare is None:
        home.mkdir()
    else:
        shutil.copytree(folder / "first", home)
    status, effect = in_child(partial(killed_at, home, number, case))
    if status == 0:
        return False
    again, second = in_child(partial(resumed, home, number, case))
    last, told = in_child(partial(ended, home, case))
    line = {"number": number, "effect": effect, "second": second, "ends": [status, again, last], "problem": told}
    print(json.dumps(line), flush=True)
    return True


def resumed(home: Path, number: int, case: Case, report: Callable[[str], None]) -> None:
    """Check what was left, and be killed at an effect of the resumed crawl: for each *number* a different one."""
    if problem := case.problem_of(home, 1, is_over=False):
        raise AssertionError(problem)
    killed_at(home, 1 + number * 7 % 23, case, report)


def ended(home: Path, case: Case, report: Callable[[str], None]) -> None:
    """Resume the crawl, and report what is wrong at its end."""
    if problem := case.problem_of(home, 2, is_over=False):
        raise AssertionError(problem)
    module.PART_GROUPS = GROUPS
    case.work(home)
    report(case.problem_of(home, 2, is_over=True) or "")


def moments(folder: Path, number: int) -> None:
    """Kill crawls at random moments until there were *number* kills."""
    chance = random.Random(number)
    kills = crawls = again = 0
    while kills < number:
        crawls += 1
        home = folder / str(crawls)
        home.mkdir()
        crashes = 0
        while not ends(home, crashes, chance.uniform(0.0, 0.3)):
            crashes += 1
        again += len(fetched(home)) - LONG
        kills += crashes
    print(json.dumps({"kills": kills, "crawls": crawls, "pages": crawls * LONG, "fetched_again": again}), flush=True)


def ends(home: Path, crashes: int, seconds: float) -> bool:
    """Resume the crawl, and kill it after *seconds*. Return whether it came to its end before."""

    def work() -> None:
        if problem := problem_of(home, crashes, LONG, is_over=False):
            raise AssertionError(problem)
        crawl(home, LONG, text="text " * 500)
        if problem := problem_of(home, crashes, LONG, is_over=True):
            raise AssertionError(problem)

    child = os.fork()
    if not child:
        try:
            work()
        except BaseException:  # noqa: BLE001 - it is shown, and the status says it
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, -signal.SIGKILL):
        raise SystemExit(f"crawl {home} after {crashes} crashes: status {status}")
    return status == 0


if __name__ == "__main__":
    if sys.argv[1] == "moments":
        moments(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        steps(Path(sys.argv[2]), CASES[sys.argv[1]])
