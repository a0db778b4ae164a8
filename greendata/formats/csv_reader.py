"""Read CSV into frames. Call on a worker.

Columns are found by the names in the header. Values have the text forms that `greendata.formats.text_encode` writes.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from io import StringIO

import polars as pl
from polars.exceptions import PanicException, PolarsError

from greendata.errors import Malformed
from greendata.errors.plural import counted
from greendata.formats.error_texts import short_message
from greendata.formats.guards.chunk_scan import (
    count,
    first_byte,
    first_failure,
    has_large_record,
    line_end,
    unclosed_quote_line,
)
from greendata.formats.guards.size_guard import (
    HEADER_BYTES,
    reject_compressed,
    reject_sparse,
    reject_wide,
)
from greendata.formats.text_decode import cast, cast_to
from greendata.formats.text_encode import check_writable

__all__ = ("read_csv",)

BOM = b"\xef\xbb\xbf"
EXACT = 2**53  # a float holds every integer up to this one
NAMED = 5  # columns that an error message names, at most

_FAILURES = (PolarsError, PanicException, Malformed)


def read_csv(
    content: bytes, schema: pl.Schema | None, *, as_text: bool = False, in_base64: Collection[str] = ()
) -> pl.DataFrame:
    r"""Return a frame with one row for each record. A record that is too short is filled up with nulls.

    Args:
        schema: the columns to return. None for all columns, with inferred types.
        as_text: without a schema, leave all cells as text.
        in_base64: without a schema, the columns to decode from base64.

    Raises:
        Malformed: the text is not CSV, or a column is missing, or a value does not have the type of its column.
        NotWritable: *schema* has a column that CSV has no form for.

    Example:
        >>> read_csv(b"a,b\n1,x\n", pl.Schema({"b": pl.String})).rows()
        [('x',)]
    """
    reject_compressed(content, "csv")
    if (line := unclosed_quote_line(content)) is not None:
        raise Malformed("csv", "a quote is not closed", line=line)
    begin = _header_start(content)
    header = _first_record(content, begin)
    names = _names(header)
    reject_sparse(count(content, b"\n") + 1, len(names), len(content), format="csv")
    if schema is not None:
        check_writable(schema, "csv")
        missing = sorted(schema.keys() - set(names))
        if missing:
            raise Malformed("csv", f"{counted(len(missing), 'column')} missing: {_join_names(missing)}", line=1)
    if not names:
        return pl.DataFrame()
    read_as = schema
    if schema is not None and has_large_record(content):
        read_as = None  # read as text: Polars' error would contain the whole value, built with the GIL held
    raw = dict(zip(_raw_names(header, names), names, strict=True))
    reader = _Reader(raw, None if schema is None and not as_text else read_as or {}, schema, in_base64)
    try:
        return reader.parsed(content, has_header=True)
    except _FAILURES as error:
        raise _error_with_line(content, begin, reader, error) from error


def _header_start(content: bytes) -> int:
    """Return the offset of the header, after any empty lines; the length of *content* if it is all white space."""
    if first_byte(content) == len(content):
        return len(content)
    return first_byte(content, len(BOM) if content.startswith(BOM) else 0, skip=b"\r\n")


def _first_record(content: bytes, begin: int) -> bytes:
    end = begin
    is_open = False
    while end < len(content) and (end == begin or is_open):
        last, end = end, line_end(content, end)
        if end - begin > HEADER_BYTES:
            raise Malformed("csv", f"its header has more than {HEADER_BYTES} bytes", line=1)
        is_open ^= content.count(b'"', last, end) % 2 == 1
    return content[begin:end]


def _names(header: bytes) -> list[str]:
    reject_wide(header.count(b",") + 1, format="csv")
    if not header:
        return []
    try:
        names, *others = csv.reader(StringIO(header.decode(), newline=""), strict=True)
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise Malformed("csv", f"no header: {error}", line=1) from error
    if others:
        raise Malformed("csv", "its lines end with a carriage return alone, expected a line feed", line=1)
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        stand = counted(len(twice), "name stands", "names stand")
        raise Malformed("csv", f"{stand} for more than one column: {_join_names(twice)}", line=1)
    return names


def _join_names(names: list[str]) -> str:
    joined = ", ".join(name if name.strip() else repr(name) for name in names[:NAMED])
    return joined + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _raw_names(header: bytes, names: list[str]) -> list[str]:
    """Return the names that Polars gives to the columns: it keeps a quote within quotes doubled."""
    if b'"' not in header:
        return names
    raw = pl.read_csv(header, n_rows=0, infer_schema=False).columns
    if len(raw) != len(names):
        raise Malformed("csv", f"no header: {counted(len(names), 'name')}, or {len(raw)}", line=1)
    return raw


@dataclass(frozen=True, slots=True)
class _Reader:
    """A reader of records.

    Attributes:
        names: the names of the columns, by the names that Polars gives to them.
        forms: the dtypes of the columns that Polars may read as numbers or booleans. It reads all other columns as
            text. None to infer all dtypes.
        schema: the columns to return.
        in_base64: without a schema, the columns to decode from base64.
    """

    names: dict[str, str]
    forms: Mapping[str, pl.DataType] | None
    schema: pl.Schema | None
    in_base64: Collection[str]

    def parsed(self, content: bytes, *, has_header: bool) -> pl.DataFrame:
        """Return the frame of some records."""
        forms = (
            None if self.forms is None else {raw: _dtype_to_read(name, self.forms) for raw, name in self.names.items()}
        )
        df = pl.read_csv(content, schema=forms, has_header=has_header, infer_schema_length=None)
        df.columns = [*self.names.values()]
        if self.schema is None:
            found = [cast(df[name], pl.Binary(), "csv") for name in df.columns if name in self.in_base64]
            return df.with_columns(found) if found else self._with_exact_numbers(df, content, has_header=has_header)
        if forms and (large := [name for name in df.columns if _has_infinity(df[name])]):  # 1e400, say, which is finite
            exact = {name: dtype for name, dtype in (self.forms or {}).items() if name not in large}
            return replace(self, forms=exact).parsed(content, has_header=has_header)
        return cast_to(df, self.schema, "csv")

    def _with_exact_numbers(self, df: pl.DataFrame, content: bytes, *, has_header: bool) -> pl.DataFrame:
        """Return *df* with other dtypes for inferred floats that differ from the numbers in the text."""
        large = [series.name for series in df.iter_columns() if _may_be_rounded(series)]
        if not large:
            return df
        texts = replace(self, forms={}).parsed(content, has_header=has_header)
        return df.with_columns([_exact(df[name], texts[name]) for name in large])


def _may_be_rounded(values: pl.Series) -> bool:
    return values.dtype.is_float() and bool((values.alias("values").abs() >= EXACT).any())


def _exact(values: pl.Series, texts: pl.Series) -> pl.Series:
    """Return the numbers in *texts* exactly: *values* if they are exact, else Decimals, else *texts*."""
    text = texts.alias("text")
    is_lost = (values.alias("values").is_infinite() & text.str.contains("[0-9]")).any()
    whole = text.filter(text.str.contains("^[+-]?[0-9]{16,}$"))
    exact, rounded = whole.cast(pl.Int128, strict=False), whole.cast(pl.Float64).cast(pl.Int128, strict=False)
    if not is_lost and not (exact != rounded).fill_null(value=True).any():
        return values
    places: int = text.str.extract(r"\.([0-9]+)").str.len_chars().max() or 0  # type: ignore[assignment]
    try:
        return cast(texts, pl.Decimal(38, min(places, 37)), "csv")
    except Malformed:
        return texts


def _dtype_to_read(name: str, forms: Mapping[str, pl.DataType]) -> pl.DataType:
    dtype = forms.get(name)
    is_read = dtype is not None and (isinstance(dtype, pl.Boolean) or (dtype.is_numeric() and not dtype.is_decimal()))
    return dtype if dtype is not None and is_read else pl.String()


def _has_infinity(values: pl.Series) -> bool:
    return values.dtype.is_float() and bool(values.alias("values").is_infinite().any())


def _error_with_line(content: bytes, header: int, reader: _Reader, error: BaseException) -> Malformed:
    text = reader if reader.forms is not None else replace(reader, forms={})

    def check(records: bytes, begin: int) -> Exception | None:
        try:
            if records.strip():
                text.parsed(records, has_header=begin <= header < begin + len(records))
        except _FAILURES as found:
            return found if isinstance(found, Exception) else Malformed("csv", short_message(found))
        return None

    failure = first_failure(content, check, quoted=True)
    found = (failure and failure.error) or error
    column = found.column if isinstance(found, Malformed) else None
    return Malformed("csv", short_message(found), line=failure and failure.line, column=column)
