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
from greendata.frames.jsonreader import refuse_sparse
from greendata.frames.lines import count, first_failure, records
from greendata.frames.wire import refuse_unwritable

__all__ = ("read_csv",)

HEADER_BYTES = 1 << 20  # at most

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
    names = _header(content)
    refuse_sparse(count(content, b"\n") + 1, len(names), len(content), format="csv")
    if schema is not None:
        refuse_unwritable(schema, "csv")
        missing = sorted(schema.keys() - set(names))
        if missing:
            raise Malformed("csv", f"{counted(len(missing), 'column')} missing: {', '.join(missing)}", line=1)
    if not names:
        return pl.DataFrame()
    forms = None if schema is None and not as_text else {name: _form(name, schema) for name in names}
    try:
        return _parsed(content, forms, schema, has_header=True)
    except _FAILURES as error:
        raise _at_its_line(content, forms or dict.fromkeys(names, pl.String()), schema, error) from error


def _header(content: bytes) -> list[str]:
    first = records(content[:HEADER_BYTES], quoted=True)
    if not first or not first[0].strip():
        return []
    try:
        text = first[0].removeprefix(b"\xef\xbb\xbf").decode()
        (names,) = csv.reader(StringIO(text, newline=""), strict=True)
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise Malformed("csv", f"no header: {error}", line=1) from error
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        stand = counted(len(twice), "name stands", "names stand")
        raise Malformed("csv", f"{stand} for more than one column: {', '.join(twice)}", line=1)
    return names


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
    content: bytes, forms: dict[str, pl.DataType], schema: pl.Schema | None, error: BaseException
) -> Malformed:
    def check(some: bytes, begin: int) -> Exception | None:
        try:
            if some.strip():
                _parsed(some, forms, schema, has_header=not begin)
        except _FAILURES as found:
            return found if isinstance(found, Exception) else Malformed("csv", told(found))
        return None

    failure = first_failure(content, check, quoted=True)
    if failure is None:
        return Malformed("csv", told(error))
    if isinstance(failure.error, Malformed):
        return Malformed("csv", failure.error.reason, line=failure.line, column=failure.error.column)
    return Malformed("csv", told(failure.error), line=failure.line)
