"""Find the header and the records of CSV text, and bring text of other forms into the form that Polars reads.

Where no option asks for more, the text stays as it is. Otherwise it is copied, in small steps: it becomes UTF-8,
ignored rows are left out, and quotes within comments are replaced, since they do not open or close anything. Call on a
worker.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from io import BytesIO, StringIO
from typing import NamedTuple

import polars as pl
from polars.exceptions import PolarsError

from greendata.errors import Malformed
from greendata.errors.plural import counted
from greendata.formats.csv_options import CsvOptions
from greendata.formats.error_texts import short_message
from greendata.formats.guards.chunk_scan import (
    SCAN_BYTES,
    count,
    first_byte,
    line_end,
    quoted_record_end,
    unclosed_quote_line,
)
from greendata.formats.guards.size_guard import HEADER_BYTES, reject_compressed, reject_wide
from greendata.formats.json.rows import BOM, TEXT, text_in
from greendata.hub.pacing import release_gil

__all__ = ("CsvText", "join_names", "prepare", "record_lines")

NAMED = 5  # columns that an error message names, at most
STEP_BYTES = 1 << 15  # to split into lines, or to convert, with the GIL held: about a millisecond
STEP_ROWS = 50  # to skip, one by one, with the GIL held

_UNCLOSED = "a quote is not closed"


class CsvText(NamedTuple):
    """CSV text as Polars can read it: UTF-8, with one header.

    Attributes:
        content: the text.
        begin: where its header begins.
        header: its header, a whole record.
        names: the names of the columns, by the names that Polars gives to them.
        header_line: the line of the original text on which its header begins, or its first row, counted from 1.
        added_lines: what to add to the number of a line of *content*, for that in the original text.
    """

    content: bytes
    begin: int
    header: bytes
    names: dict[str, str]
    header_line: int
    added_lines: int


def prepare(content: bytes, options: CsvOptions, names: Sequence[str] | None) -> CsvText:
    r"""Return CSV *content* as Polars can read it.

    Args:
        names: the names of the columns of text without a header; None for those that Polars gives to them.

    Raises:
        Malformed: the text does not have its encoding, or its header is invalid.

    Example:
        >>> text = prepare(b"made by hand\na;b\n1;2\n", CsvOptions(skip_rows=1, separator=";"), None)
        >>> text.content, text.names, text.added_lines
        (b'"c0";"c1"\n1;2\n', {'c0': 'a', 'c1': 'b'}, 1)
    """
    reject_compressed(content, "csv")
    if options.is_utf8 and content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Malformed("csv", "it begins as UTF-16; if it is, encoding='utf-16' or the charset must say so", line=1)
    if not options.is_utf8:
        content = _in_utf8(content, options)
    if options.has_header and not options.skip_rows and options.comment_prefix is None:
        _check_quotes(content, 0)
        begin = _after_empty_lines(content)
        header = _first_record(content, begin, line=1)
        fields = _fields(header, options, line=1)
        return CsvText(content, begin, header, _named(header, fields, options, line=1), 1, 0)
    begin = _after_ignored(content, options)
    first = begin if options.has_header else _first_full_line(content, begin, options)
    line = 1 + count(content, b"\n", 0, first)
    record = _first_record(content, first, line=line)
    fields = _fields(record, options, line=line)
    if options.has_header:
        begin += len(record)
        columns = [*_named(record, fields, options, line=line).values()]
    else:
        columns = _given(fields, names, line=line)
    raw = [f"c{number}" for number in range(len(columns))]  # in quotes, so that the line is never a comment
    header = options.separator.join(f'"{name}"' for name in raw).encode() + b"\n"
    added_lines = count(content, b"\n", 0, begin) - 1
    copy = _copied(header, content, begin, options)
    _check_quotes(copy, added_lines)
    return CsvText(copy, 0, header, dict(zip(raw, columns, strict=True)), line, added_lines)


def record_lines(text: CsvText, options: CsvOptions) -> pl.Series:
    r"""Return, for each row of the frame, the line of the original text on which its record begins, counted from 1.

    Example:
        >>> options = CsvOptions()
        >>> record_lines(prepare(b'a,b\n1,"x\ny"\n2,z\n', options, None), options).to_list()
        [2, 4]
    """
    comment = pl.lit(value=False) if options.comment_prefix is None else TEXT.str.starts_with(options.comment_prefix)
    quotes = TEXT.str.count_matches('"', literal=True)
    is_outside = (quotes.cum_sum() - quotes) % 2 == 0
    lines = text_in(text.content, "csv").select(TEXT.str.split("\n").explode()).select(is_outside & ~comment)
    begins = lines.collect(engine=pl.InMemoryEngine()).to_series()
    rows = (begins.head(-1) if text.content.endswith(b"\n") else begins).arg_true()
    header_line = count(text.content, b"\n", 0, text.begin)
    return (rows.filter(rows > header_line) + 1 + text.added_lines).cast(pl.UInt32).alias("line")


def join_names(names: Sequence[str]) -> str:
    """Return some of the *names* for an error message.

    Example:
        >>> join_names(["a", "", "b", "c", "d", "e", "f"])
        "a, '', b, c, d and 2 more"
    """
    some = ", ".join(name if name.strip() else repr(name) for name in names[:NAMED])
    return some + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _check_quotes(content: bytes, added_lines: int) -> None:
    if (line := unclosed_quote_line(content)) is not None:
        raise Malformed("csv", _UNCLOSED, line=line + added_lines)


def _in_utf8(content: bytes, options: CsvOptions) -> bytes:
    name, errors = options.codec
    decoder = codecs.getincrementaldecoder(name)(errors)
    decoded = BytesIO()
    lines = 1
    for begin in range(0, max(1, len(content)), STEP_BYTES):
        step, state = content[begin : begin + STEP_BYTES], decoder.getstate()
        try:
            text = decoder.decode(step, final=begin + STEP_BYTES >= len(content))
            decoded.write(text.encode())
        except UnicodeError as error:
            decoder.setstate(state)
            raise Malformed("csv", f"it is not {name}", line=lines + _lines_before_error(decoder, step)) from error
        lines += text.count("\n")
        release_gil()
    return decoded.getvalue()


def _lines_before_error(decoder: codecs.IncrementalDecoder, step: bytes) -> int:
    """Return the number of lines that end before the bytes that *decoder* cannot decode."""
    lines = 0
    for at in range(len(step)):
        try:
            lines += decoder.decode(step[at : at + 1]).count("\n")
        except UnicodeError:
            break
    return lines


def _after_empty_lines(content: bytes) -> int:
    """Return the offset after a byte order mark and empty lines; the length of *content* if it is all white space."""
    if first_byte(content) == len(content):
        return len(content)
    return first_byte(content, len(BOM) if content.startswith(BOM) else 0, skip=b"\r\n")


def _after_ignored(content: bytes, options: CsvOptions) -> int:
    """Return the offset of the header, or of the first row if there is no header: after all that is ignored."""
    at = len(BOM) if content.startswith(BOM) else 0
    at = _first_full_line(content, at, options) if options.has_header else at
    left, steps = options.skip_rows, 0
    while left and at < len(content):
        end, records = _plain_records(content, at, options) if left > STEP_ROWS else (at, 0)
        if 0 < records <= left:
            at, left = end, left - records
            release_gil()
        else:
            at, left, steps = _after_comments(content, _record_end(content, at), options), left - 1, steps + 1
            if steps % STEP_ROWS == 0:
                release_gil()
    if not options.has_header:
        return at
    return len(content) if first_byte(content, at) == len(content) else _first_full_line(content, at, options)


def _plain_records(content: bytes, begin: int, options: CsvOptions) -> tuple[int, int]:
    """Return where some records after *begin* end, and their number: 0 if not each line is a record."""
    lines = content[begin : begin + STEP_BYTES]
    if options.comment_prefix is not None or b'"' in lines:
        return begin, 0
    return begin + lines.rfind(b"\n") + 1, lines.count(b"\n")


def _first_full_line(content: bytes, begin: int, options: CsvOptions) -> int:
    """Return the offset of the first line at or after *begin* that is neither empty nor a comment."""
    at, last = begin, -1
    while at != last:
        last, at = at, first_byte(content, _after_comments(content, at, options), skip=b"\r\n")
    return at


def _after_comments(content: bytes, begin: int, options: CsvOptions) -> int:
    if options.comment_prefix is None:
        return begin
    prefix, at = options.comment_prefix.encode(), begin
    comments = re.compile(b"(?:%b[^\n]*+\n)++" % re.escape(prefix))
    while content.startswith(prefix, at):
        found = comments.match(content, at, at + SCAN_BYTES)
        at, last = found.end() if found else line_end(content, at), at
        if at - last > STEP_BYTES:
            release_gil()
    return at


def _record_end(content: bytes, begin: int) -> int:
    """Return the offset of the end of the record at *begin*."""
    end = line_end(content, begin)
    if count(content, b'"', begin, end) % 2:
        end = quoted_record_end(content, end)
    if end == len(content) and count(content, b'"', begin, end) % 2:
        raise Malformed("csv", _UNCLOSED, line=1 + count(content, b"\n", 0, begin))
    return end


def _first_record(content: bytes, begin: int, *, line: int) -> bytes:
    end = _record_end(content, begin)
    if end - begin > HEADER_BYTES:
        raise Malformed("csv", f"its header has more than {HEADER_BYTES} bytes", line=line)
    return content[begin:end]


def _fields(record: bytes, options: CsvOptions, *, line: int) -> list[str]:
    reject_wide(record.count(options.separator.encode()) + 1, format="csv")
    if not record:
        return []
    try:
        text = StringIO(record.decode(), newline="")
        fields, *others = csv.reader(text, delimiter=options.separator, strict=True)
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise Malformed("csv", f"no header: {error}", line=line) from error
    if others:
        raise Malformed("csv", "its lines end with a carriage return alone, expected a line feed", line=line)
    return fields


def _named(header: bytes, names: list[str], options: CsvOptions, *, line: int) -> dict[str, str]:
    """Return the names in a header by the names that Polars gives to the columns."""
    twice = _twice(names)
    if twice and not options.rename_duplicates:
        stand = counted(len(twice), "name stands", "names stand")
        raise Malformed("csv", f"{stand} for more than one column: {join_names(twice)}", line=line)
    if not twice and b'"' not in header:
        return dict(zip(names, names, strict=True))
    try:
        raw = pl.read_csv(header, separator=options.separator, n_rows=0, infer_schema=False).columns
    except PolarsError as error:  # the new name is that of another column
        raise Malformed("csv", short_message(error), line=line) from error
    if len(raw) != len(names):
        raise Malformed("csv", f"no header: {counted(len(names), 'name')}, or {len(raw)}", line=line)
    if twice:
        names = [name.replace('""', '"') for name in raw]  # Polars keeps a quote within quotes doubled
    return dict(zip(raw, names, strict=True))


def _given(fields: list[str], names: Sequence[str] | None, *, line: int) -> list[str]:
    """Return names for the columns of text without a header, whose first record is *fields*."""
    if not fields:
        return [*(names or ())]
    known = [*(names or ())][: len(fields)]
    record = b",".join([b"0"] * len(fields))
    others = pl.read_csv(record, has_header=False, n_rows=0, infer_schema=False).columns[len(known) :]
    if twice := _twice(columns := [*known, *others]):
        raise Malformed("csv", f"more columns than names, and {join_names(twice)} is one of them", line=line)
    return columns


def _twice(names: Sequence[str]) -> list[str]:
    return sorted(name for name, times in Counter(names).items() if times > 1)


def _copied(header: bytes, content: bytes, begin: int, options: CsvOptions) -> bytes:
    copy = BytesIO(header)
    copy.seek(len(header))
    for piece in _pieces(content, begin, options):
        copy.write(piece)
        release_gil()
    return copy.getvalue()


def _pieces(content: bytes, begin: int, options: CsvOptions) -> Iterator[bytes]:
    """Yield *content* from *begin* on, in pieces, with ``'`` for each ``"`` within a comment."""
    if options.comment_prefix is None or not count(content, b'"', begin):
        yield from (content[at : at + SCAN_BYTES] for at in range(begin, len(content), SCAN_BYTES))
        return
    prefix = options.comment_prefix.encode()
    is_start, is_open, is_comment = True, False, False  # at a line's start, within quotes, within a comment
    for first in range(begin, len(content), STEP_BYTES):
        step = content[first : first + STEP_BYTES]
        last_line = first + step.rfind(b"\n") + 1
        may_end_in_comment = content.startswith(prefix, last_line)
        if not is_comment and not may_end_in_comment and prefix not in step:
            is_open ^= step.count(b'"') % 2 == 1
            is_start = step.endswith(b"\n")
            yield step
            continue
        at, parts = first, []
        for part in step.splitlines(keepends=True):
            if is_start and not is_open:
                is_comment = content.startswith(prefix, at)
            parts.append(part.replace(b'"', b"'") if is_comment else part)
            is_open ^= parts[-1].count(b'"') % 2 == 1
            at += len(part)
            is_start = part.endswith(b"\n")
            is_comment &= not is_start
        yield b"".join(parts)
