"""Frames as text, in slices: Polars holds the GIL while it hands over text in memory, and the hub with it.

``df.write_ndjson()`` and ``df.write_json()`` of 600 000 rows silence the hub for 50 to 100 ms. Here the rows become
objects by an expression, or lines by a sink, a few slices at once on all cores, and each slice is handed over by
itself: that takes half of the time and silences the hub for 2 ms. All of it is for workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from typing import Literal

import polars as pl

__all__ = ("SLICE_BYTES", "csv_lines", "json_lists", "json_text", "ndjson_lines", "ndjson_text", "slices")

SLICE_BYTES = 1 << 19  # of columns in memory, which is about what they are as text: a copy of it is 0.2 ms of the GIL
JSON_ROWS = 5_000  # at most, however narrow they are: names of columns make the text three times as long
CSV_ROWS = 10_000  # likewise; to begin with a slice takes longer
AT_ONCE = 4  # slices: their text, and no more, is in memory; with 8 no less time is taken


def ndjson_text(df: pl.DataFrame) -> str:
    r"""What ``df.write_ndjson()`` returns.

    Example:
        >>> ndjson_text(pl.DataFrame({"a": [1, 2]}))
        '{"a":1}\n{"a":2}\n'
    """
    return "".join(str(lines, "utf-8") for lines in ndjson_lines(df))


def json_text(df: pl.DataFrame) -> str:
    """What ``df.write_json()`` returns.

    Example:
        >>> json_text(pl.DataFrame({"a": [1, 2]}))
        '[{"a":1},{"a":2}]'
    """
    return "[" + ",".join(str(objects, "utf-8") for objects in json_lists(df)) + "]"


def ndjson_lines(df: pl.DataFrame) -> Iterator[bytes]:
    r"""Newline-delimited JSON, one object a row.

    Example:
        >>> list(ndjson_lines(pl.DataFrame({"a": [1]})))
        [b'{"a":1}\n']
    """
    return _objects(df, between="\n", behind="\n")


def json_lists(df: pl.DataFrame) -> Iterator[bytes]:
    """JSON objects, one a row, with commas between and no brackets around.

    Example:
        >>> list(json_lists(pl.DataFrame({"a": [1, 2]})))
        [b'{"a":1},{"a":2}']
    """
    return _objects(df, between=",", behind="")


def csv_lines(df: pl.DataFrame, *, quote_text: bool) -> Iterator[bytes]:
    r"""CSV without its header; with *quote_text* whatever is no number stands in quotes.

    Example:
        >>> list(csv_lines(pl.DataFrame({"a": [1], "b": ["x"]}), quote_text=True))
        [b'1,"x"\n']
    """
    style: Literal["non_numeric", "necessary"] = "non_numeric" if quote_text else "necessary"
    for some in _some(df, CSV_ROWS):
        files = [BytesIO() for _ in some]
        sinks = [
            piece.lazy().sink_csv(file, include_header=False, quote_style=style, lazy=True)
            for piece, file in zip(some, files, strict=True)
        ]
        pl.collect_all(sinks, engine="streaming")  # the engine that runs sinks side by side
        for file in files:
            yield file.getvalue()  # which is no copy


def slices(df: pl.DataFrame, size: int, *, rows: int) -> Iterator[pl.DataFrame]:
    """*df* in slices of about *size* bytes in memory and at most *rows* rows; one slice if it has no rows.

    Example:
        >>> [piece.height for piece in slices(pl.DataFrame({"a": range(5)}), 1 << 20, rows=2)]
        [2, 2, 1]
    """
    if not df.height:
        return iter((df,))
    a_row = df.estimated_size() / df.height
    return df.iter_slices(max(1, min(rows, int(size / max(a_row, 1.0)))))


def _objects(df: pl.DataFrame, *, between: str, behind: str) -> Iterator[bytes]:
    if not df.height:
        df.write_ndjson()  # which raises what it has against the types; nothing else asks for it
        return
    if not df.width:
        yield (between.join(["{}"] * df.height) + behind).encode()
        return
    an_object = pl.struct(pl.all()).struct.json_encode()
    text = (an_object.str.join(between) + behind).cast(pl.Binary)
    for some in _some(df, JSON_ROWS):
        for done in pl.collect_all([piece.lazy().select(text) for piece in some], engine="in-memory"):
            lines: bytes = done.item()
            yield lines


def _some(df: pl.DataFrame, rows: int) -> Iterator[list[pl.DataFrame]]:
    pieces = slices(df, SLICE_BYTES, rows=rows)
    while some := list(islice(pieces, AT_ONCE)):
        yield some
