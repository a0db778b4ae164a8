"""Confinement of paths: what somebody names stays inside one folder, the root.

A path is refused before anything is opened: ``..``, an absolute path or a link that leads out, also one that a glob
meets, NUL, a URL, what is no regular file. What is found is handed on with every link followed, so that a link that is
swapped later is not looked at again, and `Sources.check` looks once more right before each run. One thing is left:
whoever can replace a folder *inside* the root between that look and the opening. Let nobody else move folders there.
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
_ENDLESS = "its links cannot be followed to an end"


@dataclass(frozen=True, slots=True)
class Sources:
    """The files that a path names.

    Attributes:
        shown: the path as errors may name it: relative to the root.
        paths: the files, absolute and with every link followed; without a root the path itself, as it was given.
        root: the folder they are in, with every link followed; None if they are not confined.

    Example:
        >>> resolve_sources("data/users.parquet", None).shown
        'data/users.parquet'
    """

    shown: str
    paths: tuple[str, ...]
    root: Path | None

    def check(self, *, must_exist: bool = True) -> None:
        """Make sure that the files are still where they were found. Call on a worker, right before they are opened.

        Raises:
            PathRefused: a part of the path has become a link meanwhile.
            FileMissing: it is gone.
        """
        if self.root is not None:
            for path in self.paths:
                if _inside(Path(path), self.root, self.shown, must_exist=must_exist) != Path(path):
                    raise PathRefused(self.shown, "it has become a link since it was checked")

    def cleaned(self, text: str) -> str:
        """*text*, an error's, without what the root is called and where it lies."""
        if self.root is None:
            return text
        for path in self.paths:
            text = text.replace(path, self.shown if len(self.paths) == 1 else os.path.relpath(path, self.root))
        return text.replace(f"{self.root}{os.sep}", "").replace(str(self.root), ".")


def resolve_sources(path: StrPath, root: StrPath | None) -> Sources:
    """The files that *path* names: a file, a folder with all files in it, or a glob. Call on a worker.

    Args:
        path: relative to *root*, or absolute and inside it. Without a root anything that Polars takes.
        root: the folder that it must not leave.

    Raises:
        PathRefused: it leads out of the root, or cannot be a path there.
        FileMissing: there is no such file.
        BadArgument: *root* is no folder.
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
    """The one file that is to be written at *path*, which need not be there. Call on a worker.

    Raises:
        PathRefused, BadArgument: as `sources`.
        FileMissing: the folder it is to be in is not there.
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
        raise BadArgument("root", os.fspath(root), "a folder that is there")
    return top


def _relative(path: StrPath, top: Path) -> tuple[str, tuple[str, ...]]:
    """*path* relative to *top*, as text and in parts, by its letters alone."""
    text = os.fspath(path)
    if "\0" in text:
        raise PathRefused(text, "it has a NUL in it")
    if "://" in text:
        raise PathRefused(text, "it is a URL, and root= is for files")
    pure = PurePath(text)
    if ".." in pure.parts:
        raise PathRefused(text, "it has '..' in it")
    if pure.is_absolute():
        if not pure.is_relative_to(top):
            raise PathRefused(text, "it is absolute, and outside of the root")
        pure = pure.relative_to(top)
    return str(pure), pure.parts


def _inside(path: Path, top: Path, shown: str, *, must_exist: bool = True) -> Path:
    """*path* with every link followed.

    Raises:
        PathRefused: it leads out of *top*, or in a circle.
        FileMissing: there is no such file.
    """
    try:
        found = path.resolve(strict=must_exist)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileMissing(shown) from error
    except (OSError, RuntimeError) as error:
        raise PathRefused(shown, _ENDLESS) from error
    if found.is_symlink():  # since Python 3.13 a path that need not be there is resolved up to the circle
        raise PathRefused(shown, _ENDLESS)
    if not found.is_relative_to(top):
        raise PathRefused(shown, "a link leads out of the root")
    return found


def _named(top: Path, parts: tuple[str, ...], shown: str) -> Path | None:
    """What has exactly that name, or None."""
    try:
        return _inside(top.joinpath(*parts), top, shown)
    except FileMissing:
        return None


def _matches(top: Path, parts: tuple[str, ...], shown: str) -> set[Path]:
    """What the glob of *parts* meets below *top*; each step is checked before it is taken.

    Step by step, and each place once: the ways that lead to one place are as many as the ``**`` make of them.
    """
    places = {top}
    for part in parts:
        if part == "**":
            places = {below for place in places for below in _folders(place)}
        else:
            places = {_inside(found, top, shown) for place in places for found in _named_like(part, place)}
    return places


def _folders(place: Path) -> Iterator[Path]:
    """*place*, and the folders below it, without links and what is hidden."""
    yield place
    for below in sorted(place.iterdir()) if place.is_dir() else ():
        if below.is_dir() and not below.is_symlink() and not below.name.startswith("."):
            yield from _folders(below)


def _named_like(pattern: str, folder: Path) -> Iterator[Path]:
    """What is in *folder* by a name that *pattern* is, or meets."""
    for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
        if name == pattern or (fnmatchcase(name, pattern) and (pattern.startswith(".") or not name.startswith("."))):
            yield folder / name


def _check_regular(file: Path, shown: str) -> None:
    if not stat.S_ISREG(file.stat().st_mode):
        raise PathRefused(shown, "it is no regular file")
