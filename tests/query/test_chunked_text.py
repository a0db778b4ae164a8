"""Text that is made in slices is exactly the text that Polars writes at once."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import polars as pl
import pytest
from hypothesis import given
from polars.exceptions import PolarsError
from polars.testing.parametric import dataframes

import greendata
from greendata.query import chunked_text
from greendata.query.chunked_text import json_text, ndjson_text

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
