"""Read JSON and newline-delimited JSON into frames. Call on a worker."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import polars as pl
from polars.exceptions import PanicException, PolarsError
from pydantic_core import from_json

from greendata.errors import Malformed
from greendata.formats.error_texts import format_value, short_message
from greendata.formats.format import Format
from greendata.formats.guards.chunk_scan import SCAN_BYTES, count, first_byte, first_failure
from greendata.formats.guards.json_depth import reject_deep_document, reject_deep_lines
from greendata.formats.guards.json_members import reject_many_members
from greendata.formats.guards.size_guard import collect_keys, reject_compressed, reject_sparse
from greendata.formats.json.cells import CellMismatch, check_kind, compare
from greendata.formats.json.rows import STRING, TEXT, line_of, rows_of, text_in, without_bom
from greendata.formats.text_decode import cast_to, native_form, text_form
from greendata.hub.pacing import release_gil
from greendata.schema.column_names import frame_of, referred
from greendata.schema.dtypes import plain_of

__all__ = ("read_json", "read_ndjson")

ORDERED_FIELDS = 32  # keys of an object, up to which Polars keeps their order; more keys are in hash order
NAMES = 1000  # of fields in one pattern, at most
EXAMINED_ROWS = 200  # to parse before the GIL is released
EXAMINED_BYTES = 1 << 16  # to parse with the GIL held, at most: less than a millisecond

_LONG_INTEGER = r"[:\[,][ \t\n\r]*-?[0-9]{16,}[ \t\n\r]*[,\]}]"
_LONG_TEXT = '"-?[0-9]{16,}"'
_SPACE = r"[ \t\n\r]*"
_NEXT = rf"{_SPACE},{_SPACE}(?:null{_SPACE},{_SPACE})*"
_FIRST = rf"\[{_SPACE}(?:null{_SPACE},{_SPACE})*"
_NO_LIST = r'[-0-9tf"{]'
_NO_STRING = r"[-0-9tf\[{]"
_NO_NULL = rf"(?:{_NO_LIST}|\[)"
_MIXED = "|".join(  # arrays that mix kinds: a list or an object beside another kind
    (
        rf"[\]}}]{_NEXT}(?:[-0-9tf]|{STRING}{_SPACE}[,\]])",
        rf"\]{_NEXT}\{{",
        rf"\}}{_NEXT}\[",
        rf'[0-9e"]{_NEXT}[\[{{]',
    )
)
_BOOLEAN = rf"[\[,]{_SPACE}(?:true|false){_SPACE}[,\]]"  # may be among numbers
_TEXTS = (pl.String, pl.Categorical, pl.Enum)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_INEXACT = re.compile(rb"(?<![\d.])(?=[\d.]{17})\d+\.\d|\.\d+0(?!\d)|\d[eE][+-]?\d|\d{39}")  # 16 digits, 1.50, 1e5
_MANY_DIGITS = r"[eE]|^-?(?:[0-9]\.?){16}"
_FLOAT = r"-?[0-9]+(?:\.[0-9]+(?:[eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)|-?[0-9]{39,}"
_LONG = r"^-?[0-9]{16,}$"
_LONG_FLOAT = r"[0-9]{16}\.[0-9]|[0-9][eE][+-]?[0-9]"  # Polars makes text without a fraction of these
_ESCAPED_KEY = rf'\\(?:[^"\\]|\\.)*"{_SPACE}:'
_MARK = "\x01"  # never occurs unescaped in JSON
OVERLAP = 64  # bytes to scan after a chunk, for a number that begins in it
# A pair of surrogates, or an escaped backslash, which may precede text that looks like a surrogate.
_PAIR = r"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"

_FAILURES = (PolarsError, PanicException, Malformed)


def read_ndjson(content: bytes, schema: pl.Schema | None, *, ignored: Collection[str] = ()) -> pl.DataFrame:
    r"""Return the frame of NDJSON, one row per line.

    Args:
        schema: the columns to return, or None to infer all columns.
        ignored: columns that are filled with nulls, whatever they hold, if *schema* is None.

    Raises:
        Malformed: *content* is not NDJSON, or does not have the types of *schema*, or a value would be changed.

    Example:
        >>> read_ndjson(b'{"a":1}\n{"a":2}\n', pl.Schema({"a": pl.Int8})).rows()
        [(1,), (2,)]
    """
    reject_compressed(content, "ndjson")
    content = without_bom(content)
    if schema is None and first_byte(content) == len(content):
        return pl.DataFrame()
    reject_deep_lines(content, inferred=schema is None)
    reject_many_members(content, "ndjson")
    _reject_lone_surrogates(content, "ndjson")
    if schema is not None:
        reject_sparse(count(content, b"\n") + 1, len(schema), len(content), format="ndjson")
    keys = collect_keys(content, "ndjson") if schema is None else []
    try:
        if schema is None:
            return _inferred(content, "ndjson", partial(_read_lines_without, ignored), keys, ignored)
        return _ndjson(content, schema)
    except _FAILURES as error:
        if isinstance(error, Malformed) and error.line is not None:
            raise
        raise _error_with_line(content, schema, error) from error


def read_json(content: bytes, schema: pl.Schema | None) -> pl.DataFrame:
    """Return the frame of an array of objects, or of an object of arrays.

    Args:
        schema: the columns to return, or None to infer all columns.

    Raises:
        Malformed: *content* is not JSON, or does not have the types of *schema*, or a value would be changed.

    Example:
        >>> read_json(b'{"a": [1, 2]}', None).rows()
        [(1,), (2,)]
    """
    reject_compressed(content, "json")
    content = without_bom(content)
    begin = first_byte(content)
    if begin == len(content):
        raise Malformed("json", "it is empty")
    if content[begin : begin + 1] not in b"[{":
        raise Malformed(
            "json", f"expected an array of objects or an object of arrays, got {content[begin : begin + 20]!r}"
        )
    reject_deep_document(content, inferred=schema is None)
    reject_many_members(content, "json")
    _reject_lone_surrogates(content, "json")
    try:
        return (_json_rows if content[begin : begin + 1] == b"[" else _json_columns)(content, schema)
    except (PolarsError, PanicException) as error:
        raise _error_with_row(content, schema, error) from error


def _inferred(
    content: bytes, format: Format, reader: Callable[..., pl.DataFrame], keys: list[str], ignored: Collection[str] = ()
) -> pl.DataFrame:
    """Return the frame that Polars infers from *content*, with the fields in a reproducible order.

    Args:
        reader: the Polars function that reads *content*.
        keys: the keys in *content*, in their order.
        ignored: columns to leave unchecked.
    """
    df = reader(content, infer_schema_length=None)
    if not df.width:
        return pl.DataFrame(height=rows_of(content, format).len())
    if _has_many_fields(pl.Struct(df.schema)):
        places = {json.loads(key[:-1].rstrip(), strict=False): place for place, key in enumerate(keys)}
        df = reader(content, schema=dict(_ordered(pl.Struct(df.schema), places)))
    return _verified(df, content, format, keys, brackets=df.height + (format == "json"), ignored=ignored)


def _read_lines_without(ignored: Collection[str], content: bytes, **options: Any) -> pl.DataFrame:
    """Read NDJSON with `polars.read_ndjson`, but fill the columns *ignored* with nulls; their types may be invalid."""
    if not ignored:
        return pl.read_ndjson(content, **options)
    schema = options.get("schema") or pl.scan_ndjson(content, **options).collect_schema()
    wanted = {name: dtype for name, dtype in schema.items() if name not in ignored}
    df = pl.read_ndjson(content, schema=wanted) if wanted else pl.DataFrame(height=rows_of(content, "ndjson").len())
    return df.with_columns(pl.lit(None).alias(name) for name in schema if name in ignored)


def _verified(
    df: pl.DataFrame,
    content: bytes,
    format: Format,
    keys: list[str],
    *,
    brackets: int,
    ignored: Collection[str] = (),
) -> pl.DataFrame:
    """Return *df*, inferred from *content*, with exact numbers. Compare its rows with the JSON if they may differ.

    Args:
        keys: the keys in *content*.
        brackets: the number of opening brackets in *content* if no value nests.
        ignored: columns to leave unchecked.

    Raises:
        Malformed: a value would be changed because of other values in its column.
    """
    df = _with_exact_numbers(df, content, format)
    if _has(pl.Struct(df.schema), (pl.String,)):
        df = _cast(df, content, format, df.schema)
    seen = df.drop(referred(list(ignored), df.columns), strict=False)
    if count(content, b"{") + count(content, b"[") <= brackets or not _may_mix_kinds(seen, content, format, keys):
        return df
    texts = rows_of(content, format)
    step = max(1, df.height * EXAMINED_BYTES // len(content))
    for begin in range(0, df.height, step):
        rows = (_without(ignored, from_json(text)) for text in texts.slice(begin, step).to_list())
        cells = seen.slice(begin, step).to_dicts() if seen.width else [{}] * min(step, df.height - begin)
        for row, (value, row_cells) in enumerate(zip(rows, cells, strict=True), begin):
            try:
                compare(value, row_cells, None)
            except CellMismatch as mismatch:
                raise _malformed_at(row, content, format, mismatch) from mismatch
        release_gil()
    return df


def _malformed_at(
    row: int, content: bytes, format: Format, mismatch: CellMismatch, *, column: str | None = None
) -> Malformed:
    """Return the error for a row: with its line, and with its number in JSON, where many rows may be in one line."""
    line = line_of(content, format, row)
    return Malformed(format, str(mismatch), line=line, row=row if format == "json" else None, column=column)


def _without(keys: Collection[str], row: dict[str, Any]) -> dict[str, Any]:
    for key in keys:
        row.pop(key, None)
    return row


def _may_mix_kinds(df: pl.DataFrame, content: bytes, format: Format, keys: list[str]) -> bool:
    """Return True if Polars may have converted values of several kinds to one, other than numbers to text.

    Only patterns are searched. A string that matches one costs a needless comparison.
    """
    if any("\\" in key for key in keys):
        return True
    if _has_empty_struct(pl.Struct(df.schema)):  # Polars 2.0 makes {} of a number in such a column
        return True
    patterns = _patterns(_mismatch_patterns(pl.Struct(df.schema)))
    return patterns is None or _has_match(content, format, "|".join((*patterns, _MIXED, _BOOLEAN)))


def _check_kinds(content: bytes, format: Format, schema: pl.Schema, *, brackets: int, by_column: bool = False) -> None:
    """Check that no value has another kind than its column in *schema*, to which Polars would convert it.

    Args:
        brackets: the number of opening brackets in *content* if no value nests.
        by_column: True if *content* is an object with a list of values for each column.

    Raises:
        Malformed: a value has another kind. The error has its line or row, and its column.
    """
    members = {name: pl.List(dtype) for name, dtype in schema.items()} if by_column else schema
    by_field = list(_mismatch_patterns(pl.Struct(members)))
    if count(content, b"{") + count(content, b"[") <= brackets:
        by_field = [(name, pattern) for name, pattern in by_field if pattern != r"[\[{]"]
    if not by_field:
        return
    patterns = _patterns(by_field)
    if patterns is not None and not _has_match(content, format, "|".join((*patterns, _MIXED, _ESCAPED_KEY))):
        return
    _compare_kinds(content, format, schema)


def _compare_kinds(content: bytes, format: Format, schema: pl.Schema) -> None:
    """Compare each row with *schema*; see `_check_kinds`."""
    texts = rows_of(content, format)
    step = max(1, len(texts) * EXAMINED_BYTES // len(content))
    for begin in range(0, len(texts), step):
        for row, text in enumerate(texts.slice(begin, step), begin):
            value = from_json(text)
            for name, dtype in schema.items():
                try:
                    check_kind(value.get(name), dtype, name)
                except CellMismatch as mismatch:
                    raise _malformed_at(row, content, format, mismatch, column=name) from mismatch
        release_gil()


def _patterns(by_field: Iterable[tuple[str, str]]) -> list[str] | None:
    """Return a pattern for each kind of mismatch, from names of fields and patterns; None if there are too many."""
    wrong: dict[str, set[str]] = {}
    for name, pattern in by_field:
        wrong.setdefault(pattern, set()).add(name)
    if sum(map(len, wrong.values())) > NAMES:
        return None
    patterns = []
    for pattern, names in wrong.items():
        either = "|".join(re.escape(json.dumps(name, ensure_ascii=False)) for name in names)
        patterns.append(rf"(?:{either}){_SPACE}:{_SPACE}(?:{pattern})")
    return patterns


def _has_match(content: bytes, format: Format, pattern: str) -> bool:
    found = text_in(content, format).select(TEXT.str.contains(pattern)).collect(engine=pl.InMemoryEngine())
    return bool(found.item())


def _mismatch_patterns(dtype: Any, *, is_inner: bool = False) -> Iterator[tuple[str, str]]:
    """Yield the name of each field in *dtype*, and a pattern for the first characters of a value of another kind."""
    for field in dtype.fields if isinstance(dtype, pl.Struct) else ():
        inner, depth = _innermost(field.dtype)
        if depth:
            yield from ((field.name, pattern) for pattern in _patterns_in_lists(inner, depth))
        elif isinstance(inner, _TEXTS):
            yield field.name, r"[\[{]"
        elif isinstance(inner, pl.Binary):
            yield field.name, _NO_STRING
        elif isinstance(inner, pl.Null):
            yield field.name, _NO_NULL
        elif is_inner and inner.is_numeric():
            yield field.name, "[tf]"
        yield from _mismatch_patterns(inner, is_inner=True)


def _patterns_in_lists(inner: Any, depth: int) -> tuple[str, ...]:
    """Return patterns for the first characters of a value of another kind in a field with lists."""
    is_loose = isinstance(inner, (*_TEXTS, pl.Binary, pl.Null))  # Polars makes such a value of lists and objects
    if depth > 2 or (depth == 2 and is_loose) or isinstance(inner, pl.Binary):
        return (_NO_NULL,)  # the first characters do not show what nests
    if depth == 2:
        return _NO_LIST, rf"{_FIRST}{_NO_LIST}"
    if isinstance(inner, pl.Null):
        return _NO_LIST, rf"{_FIRST}{_NO_NULL}"
    return (_NO_LIST, rf"{_FIRST}[\[{{]") if is_loose else (_NO_LIST,)


def _innermost(dtype: Any) -> tuple[Any, int]:
    """Return the dtype of the items in lists, and in lists of lists, and how many lists are around them."""
    dtype, depth = plain_of(dtype), 0
    while isinstance(dtype, pl.List | pl.Array):
        dtype, depth = plain_of(dtype.inner), depth + 1
    return dtype, depth


def _with_exact_numbers(df: pl.DataFrame, content: bytes, format: Format) -> pl.DataFrame:
    """Return *df* with Decimals instead of floats in columns with integers that are too long for a float.

    Raises:
        Malformed: such a column also has a number that no Decimal can hold.
    """
    floats = {name: dtype for name, dtype in df.schema.items() if _has(dtype, (pl.Float64,))}
    if not floats or not _has_match(content, format, _LONG_INTEGER):
        return df
    texts = _read_exact(
        content, format, pl.Schema({name: _with_floats(dtype, pl.String()) for name, dtype in floats.items()})
    )
    exact = {}
    for series in texts.iter_columns():
        values = series.alias("x").to_frame().select(pl.struct("x").struct.json_encode()).to_series()
        if values.str.contains(_LONG_TEXT).any():
            fractions = values.str.extract_all(r"\.[0-9]+").explode(empty_as_null=False)
            places: int = (fractions.str.len_bytes() - 1).max() or 0  # type: ignore[assignment]
            exact[series.name] = _with_floats(floats[series.name], pl.Decimal(38, min(places, 37)))
    found = cast_to(texts, pl.Schema(exact), format)
    return frame_of([found[name] if name in exact else df[name] for name in df.columns])


def _with_floats(dtype: Any, kind: pl.DataType) -> Any:
    """Return *dtype* with all floats in it replaced by *kind*."""
    if isinstance(dtype, pl.List):
        return pl.List(_with_floats(dtype.inner, kind))
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: _with_floats(field.dtype, kind) for field in dtype.fields})
    return kind if dtype == pl.Float64 else dtype


def _has_many_fields(dtype: object) -> bool:
    """Return True if *dtype* has a struct with so many fields that their order differs from process to process."""
    if isinstance(dtype, pl.List):
        return _has_many_fields(dtype.inner)
    if isinstance(dtype, pl.Struct):
        return len(dtype.fields) > ORDERED_FIELDS or any(_has_many_fields(field.dtype) for field in dtype.fields)
    return False


def _ordered(dtype: Any, places: Mapping[str, int]) -> Any:
    """Return *dtype* with the fields of its structs sorted by their *places*."""
    if isinstance(dtype, pl.List):
        return pl.List(_ordered(dtype.inner, places))
    if isinstance(dtype, pl.Struct):
        fields = sorted(dtype.fields, key=lambda field: (places.get(field.name, len(places)), field.name))
        return pl.Struct({field.name: _ordered(field.dtype, places) for field in fields})
    return dtype


def _reject_lone_surrogates(content: bytes, format: Format) -> None:
    """Raise Malformed if a string has a lone surrogate, which Polars reads as U+0000."""
    for begin in range(0, len(content), SCAN_BYTES):
        if _SURROGATE.search(content, begin, begin + SCAN_BYTES + 3):  # an escape may cross the border
            break
        release_gil()
    else:
        return
    texts = rows_of(content, format)
    lone = texts.str.replace_all(_PAIR, "").str.contains(_SURROGATE.pattern.decode()).arg_true()
    if lone.len():
        line = line_of(content, format, lone[0])
        raise Malformed(format, "a lone surrogate is not valid Unicode", line=line)


def _ndjson(content: bytes, schema: pl.Schema) -> pl.DataFrame:
    forms = {name: native_form(dtype) for name, dtype in schema.items()}
    df = pl.read_ndjson(content, schema=forms)
    _check_kinds(content, "ndjson", schema, brackets=df.height)
    return _cast(df, content, "ndjson", schema)


def _error_with_line(content: bytes, schema: pl.Schema | None, error: BaseException) -> Malformed:
    def check(records: bytes, _begin: int) -> Exception | None:
        try:
            if schema is not None:
                _ndjson(records, schema)
            elif records.strip():
                pl.read_ndjson(records, infer_schema_length=None)
        except _FAILURES as found:
            return found if isinstance(found, Exception) else Malformed("ndjson", short_message(found))
        return None

    failure = first_failure(content, check, quoted=False)
    if failure is None or failure.error is None:
        return Malformed("ndjson", short_message(error), line=failure and failure.line)
    column = _bad_column(failure.record, schema)
    return Malformed("ndjson", _syntax(failure.record, failure.error), line=failure.line, column=column)


def _syntax(record: bytes, error: Exception) -> str:
    """Return why *record* is invalid, as the standard parser explains it, or else as Polars does."""
    if isinstance(error, Malformed) or len(record) > EXAMINED_BYTES:
        return short_message(error)
    try:
        value = json.loads(record, parse_constant=_reject_constant)
    except (ValueError, RecursionError) as found:
        return str(found)
    return short_message(error) if isinstance(value, dict) else f"expected an object, got {value!r:.80}"


def _reject_constant(name: str) -> float:
    raise ValueError(f"{name} is not valid JSON")


def _error_with_row(content: bytes, schema: pl.Schema | None, error: BaseException) -> Malformed:
    """Return the first error in a document, with its line, as the standard parser explains it, or as Polars does.

    Raises:
        Malformed: the document is JSON, and a value has another kind than its column in *schema*.
    """
    texts = rows_of(content, "json")
    for row, text in enumerate(texts):
        if row % EXAMINED_ROWS == 0:
            release_gil()
        if len(text) > EXAMINED_BYTES:
            continue
        try:
            value = json.loads(text, parse_constant=_reject_constant)
        except (ValueError, RecursionError) as found:
            line = line_of(content, "json", row)
            within = found.lineno - 1 if isinstance(found, json.JSONDecodeError) else 0
            reason = found.msg if isinstance(found, json.JSONDecodeError) else str(found)
            return Malformed("json", reason, line=line and line + within, row=None if line else row)
        if not isinstance(value, dict):
            line = line_of(content, "json", row)
            return Malformed("json", f"expected an object, got {value!r:.80}", line=line)
    if schema is not None:
        _compare_kinds(content, "json", schema)
    return Malformed("json", short_message(error))


def _bad_column(record: bytes, schema: pl.Schema | None) -> str | None:
    """Return the column whose value in *record* does not have its type; None if the error is another one."""
    for name, dtype in (schema or {}).items():
        try:
            _ndjson(record, pl.Schema({name: dtype}))
        except _FAILURES as error:
            if isinstance(error, Malformed) or "cannot parse" in str(error) or "unexpected value" in str(error):
                return name
    return None


def _json_rows(content: bytes, schema: pl.Schema | None) -> pl.DataFrame:
    if schema is None:
        return _inferred(content, "json", pl.read_json, collect_keys(content, "json"))
    reject_sparse(count(content, b"{"), len(schema), len(content), format="json")
    forms = {name: text_form(dtype) for name, dtype in schema.items()}
    df = pl.read_json(content, schema=forms)
    _check_kinds(content, "json", schema, brackets=df.height + 1)
    return _cast(df, content, "json", schema)


def _json_columns(content: bytes, schema: pl.Schema | None) -> pl.DataFrame:
    forms = schema and {name: pl.List(text_form(dtype)) for name, dtype in schema.items()}
    whole = pl.read_json(content, schema=forms, infer_schema_length=None)
    columns = {series.name: _column(series) for series in whole.iter_columns()}
    lengths = {name: len(values) for name, values in columns.items() if values is not None}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in sorted(lengths.items()))
        raise Malformed("json", f"columns of unequal lengths: {listed}")
    height = max(lengths.values(), default=0)
    absent = pl.repeat(None, height, dtype=pl.Null, eager=True)
    df = pl.DataFrame({name: absent if values is None else values for name, values in columns.items()})
    if schema is not None:
        _check_kinds(content, "json", schema, brackets=df.width + 1, by_column=True)
        return _cast(df, content, "json", schema)
    return _verified(df, content, "json", collect_keys(content, "json"), brackets=df.width + 1)


def _cast(df: pl.DataFrame, content: bytes, format: Format, schema: pl.Schema) -> pl.DataFrame:
    """Cast *df* to *schema*. Read *content* again if numbers may have lost digits when Polars made text of them."""
    numbered = df.clone()
    numbered.columns = [str(number) for number in range(df.width)]
    columns = [(df.get_column_index(name), dtype) for name, dtype in schema.items()]
    for text_of, is_inexact in (
        (_text_of_float, _has_inexact_numbers),
        (_text_of_long_float, lambda content: _has_match(content, format, _LONG_FLOAT)),
    ):
        doubts = [
            doubt.any()
            for number, dtype in columns
            if (doubt := _may_be_inexact(pl.col(str(number)), df.dtypes[number], dtype, text_of)) is not None
        ]
        if doubts and numbered.select(pl.any_horizontal(doubts)).item() and is_inexact(content):
            return _read_exact(content, format, schema)
    return cast_to(df, schema, format)


def _text_of_float(dtype: pl.DataType) -> str | None:
    """Return a pattern for text in a column of *dtype* that Polars may have made of a float; None if it has no text."""
    if isinstance(dtype, pl.Decimal):
        return _MANY_DIGITS
    return f"^(?:{_FLOAT})$" if isinstance(dtype, _TEXTS) else None


def _text_of_long_float(dtype: pl.DataType) -> str | None:
    """Return a pattern for text without a fraction that Polars may have made of a float with many digits."""
    return _LONG if isinstance(dtype, _TEXTS) or dtype.is_integer() else None


def _may_be_inexact(value: pl.Expr, got: Any, dtype: Any, text_of: Callable[[Any], str | None]) -> pl.Expr | None:
    """Return whether a text may come from a number that Polars held in a float; None if *dtype* has no such text."""
    dtype = plain_of(dtype)
    if isinstance(got, pl.String) and (pattern := text_of(dtype)) is not None:
        return value.str.contains(pattern)
    match dtype:
        case pl.List() | pl.Array() if isinstance(got, pl.List):
            inner = _may_be_inexact(pl.element(), got.inner, dtype.inner, text_of)
            return None if inner is None else value.list.eval(inner).list.any()
        case pl.Struct() if isinstance(got, pl.Struct):
            numbered = value.struct.rename_fields([str(number) for number in range(len(got.fields))])
            fields = [
                _may_be_inexact(numbered.struct.field(str(number)), had.dtype, field.dtype, text_of)
                for number, (had, field) in enumerate(zip(got.fields, dtype.fields, strict=True))
            ]
            checks = [field for field in fields if field is not None]
            return pl.any_horizontal(checks) if checks else None
    return None


def _has_inexact_numbers(content: bytes) -> bool:
    """Return True if *content* may have numbers whose digits change when Polars holds them in floats."""
    for begin in range(0, len(content), SCAN_BYTES):
        if _INEXACT.search(content, begin, begin + SCAN_BYTES + OVERLAP):
            return True
        release_gil()
    return False


def _has(dtype: Any, kinds: tuple[type[pl.DataType], ...]) -> bool:
    """Return True if *dtype* is, or contains, one of *kinds*."""
    dtype = plain_of(dtype)
    if isinstance(dtype, pl.List | pl.Array):
        return _has(dtype.inner, kinds)
    if isinstance(dtype, pl.Struct):
        return any(_has(field.dtype, kinds) for field in dtype.fields)
    return isinstance(dtype, kinds)


def _has_empty_struct(dtype: Any) -> bool:
    if isinstance(dtype, pl.List):
        return _has_empty_struct(dtype.inner)
    return isinstance(dtype, pl.Struct) and (
        not dtype.fields or any(_has_empty_struct(field.dtype) for field in dtype.fields)
    )


def _read_exact(content: bytes, format: Format, schema: pl.Schema) -> pl.DataFrame:
    """Return the frame in *content*, with floats converted from their text."""
    texts = rows_of(content, format)
    if texts.str.contains(_MARK, literal=True).any():
        raise Malformed(format, "a control character is not valid JSON")
    marked = texts.str.replace_all(f"({STRING})|({_FLOAT})", f"${{1}}{_MARK}${{2}}{_MARK}")
    quoted = marked.str.replace_all(_MARK * 2, "", literal=True).str.replace_all(_MARK, '"', literal=True)
    forms = pl.Struct({name: text_form(dtype) for name, dtype in schema.items()})
    return cast_to(quoted.str.json_decode(forms).struct.unnest(), schema, format)


def _column(series: pl.Series) -> pl.Series | None:
    """Return the values of a column, or None if it is absent."""
    if isinstance(series.dtype, pl.Null):
        return None
    if not isinstance(series.dtype, pl.List):
        reason = f"expected an array of objects or an object of arrays, got {format_value(series, 0)}"
        raise Malformed("json", reason, column=series.name)
    values: pl.Series | None = series[0]
    return values
