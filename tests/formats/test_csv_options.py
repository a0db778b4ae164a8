"""The options of CSV: they mean what they mean in Polars, and no option changes a value or a line number."""

from __future__ import annotations

import csv
import io
from datetime import date
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, model_validator

from greendata.errors import BadArgument, FrameInvalid, Malformed
from greendata.formats import csv_text
from greendata.formats.decoders import decode
from greendata.formats.guards import chunk_scan
from tests.support.frames import crowded


class User(BaseModel):
    id: int
    name: str | None = "?"


def strings(content: bytes, **options: Any) -> pl.DataFrame:
    """Return what `decode` reads, all as strings; check that Polars reads the same."""
    expected = pl.read_csv(content, infer_schema=False, **options)
    df = decode(content, "csv", schema=pl.Schema(dict.fromkeys(expected.columns, pl.String)), **options)
    assert df.equals(expected)
    return df


AS_POLARS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "semicolon": (b'a;b\n1,5;"x;y"\n', {"separator": ";"}),
    "tab": (b"a\tb\n1\t2\n", {"separator": "\t"}),
    "pipe": (b"a|b\n1|\n", {"separator": "|"}),
    "space": (b"a b\n1 2\n", {"separator": " "}),
    "latin-1": ("a,b\n\xe9,ü\n".encode("latin-1"), {"encoding": "latin-1"}),
    "cp1252": ("a,b\n€,ü\n".encode("cp1252"), {"encoding": "windows-1252"}),
    "utf-16": ("a,b\né,日本\n".encode("utf-16"), {"encoding": "utf-16"}),
    "utf8-lossy": (b"a,b\n\xff,\xc3\xa9\n", {"encoding": "utf8-lossy"}),
    "no header": (b"1,2\n3\n\n", {"has_header": False}),
    "no header, one column": (b"\n1\n\n2\n", {"has_header": False}),
    "null": (b'a,b\nNA,"NA"\n"",\n', {"null_values": "NA"}),
    "nulls": (b"a,b\nNA,-\nx,n/a\n", {"null_values": ["NA", "-"]}),
    "null of a column": (b'a,"b c"\nNA,NA\n-,-\n', {"null_values": {"a": "NA", "b c": "-"}}),
    "comments": (b"#x\na,b\n#y\n1,2\n #z\n#\n3,4\n#w", {"comment_prefix": "#"}),
    "comments of two characters": (b"//x\na,b\n//y\n1,/2\n", {"comment_prefix": "//"}),
    "comments with quotes": (b'a,b\n#don"t\n1,"x\n#y"\n# "\n3,4\n', {"comment_prefix": "#"}),
    "quoted comment": (b'a,b\n"#w",3\n', {"comment_prefix": "#"}),
    "comments and CRLF": (b'a,b\r\n#c"\r\n3,4\r\n', {"comment_prefix": "#"}),
    "rows": (b'x\n"y\nz"\na,b\n1,2\n', {"skip_rows": 2}),
    "empty rows": (b"x\n\ny\na,b\n1,2\n", {"skip_rows": 3}),
    "empty lines before": (b"\n\r\nx\na,b\n1,2\n", {"skip_rows": 1}),
    "rows and comments": (b'#c"\nx,y\n#"d\na,b\n1,2\n', {"skip_rows": 1, "comment_prefix": "#"}),
    "mark": ("\ufeff#c\na,b\n1,2\n".encode(), {"comment_prefix": "#"}),
    "mark and rows": ("\ufeffx\na,b\n1,2\n".encode(), {"skip_rows": 1}),
    "all": (
        'Bericht\n#é\na;b\n-;"x\n#y"\n#z"\n'.encode("latin-1"),
        {"separator": ";", "encoding": "latin-1", "skip_rows": 1, "comment_prefix": "#", "null_values": "-"},
    ),
}


@pytest.mark.parametrize(("content", "options"), AS_POLARS.values(), ids=AS_POLARS.keys())
def test_options_mean_what_they_mean_in_polars(content: bytes, options: dict[str, Any]) -> None:
    assert strings(content, **options).height


@given(
    rows=st.lists(st.tuples(*[st.text('a#;, "\né', max_size=4)] * 2), min_size=1, max_size=6),
    comments=st.lists(st.sampled_from(["#", '#"', '#x";"', "#\r"]), max_size=4),
    places=st.lists(st.integers(0, 6), min_size=4, max_size=4),
    preamble=st.lists(st.sampled_from(["x", '"a\nb"', "x;y;z", "#", '"#"']), max_size=3),
    prefix=st.sampled_from(["#", "##", "#x"]),
    step=st.sampled_from([3, 7, 1 << 15]),
)
def test_what_is_ignored_changes_no_value_and_no_line(
    rows: list[tuple[str, str]], comments: list[str], places: list[int], preamble: list[str], prefix: str, step: int
) -> None:
    preamble, comments = ([line.replace("#", prefix) for line in lines] for lines in (preamble, comments))
    lines: list[int] = []
    text = "".join(f"{line}\n" for line in preamble)
    for number, row in enumerate([("a", "b"), *rows]):
        for comment, place in zip(comments, places, strict=False):
            text += f"{comment}\n" if place == number else ""
        lines.append(1 + text.count("\n"))
        record = io.StringIO()
        csv.writer(record, delimiter=";", lineterminator="\n", quoting=csv.QUOTE_ALL).writerow(row)
        text += record.getvalue()
    skipped = sum(line != prefix for line in preamble)
    options: dict[str, Any] = {"separator": ";", "comment_prefix": prefix, "skip_rows": skipped}
    content = text.encode("latin-1")
    schema = pl.Schema({"a": pl.String, "b": pl.String})

    class Never(BaseModel):
        a: date

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_text, "STEP_BYTES", step)
        assert decode(content, "csv", schema=schema, encoding="latin-1", **options).rows() == rows
        with pytest.raises(FrameInvalid) as caught:
            decode(content, "csv", model=Never, encoding="latin-1", **options)
    failures = caught.value.failures.unique("row", maintain_order=True)
    assert [*zip(failures["row"], failures["line"], strict=True)] == [*enumerate(lines[1:])]


@pytest.mark.parametrize("row", [b"1,2\n", b"\n", b'"1\n",2\n', b"#,2\r\n"])
@pytest.mark.parametrize("skipped", [49, 51, 9_999, 10_000])
def test_many_rows_are_skipped(row: bytes, skipped: int) -> None:
    content = b"x\n" + row * 10_000 + b"a,b\n1,2\n"
    df = decode(content, "csv", skip_rows=skipped + 1, has_header=False)
    assert df.height == 10_000 - skipped + 2
    assert df.rows()[-1] == ("1", "2")


def test_many_comments() -> None:
    content = b'#"\n' * 300_000 + b"a,b\n" + b"#\n" * 300_000 + b'1,"2"\n'
    assert decode(content, "csv", comment_prefix="#").rows() == [(1, 2)]


def test_empty_lines_before_the_header_are_skipped_after_rows_too() -> None:
    assert decode(b"title\n\n\na,b\n1,2\n", "csv", skip_rows=1).rows() == [(1, 2)]


def test_the_pool_converts() -> None:
    with crowded():
        assert decode("a\né\n".encode("utf-16"), "csv", encoding="utf-16").rows() == [("é",)]


def test_characters_at_the_border_of_a_step() -> None:
    text = "a\n" + "日é\n" * 50_000
    for encoding in ("utf-16", "utf-8-sig", "utf8-lossy", "gb18030"):
        content = text.encode("utf-8" if encoding == "utf8-lossy" else encoding)
        assert decode(content, "csv", encoding=encoding)["a"].to_list() == ["日é"] * 50_000


@pytest.mark.parametrize(
    ("content", "encoding", "line"),
    [
        (b"a\nb\n\xff\n", "ascii", 3),
        (b"a\nb\xe9", "utf-8-sig", 2),
        ("a\nb\n".encode("utf-16")[:-1], "utf-16", 2),
        (b"a\n" * 50_000 + b"\xff", "ascii", 50_001),
        (("日\n" * 50_000).encode("gb18030") + b"\xff", "gb18030", 50_001),
    ],
)
def test_text_of_another_encoding(content: bytes, encoding: str, line: int) -> None:
    with pytest.raises(Malformed, match=f"it is not {encoding}") as caught:
        decode(content, "csv", encoding=encoding)
    assert caught.value.line == line


def test_the_columns_of_text_without_a_header() -> None:
    options: dict[str, Any] = {"has_header": False, "separator": ";"}
    schema = pl.Schema({"x": pl.Int8, "y": pl.String})
    assert decode(b"1;a\n2\n", "csv", schema=schema, **options).rows() == [(1, "a"), (2, None)]
    assert decode(b"", "csv", schema=schema, **options).schema == schema
    for content in (b"1\n", b"1;2;3\n"):
        with pytest.raises(Malformed, match=r"line 2: [13] columns?, expected 2"):
            decode(b"x\n" + content, "csv", schema=schema, skip_rows=1, **options)
    assert decode(b"1;a\n", "csv", model=User, **options).rows() == [(1, "a")]
    assert decode(b"1\n", "csv", model=User, **options).rows() == [(1, "?")]
    assert decode(b"1;a;b\n", "csv", model=User, **options).rows() == [(1, "a")]
    assert decode(b"", "csv", model=User, **options).schema == {"id": pl.Int64, "name": pl.String}


def test_null_values_with_types() -> None:
    df = decode(b"id,name\n-,-\n1,x\n", "csv", schema=pl.Schema({"id": pl.Int64, "name": pl.String}), null_values="-")
    assert df.rows() == [(None, None), (1, "x")]
    assert decode(b"id,name\n1,-\n", "csv", model=User, null_values={"name": "-"}).rows() == [(1, None)]
    assert decode(b"a\n-\n9007199254740993\n1.5\n", "csv", null_values="-")["a"].to_list()[0] is None
    with pytest.raises(Malformed, match="line 2: 1 column of null_values missing: x"):
        decode(b"\nid\n1\n", "csv", null_values={"x": "-"}, comment_prefix="#")


def test_columns_of_one_name() -> None:
    content = b'a,a,"x""y","x""y",a\n1,2,3,4,5\n'
    with pytest.raises(Malformed, match="line 1: 2 names stand for more than one column"):
        decode(content, "csv")
    names = ["a", "a_duplicated_0", 'x"y', 'x"y_duplicated_0', "a_duplicated_1"]
    for options in ({}, {"comment_prefix": "#"}):
        df = decode(content, "csv", rename_duplicates=True, **options)
        assert (df.columns, df.rows()) == (names, [(1, 2, 3, 4, 5)])
    with pytest.raises(Malformed, match="also exists"):
        decode(b"a,a,a_duplicated_0\n1,2,3\n", "csv", rename_duplicates=True)


@pytest.mark.parametrize(
    "options",
    [
        *({"separator": value} for value in ("", ";;", "é", '"', "\n", "\0", None, 5, b";")),
        *({"encoding": value} for value in ("nope", "zlib", "hex", "", None, "a\0b")),
        *({"has_header": value} for value in (None, 1, "no")),
        *({"rename_duplicates": value} for value in (None, 0)),
        *({"null_values": value} for value in (5, b"NA", [None], {"a": None}, {1: "x"}, {"a"})),
        *({"comment_prefix": value} for value in ("", '"', "#\n", 5, b"#")),
        *({"skip_rows": value} for value in (-1, 1.0, None, "1", True)),
    ],
    ids=str,
)
def test_bad_options_are_refused_at_the_call(options: dict[str, Any]) -> None:
    with pytest.raises(BadArgument, match=f"^{next(iter(options))} must be "):
        decode(b"not read", "csv", **options)


@pytest.mark.parametrize("options", [{"separator": ";"}, {"skip_rows": 1}, {"has_header": False}])
def test_other_formats_have_no_options(options: dict[str, Any]) -> None:
    for name in ("json", "ndjson", "arrow", "parquet"):
        with pytest.raises(BadArgument, match=f"{name} does not have it"):
            decode(b"[]", name, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b'x"\na,b\n1,2\n', b'x\na,"b\n1,2\n', b'x\na,b\n1,"2\n'])
def test_a_quote_that_is_not_closed(content: bytes) -> None:
    with pytest.raises(Malformed, match="a quote is not closed") as caught:
        decode(content, "csv", skip_rows=1)
    assert caught.value.line == 1 + content[: content.index(b'"')].count(b"\n")


def test_lines_of_errors_after_ignored_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"title\n#c\na,b\n#d\n1,2\nx\n3,4\n5,soon\n"
    schema = pl.Schema({"a": pl.String, "b": pl.Int64})
    for size in (1 << 18, 8):
        monkeypatch.setattr(chunk_scan, "SCAN_BYTES", size)
        with pytest.raises(Malformed, match="soon") as caught:
            decode(content, "csv", schema=schema, skip_rows=1, comment_prefix="#")
        assert caught.value.line == 8


def test_a_chunk_that_begins_with_a_short_record_is_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_scan, "SCAN_BYTES", 8)
    content = b"a,b\n1,2\n3,4\n5\n\n6,7\n8,soon\n"
    with pytest.raises(Malformed, match="soon") as caught:
        decode(content, "csv", schema=pl.Schema({"a": pl.Int64, "b": pl.Int64}))
    assert caught.value.line == 7


# -- failures -----------------------------------------------------------------------------------------


NUMBERED: dict[str, tuple[str, bytes, list[tuple[int, int | None]]]] = {
    "csv": ("csv", b'\nid,name\n1,"x\ny"\n\nbad,2\n5,z\nbad', [(1, 5), (2, 6), (4, 8)]),
    "ndjson": ("ndjson", b'\n{"id":1}\n\n{"id":"x"}\n \n{"id":2}\r\n[]', [(1, 4), (3, 7)]),
    "json": ("json", b'\n[{"id":1},\n\n{"name":\n"v",\n"id":"x"}, {"id":[]},\n{}\n]', [(1, 4), (2, 6), (3, 7)]),
    "columns": ("json", b'{"id":\n[1,"x"]}', [(1, None)]),
    "mark": ("ndjson", b'\xef\xbb\xbf{"id":1}\n{}', [(1, 2)]),
}


@pytest.mark.parametrize(("format", "content", "expected"), NUMBERED.values(), ids=NUMBERED.keys())
def test_failures_have_the_row_and_the_line(
    format: Any, content: bytes, expected: list[tuple[int, int | None]]
) -> None:
    with pytest.raises(FrameInvalid) as caught:
        decode(content, format, model=User)
    failures = caught.value.failures
    assert failures.columns == ["row", "line", "column", "value", "rule", "message"]
    assert failures.schema["line"] == pl.UInt32
    assert failures.select("row", "line").rows() == expected
    row, line = expected[0]
    assert (f"row {row}" if line is None else f"row {row} (line {line})") in str(caught.value)


def test_the_line_of_a_row_after_many() -> None:
    content = b"id\n" + b"1\n" * 70_000 + b"x\n"
    with pytest.raises(FrameInvalid) as caught:
        decode(content, "csv", model=User)
    assert caught.value.failures.select("row", "line").rows() == [(70_000, 70_002)]


@pytest.mark.parametrize("format", ["csv", "arrow", "parquet"])
def test_a_missing_column_is_one_failure(format: Any) -> None:
    file = io.BytesIO()
    df = pl.DataFrame({"name": ["x"] * 20_000, "x": 1})
    {"csv": df.write_csv, "arrow": df.write_ipc_stream, "parquet": df.write_parquet}[format](file)

    class Checked(User):
        other: int

        @model_validator(mode="after")
        def check(self) -> Checked:
            return self

    with pytest.raises(FrameInvalid, match=r"2 failures in 20000 of 20000 rows") as caught:
        decode(file.getvalue(), format, model=Checked)
    assert caught.value.failures.drop("message", "value").rows() == [
        (None, None, "id", "missing"),
        (None, None, "other", "missing"),
    ]

    class Filled(User):
        @model_validator(mode="before")
        @classmethod
        def fill(cls, row: dict[str, Any]) -> dict[str, Any]:
            return {"id": 1, **row}

    assert decode(file.getvalue(), format, model=Filled)["id"].sum() == 20_000


def test_a_column_that_is_forbidden_is_one_failure() -> None:
    class Strict(BaseModel, extra="forbid"):
        id: int

    with pytest.raises(FrameInvalid) as caught:
        decode(b"id,x\n1,2\n3,4\n", "csv", model=Strict)
    assert caught.value.failures.select("row", "column", "rule").rows() == [(None, "x", "extra_forbidden")]
