"""How much is checked: pydantic's strict mode, the levels of trust, and models with their own validate method."""

from __future__ import annotations

from typing import Annotated, Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from pydantic import BaseModel, ConfigDict, Field, computed_field

import greendata
from greendata.errors import FrameInvalid
from tests.support.frames import crowded


class User(BaseModel):
    id: Annotated[int, Field(ge=0)]
    name: Annotated[str, Field(min_length=1)]
    country: str = "FR"


def test_strict_mode_is_the_callers_or_the_models() -> None:
    class Strict(BaseModel):
        model_config = ConfigDict(strict=True)
        a: int

    texts = pl.DataFrame({"id": ["1"], "name": ["a"], "a": ["1"]})
    assert greendata.validate(texts, User).height == 1
    assert greendata.filter_valid(texts, User, strict=True).failures["rule"].to_list() == ["int_type"]
    assert greendata.filter_valid(texts, Strict).failures["rule"].to_list() == ["int_type"]
    assert greendata.validate(texts, Strict, strict=False)["a"].to_list() == [1]


def test_trust_in_the_shape() -> None:
    df = pl.DataFrame({"name": ["", ""], "more": [1, 2], "id": ["x", "-1"]})
    valid = greendata.validate(df, User, trust="shape_only")
    assert valid.to_dict(as_series=False) == {"id": ["x", "-1"], "name": ["", ""], "country": ["FR", "FR"]}
    with pytest.raises(FrameInvalid) as caught:
        greendata.validate(df.drop("id"), User, trust="shape_only")
    assert str(caught.value) == (
        "1 failure in 2 of 2 rows of User; see .failures\n  id: missing in the column: Field required"
    )


def test_trust_in_the_dtypes() -> None:
    df = pl.DataFrame({"id": [1, -2], "name": ["", "b"]})
    assert greendata.validate(df, User, trust="strict").rows() == [(1, "", "FR"), (-2, "b", "FR")]
    narrow = df.with_columns(pl.col("id").cast(pl.Int32))
    good, failures = greendata.filter_valid(narrow, User, trust="strict")
    assert failures.rows() == [(None, "id", "Int32", "dtype", "Column should be Int64")]
    assert not good.height
    assert greendata.validate(narrow, User, trust="shape_only").height == 2


@pytest.mark.parametrize("trust", ["shape_only", "strict"])
def test_trust_does_not_cover_nulls(trust: Any) -> None:
    df = pl.DataFrame({"id": [1, None, 3], "name": ["a", "b", "c"]})
    good, failures = greendata.filter_valid(df, User, trust=trust)
    assert good["id"].to_list() == [1, 3]
    assert failures.rows() == [(1, "id", None, "null", "Column should have no nulls")]


def test_trust_and_other_columns() -> None:
    class Forbid(BaseModel, extra="forbid"):
        a: int

    class Allow(BaseModel, extra="allow"):
        a: int

    df = pl.DataFrame({"more": [2], "a": [1]})
    assert greendata.filter_valid(df, Forbid, trust="strict").failures["rule"].to_list() == ["extra_forbidden"]
    assert greendata.validate(df, Allow, trust="strict").to_dict(as_series=False) == {"a": [1], "more": [2]}


def test_trusted_frames_get_no_computed_or_made_values() -> None:
    class Made(BaseModel):
        a: int
        stamp: float = Field(default_factory=lambda: 1.0)

        @computed_field  # type: ignore[prop-decorator]
        @property
        def twice(self) -> int:
            return self.a * 2

    df = pl.DataFrame({"a": [1]})
    messages = greendata.filter_valid(df, Made, trust="strict").failures["message"].to_list()
    assert [message.split(": ")[1].split(",")[0] for message in messages] == [
        "its default is made row by row",
        "it is computed row by row",
    ]
    valid = greendata.validate(df, Made)
    assert_frame_equal(greendata.validate(valid, Made, trust="strict"), valid)


class Own:
    """A model with a validate method, as in patito, dataframely and pandera."""

    @classmethod
    def validate(cls, df: pl.DataFrame) -> pl.DataFrame:
        if df["a"].min() < 0:  # type: ignore[operator]
            raise ArithmeticError("below zero")
        return df.with_columns(b=1)


def test_a_model_with_its_own_validate_runs_in_the_pool() -> None:
    df = pl.DataFrame({"a": [1]})
    with crowded():
        assert greendata.validate(df.lazy(), Own)["b"].to_list() == [1]
    with pytest.raises(ArithmeticError):
        greendata.validate(pl.DataFrame({"a": [-1]}), Own)


def test_a_pydantic_model_may_have_its_own_validate() -> None:
    class Quiet(BaseModel):
        a: int

        @classmethod
        def validate(cls, df: pl.DataFrame) -> None:  # type: ignore[override]
            assert df.height

    df = pl.DataFrame({"a": ["x"]})
    assert greendata.validate(df, Quiet) is df
