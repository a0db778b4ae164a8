"""Text that is made in slices is exactly the text that Polars writes at once."""

from __future__ import annotations

import gzip
import io
import sys
from collections.abc import Callable, Iterator
from typing import Any, Literal

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.exceptions import PolarsError
from polars.testing.parametric import dataframes

import greendata
from greendata.query import chunked_text
from greendata.query.chunked_text import json_text, ndjson_text, text_of
from greendata.query.verbs import writes

pytestmark = pytest.mark.once("unpatched")  # values only; no greenlets

SHORT = 3  # rows of a slice in these tests, so that small frames have several slices

# What JSON cannot hold; Polars refuses them in one piece as well.
NO_JSON = (pl.Object, pl.Binary)

FRAMES = {
    "no columns": pl.DataFrame(),
    "rows without columns": pl.DataFrame(height=5),
    "no rows": pl.DataFrame(schema={"a": pl.Int64, "b": pl.String}),
    "one row": pl.DataFrame({"a": [1]}),
    "a slice": pl.DataFrame({"a": range(SHORT)}),
    "a slice and one row": pl.DataFrame({"a": range(SHORT + 1)}),
    "two slices": pl.DataFrame({"a": range(2 * SHORT)}),
    "one row less than two": pl.DataFrame({"a": range(2 * SHORT - 1)}),
    "nulls": pl.DataFrame({"a": [None] * 7, "b": [1, None, 2, None, None, None, 3]}),
    "nested": pl.DataFrame({"a": [{"x": [1, None], "y": None}, None, {"x": [], "y": "z"}] * 3}),
    "brackets in text": pl.DataFrame({"]": ["[", "]", '"],["', "\n", "\\", ",", "}{", "\u2028"]}),
    "floats": pl.DataFrame({"a": [0.1, float("nan"), float("inf"), -0.0, 1e300, None, 1e-7]}),
    "chunks": pl.concat([pl.DataFrame({"a": [1, 2]}), pl.DataFrame({"a": [3, 4, 5, 6]})], rechunk=False),
    "part of a frame": pl.DataFrame({"a": range(20)}).slice(5, 8),
    "categories": pl.DataFrame({"a": ["x", "y"] * 4}, schema={"a": pl.Categorical}),
}


@pytest.fixture(scope="module", autouse=True)
def _short_slices() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked_text, "JSON_ROWS", SHORT)
        yield


def test_slices_are_short_here() -> None:
    assert [
        piece.height for piece in chunked_text.slices(FRAMES["two slices"], 1 << 18, rows=chunked_text.JSON_ROWS)
    ] == [
        SHORT,
        SHORT,
    ]


@pytest.mark.parametrize("df", FRAMES.values(), ids=FRAMES.keys())
def test_frames_at_the_edges(df: pl.DataFrame) -> None:
    assert ndjson_text(df) == df.write_ndjson()
    assert json_text(df) == df.write_json()


@given(df=dataframes(max_size=10, allow_null=True, excluded_dtypes=NO_JSON))
def test_frames_of_every_type(df: pl.DataFrame) -> None:
    for ours, own in ((ndjson_text, df.write_ndjson), (json_text, df.write_json)):
        assert _outcome(lambda: ours(df)) == _outcome(own)  # noqa: B023 - called at once


@pytest.mark.parametrize("df", FRAMES.values(), ids=FRAMES.keys())
def test_the_verbs_write_the_same(df: pl.DataFrame) -> None:
    assert greendata.write_ndjson(df).get() == df.write_ndjson()
    assert greendata.write_json(df).get() == df.write_json()
    text = io.StringIO()
    greendata.write_json(df, text).get()
    assert text.getvalue() == df.write_json()


@pytest.fixture
def _short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked_text, "COPIED_BYTES", 10)  # a longer text is cut
    monkeypatch.setattr(chunked_text, "SLICE_BYTES", 3)  # into pieces that end within names and characters


@pytest.mark.usefixtures("_short_pieces")
@pytest.mark.parametrize("df", FRAMES.values(), ids=FRAMES.keys())
def test_text_that_is_cut_into_pieces(df: pl.DataFrame) -> None:
    assert ndjson_text(df) == df.write_ndjson()
    assert json_text(df) == df.write_json()
    assert all(len(piece) <= 10 for piece in chunked_text.ndjson_lines(df) if df.width)


@pytest.mark.usefixtures("_short_pieces")
@pytest.mark.parametrize("letter", ["x", "\xe9", "\u20ac", "\U0001f600"])
def test_characters_that_end_in_the_next_piece(letter: str) -> None:
    df = pl.DataFrame({"a": ["x" * 50 + letter * 50, letter * 7 + "x" * 40, letter]})
    assert ndjson_text(df) == df.write_ndjson()
    assert json_text(df) == df.write_json()


@pytest.mark.usefixtures("_short_pieces")
@pytest.mark.parametrize("format", ["ndjson", "json", "csv"])
def test_bodies_of_short_pieces(format: Literal["ndjson", "json", "csv"]) -> None:
    frames = [pl.DataFrame({"a": ["x" * 40, "\xe9", "\u20ac" * 20], "b": [1, 2, 3]}) for _ in range(3)]
    body = b"".join(greendata.encode(frames, format))
    whole = pl.concat(frames)
    assert body.decode() == {"ndjson": whole.write_ndjson, "json": whole.write_json, "csv": whole.write_csv}[format]()


@given(text=st.text(st.characters(exclude_categories=()), max_size=40), length=st.integers(1, 9))
def test_text_of_pieces_that_end_anywhere(text: str, length: int) -> None:
    content = text.encode("utf-8", "surrogatepass")
    pieces = [content[begin : begin + length] for begin in range(0, len(content), length)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked_text, "SLICE_BYTES", 1)  # a longer text is copied piece by piece
        found = text_of(iter(pieces), errors="surrogatepass")
    assert found == text
    assert hash(found) == hash(text)
    assert sys.getsizeof(found + "xy") == sys.getsizeof(text + "xy")  # its characters are as wide as need be


def test_text_that_ends_within_a_character() -> None:
    with pytest.raises(UnicodeDecodeError):
        text_of([b"x", "\u20ac".encode()[:2]])


LARGE = "x" * 2_000
SKEWED = {  # the first rows are far larger than the average
    "strings": pl.Series([LARGE] * 9 + ["y"] * 3_000),
    "binary": pl.Series([LARGE.encode()] * 9 + [b"y"] * 3_000),
    "lists": pl.Series([[1] * 250] * 9 + [[1]] * 3_000),
    "lists of strings": pl.Series([["x" * 20] * 100] * 9 + [["y"]] * 3_000),
    "lists of lists": pl.Series([[[1] * 125] * 2] * 9 + [[[1]]] * 3_000),
    "lists of structs": pl.Series([[{"a": "x" * 20, "b": True}] * 100] * 9 + [[{"a": "y", "b": None}]] * 3_000),
    "arrays": pl.Series([[LARGE, "x"]] * 9 + [["y", None]] * 3_000, dtype=pl.Array(pl.String, 2)),
    "arrays of lists": pl.Series([[[1] * 250, []]] * 9 + [[[1], None]] * 3_000, dtype=pl.Array(pl.List(pl.Int64), 2)),
    "structs": pl.Series([{"a": LARGE, "b": [1]}] * 9 + [{"a": "y", "b": []}] * 3_000),
    "structs of lists": pl.Series([{"a": [LARGE]}] * 9 + [{"a": ["y"]}] * 3_000),
    "maps": pl.Series([{"a": LARGE}] * 9 + [{"a": "y"}] * 3_000, dtype=pl.Map(pl.String, pl.String)),
    "large rows at the end": pl.Series(["y"] * 3_000 + [LARGE] * 9),
    "one large row": pl.Series(["y"] * 1_500 + [LARGE * 9] + ["y"] * 1_500),
    "nulls": pl.Series([LARGE] * 9 + [None] * 3_000),
    "numbers": pl.Series(range(3_000)),
}
CHUNKED = {
    "chunks": pl.concat([SKEWED["lists of structs"], SKEWED["lists of structs"].reverse()], rechunk=False),
    "a slice of a slice": SKEWED["lists of strings"].slice(2, 2_000).slice(1, 1_500),
}


@pytest.mark.parametrize("values", (SKEWED | CHUNKED).values(), ids=(SKEWED | CHUNKED).keys())
@pytest.mark.parametrize("rows", [100, 5_000])
def test_slices_have_few_bytes_whatever_the_average(values: pl.Series, rows: int) -> None:
    df = pl.DataFrame({"a": values, "b": range(len(values))})
    parts = list(chunked_text.slices(df, 3_000, rows=rows))
    assert pl.concat(parts).equals(df)
    for part in parts:
        assert 1 <= part.height <= rows
        alone = pl.read_ipc_stream(part.write_ipc_stream(None).getvalue())  # without the buffers that slices share
        assert part.height == 1 or alone.estimated_size() <= 6_000
    assert len(parts) <= 3 * (df.estimated_size() / 3_000 + df.height / rows + 1)  # other rows are not in slices of one


CSV = {  # options that act on the first line, on all lines, and on values
    "none": {},
    "no header": {"include_header": False},
    "mark": {"include_bom": True},
    "mark without a header": {"include_bom": True, "include_header": False},
    "characters": {"separator": ";", "line_terminator": "\r\n", "quote_char": "'", "null_value": "NA"},
    "quotes": {"quote_style": "always", "batch_size": 2},
    "numbers": {"float_scientific": True, "float_precision": 3, "decimal_comma": True, "separator": ";"},
}


@pytest.fixture
def _short_csv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writes, "SLICE_BYTES", 0)
    monkeypatch.setattr(writes, "CSV_BYTES", 20)


@pytest.mark.usefixtures("_short_csv")
@pytest.mark.parametrize("options", CSV.values(), ids=CSV.keys())
@pytest.mark.parametrize("df", FRAMES.values(), ids=FRAMES.keys())
def test_csv_that_is_written_in_slices(df: pl.DataFrame, options: dict[str, Any]) -> None:
    ours, own = io.BytesIO(b"before"), io.BytesIO(b"before")
    for file in (ours, own):
        file.seek(0, io.SEEK_END)
    assert _outcome(lambda: greendata.write_csv(df, **options).get()) == _outcome(lambda: df.write_csv(**options))
    assert _outcome(lambda: greendata.write_csv(df, ours, **options).get()) == _outcome(
        lambda: df.write_csv(own, **options)  # type: ignore[arg-type,return-value]
    )
    assert ours.getvalue() == own.getvalue()


@pytest.mark.usefixtures("_short_csv")
@given(df=dataframes(max_size=10, allow_null=True, excluded_dtypes=[pl.Object]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_csv_of_every_type(df: pl.DataFrame) -> None:
    assert _outcome(lambda: greendata.write_csv(df).get()) == _outcome(df.write_csv)


def test_compressed_csv_is_one_stream() -> None:
    df, file = pl.DataFrame({"a": ["x" * 1_000] * 10_000}), io.BytesIO()
    greendata.write_csv(df, file, compression="gzip", check_extension=False).get()
    assert gzip.decompress(file.getvalue()).decode() == df.write_csv()
    with pytest.raises(UnicodeDecodeError):
        greendata.write_csv(df, compression="gzip").get()


@pytest.mark.parametrize("df", FRAMES.values(), ids=FRAMES.keys())
def test_files_in_memory_get_the_same(df: pl.DataFrame) -> None:
    for verb, name in ((greendata.write_ndjson, "write_ndjson"), (greendata.write_json, "write_json")):
        ours, own = io.BytesIO(b"before"), io.BytesIO(b"before")
        ours.seek(3)
        own.seek(3)
        assert verb(df, ours).get() is None
        getattr(df, name)(own)
        assert ours.getvalue() == own.getvalue()
        assert ours.tell() == own.tell()


def test_a_frame_of_many_slices_of_the_real_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(chunked_text, "JSON_ROWS", 5_000)
    df = pl.DataFrame({"a": range(12_345), "b": [str(number) for number in range(12_345)]})
    assert ndjson_text(df) == df.write_ndjson()
    assert json_text(df) == df.write_json()


def _outcome(write: Callable[[], str]) -> str | type[PolarsError]:
    """Return the text, or the type of the error if Polars has no JSON for a data type."""
    try:
        return write()
    except PolarsError as error:
        return type(error)
