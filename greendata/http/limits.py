"""The default limits of a fetch."""

from __future__ import annotations

__all__ = ("MAX_BYTES", "TIMEOUT")

MAX_BYTES = 256 * 1024**2  # bytes of a body, compressed and decompressed; a service can hold a few such bodies
TIMEOUT = 60.0  # seconds for the whole fetch
