"""Types of typed frames for mypy, which tests/typed/test_typed.py runs on this file. It is never executed."""

from __future__ import annotations

from typing import Any, assert_type

import polars as pl
from pydantic import BaseModel

from greendata import Frame, Result


class User(BaseModel):
    name: str


class Name(BaseModel):
    name: str


def check(df: pl.DataFrame) -> None:
    users = Frame[User].scan_parquet("users.parquet")
    assert_type(users.collect(), list[User])
    assert_type(users.submit(), Result[list[User]])
    assert_type(users.filter(pl.col("name") == "Ann").sort("name").head(1).collect(), list[User])
    assert_type(users.with_columns(size=1).collect(), list[User])
    assert_type(Frame[User].from_frame(df).to_frame(), pl.DataFrame)
    assert_type(Frame[User].from_rows([User(name="Ann")]).to_dict(), dict[str, list[Any]])
    with users.stream() as stream:
        assert_type(next(stream), pl.DataFrame)
        assert_type(next(stream.models()), list[User])
    assert_type(users.select("name").collect(), list[BaseModel])
    assert_type(users.select("name").as_model(Name).collect(), list[Name])
    assert_type(users.group_by("name").agg(n=pl.len()), Frame[BaseModel])
