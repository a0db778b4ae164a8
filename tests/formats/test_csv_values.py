"""Scans, decoders and readers of URLs return exactly the values in a CSV file, or reject it."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AliasChoices, BaseModel, Field

import greendata
from greendata.errors import FrameInvalid, UnreadableFile
from greendata.formats.decoders import decode
from greendata.typed.frame import Frame
from tests.support.rawservers import answer, serving


class Row(BaseModel):
    number: int | None = None
    size: float | None = None
    price: Decimal | None = None
    code: str | None = Field(default=None, validation_alias=AliasChoices("code", "zip"))


def scanned(path: Path, text: str, **options: Any) -> list[tuple[Any, ...]]:
    path.write_text(text, encoding="utf-8")
    return Frame[Row].scan_csv(path, **options).to_frame().select("number", "size", "price", "code").rows()


@pytest.mark.parametrize("text", ["1e400", "-1e400", "9" * 400, " 1e999"])
def test_numbers_too_large_for_a_float_are_rejected(tmp_path: Path, text: str) -> None:
    with pytest.raises(UnreadableFile, match="would be infinite"):
        scanned(tmp_path / "a.csv", f"size\n1.5\n{text}\n")
    frame = Frame[Row].scan_csv(tmp_path / "a.csv").filter(pl.col("size") > 0)
    with pytest.raises(UnreadableFile, match="would be infinite"):
        frame.collect()


def test_floats_are_read_as_before(tmp_path: Path) -> None:
    text = 'size\n1.5\n-inf\nNaN\n""\n 2\n+3\n1e5\n"0.25"\n.5\n1e-400\n'
    sizes = [row[1] for row in scanned(tmp_path / "a.csv", text)]
    assert str(sizes) == "[1.5, -inf, nan, None, 2.0, 3.0, 100000.0, 0.25, 0.5, 0.0]"
    with pytest.raises(UnreadableFile, match="conversion"):
        scanned(tmp_path / "a.csv", "size\nmuch\n")


@pytest.mark.parametrize(
    ("header", "name"),
    [("number,size,size", "'size'"), ("size,x,x", "'x'"), ("size,,", "''"), ('size,"a,b","a,b"', "'a,b'")],
)
def test_a_name_for_two_columns_is_rejected(tmp_path: Path, header: str, name: str) -> None:
    with pytest.raises(UnreadableFile, match=f"the name {name} stands for more than one column"):
        scanned(tmp_path / "a.csv", f"{header}\n1,2,3\n")
    with pytest.raises(UnreadableFile, match="stands for more than one column"):
        scanned(tmp_path / "a.csv", f"# first\n{header}\n1,2,3\n", skip_rows=1)


def test_a_name_that_looks_like_a_duplicate_is_accepted(tmp_path: Path) -> None:
    assert scanned(tmp_path / "a.csv", "size,size_duplicated_0\n1,2\n") == [(None, 1.0, None, None)]


def test_a_decimal_comma(tmp_path: Path) -> None:
    options: dict[str, Any] = {"separator": ";", "decimal_comma": True}
    text = "number;size;price\n1;1,5;2,25\n2;;-0,5\n"
    assert scanned(tmp_path / "a.csv", text, **options) == [
        (1, 1.5, Decimal("2.25"), None),
        (2, None, Decimal("-0.5"), None),
    ]
    with pytest.raises(UnreadableFile, match="conversion"):
        scanned(tmp_path / "a.csv", "size\n1.234\n", **options)
    with pytest.raises(FrameInvalid, match=r"price: decimal_parsing"):
        scanned(tmp_path / "a.csv", "price\n1.234,5\n", **options)


def test_a_column_with_an_alias_is_text_as_well(tmp_path: Path) -> None:
    assert scanned(tmp_path / "a.csv", "zip\n00501\n") == [(None, None, None, "00501")]


def test_the_types_of_the_model_hold_with_options_too() -> None:
    digits = "0.12345678901234567"
    with serving({"/a.csv": answer(f"zip;price\n00501;{digits}\n".encode(), "text/csv")}) as server:
        url = server.url + "/a.csv"
        df = greendata.read_csv_url(url, separator=";", model=Row, allow_private=["127.0.0.0/8"]).get()
    assert df.select("code", "price").rows() == [("00501", Decimal(digits))]


@pytest.mark.parametrize(
    ("cells", "dtype", "values"),
    [
        (["9007199254740993", "1.5"], pl.Decimal(38, 1), [Decimal("9007199254740993.0"), Decimal("1.5")]),
        (["99999999999999999999", "1.25"], pl.Decimal(38, 2), [Decimal("99999999999999999999.00"), Decimal("1.25")]),
        (["9007199254740992", "1.5"], pl.Float64(), [2.0**53, 1.5]),
        (["1e400", "1"], pl.String(), ["1e400", "1"]),
        (["9007199254740993", "inf"], pl.String(), ["9007199254740993", "inf"]),
        (["1e300", "-inf", "NaN"], pl.Float64(), [1e300, float("-inf"), float("nan")]),
    ],
)
def test_inferred_types_hold_the_numbers_exactly(cells: list[str], dtype: pl.DataType, values: list[Any]) -> None:
    for name in ("a", "^a$"):
        series = decode("\n".join([name, *cells]).encode(), "csv")[name]
        assert series.dtype == dtype
        assert series.equals(pl.Series(name, values, dtype=dtype))


@given(
    st.lists(st.integers(-(10**20), 10**20).map(str) | st.sampled_from(["1.5", "-0.25", "1e3", "1e400"]), min_size=1)
)
@settings(max_examples=100)
def test_integers_keep_their_digits_beside_other_values(cells: list[str]) -> None:
    values = decode("\n".join(["a", *cells]).encode(), "csv")["a"].to_list()
    assert [Decimal(str(value)) if isinstance(value, str) else Decimal(value) for value in values] == [
        *map(Decimal, cells)
    ]
