"""Write frames as text in slices, because Polars holds the GIL, and so blocks the hub, while it returns text.

``df.write_ndjson()`` and ``df.write_json()`` of 600 000 rows block the hub for 50 to 100 ms. The functions here
process a few slices in parallel on all cores: an expression makes JSON objects of the rows, or a sink makes CSV lines.
Each slice is returned separately. That takes half of the time, and blocks the hub for 2 ms.

Call these functions from workers.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections import deque
from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import chain, islice
from typing import Literal

import polars as pl

from greendata.hub.pacing import GilReleaser
from greendata.internals.cpython import joined

__all__ = (
    "SLICE_BYTES",
    "bytes_of",
    "csv_lines",
    "json_document",
    "json_pieces",
    "json_text",
    "ndjson_lines",
    "ndjson_text",
    "pieces_of",
    "slices",
    "text_of",
)

SLICE_BYTES = 1 << 19  # bytes in memory, about the same as text; copying them holds the GIL for 0.2 ms
JSON_ROWS = 5_000  # most rows in a slice: with column names, narrow rows are three times as long as text
CSV_ROWS = 10_000  # most rows in a slice; more than for JSON, because each slice costs more
COPIED_BYTES = 1 << 21  # bytes of text that are copied at once, which holds the GIL for 1 ms
PARALLEL_SLICES = 4  # slices whose text is in memory; 8 are not faster

_BELOW_4_BYTES = bytes(range(0xF0))  # the bytes of UTF-8 before the first of a character of 4 bytes
_BELOW_256 = bytes(range(0xC4))  # and before the first of a character that is not in Latin-1


def ndjson_text(df: pl.DataFrame) -> str:
    r"""Return the same text as ``df.write_ndjson()``.

    Example:
        >>> ndjson_text(pl.DataFrame({"a": [1, 2]}))
        '{"a":1}\n{"a":2}\n'
    """
    return text_of(ndjson_lines(df))


def json_text(df: pl.DataFrame) -> str:
    """Return the same text as ``df.write_json()``.

    Example:
        >>> json_text(pl.DataFrame({"a": [1, 2]}))
        '[{"a":1},{"a":2}]'
    """
    return text_of(json_document(df))


def text_of(pieces: Iterable[bytes], *, errors: str = "strict") -> str:
    r"""Return *pieces* of UTF-8 as one text. A piece may end within a character.

    Example:
        >>> text_of([b"gr\xc3", b"\xbcn"]) == "gr\xfcn"
        True
    """
    texts: deque[str] = deque()
    decode, length, largest, gil = getincrementaldecoder("utf-8")(errors).decode, 0, 0, GilReleaser()
    for piece in pieces:
        texts.append(decode(piece))
        length += len(texts[-1])
        largest = max(largest, _largest(piece))
        gil.release_if_due()
    texts.append(decode(b"", True))  # raises an error if the last character is incomplete
    if length <= SLICE_BYTES:
        return "".join(texts)
    return joined((texts.popleft() for _ in range(len(texts))), length, largest, gil.release_if_due)


def pieces_of(text: pl.DataFrame) -> Iterator[bytes]:
    """Yield the first value of *text*, which is binary, in pieces: copying a long one to Python would hold the GIL.

    *text* should have more rows: Polars copies the value of a frame with one row, with the GIL held, in each step.

    Example:
        >>> list(pieces_of(pl.DataFrame({"text": [b"abc", b""]})))
        [b'abc']
    """
    if text.estimated_size() <= COPIED_BYTES:
        lines: bytes = text.item(0, 0)
        yield lines
        return
    whole, gil = pl.nth(0).first(), GilReleaser()
    begins = pl.int_range(0, whole.bin.size(), SLICE_BYTES)
    cut = text.lazy().select(whole.bin.slice(begins, SLICE_BYTES)).collect(engine=pl.InMemoryEngine()).to_series()
    for number in range(len(cut)):
        yield cut[number]
        gil.release_if_due()


def bytes_of(pieces: Iterable[bytes | memoryview]) -> bytes:
    """Return *pieces* as one. ``b"".join`` would hold the GIL while it copies all of them.

    Example:
        >>> bytes_of([b"a", b"b"])
        b'ab'
    """
    whole, gil = BytesIO(), GilReleaser()
    for piece in pieces:
        whole.write(piece)
        gil.release_if_due()
    return whole.getvalue()


def _largest(piece: bytes) -> int:
    """Return the least of the limits that CPython has for the characters of a text, which those of *piece* keep."""
    if piece.isascii():
        return 0x7F
    if piece.translate(None, _BELOW_4_BYTES):
        return 0x10FFFF
    return 0xFFFF if piece.translate(None, _BELOW_256) else 0xFF


def json_document(df: pl.DataFrame) -> Iterator[bytes]:
    """Yield pieces of an array of JSON objects, one for each row.

    Example:
        >>> b"".join(json_document(pl.DataFrame({"a": [1, 2]})))
        b'[{"a":1},{"a":2}]'
    """
    return chain([b"["], json_pieces(df), [b"]"])


def ndjson_lines(df: pl.DataFrame) -> Iterator[bytes]:
    r"""Yield pieces of newline-delimited JSON, with one object for each row. A piece may end anywhere.

    Example:
        >>> list(ndjson_lines(pl.DataFrame({"a": [1]})))
        [b'{"a":1}\n']
    """
    for lines in _json_objects(df, separator="\n", end="\n"):
        yield from pieces_of(lines)


def json_pieces(df: pl.DataFrame) -> Iterator[bytes]:
    """Yield pieces of JSON objects, one for each row, with commas between them but without the enclosing brackets.

    A piece may end anywhere.

    Example:
        >>> list(json_pieces(pl.DataFrame({"a": [1, 2]})))
        [b'{"a":1},{"a":2}']
    """
    for number, objects in enumerate(_json_objects(df, separator=",", end="")):
        if number:
            yield b","
        yield from pieces_of(objects)


def csv_lines(df: pl.DataFrame, *, quote_text: bool) -> Iterator[bytes]:
    r"""Yield CSV lines without a header. With *quote_text*, all values except numbers are quoted.

    Example:
        >>> list(csv_lines(pl.DataFrame({"a": [1], "b": ["x"]}), quote_text=True))
        [b'1,"x"\n']
    """
    style: Literal["non_numeric", "necessary"] = "non_numeric" if quote_text else "necessary"
    for group in _groups(df, CSV_ROWS):
        files = [BytesIO() for _ in group]
        sinks = [
            piece.lazy().sink_csv(file, include_header=False, quote_style=style, lazy=True)
            for piece, file in zip(group, files, strict=True)
        ]
        pl.collect_all(sinks, engine=pl.StreamingEngine())  # the engine that runs sinks in parallel
        for file in files:
            yield file.getvalue()  # returns the buffer without a copy


def slices(df: pl.DataFrame, size: int, *, rows: int) -> Iterator[pl.DataFrame]:
    """Yield *df* in slices of about *size* bytes in memory, at most twice as many, and at most *rows* rows.

    A frame without rows gives one slice. So does a row, however large it is.

    Example:
        >>> [piece.height for piece in slices(pl.DataFrame({"a": range(5)}), 1 << 20, rows=2)]
        [2, 2, 1]
        >>> [piece.height for piece in slices(pl.DataFrame({"a": ["x" * 100, "x" * 100, *"abcdef"]}), 80, rows=10)]
        [1, 2, 3, 2]
    """
    if not df.height:
        yield df
        return
    a_row = df.estimated_size() / df.height
    for some in df.iter_slices(max(1, min(rows, int(size / max(a_row, 1.0))))):
        yield from _halved(some, 2 * size)


def _halved(df: pl.DataFrame, most: int) -> Iterator[pl.DataFrame]:
    """Yield *df*, in parts of at most *most* bytes if its rows are larger than the average of the whole frame."""
    if df.height == 1 or df.estimated_size() <= most:
        yield df
        return
    yield from _halved(df.head(df.height // 2), most)
    yield from _halved(df.slice(df.height // 2), most)


def _json_objects(df: pl.DataFrame, *, separator: str, end: str) -> Iterator[pl.DataFrame]:
    """Yield the objects of some rows at a time, for `pieces_of`."""
    if not df.height:
        df.write_ndjson()  # raises an error for unsupported types
        return
    if not df.width:
        yield pl.DataFrame({"text": [(separator.join(["{}"] * df.height) + end).encode(), b""]})
        return
    an_object = pl.struct(pl.all()).struct.json_encode()
    text = (an_object.str.join(separator) + end).cast(pl.Binary).append(pl.lit(b""))
    for group in _groups(df, JSON_ROWS):
        yield from pl.collect_all([piece.lazy().select(text) for piece in group], engine=pl.InMemoryEngine())


def _groups(df: pl.DataFrame, rows: int) -> Iterator[list[pl.DataFrame]]:
    pieces = slices(df, SLICE_BYTES, rows=rows)
    while group := list(islice(pieces, PARALLEL_SLICES)):
        yield group
