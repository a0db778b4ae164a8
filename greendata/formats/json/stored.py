"""Read back the JSON that greendata wrote from a frame of a model, whose columns store some values in another form.

pydantic validates each row of JSON by its own text (`greendata.formats.json.partition`). The text of a column that
stores a dict as pairs, or the integer of an ``int | str`` as marked text, is not what pydantic reads as such a value.
So JSON that is, byte for byte, what greendata writes of the frame in it is read as that frame.
"""

from __future__ import annotations

import polars as pl
from pydantic import BaseModel

from greendata.errors import Malformed
from greendata.formats.format import Format
from greendata.formats.isolation import Read, read_here
from greendata.formats.readers import read
from greendata.formats.writers import writer_of
from greendata.schema.fields import columns_of
from greendata.schema.named_dtypes import MARKED_JSON

__all__ = ("stored_frame", "stored_rows")


def stored_frame(
    content: bytes, format: Format, model: type[BaseModel], *, is_rejected: bool, read_in: Read = read_here
) -> pl.DataFrame | None:
    r"""Return the frame in *content* if greendata wrote it from a frame of *model*, else None. Call on a worker.

    Args:
        content: JSON or NDJSON.
        is_rejected: True if pydantic rejects rows of *content*. It accepts marked text as a string, so *content* is
            also looked at if that may be in it.
        read_in: where it is read.

    Example:
        >>> class Item(BaseModel):
        ...     code: int | str
        >>> stored_frame(b'{"code":"\\t7"}\n', "ndjson", Item, is_rejected=False)["code"].to_list()
        ['\t7']
        >>> stored_frame(b'{"code":"7"}\n', "ndjson", Item, is_rejected=False)
    """
    columns = [column for column in columns_of(model) if column.sources]
    if not (is_rejected or MARKED_JSON in content) or not any(c.codec.decoder(c.codec.dtype) for c in columns):
        return None
    writer = writer_of(format, escape_formulas=False)
    try:
        df = read_in(read, content, format, format, pl.Schema({column.name: column.codec.dtype for column in columns}))
    except Malformed:
        return None
    return df if b"".join([*writer.add(df), writer.end()]) == content else None


def stored_rows(texts: pl.Series, model: type[BaseModel], *, is_rejected: bool) -> pl.DataFrame | None:
    r"""Return the frame of rows of JSON with these *texts*, like `stored_frame`. Call on a worker.

    Example:
        >>> class Item(BaseModel):
        ...     code: int | str
        >>> stored_rows(pl.Series(['{"code":"\\t7"}']), Item, is_rejected=False)["code"].to_list()
        ['\t7']
    """
    if not (is_rejected or texts.str.contains(MARKED_JSON.decode(), literal=True).any()):
        return None
    content: str = texts.str.join("\n").item() + "\n"
    return stored_frame(content.encode(), "ndjson", model, is_rejected=is_rejected)
