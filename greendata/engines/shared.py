"""Frames that travel to a child once and are known by a key from then on.

In the engine's process a `SharedFrame` keeps its frame. In a plan it is its key and its schema, some hundred bytes, and
a child asks the engine for the frame when a plan needs it for the first time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
from polars.lazyframe.resolver import LazyFrameResolver

__all__ = ("SharedFrame", "fetch_by", "frames")

frames: dict[str, pl.DataFrame] = {}  # in a child: those that it has; its one thread that runs a query writes
_fetch: Callable[[str], pl.DataFrame] | None = None  # in a child; set once


def fetch_by(fetch: Callable[[str], pl.DataFrame]) -> None:
    """Make *fetch* bring the frame of a key into this process, which is a child."""
    global _fetch
    _fetch = fetch


class SharedFrame(LazyFrameResolver):
    """The source of a plan that stands for a frame."""

    def __init__(self, key: str, frame: pl.DataFrame) -> None:
        self._key = key
        self._schema = dict(frame.schema)
        self._frame: pl.DataFrame | None = frame

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_frame": None}

    def schema(self) -> Any:
        """Return the schema of the frame."""
        return self._schema

    def resolve_lazyframe(self, **_: Any) -> pl.LazyFrame:
        """Return the frame; Polars applies filters and projections itself."""
        frame = self._frame if self._frame is not None else frames.get(self._key)
        if frame is None:
            assert _fetch is not None
            frame = frames[self._key] = _fetch(self._key)
        return frame.lazy()
