"""Rows to objects: the results of pydantic and Polars, made in slices between which the hub runs."""

from __future__ import annotations

import gc
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

import gevent
import polars as pl
import pytest
from hypothesis import given
from polars.testing.parametric import dataframes
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    create_model,
    model_validator,
)

from greendata.errors import NotAFrame
from greendata.hub import pacing
from greendata.pool import pool
from greendata.query import objects
from greendata.query.objects import to_columns, to_dicts, to_models

MANY = 1000  # rows; the first slice has 64


class Address(BaseModel):
    street: str
    number: int


class User(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    id: Annotated[int, Field(ge=0)]
    name: str = Field(alias="fullName")
    born: datetime | None = None
    tags: list[str] = []
    home: Address | None = None


def users(count: int = MANY) -> pl.DataFrame:
    return pl.DataFrame({"id": range(count)}).with_columns(
        fullName=pl.format("user {}", "id"),
        born=pl.lit(datetime(2000, 1, 1)),
        tags=pl.concat_list(pl.col("id").cast(pl.String)),
        home=pl.struct(street=pl.lit("Elm"), number=pl.col("id")),
    )


def naive(df: pl.DataFrame, model: type[BaseModel]) -> list[Any]:
    return TypeAdapter(list[model]).validate_python(df.to_dicts())  # type: ignore[valid-type]


@given(dataframes(max_size=8, excluded_dtypes=[pl.Object]))
def test_objects_equal_those_of_polars(df: pl.DataFrame) -> None:
    assert repr(to_dicts(df)) == repr(df.to_dicts())
    assert repr(to_columns(df)) == repr(df.to_dict(as_series=False))


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, MANY])
def test_objects_equal_those_of_pydantic(count: int) -> None:
    df = users(count)
    assert to_models(df, User) == naive(df, User)
    assert to_dicts(df) == df.to_dicts()


def test_frames_without_columns_or_rows() -> None:
    assert to_dicts(pl.DataFrame(height=3)) == pl.DataFrame(height=3).to_dicts()
    assert to_columns(pl.DataFrame()) == {}
    assert to_columns(pl.DataFrame({"a": []})) == {"a": []}


def error_of(provoke: Callable[[], object]) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        provoke()
    return caught.value


def refuse_odd(value: int) -> int:
    if value % 2:
        raise ValueError("odd")
    return value


class Strict(BaseModel):
    id: Annotated[int, Field(le=900), AfterValidator(refuse_odd)]
    name: str

    @model_validator(mode="after")
    def named(self) -> Strict:
        if not self.name:
            raise ValueError("no name")
        return self


def test_refused_rows_have_their_index_in_the_frame() -> None:
    df = pl.DataFrame({"id": [0] * MANY, "name": ["x"] * MANY})
    df[0, "name"] = None
    df[0, "id"] = 901
    ours, theirs = error_of(lambda: to_models(df, Strict)), error_of(lambda: naive(df, Strict))
    assert str(ours) == str(theirs)
    assert ours.errors() == theirs.errors()
    late = df.with_row_index("row").select(id=pl.when(pl.col("row") == 990).then(3).otherwise(0), name="name")[1:]
    ours, theirs = error_of(lambda: to_models(late, Strict)), error_of(lambda: naive(late, Strict))
    assert ours.title == theirs.title
    assert [str(error) for error in ours.errors()] == [str(error) for error in theirs.errors()]
    assert ours.errors()[0]["loc"] == (989, "id")
    assert isinstance(ours.__cause__, ValidationError)


def test_other_errors_pass_and_the_collector_is_left_on() -> None:
    def fail(value: int) -> int:
        raise ZeroDivisionError(value)

    with pytest.raises(ZeroDivisionError):
        to_models(users(), create_model("Broken", id=(Annotated[int, AfterValidator(fail)], ...)))
    assert gc.isenabled()


def test_no_collection_runs_while_models_are_made() -> None:
    seen: list[bool] = []
    found = gc.get_threshold()

    def watch(value: int) -> int:
        seen.append(gc.get_threshold() == found)
        return value

    Watching = create_model("Watching", id=(Annotated[int, AfterValidator(watch)], ...))  # noqa: N806
    to_models(users(), Watching)
    assert seen == [False] * MANY
    assert gc.get_threshold() == found


def test_greenlets_and_timers_run_between_slices() -> None:
    fired: list[int] = []
    timer = gevent.get_hub().loop.timer(0.0)
    timer.start(lambda: fired.append(1))
    try:
        to_dicts(users())
    finally:
        timer.close()
    assert fired == [1]


def test_slices_have_few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    df = pl.DataFrame({"a": ["x"] * 90 + ["y" * 1_000] * 20, "b": [[1]] * 90 + [[1] * 99] * 20})
    model = create_model("Model", a=(str, ...), b=(list[int], ...))
    slices: list[pl.DataFrame] = []

    def noted(frame: pl.DataFrame, start: int, length: int) -> list[dict[str, Any]]:
        slices.append(frame.slice(start, length))
        return slices[-1].to_dicts()

    monkeypatch.setattr(objects, "_dicts", noted)
    monkeypatch.setattr(objects, "SLICE_BYTES", 3_000)
    assert to_dicts(df) == df.to_dicts()
    assert [one.model_dump() for one in to_models(df, model)] == df.to_dicts()
    assert pl.concat(slices).equals(pl.concat([df, df]))
    assert all(some.height == 1 or some.estimated_size() <= 3_000 for some in slices)
    assert to_columns(df) == df.to_dict(as_series=False)


def test_the_hub_runs_between_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "BUDGET", -1.0)  # it is over at once
    ran: list[int] = []
    other = gevent.spawn(ran.append, 1)
    assert to_columns(pl.DataFrame({"a": [1], "b": [2], "c": [3]})) == {"a": [1], "b": [2], "c": [3]}
    assert ran
    other.join()


def test_it_works_in_a_worker_too() -> None:
    assert pool.submit(to_dicts, users(100)).get() == users(100).to_dicts()


def test_bad_arguments() -> None:
    for convert in (to_dicts, to_columns):
        with pytest.raises(NotAFrame, match=r"expected a polars\.DataFrame, got LazyFrame"):
            convert(users().lazy())  # type: ignore[operator]
    with pytest.raises(NotAFrame):
        to_models([{"id": 1}], User)  # type: ignore[arg-type]
