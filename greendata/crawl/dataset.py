"""`Dataset`: the pages of a crawl in a folder of Parquet files, in which each URL is one row, even after ``kill -9``.

The folder has nothing but complete Parquet files, so ``polars.scan_parquet(folder)`` works at every moment; the first
file has no rows, only the schema. Everything else that a crawl needs is in a second folder beside it, with ".crawl" at
the end of its name, because Polars reads every file below a folder that it scans. ::

    pages/        crawl-001-part-000000.parquet, crawl-001-part-000001.parquet, ...
    pages.crawl/  lock, frontier.sqlite, part: the file that grows

A commit stores some pages in two steps:

1. Their row group and a new footer are appended to the growing part, which is synced. The old footer remains before it.
2. One transaction of the frontier records the pages as done, their links, and the length of the part.

A full part is renamed into the dataset, the folders are synced, and the frontier records that. A process can end
between any two of these steps. When the crawl is resumed, the part is cut to its recorded length, which makes it what
it was after the last complete commit, and a part that was renamed already is recorded. So a page is a row exactly if
it is done. Nothing on disk says what is being fetched: a page is pending until it is done.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple
from weakref import WeakSet

import polars as pl

from greendata.crawl.frontier import Done, Frontier, Link, PartFile
from greendata.errors import BadArgument, CrawlFolderRefused, CrawlMismatch, CrawlNotSaved, CrawlRunning, FrameMismatch
from greendata.errors.notes import shortened
from greendata.errors.plural import counted
from greendata.formats.row_groups import MAGIC, RowGroups
from greendata.formats.text_encode import check_writable
from greendata.hub import native
from greendata.hub.contexts import contextmanager

__all__ = ("Dataset", "Repairs")

PART_GROUPS = 64  # row groups in a part: all footers but the last are dead, and at 100 they are 15 percent of the file
PART_BYTES = 1 << 27  # bytes at which a part is full
_FRONTIER = "frontier.sqlite"
_SCHEMA_PART = 0  # the number of the part without rows
_NAME = re.compile(r"crawl-([0-9]{3,})-part-([0-9]{6,})\.parquet")


class Repairs(NamedTuple):
    """What `Dataset.open` found and repaired. None of this occurs after ``kill -9``.

    Attributes:
        fetched_again: the names of parts that were cut short or removed. Their pages are pending again.
        set_aside: the names of files that this crawl does not know although they have names of its parts. They are now
            in the folder "set-aside" beside the frontier.
    """

    fetched_again: tuple[str, ...]
    set_aside: tuple[str, ...]

    def text(self) -> str:
        """Return what was repaired as a sentence, or "" if nothing was.

        Example:
            >>> print(Repairs(("crawl-001-part-000002.parquet",), ()).text())
            1 part was cut short or removed, and its pages are fetched again: crawl-001-part-000002.parquet
        """
        sentences = []
        if self.fetched_again:
            parts = counted(len(self.fetched_again), "part was", "parts were")
            their = "its" if len(self.fetched_again) == 1 else "their"
            names = ", ".join(self.fetched_again)
            sentences.append(f"{parts} cut short or removed, and {their} pages are fetched again: {names}")
        if self.set_aside:
            files = counted(len(self.set_aside), "file was", "files were")
            sentences.append(f"{files} set aside that this crawl did not write: {', '.join(self.set_aside)}")
        return "; ".join(sentences)


class Dataset:
    """The folder of a crawl, opened for writing. Make one with `open`.

    The methods block: call them on workers. One call runs at a time; the others wait.

    Attributes:
        folder: the folder of the Parquet files.
        schema: the columns of its rows.
        frontier: the URLs of the crawl. Call its `Frontier.commit` only through `commit`.
        generation: the number of this crawl of the folder: 1 for the first.
        repairs: what was repaired when the folder was opened.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> home = TemporaryDirectory()
        >>> pages = Dataset.open(home.name + "/pages", pl.Schema({"url": pl.String}))
        >>> pages.frontier.add([("https://example.com/", "https://example.com:443", 0)])
        {'https://example.com:443'}
        >>> pages.commit(pl.DataFrame({"url": ["https://example.com/"]}), [Done(1)])
        set()
        >>> pages.close(is_finished=True)
        >>> pl.scan_parquet(home.name + "/pages").collect().item()
        'https://example.com/'
        >>> home.cleanup()
    """

    def __init__(self, folder: Path, schema: pl.Schema, lock: _FolderLock, frontier: Frontier) -> None:
        self.folder = folder
        self.schema = schema
        self.frontier = frontier
        self.generation = 1
        self.repairs = Repairs((), ())
        self._state = _state_of(folder)
        self._folder_lock = lock
        self._lock = native.allocate_lock()  # held by each call that changes something
        self._is_over = False  # written with the lock: closed, or a commit has failed
        self._number = 0  # of the part that grows, or of the last one
        self._part: _GrowingFile | None = None

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        schema: pl.Schema,
        settings: Mapping[str, str] | None = None,
        *,
        resume: bool = False,
        again: bool = False,
    ) -> Dataset:
        """Open the dataset in *folder* for this process alone, and repair what a crash has left.

        Args:
            folder: the folder of the dataset. Its parent must exist.
            schema: the columns of the rows.
            settings: what has to be the same when the crawl is resumed, such as its seeds: names and texts.
            resume: continue the crawl that is in the folder. Without one, begin it.
            again: as *resume*; but if that crawl has finished, begin the next one, with all of its URLs pending.

        Raises:
            NotWritable: Parquet has no form for a column.
            CrawlFolderRefused: neither *resume* nor *again*, and the folder is not empty; or it has foreign files, or
                the state of another version.
            CrawlMismatch: the crawl in the folder was begun with another schema or other *settings*.
            CrawlNotSaved: the folder cannot be written to.
            CrawlRunning: another process, or this one, has opened it already.
        """
        check_writable(schema, "parquet")
        path = Path(os.path.realpath(folder))
        if not path.name:
            raise CrawlFolderRefused(path, "it is the root of the file system; give a folder below it")
        state = _state_of(path)
        with _os_errors(path):
            _check_folder(path, state, may_continue=resume or again)  # before anything is created beside it
            _make_folders(path, state)
        lock = _FolderLock(path, state)
        try:
            # Check again, because from here on no other process can change the result.
            _check_folder(path, state, may_continue=resume or again)
            frontier = Frontier(state / _FRONTIER)
        except BaseException:
            lock.release()
            raise
        opened = cls(path, schema, lock, frontier)
        try:
            opened._check_settings(settings or {})
            with _os_errors(path):
                opened._recover()
                if again and opened.is_finished:
                    opened._begin_again()
        except BaseException:
            opened._release()
            raise
        return opened

    @property
    def is_finished(self) -> bool:
        """Whether this crawl has been finished, or has done all it knows."""
        settings = self.frontier.settings()
        return settings.get("is_finished") == "1" or (self.is_seeded and not self.frontier.counts().todo)

    @property
    def is_seeded(self) -> bool:
        """Whether `set_seeded` was called in this crawl. If not, all seeds have to be added, perhaps again."""
        return self.frontier.settings().get("is_seeded") == "1"

    def set_seeded(self, seeds: str) -> None:
        """Record that all seeds have been added to the frontier.

        Args:
            seeds: a text that says which: a digest, for example.

        Raises:
            CrawlMismatch: this crawl was begun with others.
        """
        stored = self.frontier.settings()
        if stored.get("is_seeded") == "1" and stored["seeds"] != seeds:
            raise CrawlMismatch(self.folder, "seeds", stored["seeds"], seeds)
        self.frontier.put_settings({"is_seeded": "1", "seeds": seeds})

    def commit(self, rows: pl.DataFrame, done: Sequence[Done], links: Iterable[Link] = ()) -> set[str]:
        """Store *rows*, record that *done* are done, and add those of *links* that are new: all of it or nothing.

        Args:
            rows: the pages, one row for each of *done*.
            done: the URLs of these rows.
            links: URLs that were found, in any number.

        Returns:
            The origins that have new URLs.

        Raises:
            FrameMismatch: *rows* have another schema than the dataset.
            BadArgument: not one row for each of *done*; one of them is done already; or the dataset is closed.
            CrawlNotSaved: the disk is full or broken. The dataset takes no more commits: close it, and resume later.
        """
        if rows.schema != self.schema:
            raise FrameMismatch(self.schema, rows.schema)
        if rows.height != len(done):
            raise BadArgument("done", counted(len(done), "entry", "entries"), f"one for each of {rows.height} rows")
        with self._lock:
            if self._is_over:
                raise BadArgument("the dataset", "a closed one", "one that is open")
            with self._ending_on_failure():
                if not rows.height:
                    return self.frontier.commit(done, links)
                if self._part is None:
                    self._part = _GrowingFile(self._state / "part", 0)
                    self._number += 1
                self._part.append(rows)
                part = PartFile(self._number, self.generation, self._part.length, self._part.rows, is_open=True)
                woken = self.frontier.commit(done, links, part)
                if self._part.groups >= PART_GROUPS or self._part.length >= PART_BYTES:
                    self._publish(self._part)
                return woken

    def close(self, *, is_finished: bool = False) -> None:
        """Move the growing part into the dataset, and release the folder. May be called again.

        Args:
            is_finished: the crawl has reached its end, so that `open` with ``again`` begins the next one.

        Raises:
            CrawlNotSaved: the part could not be moved. It is kept, and the crawl can be resumed.
        """
        with self._lock:
            try:
                if not self._is_over:
                    with self._ending_on_failure():
                        if self._part is not None:
                            self._publish(self._part)
                        if is_finished:
                            self.frontier.put_settings({"is_finished": "1"})
            finally:
                self._is_over = True
                self._release()

    def _release(self) -> None:
        """Close what is open. May be called again."""
        if self._part is not None:
            self._part.close()
        self.frontier.close()
        self._folder_lock.release()

    @contextmanager
    def _ending_on_failure(self) -> Iterator[None]:
        """Refuse further commits if the block raises. What is on disk is then unknown until it is read again."""
        try:
            with _os_errors(self._state):
                yield
        except BaseException:
            self._is_over = True
            raise

    def _publish(self, grown: _GrowingFile) -> None:
        """Move the growing part, which is synced, into the dataset."""
        grown.close()
        part = PartFile(self._number, self.generation, grown.length, grown.rows, is_open=False)
        os.replace(grown.path, self.folder / _name_of(part))
        self._part = None
        self._record_published(part)

    def _record_published(self, part: PartFile) -> None:
        _sync_folder(self.folder)
        _sync_folder(self._state)
        self.frontier.put_part(part._replace(is_open=False))

    def _check_settings(self, given: Mapping[str, str]) -> None:
        """Compare the schema and *given* with those of the crawl, or store them if it begins now."""
        columns = [[name, str(dtype)] for name, dtype in self.schema.items()]
        stored = self.frontier.settings()
        if not stored:
            now = {"columns": json.dumps(columns), "given": json.dumps(dict(given)), "generation": "1"}
            self.frontier.put_settings(now)
            return
        for was, wanted in zip_longest(json.loads(stored["columns"]), columns):
            if was != wanted:
                name, begun_with = was or (wanted[0], "absent")
                got = "absent" if wanted is None else wanted[1] if was is None or wanted[0] == name else wanted[0]
                raise CrawlMismatch(self.folder, f"column {shortened(name)}", begun_with, got)
        begun_with = json.loads(stored["given"])
        for name in sorted({*begun_with, *given}):
            was, wanted = begun_with.get(name, "absent"), given.get(name, "absent")
            if was != wanted:
                raise CrawlMismatch(self.folder, name, was, wanted)
        self.generation = int(stored["generation"])

    def _recover(self) -> None:
        """Make the files and the frontier agree."""
        parts = {_name_of(part): part for part in self.frontier.parts()}
        self._number = max((part.number for part in parts.values()), default=0)
        found = {*os.listdir(self.folder)}
        schema_part = _name_of(PartFile(_SCHEMA_PART, 1, 0, 0, is_open=False))
        set_aside = []
        for name in sorted(found - {schema_part} - parts.keys()):
            if not _NAME.fullmatch(name):
                raise CrawlFolderRefused(
                    self.folder, f"it has {shortened(name)}, which is not part of this crawl; move it elsewhere"
                )
            self._set_aside(name)
            set_aside.append(name)
        fetched_again = [name for name, part in parts.items() if not self._recover_part(name, part)]
        if self._part is None:
            (self._state / "part").unlink(missing_ok=True)  # of a commit that was not completed
        self._write_schema_part(self.folder / schema_part)
        self.repairs = Repairs(tuple(fetched_again), tuple(set_aside))

    def _recover_part(self, name: str, part: PartFile) -> bool:
        """Return False if *part* is lost, so that its pages are pending again."""
        path = self.folder / name
        if part.generation != self.generation:
            return True  # its pages have been fetched again since, or will be
        if _is_whole(path, part.length):
            if part.is_open:
                self._record_published(part)
            return True
        if path.exists() and path.stat().st_size > part.length:
            reason = f"{name} was changed after the crawl wrote it; delete it to have its pages fetched again"
            raise CrawlFolderRefused(self.folder, reason)
        if part.is_open and not path.exists() and _is_whole(self._state / "part", part.length, at_least=True):
            self._part = _GrowingFile(self._state / "part", part.length)
            return True
        self.frontier.take_back(part)
        if path.exists():
            self._set_aside(name)
        return False

    def _set_aside(self, name: str) -> None:
        place = self._state / "set-aside"
        place.mkdir(exist_ok=True)
        os.replace(self.folder / name, place / name)

    def _write_schema_part(self, path: Path) -> None:
        content = _parquet(pl.DataFrame(schema=self.schema))
        if _is_whole(path, len(content)):
            return
        unfinished = self._state / "schema"
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        _sync_folder(self.folder)

    def _begin_again(self) -> None:
        if self._part is not None:  # the process ended after its last commit, and before it could close the dataset
            self._publish(self._part)
        self.generation += 1
        settings = {"generation": str(self.generation), "is_finished": "0", "is_seeded": "0"}
        self.frontier.begin_again(settings)


class _GrowingFile:
    """A Parquet file to which row groups are appended, each followed by a footer for all. It is always a whole file."""

    def __init__(self, path: Path, length: int) -> None:
        self.path = path
        self.length = length
        self._row_groups = RowGroups()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _sync_folder(path.parent)
            os.ftruncate(self._file, length)
            if length:
                os.fsync(self._file)
                with mmap.mmap(self._file, length, access=mmap.ACCESS_READ) as content, memoryview(content) as view:
                    self._row_groups.add(view, len(MAGIC)).release()
        except BaseException:
            self.close()
            raise

    @property
    def groups(self) -> int:
        """The number of row groups."""
        return self._row_groups.count

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self._row_groups.rows

    def append(self, frame: pl.DataFrame) -> None:
        """Append *frame*, and sync the file."""
        at = self.length or self._write(MAGIC, 0)
        at = self._write(self._row_groups.add(_parquet(frame), at), at)
        at = self._write(self._row_groups.footer(), at)
        os.fsync(self._file)
        self.length = at

    def close(self) -> None:
        """Close the file. May be called again."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _write(self, content: bytes | memoryview, at: int) -> int:
        """Write *content* at that offset, and return the offset behind it."""
        view = memoryview(content)
        while view:
            written = os.pwrite(self._file, view, at)
            view, at = view[written:], at + written
        return at


class _FolderLock:
    """A lock on a folder: one process has it, and the system releases it when that process ends in any way.

    A forked child inherits the descriptor, and would hold the lock after its parent's end; so it closes it.
    """

    def __init__(self, folder: Path, state: Path) -> None:
        with _os_errors(state / "lock"):
            self._file = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                self._acquire(folder)
            except BaseException:
                os.close(self._file)
                raise
        _locks.add(self)

    def _acquire(self, folder: Path) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(self._file, 20, 0)
            raise CrawlRunning(folder, int(owner) if owner.isdigit() else None) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Release the lock. May be called again."""
        _locks.discard(self)
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


_locks: WeakSet[_FolderLock] = WeakSet()


def _after_fork_in_child() -> None:
    for lock in [*_locks]:
        lock.release()


os.register_at_fork(after_in_child=_after_fork_in_child)


def _state_of(folder: Path) -> Path:
    return folder.with_name(folder.name + ".crawl")


def _check_folder(folder: Path, state: Path, *, may_continue: bool) -> None:
    """Check that a crawl can be begun in *folder*, or continued if *may_continue*."""
    if not folder.parent.is_dir():
        raise CrawlFolderRefused(folder, f"there is no folder {folder.parent}; create it first")
    for path in (folder, state):
        if path.exists() and not path.is_dir():
            raise CrawlFolderRefused(path, "it is a file; give the path of a folder")
    has_crawl = (state / _FRONTIER).exists()
    if has_crawl and not may_continue:
        remedy = (
            "continue it with resume=True (--resume), fetch all again with again=True (--again), "
            f"or remove {folder} and {state}"
        )
        raise CrawlFolderRefused(folder, f"there is a crawl already; {remedy}")
    if not has_crawl and folder.exists() and os.listdir(folder):
        reason = f"it has files, but no frontier of a crawl beside it ({state.name})"
        raise CrawlFolderRefused(folder, f"{reason}; give an empty folder or a new one")


def _make_folders(folder: Path, state: Path) -> None:
    state.mkdir(exist_ok=True)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)
    for path in (
        folder,
        state,
        state / _FRONTIER,
    ):  # SQLite raises no error when it opens a file that it cannot write to
        if path.exists() and not os.access(path, os.W_OK):
            raise CrawlNotSaved(path, "this process may not write to it, or its file system is read-only")
    if folder.stat().st_dev != state.stat().st_dev:  # nothing could be renamed from one into the other
        raise CrawlFolderRefused(folder, "it is the root of a file system; give a folder below it")


def _name_of(part: PartFile) -> str:
    return f"crawl-{part.generation:03}-part-{part.number:06}.parquet"


def _parquet(frame: pl.DataFrame) -> bytes:
    whole = BytesIO()
    frame.write_parquet(whole, statistics=False)  # which would make each footer longer by a quarter, and a part has 64
    return whole.getvalue()


def _is_whole(path: Path, length: int, *, at_least: bool = False) -> bool:
    """Return whether the file has that length, or *at_least* that, and a footer at its end."""
    if not path.exists() or (size := path.stat().st_size) < length or (size > length and not at_least):
        return False
    with path.open("rb") as file:
        file.seek(length - len(MAGIC))
        return file.read(len(MAGIC)) == MAGIC


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _os_errors(path: Path) -> Iterator[None]:
    """Turn an error of the operating system into ours."""
    try:
        yield
    except CrawlNotSaved:
        raise
    except OSError as error:
        raise CrawlNotSaved(error.filename or path, error.strerror or str(error)) from error
