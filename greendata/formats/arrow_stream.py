"""Write many frames as one Arrow IPC stream.

A stream is a schema message, then dictionary and record batches, then an end mark (arrow.apache.org/docs/format/
Columnar.html, "IPC Streaming Format"). Polars writes a complete stream for each frame. So only the schema of the first
frame is kept, and all end marks but the last are removed. A frame with categories repeats their dictionary. It replaces
the dictionary before it, as the format allows in streams.
"""

from __future__ import annotations

from io import BytesIO

import polars as pl

__all__ = ("ArrowStreamWriter", "END")

END = b"\xff\xff\xff\xff\x00\x00\x00\x00"  # the end mark: a message of length 0

_PREFIX = 8  # bytes before a message: the continuation mark, and the length of the metadata with its padding


class ArrowStreamWriter:
    """A stream that is being written. Call on workers, one at a time.

    Strings and binary values have the layout that every Arrow library reads, not the newer one of views. The reader of
    the stream is not known, and a slice of views would carry the buffers of the whole frame.

    Example:
        >>> stream = ArrowStreamWriter()
        >>> parts = [bytes(stream.add(pl.DataFrame({"a": [n]}))) for n in range(3)]
        >>> pl.read_ipc_stream(b"".join(parts) + END)["a"].to_list()
        [0, 1, 2]
    """

    def __init__(self) -> None:
        self._is_begun = False

    def add(self, df: pl.DataFrame) -> memoryview:
        """Return the messages of *df*, which must have the schema of the frames before it."""
        file = BytesIO()
        df.write_ipc_stream(file, compat_level=pl.CompatLevel.oldest())
        stream = memoryview(file.getvalue())
        begin = 0
        if self._is_begun:  # skip the schema message, which has metadata only
            begin = _PREFIX + int.from_bytes(stream[4:_PREFIX], "little")
        self._is_begun = True
        return stream[begin : -len(END)]
