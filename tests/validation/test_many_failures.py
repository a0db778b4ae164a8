"""Thousands of failing rows: the number of listed failures is limited, and all valid rows are still found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator

import greendata
from greendata.errors import FrameInvalid, Malformed
from greendata.formats.decoders import decode
from greendata.schema.failures import LISTED
from greendata.validation import partitioner, row_validation, verbs
from tests.support.laws import COLUMNS, holds, model_with
from tests.validation.test_validation_laws import LEAVES, unseen

ROWS = 3 * LISTED


class User(BaseModel):
    id: Annotated[int, Field(ge=0)]
    name: str = "?"


class Even(BaseModel):
    id: int

    @field_validator("id")
    @classmethod
    def look(cls, value: int) -> int:
        validated.append(value)
        if value % 2:
            raise ValueError("odd")
        return value


validated: list[int] = []


@pytest.fixture(autouse=True)
def no_values_validated() -> None:
    validated.clear()


def test_each_invalid_row_has_a_line_and_the_first_have_all_their_failures() -> None:
    ids = [str(number) if number % 3 else f"x{number}" for number in range(3 * ROWS)]
    good, failures = greendata.filter_valid(pl.DataFrame({"id": ids}), User)
    assert good["id"].to_list() == [number for number in range(3 * ROWS) if number % 3]
    assert failures["row"].to_list() == [*range(0, 3 * ROWS, 3)]
    assert failures["column"].to_list() == ["id"] * ROWS
    assert failures["value"].to_list() == [f"x{number}" for number in range(0, 3 * ROWS, 3)]
    rules = failures["rule"].to_list()
    assert set(rules[:LISTED]) == {"int_parsing"}
    assert set(rules[2 * LISTED :]) == {"unlisted"}
    assert f"only the first {LISTED} failures are listed" in failures["message"][-1]


def test_validation_of_a_frame_stops_when_enough_rows_fail() -> None:
    df = pl.DataFrame({"id": [-1] * ROWS})
    with pytest.raises(FrameInvalid) as caught:
        greendata.validate(df, User)
    failures = caught.value.failures
    listed, last = failures[:-1], failures.row(-1, named=True)
    assert LISTED <= listed.height < 3 * LISTED
    assert set(listed["rule"]) == {"greater_than_equal"}
    left = ROWS - listed.height
    assert (last["row"], last["column"], last["value"], last["rule"]) == (listed.height, None, str(left), "unchecked")
    assert str(caught.value).startswith(
        f"{listed.height} failures in {listed.height} of {ROWS} rows of User, and {left} rows are not checked; see"
    )


def test_a_validator_is_called_for_all_rows_only_if_all_valid_rows_are_wanted() -> None:
    df = pl.DataFrame({"id": range(2 * ROWS)})
    with pytest.raises(FrameInvalid, match="rows are not checked"):
        greendata.validate(df, Even)
    assert LISTED < len(validated) < 5 * LISTED
    validated.clear()
    good, failures = greendata.filter_valid(df, Even)
    assert good["id"].to_list() == [*range(0, 2 * ROWS, 2)]
    assert failures["row"].to_list() == [*range(1, 2 * ROWS, 2)]
    assert validated == [*range(2 * ROWS)]


def test_a_missing_column_is_listed_once_per_row() -> None:
    df = pl.DataFrame({"name": ["a"] * ROWS})
    good, failures = greendata.filter_valid(df, User)
    assert not good.height
    assert failures["row"].to_list() == [*range(ROWS)]
    assert failures["rule"].to_list() == ["missing"] * LISTED + ["unlisted"] * (ROWS - LISTED)
    with pytest.raises(
        FrameInvalid, match=f"{LISTED} failures in {LISTED} of {ROWS} rows of User, and {ROWS - LISTED}"
    ):
        greendata.validate(df, User)


@pytest.mark.parametrize(
    ("format", "content"),
    [
        ("csv", b"id\n" + b"x\n" * ROWS),
        ("csv", b"id,name\n" + b",a\n" * ROWS),
        ("json", b"[" + b'{"id":-1},' * ROWS + b"{}]"),
        ("json", b"[" + b"1," * ROWS + b"1]"),
        ("ndjson", b'{"id":"x"}\n' * ROWS),
    ],
)
def test_bodies_in_which_every_row_fails(format: Any, content: bytes) -> None:
    with pytest.raises(FrameInvalid) as caught:
        decode(content, format, model=User)
    assert LISTED <= caught.value.failures.height < 3 * LISTED
    assert caught.value.failures["rule"][-1] == "unchecked"


def test_reading_of_a_file_stops_when_enough_rows_fail(tmp_path: Path) -> None:
    path = tmp_path / "rows.ndjson"
    path.write_bytes(b"1\n" * ROWS)
    with pytest.raises(FrameInvalid, match="rows are not checked"):
        greendata.Frame[User].scan_ndjson(path).to_frame()


def test_rows_of_python_objects_have_a_line_each() -> None:
    with pytest.raises(FrameInvalid) as caught:
        greendata.Frame[User].from_rows({"id": -number} for number in range(ROWS))
    assert caught.value.failures["row"].to_list() == [*range(1, ROWS)]
    assert caught.value.failures["rule"].to_list() == ["greater_than_equal"] * LISTED + ["unlisted"] * (
        ROWS - 1 - LISTED
    )


WORDS = """
+7 007 -007 7.0 7. -0 1_0 + 1e3 1E-3 .5 -.5 +.5 1e400 inf -Infinity NaN 0x10 9007199254740993.0 7.00 TRUE Yes maybe
99999999999999999999 2024-13-01 2024-02-30 24:00:00 25:00 2024-01-02T25:00:00 P AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
6F9619FF-8B86-4D01-B42D-00CF4FC964FF {6f9619ff-8b86-4d01-b42d-00cf4fc964ff}
"""
ODD = st.sampled_from(["", " ", " 7", "7 ", "1 000", "\u00a07", "\x1f7", "\u0663", "\uff11", "\u017f", *WORDS.split()])


@pytest.mark.parametrize("kind", LEAVES)
@given(data=st.data(), strict=st.sampled_from((None, True, False)))
@settings(max_examples=25)
def test_odd_values_of_one_column(kind: str, data: st.DataObject, *, strict: bool | None) -> None:
    """Wider rules decide as pydantic does."""
    annotation = data.draw(st.sampled_from(LEAVES[kind]))
    texts = data.draw(st.lists(st.none() | ODD | st.text(max_size=6), min_size=1, max_size=8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partitioner, "MANY", 0)
        holds(pl.DataFrame({"a": texts}, {"a": pl.String}), model_with(annotation), strict=strict)


@pytest.mark.parametrize("kind", LEAVES)
@given(data=st.data(), strict=st.sampled_from((None, True, False)))
@settings(max_examples=25)
def test_the_limit_of_listed_failures_does_not_change_what_is_valid(
    kind: str, data: st.DataObject, *, strict: bool | None
) -> None:
    annotation = data.draw(st.sampled_from(LEAVES[kind]))
    texts = data.draw(st.lists(st.none() | ODD | st.text(max_size=6), min_size=1, max_size=8))
    one = pl.Series(texts, dtype=pl.String)
    other = unseen(data, COLUMNS[data.draw(st.sampled_from([*COLUMNS]))])
    other = other.extend_constant(None, max(0, one.len() - other.len())).head(one.len())
    df = pl.DataFrame({"a": one, "b": other.extend_constant(None, one.len() - other.len())})
    model = create_model("Model", a=(annotation, ...), b=(annotation | None, None))
    good, failures = greendata.filter_valid(df, model, strict=strict)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partitioner, "MANY", 0)
        patch.setattr(partitioner, "ENOUGH", 1)
        for module in (partitioner, verbs, row_validation):
            patch.setattr(module, "LISTED", 1)
        patch.setattr("greendata.hub.pacing._FIRST_LENGTH", 1)
        bounded = greendata.filter_valid(df, model, strict=strict)
        assert_frame_equal(bounded.good, good)
        assert bounded.failures["row"].unique().to_list() == failures["row"].unique().to_list()
        if failures.height:
            with pytest.raises(FrameInvalid):
                greendata.validate(df, model, strict=strict)
        else:
            assert_frame_equal(greendata.validate(df, model, strict=strict), good)


LONG = "k" * 100_000  # a name that each failure, and each row made from columns, would repeat


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int = 0


def test_a_very_long_name_is_shortened_in_the_failures() -> None:
    model = create_model("Named", k=(int, Field(alias=LONG)))
    for content, checked in ((f"{LONG}\n" + "x\n" * ROWS, model), (f"a,{LONG}\n" + "1,2\n" * ROWS, Closed)):
        with pytest.raises(FrameInvalid) as caught:
            decode(content.encode(), "csv", model=checked)
        names = caught.value.failures["column"].drop_nulls()
        assert names.unique().to_list() == [LONG[:997] + "..."]
        assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("model", [Closed, User])
def test_rows_that_would_consist_of_names_are_not_made(model: type[BaseModel]) -> None:
    content = f'{{"a":[{",".join("1" * 2000)}],"{LONG}":[{",".join("2" * 2000)}]}}'.encode()
    with pytest.raises(Malformed, match=r"its column names alone would take more than .* send rows"):
        decode(content, "json", model=model)
    columns = {f"a_name_of_a_column_of_a_frame_{number}": [1, "2", None] * 500 for number in range(20)}
    checked = create_model("Columns", **dict.fromkeys(columns, (int | None, ...)))
    assert decode(json.dumps(columns).encode(), "json", model=checked).shape == (1500, 20)
