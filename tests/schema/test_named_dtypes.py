"""Types stored in a dtype that their annotation names: each value comes back unchanged, or does not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from pydantic import (
    AfterValidator,
    Base64Bytes,
    Base64Str,
    Base64UrlBytes,
    Base64UrlStr,
    BaseModel,
    ByteSize,
    EncodedStr,
    EncoderProtocol,
    Field,
    Json,
    Secret,
    SecretBytes,
    SecretStr,
    create_model,
)
from typing_extensions import TypedDict

import greendata
from greendata import Frame
from greendata.errors import FrameInvalid, NoColumnForm
from greendata.formats.format import FORMATS

pytestmark = pytest.mark.once("patched")  # tests values only, which do not depend on patching


class Colour(Enum):
    RED = "red"
    ONE = 1


class Word(Enum):
    A = "a"
    DIGIT = "1"


class Number(IntEnum):
    ONE = 1


class Inner(BaseModel):
    x: int = 1
    y: dict[str, float] | None = None


class Hiding(BaseModel):
    secret: SecretStr


@dataclass
class Point:
    x: int


class Named(NamedTuple):
    x: int
    y: str


class Typed(TypedDict):
    x: int


TEXTS = st.text(max_size=5) | st.sampled_from(["1", "true", "null", '"a"', "{}", "NaN", "1.0", "[1]", "MQ=="])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
KINDS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (str, TEXTS),
    (SecretStr, TEXTS.map(SecretStr)),
    (SecretBytes, st.binary(max_size=4).map(SecretBytes)),
    (Secret[int], st.integers().map(Secret[int])),
    (Secret[date], st.dates().map(Secret[date])),
    (Colour, st.sampled_from(Colour)),
    (Word, st.sampled_from(Word)),
    (Number, st.sampled_from(Number)),
    (Literal["a", 1, None], st.sampled_from(["a", 1])),
    (bytes, st.binary(max_size=4)),
    (dict, st.dictionaries(TEXTS, JSON, max_size=2)),
    (dict[int, str], st.dictionaries(st.integers(), TEXTS, max_size=2)),
    (list[int], st.lists(st.integers(), max_size=2)),
    (list[bytes], st.lists(st.binary(max_size=3), max_size=2)),
    (set[int], st.sets(st.integers(0, 9), max_size=3)),
    (tuple[int, str], st.tuples(st.integers(), TEXTS)),
    (Inner, st.builds(Inner, x=st.integers(-(2**63), 2**63 - 1), y=st.none() | st.just({"a": 0.1}))),
    (int | str, st.integers() | TEXTS),
    (float | str | None, st.floats(allow_nan=False) | TEXTS),
    (bool | int | float | str, st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS),
    (int, st.integers()),
    (bool, st.booleans()),
    (float, st.floats()),
    (Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
    (timedelta, st.timedeltas(timedelta(-(10**6)), timedelta(10**6))),
    (date, st.dates()),
    (datetime, st.datetimes() | st.datetimes(timezones=st.just(UTC))),
    (time, st.times().map(lambda value: value.replace(fold=0))),
    (UUID, st.uuids()),
    (Path, st.sampled_from([Path("a"), Path("/b/c")])),
    (IPv4Address, st.just(IPv4Address("127.0.0.1"))),
    (Point, st.builds(Point, st.integers(-(2**63), 2**63 - 1))),
    (Named, st.builds(Named, st.integers(-(2**63), 2**63 - 1), TEXTS)),
    (Typed, st.fixed_dictionaries({"x": st.integers(-(2**63), 2**63 - 1)})),
    (Any, JSON.filter(lambda value: value is not None)),
    (ByteSize, st.integers(0, 2**60).map(ByteSize)),
]


@pytest.mark.parametrize(("kind", "values"), KINDS, ids=[str(kind) for kind, _ in KINDS])
@settings(max_examples=20)
@given(data=st.data())
def test_values_survive_a_column_of_text(kind: Any, values: st.SearchStrategy[Any], data: st.DataObject) -> None:
    model = create_model("Model", f=(Annotated[kind, pl.String], ...))
    given_rows = [model.model_construct(f=value) for value in data.draw(st.lists(values, min_size=1, max_size=3))]
    rows = Frame[model].from_rows(given_rows)  # type: ignore[valid-type]
    df = rows.plan.collect()
    assert df.schema == {"f": pl.String()}
    for back in (rows.collect(), greendata.to_models(df, model), Frame[model].from_frame(rows.to_frame()).collect()):  # type: ignore[valid-type]
        assert [_shown(row) for row in back] == [_shown(row) for row in given_rows]
    assert_frame_equal(greendata.validate(df, model), df)
    for format in FORMATS:
        body = b"".join(greendata.encode(df, format))
        assert_frame_equal(greendata.decode(body, format, model=model), df)


def _shown(row: Any) -> tuple[type, str]:
    value = row.f.get_secret_value() if isinstance(row.f, Secret | SecretStr | SecretBytes) else row.f
    return type(row.f), value.isoformat() if isinstance(value, datetime | time) else repr(value)


def test_the_texts_in_columns_of_text() -> None:
    def cell(kind: Any, value: Any) -> Any:
        model = create_model("Model", f=(Annotated[kind, pl.String], ...))
        return Frame[model].from_rows([{"f": value}]).plan.collect().item()  # type: ignore[valid-type]

    assert cell(SecretStr, "pw") == "pw"
    assert cell(SecretBytes, b"pw") == cell(bytes, b"pw") == "cHc="
    assert cell(Word, "a") == "a"
    assert cell(dict, {"a": [1, None]}) == '{"a":[1,null]}'
    assert cell(Json, '{"a": 1}') == '{"a":1}'
    assert cell(Json[list[int]], "[1]") == "[1]"
    assert [cell(int | str, value) for value in (1, "1", "one")] == ["\t1", "1", "one"]
    assert cell(timedelta, timedelta(days=1, seconds=2)) == "P1DT2S"
    assert cell(Inner, {"x": 5}) == '{"x":5,"y":null}'


def test_text_from_other_programs_is_validated_by_pydantic() -> None:
    def value(kind: Any, text: str) -> Any:
        model = create_model("Model", f=(Annotated[kind, pl.String], ...))
        return Frame[model].from_columns({"f": pl.Series([text])}).collect()[0].f  # type: ignore[valid-type, attr-defined]

    assert value(int | str, "one") == "one"
    assert value(list[int], "[1, 2]") == [1, 2]
    assert value(timedelta, "P1D") == timedelta(days=1)
    assert value(SecretStr, '"quoted"').get_secret_value() == '"quoted"'
    with pytest.raises(FrameInvalid, match="got no base64: Input should be a valid bytes"):
        value(bytes, "no base64")
    with pytest.raises(FrameInvalid, match="Input should be a valid dictionary"):
        value(dict, "[1]")


@pytest.mark.parametrize(
    ("kind", "dtype", "good", "bad"),
    [
        (SecretBytes, pl.Binary, [b"a"], []),
        (bool | int, pl.Int8, [1], [True]),
        (int, pl.Float64, [1, 2**53], [2**53 + 1]),
        (float, pl.Float32, [0.5, float("inf")], [1e300]),
        (Number, pl.Int8, [1], []),
        (int | float, pl.Float64, [0.5], [1]),
        (UUID, pl.Int64, [], [UUID(int=1)]),
        (Word, pl.Categorical, ["a"], []),
        (SecretStr, pl.Enum(["x"]), ["x"], ["y"]),
        (Hiding, pl.String, [], [{"secret": "pw"}]),
        (Callable[[], int], pl.String, [], [len]),
        (datetime, pl.Date, [], [datetime(2024, 1, 1)]),
    ],
)
def test_other_dtypes_hold_values_that_come_back(kind: Any, dtype: Any, good: list[Any], bad: list[Any]) -> None:
    model = create_model("Model", f=(Annotated[kind, dtype], ...))
    for value in good:
        rows = Frame[model].from_rows([{"f": value}])  # type: ignore[valid-type]
        assert rows.collect() == [model(f=value)]
    for value in bad:
        with pytest.raises(FrameInvalid, match="column_form"):
            Frame[model].from_rows([{"f": value}])  # type: ignore[valid-type]


class Reversed(EncoderProtocol):
    @classmethod
    def decode(cls, data: bytes) -> bytes:
        return data[::-1]

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value[::-1]

    @classmethod
    def get_json_format(cls) -> Literal["reversed"]:
        return "reversed"


@pytest.mark.parametrize(
    "kind",
    [Base64Str, Base64Bytes, Base64UrlStr, Base64UrlBytes, Annotated[str, EncodedStr(Reversed)], list[Base64Str]],
)
@given(plain=st.text("abc {}", max_size=5))
@settings(max_examples=20)
def test_encoded_values_are_decoded_once(kind: Any, plain: str) -> None:
    is_bytes, is_list = kind in (Base64Bytes, Base64UrlBytes), kind == list[Base64Str]
    model = create_model("Model", f=(kind, ...))
    decoded: Any = plain.encode() if is_bytes else [plain] if is_list else plain
    rows = Frame[model].from_rows([model.model_construct(f=decoded)])  # type: ignore[valid-type]
    assert rows.collect() == [model.model_construct(f=decoded)]
    df = rows.to_frame()
    assert_frame_equal(greendata.validate(df, model), df)
    for format in ("json", "ndjson", "arrow", "parquet"):
        body = b"".join(greendata.encode(df, format))  # type: ignore[arg-type]
        assert_frame_equal(greendata.decode(body, format, model=model), df)  # type: ignore[arg-type]


class Grade(Enum):
    LOW = "1"


class Step(IntEnum):
    FAR = 300


NAMED = [
    pl.Boolean, pl.Int8, pl.UInt64, pl.Float32, pl.Decimal(5, 0), pl.String, pl.Binary, pl.Categorical,
    pl.Enum(["1", "300"]), pl.Date, pl.Time, pl.Datetime("ms"), pl.Datetime("us", "UTC"), pl.Duration("ms"),
    pl.Null, pl.Object,
]  # fmt: skip


@pytest.mark.parametrize("dtype", NAMED, ids=str)
def test_choices_in_a_column_of_another_dtype_come_back_or_are_rejected(dtype: Any) -> None:
    for kind, text in (
        (Literal[1, 300], "300"),
        (Literal["1"], '"1"'),
        (Literal[True], "true"),
        (Grade, '"1"'),
        (Step, "300"),
    ):
        model = create_model("Model", f=(Annotated[kind, dtype], ...))  # type: ignore[valid-type]
        body = f'[{{"f": {text}}}, {{"f": {text}}}]'.encode()
        expected = model.model_validate_json(f'{{"f": {text}}}')
        try:
            found = greendata.to_models(greendata.decode(body, "json", model=model), model)
        except (FrameInvalid, NoColumnForm):
            continue
        assert found == [expected, expected]
        assert [type(one.f) for one in found] == [type(expected.f)] * 2  # type: ignore[attr-defined]


def test_types_that_cannot_be_encoded_are_rejected_by_name() -> None:
    class Odd:
        pass

    for kind, dtype in ((Odd, pl.String), (Inner, pl.Struct({"x": pl.Int8})), (set[int], pl.Array(pl.Int8, 2))):
        with pytest.raises(NoColumnForm, match=r"Model\.f"):
            greendata.schema_of(
                create_model("Model", __config__={"arbitrary_types_allowed": True}, f=(Annotated[kind, dtype], ...))
            )


def test_validators_run_as_often_as_elsewhere() -> None:
    seen: list[Any] = []

    def see(value: dict[str, int]) -> dict[str, int]:
        seen.append(value)
        return value | {"seen": 1}

    model = create_model("Model", f=(Annotated[dict[str, int], AfterValidator(see), pl.String], Field(...)))
    rows = Frame[model].from_rows([{"f": {"a": 1}}])  # type: ignore[valid-type]
    assert [row.f for row in rows.collect()] == [{"a": 1, "seen": 1}]  # type: ignore[attr-defined]
    assert len(seen) == 2
