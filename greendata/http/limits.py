"""What a fetch may take where the caller says nothing else."""

from __future__ import annotations

__all__ = ("MAX_BYTES", "TIMEOUT")

MAX_BYTES = 256 * 1024**2  # bytes of a body, packed and unpacked: what a service can hold a few of
TIMEOUT = 60.0  # seconds for all of it
