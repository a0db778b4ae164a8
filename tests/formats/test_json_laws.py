"""Rows of JSON are valid exactly if ``Model.model_validate_json`` accepts them, and have the values that it returns."""

from __future__ import annotations

import base64
import json
import re
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from uuid import UUID

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from pydantic import (
    AfterValidator,
    AliasChoices,
    AwareDatetime,
    Base64Bytes,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    RootModel,
    ValidationError,
    ValidationInfo,
    WrapValidator,
    computed_field,
    create_model,
    field_validator,
    model_validator,
)

from greendata import Frame
from greendata.errors import FrameInvalid, Malformed, UnreadableFile
from greendata.formats.decoders import decode
from greendata.formats.encoders import encode
from greendata.formats.format import Format
from greendata.formats.json import rows as jsonrows
from greendata.query.objects import to_models
from greendata.schema.codecs import EncodeError
from greendata.schema.failures import Failure, failures_in, failures_of, shown_value
from greendata.schema.fields import columns_of
from greendata.typed import ndjson_scan
from greendata.validation.column_validation import runs_code
from greendata.validation.verbs import validate
from tests.support.laws import TEXTS

pytestmark = pytest.mark.once("patched")  # values only: patching makes no difference


class Colour(Enum):
    RED = "red"
    GREEN = "green"


class Number(IntEnum):
    ONE = 1
    TEN = 10


class Plain(BaseModel):
    a: int
    b: float = 0.5
    c: str | None = None
    d: bool | None = True


class Inner(BaseModel):
    a: int
    b: int = 7
    c: list[float] = Field(default_factory=lambda: [1.0])


class Nested(BaseModel):
    a: Inner
    b: list[Inner] = []
    c: Inner | None = Inner(a=1)


class Lists(BaseModel):
    a: list[int]
    b: set[str] | None = None
    c: tuple[int, str] = (1, "x")
    d: list[list[float | None]] = []


class Dicts(BaseModel):
    a: dict[str, int]
    b: dict[int, list[str]] = {}


class Moments(BaseModel):
    a: date | None = None
    b: datetime | None = None
    c: AwareDatetime | None = None
    d: time | None = None


class Leaves(BaseModel):
    model_config = ConfigDict(val_json_bytes="utf8")
    a: Decimal | None = None
    b: UUID | None = None
    c: bytes | None = None
    d: timedelta | None = None


class Choices(BaseModel):
    a: Colour | None = None
    b: Number | None = None
    c: Literal["red", "abc"] | None = None
    d: Literal[1, 7] | None = None


class Bounds(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True, str_to_upper=True, coerce_numbers_to_str=True)
    a: Annotated[int, Field(ge=0, le=1000, multiple_of=5)] = 5
    b: Annotated[float, Field(gt=-1, allow_inf_nan=False)] = 1.0
    c: Annotated[str, Field(max_length=3, pattern="^[A-Za-z0-9. ]*$")] = "x"
    d: Annotated[Decimal, Field(max_digits=5, decimal_places=2)] = Decimal(1)


class Aliases(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    x: int = Field(alias="a")
    y: int = Field(default=3, validation_alias=AliasChoices("b", "c"))


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int
    b: int = 1
    c: Inner | None = None


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    a: int | None = None
    b: float | None = None
    c: date | None = None
    d: tuple[int, ...] = ()


class Twice(BaseModel):
    model_config = ConfigDict(val_json_bytes="hex")
    a: Base64Bytes | None = None
    b: list[bytes] = []


class Base64(BaseModel):
    model_config = ConfigDict(val_json_bytes="base64", use_enum_values=True)
    a: bytes | None = None
    b: Colour | None = None
    c: Json[list[int]] | None = None


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("even")
    return value


class Careful(BaseModel):
    a: Annotated[int, AfterValidator(_odd)] = 1
    b: Annotated[int, BeforeValidator(lambda value: 5 if value == "five" else value)] = 5
    c: Annotated[str, WrapValidator(lambda value, handler: f"<{handler(value)}>")] = "?"
    d: int = Field(default_factory=lambda: 9, validate_default=True)


class Informed(BaseModel):
    a: int
    b: int = Field(default_factory=lambda data: data["a"] + 1)

    @field_validator("b")
    @classmethod
    def more(cls, value: int, info: ValidationInfo) -> int:
        if info.mode != "json" or value < info.data.get("a", 0):
            raise ValueError("less than a")
        return value


class Before(BaseModel):
    a: int
    b: int = 2

    @model_validator(mode="before")
    @classmethod
    def keys(cls, row: Any) -> Any:
        return {"a": len(row), "b": 1} if isinstance(row, list) else row


class After(BaseModel):
    a: int
    b: int = 2

    @model_validator(mode="after")
    def ordered(self) -> After:
        if self.a > self.b:
            raise ValueError("a is more than b")
        return self

    @computed_field  # type: ignore[prop-decorator]
    @property
    def c(self) -> int:
        return self.a + self.b


class Root(RootModel[list[int]]):
    pass


class Rooted(BaseModel):
    a: Root
    b: Root = Root([1])


class Kept(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int = 0
    b: list[int] = []
    d: Decimal | None = None


MODELS = (
    Plain,
    Nested,
    Lists,
    Dicts,
    Moments,
    Leaves,
    Choices,
    Bounds,
    Aliases,
    Closed,
    Strict,
    Base64,
    Twice,
    Careful,
    Informed,
    Before,
    After,
    Rooted,
)

NUMBERS = (
    "0",
    "-0",
    "1",
    "-1",
    "5",
    "7",
    "10",
    "1000",
    "9007199254740993",
    "999999999999999999",
    "1000000000000000000",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "123456789012345678901234567890",
    "0.0",
    "-0.0",
    "1.0",
    "1.5",
    "2.50",
    "-1.5",
    "0.1",
    "1e3",
    "1E+2",
    "1e-7",
    "1e22",
    "1e23",
    "1e308",
    "1e400",
    "-1e400",
    "1e-400",
    "123456789012345.6",
    "0.30000000000000004",
    "2.2250738585072014e-308",
    "9007199254740993.0",
    "100000000000000000000000000.0",
    "0.1000000000000000055511151231257827",
)
OTHERS = ("null", "true", "false", "NaN", "Infinity", "-Infinity")
SPELT = (
    r'"\u0000"',
    r'"\ud83d\ude00"',
    r'"\uD83D\uDE00"',
    r'"\u00e9\/\b\f"',
    '"é"',
    '"😀"',
    r'"\\\""',
    '"},{"',
    '"[[["',
)
BROKEN = (
    r'"\ud800"',
    r'"\udc00\ud800"',
    r'"\x"',
    '"a\tb"',
    "01",
    "1.",
    ".5",
    "+1",
    "nul",
    "[1,]",
    '{"a":1,}',
    "{'a':1}",
    '"',
    "[",
    "1 1",
)
NESTED = (
    "[]",
    "[1]",
    "[1, 2.0]",
    "[null]",
    '["a", "b", "a"]',
    "[[1.5], [null, 2]]",
    '[1, "x"]',
    '{"a": 1}',
    '{"a": 1, "b": 2}',
    '{"b": 2, "a": 1}',
    '{"a": 1, "b": 2, "c": [1, 2.5]}',
    '{"a": 1, "c": null}',
    '{"a": 1, "a": 2}',
    '{"1": ["x"], "x": 3}',
    "{}",
    '[{"a": 1}, {"a": 2, "b": 3}]',
    '[{"a": 1, "b": null}]',
    '[{"a": "1"}, {"a": 2.0}]',
)
REGULAR: dict[type[BaseModel], tuple[str, ...]] = {
    Plain: ("1", "2.5", '"x"', "true"),
    Nested: ('{"a": 1, "b": 2, "c": [1, 2.5]}', '[{"a": 1, "b": 3}]', '{"a": 1, "b": 2, "c": []}'),
    Lists: ("[1, 2]", '["x", "y"]', '[1, "z"]', "[[1.5], [null, 2]]"),
    Dicts: ('{"x": 1, "y": 2}', '{"1": ["x"]}'),
    Moments: ('"2024-02-29"', '"2024-02-29T12:30:59"', '"2024-02-29T12:30:59Z"', '"12:30"'),
    Leaves: ('"1.50"', '"123e4567-e89b-12d3-a456-426614174000"', '"YQ=="', '"P1D"'),
    Choices: ('"red"', "1", '"abc"', "7"),
    Base64: ('"YQ=="', '"red"', '"[1, 2]"'),
    Rooted: ("[1]", "[2, 3]"),
    Twice: ('"59513d3d"', '["59"]'),
}

texts = st.sampled_from(TEXTS).map(json.dumps) | st.text(max_size=4).map(lambda s: json.dumps(s, ensure_ascii=False))
tokens = st.one_of(st.sampled_from((*NUMBERS, *OTHERS, *SPELT)), st.sampled_from(NESTED), texts)
broken = st.sampled_from(BROKEN)
keys = st.sampled_from(("a", "b", "c", "d", "x", "y", "z", "é", 'q"', "\\u0061"))
space = st.sampled_from(("", "", " ", "\t", "\r"))


@st.composite
def rows(draw: st.DrawFn, model: type[BaseModel]) -> str:
    """Generate a row for the model: mostly a regular one, sometimes with values or keys changed."""
    regular = REGULAR.get(model, ("1", "2", "3", "4"))
    members = [(key, value) for key, value in zip("abcd", regular, strict=False)]
    for _ in range(draw(st.integers(0, 3))):
        change = draw(st.sampled_from(("value", "drop", "add", "move", "double")))
        at = draw(st.integers(0, max(0, len(members) - 1)))
        if change == "add" or not members:
            members.insert(at, (draw(keys), draw(tokens)))
        elif change == "value":
            members[at] = (members[at][0], draw(tokens if draw(st.integers(0, 30)) else broken))
        elif change == "drop":
            del members[at]
        elif change == "move":
            members.insert(0, members.pop(at))
        else:
            members.append((members[at][0], draw(tokens)))
    if not draw(st.integers(0, 40)):
        return draw(tokens)
    gap = draw(space)
    written = (
        f'{gap}"{key}"{gap}:{gap}{value}{gap}' if '"' not in key else f'"q\\"":{value}' for key, value in members
    )
    return "{" + ",".join(written) + "}"


def expected_by_pydantic(texts: list[str], model: type[BaseModel]) -> tuple[pl.DataFrame | None, pl.DataFrame | None]:
    """Return the valid frame, or all failures; two times None if a row is not JSON."""
    columns = columns_of(model)
    failures: list[Failure] = []
    values: list[list[Any]] = [[] for _ in columns]
    for number, text in enumerate(texts):
        try:
            row = model.model_validate_json(text)
        except ValidationError as error:
            if any(found["type"] == "json_invalid" and not found["loc"] for found in error.errors()):
                return None, None
            failures += failures_in(error, number)
            continue
        for column, packed in zip(columns, values, strict=True):
            value = getattr(row, column.field)
            try:
                packed.append(column.codec.encode(value))
            except EncodeError as unfit:
                failures.append((number, column.name, shown_value(value), "column_form", str(unfit)))
    if failures:
        return None, failures_of(failures)
    return pl.DataFrame(
        [
            pl.Series(column.name, packed, dtype=column.codec.dtype)
            for column, packed in zip(columns, values, strict=True)
        ]
    ), None


def outcome_of(content: bytes, format: Format, model: type[BaseModel]) -> tuple[Any, Any]:
    try:
        return decode(content, format, model=model), None
    except FrameInvalid as invalid:
        return None, invalid.failures
    except Malformed:
        return None, None


def assert_agrees(texts: list[str], model: type[BaseModel]) -> None:
    """Assert that `decode` agrees with pydantic about a body of these rows, as JSON and as NDJSON."""
    good, failures = expected_by_pydantic(texts, model)
    for format, content in (("json", f"[{','.join(texts)}]"), ("ndjson", "\n".join(texts))):
        found, failed = outcome_of(content.encode(), format, model)  # type: ignore[arg-type]
        assert (found is None, failed is None) == (good is None, failures is None), (found, failed, good, failures)
        if good is not None:
            assert_frame_equal(found.select(good.columns), good, check_exact=True)
        if failures is not None:
            assert {*failed.drop("line", strict=False).rows()} == {*failures.rows()}


@pytest.mark.parametrize("model", MODELS)
@given(data=st.data())
@settings(max_examples=60)
def test_each_row_is_validated_by_its_own_text(model: type[BaseModel], data: st.DataObject) -> None:
    some = data.draw(st.lists(rows(model), max_size=5))
    times = data.draw(st.sampled_from((1, 1, 1, 2)))
    assert_agrees(some * times, model)


ODD = (
    '{"a": 9007199254740993, "b": 1.5, "c": "x", "d": null}',
    '{"a": 1.0, "b": 2, "c": "x", "d": true}',
    '{"a": 5, "c": "x"}',
    '{"a": 1, "a": 2, "b": 1, "c": "x", "d": true}',
    '{"d": true, "c": "\\u0000", "b": 1e22, "a": -1}',
    '{"a": "x", "b": 1.5, "c": "x", "d": true}',
    '{"a": 123456789012345678901234567890, "b": 1.5, "c": "x", "d": true}',
    '{"a": 1, "b": NaN, "c": "x", "d": true, "e": [{}]}',
    "[1]",
)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 200])
def test_one_different_row_changes_no_other(odd: str, count: int) -> None:
    for at in {0, count // 2, 62 % count, count - 1}:
        some = [f'{{"a": {number}, "b": {number / 7}, "c": "{number}", "d": null}}' for number in range(count)]
        some[at] = odd
        assert_agrees(some, Plain)


def test_rows_of_many_shapes() -> None:
    """Interleave more shapes than are tried, each of several rows."""
    shapes = [dict.fromkeys(f"k{number}" for number in range(start, 14)) for start in range(14)]
    some = [json.dumps({**shapes[number % 14], "a": number, "b": number / 3}) for number in range(200)]
    assert_agrees(some, Plain)
    assert_agrees([text.replace('"a"', '"e"') for text in some], Closed)
    assert_agrees([text.replace("null", "{}" if number % 2 else "[[]]") for number, text in enumerate(some)], Plain)


@pytest.mark.parametrize("model", [Plain, Nested, Lists, Closed, Careful, Dicts])
@given(data=st.data())
@settings(max_examples=30)
def test_columns_are_validated_row_by_row(model: type[BaseModel], data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(("a", "b", "c", "d", "x")), unique=True, max_size=4))
    height = data.draw(st.integers(0, 4))
    cells = {name: [data.draw(tokens) for _ in range(height)] for name in names}
    written = ", ".join(f'"{name}" : [{" , ".join(values)}]' for name, values in cells.items())
    pairs = [[f'"{name}":{cells[name][row]}' for name in names] for row in range(height if names else 0)]
    good, failures = expected_by_pydantic([f"{{{','.join(members)}}}" for members in pairs], model)
    found, failed = outcome_of(f"{{{written}}}".encode(), "json", model)
    if good is not None:
        assert_frame_equal(found.select(good.columns), good, check_exact=True)
    if failures is not None:
        assert {*failed.drop("line", strict=False).rows()} == {*failures.rows()}


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int = 1


def test_extra_keys_are_kept_where_the_model_allows_them() -> None:
    for format, content in (("json", b'[{"b": "x"}, {"a": 1.0}]'), ("ndjson", b'{"b": "x"}\n{"a": 1.0}')):
        found = decode(content, format, model=Open)  # type: ignore[arg-type]
        assert found.to_dicts() == [{"a": 1, "b": "x"}, {"a": 1, "b": None}]
    assert decode(b"[{}]", "json", model=Open).to_dicts() == [{"a": 1}]
    assert decode(b"[]", "json", model=Open).shape == (0, 1)


@pytest.mark.parametrize("size", [1, 3_000])
def test_extra_keys_are_read_from_all_rows_at_once_and_fields_are_not(size: int) -> None:
    """Test bodies of many megabytes, and fields of several kinds."""
    pad = "x" * 2_000
    large = 9007199254740993
    for one, other, values in ((str(large), "1.5", [large, Decimal("1.5")]), ("1", '"x"', ["1", "x"])):
        some = [f'{{"a": {field}, "z": {z}, "p": "{pad}"}}' for field, z in (("true", one), ('"7"', other))]
        rows = [some[0]] * size + [some[1]] * size
        found = decode("\n".join(rows).encode(), "ndjson", model=Open)
        assert [found["a"][0], found["a"][-1]] == [1, 7]
        assert [found["z"][0], found["z"][-1]] == values

    class Wide(Open):
        b: list[dict[str, Decimal]] = []

    found = decode(b'[{"b": [{"m": "1.50"}, {}], "z": 1}, {"b": [], "a": true}, {"a": 1}]', "json", model=Wide)
    assert found["z"].to_list() == [1, None, None]
    assert found["a"].to_list() == [1, 1, 1]
    with pytest.raises(Malformed, match="row 1: z"):
        decode(b'[{"a": 1},{"z": {"x": 1}},{"z": "x"}]', "json", model=Open)


@pytest.mark.parametrize("format", ["json", "ndjson"])
def test_extra_keys_are_read_whatever_the_fields_hold(format: Format) -> None:
    """Polars finds no common type for the values of these fields."""
    model = create_model("M", __config__={"extra": "allow"}, f=(list[dict[str, Any]], ...), **{"g ": (Any, ...)})
    rows = [
        '{"f": [{"x": 1}, {}], "g ": {"x": 1, "z": 2}, "n": {"f": 7}}',
        '{"f": [{"x": 1}, {}], "g ": {}}',
        '{"n": {"f": 9}, "f": [{"a": [1, {"b": null}]}], "g ": true}',
    ]
    body = "\n".join(rows) if format == "ndjson" else f"[{','.join(rows)}]"
    found = decode(body.encode(), format, model=model)
    assert found["n"].to_list() == [{"f": 7}, None, {"f": 9}]
    expected = [model.model_validate_json(row) for row in rows]
    models = to_models(found, model)
    assert [(one.f, getattr(one, "g ")) for one in models] == [(one.f, getattr(one, "g ")) for one in expected]
    with pytest.raises(Malformed, match="row 1"):
        decode(body.replace('"g ": {}', '"g ": {}, "n": [1]').encode(), format, model=model)


def test_defaults_that_are_null_have_their_own_types() -> None:
    """Polars would treat them as one when it eliminates common subexpressions."""
    found = decode(b'[{"c": "YQ==", "d": "P1D"}, {"a": 1}]', "json", model=Leaves)
    assert found.schema == pl.Schema({column.name: column.codec.dtype for column in columns_of(Leaves)})
    assert validate(pl.DataFrame({"c": ["YQ=="], "d": ["P1D"]}), Leaves).schema == found.schema


def test_no_rows_are_valid_rows() -> None:
    for format, content in (
        ("json", b"[]"),
        ("json", b"{}"),
        ("json", b'{"a": []}'),
        ("ndjson", b""),
        ("ndjson", b"\n"),
    ):
        found = decode(content, format, model=Closed)  # type: ignore[arg-type]
        assert found.schema == pl.Schema({"a": pl.Int64, "b": pl.Int64, "c": found.schema["c"]})
        assert found.height == 0
    assert decode(b"[{}, {}]", "json", model=Open).height == 2


def test_a_byte_order_mark_is_ignored() -> None:
    for format, content in (("json", b'[{"a": 1}]'), ("json", b'{"a": [1]}'), ("ndjson", b'{"a": 1}\n')):
        assert decode(b"\xef\xbb\xbf" + content, format, model=Closed)["a"].to_list() == [1]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("format", "content", "line", "reason"),
    [
        ("json", b'[\n{"a":1,}\n]', 2, "trailing comma"),
        ("json", b'[{"a":1}\n{"a":2}]', 2, 'expected a comma or the end, got {"a":2}'),
        ("json", b'[{"a":1},\n\n{"a":\n"\t"}]', 4, "control character"),
        ("json", b'\xef\xbb\xbf\n[{"a":1},\n{"a":1', 3, "the array does not end with ]"),
        ("json", b'[{"a":1},\n{"a":"2}]', 2, "the value that begins with { has no end"),
        ("json", b'\n[{"a":1},]', 2, "nothing follows the last comma"),
        ("json", b'[{"a":1},\n{"a":"\xff"}]', 2, "it is not UTF-8"),
        ("json", b'[{"a":1},\n{"a":"\\ud800"}]', 2, "unexpected end of hex escape"),
        ("json", b'{"a":[1],\n"b":x}', None, "expected an array of objects or an object of arrays, got x"),
        ("json", b'{"a":[1,nul]}', None, "expected ident"),
        ("json", b"[" * 300 + b"]" * 300, None, "nests"),
        ("ndjson", b'{"a":1}\n\n{"a":1}x\n', 3, "trailing characters"),
        ("ndjson", b'{"a":1}\n{"a":', 2, "EOF while parsing a value"),
        ("ndjson", b'{"a":1}\n\xff\n', 2, "it is not UTF-8"),
    ],
)
def test_the_line_of_invalid_json(format: Format, content: bytes, line: int | None, reason: str) -> None:
    with pytest.raises(Malformed) as caught:
        decode(content, format, model=Closed)
    assert reason in str(caught.value)
    assert caught.value.line == line


def test_a_row_that_is_not_an_object_is_a_failure_of_that_row() -> None:
    with pytest.raises(FrameInvalid) as caught:
        decode(b'[{"a": 1}, 5, null]', "json", model=Closed)
    assert caught.value.failures.select("row", "rule").rows() == [(1, "model_type"), (2, "model_type")]


def test_a_row_of_too_many_elements_is_a_failure() -> None:
    row = '{"a": 1, "c": {"a": 1, "e": [%s]}}' % ("1," * 70_000 + "1.0")
    with pytest.raises(FrameInvalid) as caught:
        decode(f'{{"a": 2}}\n{row}'.encode(), "ndjson", model=Closed)
    assert caught.value.failures.select("row", "rule").rows() == [(1, "column_form")]
    text = json.dumps({"a": "1", "c": {"a": 1, "e": ",".join("x" * 90_000)}})
    assert decode(f"[{text}]".encode(), "json", model=Closed).height == 1


@pytest.mark.parametrize("format", ["json", "ndjson"])
def test_bytes_are_in_base64_as_encode_writes_them(format: Format) -> None:
    class Part(BaseModel):
        x: bytes
        y: dict[str, bytes] = {}

    class Whole(BaseModel):
        a: bytes
        b: list[bytes | None]
        c: Part
        d: Annotated[bytes, Field(min_length=2)] | None = None

    class Text(Whole):
        model_config = ConfigDict(val_json_bytes="utf8")

    rows = [Whole(a=b"\xff\x00", b=[b"\xfe", None], c=Part(x=b"a", y={"k": b"\x80"}), d=b"\x00\x00")] * 2
    df = Frame[Whole].from_rows(rows).to_frame()
    body = b"".join(encode(df, format))
    for regular in (df, df.with_columns(d=pl.Series([b"ab", None]))):
        content = b"".join(encode(regular.drop("c"), format))
        flat = create_model("Flat", a=(bytes, ...), b=(list[bytes | None], ...), d=(bytes | None, None))
        assert_frame_equal(decode(content, format, model=flat), regular.drop("c"))
    found = decode(body.replace(b'[{"key":"k","value":"gA=="}]', b'{"k":"gA=="}'), format, model=Whole)
    assert_frame_equal(found, df)
    row = b'{"a":"pw!","b":[],"c":{"x":"YQ=="}}'
    with pytest.raises(FrameInvalid, match="Data should be valid base64"):
        decode(row, "ndjson", model=Whole)
    assert decode(row, "ndjson", model=Text)["a"].to_list() == [b"pw!"]


@pytest.mark.parametrize("model", [*MODELS, Kept])
@given(data=st.data())
@settings(max_examples=30)
def test_lines_of_a_file_are_validated_by_their_own_text(
    model: type[BaseModel], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """For a model that runs code, they may be rejected instead, if a frame would change some value."""
    some = data.draw(st.lists(rows(model), max_size=5))
    path = tmp_path_factory.mktemp("lines") / "rows.ndjson"
    path.write_text("\ufeff" + "\n\n".join(some), encoding="utf-8")
    good, failures = expected_by_pydantic(some, model)
    try:
        frame = Frame[model].scan_ndjson(path)  # type: ignore[valid-type]
    except UnreadableFile:
        if runs_code(model) or model is Kept:
            return
        raise
    found, failed = valid_of(frame)
    assert (found is None, failed is None) == (good is None, failures is None), (found, failed, good, failures)
    if good is not None:
        assert_frame_equal(found.select(good.columns), good, check_exact=True)
    if failures is not None:
        assert {*failed.drop("line", strict=False).rows()} == {*failures.rows()}

    if good is not None:
        assert [*frame.collect()] == [model.model_validate_json(text) for text in some]
    changed = valid_of(frame.filter(pl.lit(value=True)))
    if changed[0] is not None:
        assert_frame_equal(changed[0].select(found.columns), found, check_exact=True)


def valid_of(frame: Frame[Any]) -> tuple[pl.DataFrame | None, pl.DataFrame | None]:
    """Return the rows of *frame*, or its failures; two times None if the file is rejected before validation."""
    try:
        return frame.to_frame(), None
    except FrameInvalid as invalid:
        return None, invalid.failures
    except UnreadableFile:
        return None, None


def test_failures_in_all_batches_of_a_file_are_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ndjson_scan, "ROWS", 10)
    path = tmp_path / "rows.ndjson"
    path.write_text("".join(f'{{"a": {number if number % 33 else "null"}}}\n' for number in range(100)))
    frame = Frame[Plain].scan_ndjson(path)
    for take in (frame.collect, frame.filter(pl.col("a") > 50).collect, lambda: list(frame.stream())):
        with pytest.raises(FrameInvalid) as caught:
            take()
        assert caught.value.failures["row"].to_list() == [0, 33, 66, 99]
    path.write_text("".join(f'{{"a": {number}}}\n' for number in range(100)) + "[\n")
    with pytest.raises(UnreadableFile, match=r"line 101: Invalid JSON: EOF"):
        frame.collect()
    path.write_text('{"a": 1}\n{"a": 7.0, "b": 9007199254740993}\n{"a": 3, "z": [{}]}\n')
    assert [row.a for row in frame.filter(pl.col("a") > 1).collect()] == [7, 3]
    assert frame.head(1).select("a").collect()[0].a == 1


def test_validators_run_once_for_a_file(tmp_path: Path) -> None:
    class Split(BaseModel):
        a: Annotated[list[int], BeforeValidator(lambda text: text.split(","))]

    path = tmp_path / "rows.ndjson"
    path.write_text('{"a": "1,2"}\n')
    assert Frame[Split].scan_ndjson(path).collect() == [Split(a="1,2")]


def test_a_model_with_a_deferred_build_is_completed_first() -> None:
    class Late(BaseModel):
        model_config = ConfigDict(defer_build=True)
        a: Annotated[list[int], BeforeValidator(lambda text: text.split(","))]

    assert runs_code(Late)
    assert not runs_code(create_model("Plain", __config__=ConfigDict(defer_build=True), a=(int, ...)))


def test_values_that_nest_deeper_than_their_column() -> None:
    """They have no shape, since the pattern of a value doubles with each level."""
    deep = "[" * 40 + "]" * 40
    assert_agrees([f'{{"a": 1, "b": {deep}}}', '{"a": 2}', f'{{"a": {deep}}}', f'{{"z": {deep}, "a": 3}}'], Plain)
    assert_agrees([f'{{"a": 1, "z": {deep}}}'] * 3, Plain)


@pytest.mark.parametrize("format", ["json", "ndjson"])
def test_rows_with_too_many_different_keys_are_rejected(format: Format) -> None:
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")
        a: int

    rows = [f'{{"a": 1, "k{number}": 1}}' for number in range(3_000)]
    content = ("[" + ",".join(rows) + "]" if format == "json" else "\n".join(rows)).encode()
    with pytest.raises(Malformed, match=f"not valid {format}: .* bytes for 3000 rows of 3001 columns"):
        decode(content, format, model=Open)
    some = ("[" + ",".join(rows[:300]) + "]" if format == "json" else "\n".join(rows[:300])).encode()
    assert decode(some, format, model=Open).width == 301


@given(st.integers(1, 5), st.integers(0, 4), st.data())
@settings(max_examples=60)
def test_many_columns_give_the_same_rows_as_few(width: int, height: int, data: st.DataObject) -> None:
    texts = st.sampled_from(TEXTS)
    values = st.recursive(st.none() | st.integers() | texts, lambda inner: st.lists(inner, max_size=2), max_leaves=3)
    columns = data.draw(
        st.dictionaries(texts, st.lists(values, min_size=height, max_size=height), min_size=width, max_size=width)
    )
    content = json.dumps(columns, indent=data.draw(st.sampled_from([None, 1]))).encode()
    few = jsonrows.rows_of(content, "json").to_list()
    assert [json.loads(row) for row in few] == [
        {name: column[row] for name, column in columns.items()} for row in range(height)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonrows, "MAX_ZIPPED", 0)
        assert jsonrows.rows_of(content, "json").to_list() == few


def test_an_object_of_very_many_columns() -> None:
    names = [f"k{number}" for number in range(5_000)]
    columns = {**{name: [1, 2] for name in names}, "a": [7, 8], "none": None}
    assert decode(json.dumps(columns).encode(), "json", model=Plain)["a"].to_list() == [7, 8]
    for wrong, reason in (("[1, 2", "no end|does not end"), ("[1 2]", "got 2"), ("5", "got 5"), ("[1]", "unequal")):
        content = json.dumps(columns).replace('"k4999": [1, 2]', f'"k4999": {wrong}').encode()
        with pytest.raises(Malformed, match=reason):
            decode(content, "json", model=Plain)


class Digits(str):
    """A JSON number, as it is written."""


def is_value(cell: Any, value: Any) -> bool:
    """Return True if *cell* has the JSON *value*: exactly, as the nearest float, or as its text."""
    if isinstance(value, Digits):
        if isinstance(cell, bool) or not isinstance(cell, int | float | Decimal | str):
            return False
        written = Decimal(str(value))
        is_float = not str(value).removeprefix("-").isdigit()
        try:
            return Decimal(cell) == written or (is_float and float(cell) == float(str(value)))
        except (ArithmeticError, ValueError):
            return False
    if isinstance(value, bool):
        return cell is value or cell == str(value).lower()
    if isinstance(value, list):
        return isinstance(cell, list) and len(cell) == len(value) and all(map(is_value, cell, value))
    if isinstance(value, dict):
        return (
            isinstance(cell, dict) and {*value} <= {*cell} and all(is_value(cell[key], value.get(key)) for key in cell)
        )
    return bool(cell == value)


def written(members: dict[str, str]) -> str:
    return "{" + ",".join(f'"{key}": {value}' for key, value in members.items()) + "}"


mixed = st.recursive(
    st.sampled_from((*NUMBERS, *SPELT, "null", "true", "false", '"x"', '"1"', '"true"', '"9007199254740993"', "{}")),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3).map(written)
    ),
    max_leaves=5,
)


@given(
    st.lists(st.dictionaries(st.sampled_from("abc"), mixed, max_size=3).map(written), min_size=1, max_size=4),
    st.sampled_from(("rows", "lines", "columns")),
)
@settings(max_examples=400)
def test_a_frame_without_a_model_has_the_values_of_the_json_or_is_rejected(some: list[str], form: str) -> None:
    rows = [json.loads(row, parse_int=Digits, parse_float=Digits) for row in some]
    try:
        if form == "columns":
            found = decode(f'{{"a": [{",".join(some)}]}}'.encode(), "json")
            rows = [{"a": row} for row in rows]
        elif form == "rows":
            found = decode(f"[{','.join(some)}]".encode(), "json")
        else:
            found = decode("\n".join(some).encode(), "ndjson")
    except Malformed:
        return
    assert found.height == len(rows)
    cells = found.to_dicts() if found.width else [{} for _ in rows]
    assert all(map(is_value, cells, rows)), found


@pytest.mark.parametrize(
    ("format", "body", "reason"),
    [
        ("json", '[{"a": [[], 0]}]', r"line 1, row 0: a\.1: 0 would become \[0\] because of other values"),
        ("json", '[{"a": [1]},\n{"a": [0, true]}]', r"line 2, row 1: a\.1: True would become 1"),
        ("json", '[{"a": [{"x": true}, {"x": 7}]}]', r"a\.0\.x: True would become 1"),
        ("json", '{"a": [{"b": "x"}, {"b": []}]}', r"row 0: a\.b: 'x' would become \['x'\]"),
        ("json", '[{"a": [[0], [[1]]]}]', r"a\.0\.0: 0 would become \[0\]"),
        ("json", '[{"a": [[0], null, 1]}]', r"a\.2: 1 would become \[1\]"),
        ("json", '[{"a": {"x": true}}, {"a": {"x": 1.5}}]', r"a\.x: True would become 1\.0"),
        ("ndjson", '{"a": {"x": 1}}\n{"a": "s"}', r"line 1: a: \{'x': 1\} would become"),
        ("ndjson", '{"a": "s"}\n{"a": ["s", {"x": 1}]}', r"line 2: a: \['s', \{'x': 1\}\] would become"),
        ("ndjson", '{"a": ["s", {"x": 1}]}', r"line 1: a\.1: \{'x': 1\} would become"),
    ],
)
def test_values_that_would_be_converted_are_named(format: Format, body: str, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        decode(body.encode(), format)


class Various(BaseModel):
    a: list[int] | None = None
    b: dict[str, int | None] = {}
    c: int | None = 7
    d: str | None = None
    e: Annotated[float, AfterValidator(lambda cents: cents / 100)] = 1.0


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (('{"b": {"x": 1}}', '{"b": {"y": 1}}'), r"line 1: b\.y: the key is absent"),
        (('{"c": null}', "", '{"a": []}'), r"line 3: c: the key is absent"),
        (('{"d": 1}', '{"d": "x"}'), r"line 1: d: 1 would become '1' because"),
        (('{"d": "x", "d": "y"}',), r"line 1: d: 'y' would become 'x'"),
        (('{"d": "1"}', '{"d": true}'), r"line 2: d: True would become 'true'"),
        (("{}",), "line 1: no row of the file has a key"),
    ],
)
def test_lines_that_a_frame_would_change_are_validated_as_text_or_rejected(
    lines: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.ndjson"
    path.write_text("\n".join(lines))
    frame = Frame[Various].scan_ndjson(path)
    good, failures = expected_by_pydantic([line for line in lines if line], Various)
    found, failed = valid_of(frame)
    assert (found is None) is (good is None)
    if found is not None and good is not None:
        assert_frame_equal(found, good)
    if failed is not None and failures is not None:
        assert {*failed.drop("line", strict=False).rows()} == {*failures.rows()}
    for changed in (frame.filter(pl.lit(value=True)), frame.with_columns(z=pl.lit(1)), frame.as_model(Various)):
        with pytest.raises(UnreadableFile, match=reason):
            changed.to_frame()


def test_integers_beside_fractions_in_a_file_are_exact_or_rejected_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.ndjson"
    for lines in ('{"a": [9007199254740993, 1.0]}', '{"a": [9007199254740993]}\n{"a": [1.0]}'):
        path.write_text(lines)
        for frame in (Frame[Various].scan_ndjson(path), Frame[Various].scan_ndjson(path).head(5)):
            assert frame.to_dict()["a"][0][0] == 9007199254740993
    monkeypatch.setattr(ndjson_scan, "ROWS", 1)  # so that no batch has both
    frame = Frame[Various].scan_ndjson(path)
    assert frame.to_dict()["a"] == [[9007199254740993], [1]]
    with pytest.raises(UnreadableFile, match=r"line 1: a\.0: 9007199254740993 would become 9007199254740992\.0"):
        frame.head(5).to_frame()


def test_validators_run_once_for_each_row_of_a_valid_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.ndjson"
    path.write_text('{"a": [1], "e": 250}\n{"e": 300.0}\n{"c": 1}\n')
    frame = Frame[Various].scan_ndjson(path, batch_size=2)
    assert [row.e for row in frame.collect()] == [2.5, 3.0, 1.0]
    assert frame.to_dict() == {
        "a": [[1], None, None],
        "b": [[], [], []],
        "c": [7, 7, 1],
        "d": [None] * 3,
        "e": [2.5, 3.0, 1.0],
    }
    with frame.stream(batch_size=2) as stream:
        assert [batch["e"].to_list() for batch in stream] == [[2.5, 3.0], [1.0]]
    with frame.stream(batch_size=1) as stream:
        assert [row.e for some in stream.models() for row in some] == [2.5, 3.0, 1.0]
    assert frame.write_parquet(tmp_path / "rows.parquet") == 3
    assert pl.read_parquet(tmp_path / "rows.parquet")["e"].to_list() == [2.5, 3.0, 1.0]
    path.write_text('{"e": 250}\n{"e": "x"}\n')
    for take in (frame.collect, frame.to_frame, lambda: list(frame.stream(batch_size=1))):
        with pytest.raises(FrameInvalid) as caught:
            take()
        assert caught.value.failures.select("row", "column").rows() == [(1, "e")]


def test_integers_beside_floats_keep_their_digits_in_extra_keys_and_files(tmp_path: Path) -> None:
    found = decode(b'[{"z": 9007199254740993}, {"z": 1.5}]', "json", model=Kept)
    assert found["z"].to_list() == [9007199254740993, Decimal("1.5")]
    path = tmp_path / "rows.ndjson"
    path.write_text('{"a": 9007199254740993}\n{"a": 1.0}\n')
    assert [row.a for row in Frame[Kept].scan_ndjson(path).collect()] == [9007199254740993, 1]
    path.write_text('{"a": 9007199254740993}\n{"a": 1}\n')
    assert [row.a for row in Frame[Kept].scan_ndjson(path).collect()] == [9007199254740993, 1]
    path.write_text('{"d": 9007199254740993}\n{"d": 1.5}\n')
    assert [row.d for row in Frame[Kept].scan_ndjson(path).collect()] == [9007199254740993, Decimal("1.5")]


class Ints(BaseModel):
    m: dict[str, int]


class Floats(BaseModel):
    model_config = ConfigDict(extra="forbid")
    m: dict[str, float | None] | None
    n: int = 0


class Texts(BaseModel):
    m: Annotated[dict[int, Annotated[str, Field(max_length=3)]], Field(min_length=1)] = {7: "x"}


class Days(BaseModel):
    model_config = ConfigDict(strict=True)
    m: dict[str, date]


class Mixed(BaseModel):
    m: dict[str, Decimal]
    o: dict[str, list[int]] = {}


KEYS = r'"a" "b" "" "\u0061" "\ud83d\ude00" "é" "a\"b" "{\"x\":1}" "1" "01" "key" "\ud800"'
VALUES = r'1 -0 1.0 1.5 1e400 99999999999999999999 null true NaN "x" "1" "}" "\"a\":1" "2024-02-29" "2024-02-30" [1] {}'
DICT_KEYS, DICT_VALUES = st.sampled_from(KEYS.split()), st.sampled_from(VALUES.split())


@pytest.mark.parametrize("model", [Ints, Floats, Texts, Days, Mixed])
@given(data=st.data())
@settings(max_examples=60)
def test_dicts_are_validated_row_by_row(model: type[BaseModel], data: st.DataObject) -> None:
    """The keys differ from row to row, and all rows are read together even so."""
    usual = data.draw(st.lists(DICT_VALUES, min_size=1, max_size=2))
    values = st.sampled_from(usual) | DICT_VALUES if data.draw(st.booleans()) else st.sampled_from(usual)
    pairs = st.lists(st.tuples(DICT_KEYS, values), max_size=4)
    objects = pairs.map(lambda some: "{ " + " , ".join(f"{key} :{value}" for key, value in some) + "}")
    rows = data.draw(st.lists(objects | st.just("null"), min_size=1, max_size=8))
    assert_agrees([f'{{"m" : {row}}}' for row in rows], model)


# -- a schema -----------------------------------------------------------------------------------------

leaves = st.sampled_from([
    pl.Int8(), pl.Int64(), pl.UInt64(), pl.Float64(), pl.Boolean(), pl.String(), pl.Decimal(20, 2), pl.Null(),
    pl.Enum(["x", "1"]), pl.Categorical(), pl.Binary(),
])  # fmt: skip
dtypes = st.recursive(
    leaves,
    lambda inner: (
        inner.map(pl.List)
        | inner.map(lambda dtype: pl.Array(dtype, 2))
        | st.dictionaries(st.sampled_from("xyz"), inner, min_size=1, max_size=2).map(pl.Struct)
    ),
    max_leaves=3,
)
FITTING = {
    pl.Boolean: ["true", "false"],
    pl.String: ['"x"', '"1"', '"1.50"'],
    pl.Enum: ['"x"'],
    pl.Binary: ['"eA=="', '"eHg="'],
    pl.Null: ["null"],
}


def fitting(dtype: Any) -> st.SearchStrategy[str]:
    """Generate JSON of mostly the kind that *dtype* needs, with some other values in it."""
    if isinstance(dtype, pl.List | pl.Array):
        size = dtype.size if isinstance(dtype, pl.Array) else None
        items = st.lists(fitting(dtype.inner), min_size=size or 0, max_size=size or 3)
        made = items.map(lambda some: f"[{', '.join(some)}]")
    elif isinstance(dtype, pl.Struct):
        made = st.fixed_dictionaries({}, optional={f.name: fitting(f.dtype) for f in dtype.fields}).map(written)
    else:
        made = st.sampled_from(FITTING.get(type(dtype), ["1", "0", "-7", "1.5"]))
    return st.one_of(made, made, made, st.just("null"), mixed)


def is_cell(cell: Any, value: Any, dtype: Any) -> bool:
    """Return True if *cell* of *dtype* has the JSON *value*. An absent key is null."""
    if value is None or cell is None:
        return value is cell
    if isinstance(dtype, pl.List | pl.Array):
        inner = partial(is_cell, dtype=dtype.inner)
        return isinstance(value, list) and len(value) == len(cell) and all(map(inner, cell, value))
    if isinstance(dtype, pl.Struct):
        return isinstance(value, dict) and all(is_cell(cell[f.name], value.get(f.name), f.dtype) for f in dtype.fields)
    if isinstance(dtype, pl.Binary):
        return type(value) is str and base64.b64encode(cell).decode() == value
    if isinstance(value, str) and not isinstance(value, Digits) and not isinstance(cell, str | bool):
        return bool(Decimal(value) == cell)
    return is_value(cell, value)


@given(st.data(), dtypes, st.sampled_from(("rows", "lines", "columns")))
@settings(max_examples=300)
def test_a_frame_with_a_schema_has_the_values_of_the_json_or_is_rejected(
    data: st.DataObject, dtype: Any, form: str
) -> None:
    values = data.draw(st.lists(fitting(dtype), min_size=1, max_size=3))
    rows = [f'{{"a": {value}}}' for value in values]
    format: Format = "ndjson" if form == "lines" else "json"
    bodies = {"lines": "\n".join(rows), "rows": f"[{','.join(rows)}]", "columns": f'{{"a": [{",".join(values)}]}}'}
    try:
        found = decode(bodies[form].encode(), format, schema=pl.Schema({"a": dtype}))["a"]
    except Malformed:
        return
    expected = [json.loads(value, parse_int=Digits, parse_float=Digits) for value in values]
    assert len(found) == len(expected)
    cells = pl.DataFrame({"a": found}).to_dicts()
    assert all(is_cell(row["a"], value, dtype) for row, value in zip(cells, expected, strict=True)), found


@pytest.mark.parametrize(
    ("dtype", "good", "bad", "reason"),
    [
        (pl.List(pl.Int8), "[5]", "5", r"a: expected a value of type List\(Int8\), got 5"),
        (pl.Array(pl.String, 1), '["x"]', '"x"', "a: expected a value of type Array"),
        (pl.List(pl.List(pl.Int8)), "[[5], []]", "[5]", r"a\.0: expected a value of type List\(Int8\), got 5"),
        (pl.List(pl.List(pl.String)), '[["x"]]', '[["x"], [{"x": 1.50}]]', r"a\.1\.0: expected a value of type String"),
        (pl.String, '"x"', '{"x": 1.50}', r"a: expected a value of type String, got \{'x': 1\.5\}"),
        (pl.String, '"x"', "[1]", "a: expected a value of type String"),
        (pl.List(pl.Categorical), '["x", null]', "[null, [1]]", r"a\.1: expected a value of type Categorical"),
        (pl.List(pl.Null), "[null]", "[null, 1]", r"a\.1: expected a value of type Null, got 1"),
        (pl.Struct({"x": pl.Null}), '{"x": null}', '{"x": "y"}', r"a\.x: expected a value of type Null, got 'y'"),
        (pl.Binary, '"eHg="', "1234", "a: expected a value of type Binary, got 1234"),
        (pl.Binary, '"eHg="', "true", "a: expected a value of type Binary, got True"),
        (pl.List(pl.Binary), '["eHg="]', '["eHg=", 1234]', r"a\.1: expected a value of type Binary"),
    ],
)
@pytest.mark.parametrize("form", ["rows", "lines", "columns", "escaped"])
def test_a_value_of_another_kind_than_its_column_is_rejected(
    dtype: Any, good: str, bad: str, reason: str, form: str
) -> None:
    schema, format = pl.Schema({"a": dtype}), cast("Format", "ndjson" if form == "lines" else "json")
    for values in ([good, "null", good], [good, "null", bad]):
        rows = [f'{{"a": {value}}}' for value in values]
        body = "\n".join(rows) if form == "lines" else f"[{','.join(rows)}]"
        if form == "columns":
            body = f'{{"a": [{",".join(values)}]}}'
        if form == "escaped":
            body = body.replace('"a"', r'"\u0061"')
        if values[2] == good:
            assert decode(body.encode(), format, schema=schema)["a"][1] is None
            continue
        with pytest.raises(Malformed) as caught:
            decode(body.encode(), format, schema=schema)
        assert caught.value.line == {"lines": 3, "rows": 1}.get(form, caught.value.line)
        if "expected a value" in str(caught.value):  # Polars rejects some of them itself
            assert re.search(reason, str(caught.value))
            assert caught.value.column == "a"


@pytest.mark.parametrize("form", ['[{{"a": {}}}]', '{{"a": {}}}', '{{"a": [{}]}}'])
def test_numbers_without_a_fraction_keep_their_digits(form: str) -> None:
    format: Format = "ndjson" if form.startswith("{{") and form.endswith("{}}}") else "json"
    listed = decode(b'[{"a":[1.50]}]', "json", schema=pl.Schema({"a": pl.List(pl.String)}))
    assert listed["a"].to_list() == [["1.50"]]
    for text in ("9007199254740993.0", "123456789012345678.0", "1.23456789012345678e17", "12345678901234567.5"):
        for dtype in (pl.String(), pl.Int64(), pl.Int128(), pl.UInt64()):
            try:
                found = decode(form.format(text).encode(), format, schema=pl.Schema({"a": dtype})).item()
            except Malformed:
                continue
            assert Decimal(found) == Decimal(text)


def test_models_that_nest_deep() -> None:
    """The kinds of their values are looked at once on each level: twice would be a million times at level 20."""
    model = create_model("Leaf", x=(int, ...))
    row, listed = '{"x": 1}', "1"
    nested: Any = int
    for level in range(24):
        model = create_model(f"Level{level}", inner=(model, ...), some=(list[int] | None, None))
        row = f'{{"inner": {row}}}'
        nested, listed = list[nested], f"[{listed}]"
    inner = row.removeprefix('{"inner": ')[:-1]
    for content in (f"[{row}, {row}]", f'{{"inner": [{inner}]}}'):
        df = decode(content.encode(), "json", model=model)
        assert json.dumps(df["inner"][0]).count('"x": 1') == 1
    lists = create_model("Lists", a=(nested, ...))
    assert decode(f'{{"a": {listed}}}\n'.encode(), "ndjson", model=lists)["a"].to_list() == [json.loads(listed)]
    assert decode(f'{{"a": [{listed}]}}'.encode(), "json", model=lists)["a"].to_list() == [json.loads(listed)]
