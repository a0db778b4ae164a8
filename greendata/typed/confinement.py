"""Confine paths from untrusted callers to one folder, the root.

A path is rejected before a file is opened if it contains ``..``, NUL or a URL, if it is absolute and outside of the
root, if it or a match of its glob is a link that leads out, or if it is not a regular file. All links of the files are
resolved at once, so replacing a link later has no effect, and `Sources.check` checks the files again right before each
run. One gap remains: a process can replace a folder *inside* the root between that check and the opening. Do not let
others move folders there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePath

from greendata.errors import BadArgument, FileMissing, PathRefused

__all__ = ("Sources", "StrPath", "resolve_sources", "resolve_target")

StrPath = str | os.PathLike[str]

_MAGIC = frozenset("*?[")
_ENDLESS = "its links form a loop"


@dataclass(frozen=True, slots=True)
class Sources:
    """The files that a path names.

    Attributes:
        shown: the path for error messages, relative to the root.
        paths: the files, absolute and with all links resolved; without a root, the path as given.
        root: the folder that confines them, with all links resolved; None without confinement.

    Example:
        >>> resolve_sources("data/users.parquet", None).shown
        'data/users.parquet'
    """

    shown: str
    paths: tuple[str, ...]
    root: Path | None

    def check(self, *, must_exist: bool = True) -> None:
        """Check that the files are still where they were found. Call on a worker, right before they are opened.

        Raises:
            PathRefused: a part of the path has become a link.
            FileMissing: a file no longer exists.
        """
        if self.root is not None:
            for path in self.paths:
                if _inside(Path(path), self.root, self.shown, must_exist=must_exist) != Path(path):
                    raise PathRefused(self.shown, "it has become a link since it was checked")

    def cleaned(self, text: str) -> str:
        """Return *text* of an error without the name and the location of the root."""
        if self.root is None:
            return text
        for path in self.paths:
            text = text.replace(path, self.shown if len(self.paths) == 1 else os.path.relpath(path, self.root))
        return text.replace(f"{self.root}{os.sep}", "").replace(str(self.root), ".")


def resolve_sources(path: StrPath, root: StrPath | None) -> Sources:
    """Return the files that *path* names: a file, all files in a folder, or the matches of a glob. Call on a worker.

    Args:
        path: relative to *root*, or absolute and inside it. Without a root, anything that Polars accepts.
        root: the folder that *path* must not leave.

    Raises:
        PathRefused: *path* leads out of the root, or is not a valid path.
        FileMissing: there is no such file.
        BadArgument: *root* is not a folder.
    """
    if root is None:
        return Sources(os.fspath(path), (os.fspath(path),), None)
    top = _folder(root)
    shown, parts = _relative(path, top)
    found = _named(top, parts, shown)
    if found.is_dir() if found is not None else not _MAGIC.isdisjoint(shown):
        parts = parts if found is None else (*parts, "**", "*")
        files = sorted({match for match in _matches(top, parts, shown) if not match.is_dir()})
    else:
        files = [found] if found is not None else []
    if not files:
        raise FileMissing(shown)
    for file in files:
        _check_regular(file, shown)
    return Sources(shown, tuple(str(file) for file in files), top)


def resolve_target(path: StrPath, root: StrPath | None) -> Sources:
    """Return the file to write at *path*, which may not exist yet. Call on a worker.

    Raises:
        PathRefused, BadArgument: as for `resolve_sources`.
        FileMissing: the folder of the file does not exist.
    """
    top, shown = None, os.fspath(path)
    if root is None:
        found = Path(shown)
    else:
        top = _folder(root)
        shown, parts = _relative(path, top)
        found = _inside(top.joinpath(*parts), top, shown, must_exist=False)
        if found.exists():
            _check_regular(found, shown)
    if not found.parent.is_dir():
        raise FileMissing(os.path.dirname(shown) or ".")
    return Sources(shown, (str(found),), top)


def _folder(root: StrPath) -> Path:
    top = Path(root).resolve()
    if not top.is_dir():
        raise BadArgument("root", os.fspath(root), "an existing folder")
    return top


def _relative(path: StrPath, top: Path) -> tuple[str, tuple[str, ...]]:
    """Return *path* relative to *top*, as text and in parts, without looking at the file system."""
    text = os.fspath(path)
    if "\0" in text:
        raise PathRefused(text, "it contains a NUL")
    if "://" in text:
        raise PathRefused(text, "it is a URL, and root= is for files")
    pure = PurePath(text)
    if ".." in pure.parts:
        raise PathRefused(text, "it contains '..'")
    if pure.is_absolute():
        if not pure.is_relative_to(top):
            raise PathRefused(text, "it is absolute, and outside of the root")
        pure = pure.relative_to(top)
    return str(pure), pure.parts


def _inside(path: Path, top: Path, shown: str, *, must_exist: bool = True) -> Path:
    """Return *path* with all links resolved.

    Raises:
        PathRefused: it leads out of *top*, or its links form a loop.
        FileMissing: there is no such file.
    """
    try:
        found = path.resolve(strict=must_exist)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileMissing(shown) from error
    except (OSError, RuntimeError) as error:
        raise PathRefused(shown, _ENDLESS) from error
    if found.is_symlink():  # since Python 3.13, a path that may not exist is resolved up to the loop
        raise PathRefused(shown, _ENDLESS)
    if not found.is_relative_to(top):
        raise PathRefused(shown, "a link leads out of the root")
    return found


def _named(top: Path, parts: tuple[str, ...], shown: str) -> Path | None:
    """Return the file or folder with exactly that name, or None."""
    try:
        return _inside(top.joinpath(*parts), top, shown)
    except FileMissing:
        return None


def _matches(top: Path, parts: tuple[str, ...], shown: str) -> set[Path]:
    """Return the matches of the glob *parts* below *top*. Each step is checked before the next one.

    Each folder is visited once per part: several ``**`` would otherwise reach it in very many ways.
    """
    folders = {top}
    for part in parts:
        if part == "**":
            folders = {below for folder in folders for below in _subfolders(folder)}
        else:
            folders = {_inside(found, top, shown) for folder in folders for found in _named_like(part, folder)}
    return folders


def _subfolders(folder: Path) -> Iterator[Path]:
    """Yield *folder* and all folders below it, except links and hidden folders."""
    yield folder
    for below in sorted(folder.iterdir()) if folder.is_dir() else ():
        if below.is_dir() and not below.is_symlink() and not below.name.startswith("."):
            yield from _subfolders(below)


def _named_like(pattern: str, folder: Path) -> Iterator[Path]:
    """Yield the entries of *folder* whose name equals *pattern* or matches it."""
    for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
        if name == pattern or (fnmatchcase(name, pattern) and (pattern.startswith(".") or not name.startswith("."))):
            yield folder / name


def _check_regular(file: Path, shown: str) -> None:
    if not stat.S_ISREG(file.stat().st_mode):
        raise PathRefused(shown, "it is not a regular file")
