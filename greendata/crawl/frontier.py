"""`Frontier`: the URLs of a crawl in a database on disk, each of them once, and which of them are still pending.

Memory holds one batch of URLs, the URLs that were offered last, and SQLite's page cache, whatever the number of URLs. A
URL that is offered again later is found by an index over the checksums of its origin, and its text is compared. There
is no Bloom filter before that index: a new URL has to be put into it anyway, which costs as much as the look-up. In a
million URLs each takes 10 us of CPU if a batch has 40 origins, and 50 us if each URL has its own. This includes as many
URLs that are known already, and the reads of `Frontier.windows`.

A batch crosses to SQLite as one JSON text, and rows come back as one. `sqlite3` gives the GIL back for each step of a
statement and then waits for it again, which in a busy process can take 5 ms for each row.

All methods block; call them on workers. One call runs at a time; the others wait.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from greendata.errors import BadArgument, CrawlFolderRefused, CrawlNotSaved
from greendata.hub import native
from greendata.hub.contexts import contextmanager

__all__ = ("Counts", "Done", "Entry", "Frontier", "Link", "PartFile")

VERSION = 1  # of the tables; a frontier of another version is refused
APPLICATION_ID = 0x67646372  # marks the file as ours: "gdcr"
SLICE = 1_000  # URLs in one text: the GIL is held for under a millisecond while it is built
CACHE_KIB = 8_192  # of SQLite's pages in memory
JOURNAL_BYTES = 1 << 26  # that the journal keeps on disk after a large transaction, such as that of `begin_again`
RECENT = 20_000  # URLs; at most twice as many are in memory, in 6 MB. At least SLICE: a slice has each URL only once
LONG = 500  # characters of a URL; of longer ones the digest is remembered: 40 000 of 8 kB would be 320 MB
BUSY_TIMEOUT = 30.0  # seconds to wait for another program that reads the database

_TABLES = (
    "CREATE TABLE origins (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    """
    CREATE TABLE urls (
        id INTEGER PRIMARY KEY,     -- in the order of discovery
        origin INTEGER NOT NULL,
        depth INTEGER NOT NULL,
        done INTEGER,               -- the part that has its row; NULL: it is pending
        checksum INTEGER NOT NULL,
        href TEXT NOT NULL
    )
    """,
    "CREATE INDEX urls_by_checksum ON urls (origin, checksum)",  # the links of one page are near each other
    "CREATE INDEX urls_to_do ON urls (origin) WHERE done IS NULL",
    "CREATE TABLE validators (id INTEGER PRIMARY KEY, etag TEXT, last_modified TEXT)",
    """
    CREATE TABLE parts (
        number INTEGER PRIMARY KEY,
        generation INTEGER NOT NULL,
        length INTEGER NOT NULL,    -- bytes of the file that are valid
        rows INTEGER NOT NULL,
        is_open INTEGER NOT NULL    -- 1: it grows, and is not in the dataset's folder yet
    )
    """,
    "CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
)
# Each URL is a text of its checksum (10 digits), depth (5) and origin (10), and the URL itself: SQLite would have to
# parse a JSON array again for each of its elements.
_ADD = """
INSERT INTO urls (checksum, depth, origin, href)
SELECT CAST(substr(value, 1, 10) AS INTEGER), CAST(substr(value, 11, 5) AS INTEGER),
    CAST(substr(value, 16, 10) AS INTEGER), substr(value, 26)
FROM json_each(?) WHERE NOT EXISTS (
    SELECT 1 FROM urls WHERE origin = CAST(substr(value, 16, 10) AS INTEGER)
    AND checksum = CAST(substr(value, 1, 10) AS INTEGER) AND href = substr(value, 26)
)
"""
_MAX_DEPTH = 99_999
_WINDOW = """
SELECT json_group_array(json_array(id, href, depth, etag, last_modified)) FROM (
    SELECT urls.id, href, depth, etag, last_modified
    FROM urls INDEXED BY urls_to_do LEFT JOIN validators ON validators.id = urls.id
    WHERE origin = (SELECT id FROM origins WHERE name = ?) AND done IS NULL AND urls.id > ? ORDER BY urls.id LIMIT ?
)
"""
_ORIGINS = """
SELECT json_group_array(name) FROM (
    SELECT name FROM origins WHERE name > ?
    AND EXISTS (SELECT 1 FROM urls WHERE origin = origins.id AND done IS NULL) ORDER BY name LIMIT ?
)
"""

Link = tuple[str, str, int]  # the canonical URL, its origin, and its depth: how many links away from a seed


class Entry(NamedTuple):
    """A URL that is pending.

    Attributes:
        id: its number, which grows in the order of discovery.
        href: the canonical URL.
        depth: the number of links from a seed to it, when it was first found.
        etag: the ETag of its last response, from an earlier generation.
        last_modified: the Last-Modified of that response, as it was sent.
    """

    id: int
    href: str
    depth: int
    etag: str | None
    last_modified: str | None


class Done(NamedTuple):
    """A URL that is done.

    Attributes:
        id: the number of its `Entry`.
        etag: the ETag to send with the next request. With status 304, pass on that of the entry.
        last_modified: the Last-Modified to send with the next request.
    """

    id: int
    etag: str | None = None
    last_modified: str | None = None


class Counts(NamedTuple):
    """The number of URLs that are pending, and of those that are done."""

    todo: int
    done: int


class PartFile(NamedTuple):
    """A file of the dataset.

    Attributes:
        number: its number, which grows through all generations.
        generation: the crawl that wrote it: 1 for the first.
        length: its valid bytes.
        rows: its rows.
        is_open: it grows, and is not in the dataset's folder yet.
    """

    number: int
    generation: int
    length: int
    rows: int
    is_open: bool


class _Recent:
    """The URLs that were offered last. Most links of a page are those of the page before, and need no look-up.

    Guarded by the lock of the frontier. Call `forget` if the offered URLs were not stored.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._new: set[str | bytes] = set()
        self._old: set[str | bytes] = set()

    def first_offer(self, href: str) -> bool:
        """Return True unless *href* was offered before, as far as that is remembered."""
        key = href if len(href) < LONG else blake2b(href.encode(), digest_size=16).digest()
        if key in self._new:
            return False
        self._new.add(key)
        is_first = key not in self._old
        if len(self._new) >= RECENT:
            self._new, self._old = set(), self._new
        return is_first


class Frontier:
    """The URLs of one crawl.

    Args:
        path: the file of the database, made if it does not exist; None for a temporary one.

    Raises:
        CrawlFolderRefused: the file is not a frontier, or one of another version of greendata.
        CrawlNotSaved: it cannot be opened or created.

    Example:
        >>> frontier = Frontier.temporary()
        >>> links = [("https://example.com/", "https://example.com:443", 0)]
        >>> frontier.add(links), frontier.add(links)
        ({'https://example.com:443'}, set())
        >>> [[entry]] = frontier.windows([("https://example.com:443", 0, 10)])
        >>> entry.href
        'https://example.com/'
        >>> frontier.commit([Done(entry.id)])
        set()
        >>> frontier.counts()
        Counts(todo=0, done=1)
        >>> frontier.close()
    """

    def __init__(self, path: Path | None) -> None:
        self._path = "a temporary file" if path is None else path
        self._lock = native.allocate_lock()  # held by each call: one connection serves all threads
        self._recent = _Recent()
        with _sqlite_errors(self._path):
            self._connection = sqlite3.connect(
                "" if path is None else path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
            )
        try:
            with _sqlite_errors(self._path):
                self._prepare()
                self._counts = self._counted()
        except BaseException:
            self._connection.close()
            raise

    @classmethod
    def temporary(cls) -> Frontier:
        """Return a frontier in a file that has no name, so that it is gone with the process, however that ends."""
        return cls(None)

    def add(self, links: Iterable[Link]) -> set[str]:
        """Add the URLs that are new, in one transaction, and return the origins of those.

        Raises:
            CrawlNotSaved: they could not be stored; none of them is.
        """
        return self.commit((), links)

    def commit(self, done: Sequence[Done], links: Iterable[Link] = (), part: PartFile | None = None) -> set[str]:
        """Record that *done* are done, add those of *links* that are new, and record the state of *part*.

        All of it is one transaction.

        Args:
            done: pending URLs.
            links: URLs in any number; each is added once.
            part: the file that has the rows of *done*.

        Returns:
            The origins that have new URLs.

        Raises:
            BadArgument: one of *done* is done already, or there is none of that number.
            CrawlNotSaved: it could not be stored, and nothing has changed.
        """
        with self._transaction() as connection:
            last = self._last_id()
            self._add(links)
            self._finish(done, 0 if part is None else part.number)
            if part is not None:
                connection.execute("INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?)", part)
            woken = self._json(
                "SELECT json_group_array(name) FROM (SELECT name FROM origins WHERE id IN "
                "(SELECT origin FROM urls WHERE id > ?))",
                last,
            )
            added = self._last_id() - last
            counts = Counts(self._counts.todo + added - len(done), self._counts.done + len(done))
        self._counts = counts
        return set(woken)

    def windows(self, wanted: Iterable[tuple[str, int, int]]) -> list[list[Entry]]:
        """Return the pending URLs, in the order of discovery, for each of *wanted*: an origin, an id, and a limit.

        The entries of a window have larger ids than the given one, so 0 begins at the first.
        """
        with self._reading():
            return [[Entry(*entry) for entry in sorted(self._json(_WINDOW, *given))] for given in wanted]

    def origins(self, after: str, limit: int) -> list[str]:
        """Return the first *limit* origins with pending URLs whose names follow *after*, sorted by name."""
        with self._reading():
            return sorted(self._json(_ORIGINS, after, limit))

    def counts(self) -> Counts:
        """Return how many URLs are pending and how many are done, from memory. Safe from any thread."""
        return self._counts

    def settings(self) -> dict[str, str]:
        """Return what `put_settings` has stored."""
        with self._reading():
            return dict(self._json("SELECT json_group_object(name, value) FROM settings"))

    def put_settings(self, settings: Mapping[str, str]) -> None:
        """Add *settings* to those that are stored."""
        with self._transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO settings VALUES (?, ?)", settings.items())

    def parts(self) -> list[PartFile]:
        """Return the files of the dataset, by number."""
        with self._reading():
            found = self._connection.execute("SELECT * FROM parts ORDER BY number").fetchall()
        return [
            PartFile(number, generation, length, rows, bool(is_open))
            for number, generation, length, rows, is_open in found
        ]

    def put_part(self, part: PartFile) -> None:
        """Record the state of *part*."""
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?)", part)

    def take_back(self, part: PartFile) -> None:
        """Forget *part*, whose file is lost: the URLs of its rows are pending again."""
        with self._transaction() as connection:
            connection.execute("UPDATE urls SET done = NULL WHERE done = ?", (part.number,))
            connection.execute("DELETE FROM parts WHERE number = ?", (part.number,))
            counts = self._counted()
        self._counts = counts

    def begin_again(self, settings: Mapping[str, str]) -> None:
        """Make all URLs pending again, and store *settings*. Their validators are kept."""
        with self._transaction() as connection:
            connection.execute("UPDATE urls SET done = NULL WHERE done IS NOT NULL")
            connection.executemany("INSERT OR REPLACE INTO settings VALUES (?, ?)", settings.items())
            counts = self._counted()
        self._counts = counts

    def close(self) -> None:
        """Close the database. May be called again."""
        with self._lock:
            self._connection.close()

    def _prepare(self) -> None:
        """Create the tables, or check that they are those of this version."""
        execute = self._connection.execute
        execute("PRAGMA journal_mode = WAL")  # a temporary file keeps its own
        execute("PRAGMA synchronous = FULL")
        execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        execute(f"PRAGMA journal_size_limit = {JOURNAL_BYTES}")
        execute("BEGIN IMMEDIATE")
        try:
            (tables,) = execute("SELECT count(*) FROM sqlite_master").fetchone()
            (owner,) = execute("PRAGMA application_id").fetchone()
            (version,) = execute("PRAGMA user_version").fetchone()
            if not tables and not owner and not version:
                for statement in _TABLES:
                    execute(statement)
                execute(f"PRAGMA application_id = {APPLICATION_ID}")
                execute(f"PRAGMA user_version = {VERSION}")
            elif owner != APPLICATION_ID:
                raise CrawlFolderRefused(self._path, "it is a database of another program; give another folder")
            elif version != VERSION:
                raise CrawlFolderRefused(
                    self._path,
                    f"it is a frontier of version {version}, and this greendata knows version {VERSION}; finish that "
                    "crawl with the greendata that began it, or begin one in another folder",
                )
            execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise

    def _add(self, links: Iterable[Link]) -> None:
        given = (link for link in links if self._recent.first_offer(link[0]))
        while piece := list(islice(given, SLICE)):
            names = json.dumps(list({origin for _, origin, _ in piece}))
            self._connection.execute("INSERT OR IGNORE INTO origins (name) SELECT value FROM json_each(?)", (names,))
            ids = self._json(
                "SELECT json_group_object(name, id) FROM origins WHERE name IN (SELECT value FROM json_each(?))", names
            )
            texts = [
                f"{crc32(href.encode()):010}{min(depth, _MAX_DEPTH):05}{ids[origin]:010}{href}"
                for href, origin, depth in piece
            ]
            self._connection.execute(_ADD, (json.dumps(texts),))

    def _finish(self, done: Sequence[Done], number: int) -> None:
        for begin in range(0, len(done), SLICE):
            piece = done[begin : begin + SLICE]
            ids = json.dumps([entry.id for entry in piece])
            found = self._connection.execute(
                "UPDATE urls SET done = ? WHERE done IS NULL AND id IN (SELECT value FROM json_each(?))", (number, ids)
            )
            if found.rowcount != len(piece):
                raise BadArgument("done", f"{len(piece) - found.rowcount} others", "pending entries, each once")
            self._connection.execute("DELETE FROM validators WHERE id IN (SELECT value FROM json_each(?))", (ids,))
            kept = [(entry.id, entry.etag, entry.last_modified) for entry in piece if entry.etag or entry.last_modified]
            if kept:
                self._connection.execute(
                    "INSERT INTO validators SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), "
                    "json_extract(value, '$[2]') FROM json_each(?)",
                    (json.dumps(kept),),
                )

    def _last_id(self) -> int:
        (last,) = self._connection.execute("SELECT coalesce(max(id), 0) FROM urls").fetchone()
        return int(last)

    def _counted(self) -> Counts:
        (todo,) = self._connection.execute("SELECT count(*) FROM urls WHERE done IS NULL").fetchone()
        return Counts(todo, self._last_id() - todo)

    def _json(self, statement: str, *values: object) -> Any:
        (text,) = self._connection.execute(statement, values).fetchone()
        return json.loads(text)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock, _sqlite_errors(self._path):
            yield

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _sqlite_errors(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                self._recent.forget()
                if self._connection.in_transaction:  # SQLite may have rolled back by itself, as with a full disk
                    self._connection.execute("ROLLBACK")
                raise


@contextmanager
def _sqlite_errors(path: Path | str) -> Iterator[None]:
    """Replace an error of SQLite by ours, unless it is a mistake of the caller, such as a closed database."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "") in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
            reason = f"it is damaged, or not a frontier ({error}); put back a copy, or crawl into another folder"
            raise CrawlFolderRefused(path, reason) from error
        raise CrawlNotSaved(path, str(error)) from error
