"""Rules accept common values without pydantic. test_validation_laws compares their decisions with pydantic's."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import polars as pl
import pytest
from pydantic import (
    UUID4,
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PastDate,
    create_model,
    field_validator,
)

import greendata
from greendata.schema.failures import ROW_KEY
from greendata.schema.fields import columns_of
from greendata.validation.column_validation import stands_alone
from greendata.validation.partitioner import Partitioned, Partitioner
from greendata.validation.row_validation import VALIDATOR
from greendata.validation.rules import Context


class Colour(Enum):
    RED = "red"


class Inner(BaseModel):
    x: int
    y: list[str] = ["y"]


def partitioned(df: pl.DataFrame, model: type[BaseModel]) -> Partitioned:
    return Partitioner(model, columns_of(model), None)(df)


def undecided(found: Partitioned) -> list[int]:
    """Return the rows that pydantic validates as a whole."""
    return found.assigned.filter(pl.col(VALIDATOR) == 0)[ROW_KEY].to_list()


def accepted_rows(found: Partitioned) -> pl.DataFrame:
    """Return the rows that the query accepts."""
    (part,) = found.parts
    return part.accepted


def accepted(annotation: Any, *values: Any, dtype: Any = None, **config: Any) -> list[Any]:
    """Return the values of one column that the query accepts."""
    model = create_model("Model", __config__=config or None, a=(annotation, ...))
    found = accepted_rows(partitioned(pl.DataFrame({"a": pl.Series(values, dtype=dtype)}), model))
    return found["a"].to_list() if "a" in found.columns else []  # the column has a column check


UUID_TEXT = "123e4567-e89b-42d3-a456-426614174000"
NOON = datetime(2024, 2, 29, 12)

USUAL: list[tuple[Any, list[Any]]] = [
    (int, [1, -1, 2**62]),
    (Annotated[int, Field(ge=0, lt=10, multiple_of=3)], [0, 3, 9]),
    (float, [0.5, float("inf")]),
    (Annotated[float, Field(gt=0, allow_inf_nan=False)], [0.5]),
    (bool, [True, False]),
    (str, ["", "é"]),
    (Annotated[str, Field(min_length=1, max_length=2, pattern="^é")], ["é", "éa"]),
    (bytes, [b"a"]),
    (Annotated[Decimal, Field(max_digits=5, decimal_places=2, ge=0)], [Decimal("1.50"), Decimal("999.99")]),
    (date, [date(2024, 2, 29)]),
    (datetime, [NOON]),
    (time, [time(12)]),
    (timedelta, [timedelta(days=-1)]),
    (UUID, [UUID_TEXT]),
    (UUID4, [UUID_TEXT]),
    (Colour, ["red"]),
    (Literal["a", "b"], ["b"]),
    (Literal[1, 2], [2]),
    (int | None, [1, None]),
    (list[int], [[1, 2], []]),
    (list[str | None], [["a", None]]),
    (set[int], [[1, 2]]),
    (tuple[int, ...], [[1]]),
    (dict[str, int], [[{"key": "a", "value": 1}]]),
    (Inner, [{"x": 1, "y": ["a"]}]),
    (list[Inner], [[{"x": 1, "y": ["a"]}], []]),
]


@pytest.mark.parametrize(("annotation", "values"), USUAL, ids=lambda case: str(case)[:40])
def test_usual_values_need_no_pydantic(annotation: Any, values: list[Any]) -> None:
    assert accepted(annotation, *values) == values


LAX: list[tuple[Any, list[Any], list[Any]]] = [
    (int, ["7", "-12", "0"], [7, -12, 0]),
    (int, [1.0, -2.0], [1, -2]),
    (int, [True], [1]),
    (float, ["1.5", "-7"], [1.5, -7.0]),
    (float, [1, 2], [1.0, 2.0]),
    (bool, ["yes", "OFF"], [True, False]),
    (bool, [0, 1], [False, True]),
    (bytes, ["é"], ["é".encode()]),
    (Decimal, [5], [Decimal(5)]),
    (date, ["2024-02-29"], [date(2024, 2, 29)]),
    (datetime, ["2024-02-29T12:00:00", "2024-02-29 12:00:00.000"], [NOON, NOON]),
    (datetime, [date(2024, 2, 29)], [datetime(2024, 2, 29)]),
    (AwareDatetime, ["2024-02-29T12:00:00Z"], [NOON.replace(tzinfo=UTC)]),
]


@pytest.mark.parametrize(("annotation", "values", "expected"), LAX, ids=lambda case: str(case)[:40])
def test_plain_coercions_need_no_pydantic(annotation: Any, values: list[Any], expected: list[Any]) -> None:
    assert accepted(annotation, *values) == expected


def test_lengths_and_letters_follow_the_configuration() -> None:
    assert accepted(str, " a ", "\tb", str_strip_whitespace=True, str_to_upper=True) == ["A", "B"]
    assert accepted(str, "abc", "ab", str_max_length=2) == ["ab"]
    assert accepted(int, "1", strict=True) == []


def test_values_that_only_pydantic_can_validate() -> None:
    undecided: Iterator[tuple[Any, Any]] = iter(
        [
            (int, " 1 "),
            (int, "1_000"),
            (float, "1e3"),
            (date, "1709164800"),
            (UUID, UUID_TEXT.upper()),
            (PastDate, date(2020, 1, 1)),
            (Annotated[float, Field(multiple_of=0.1)], 0.3),
            (Annotated[int, AfterValidator(abs)], 1),
            (Annotated[Decimal, Field(max_digits=5)], 1),
        ]
    )
    for annotation, value in undecided:
        assert accepted(annotation, value) == []
        model = create_model("Model", a=(annotation, ...))
        assert greendata.validate(pl.DataFrame({"a": [value]}), model).height == 1


def test_a_pattern_for_the_engine_of_python_is_left_to_pydantic() -> None:
    lookahead = create_model(
        "Model", __config__=ConfigDict(regex_engine="python-re"), a=(Annotated[str, Field(pattern="^(?=a)")], ...)
    )
    df = pl.DataFrame({"a": ["ab", "b"]})
    assert accepted_rows(partitioned(df, lookahead)).columns == [ROW_KEY]
    assert greendata.filter_valid(df, lookahead).good["a"].to_list() == ["ab"]


def test_bounds_that_no_column_holds() -> None:
    assert accepted(Annotated[int, Field(le=2**70)], 1) == []
    assert accepted(Annotated[float, Field(ge=2**60 + 1)], 1.0) == []
    huge = create_model("Model", a=(Annotated[int, Field(le=2**70)], ...))
    assert greendata.validate(pl.DataFrame({"a": [1]}), huge)["a"].to_list() == [1]


def test_only_undecided_rows_go_to_pydantic() -> None:
    model = create_model("Model", a=(int, ...), b=(str, "b"))
    found = partitioned(pl.DataFrame({"a": ["1", " 2 ", "x", None, "5"]}), model)
    assert accepted_rows(found)["a"].to_list() == [1, 5]
    assert accepted_rows(found)["b"].to_list() == ["b", "b"]
    assert undecided(found) == [1, 2, 3]


def test_a_column_of_nulls_only() -> None:
    assert accepted(int | None, None, dtype=pl.Null) == [None]
    assert accepted(Inner | None, None, dtype=pl.Null) == [None]
    assert accepted(int, None, dtype=pl.Null) == []


def test_values_that_python_cannot_hold_do_not_go_to_pydantic() -> None:
    days = pl.Series("on", [[0], [10**7], None], dtype=pl.List(pl.Int32)).cast(pl.List(pl.Date))
    model = create_model("Model", on=(list[date], ...))
    found = partitioned(days.to_frame(), model)
    assert undecided(found) == [2]
    assert found.over_limits.select("row", "column", "rule").rows() == [(1, "on", "column_form")]


def test_a_validator_needs_its_column_alone() -> None:
    class Checked(BaseModel):
        a: int
        b: int = 1

        @field_validator("a")
        @classmethod
        def same(cls, a: int) -> int:
            return a

    found = partitioned(pl.DataFrame({"a": [1, 2, 3], "b": ["1", " 2 ", "3"]}), Checked)
    assert undecided(found) == [1]
    assert accepted_rows(found).to_dict(as_series=False) == {"b": [1, 3], ROW_KEY: [0, 2]}
    assert [validator.rows(found.assigned[ROW_KEY].head(1)).__next__() for validator in found.validators] == [
        {"a": 1, "b": "1"},
        (1,),
    ]


def test_a_value_that_stands_alone_gets_nothing_of_the_row() -> None:
    def function(kind: str) -> dict[str, Any]:
        return {"type": "function-plain", "function": {"type": kind, "function": abs}}

    informed = {"ref": "x", **function("with-info")}
    context = Context({"x": informed, "loop": {"type": "list", "items_schema": _reference("loop")}}, {}, None)
    alone: tuple[dict[str, Any], ...] = (
        {"type": "int"},
        function("no-info"),
        _reference("loop"),
        {"type": "default", "schema": {"type": "any"}, "default": {"type": "with-info"}},
    )
    assert all(stands_alone(node, context) for node in alone)
    needy: tuple[dict[str, Any], ...] = (
        informed,
        _reference("x"),
        {"type": "tuple", "items_schema": [{"type": "int"}, _reference("x")]},
        {"type": "model-fields", "fields": {"default": {"type": "model-field", "schema": informed}}},
        {"type": "default", "schema": {"type": "any"}, "default_factory": abs, "default_factory_takes_data": True},
    )
    assert not any(stands_alone(node, context) for node in needy)


def _reference(name: str) -> dict[str, Any]:
    return {"type": "definition-ref", "schema_ref": name}
