"""Read CSV into frames. Call on a worker.

Columns are found by the names in the header. Values have the text forms that `greendata.formats.text_encode` writes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
from polars.exceptions import PanicException, PolarsError

from greendata.errors import Malformed
from greendata.errors.plural import counted
from greendata.formats.csv_options import CsvOptions
from greendata.formats.csv_text import CsvText, join_names, prepare
from greendata.formats.error_texts import short_message
from greendata.formats.guards.chunk_scan import count, first_failure, has_large_record
from greendata.formats.guards.size_guard import reject_sparse
from greendata.formats.text_decode import cast, cast_to
from greendata.formats.text_encode import check_writable

__all__ = ("read_csv",)

DEFAULT = CsvOptions()
EXACT = 2**53  # a float holds every integer up to this one

_FAILURES = (PolarsError, PanicException, Malformed)


def read_csv(
    content: bytes,
    schema: pl.Schema | None,
    *,
    options: CsvOptions = DEFAULT,
    names: Sequence[str] | None = None,
    as_text: bool = False,
    in_base64: Collection[str] = (),
) -> pl.DataFrame:
    r"""Return a frame with one row for each record. A record that is too short is filled up with nulls.

    Args:
        schema: the columns to return. None for all columns, with inferred types. Text without a header must have
            exactly these columns.
        options: see `CsvOptions`.
        names: without a schema, the names of the columns of text without a header, as far as they are known.
        as_text: without a schema, leave all cells as text.
        in_base64: without a schema, the columns to decode from base64.

    Raises:
        Malformed: the text is not CSV, or a column is missing, or a value does not have the type of its column.
        NotWritable: *schema* has a column that CSV has no form for.

    Example:
        >>> read_csv(b"a,b\n1,x\n", pl.Schema({"b": pl.String})).rows()
        [('x',)]
    """
    if schema is not None:
        check_writable(schema, "csv")
    text = prepare(content, options, names if schema is None else [*schema])
    columns = [*text.names.values()]
    reject_sparse(count(text.content, b"\n") + 1, len(columns), len(text.content), format="csv")
    if schema is not None:
        _check_columns(text, schema, has_header=options.has_header)
    if not columns:
        return pl.DataFrame()
    read_as = schema
    if schema is not None and has_large_record(text.content):
        read_as = None  # read as text: Polars' error would contain the whole value, built with the GIL held
    forms: Mapping[str, pl.DataType] | None = None if schema is None and not as_text else read_as or {}
    reader = _Reader(text.names, forms, schema, in_base64, _polars_options(options, text.names, text.header_line))
    try:
        return reader.parsed(text.content)
    except _FAILURES as error:
        raise _error_with_line(text, reader, error) from error


def _check_columns(text: CsvText, schema: pl.Schema, *, has_header: bool) -> None:
    columns = [*text.names.values()]
    if not has_header and len(columns) != len(schema):
        raise Malformed("csv", f"{counted(len(columns), 'column')}, expected {len(schema)}", line=text.header_line)
    if missing := sorted(schema.keys() - set(columns)):
        reason = f"{counted(len(missing), 'column')} missing: {join_names(missing)}"
        raise Malformed("csv", reason, line=text.header_line)


def _polars_options(options: CsvOptions, names: dict[str, str], line: int) -> dict[str, Any]:
    """Return the options for Polars to read what `prepare` has returned."""
    nulls = options.null_values
    if isinstance(nulls, Mapping):
        if missing := sorted(nulls.keys() - set(names.values())):
            reason = f"{counted(len(missing), 'column')} of null_values missing: {join_names(missing)}"
            raise Malformed("csv", reason, line=line)
        nulls = {raw: nulls[name] for raw, name in names.items() if name in nulls}
    elif nulls is not None and not isinstance(nulls, str):
        nulls = [*nulls]
    return {"separator": options.separator, "comment_prefix": options.comment_prefix, "null_values": nulls or None}


@dataclass(frozen=True, slots=True)
class _Reader:
    """A reader of records.

    Attributes:
        names: the names of the columns, by the names that Polars gives to them.
        forms: the dtypes of the columns that Polars may read as numbers or booleans. It reads all other columns as
            text. None to infer all dtypes.
        schema: the columns to return.
        in_base64: without a schema, the columns to decode from base64.
        options: further options of `polars.read_csv`.
    """

    names: dict[str, str]
    forms: Mapping[str, pl.DataType] | None
    schema: pl.Schema | None
    in_base64: Collection[str]
    options: dict[str, Any]

    def parsed(self, content: bytes) -> pl.DataFrame:
        """Return the frame of a header and some records."""
        forms = (
            None if self.forms is None else {raw: _dtype_to_read(name, self.forms) for raw, name in self.names.items()}
        )
        df = pl.read_csv(content, schema=forms, infer_schema_length=None, **self.options)
        df.columns = [*self.names.values()]
        if self.schema is None:
            found = [cast(df[name], pl.Binary(), "csv") for name in df.columns if name in self.in_base64]
            return df.with_columns(found) if found else self._with_exact_numbers(df, content)
        if forms and (large := [name for name in df.columns if _has_infinity(df[name])]):  # 1e400, say, which is finite
            exact = {name: dtype for name, dtype in (self.forms or {}).items() if name not in large}
            return replace(self, forms=exact).parsed(content)
        return cast_to(df, self.schema, "csv")

    def _with_exact_numbers(self, df: pl.DataFrame, content: bytes) -> pl.DataFrame:
        """Return *df* with other dtypes for inferred floats that differ from the numbers in the text."""
        large = [series.name for series in df.iter_columns() if _may_be_rounded(series)]
        if not large:
            return df
        texts = replace(self, forms={}).parsed(content)
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


def _error_with_line(text: CsvText, reader: _Reader, error: BaseException) -> Malformed:
    as_text = reader if reader.forms is not None else replace(reader, forms={})
    end_of_header = text.begin + len(text.header)

    def check(records: bytes, begin: int) -> Exception | None:
        try:
            if records.strip():  # Polars takes the number of columns from the header
                as_text.parsed(records if begin < end_of_header else text.header + records)
        except _FAILURES as found:
            return found if isinstance(found, Exception) else Malformed("csv", short_message(found))
        return None

    failure = first_failure(text.content, check, quoted=True)
    found = (failure and failure.error) or error
    column = found.column if isinstance(found, Malformed) else None
    line = None if failure is None else failure.line + text.added_lines
    return Malformed("csv", short_message(found), line=line, column=column)
