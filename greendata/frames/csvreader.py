"""CSV to frames, by the names in its header and in the forms that `greendata.frames.wire` has. For workers."""

from __future__ import annotations

import csv
from collections import Counter
from io import StringIO

import polars as pl
from polars.exceptions import PanicException, PolarsError

from greendata.errors import Malformed
from greendata.errors.words import counted
from greendata.frames.casts import cast_to, told
from greendata.frames.claims import HEADER_BYTES, refuse_packed, refuse_sparse, refuse_wide
from greendata.frames.lines import count, first_byte, first_failure, has_large_record, line_end, open_quote
from greendata.frames.wire import refuse_unwritable

__all__ = ("read_csv",)

BOM = b"\xef\xbb\xbf"
NAMED = 5  # columns, in a message about some of them

_FAILURES = (PolarsError, PanicException, Malformed)


def read_csv(content: bytes, schema: pl.Schema | None, *, as_text: bool = False) -> pl.DataFrame:
    r"""The frame of a row a record; a record that ends early has nulls for what it lacks.

    Args:
        schema: the columns that are wanted.
        as_text: without a schema, leave all cells text.

    Example:
        >>> read_csv(b"a,b\n1,x\n", pl.Schema({"b": pl.String})).rows()
        [('x',)]
    """
    refuse_packed(content, "csv")
    if (line := open_quote(content)) is not None:
        raise Malformed("csv", "a quote is not closed", line=line)
    begin = _begin(content)
    names = _names(_first_record(content, begin))
    refuse_sparse(count(content, b"\n") + 1, len(names), len(content), format="csv")
    if schema is not None:
        refuse_unwritable(schema, "csv")
        missing = sorted(schema.keys() - set(names))
        if missing:
            raise Malformed("csv", f"{counted(len(missing), 'column')} missing: {_listed(missing)}", line=1)
    if not names:
        return pl.DataFrame()
    read_as = schema
    if schema is not None and has_large_record(content):
        read_as = None  # as text: what Polars says of a value that it cannot parse has all of it, with the GIL held
    forms = None if schema is None and not as_text else {name: _form(name, read_as) for name in names}
    try:
        return _parsed(content, forms, schema, has_header=True)
    except _FAILURES as error:
        raise _at_its_line(content, begin, forms or dict.fromkeys(names, pl.String()), schema, error) from error


def _begin(content: bytes) -> int:
    """Where the header begins: empty lines before it do not count. At the end where all is white space."""
    if first_byte(content) == len(content):
        return len(content)
    return first_byte(content, len(BOM) if content.startswith(BOM) else 0, passing=b"\r\n")


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
    refuse_wide(header.count(b",") + 1, format="csv")
    if not header:
        return []
    try:
        (names,) = csv.reader(StringIO(header.decode(), newline=""), strict=True)
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise Malformed("csv", f"no header: {error}", line=1) from error
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        stand = counted(len(twice), "name stands", "names stand")
        raise Malformed("csv", f"{stand} for more than one column: {_listed(twice)}", line=1)
    return names


def _listed(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _form(name: str, schema: pl.Schema | None) -> pl.DataType:
    dtype = schema.get(name) if schema is not None else None
    is_read = dtype is not None and (isinstance(dtype, pl.Boolean) or (dtype.is_numeric() and not dtype.is_decimal()))
    return dtype if dtype is not None and is_read else pl.String()


def _parsed(
    content: bytes, forms: dict[str, pl.DataType] | None, schema: pl.Schema | None, *, has_header: bool
) -> pl.DataFrame:
    df = pl.read_csv(content, schema=forms, has_header=has_header, infer_schema_length=None)
    return df if schema is None else cast_to(df, schema, "csv")


def _at_its_line(
    content: bytes, header: int, forms: dict[str, pl.DataType], schema: pl.Schema | None, error: BaseException
) -> Malformed:
    def check(some: bytes, begin: int) -> Exception | None:
        try:
            if some.strip():
                _parsed(some, forms, schema, has_header=begin <= header < begin + len(some))
        except _FAILURES as found:
            return found if isinstance(found, Exception) else Malformed("csv", told(found))
        return None

    failure = first_failure(content, check, quoted=True)
    found = (failure and failure.error) or error
    column = found.column if isinstance(found, Malformed) else None
    return Malformed("csv", told(found), line=failure and failure.line, column=column)
