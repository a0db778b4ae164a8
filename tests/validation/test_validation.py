"""validate and filter_valid as users see them: what they return, what fails, and how failures are reported."""

from __future__ import annotations

import gc
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import count
from typing import Annotated, Any, Literal

import gevent
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from pydantic import (
    AliasChoices,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    PrivateAttr,
    create_model,
    field_validator,
    model_validator,
)

import greendata
from greendata.errors import BadChoice, FrameInvalid, NotAFrame, NotAModel
from greendata.hub import native
from greendata.schema.failures import ITEMISED
from greendata.schema.limits import ELEMENTS
from tests.support.frames import gated
from tests.support.gates import Gate


class User(BaseModel):
    id: Annotated[int, Field(ge=0)]
    name: Annotated[str, Field(min_length=1)]
    country: str = "FR"


FRAME = pl.DataFrame({"id": [1, -1, None, 4], "name": ["a", "b", "", "d"]})
GOOD = pl.DataFrame({"id": [1, 4], "name": ["a", "d"], "country": ["FR", "FR"]})
FAILED = [
    (1, "id", "-1", "greater_than_equal", "Input should be greater than or equal to 0"),
    (2, "id", None, "int_type", "Input should be a valid integer"),
    (2, "name", "", "string_too_short", "String should have at least 1 character"),
]


def test_good_rows_and_failures() -> None:
    for frame in (FRAME, FRAME.lazy()):
        good, failures = greendata.filter_valid(frame, User)
        assert_frame_equal(good, GOOD)
        assert failures.rows() == FAILED
        assert failures.schema == {"row": pl.UInt32, **dict.fromkeys(("column", "value", "rule", "message"), pl.String)}


def test_the_error_counts_first_and_shows_one_of_each_kind() -> None:
    with pytest.raises(FrameInvalid) as caught:
        greendata.validate(pl.concat([FRAME, FRAME]), User)
    error = caught.value
    assert str(error) == (
        "6 failures in 4 of 8 rows of User; see .failures\n"
        "  id: 2 times greater_than_equal, first in row 1, got -1: Input should be greater than or equal to 0\n"
        "  id: 2 times int_type, first in row 2, got None: Input should be a valid integer\n"
        "  name: 2 times string_too_short, first in row 2, got : String should have at least 1 character"
    )
    assert (error.model, error.rows, error.failures.height) == ("User", 8, 6)
    assert isinstance(error, ValueError)


def test_the_error_says_how_many_kinds_it_leaves_out() -> None:
    model = greendata.model_of(pl.Schema({f"c{number}": pl.UInt8 for number in range(9)}))
    with pytest.raises(FrameInvalid, match=r"  and 4 kinds more$"):
        greendata.validate(pl.DataFrame({f"c{number}": [300] for number in range(9)}), model)


def test_what_is_valid_comes_back_in_the_schema_of_the_model() -> None:
    df = pl.DataFrame({"name": ["a"], "more": [0], "id": ["7"]}, schema_overrides={"name": pl.Categorical})
    valid = greendata.validate(df, User)
    assert valid.schema == greendata.schema_of(User)
    assert valid.rows() == [(7, "a", "FR")]
    assert_frame_equal(greendata.validate(valid, User), valid)


def test_a_frame_without_rows() -> None:
    empty = pl.DataFrame(schema={"id": pl.String, "name": pl.Null})
    assert_frame_equal(greendata.validate(empty, User), GOOD.clear())
    failures = greendata.filter_valid(empty.drop("id"), User).failures
    assert failures.rows() == [(None, "id", None, "missing", "Field required")]


def test_a_frame_without_columns() -> None:
    class Free(BaseModel):
        a: int = 1

    assert greendata.validate(pl.DataFrame(height=3), Free)["a"].to_list() == [1, 1, 1]
    assert greendata.filter_valid(pl.DataFrame(height=3), User).failures.height == 6


# -- columns --------------------------------------------------------------------------------------------


def test_a_missing_column_fails_in_every_row_in_addition_to_other_failures() -> None:
    good, failures = greendata.filter_valid(pl.DataFrame({"id": [1, -1, 3]}), User)
    assert not good.height
    assert good.schema == greendata.schema_of(User)
    assert failures.select("row", "column", "rule").rows() == [
        (0, "name", "missing"),
        (1, "id", "greater_than_equal"),
        (1, "name", "missing"),
        (2, "name", "missing"),
    ]


def test_columns_that_belong_to_no_field() -> None:
    df = pl.DataFrame({"a": ["1", "2", "x"], "more": [[1], [2], [3]]})

    class Ignore(BaseModel):
        a: int

    class Forbid(Ignore, extra="forbid"):
        pass

    class Allow(Ignore, extra="allow"):
        pass

    assert greendata.filter_valid(df, Ignore).good.rows() == [(1,), (2,)]
    assert greendata.filter_valid(df, Allow).good.rows() == [(1, [1]), (2, [2])]
    good, failures = greendata.filter_valid(df, Forbid)
    assert not good.height
    assert failures.select("row", "column", "value", "rule").rows() == [
        (0, "more", None, "extra_forbidden"),
        (1, "more", None, "extra_forbidden"),
        (2, "a", "x", "int_parsing"),
        (2, "more", None, "extra_forbidden"),
    ]


def test_missing_columns_are_filled_from_the_defaults() -> None:
    numbers = count()

    class Filled(BaseModel):
        a: int
        nothing: str | None = None
        moment: datetime = datetime(2024, 1, 1)
        price: Decimal = Decimal("1.5")
        tags: list[str] = Field(default_factory=list)
        pair: tuple[int, str] = (1, "x")
        table: dict[str, int] = {"a": 1}
        colour: Literal["red", "green"] = "green"

    class Numbered(Filled):
        number: int = Field(default_factory=lambda: next(numbers))

    class Checked(BaseModel):
        a: int
        b: int = Field(default=-1, ge=0, validate_default=True)

    df = pl.DataFrame({"a": [7, 8]})
    row = (None, datetime(2024, 1, 1), Decimal("1.5"), [], {"field_0": 1, "field_1": "x"}, [{"key": "a", "value": 1}])
    assert greendata.validate(df, Filled).rows() == [(7, *row, "green"), (8, *row, "green")]
    assert greendata.validate(df, Numbered)["number"].to_list() == [0, 1]
    assert greendata.filter_valid(df, Checked).failures["column"].to_list() == ["b", "b"]


def test_a_column_comes_in_under_any_of_its_names() -> None:
    class Person(BaseModel):
        model_config = ConfigDict(populate_by_name=True)
        name: str = Field(validation_alias=AliasChoices("fullName", "full_name"))

    for column in ("fullName", "full_name", "name"):
        assert greendata.validate(pl.DataFrame({column: ["x"]}), Person).to_dict(as_series=False) == {"fullName": ["x"]}
    both = pl.DataFrame({"name": ["no"], "full_name": ["yes"]})
    assert greendata.validate(both, Person)["fullName"].to_list() == ["yes"]


# -- values that pydantic accepts and a column cannot hold ----------------------------------------------


def test_values_that_do_not_fit_their_column_fail() -> None:
    class Tight(BaseModel):
        number: int = 0
        small: Annotated[int, pl.Int8] = 0
        price: Decimal = Decimal(0)
        naive: datetime = datetime(2024, 1, 1)
        tags: set[int] = set()

    def failing(**column: Any) -> tuple[Any, ...]:
        failures = greendata.filter_valid(pl.DataFrame(column), Tight).failures
        return failures.select("column", "rule", "message").row(0)

    assert failing(number=["1" * 20]) == ("number", "column_form", "11111111111111111111 does not fit Int64")
    assert failing(number=pl.Series([2**63], dtype=pl.UInt64))[1:] == ("column_form", f"{2**63} does not fit Int64")
    assert failing(small=[128])[1:] == ("column_form", "128 does not fit Int8")
    assert failing(price=["0." + "1" * 19])[1] == "column_form"
    assert failing(price=["1" * 21])[1] == "column_form"
    assert failing(naive=[datetime(2024, 1, 1, tzinfo=UTC)])[2].endswith(
        "does not fit Datetime(time_unit='us', time_zone=None)"
    )
    beyond = pl.Series([10**7], dtype=pl.Int32).cast(pl.Date)
    assert failing(naive=beyond) == ("naive", "column_form", "Python has no date, time or timedelta for the value")


def test_a_validator_that_returns_another_type() -> None:
    class Turned(BaseModel):
        a: int

        @field_validator("a", mode="after")
        @classmethod
        def turn(cls, value: int) -> Any:
            return str(value) if value else value

    failures = greendata.filter_valid(pl.DataFrame({"a": [0, 1]}), Turned).failures
    assert failures.rows() == [(1, "a", "1", "column_form", "str does not fit Int64")]


class Pair(BaseModel):
    x: int
    y: int


def turned(kind: Any, into: Any) -> type[BaseModel]:
    """Return a model with a field *a* of a given type, for which a validator returns a value of another type."""
    return create_model("Turned", a=(Annotated[kind, PlainValidator(lambda _: into)], ...))


@pytest.mark.parametrize(
    ("kind", "into", "reason"),
    [
        (Pair, {"x": 1, "y": 2}, "'dict' object has no attribute 'x'"),
        (list[int], 5, "int is not a list"),
        (list[str], "text", "str is not a list"),
        (tuple[int, str], 5, "int is not a tuple of 2"),
        (tuple[int, str], (1,), "tuple is not a tuple of 2"),
        (dict[str, int], [1], "list is not a mapping"),
    ],
)
def test_a_validator_that_replaces_a_value_of_many_elements(kind: Any, into: Any, reason: str) -> None:
    failures = greendata.filter_valid(pl.DataFrame({"a": [1]}), turned(kind, into)).failures
    assert failures.select("row", "column", "rule", "message").rows() == [(0, "a", "column_form", reason)]


def test_aware_times_come_in_utc() -> None:
    class Event(BaseModel):
        at: AwareDatetime

    df = pl.DataFrame({"at": ["2024-07-01T12:00:00+02:00", "2024-07-01T12:00:00"]})
    good, failures = greendata.filter_valid(df, Event)
    assert good["at"].to_list() == [datetime(2024, 7, 1, 10, tzinfo=UTC)]
    assert failures["rule"].to_list() == ["timezone_aware"]


# -- user code ------------------------------------------------------------------------------------------


def test_validators_reject_change_and_see_whole_rows() -> None:
    class Range(BaseModel):
        low: int
        high: int = 10
        _seen: bool = PrivateAttr(default=False)

        @field_validator("low")
        @classmethod
        def halve(cls, low: int) -> int:
            if low % 2:
                raise ValueError("odd")
            return low // 2

        @model_validator(mode="after")
        def ordered(self) -> Range:
            if self.low > self.high:
                raise ValueError("upside down")
            return self

    good, failures = greendata.filter_valid(pl.DataFrame({"low": [4, 3, 40], "more": [1, 2, 3]}), Range)
    assert good.rows() == [(2, 10)]
    assert failures.select("row", "column", "message").rows() == [
        (1, "low", "Value error, odd"),
        (2, None, "Value error, upside down"),
    ]


def test_a_validator_of_the_raw_row_sees_every_column() -> None:
    class Sum(BaseModel):
        total: int

        @model_validator(mode="before")
        @classmethod
        def add(cls, row: dict[str, int]) -> dict[str, int]:
            return {"total": row["a"] + row["b"]}

    assert greendata.validate(pl.DataFrame({"a": [1], "b": [2]}), Sum)["total"].to_list() == [3]


def test_other_errors_of_a_validator_are_raised() -> None:
    class Broken(BaseModel):
        a: int

        @field_validator("a")
        @classmethod
        def fail(cls, value: int) -> int:
            return 1 // value

    with pytest.raises(ZeroDivisionError):
        greendata.validate(pl.DataFrame({"a": [0]}), Broken)
    assert gc.isenabled()


def test_code_that_runs_after_the_fields() -> None:
    class Counted(BaseModel):
        a: int

        def model_post_init(self, context: object) -> None:
            self.a += 1

    class Private(BaseModel):
        a: int
        _b: int = 0

    assert greendata.validate(pl.DataFrame({"a": [1]}), Counted)["a"].to_list() == [2]
    assert greendata.validate(pl.DataFrame({"a": [1]}), Private)["a"].to_list() == [1]


# -- bad arguments --------------------------------------------------------------------------------------


def test_bad_arguments() -> None:
    for func in (greendata.validate, greendata.filter_valid):
        for frame in (None, [{"id": 1}], pl.Series([1])):
            with pytest.raises(NotAFrame):
                func(frame, User)  # type: ignore[operator]
        for model in (int, "User", None, User(id=1, name="a")):
            with pytest.raises(NotAModel):
                func(FRAME, model)  # type: ignore[operator]
        with pytest.raises(BadChoice, match="trust must be 'off', 'shape_only' or 'strict', got 'full'"):
            func(FRAME, User, trust="full")  # type: ignore[operator]


def test_an_error_of_the_query_is_raised() -> None:
    with pytest.raises(pl.exceptions.ColumnNotFoundError):
        greendata.validate(FRAME.lazy().select("none"), User)


# -- the hub --------------------------------------------------------------------------------------------


def test_the_hub_runs_greenlets_during_the_query(hub_alive: Gate) -> None:
    assert greendata.validate(gated(hub_alive, GOOD), User).height == 2


@pytest.mark.parametrize("validate", [greendata.validate, greendata.filter_valid])
def test_the_hub_runs_greenlets_between_slices_of_rows(validate: Callable[..., Any]) -> None:
    """The validator sees that another greenlet makes progress between two rows."""
    turns: list[int] = []
    seen: list[int] = []

    class Slow(BaseModel):
        a: int

        @field_validator("a")
        @classmethod
        def look(cls, value: int) -> int:
            seen.append(len(turns))
            return value

    def tick() -> None:
        while True:
            turns.append(1)
            gevent.sleep(0)

    ticker = gevent.spawn(tick)
    validate(pl.DataFrame({"a": range(2_000)}), Slow)
    ticker.kill()
    assert len(set(seen)) > 1


def test_failures_of_many_slices_are_listed_in_order() -> None:
    class Picky(BaseModel):
        a: int

        @field_validator("a")
        @classmethod
        def look(cls, value: int) -> int:
            if value % 3:
                raise ValueError("not of the third")
            return value

    rows = range(10_000)
    df = pl.DataFrame({"a": rows})
    good, failures = greendata.filter_valid(df, Picky)
    assert good["a"].to_list() == [row for row in rows if not row % 3]
    assert failures["row"].to_list() == [row for row in rows if row % 3]
    with pytest.raises(FrameInvalid, match="6666 failures in 6666 of 10000 rows of Picky"):
        greendata.validate(df, Picky)
    with pytest.raises(FrameInvalid, match="6666 times value_error, first in row 1, got 1") as caught:
        greendata.Frame[Picky].from_rows({"a": row} for row in rows)
    assert caught.value.failures["row"].to_list() == failures["row"].to_list()


def test_dates_of_a_column_that_only_python_can_validate() -> None:
    class Dated(BaseModel):
        on: Annotated[date, Field(strict=False)]

    good, failures = greendata.filter_valid(pl.DataFrame({"on": ["2024-02-29", "1709164800", "x"]}), Dated)
    assert good["on"].to_list() == [date(2024, 2, 29), date(2024, 2, 29)]
    assert failures["row"].to_list() == [2]


class Lists(BaseModel):
    a: list[int]
    b: int = 0


def test_a_row_with_too_many_failures_has_their_number() -> None:
    """pydantic lists all errors of a row without a pause, so a body of 100 kB could block the hub for long."""
    df = pl.DataFrame({"a": [["1"], ["x"] * (ITEMISED + 1), ["y"] * 3]})
    good, failures = greendata.filter_valid(df, Lists)
    assert good["a"].to_list() == [[1]]
    assert failures["row"].to_list() == [1, 2, 2, 2]
    assert failures.row(0)[1:] == (None, None, "too_many_failures", f"{ITEMISED + 1} failures are in this row")
    with pytest.raises(FrameInvalid, match=r"the row: too_many_failures in row 0.*1001 failures are in this row"):
        greendata.Frame[Lists].from_rows([{"a": ["x"] * (ITEMISED + 1)}])


@pytest.mark.parametrize("validator", [None, lambda value: value])
def test_a_value_that_is_too_large_for_pydantic(validator: Any) -> None:
    """A value that a query accepts may have any size. With a validator, the column has a column check."""

    class Checked(Lists):
        if validator is not None:
            look = field_validator("a")(validator)

    accepted = pl.DataFrame({"a": [[1] * (ELEMENTS + 1), [2]], "b": ["x", "7"]})
    good, failures = greendata.filter_valid(accepted, Checked)
    assert good["b"].to_list() == [7]
    assert failures.select("row", "column", "rule").row(0) == (0, "a", "column_form")
    undecided = accepted.with_columns(pl.col("a").cast(pl.List(pl.Float64)), b=pl.lit(1))
    good, failures = greendata.filter_valid(undecided, Checked)
    assert (good["a"].to_list(), failures["row"].to_list()) == ([[2]], [0]) if validator else good.height == 2
    nested = pl.DataFrame({"a": [[["x"] * ELEMENTS]]})
    assert "has more than 65536 elements" in greendata.filter_valid(nested, Checked).failures["message"][0]
    small = greendata.filter_valid(undecided.with_columns(pl.col("a").list.head(ELEMENTS)), Checked)
    assert small.failures.height == 0


def test_the_text_of_an_invalid_value_is_short() -> None:
    df = pl.DataFrame({"a": [["x" * 10_000]], "b": [["y" * 10_000, "z"]]})
    _, failures = greendata.filter_valid(df, Lists)
    assert failures["value"].str.len_chars().max() == 200
    assert "'z'" in failures["value"][1]


def test_the_text_of_the_error_is_made_on_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making the text takes a query over all failures, which must not run when the error is made or shown."""
    threads: list[int] = []
    made = FrameInvalid._text.func

    def watched(error: FrameInvalid) -> str:
        threads.append(native.get_ident())
        return made(error)

    monkeypatch.setattr(FrameInvalid._text, "func", watched)
    FrameInvalid("User", 1, pl.DataFrame())
    assert threads == []
    with pytest.raises(FrameInvalid) as caught:
        greendata.validate(pl.DataFrame({"age": ["x"]}), create_model("User", age=(int, ...)))
    assert "1 failure in 1 of 1 row" in str(caught.value)
    assert len(threads) == 1
    assert native.get_ident() not in threads


@pytest.mark.parametrize("kind", ["text", "frame"])
def test_a_slice_ends_in_time_whatever_its_rows_cost(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are cheap may be followed by hundreds that are not. With a budget of nothing, a slice has one row."""
    turns: list[int] = []

    class Row(BaseModel):
        a: list[int]

        @field_validator("a")
        @classmethod
        def note(cls, value: list[int]) -> list[int]:
            turns.append(len(ticks))
            return value

    ticks: list[None] = []

    def tick() -> None:
        while True:
            ticks.append(None)
            gevent.sleep(0)

    monkeypatch.setattr("greendata.hub.pacing.BUDGET", 0.0)
    ticker = gevent.spawn(tick)
    try:
        if kind == "text":
            df = greendata.decode(b'{"a": [1]}\n' * 20 + b'{"a": [2, 3]}\n' * 20, "ndjson", model=Row)
        else:
            df = greendata.validate(pl.DataFrame({"a": [[1]] * 20 + [[2, 3]] * 20}), Row)
    finally:
        ticker.kill()
    assert df["a"].to_list() == [[1]] * 20 + [[2, 3]] * 20
    assert len(set(turns)) == 40  # the ticker had a turn after each row
