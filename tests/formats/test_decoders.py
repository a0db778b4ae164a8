"""Decoding: which bodies are accepted, how much of them is read, and the errors for all others."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import zipfile
import zlib
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import pyarrow
import pytest
from polars.exceptions import PanicException
from polars.testing import assert_frame_equal
from pydantic import BaseModel, Field, create_model

from greendata.errors import BadArgument, BadChoice, BadTimeout, BodyTooLarge, DeadlineExceeded, FrameInvalid, Malformed
from greendata.formats.decoders import decode
from greendata.formats.encoders import encode
from greendata.formats.error_texts import short_message
from greendata.formats.format import FORMATS, Format
from greendata.formats.guards import chunk_scan
from greendata.formats.guards.parquet_footer import CELLS, DEPTH, FOOTER_BYTES, check_parquet
from greendata.formats.guards.size_guard import COLUMNS
from tests.support.frames import crowded

every_format = pytest.mark.parametrize("format", FORMATS)

FRAME = pl.DataFrame({"a": [1, 2, None], "b": ["x", None, "é"], "c": [0.5, None, -1.0]})


def body(df: pl.DataFrame, format: Format) -> bytes:
    return b"".join(encode(df, format))


def rejected(content: bytes, format: Format, schema: dict[str, Any] | None = None) -> Malformed:
    with pytest.raises(Malformed) as caught:
        decode(content, format, schema=schema and pl.Schema(schema))
    return caught.value


class Stream(io.RawIOBase):
    """A body that returns small parts, and counts the bytes that were read."""

    def __init__(self, content: bytes, part: int) -> None:
        self._content = io.BytesIO(content)
        self._part = part
        self.taken = 0

    def read(self, size: int = -1) -> bytes:
        assert size > 0
        some = self._content.read(min(size, self._part))
        self.taken += len(some)
        return some


@every_format
def test_sources_of_every_kind(format: Format, tmp_path: Path) -> None:
    content = body(FRAME, format)
    path = tmp_path / "body"
    path.write_bytes(content)
    for source in (content, bytearray(content), memoryview(content), io.BytesIO(content), Stream(content, 3)):
        assert_frame_equal(decode(source, format), FRAME)  # type: ignore[arg-type]
    with path.open("rb") as file:
        assert_frame_equal(decode(file, format), FRAME)
        assert not file.closed


@every_format
def test_no_more_is_read_than_one_byte_over_the_limit(format: Format) -> None:
    content = body(FRAME, format)
    stream = Stream(content * 100, 1000)
    with pytest.raises(BodyTooLarge, match=f"larger than the limit of {len(content)} bytes") as caught:
        decode(stream, format, max_bytes=len(content))  # type: ignore[arg-type]
    assert caught.value.limit == len(content)
    assert stream.taken == len(content) + 1
    for source in (content, bytearray(content), memoryview(content), io.BytesIO(content)):
        assert decode(source, format, max_bytes=len(content)).height == 3
        if isinstance(source, io.BytesIO):
            source.seek(0)
        with pytest.raises(BodyTooLarge):
            decode(source, format, max_bytes=len(content) - 1)


@every_format
def test_the_hub_keeps_running(format: Format) -> None:
    content = body(FRAME, format)
    with crowded():
        assert_frame_equal(decode(content, format), FRAME)


@every_format
def test_the_columns_of_a_schema_in_its_order(format: Format) -> None:
    chosen = FRAME.select("c", "a")
    assert_frame_equal(decode(body(FRAME, format), format, schema=chosen.schema), chosen)


@pytest.mark.parametrize("format", ["csv", "arrow", "parquet"])
def test_missing_columns(format: Format) -> None:
    error = rejected(body(FRAME, format), format, {"a": pl.Int64, "y": pl.Int64, "x": pl.Int64})
    assert "2 columns missing: x, y" in str(error)


@pytest.mark.parametrize("format", ["arrow", "parquet"])
def test_other_dtypes(format: Format) -> None:
    error = rejected(body(FRAME, format), format, {"a": pl.Int8})
    assert str(error) == f"not valid {format}, column 'a': expected Int8, got Int64"


@pytest.mark.parametrize("format", ["json", "ndjson"])
def test_absent_keys_are_null(format: Format) -> None:
    content = b'[{"a":1},{}]' if format == "json" else b'{"a":1}\n{}\n'
    schema = pl.Schema({"a": pl.Int8, "x": pl.Date})
    assert decode(content, format, schema=schema).rows() == [(1, None), (None, None)]


def test_json_columns() -> None:
    df = decode(b' {"a": [1, 2],\n "b": ["x", null]}', "json", schema=pl.Schema({"b": pl.String, "a": pl.UInt8}))
    assert df.rows() == [("x", 1), (None, 2)]
    assert decode(b'{"a": [1, 2], "b": [[1], []]}', "json").schema == {"a": pl.Int64, "b": pl.List(pl.Int64)}
    assert decode(b'{"a": [], "b": []}', "json", schema=pl.Schema({"a": pl.Date, "b": pl.String})).shape == (0, 2)
    assert decode(b'{"a": [1]}', "json", schema=pl.Schema({"x": pl.Date, "a": pl.Int8})).rows() == [(None, 1)]
    assert decode(b"{}", "json").shape == (0, 0)
    text = str(rejected(b'{"b": [1], "a": [1, 2], "c": []}', "json"))
    assert text == "not valid json: columns of unequal lengths: a 2, b 1, c 0"
    assert "columns of unequal lengths: a 2, b 1" in str(
        rejected(b'{"b": [1], "a": [1, 2]}', "json", {"a": pl.Int64, "b": pl.Int64})
    )
    assert rejected(b'{"a": 1}', "json").column == "a"


VALUES: dict[str, tuple[Any, list[Any], list[Any]]] = {  # the dtype; JSON and its value; JSON that is rejected
    "Int8": (pl.Int8, [127, 127], [128, 1.5, True, "x", [1], {"x": 1}]),
    "UInt64": (pl.UInt64, [2**64 - 1, 2**64 - 1], [-1, 2**64, 0.5]),
    "Int128": (pl.Int128, [2**63, 2**63], [0.5, "x"]),
    "Float64": (pl.Float64, [1, 1.0], [True, "x", [1]]),
    "Boolean": (pl.Boolean, [True, True], [1, "true", []]),
    "Date": (
        pl.Date,
        ["2024-02-29", date(2024, 2, 29)],
        ["2024-02-30", "29/02/2024", "2024-02-29T00:00:00", "24-02-29", "024-02-29", 5],
    ),
    "Time": (pl.Time, ["01:02:03.5", time(1, 2, 3, 500000)], ["25:00:00", "1"]),
    "Datetime": (
        pl.Datetime("us"),
        ["2024-01-02 03:04:05.5", datetime(2024, 1, 2, 3, 4, 5, 500000)],
        ["2024-01-02T03:04:05Z", "2024-13-02T03:04:05", "24-01-02T03:04:05", "x", 0],
    ),
    "UTC": (
        pl.Datetime("us", "UTC"),
        ["2024-01-02T03:04:05+02:00", datetime(2024, 1, 2, 1, 4, 5, tzinfo=UTC)],
        ["2024-01-02T03:04:05", "2024-01-02", 0],
    ),
    "Duration": (
        pl.Duration("us"),
        ["-P1DT2H3M4.5S", -timedelta(days=1, hours=2, minutes=3, seconds=4.5)],
        ["P", "PT", "1 day", "P1M", "PT0.0000001S", "P999999999999D", 5],
    ),
    "Decimal": (pl.Decimal(10, 2), ["1.50", Decimal("1.50")], ["1.505", "123456789.00", "x", True]),
    "Binary": (pl.Binary, ["/wA=", b"\xff\x00"], ["!!", 5]),
    "Enum": (pl.Enum(["a"]), ["a", "a"], ["b", 1]),
    "List": (pl.List(pl.Int8), [[1, None], [1, None]], [["x"], [300], [[1]]]),
    "Array": (pl.Array(pl.Int8, 2), [[1, 2], [1, 2]], [[1], [1, 2, 3]]),
    "Struct": (
        pl.Struct({"x": pl.Date, "y": pl.Int8}),
        [{"x": "2024-01-01"}, {"x": date(2024, 1, 1), "y": None}],
        [{"x": "?"}, {"y": 1.5}, 5],
    ),
}


@pytest.mark.parametrize(("dtype", "good", "bad"), VALUES.values(), ids=VALUES.keys())
@pytest.mark.parametrize("form", ["rows", "columns", "lines"])
def test_values_of_every_type(form: str, dtype: Any, good: list[Any], bad: list[Any]) -> None:
    format: Format = "ndjson" if form == "lines" else "json"
    schema = pl.Schema({"n": pl.Int64, "v": dtype})

    def written(*values: Any) -> bytes:
        rows = [{"n": number, "v": value} for number, value in enumerate(values)]
        if form == "columns":
            return json.dumps({"n": list(range(len(values))), "v": list(values)}).encode()
        return json.dumps(rows).encode() if form == "rows" else "".join(json.dumps(row) + "\n" for row in rows).encode()

    value, expected = good
    df = decode(written(value, None), format, schema=schema)
    assert_frame_equal(df, pl.DataFrame({"n": [0, 1], "v": [expected, None]}, schema=schema))
    for wrong in bad:
        with pytest.raises(Malformed) as caught:
            decode(written(value, value, wrong), format, schema=schema)
        if form == "lines":
            assert (caught.value.line, caught.value.column) == (3, "v"), wrong
        assert caught.value.__cause__ is not None


def test_a_row_that_does_not_fit_is_named() -> None:
    error = rejected(b'[{"a": "2024-01-01"}, {"a": null}, {"a": "soon"}]', "json", {"a": pl.Date})
    assert (error.row, error.column, error.line) == (2, "a", None)
    assert str(error) == "not valid json, row 2, column 'a': 'soon' is not a valid Date"


LARGE = chunk_scan.LARGE_BYTES + 1

NDJSON = {
    "cut": (b'{"a":1}\n{"a":', 2, "Expecting value"),
    "not JSON": (b'{"a":1}\n\n{"a":1}x\n{"a":2}\n', 3, "Extra data"),
    "two on a line": (b'{"a":1}\n{"a":1}{"a":2}\n', 2, "Extra data"),
    "no object": (b'{"a":1}\n[1]\n', 2, "expected an object, got [1]"),
    "not UTF-8": (b'{"a":1}\n{"a":2}\n{"b":"\xff"}\n', 3, "utf-8"),
    "wrong type": (b'{"a":1}\n{"a":"x"}\n', 2, "cannot parse 'x'"),
    "NaN": (b'{"a":NaN}\n', 1, "NaN is not valid JSON"),
    "deep": (b'{"a":1}\n{"a":' + b"[" * 9999 + b"]" * 9999 + b"}\n", 2, "more than 64 levels"),
}


@pytest.mark.parametrize(("content", "line", "text"), NDJSON.values(), ids=NDJSON.keys())
def test_the_line_of_malformed_ndjson(content: bytes, line: int, text: str) -> None:
    for schema in ({"a": pl.Int64},) if "wrong" in text or "cannot" in text else ({"a": pl.Int64}, None):
        error = rejected(content, "ndjson", schema)
        assert error.line == line
        assert text in error.reason
        assert str(error).startswith(f"not valid ndjson, line {line}")


CSV = {
    "ragged": (b"a,b\n1,x\n1,x,3\n2,y\n", 3, "found more fields"),
    "wrong type": (b'a,b\n1,"two\nlines"\nx,y\n', 4, "could not parse `x`"),
    "overflow": (b"a,b\n1,x\n\n99999999999999999999,y\n", 4, "could not parse `9999"),
    "open quote": (b'a,b\n1,x\n2,"y\n', 3, "a quote is not closed"),
    "open quote far behind": (b"a,b\n" + b'1,"x\n"\n' * 200_000 + b'2,"y\n3,z\n', 400_002, "a quote is not closed"),
    "a large cell": (b'a,b\n1,x\n"' + b"x" * LARGE + b'",y\n', 3, "'xxx"),
    "behind a large cell": (b'a,b\n1,"' + b"x\n" * LARGE + b'"\ny,z\n', LARGE + 3, "'y' is not a valid Int64"),
    "a long header": (b"a," + b"b" * LARGE + b"\n", 1, "its header has more than 1048576 bytes"),
    "a quote in the header": (b'a,"b\n' + b"\n" * LARGE, 1, "a quote is not closed"),
    "text after a quote": (b'a,b\n1,x\n2,"y"z\n', 3, ""),
    "not UTF-8": (b"a,b\n1,x\n2,\xff\n", 3, "utf-8"),
}


@pytest.mark.parametrize(("content", "line", "text"), CSV.values(), ids=CSV.keys())
def test_the_line_of_malformed_csv(content: bytes, line: int, text: str) -> None:
    error = rejected(content, "csv", {"a": pl.Int64, "b": pl.String})
    assert error.line == line
    assert text in error.reason


def test_the_line_of_an_invalid_date_in_csv() -> None:
    error = rejected(b'b,a\n"x\ny",2024-01-01\n,2024-02-30\n', "csv", {"a": pl.Date})
    assert (error.line, error.column) == (4, "a")
    assert str(error) == "not valid csv, line 4, column 'a': '2024-02-30' is not a valid Date"


def test_empty_lines_before_the_header() -> None:
    for content in (b"\na\n1\n", b"\r\n\r\na\r\n1\r\n", b"\xef\xbb\xbf\n\na\n1\n", b"\n" * LARGE + b"a\n1\n"):
        assert decode(content, "csv").to_dict(as_series=False) == {"a": [1]}
        assert decode(content, "csv", schema=pl.Schema({"a": pl.Int8})).to_dict(as_series=False) == {"a": [1]}
    error = rejected(b"\n" * LARGE + b"a\n1\nx\n", "csv", {"a": pl.Int8})
    assert (error.line, error.column) == (LARGE + 3, None)
    assert decode(b" \n\t\r\n", "csv").shape == (0, 0)
    assert decode(b" \n1\n", "csv").to_dict(as_series=False) == {" ": [1]}


def test_a_large_cell_is_read() -> None:
    content = b'a,b\n1,"' + b"x\n" * LARGE + b'"\n2,y\n'
    df = decode(content, "csv", schema=pl.Schema({"a": pl.Int64, "b": pl.String}))
    assert df["a"].to_list() == [1, 2]
    assert df["b"].str.len_bytes().to_list() == [2 * LARGE, 1]
    line = json.dumps({"a": ["x" * LARGE]}).encode()
    assert decode(line + b"\n" + line, "ndjson").height == 2
    assert (error := rejected(line + b'\n{"a":1', "ndjson")).line == 2, error
    assert rejected(b'{"a":[1]}\n' + line[:-1], "ndjson").line == 2
    text = str(rejected(json.dumps({"a": "x" * LARGE}).encode(), "json"))
    assert "got 'xxx" in text
    assert len(text) < 400


@pytest.mark.parametrize(
    "compress", [gzip.compress, zlib.compress, partial(pyarrow.compress, codec="zstd", asbytes=True)]
)
def test_compressed_text_is_rejected(compress: Callable[[bytes], bytes]) -> None:
    """Polars would decompress it, however large the result is."""
    for format, content in (("csv", b"a\n1\n"), ("ndjson", b'{"a":1}\n'), ("json", b'[{"a":1}]')):
        rejected(compress(content), format)  # type: ignore[arg-type]


def test_too_many_columns() -> None:
    row = json.dumps({f"k{number}": 1 for number in range(COLUMNS + 9)}).encode()
    errors = [rejected(row, "ndjson"), rejected(b"[" + row + b"]", "json"), rejected(b"," * (COLUMNS + 9), "csv")]
    reasons = [f"an object in it has more than {COLUMNS} members"] * 2 + [f"it has more than {COLUMNS} columns"]
    assert [error.reason for error in errors] == reasons


def test_other_kinds_of_a_format_are_named() -> None:
    file = io.BytesIO()
    pl.DataFrame({"a": [1]}).write_ipc(file)
    assert "an Arrow file (Feather), expected a stream" in str(rejected(file.getvalue(), "arrow"))
    assert "expected a message at byte 0, got b'PAR1PAR1'" in str(rejected(b"PAR1PAR1PAR1", "arrow"))
    assert "it is encrypted" in str(rejected(b"PARE" + bytes(20) + b"PARE", "parquet"))
    assert "it is encrypted" in str(rejected(b"PAR1" + bytes(20) + b"PARE", "parquet"))


def test_files_of_other_kinds_are_named() -> None:
    parquet, arrow, workbook = io.BytesIO(), io.BytesIO(), io.BytesIO()
    pl.DataFrame({"a": [1]}).write_parquet(parquet)
    pl.DataFrame({"a": [1]}).write_ipc(arrow)
    zipfile.ZipFile(workbook, "w").writestr("xl/workbook.xml", "<workbook/>")
    kinds = {
        "a Parquet file": parquet.getvalue(),
        "an Arrow file": arrow.getvalue(),
        "a ZIP archive, as Excel workbooks are": workbook.getvalue(),
        "an xz archive": lzma.compress(b"a,b\n"),
        "a PDF": b"%PDF-1.7\n",
    }
    for kind, content in kinds.items():
        for format in ("csv", "json", "ndjson"):
            assert rejected(content, format).reason == f"it is {kind}; expected {format} as text"  # type: ignore[arg-type]
    for encoding in ("utf-16", "utf-16-be"):
        text = "\ufeff" * (encoding == "utf-16-be") + "a\n1\n"
        assert "it begins as UTF-16; if it is, encoding='utf-16'" in str(rejected(text.encode(encoding), "csv"))
        assert decode(text.encode(encoding), "csv", encoding="utf-16").rows() == [(1,)]


def test_the_message_of_a_panic_says_what_failed() -> None:
    inner = r"assertion `left == right` failed\n  left: \"a\"\n right: \"b\""
    joined = f'called `Result::unwrap()` on an `Err` value: JoinError::Panic(Id(7), "{inner}", ...)'
    for text in (joined, "assertion `left == right` failed\n  left: 1"):
        assert short_message(PanicException(text)) == "the parser stops with: assertion `left == right` failed"


def test_bad_headers() -> None:
    assert "2 names stand for more than one column: a, b" in str(rejected(b"a,b,b,a\n", "csv"))
    many = ",".join(f"c{number},c{number}" for number in range(9)).encode()
    assert "1 name stands for more than one column: ''" in str(rejected(b"a,,\n1,2,3\n", "csv"))
    assert "9 names stand for more than one column: c0, c1, c2, c3, c4 and 4 more" in str(rejected(many, "csv"))
    assert "carriage return alone, expected a line feed" in str(rejected(b"a,b\r1,2\r", "csv"))
    assert "carriage return alone" in str(rejected(b"a\rb,c\n1,2\n", "csv"))
    assert "1 column missing: ''" in str(rejected(b"a\n1\n", "csv", {"": pl.Int64}))
    assert "no header" in str(rejected(b"\xff,b\n1,2\n", "csv"))
    assert rejected(b"", "csv", {"a": pl.Int64}).line == 1
    assert decode(b"\xef\xbb\xbfa,b\r\n1,x\r\n", "csv").rows() == [(1, "x")]


@pytest.mark.parametrize("format", ["ndjson", "csv"])
def test_lines_of_errors_in_long_bodies(format: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_scan, "SCAN_BYTES", 64)
    monkeypatch.setattr(chunk_scan, "LARGE_BYTES", 256)
    rows = [(n, f'text "{n}"\nof two lines' if n % 3 else "") for n in range(500)]
    df = pl.DataFrame(rows, schema={"a": pl.Int64, "b": pl.String}, orient="row")
    good = body(df, format)
    bad = b'{"a":"?"}\n' if format == "ndjson" else b"?,\n"
    assert rejected(good + bad + good, format, dict(df.schema)).line == good.count(b"\n") + 1
    if format == "csv":
        assert_frame_equal(decode(good, format, schema=df.schema), df)


NOT_JSON = [
    b"",
    b"  ",
    b"5",
    b"null",
    b'"a"',
    b"[",
    b"[1]",
    b'[{"a":1},5]',
    b'[{"a":1}]x',
    b'{"a":[1]',
    b"\xff",
    b"[null]",
]


@pytest.mark.parametrize("content", NOT_JSON)
def test_invalid_json(content: bytes) -> None:
    for schema in ({"a": pl.Int64}, None):
        assert rejected(content, "json", schema).format == "json"


@pytest.mark.parametrize("format", ["json", "ndjson"])
def test_columns_come_in_the_order_of_the_first_object(format: Format) -> None:
    row: dict[str, Any] = {f"k{number * 7 % 101}": number for number in range(101)}
    row["inner"] = [dict.fromkeys(row, "x")]
    texts = [json.dumps(row), json.dumps({"late": 1, **row})]
    content = "\n".join(texts) if format == "ndjson" else f"[{','.join(texts)}]"
    df = decode(content.encode(), format)
    assert df.columns == [*row, "late"]
    assert [*df["inner"].to_list()[0][0]] == [*row][:-1]
    assert df.height == 2


def test_integers_beside_fractions_keep_their_digits() -> None:
    rows = [{"a": 9007199254740993, "b": 1, "c": [0.5, 9007199254740993], "d": {"x": 1}, "e": ":1234567890123456,"}]
    rows += [{"a": 1.25, "b": 0.5, "c": [], "d": {"x": 1413617112501850121}, "e": ""}, {"a": None, "d": {"x": 0.1}}]
    for format, text in (
        ("ndjson", "\n".join(map(json.dumps, rows))),
        ("json", json.dumps(rows)),
        ("json", json.dumps({key: [row.get(key) for row in rows] for key in "abcde"})),
    ):
        df = decode(text.encode(), format)  # type: ignore[arg-type]
        assert df["a"].to_list() == [Decimal(9007199254740993), Decimal("1.25"), None]
        assert df["b"].to_list() == [1.0, 0.5, None]
        assert df["c"].to_list() == [[Decimal("0.5"), Decimal(9007199254740993)], [], None]
        assert [value["x"] for value in df["d"]] == [1, 1413617112501850121, Decimal("0.1")]
        assert [*df.schema] == ["a", "b", "c", "d", "e"]
        assert df.schema["b"] == pl.Float64
    assert decode(b'[{"a": 9007199254740993}, {"a": 2}]', "json").schema == {"a": pl.Int64}
    error = rejected(b'[{"a": 9007199254740993}, {"a": 1e300}]', "json")
    assert (error.row, error.column) == (1, "a")


def test_empty_rows_are_rows() -> None:
    for format, content in (("json", b"[{}, {}]"), ("ndjson", b"{}\n{}\n")):
        assert decode(content, format).shape == (2, 0)  # type: ignore[arg-type]
    assert decode(b"[{}]", "json").shape == (1, 0)


def test_lone_surrogates_are_rejected() -> None:
    halves = (r"\ud800", r"\uDFFF", r"\ud83d\ud83d\ude00", r"\\\ud800")
    for half in halves:
        line = f'{{"a": "{half}"}}'.encode()
        for schema in (None, {"a": pl.String}, {"b": pl.String}):
            assert rejected(b'{"a": "x"}\n\n' + line, "ndjson", schema).line == 3
            assert rejected(b'[{"a": "x"},\n' + line + b"]", "json", schema).line == 2
    whole = rb'{"a": "\ud83d\ude00 \\ud800"}'
    assert decode(whole, "ndjson")["a"].to_list() == ["\U0001f600 \\ud800"]
    assert decode(b"[" + whole + b"]", "json")["a"].to_list() == ["\U0001f600 \\ud800"]


def test_a_byte_order_mark_before_json() -> None:
    for schema in (None, pl.Schema({"a": pl.Int64})):
        for format, content in (("json", b'[{"a": 1}]'), ("json", b'{"a": [1]}'), ("ndjson", b'{"a": 1}\n')):
            assert decode(b"\xef\xbb\xbf" + content, format, schema=schema).rows() == [(1,)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b'[\n{"a":1,,}\n]', 2, "Expecting property name"),
        (b'[{"a":1}\n{"a":2}]', 2, "expected a comma or the end"),
        (b'[{"a":1},\n{"a":nul}]', 2, "Expecting value"),
        (b'[{"a":1},\n\n5]', 3, "expected an object, got 5"),
        (b'[{"a":1},\n{"a":"x"}', 2, "the array does not end with ]"),
        (b'[{"a":1},\n{"a":"x}]', 2, "the value that begins with { has no end"),
    ],
)
def test_the_line_of_invalid_json(content: bytes, line: int, reason: str) -> None:
    for schema in (None, {"a": pl.Int64}):
        error = rejected(content, "json", schema)
        assert error.line == line
        assert reason in error.reason


def test_nesting_that_takes_too_long_is_rejected() -> None:
    """Inferring types takes the cube of the depth for a line. Few deep lines, or many shallow ones, are fine."""
    deep = b'{"a":' + b"[" * 60 + b"]" * 60 + b"}"
    assert decode(b"\n".join([deep] * 10), "ndjson").height == 10
    assert decode(b"[" + b",".join([deep] * 10) + b"]", "json").height == 10
    for format, content in (("ndjson", b"\n".join([deep] * 300)), ("json", b"[" + b",".join([deep] * 3000) + b"]")):
        assert "nests" in rejected(content, format).reason  # type: ignore[arg-type]
    usual = json.dumps({"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[1.5, 2.5]] * 5]}}).encode()
    assert decode(b"\n".join([usual] * 20_000), "ndjson").height == 20_000


def test_empty_bodies() -> None:
    assert decode(b"", "ndjson").shape == (0, 0)
    assert decode(b"\n \n", "ndjson").shape == (0, 0)
    assert decode(b"", "csv").shape == (0, 0)
    assert decode(b"[]", "json").shape == (0, 0)
    assert decode(b"[]", "json", schema=pl.Schema({"a": pl.Date})).schema == {"a": pl.Date}
    assert decode(b"", "ndjson", schema=pl.Schema({"a": pl.Date})).schema == {"a": pl.Date}


@pytest.mark.parametrize("format", ["arrow", "parquet"])
def test_a_file_that_is_cut_short(format: Format) -> None:
    content = body(FRAME, format)
    for length in (0, 1, len(content) // 2, len(content) - 9, len(content) - 8, len(content) - 1):
        assert rejected(content[:length], format).format == format


def test_panics_are_malformed_too() -> None:
    content = bytearray(body(FRAME, "parquet"))
    content[4:40] = b"\xff" * 36
    error = rejected(bytes(content), "parquet")
    assert error.__cause__ is not None


def test_sparse_frames_are_rejected() -> None:
    many = {f"c{number}": pl.Int64 for number in range(1000)}
    rows = 40_000
    for format, content in {
        "ndjson": b"{}\n" * rows,
        "json": b"[" + b",".join([b"{}"] * rows) + b"]",
        "csv": ",".join(many).encode() + b"\n" + b"1\n" * rows,
    }.items():
        error = rejected(content, format, many)  # type: ignore[arg-type]
        assert "almost all of it would be null" in str(error)
    keys = [{f"k{number}": 1} for number in range(3000)]
    assert "almost all" in str(rejected("\n".join(map(json.dumps, keys)).encode(), "ndjson"))
    assert "almost all" in str(rejected(json.dumps(keys).encode(), "json"))


LONG, REPEATED = "x" * 100_000, 6_000  # 600 MB for a reader that needs a text for each row
CATEGORIES = pl.Series("a", [LONG], dtype=pl.Categorical).new_from_index(0, REPEATED)
BOMBS: list[tuple[Format, pl.Series, Any]] = [
    ("arrow", pl.Series("a", [LONG]).new_from_index(0, REPEATED), str),
    ("arrow", CATEGORIES, str),
    ("parquet", CATEGORIES, str),
    ("parquet", CATEGORIES.implode(), list[str]),
    ("arrow", CATEGORIES.alias("b").to_frame().to_struct("a"), dict[str, str]),
]


def repeated(format: Format, values: pl.Series) -> bytes:
    file = io.BytesIO()
    if format == "parquet":
        values.to_frame().write_parquet(file)
    else:
        values.to_frame().write_ipc_stream(file, compat_level=pl.CompatLevel.newest())
    return file.getvalue()


@pytest.mark.parametrize(("format", "values", "kind"), BOMBS)
def test_texts_that_are_stored_once_for_many_rows(format: Format, values: pl.Series, kind: Any) -> None:
    """In Polars they stay small. A validation would need memory for each of them."""
    content = repeated(format, values)
    assert decode(content, format).height == values.len()
    with pytest.raises(Malformed, match=r"bytes for values of [0-9]+ bytes, which are repeated; the limit is"):
        decode(content, format, model=create_model("Model", a=kind))


def test_parquet_footers_above_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    from greendata.formats.guards import parquet_footer

    content = body(FRAME, "parquet")
    check_parquet(content)
    monkeypatch.setattr(parquet_footer, "CELLS", 8)
    with pytest.raises(Malformed, match="it declares 9 values, nested 2 deep"):
        check_parquet(content)
    monkeypatch.setattr(parquet_footer, "CELLS", CELLS)
    nested: Any = pl.Int8
    for _ in range(DEPTH):
        nested = pl.Struct({"x": nested})
    file = io.BytesIO()
    pl.DataFrame(schema={"deep": nested}).write_parquet(file)
    with pytest.raises(Malformed, match=r"nested 6\d deep"):
        check_parquet(file.getvalue())
    length = (FOOTER_BYTES + 1).to_bytes(4, "little")
    with pytest.raises(Malformed, match="its footer has 8388609 bytes"):
        check_parquet(b"PAR1" + bytes(FOOTER_BYTES + 1) + length + b"PAR1")


@pytest.mark.parametrize(
    "dtype", [pl.List(pl.Int8), pl.Array(pl.Date, 2), pl.Struct({"x": pl.Binary}), pl.Decimal(5, 2), pl.Categorical()]
)
def test_absent_columns_are_null(dtype: pl.DataType) -> None:
    schema = pl.Schema({"a": pl.Int8, "b": dtype})
    for content in (b'{"a":[1,2]}', b'[{"a":1},{"a":2}]'):
        assert_frame_equal(decode(content, "json", schema=schema), pl.DataFrame({"a": [1, 2], "b": [None] * 2}, schema))
    assert decode(b'{"a":[]}', "json", schema=schema).schema == schema


def test_bad_arguments() -> None:
    with pytest.raises(BadChoice):
        decode(b"", "xml")  # type: ignore[arg-type]
    with pytest.raises(BadTimeout):
        decode(b"", "csv", timeout=-1)
    with pytest.raises(BadArgument, match="max_bytes must be a whole number >= 0, got -1"):
        decode(b"", "csv", max_bytes=-1)
    with pytest.raises(DeadlineExceeded):
        decode(b"", "csv", timeout=0)
    for source in ("a,b", 5, None, io.StringIO("a")):
        with pytest.raises(BadArgument, match="source must be bytes or a binary file, got "):
            decode(source, "csv")  # type: ignore[arg-type]


class Item(BaseModel):
    code: str
    count: Annotated[int, Field(ge=0)]
    at: datetime
    price: Decimal
    note: str = "-"


ITEMS = {
    "json": b'[{"code":"007","count":1,"at":"2024-01-02T03:04:05","price":"1.10"}]',
    "ndjson": b'{"code":"007","count":1,"at":"2024-01-02T03:04:05","price":"1.10","other":1}\n',
    "csv": b"count,code,price,at\n1,007,1.10,2024-01-02T03:04:05\n",
}


@pytest.mark.parametrize("format", ITEMS)
def test_rows_of_a_model(format: Format) -> None:
    df = decode(ITEMS[format], format, model=Item)
    assert df.rows() == [("007", 1, datetime(2024, 1, 2, 3, 4, 5), Decimal("1.10"), "-")]
    with pytest.raises(FrameInvalid):
        decode(ITEMS[format].replace(b"1,", b"-1,", 1), format, model=Item)
    with pytest.raises(FrameInvalid):
        decode(ITEMS[format].replace(b"code", b"cod"), format, model=Item)


def test_errors_of_the_source_are_raised_unchanged() -> None:
    class Broken(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise ConnectionResetError(size)

    with pytest.raises(ConnectionResetError):
        decode(Broken(), "csv")  # type: ignore[arg-type]
