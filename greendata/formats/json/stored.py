"""Read back the JSON that greendata wrote from a frame of a model, whose columns store some values in another form.

pydantic validates each row of JSON by its own text (`greendata.formats.json.partition`). The text of a column that
stores a dict as pairs, or the integer of an ``int | str`` as marked text, is not what pydantic reads as such a value.
So JSON that is, byte for byte, what greendata writes of the frame in it is read as that frame.
"""

from __future__ import annotations

from io import BytesIO

import polars as pl
from pydantic import BaseModel

from greendata.errors import Malformed
from greendata.formats.format import Format
from greendata.formats.isolation import Read, read_here
from greendata.formats.readers import read
from greendata.formats.writers import Pieces, writer_of
from greendata.hub.pacing import GilReleaser, breathing
from greendata.query.chunked_text import SLICE_BYTES, slices
from greendata.schema.fields import columns_of
from greendata.schema.named_dtypes import MARKED_JSON

__all__ = ("has_mark", "stored_frame", "stored_rows")

SEARCHED = 1 << 19  # bytes at once: the search holds the GIL, for 0.5 ms
ROWS = 1 << 16  # of the texts that are joined at once


def has_mark(content: bytes) -> bool:
    r"""Return True if marked text may be in *content*. pydantic accepts such text as a string.

    Example:
        >>> has_mark(b'{"code":"\\t7"}'), has_mark(b'{"code":"7"}')
        (True, False)
    """
    overlap = len(MARKED_JSON) - 1
    for begin in breathing(range(0, len(content), SEARCHED)):
        end = begin + SEARCHED + overlap
        # A single byte is found ten times as fast, and most bodies do not have this one.
        if content.find(b"\\", begin, end) >= 0 and content.find(MARKED_JSON, begin, end) >= 0:
            return True
    return False


def stored_frame(
    content: bytes, format: Format, model: type[BaseModel], *, read_in: Read = read_here
) -> pl.DataFrame | None:
    r"""Return the frame in *content* if greendata wrote it from a frame of *model*, else None. Call on a worker.

    Return None too if pydantic reads the values of *model* as they are stored. Call it if pydantic rejects rows of
    *content*, or if `has_mark` returns True.

    Args:
        content: JSON or NDJSON.
        read_in: the function that runs the reader, here or in a child process.

    Example:
        >>> class Item(BaseModel):
        ...     code: int | str
        >>> stored_frame(b'{"code":"\\t7"}\n', "ndjson", Item)["code"].to_list()
        ['\t7']
        >>> stored_frame(b'{"code": "7"}\n', "ndjson", Item)
    """
    columns = [column for column in columns_of(model) if column.sources]
    if not any(column.codec.decoder(column.codec.dtype) for column in columns):
        return None
    try:
        df = read_in(read, content, format, format, pl.Schema({column.name: column.codec.dtype for column in columns}))
    except Malformed:
        return None
    return df if _is_written_as(content, df, format) else None


def _is_written_as(content: bytes, df: pl.DataFrame, format: Format) -> bool:
    """Return True if *content* is what greendata writes of *df*. Compare in pieces: a comparison holds the GIL."""
    gil = GilReleaser()
    begin = 0
    for piece in _written(df, format):
        if content[begin : begin + len(piece)] != piece:
            return False
        begin += len(piece)
        gil.release_if_due()
    return begin == len(content)


def _written(df: pl.DataFrame, format: Format) -> Pieces:
    writer = writer_of(format, escape_formulas=False)
    yield from writer.add(df)
    yield writer.end()


def stored_rows(texts: pl.Series, model: type[BaseModel], *, is_rejected: bool) -> pl.DataFrame | None:
    r"""Return the frame of rows of JSON with these *texts*, like `stored_frame`. Call on a worker.

    Args:
        is_rejected: True if pydantic rejects some of them. Otherwise they are read only if they have a mark.

    Example:
        >>> class Item(BaseModel):
        ...     code: int | str
        >>> stored_rows(pl.Series(['{"code":"\\t7"}']), Item, is_rejected=False)["code"].to_list()
        ['\t7']
    """
    if not (is_rejected or texts.str.contains(MARKED_JSON.decode(), literal=True).any()):
        return None
    content, gil = BytesIO(), GilReleaser()
    for some in slices(texts.to_frame("text"), SLICE_BYTES, rows=ROWS):
        lines: bytes = (some["text"].str.join("\n") + "\n").cast(pl.Binary).item()
        content.write(lines)
        gil.release_if_due()
    return stored_frame(content.getvalue(), "ndjson", model)
