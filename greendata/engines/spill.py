"""Folders for what Polars moves out of memory in a child: one for each, which is removed with it.

An engine removes the folder of a child that has ended. A server that is killed removes nothing. So the name of a
folder says which server made it, and the next server removes the folders of those that are gone.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cache

__all__ = ("VARIABLE", "folder_for_child", "remove", "sweep")

VARIABLE = "POLARS_OOC_SPILL_DIR"  # names the folder to Polars, which makes it when it needs one

# The namespace of process ids, the id of the server, and the time of its start: ids are used again.
_NAME = re.compile(r"greendata-spill-(\d+)-(\d+)-(\d+)-[0-9a-f]+")


def folder_for_child(environment: Mapping[str, str]) -> str:
    """Return the path of a folder that does not exist yet, for a child with *environment*. It cannot be guessed."""
    pid = os.getpid()
    name = f"greendata-spill-{_namespace()}-{pid}-{_started(pid)}-{secrets.token_hex(8)}"
    return os.path.join(_base(environment), name)


def remove(folder: str) -> None:
    """Remove the folder of a child that has ended, if Polars has made it."""
    shutil.rmtree(folder, ignore_errors=True)


def sweep(environment: Mapping[str, str]) -> None:
    """Remove the folders of this user's servers that were killed. It looks once for each place where folders are."""
    _sweep(_base(environment))


@cache
def _sweep(base: str) -> None:
    with suppress(OSError), os.scandir(base) as entries:  # there is no such place yet
        for entry in entries:
            found = _NAME.fullmatch(entry.name)
            if found is not None and _is_abandoned(*map(int, found.groups())) and _is_mine(entry):
                remove(entry.path)


def _is_abandoned(namespace: int, pid: int, started: int) -> bool:
    return namespace == _namespace() and _started(pid) != started


def _is_mine(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_uid == os.geteuid()


def _base(environment: Mapping[str, str]) -> str:
    return environment.get(VARIABLE) or tempfile.gettempdir()


def _namespace() -> int:
    """Return the number of the namespace in which process ids mean something to this process."""
    return os.stat("/proc/self/ns/pid").st_ino


def _started(pid: int) -> int:
    """Return when a process started, in ticks since the system's start; -1 if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[19])  # starttime of proc(5)
    except OSError:
        return -1
