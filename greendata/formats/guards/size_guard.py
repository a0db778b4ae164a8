"""Reject input, before parsing, that would expand far beyond its size in bytes.

A few untrusted bytes may stand for more cells than fit into memory. Nothing is parsed here. The bytes are scanned in
chunks, so that no call holds the GIL for long. Call on a worker.
"""

from __future__ import annotations

from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import polars as pl

from greendata.errors import Malformed
from greendata.formats.guards.chunk_scan import SCAN_BYTES, Content, count
from greendata.formats.guards.json_depth import reject_deep_lines
from greendata.formats.guards.json_members import reject_many_members
from greendata.formats.guards.parquet_footer import check_parquet
from greendata.formats.guards.parquet_pages import unpacked_limit

__all__ = (
    "COLUMNS",
    "HEADER_BYTES",
    "collect_keys",
    "reject_compressed",
    "reject_repeated",
    "reject_sparse",
    "reject_unsafe_file",
    "reject_wide",
)

CELLS_A_BYTE = 1  # cells of a frame for each byte: rows that have all columns need five bytes or more for a cell
CELLS_ALWAYS = 1 << 20  # cells that are always accepted, whatever the number of bytes: 16 MiB
COLUMNS = 1 << 16  # at most in a text: a column takes two bytes there, and a kilobyte and 12 us in Polars
HEADER_BYTES = 1 << 20  # bytes in the header of a CSV file, at most

_PACKED = (b"\x1f\x8b", b"x\x01", b"x\x9c", b"x\xda", b"\x28\xb5\x2f\xfd")  # the first bytes of gzip, zlib and zstd
_OTHER_FILES = {  # what people send by mistake, by its first bytes
    b"PK\x03\x04": "a ZIP archive, as Excel workbooks are",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "a file of an old Microsoft Office, such as an Excel workbook",
    b"%PDF-": "a PDF",
    b"PAR1": "a Parquet file",
    b"ARROW1\0\0": "an Arrow file",
    b"\xfd7zXZ\0": "an xz archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
}
_KEY = r'"(?:[^"\\]|\\.)*"\s*:'
# The options of `polars.read_csv` that decide where the header is and how it is split into columns.
_FORM = ("comment_prefix", "encoding", "eol_char", "has_header", "quote_char", "separator", "skip_lines", "skip_rows")


def reject_compressed(content: Content, format: str) -> None:
    """Raise Malformed if *content* is no text, but a file of another kind, or is compressed.

    Polars would decompress it, however large the result is.

    Example:
        >>> import zlib
        >>> reject_compressed(zlib.compress(b"a"), "csv")
        Traceback (most recent call last):
        greendata.errors.formats.Malformed: not valid csv: it is compressed, so its size in memory is unknown
    """
    if content[:4].startswith(_PACKED):
        raise Malformed(format, "it is compressed, so its size in memory is unknown")
    for first, kind in _OTHER_FILES.items():
        if content[: len(first)] == first:
            raise Malformed(format, f"it is {kind}; expected {format} as text")


def reject_sparse(rows: int, columns: int, size: int, *, format: str) -> None:
    """Raise Malformed if *size* bytes are too few for so many cells, as with many rows of ``{}``.

    Example:
        >>> reject_sparse(10, 10, 100, format="csv")
    """
    if rows * columns > CELLS_ALWAYS + CELLS_A_BYTE * size:
        raise Malformed(format, f"{size} bytes for {rows} rows of {columns} columns: almost all of it would be null")


def reject_wide(columns: int, *, format: str) -> None:
    """Raise Malformed if a text names more than `COLUMNS` columns.

    Example:
        >>> reject_wide(10, format="csv")
    """
    if columns > COLUMNS:
        raise Malformed(format, f"it has more than {COLUMNS} columns")


def collect_keys(content: Content, format: str) -> list[str]:
    """Return the distinct keys in *content*, on any level, in the order of their first occurrence.

    Each key is returned as it is written, with the colon after it. Keys are found by a pattern; nothing is parsed. To
    infer a schema, Polars needs time and memory in proportion to the number of rows times the number of columns.

    Raises:
        Malformed: there are too many keys, for example because the keys of a dictionary would become columns.

    Example:
        >>> collect_keys(b'[{"a": 1}]', "json")
        ['"a":']
    """
    rows = count(content, b"{")
    keys: dict[str, None] = {}
    for begin in range(0, len(content), SCAN_BYTES):
        chunk = pl.Series([content[begin : begin + SCAN_BYTES].decode(errors="replace")])
        found = chunk.str.extract_all(_KEY).explode().drop_nulls().unique(maintain_order=True)
        keys.update(dict.fromkeys(found.to_list()))
        reject_wide(len(keys), format=format)
        reject_sparse(rows, len(keys), len(content), format=format)
    return [*keys]


def reject_repeated(df: pl.DataFrame, size: int, *, format: str) -> None:
    """Raise Malformed if the values of *df*, which was read from *size* bytes, are far more bytes than these.

    Arrow and Parquet store a text once for many rows, and so does Polars. But code that converts the values, such as a
    validation, needs memory for the text of each row: a kilobyte may stand for a terabyte.

    Example:
        >>> reject_repeated(pl.DataFrame({"a": ["x"]}), 10, format="parquet")
    """
    total, limit = df.estimated_size() + sum(map(_category_bytes, df)), unpacked_limit(size)
    if total > limit:
        raise Malformed(format, f"{size} bytes for values of {total} bytes, which are repeated; the limit is {limit}")


def _category_bytes(values: pl.Series) -> int:
    """Return the size of the texts that categories stand for, also in nested values."""
    dtype = values.dtype
    if isinstance(dtype, pl.Categorical | pl.Enum):
        return int(values.cat.len_bytes().cast(pl.UInt64).sum())
    if isinstance(dtype, pl.Struct):
        return sum(map(_category_bytes, values.struct.unnest()))
    return _category_bytes(values.explode()) if isinstance(dtype, pl.List | pl.Array) else 0


def reject_unsafe_file(path: Path, format: str, options: dict[str, Any]) -> None:
    """Raise Malformed if it is not safe for Polars to read the untrusted file at *path*.

    Args:
        format: csv, ndjson or parquet.
        options: the options of the Polars reader.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write(b"PAR1, or so it says")
        ...     file.flush()
        ...     reject_unsafe_file(Path(file.name), "parquet", {})
        Traceback (most recent call last):
        greendata.errors.formats.Malformed: not valid parquet: it is cut short, or not a Parquet file
    """
    if not path.stat().st_size:  # an empty file cannot be mapped, and needs no check
        return
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        if format == "parquet":
            check_parquet(content)
            return
        reject_compressed(content, format)
        given = len(options.get("schema") or ())  # columns that the text need not have
        if format == "ndjson":
            reject_sparse(count(content, b"\n") + 1, given, len(content), format=format)
            reject_deep_lines(content, inferred="schema" not in options)
            reject_many_members(content, format)
            collect_keys(content, format)
        else:
            eol = str(options.get("eol_char", "\n")).encode()
            columns = max(given, _columns(content, eol, options))
            reject_wide(columns, format=format)
            reject_sparse(count(content, eol) + 1, columns, len(content), format=format)


def _columns(content: Content, eol: bytes, options: dict[str, Any]) -> int:
    """Return the number of columns that Polars finds in the header of a CSV file."""
    end = len(content)
    if end > HEADER_BYTES:
        end = content.rfind(eol, 0, HEADER_BYTES) + 1
    form = {name: options[name] for name in _FORM if name in options}
    head = pl.read_csv(content[:end], **form, n_rows=0, infer_schema=False, raise_if_empty=False)
    if not head.width and end < len(content):
        raise Malformed("csv", f"its header has more than {HEADER_BYTES} bytes")
    return head.width
