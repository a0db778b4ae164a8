"""Hints about columns that a frame has under another name, in the errors that users read."""

from __future__ import annotations

import pickle
from typing import Any

import polars as pl
import pytest
from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

import greendata
from greendata import Frame
from greendata.errors import FrameInvalid, ModelMismatch, NotAModel
from greendata.schema.fields import columns_of
from greendata.schema.similar_names import hints_for

pytestmark = pytest.mark.once("patched")  # tests values only, which do not depend on patching


class User(BaseModel):
    user_id: int
    name: str = "?"


class Closed(User):
    model_config = ConfigDict(extra="forbid")


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)
    user_id: int
    full_name: str


class Choices(BaseModel):
    x: int = Field(validation_alias=AliasChoices("amount", "total"))


FOUND: list[tuple[type[BaseModel], dict[str, Any], list[str]]] = [
    (User, {"userid": 1}, ["'userid' may be 'user_id': rename the column"]),
    (User, {"User ID": 1}, ["'User ID' may be 'user_id': rename the column"]),
    (User, {"age": 1}, []),
    (Closed, {"user_id": 1, "nmae": "a"}, ["'nmae' may be 'name': rename the column"]),
    (Choices, {"amuont": 1}, ["'amuont' may be 'amount': rename the column"]),
    (
        Camel,
        {"user_id": 1, "fullname": "a"},
        [
            "'user_id' is a field, whose column is 'userId': rename the column, or set validate_by_name=True",
            "'fullname' may be 'fullName': rename the column",
        ],
    ),
]


@pytest.mark.parametrize(("model", "row", "hints"), FOUND)
def test_errors_say_which_column_may_be_meant(model: type[BaseModel], row: dict[str, Any], hints: list[str]) -> None:
    df = pl.DataFrame([row])
    for frame in (df, df.lazy()):
        with pytest.raises(FrameInvalid) as caught:
            greendata.validate(frame, model)
        assert str(caught.value).splitlines()[-len(hints) or len(str(caught.value)) :] == [
            f"  {hint}" for hint in hints
        ]
        assert pickle.loads(pickle.dumps(caught.value)).hints == tuple(hints)
    if model is not Closed:
        with pytest.raises(ModelMismatch) as mismatch:
            Frame[model].from_frame(df)  # type: ignore[valid-type]
        assert str(mismatch.value).endswith("; ".join(hints) or "rename(), select() or cast() first")
    with pytest.raises(FrameInvalid) as decoded:
        greendata.decode(b"".join(greendata.encode(df, "csv")), "csv", model=model)
    assert decoded.value.hints == tuple(hints)


def test_a_missing_value_has_no_text() -> None:
    with pytest.raises(FrameInvalid, match=r"user_id: missing in row 0: Field required"):
        greendata.validate(pl.DataFrame({"name": ["a"]}), User)
    with pytest.raises(FrameInvalid, match="more: extra_forbidden in row 0: Extra inputs are not permitted"):
        greendata.validate(pl.DataFrame({"user_id": [1], "more": [1]}), Closed)


def test_hints_are_few_and_cheap() -> None:
    names = [f"user{number}" for number in range(10_000)]
    assert len(hints_for(columns_of(User), names)) <= 1
    long = "user_id" * 10_000
    assert hints_for(columns_of(User), [long]) == ()


def test_an_instance_and_a_root_model_are_not_models() -> None:
    with pytest.raises(NotAModel, match="pass its class"):
        greendata.schema_of(User(user_id=1))  # type: ignore[arg-type]
