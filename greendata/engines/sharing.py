"""Share a frame with the processes of all engines: packed once, and forgotten with the last plan that refers to it."""

from __future__ import annotations

import os
import re
from itertools import count
from typing import Any
from weakref import finalize

import polars as pl

from greendata.engines.plans import pack
from greendata.engines.shared import SharedFrame
from greendata.errors import NotAFrame
from greendata.pool import pool

__all__ = ("KEY", "packed_frames", "share")

KEY = re.compile(rb"greendata-frame-\d+-\d+")  # in the bytes of a plan

# Packed frames and their files by key; any thread, one step at a time.
packed_frames: dict[str, tuple[Any, list[int]]] = {}


def share(frame: pl.DataFrame, parts: list[pl.DataFrame] | None = None) -> pl.LazyFrame:
    """Return a query on *frame* whose plan has a key in place of the data. The calling greenlet waits.

    Args:
        frame: what is shared.
        parts: its rows in several frames, which are packed one by one.

    Raises:
        NotAFrame: *frame* is not a `polars.DataFrame`.
        NotSendable: a column has Python objects.
    """
    if not isinstance(frame, pl.DataFrame):
        raise NotAFrame(frame, "DataFrame")
    return pool.call(_share, frame, [frame] if parts is None else parts)


def _share(frame: pl.DataFrame, parts: list[pl.DataFrame]) -> pl.LazyFrame:
    """Pack and register the frame. If the returned query is dropped, so is the frame."""
    key = f"greendata-frame-{os.getpid()}-{next(_keys)}"
    packed_frames[key] = pack(parts)
    shared = SharedFrame(key, frame)
    finalize(shared, _unshare, key).atexit = False
    return shared.lazy()


def _unshare(key: str) -> None:
    _, files = packed_frames.pop(key)
    for file in files:
        os.close(file)


_keys = count(1)
