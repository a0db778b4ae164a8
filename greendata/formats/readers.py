"""Read the bytes of each format into a frame, or raise `Malformed`. Call on a worker.

For some malformed bodies Polars raises a Rust panic: that becomes `Malformed` too. Input that would expand far beyond
its size in bytes is rejected before Polars reads it: running out of memory would end the process, and no exception
could prevent that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from io import BytesIO
from tempfile import TemporaryFile

import polars as pl
from polars.exceptions import PanicException, PolarsError

from greendata.errors import Malformed
from greendata.errors.plural import counted
from greendata.formats.csv_options import CsvOptions
from greendata.formats.csv_reader import read_csv
from greendata.formats.error_texts import short_message
from greendata.formats.format import Format
from greendata.formats.guards.arrow_check import check_arrow_stream
from greendata.formats.guards.parquet_footer import check_parquet
from greendata.formats.json.reader import read_json, read_ndjson
from greendata.schema.column_names import referred

__all__ = ("read",)

CSV = CsvOptions()
Reader = Callable[[bytes, pl.Schema | None], pl.DataFrame]


def read(
    content: bytes,
    format: Format,
    schema: pl.Schema | None = None,
    *,
    csv: CsvOptions = CSV,
    names: Sequence[str] | None = None,
    as_text: bool = False,
    in_base64: Collection[str] = (),
) -> pl.DataFrame:
    r"""Return the frame in *content*.

    Args:
        schema: the columns to return. None for all columns, with inferred types.
        csv: the options of CSV.
        names: the names of the columns of CSV without a header, if there is no schema.
        as_text: leave the cells of CSV as text, for a caller that converts text to numbers.
        in_base64: columns of CSV that are decoded from base64 even with *as_text*.

    Raises:
        Malformed: *content* is not in *format*, or does not have the columns and types of *schema*.

    Example:
        >>> read(b"a\n1\n", "csv").rows()
        [(1,)]
    """
    try:
        if format == "csv":
            return read_csv(content, schema, options=csv, names=names, as_text=as_text, in_base64=in_base64)
        return _READERS[format](content, schema)
    except (PolarsError, PanicException, OSError) as error:
        raise Malformed(format, short_message(error)) from error


def _arrow(content: bytes, schema: pl.Schema | None) -> pl.DataFrame:
    check_arrow_stream(content)
    with TemporaryFile() as file:  # from bytes, Polars reads a stream with the GIL held: 20 ms for 34 MB
        file.write(content)
        file.seek(0)
        return _chosen(pl.read_ipc_stream(file), schema, "arrow")


def _parquet(content: bytes, schema: pl.Schema | None) -> pl.DataFrame:
    check_parquet(content)
    return _chosen(pl.read_parquet(BytesIO(content)), schema, "parquet")


def _chosen(df: pl.DataFrame, schema: pl.Schema | None, format: Format) -> pl.DataFrame:
    if schema is None:
        return df
    missing = sorted(schema.keys() - set(df.columns))
    if missing:
        raise Malformed(format, f"{counted(len(missing), 'column')} missing: {', '.join(missing)}")
    got = df.schema  # df.schema builds a new object on each access
    for name, dtype in schema.items():
        if got[name] != dtype:
            raise Malformed(format, f"expected {dtype}, got {got[name]}", column=name)
    return df.select(referred([*schema], df.columns))


_READERS: dict[Format, Reader] = {"json": read_json, "ndjson": read_ndjson, "arrow": _arrow, "parquet": _parquet}
