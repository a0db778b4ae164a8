"""Environments with exactly the packages that pip would install for one extra, made from those installed here.

Each is a virtual environment whose files are links to those of this one, so nothing is downloaded, and
making one takes a second.
"""

from __future__ import annotations

import sys
import venv
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.processes import ROOT

__all__ = ("environment", "required_by")


def environment(folder: Path, extra: str | None = None) -> Path:
    """Make a virtual environment in *folder* with ``greendata`` or ``greendata[extra]``, and return its interpreter."""
    venv.create(folder, symlinks=True)
    packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (packages / "greendata").symlink_to(ROOT / "greendata")
    for found in required_by("greendata", extra):
        for file, source in _files_of(found):
            target = packages / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source)
    return folder / "bin" / "python"


def required_by(name: str, extra: str | None = None) -> list[Distribution]:
    """Yield each distribution that ``name[extra]`` needs here, including itself, once."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(name, frozenset({extra} if extra else ()))]
    while waiting:
        wanted = waiting.pop()
        if wanted in seen:
            continue
        seen.add(wanted)
        distributed = found.setdefault(canonicalize_name(wanted[0]), distribution(wanted[0]))
        for requirement in map(Requirement, distributed.requires or ()):
            contexts = [{"extra": extra} for extra in ("", *wanted[1])]
            if requirement.marker is None or any(map(requirement.marker.evaluate, contexts)):
                waiting.append((requirement.name, frozenset(requirement.extras)))
    return list(found.values())


def _files_of(found: Distribution) -> Iterator[tuple[Path, Path]]:
    """Yield each file of a distribution with its path, without programs; for greendata only the metadata."""
    ours = found.name == "greendata"
    for file in found.files or ():
        source = Path(str(found.locate_file(file)))
        if ".." not in file.parts and source.exists() and (not ours or file.parts[0].endswith(".dist-info")):
            yield Path(file), source
