"""Column validation: a field that needs Python is validated alone; the other columns of its row stay in the query."""

from __future__ import annotations

from itertools import count
from typing import Annotated, Any

import polars as pl
import pytest
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyAddress,
    PlainValidator,
    PrivateAttr,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticOmit, PydanticUseDefault

import greendata
from tests.support.laws import holds


def whole_rows(model: type[BaseModel], df: pl.DataFrame) -> int:
    """Return how many valid rows pydantic makes an instance of *model* from: each one gets its private attributes."""
    made: list[None] = []

    class Counted(model):  # type: ignore[misc, valid-type]
        _made: None = PrivateAttr(default_factory=lambda: made.append(None))

    holds(df, Counted)
    made.clear()
    greendata.filter_valid(df, Counted)
    return len(made)


def even(value: int) -> int:
    if value % 2:
        raise ValueError("odd")
    return value


Even = Annotated[int, AfterValidator(even)]


class Order(BaseModel):
    id: int
    name: Annotated[str, Field(max_length=3)]
    number: Even


FRAME = pl.DataFrame({"id": ["1", "2", " 3 ", "x"], "name": ["a", "b", "c", "d"], "number": [2, 3, 4, 5]})


# -- what passes through Python -------------------------------------------------------------------------


def test_only_rows_undecided_in_another_column_are_validated_as_a_whole() -> None:
    assert whole_rows(Order, FRAME) == 1  # the third row; the last row is invalid
    assert whole_rows(Order, FRAME.head(2)) == 0
    assert whole_rows(Order, FRAME.with_columns(pl.col("id").cast(pl.Binary))) == 0  # bytes have no rule for an int


def test_failures_are_those_of_the_row() -> None:
    good, failures = greendata.filter_valid(FRAME, Order)
    assert good.rows() == [(1, "a", 2), (3, "c", 4)]
    assert failures.rows() == [
        (1, "number", "3", "value_error", "Value error, odd"),
        (3, "id", "x", "int_parsing", "Input should be a valid integer, unable to parse string as an integer"),
        (3, "number", "5", "value_error", "Value error, odd"),
    ]


def test_a_type_without_a_rule() -> None:
    class Visit(BaseModel):
        id: int
        address: IPvAnyAddress

    df = pl.DataFrame({"id": [1, 2], "address": ["127.0.0.1", "::1"]})
    assert whole_rows(Visit, df) == 0
    assert greendata.validate(df, Visit)["address"].to_list() == ["127.0.0.1", "::1"]


def test_strict_and_configured_as_the_row_is() -> None:
    class Careful(Order):
        model_config = ConfigDict(str_max_length=2)
        word: Annotated[str, AfterValidator(str.title)] = ""

    df = pl.DataFrame({"id": [1, 2, 3], "name": ["a", "b", "c"], "number": ["2", "3", "4"], "word": ["ab", "b", "abc"]})
    for strict, failing in ((None, {"number": [1], "word": [2]}), (True, {"number": [0, 1, 2], "word": [2]})):
        holds(df, Careful, strict=strict)
        found = greendata.filter_valid(df, Careful, strict=strict).failures
        assert {name: found.filter(column=name)["row"].to_list() for name in ("number", "word")} == failing


def test_a_default_that_pydantic_makes() -> None:
    class Numbered(BaseModel):
        id: int
        number: int = Field(default_factory=count(7).__next__)
        checked: Even = Field(default=1, validate_default=True, alias="other")

    valid = pl.DataFrame({"id": [1, 2], "other": [0, 0]})
    assert whole_rows(Numbered, valid.with_columns(number=pl.lit(1))) == 0
    assert greendata.validate(valid, Numbered)["number"].to_list() == [7, 8]
    failures = greendata.filter_valid(pl.DataFrame({"id": [1, 2]}), Numbered).failures
    assert failures.select("row", "column", "value").rows() == [(0, "checked", "1"), (1, "checked", "1")]


def test_a_nested_value_has_a_column_check() -> None:
    class Outer(BaseModel):
        id: int
        inner: Order
        orders: list[Order]

    orders = FRAME.select(pl.struct(pl.all()).alias("inner"))
    df = orders.with_columns(pl.concat_list("inner").alias("orders"), id=pl.int_range(4))
    assert whole_rows(Outer, df) == 0
    found = greendata.filter_valid(df, Outer).failures
    assert found.filter(row=1)["column"].to_list() == ["inner.number", "orders.0.number"]


# -- what needs the whole row ---------------------------------------------------------------------------


def after_id(value: int, info: ValidationInfo) -> int:
    return value + int(info.data.get("id", 0))


Informed = Annotated[int, AfterValidator(after_id)]
Deep = create_model("Deep", x=(Annotated[int, PlainValidator(after_id)], 1))


class Ordered(Order):
    @model_validator(mode="after")
    def ordered(self) -> Ordered:
        return self


class Posted(Order):
    def model_post_init(self, context: object) -> None:
        self.number += 1


NEEDY = (
    Ordered,
    create_model("OfOne", __base__=Order, number=(Informed, ...)),
    create_model("OfSome", __base__=Order, numbers=(list[Annotated[int, BeforeValidator(after_id)]], [])),
    create_model("OfDeep", __base__=Order, deep=(list[Deep], [])),  # its validator receives only the nested row
)


@pytest.mark.parametrize("model", NEEDY)
def test_code_that_reads_the_rest_of_the_row_needs_it(model: type[BaseModel]) -> None:
    df = pl.DataFrame({"id": [1, 2], "name": ["a", "b"], "number": [2, 4], "numbers": [[1], [2, 3]]})
    df = df.with_columns(pl.concat_list(pl.struct(x="id")).alias("deep"))
    assert whole_rows(model, df) == 2


def test_code_after_the_fields_needs_the_row() -> None:
    assert greendata.validate(FRAME.head(1), Posted)["number"].to_list() == [3]


def test_a_forbidden_or_missing_column_fails_in_addition_to_other_failures() -> None:
    class Closed(Order, extra="forbid"):
        pass

    for df in (FRAME.with_columns(more=1), FRAME.drop("name"), FRAME.drop("number"), FRAME.drop("id", "number")):
        holds(df, Closed)
        assert greendata.filter_valid(df, Closed).failures["row"].n_unique() == 4


# -- what validators do ---------------------------------------------------------------------------------


def test_validators_are_called_row_by_row_and_once_for_each_value() -> None:
    calls: list[tuple[str, int]] = []

    def seen(name: str) -> Any:
        return AfterValidator(lambda value: calls.append((name, value)) or value)

    model = create_model("Model", a=(Annotated[int, seen("a")], ...), b=(int, ...), c=(Annotated[int, seen("c")], ...))
    df = pl.DataFrame({"a": range(5_000), "c": range(5_000)}).with_columns(
        b=pl.when(pl.col("a") % 3 == 0).then(pl.lit(" 1 ")).otherwise(pl.lit("1"))
    )
    assert greendata.validate(df, model)["a"].to_list() == [*range(5_000)]
    assert calls == [(name, value) for value in range(5_000) for name in ("a", "c")]


def test_other_errors_of_a_validator_are_raised_for_the_first_row() -> None:
    def divide(value: int) -> int:
        raise ZeroDivisionError(value)

    model = create_model("Model", a=(int, ...), b=(Annotated[int, AfterValidator(divide)], ...))
    with pytest.raises(ZeroDivisionError, match=r"^7$"):
        greendata.validate(pl.DataFrame({"a": ["1", " 2 "], "b": [7, 8]}), model)
    with pytest.raises(ZeroDivisionError, match=r"^7$"):
        greendata.validate(pl.DataFrame({"a": [" 2 ", "1"], "b": [7, 8]}), model)


@pytest.mark.parametrize("error", [PydanticOmit, PydanticUseDefault])
def test_a_validator_that_asks_for_what_its_field_lacks(error: type[Exception]) -> None:
    """The result differs between versions of pydantic, so the whole row is validated."""

    def ask(value: int) -> int:
        if value == 2:
            raise error()
        return value

    model = create_model("Model", a=(int, ...), b=(Annotated[int, BeforeValidator(ask)], ...))
    by_row = create_model("Model", __base__=model, c=(Informed, 0))
    df = pl.DataFrame({"a": [1, 2, 3], "b": [1, 2, 3]})
    assert _result(df, model) == _result(df.with_columns(c=0), by_row)


def _result(df: pl.DataFrame, model: type[BaseModel]) -> Any:
    try:
        found = greendata.filter_valid(df, model)
    except Exception as error:  # noqa: BLE001 - compares errors of any class
        return type(error), str(error)
    return found.good["b"].to_list(), found.failures.rows()


def test_failures_name_the_column_that_the_values_came_from() -> None:
    class Named(BaseModel):
        model_config = ConfigDict(populate_by_name=True)
        a: Even = Field(validation_alias=AliasChoices("first", "second"))
        b: int = 0

    class Plain(Named):
        model_config = ConfigDict(loc_by_alias=False)

    for model in (Named, Plain):
        for name in ("first", "second", "a"):
            df = pl.DataFrame({name: [2, 3]})
            holds(df, model)
            assert whole_rows(model, df) == 0


def test_a_value_that_its_column_cannot_hold_fails_only_in_a_valid_row() -> None:
    class Turned(BaseModel):
        a: int
        b: Even

        @field_validator("a")
        @classmethod
        def turn(cls, value: int) -> Any:
            return str(value)

    failures = greendata.filter_valid(pl.DataFrame({"a": [1, 2], "b": [1, 2]}), Turned).failures
    assert failures.select("row", "column", "rule").rows() == [(0, "b", "value_error"), (1, "a", "column_form")]


def test_values_that_python_cannot_hold_are_not_validated() -> None:
    day = create_model("Day", id=(int, ...), day=(Annotated[Any, pl.Date, AfterValidator(lambda day: day)], ...))
    days = pl.Series([0, 10**7, None], dtype=pl.Int32).cast(pl.Date)
    good, failures = greendata.filter_valid(pl.DataFrame({"id": [1, 2, 3], "day": days}), day)
    assert good["id"].to_list() == [1, 3]
    assert failures.select("row", "column", "rule").rows() == [(1, "day", "column_form")]


def test_extra_columns_are_kept_with_their_rows() -> None:
    class Open(Order, extra="allow"):
        pass

    good = greendata.filter_valid(FRAME.with_columns(more=pl.int_range(4)), Open).good
    assert good.rows() == [(1, "a", 2, 0), (3, "c", 4, 2)]


def test_frames_without_rows_and_models_with_such_fields_only() -> None:
    only = create_model("Only", number=(Even, 4), made=(int, Field(default_factory=int.__call__)))
    assert greendata.validate(FRAME.clear(), Order).schema == greendata.schema_of(Order)
    assert greendata.validate(pl.DataFrame(height=2), only).rows() == [(4, 0), (4, 0)]
    assert greendata.filter_valid(FRAME.select("number"), only).good["number"].to_list() == [2, 4]


def test_batches_of_a_stream_keep_their_order_and_count_their_rows() -> None:
    df = pl.DataFrame({"id": range(100), "name": "a", "number": [*range(0, 180, 2), 1, *range(2, 20, 2)]})
    frame = greendata.Frame[Order].from_frame(df.lazy().head(90))
    with frame.stream(batch_size=20) as stream:
        assert pl.concat(stream)["number"].to_list() == [*range(0, 180, 2)]
    frame = greendata.Frame[Order].from_frame(df.lazy())
    with frame.stream(batch_size=20) as stream, pytest.raises(greendata.FrameInvalid) as caught:
        list(stream)
    assert caught.value.failures["row"].to_list() == [90]
