"""What a body claims, against the bytes that it has: a stranger's few bytes may be more cells than a machine can hold.

Nothing here parses. The bytes are looked at in windows, for the GIL's sake. Call on a worker.
"""

from __future__ import annotations

from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import polars as pl

from greendata.errors import Malformed
from greendata.formats.guards.chunk_scan import SCAN_BYTES, Content, count
from greendata.formats.guards.depth import reject_deep_lines
from greendata.formats.guards.footer import check_file
from greendata.formats.guards.members import reject_many_members

__all__ = (
    "COLUMNS",
    "HEADER_BYTES",
    "collect_keys",
    "reject_compressed",
    "reject_sparse",
    "reject_unsafe_file",
    "reject_wide",
)

CELLS_A_BYTE = 1  # of a frame; rows that have all their columns need five bytes and more for each
CELLS_ALWAYS = 1 << 20  # whatever the number of bytes: 16 MiB
COLUMNS = 1 << 16  # that a text may name: each costs Polars a kilobyte and 12 us, and the text two bytes
HEADER_BYTES = 1 << 20  # at most

_PACKED = (b"\x1f\x8b", b"x\x01", b"x\x9c", b"x\xda", b"\x28\xb5\x2f\xfd")  # how gzip, zlib and zstd begin
_KEY = r'"(?:[^"\\]|\\.)*"\s*:'
# The options of `polars.read_csv` that say where the header is and what a column.
_FORM = ("comment_prefix", "encoding", "eol_char", "has_header", "quote_char", "separator", "skip_lines", "skip_rows")


def reject_compressed(content: Content, format: str) -> None:
    """Raise Malformed if a text is compressed: Polars would unpack it, and nothing would bound what comes out.

    Example:
        >>> import zlib
        >>> reject_compressed(zlib.compress(b"a"), "csv")
        Traceback (most recent call last):
        greendata.errors.formats.Malformed: not valid csv: it is compressed: what comes out of it has no bound
    """
    if content[:4].startswith(_PACKED):
        raise Malformed(format, "it is compressed: what comes out of it has no bound")


def reject_sparse(rows: int, columns: int, size: int, *, format: str) -> None:
    """Raise Malformed if so many cells out of *size* bytes are an attack on memory, such as rows of ``{}``.

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
    """The keys in *content*, of any level, in the order in which they come first, with the colon behind them.

    Polars takes the time of rows by columns to infer a schema, and then the memory. The keys are told by what they
    look like.

    Raises:
        Malformed: inferring a schema would make a column of every key of a dictionary, say.

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


def reject_unsafe_file(path: Path, format: str, options: dict[str, Any]) -> None:
    """Raise Malformed if Polars' own reader must not be let at the file at *path*, which a stranger has filled.

    Args:
        format: csv, ndjson or parquet.
        options: those of the reader.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write(b"PAR1, or so it says")
        ...     file.flush()
        ...     reject_unsafe_file(Path(file.name), "parquet", {})
        Traceback (most recent call last):
        greendata.errors.formats.Malformed: not valid parquet: it is cut short, or none
    """
    if not path.stat().st_size:  # nothing can be mapped, and nothing is claimed
        return
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        if format == "parquet":
            check_file(content)
            return
        reject_compressed(content, format)
        if format == "ndjson":
            reject_deep_lines(content, inferred="schema" not in options)
            reject_many_members(content, format)
            collect_keys(content, format)
        else:
            columns = _columns(content, options)
            reject_wide(columns, format=format)
            reject_sparse(count(content, b"\n") + 1, columns, len(content), format=format)


def _columns(content: Content, options: dict[str, Any]) -> int:
    """How many columns the first records of a CSV file have, as Polars reads them."""
    end = len(content)
    if end > HEADER_BYTES:
        end = content.rfind(b"\n", 0, HEADER_BYTES) + 1
    form = {name: options[name] for name in _FORM if name in options}
    head = pl.read_csv(content[:end], **form, n_rows=0, infer_schema=False, raise_if_empty=False)
    if not head.width and end < len(content):
        raise Malformed("csv", f"its header has more than {HEADER_BYTES} bytes")
    return head.width
