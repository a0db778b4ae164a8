"""Plans of typed frames: which errors are raised when they are built, and which model the rows have afterwards."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import polars as pl
import pytest
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, computed_field, field_validator, model_validator

from greendata import Frame
from greendata.errors import FrameInvalid, ModelMismatch, NotAFrame, PlanRefused, UnknownColumn


class Sale(BaseModel):
    city: str
    amount: Annotated[int, Field(ge=0, le=100)]
    kind: Literal["cash", "card"] = "cash"

    @field_validator("city")
    @classmethod
    def is_on_the_map(cls, city: str) -> str:
        if city == "Atlantis":
            raise ValueError("not on the map")
        return city


ROWS = pl.DataFrame({"city": ["Rome", "Oslo", "Rome"], "amount": [1, 20, 3], "extra": [1.5, 2.5, 3.5]})


@pytest.fixture
def sales() -> Frame[Sale]:
    return Frame[Sale].from_frame(ROWS)


UNKNOWN: dict[str, Any] = {
    "filter": lambda f: f.filter(pl.col("amuont") > 1),
    "select": lambda f: f.select("amuont"),
    "with_columns": lambda f: f.with_columns(x=pl.col("amuont")),
    "sort": lambda f: f.sort("amuont"),
    "unique": lambda f: f.unique("amuont"),
    "drop": lambda f: f.drop("amuont"),
    "rename": lambda f: f.rename({"amuont": "x"}),
    "join": lambda f: f.join(ROWS, on="amuont"),
    "agg": lambda f: f.group_by("city").agg(pl.col("amuont").sum()),
}


@pytest.mark.parametrize("verb", UNKNOWN)
def test_an_unknown_column_is_named(verb: str, sales: Frame[Sale]) -> None:
    with pytest.raises(UnknownColumn) as caught:
        UNKNOWN[verb](sales)
    assert caught.value.column == "amuont"
    assert str(caught.value) == (
        f"{verb}() names the column 'amuont', expected one of amount, city, extra; did you mean 'amount'?"
    )
    assert isinstance(caught.value, LookupError)
    assert isinstance(caught.value.__cause__, pl.exceptions.ColumnNotFoundError)


WRONG: dict[str, Any] = {
    "comparison": lambda f: f.filter(pl.col("city") > 1),
    "predicate": lambda f: f.filter(pl.col("amount")),
    "accessor": lambda f: f.select(pl.col("amount").str.len_chars()),
    "dates": lambda f: f.with_columns(year=pl.col("amount").dt.year()),
    "arithmetic": lambda f: f.select(pl.col("city") - pl.col("amount")),
    "sum": lambda f: f.group_by("amount").agg(pl.col("city").sum()),
    "keys": lambda f: f.join(ROWS, left_on="city", right_on="amount"),
    "order": lambda f: f.sort(pl.col("amount").str.len_chars()),
    "names": lambda f: f.select("city", "city"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_type_is_refused(wrong: str, sales: Frame[Sale]) -> None:
    with pytest.raises(
        PlanRefused, match=r"\(\) cannot be planned: .*; the columns are city: String, amount"
    ) as caught:
        WRONG[wrong](sales)
    assert isinstance(caught.value.__cause__, pl.exceptions.PolarsError)
    assert not isinstance(caught.value, UnknownColumn)
    assert "\n" not in str(caught.value)


def test_errors_that_depend_on_rows_are_not_raised_for_a_plan(sales: Frame[Sale]) -> None:
    assert sales.select(pl.col("amount").gather([0, 2])).to_dict() == {"amount": [1, 3]}
    assert sales.with_columns(number=pl.Series([1, 2, 3])).select("number").to_dict() == {"number": [1, 2, 3]}


def test_python_functions_are_not_called_for_a_check(sales: Frame[Sale]) -> None:
    heights: list[int] = []

    def double(column: pl.Series) -> pl.Series:
        heights.append(len(column))
        return column * 2

    doubled = sales.with_columns(pl.col("amount").map_batches(double, return_dtype=pl.Int64))
    assert heights == []
    assert doubled.to_dict()["amount"] == [2, 40, 6]
    assert heights == [3]


def test_operations_that_keep_the_columns_keep_the_model(sales: Frame[Sale]) -> None:
    kept = sales.filter(pl.col("amount") > 0, kind="cash") if "kind" in sales.schema else sales.filter(city="Rome")
    kept = kept.sort("amount", descending=True).head(5).limit(4).tail(3).slice(0, 2).unique(["city", "amount"])
    assert type(kept) is Frame[Sale]
    assert kept.collect() == [Sale(city="Rome", amount=3), Sale(city="Rome", amount=1)]
    assert sales.unique("city", keep="first").to_dict()["amount"] == [1, 20]


def test_expressions_may_come_from_a_generator(sales: Frame[Sale]) -> None:
    names = ["city", "amount"]
    assert sales.select(name for name in names).to_dict() == sales.select(names).to_dict()
    assert sales.filter(pl.col(name).is_not_null() for name in names).to_frame().height == 3
    assert sales.group_by(name for name in names).agg(pl.len()).to_frame().height == 3


def test_with_columns_adds_to_the_model(sales: Frame[Sale]) -> None:
    more = sales.with_columns(tax=pl.col("amount") * 0.5, amount=pl.col("amount") + 1)
    first = more.collect()[0]
    assert isinstance(first, Sale)
    assert first.model_dump() == {"city": "Rome", "amount": 2, "kind": "cash", "tax": 0.5}
    assert more.to_frame().columns == ["city", "amount", "kind", "tax"]
    assert type(sales.with_columns(amount=pl.col("amount") + 1)) is Frame[Sale]


def test_with_columns_keeps_the_constraints_of_the_model(sales: Frame[Sale]) -> None:
    with pytest.raises(FrameInvalid, match="amount: 3 times less_than_equal"):
        sales.with_columns(amount=pl.col("amount") + 100).collect()
    assert sales.with_columns(pl.col("amount").cast(pl.Int16)).collect() == sales.collect()
    with pytest.raises(ModelMismatch, match=r"column 'amount' is List\(String\), not Int64"):
        sales.with_columns(amount=pl.col("city").str.split("o"))


def test_columns_that_remain_keep_their_rules(sales: Frame[Sale]) -> None:
    for frame in (sales.select("amount", "city"), sales.drop("extra"), sales.rename({"extra": "more"})):
        bad_amount = frame.as_model(frame.model).with_columns(amount=pl.lit(101))
        with pytest.raises(FrameInvalid, match="less_than_equal"):
            bad_amount.collect()
        bad_city = frame.with_columns(city=pl.lit("Atlantis"))
        with pytest.raises(FrameInvalid, match="not on the map"):
            bad_city.collect()


def test_select_makes_a_model_of_what_it_names(sales: Frame[Sale]) -> None:
    picked = sales.select("extra", pl.col("amount").cast(pl.Float64) * 1000, "city")
    assert [row.model_dump() for row in picked.head(1).collect()] == [{"extra": 1.5, "amount": 1000.0, "city": "Rome"}]
    assert picked.model.__name__ == "Sale.select"
    assert not issubclass(picked.model, Sale)


def test_unknown_columns_stay_unknown_until_they_are_named(sales: Frame[Sale]) -> None:
    assert sales.drop("city").to_frame().columns == ["amount"]
    assert sales.select("extra", "amount").to_frame().columns == ["extra", "amount"]


def test_aggregates_are_new_columns(sales: Frame[Sale]) -> None:
    totals = sales.with_columns(amount=pl.col("amount") * 5).group_by("city").agg(pl.col("amount").sum(), n=pl.len())
    assert totals.to_dict() == {"city": ["Rome", "Oslo"], "amount": [20, 100], "n": [2, 1]}
    assert sales.group_by("city").agg(pl.col("amount").sum() * 100).to_dict()["amount"] == [400, 2000]
    atlantis = sales.group_by(city=pl.lit("Atlantis")).agg(pl.len())
    with pytest.raises(FrameInvalid, match="not on the map"):
        atlantis.collect()


def test_join_takes_every_kind_of_frame(sales: Frame[Sale]) -> None:
    class Place(BaseModel):
        city: str
        land: str

    places = pl.DataFrame({"city": ["Oslo", "Rome"], "land": ["Norway", "Italy"]})
    for other in (places, places.lazy(), Frame[Place].from_frame(places)):
        joined = sales.join(other, on="city")
        assert joined.to_dict() == {
            "city": ["Rome", "Oslo", "Rome"],
            "amount": [1, 20, 3],
            "kind": ["cash", "cash", "cash"],
            "land": ["Italy", "Norway", "Italy"],
        }
    assert type(sales.join(places, ["city"], how="semi")) is Frame[Sale]
    with pytest.raises(NotAFrame):
        sales.join([1], on="city")  # type: ignore[arg-type]


def test_as_model_binds_another_model(sales: Frame[Sale]) -> None:
    class Total(BaseModel):
        city: str
        total: Annotated[int, Field(gt=1)]

    totals = sales.group_by("city").agg(total=pl.col("amount").sum()).as_model(Total)
    assert totals.sort("total").collect() == [Total(city="Rome", total=4), Total(city="Oslo", total=20)]
    with pytest.raises(ModelMismatch, match="no column 'total'"):
        sales.as_model(Total)


def test_aliases_are_the_columns() -> None:
    class Price(BaseModel):
        amount: Annotated[float, Field(alias="unit price", ge=0)]
        code: Annotated[str, Field(alias="class")] = "?"

    frame = Frame[Price].from_frame(pl.DataFrame({"unit price": [1.5, -1.0], "class": ["a", "b"]}))
    with pytest.raises(FrameInvalid, match="unit price: greater_than_equal in row 1"):
        frame.collect()
    kept = frame.filter(pl.col("unit price") > 0).select("unit price", "class", size=pl.lit(1))
    assert [row.model_dump(by_alias=True) for row in kept.collect()] == [{"unit price": 1.5, "class": "a", "size": 1}]
    with pytest.raises(FrameInvalid):
        frame.select("unit price").collect()


def test_computed_fields_and_model_validators_go_where_the_whole_row_goes() -> None:
    class Box(BaseModel):
        model_config = ConfigDict(extra="forbid")
        width: int
        height: int

        @model_validator(mode="after")
        def is_flat(self) -> Box:
            if self.height > self.width:
                raise ValueError("it stands")
            return self

        @computed_field  # type: ignore[prop-decorator]
        @property
        def area(self) -> int:
            return self.width * self.height

    boxes = Frame[Box].from_columns({"width": [3, 2], "height": [2, 2]})
    assert boxes.to_dict() == {"width": [3, 2], "height": [2, 2], "area": [6, 4]}
    assert [box.area for box in boxes.collect()] == [6, 4]
    with pytest.raises(FrameInvalid, match="it stands"):
        boxes.with_columns(height=pl.lit(9)).collect()
    with pytest.raises(FrameInvalid, match="it stands"):
        boxes.with_columns(height=pl.lit(9), depth=pl.lit(1)).collect()
    assert boxes.select(pl.lit(9).alias("height")).collect()[0].model_dump() == {"height": 9}


def test_a_validator_that_comes_before_may_take_any_type() -> None:
    class Row(BaseModel):
        code: Annotated[str, BeforeValidator(str)]

    assert Frame[Row].from_frame(pl.DataFrame({"code": [7]})).collect() == [Row(code="7")]
