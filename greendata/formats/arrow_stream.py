"""One Arrow IPC stream out of many frames.

A stream is a schema message, then dictionary and record batches, then an end mark (arrow.apache.org/docs/format/
Columnar.html, "IPC Streaming Format"). Polars writes a whole stream for every frame. So the schema is kept of the
first only, and every end mark but the last is cut off. A frame with categories brings their dictionary again, which
replaces the one before, as the format allows in streams.
"""

from __future__ import annotations

from io import BytesIO

import polars as pl

__all__ = ("ArrowStream", "END")

END = b"\xff\xff\xff\xff\x00\x00\x00\x00"  # a message of no length

_PREFIX = 8  # bytes before a message: the continuation mark and the length of the metadata, padding included


class ArrowStream:
    """A stream on its way. Workers call it, one at a time.

    Strings and binary go in the layout that every Arrow library reads, not in the newer one of views: who is at
    the other end is not known, and a slice of views would carry the buffers of the whole frame.

    Example:
        >>> stream = ArrowStream()
        >>> parts = [bytes(stream.add(pl.DataFrame({"a": [n]}))) for n in range(3)]
        >>> pl.read_ipc_stream(b"".join(parts) + END)["a"].to_list()
        [0, 1, 2]
    """

    def __init__(self) -> None:
        self._is_begun = False

    def add(self, df: pl.DataFrame) -> memoryview:
        """The messages of *df*, which must have the schema of the frames before it."""
        file = BytesIO()
        df.write_ipc_stream(file, compat_level=pl.CompatLevel.oldest())
        stream = file.getbuffer()
        begin = 0
        if self._is_begun:  # a schema has no body: its metadata is all of it
            begin = _PREFIX + int.from_bytes(stream[4:_PREFIX], "little")
        self._is_begun = True
        return stream[begin : -len(END)]
