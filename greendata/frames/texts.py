"""Frames as text, in slices: Polars holds the GIL while it hands over JSON in memory, and the hub with it.

Measured on 600 000 rows: one ``df.write_ndjson()`` takes 195 ms and silences the hub for 93 ms; in slices of
some 256 KiB it takes 60 ms and silences it for 1.4 ms. All of it is for workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO

import polars as pl

__all__ = ("SLICE_BYTES", "csv_lines", "json_lists", "json_text", "ndjson_lines", "ndjson_text", "slices")

SLICE_BYTES = 1 << 18  # of columns in memory, which is about what they are as text: a millisecond of the GIL
SLICE_ROWS = 5_000  # at most, however narrow they are


def ndjson_text(df: pl.DataFrame) -> str:
    r"""What ``df.write_ndjson()`` returns.

    Example:
        >>> ndjson_text(pl.DataFrame({"a": [1, 2]}))
        '{"a":1}\n{"a":2}\n'
    """
    return "".join(str(piece, "utf-8") for piece in ndjson_lines(df))


def json_text(df: pl.DataFrame) -> str:
    """What ``df.write_json()`` returns.

    Example:
        >>> json_text(pl.DataFrame({"a": [1, 2]}))
        '[{"a":1},{"a":2}]'
    """
    return "[" + ",".join(str(piece, "utf-8") for piece in json_lists(df)) + "]"


def ndjson_lines(df: pl.DataFrame) -> Iterator[memoryview]:
    r"""Newline-delimited JSON, one object a row.

    Example:
        >>> [bytes(lines) for lines in ndjson_lines(pl.DataFrame({"a": [1]}))]
        [b'{"a":1}\n']
    """
    return _written(df, pl.DataFrame.write_ndjson)


def json_lists(df: pl.DataFrame) -> Iterator[memoryview]:
    """JSON objects, one a row, with commas between and no brackets around.

    Example:
        >>> [bytes(objects) for objects in json_lists(pl.DataFrame({"a": [1, 2]}))]
        [b'{"a":1},{"a":2}']
    """
    return (piece[1:-1] for piece in _written(df, pl.DataFrame.write_json))


def csv_lines(df: pl.DataFrame, *, quote_text: bool) -> Iterator[memoryview]:
    r"""CSV without its header; with *quote_text* whatever is no number stands in quotes.

    Example:
        >>> [bytes(lines) for lines in csv_lines(pl.DataFrame({"a": [1], "b": ["x"]}), quote_text=True)]
        [b'1,"x"\n']
    """
    style = "non_numeric" if quote_text else "necessary"
    return _written(df, lambda piece, file: piece.write_csv(file, include_header=False, quote_style=style))


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


def _written(df: pl.DataFrame, write: Callable[[pl.DataFrame, BytesIO], object]) -> Iterator[memoryview]:
    for piece in slices(df, SLICE_BYTES, rows=SLICE_ROWS):
        file = BytesIO()
        write(piece, file)
        yield file.getbuffer()
