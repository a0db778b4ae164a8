"""Split JSON into the texts of its rows, one string per row, without parsing the rows.

Polars' expressions split the text, so no step holds the GIL. The text between the rows is checked here. The rows are
checked elsewhere: by a regular expression that matches a whole row (`greendata.formats.json.shapes`), or by a parser.
So a document is valid JSON if all of its rows are. Call on a worker.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from functools import reduce

import polars as pl
from polars.exceptions import PanicException, PolarsError

from greendata.errors import Malformed
from greendata.formats.format import Format
from greendata.formats.guards.chunk_scan import SCAN_BYTES, count, first_byte
from greendata.formats.guards.json_depth import DEPTH, reject_deep_document
from greendata.formats.guards.size_guard import COLUMNS, reject_compressed, reject_wide
from greendata.formats.json.shapes import Shape, ShapeError
from greendata.hub.pacing import release_gil
from greendata.query.chunked_text import bytes_of, pieces_of
from greendata.schema.column_names import frame_of

__all__ = (
    "BOM",
    "ROW_BYTES",
    "STRING",
    "TEXT",
    "line_of",
    "lines_of_rows",
    "member_of",
    "names_of_columns",
    "read_columns",
    "rows_of",
    "text_in",
    "without_bom",
    "without_members",
)

BOM = b"\xef\xbb\xbf"  # the byte order mark: RFC 8259 allows readers of JSON to ignore it
MAX_ZIPPED = 200  # columns, at most, that are zipped by one Polars step for each
ROW_BYTES = 1 << 28  # bytes, at most, of the names in rows made from columns: each row repeats all names
ROW_BYTES_ALWAYS = 1 << 20  # bytes that are always accepted, whatever the size of the columns
ROW_BYTES_A_BYTE = (
    32  # bytes added for each byte of the columns: enough for names of 60 characters and one-digit numbers
)
STRING = r'"(?:[^"\\]|\\(?s:.))*"'  # a string, or invalid text that ends like one

TEXT = pl.col("text")

_SPACE = r"[ \t\n\r]*"
_FLAT = rf'(?:[^\[\]{{}}"]|{STRING})*'
_NESTED = reduce(lambda inner, _: rf"[\[{{]{_FLAT}(?:{inner}{_FLAT})*[\]}}]", range(DEPTH - 2), rf"[\[{{]{_FLAT}[\]}}]")
_VALUE = rf'{_NESTED}|{STRING}|[^ \t\n\r,\[\]{{}}":]+'  # a value, or invalid text in its place
_LIST = rf"^{_SPACE}(?:v(?:{_SPACE},{_SPACE}v)*{_SPACE})?$"  # a list after each of its values was replaced by v
_MEMBER = rf"{STRING}{_SPACE}:{_SPACE}(?:{_VALUE})"


def without_bom(content: bytes) -> bytes:
    r"""Return *content* without a byte order mark at its beginning.

    The copy is made in pieces, and the GIL is released between them.

    Example:
        >>> without_bom(BOM + b"[]")
        b'[]'
    """
    if not content.startswith(BOM):
        return content
    with memoryview(content) as view:
        return bytes_of(view[begin : begin + SCAN_BYTES] for begin in range(len(BOM), len(content), SCAN_BYTES))


def rows_of(content: bytes, format: Format) -> pl.Series:
    r"""Return the text of each row. The rows themselves are not checked.

    Args:
        content: an array of rows, an object of columns, or one row per line.
        format: json or ndjson.

    Raises:
        Malformed: the text around the rows is not JSON, or *content* is not a list of rows.

    Example:
        >>> rows_of(b'[{"a": [1, 2]}, 5]', "json").to_list()
        ['{"a": [1, 2]}', '5']
        >>> rows_of(b'{"a": [1, 2], "b": ["x", null]}', "json").to_list()
        ['{"a":1,"b":"x"}', '{"a":2,"b":null}']
        >>> rows_of(b'{"a":1}\n\n{"a":2}\n', "ndjson").to_list()
        ['{"a":1}', '{"a":2}']
    """
    reject_compressed(content, format)
    begin = first_byte(content, len(BOM) if content.startswith(BOM) else 0)
    if format == "ndjson":
        lines = _evaluate(text_in(content, format), TEXT.str.strip_prefix("\ufeff").str.split("\n")).explode()
        return lines.filter(lines.str.contains(r"[^ \t\r]")).alias("")
    if begin == len(content):
        raise Malformed("json", "it is empty")
    opener = content[begin : begin + 1]
    if opener not in (b"[", b"{"):
        got = content[begin : begin + 20]
        raise Malformed("json", f"expected an array of objects or an object of arrays, got {got!r}")
    try:
        text = text_in(content, format, begin).select(TEXT.str.strip_chars(" \t\n\r"))
        return _elements(text) if opener == b"[" else _rows_of_columns(text)
    except Malformed as error:
        reject_deep_document(content)  # the expressions report deep nesting as a value without an end
        line = None if error.line is None else error.line + count(content, b"\n", 0, begin)
        raise Malformed("json", error.reason, line=line, column=error.column) from error


def member_of(content: bytes, name: str) -> bytes | None:
    """Return the text of the member *name* of a JSON object, or None; of several members of that name the last.

    The text itself is not checked.

    Raises:
        Malformed: *content* is not an object.

    Example:
        >>> member_of(b'{"items": [{"a": 1.10}], "next": "b"}', "items")
        b'[{"a": 1.10}]'
    """
    begin = first_byte(content, len(BOM) if content.startswith(BOM) else 0)
    if content[begin : begin + 1] != b"{":
        raise Malformed("json", f"expected an object, got {content[begin : begin + 20]!r}")
    try:
        text = text_in(content, "json", begin).select(TEXT.str.strip_chars(" \t\n\r"))
        members = _split_list(text, _MEMBER, "{}")
    except Malformed:
        reject_deep_document(content)  # the expressions report deep nesting as a value without an end
        raise
    reject_wide(members.len(), format="json")
    keys, values = _keys_and_values(pl.concat([members, pl.Series([""])]))  # one more, see `pieces_of`
    found = [at for at, key in enumerate(keys[:-1]) if _name(key) == name]
    return bytes_of(pieces_of(values.slice(found[-1]).cast(pl.Binary).to_frame())) if found else None


def without_members(texts: pl.Series, names: Collection[str]) -> pl.Series:
    """Return the texts of rows without their members of these *names*, unless a name is written with escapes.

    Example:
        >>> without_members(pl.Series(['{"a": {"b": 1}, "b": 2}', "{}"]), ["b"]).to_list()
        ['{"a": {"b": 1}}', '{}']
    """
    either = "|".join(re.escape(json.dumps(name, ensure_ascii=False)) for name in names)
    kept = pl.element().filter(~pl.element().str.contains(rf"^(?:{either}){_SPACE}:"))
    members = TEXT.str.extract_all(_MEMBER).list.eval(kept).list.join(",")
    return texts.alias("text").to_frame().select(pl.lit("{") + members + pl.lit("}")).to_series()


def names_of_columns(content: bytes) -> list[str]:
    """Return the names of the columns in an object of arrays, found by a pattern.

    Return no names if two are the same, if one is not valid JSON, or if there are more than `COLUMNS`.

    Example:
        >>> names_of_columns(b'{"a": [1, 2], "b": ["x", null]}')
        ['a', 'b']
    """
    names_in = TEXT.str.extract_all(rf"{STRING}{_SPACE}:{_SPACE}\[")
    found = _evaluate(text_in(content, "json"), names_in).explode(empty_as_null=False)
    if found.len() > COLUMNS:
        return []
    try:
        names = [json.loads(key[:-1].rstrip(" \t\n\r")[:-1]) for key in found]
    except ValueError:
        return []
    return names if len(set(names)) == len(names) else []


def read_columns(content: bytes, shape: Shape) -> pl.DataFrame | None:
    """Return the frame of an object of arrays, or None if some values do not have the kinds that *shape* has for a row.

    Example:
        >>> from greendata.formats.json.shapes import shape_of
        >>> read_columns(b'{"a": [1, null]}', shape_of('{"a": 1}', {"a": pl.Int64()}, None)).rows()
        [(1,), (None,)]
    """
    document = shape.of_columns()
    try:
        if not _evaluate(text_in(content, "json"), TEXT.str.contains(document.row())).item():
            return None
        lists = pl.read_json(without_bom(content), schema=document.schema)
    except (PolarsError, PanicException, ShapeError):
        return None
    if lists.height != 1:
        return None
    columns = [series.explode(empty_as_null=False) for series in lists.iter_columns()]
    if len({series.len() for series in columns}) > 1:
        return None
    return frame_of(columns)


def line_of(content: bytes, format: Format, row: int) -> int | None:
    r"""Return the line of *content* on which a row begins, counted from 1; None for an object of columns.

    Example:
        >>> line_of(b'\n{"a":1}\n\n{"a":2}\n', "ndjson", 1)
        4
    """
    lines = lines_of_rows(content, format)
    return None if lines is None else int(lines[row])


def lines_of_rows(content: bytes, format: Format) -> pl.Series | None:
    r"""Return, for each row, the line of *content* on which it begins, counted from 1; None for an object of columns.

    Example:
        >>> lines_of_rows(b'[{"a":1},\n{"a":2}]', "json").to_list()
        [1, 2]
    """
    begin = first_byte(content, len(BOM) if content.startswith(BOM) else 0)
    before = 1 + count(content, b"\n", 0, begin)
    text = text_in(content, format, begin)
    if format == "ndjson":
        lines = _evaluate(text, TEXT.str.split("\n")).explode()
        return lines.str.contains(r"[^ \t\r]").arg_true() + before
    if content[begin : begin + 1] != b"[":
        return None
    inner = text.select(TEXT.str.strip_chars(" \t\n\r").str.strip_prefix("[").str.strip_suffix("]"))
    between = _evaluate(inner, _replaced(_VALUE).str.split("v")).explode().str.count_matches("\n", literal=True)
    items = _evaluate(inner, _matches(_VALUE)).explode(empty_as_null=False).str.count_matches("\n", literal=True)
    return between.head(items.len()).cum_sum() + items.cum_sum() - items + before


def text_in(content: bytes, format: Format, begin: int = 0) -> pl.LazyFrame:
    """Return a lazy frame with one string in the column `TEXT`: *content* from the offset *begin*.

    The string is built within the query, and should be used there only: each method of a Series copies a single value,
    however long it is, with the GIL held.

    Raises:
        Malformed: *content* is not UTF-8.

    Example:
        >>> text_in(b"[]", "json").select(TEXT.str.len_bytes()).collect().item()
        2
    """
    pieces, first = [], begin
    while begin < len(content):
        end = min(begin + SCAN_BYTES, len(content))
        while begin < end < len(content) and content[end] & 0xC0 == 0x80:  # do not split a character
            end -= 1
        end = end if end > begin else begin + SCAN_BYTES
        pieces.append(pl.Series([content[begin:end]], dtype=pl.Binary))
        try:
            pieces[-1] = pieces[-1].cast(pl.String)
        except PolarsError as error:
            line = 1 + count(content, b"\n", first, begin) + _bad_line(content[begin:end])
            raise Malformed(format, "it is not UTF-8", line=line) from error
        begin = end
        if begin < len(content):
            release_gil()
    texts = pl.concat(pieces) if pieces else pl.Series([""])
    return texts.alias("text").to_frame().lazy().select(TEXT.str.join(""))


def _evaluate(text: pl.LazyFrame, expr: pl.Expr) -> pl.Series:
    """Return the result of *expr* for a text."""
    return text.select(expr).collect(engine=pl.InMemoryEngine()).to_series().alias("")


def _bad_line(piece: bytes) -> int:
    """Return the number of lines before the first byte that is not UTF-8."""
    try:
        piece.decode()
    except UnicodeDecodeError as error:
        return piece.count(b"\n", 0, error.start)
    return 0


def _elements(text: pl.LazyFrame) -> pl.Series:
    """Return the texts of the elements of an array."""
    return _split_list(text, _VALUE, "[]")


def _split_list(text: pl.LazyFrame, item: str, brackets: str) -> pl.Series:
    """Return the texts that match *item* in a text: a list of them, with commas between and *brackets* around it."""
    inner = TEXT.str.strip_prefix(brackets[0]).str.strip_suffix(brackets[1])
    found = (
        text.select(TEXT.str.len_bytes().alias("whole"), inner)
        .select("whole", TEXT.str.len_bytes().alias("inner"), _matches(item).alias("items"), _replaced(item))
        .with_columns(TEXT.str.contains(_LIST).alias("is_list"))
        .collect(engine=pl.InMemoryEngine())
    )
    if found["whole"].item() - found["inner"].item() != 2:
        what = "array" if brackets == "[]" else "object"
        line = 1 + _evaluate(text, TEXT.str.count_matches("\n")).item()
        raise Malformed("json", f"the {what} does not end with {brackets[1]}", line=line)
    if not found["is_list"].item():
        raise _list_error(text.select(inner), found["text"], item)
    return found["items"].explode(empty_as_null=False).alias("")


def _matches(item: str) -> pl.Expr:
    return TEXT.str.extract_all(item)


def _replaced(item: str) -> pl.Expr:
    return TEXT.str.replace_all(item, "v")


def _list_error(inner: pl.LazyFrame, between: pl.Series, item: str) -> Malformed:
    """Return the error in a list. *between* is its text with each item replaced by ``v``."""
    good: str = between.str.extract(rf"^({_SPACE}(?:v{_SPACE},{_SPACE})*(?:v{_SPACE})?)").item()
    left = between.str.slice(len(good), 1).item()
    number = good.count("v")
    line = 1 + _newlines(inner, number, item)
    if not left:
        return Malformed("json", "nothing follows the last comma", line=line)
    if left in '{["':
        return Malformed("json", f"the value that begins with {left} has no end, or nests too deep", line=line)
    expected = "a value" if good.strip().endswith(",") or not good.strip() else "a comma or the end"
    got = _evaluate(inner, _matches(item).list.get(number)).item() if left == "v" else left
    return Malformed("json", f"expected {expected}, got {got[:50]}", line=line)


def _newlines(inner: pl.LazyFrame, number: int, item: str = _VALUE) -> int:
    """Return the number of lines that end before the item of this *number* in a list."""
    between = _evaluate(inner, _replaced(item).str.split("v")).explode().head(number + 1)
    items = _evaluate(inner, _matches(item)).explode(empty_as_null=False).head(number)
    return sum(sum(text.str.count_matches("\n", literal=True).to_list()) for text in (between, items))


def _rows_of_columns(text: pl.LazyFrame) -> pl.Series:
    members = _split_list(text, _MEMBER, "{}")
    reject_wide(members.len(), format="json")
    keys, values = _keys_and_values(members)
    names = [_name(key) for key in keys]
    is_null = values == "null"
    for at in (~is_null & ~values.str.starts_with("[")).arg_true().head(1):
        reason = f"expected an array of objects or an object of arrays, got {values.str.slice(0, 50)[at]}"
        raise Malformed("json", reason, column=names[at])
    items = _elements_of_each(values.set(is_null, "[]"))
    kept: dict[str, int] = {}  # the last column of each name; null stands for an absent column
    for at, (name, absent) in enumerate(zip(names, is_null, strict=True)):
        if absent:
            kept.pop(name, None)
        else:
            kept[name] = at
    lengths = dict(zip(kept, items[[*kept.values()]].list.len().to_list(), strict=True)) if kept else {}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in sorted(lengths.items()))
        raise Malformed("json", f"columns of unequal lengths: {listed}")
    if not kept or not max(lengths.values()):
        return pl.Series([], dtype=pl.String)
    bound = min(ROW_BYTES, ROW_BYTES_ALWAYS + ROW_BYTES_A_BYTE * int(members.str.len_bytes().sum()))
    if sum(len(keys[at]) for at in kept.values()) * max(lengths.values()) > bound:
        raise Malformed("json", f"its column names alone would take more than {bound} bytes in its rows; send rows")
    zipped = _zipped if len(kept) <= MAX_ZIPPED else _transposed
    return zipped([keys[at] for at in kept.values()], items[[*kept.values()]])


def _elements_of_each(values: pl.Series) -> pl.Series:
    """Return, for each array, the list of the texts of its elements."""
    inner = values.str.strip_prefix("[").str.strip_suffix("]")
    text = pl.col("text")
    items, is_list = (
        inner.alias("text")
        .to_frame()
        .select(text.str.extract_all(_VALUE), text.str.replace_all(_VALUE, "v").str.contains(_LIST).alias("is"))
        .get_columns()
    )
    is_list &= values.str.len_bytes() - inner.str.len_bytes() == 2
    for at in (~is_list).arg_true().head(1):
        _elements(values.slice(at, 1).alias("text").to_frame().lazy())  # raises the error
    return items


def _keys_and_values(members: pl.Series) -> tuple[list[str], pl.Series]:
    halves = TEXT.str.extract_groups(rf"^({STRING}){_SPACE}:{_SPACE}((?s:.*))$")
    keys, values = _evaluate(members.alias("text").to_frame().lazy(), halves).struct.unnest().get_columns()
    return keys.to_list(), values.alias("")


def _name(key: str) -> str:
    try:
        name: str = json.loads(key)
    except ValueError as error:
        raise Malformed("json", f"{key[:50]} is not a valid name: {error}") from error
    return name


def _zipped(keys: list[str], items: pl.Series) -> pl.Series:
    """Return the texts of the rows of columns. *items* has, for each key, the list of the texts of its values."""
    texts = pl.DataFrame([items.slice(at, 1).explode().alias(str(at)) for at in range(len(keys))])
    parts = [part for at, key in enumerate(keys) for part in (pl.lit(f"{',' if at else '{'}{key}:"), pl.col(str(at)))]
    return texts.select(pl.concat_str(*parts, pl.lit("}")).alias("")).to_series()


def _transposed(keys: list[str], items: pl.Series) -> pl.Series:
    """Do the same as `_zipped` for many columns: one Polars step for each column would be slower."""
    width, height = len(keys), int(items.list.len()[0])
    number = pl.int_range(width * height, dtype=pl.UInt32, eager=True)
    names = pl.Series(keys)[number % width]
    values = items.explode()[number % width * height + number // width]
    members = pl.select(pl.concat_str(names, pl.lit(":"), values).alias("")).to_series()
    rows = members.reshape((height, width)).arr.join(",")
    return pl.select(pl.concat_str(pl.lit("{"), rows, pl.lit("}")).alias("")).to_series()
