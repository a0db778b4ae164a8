"""Models as people write them: each type has a column from which its values come back, or an error names the field."""

from __future__ import annotations

import re
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum
from ipaddress import IPv4Address, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, Optional, Required, TypeVar
from uuid import UUID

import polars as pl
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AliasChoices,
    AnyUrl,
    AwareDatetime,
    Base64Bytes,
    BaseModel,
    ByteSize,
    ConfigDict,
    Discriminator,
    Field,
    HttpUrl,
    ImportString,
    IPvAnyAddress,
    Json,
    JsonValue,
    PastDate,
    PlainSerializer,
    PlainValidator,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    StringConstraints,
    Tag,
    ValidationError,
    condecimal,
    conint,
    create_model,
)
from typing_extensions import TypeAliasType, TypedDict

import greendata
from greendata import Frame
from greendata.errors import FrameInvalid
from greendata.formats.format import Format

pytestmark = pytest.mark.once("patched")  # tests values only, which do not depend on patching


class Shade(Enum):
    DARK = "dark!"


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str


class Camel(BaseModel):
    first_name: str = Field(alias="firstName")
    last_name: str = Field(alias="last-name")


class Renamed(BaseModel):
    """pydantic dumps names that it does not read."""

    a: int = Field(validation_alias=AliasChoices("a", "A"), serialization_alias="b")
    c: int | None = Field(validation_alias="d", serialization_alias="e", default=None)


class Base(BaseModel):
    x: int


class Derived(Base):
    y: str


@dataclass
class Point:
    x: int
    label: str | None = None


@pydantic.dataclasses.dataclass
class Aliased:
    x: int = Field(alias="ex")
    day: date | None = None


@dataclass
class WithUnion:
    value: int | str


@dataclass
class WithComputed:
    x: int
    twice: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.twice = 2 * self.x


@dataclass
class Tree:
    value: int
    children: list[Tree] = field(default_factory=list)


class Total(TypedDict):
    x: int
    y: str


class Partial(TypedDict, total=False):
    x: Required[int]
    y: str


class Loose(TypedDict):
    x: int
    y: NotRequired[int | None]


class Named(NamedTuple):
    x: int
    y: str = "y"


Untyped = namedtuple("Untyped", "a b")
T = TypeVar("T")


class Box(BaseModel, Generic[T]):
    item: T
    more: list[T] = []


class Ints(RootModel[list[int]]):
    pass


class Counts(RootModel[dict[str, int]]):
    pass


class Mixed(RootModel[int | str]):
    pass


class Maybe(RootModel[int | None]):
    pass


class Node(BaseModel):
    value: int
    children: list[Node] = []


class Empty(BaseModel):
    pass


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    x: int


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Odd(Enum):
    ONE = 1
    TWO = "two"


class Size(IntEnum):
    SMALL = 1


class Word(StrEnum):
    YES = "yes"


class Bits(Flag):
    LOW = 1
    HIGH = 2


def kind_of_pet(value: Any) -> Any:
    return value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)


def to_complex(value: Any) -> complex:
    return value if isinstance(value, complex) else complex(str(value))


def from_complex(value: complex) -> str:
    return str(value)


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]
TaggedPet = Annotated[Annotated[Cat, Tag("cat")] | Annotated[Dog, Tag("dog")], Discriminator(kind_of_pet)]
Recursive = TypeAliasType("Recursive", "list[Recursive] | dict[str, Recursive] | int | str | None")  # type: ignore[misc]
MIDNIGHT = datetime(2020, 1, 1)

# A type, its dtype, and values of it.
KINDS: list[tuple[Any, pl.DataType, list[Any]]] = [
    # unions
    (int | str, pl.String(), [1, "1", "one", "\t1", "null", ""]),
    (int | float, pl.String(), [1, 1.0, 2.5, 10**18]),
    (float | int, pl.String(), [1, 1.0]),
    (bool | int, pl.String(), [True, 1, 0]),
    (int | str | None, pl.String(), [None, 1, "a"]),
    (datetime | date, pl.String(), [MIDNIGHT.date(), MIDNIGHT, datetime(2020, 1, 1, 1, 2, 3, 4, tzinfo=UTC)]),
    (date | datetime, pl.String(), [MIDNIGHT.date(), MIDNIGHT]),
    (str | date, pl.String(), ["2020-01-01", MIDNIGHT.date()]),
    (UUID | str, pl.String(), [UUID(int=1), str(UUID(int=1)), "x"]),
    (str | UUID, pl.String(), [UUID(int=1), str(UUID(int=1)), "x"]),
    (bytes | str, pl.String(), [b"\xff", "a", b"a"]),
    (int | Decimal, pl.String(), [1, Decimal("1.0"), Decimal(1)]),
    (str | timedelta, pl.String(), ["P1D", timedelta(1)]),
    (list[int] | int, pl.String(), [[1], 1]),
    (list[str] | str, pl.String(), [["a"], "a", '["a"]']),
    (dict[str, int] | str, pl.String(), [{"a": 1}, {"str": 1}, "a"]),
    (set[int] | list[int], pl.String(), [{1}, [1]]),
    (tuple[int, str] | list[int], pl.String(), [(1, "a"), [1]]),
    (Cat | Dog, pl.String(), [Cat(lives=9), Dog(name="Rex")]),
    (Pet, pl.String(), [Cat(lives=9), Dog(name="Rex")]),
    (TaggedPet, pl.String(), [Cat(lives=9), Dog(name="Rex")]),
    (Cat | int | str, pl.String(), [Cat(lives=9), 1, "1", '{"kind":"cat","lives":9}']),
    (Camel | int, pl.String(), [Camel(firstName="a", **{"last-name": "b"}), 1]),
    (Camel | Base, pl.String(), [Camel(firstName="a", **{"last-name": "b"}), Base(x=1)]),
    (Renamed | int, pl.String(), [Renamed(a=1), 2]),
    (list[Renamed | Camel], pl.List(pl.String), [[Renamed(a=1), Camel(firstName="a", **{"last-name": "b"})]]),
    (Aliased | str, pl.String(), [Aliased(ex=1), "ex"]),
    (Literal[Word.YES, "no"], pl.Enum(["yes", "no"]), [Word.YES, "no"]),
    (Literal[Size.SMALL, 2], pl.Int64(), [Size.SMALL, 2]),
    (Base | Derived, pl.String(), [Base(x=1), Derived(x=1, y="a")]),
    (Point | Total, pl.String(), [Point(1), {"x": 1, "y": "a"}]),
    (Annotated[int | str, Field(union_mode="left_to_right")], pl.String(), [1, "x"]),
    # anything, and JSON
    (Any, pl.String(), [1, "1", 1.5, {"a": [1, None]}, [1, "x"], True, None, "\t1", "null", "[1]"]),
    (object, pl.String(), [1, "x"]),
    (JsonValue, pl.String(), [1, "1", [1, {"a": None}]]),
    (Recursive, pl.String(), [1, "1", [1, {"a": "x"}]]),
    (Json, pl.String(), ['{"a": 1}', "null", "1", '"x"']),
    (Json[list[int]], pl.String(), ["[1]"]),
    (Json[int] | None, pl.String(), [None, "1"]),
    # secrets
    (SecretStr, pl.Object(), [SecretStr("pw")]),
    (SecretBytes | None, pl.Object(), [SecretBytes(b"pw"), None]),
    (Secret[int], pl.Object(), [Secret[int](1)]),
    # classes with fields
    (Point, pl.Struct({"x": pl.Int64, "label": pl.String}), [Point(1), Point(2, "a")]),
    (Point | None, pl.Struct({"x": pl.Int64, "label": pl.String}), [None, Point(1)]),
    (Aliased, pl.Struct({"ex": pl.Int64, "day": pl.Date}), [Aliased(ex=1, day=MIDNIGHT.date())]),  # type: ignore[call-arg]
    (WithUnion, pl.Struct({"value": pl.String}), [WithUnion(1), WithUnion("1")]),
    (WithComputed, pl.String(), [WithComputed(1)]),
    (Tree, pl.Struct({"value": pl.Int64, "children": pl.String}), [Tree(1, [Tree(2)])]),
    (Total, pl.Struct({"x": pl.Int64, "y": pl.String}), [{"x": 1, "y": "a"}]),
    (Partial, pl.String(), [{"x": 1}, {"x": 1, "y": "a"}]),
    (Loose, pl.String(), [{"x": 1}, {"x": 1, "y": None}]),
    (Named, pl.Struct({"x": pl.Int64, "y": pl.String}), [Named(1, "a")]),
    (Untyped, pl.String(), [Untyped(1, "a")]),
    (Box[int], pl.Struct({"item": pl.Int64, "more": pl.List(pl.Int64)}), [Box[int](item=1, more=[2])]),
    (
        Box[int | str],
        pl.Struct({"item": pl.String, "more": pl.List(pl.String)}),
        [Box[int | str](item=1, more=["1", 1])],
    ),
    (Box[Point], pl.Struct({"item": (p := pl.Struct({"x": pl.Int64, "label": pl.String})), "more": pl.List(p)}), []),
    (Box, pl.Struct({"item": pl.String, "more": pl.String}), [Box(item=1)]),
    (Ints, pl.List(pl.Int64), [Ints([1])]),
    (Counts, pl.List(pl.Struct({"key": pl.String, "value": pl.Int64})), [Counts({"a": 1})]),
    (Mixed, pl.String(), [Mixed(1), Mixed("1")]),
    (Maybe, pl.Int64(), [Maybe(1), Maybe(None)]),
    (Maybe | None, pl.String(), [Maybe(1), Maybe(None), None]),
    (Node, pl.Struct({"value": pl.Int64, "children": pl.String}), [Node(value=1, children=[Node(value=2)])]),
    (Empty, pl.String(), [Empty()]),
    (Open, pl.String(), [Open(x=1), Open(x=1, y=2)]),  # type: ignore[call-arg]
    # choices
    (Literal["a", 1, None], pl.String(), ["a", 1, None]),
    (Literal[1, "1"], pl.String(), [1, "1"]),
    (Literal[True, 2, "x"], pl.String(), [True, 2, "x"]),
    (Colour, pl.Enum(["red", "blue"]), [Colour.RED]),
    (Odd, pl.String(), [Odd.ONE, Odd.TWO]),
    (Size, pl.Int64(), [Size.SMALL]),
    (Word, pl.Enum(["yes"]), [Word.YES]),
    (Bits, pl.Int64(), [Bits.LOW, Bits.LOW | Bits.HIGH]),
    # containers
    (list, pl.String(), [[1, "a"]]),
    (dict, pl.String(), [{"a": 1}]),
    (tuple, pl.String(), [(1, "a")]),
    (tuple[()], pl.String(), [()]),
    (list[Any], pl.String(), [[1, "1", None]]),
    (dict[str, Any], pl.String(), [{"a": 1, "b": "1", "c": None}]),
    (Mapping[str, Any], pl.String(), [{"a": 1}]),
    (dict[int | str, int], pl.List(pl.Struct({"key": pl.String, "value": pl.Int64})), [{1: 2, "1": 3}]),
    (dict[str, int | str], pl.List(pl.Struct({"key": pl.String, "value": pl.String})), [{"a": 1, "b": "1"}]),
    (list[int | str], pl.List(pl.String), [[1, "1"]]),
    (set[int | str], pl.List(pl.String), [{1, "1"}]),
    (tuple[int, int | str], pl.Struct({"field_0": pl.Int64, "field_1": pl.String}), [(1, "1"), (1, 1)]),
    (list[Pet], pl.List(pl.String), [[Cat(lives=9), Dog(name="Rex")]]),
    (list[Cat | None], pl.List(pl.Struct({"kind": pl.Enum(["cat"]), "lives": pl.Int64})), [[Cat(lives=9), None]]),
    (list[Point], pl.List(pl.Struct({"x": pl.Int64, "label": pl.String})), [[Point(1)]]),
    (dict[UUID, Size], pl.List(pl.Struct({"key": pl.String, "value": pl.Int64})), [{UUID(int=1): Size.SMALL}]),
    (list[Json[int]], pl.List(pl.String), [["1"]]),
    (
        dict[tuple[int, int], str],
        pl.List(pl.Struct({"key": pl.Array(pl.Int64, 2), "value": pl.String})),
        [{(1, 2): "a"}],
    ),
    (
        dict[tuple[tuple[int, ...], str], int],
        pl.List(pl.Struct({"key": pl.Struct({"field_0": pl.List(pl.Int64), "field_1": pl.String}), "value": pl.Int64})),
        [{((1, 2), "x"): 3, ((), ""): 4}],
    ),
    (
        dict[frozenset[int], int],
        pl.List(pl.Struct({"key": pl.List(pl.Int64), "value": pl.Int64})),
        [{frozenset({2, 1}): 3}],
    ),
    (Literal[Shade.DARK], pl.Enum(["dark!"]), [Shade.DARK]),
    (Literal["pale", Shade.DARK], pl.Enum(["pale", "dark!"]), ["pale", Shade.DARK]),
    (list[Literal[Shade.DARK]], pl.List(pl.Enum(["dark!"])), [[Shade.DARK], []]),
    (frozenset[int], pl.List(pl.Int64), [frozenset({1})]),
    (deque[int], pl.List(pl.Int64), [deque([1])]),
    (OrderedDict[str, int], pl.List(pl.Struct({"key": pl.String, "value": pl.Int64})), [OrderedDict(a=1)]),
    (defaultdict[str, int], pl.String(), [defaultdict(int, a=1)]),
    (Counter[str], pl.String(), [Counter("aab")]),
    # single values
    (Annotated[int, AfterValidator(abs)], pl.Int64(), [1]),
    (conint(gt=0), pl.Int64(), [1]),
    (Annotated[str, StringConstraints(min_length=1)], pl.String(), ["a"]),
    (UUID, pl.String(), [UUID(int=3)]),
    (Path, pl.String(), [Path("a/b")]),
    (IPv4Address, pl.String(), [IPv4Address("127.0.0.1")]),
    (IPv6Network, pl.String(), [IPv6Network("::/64")]),
    (IPvAnyAddress, pl.String(), [IPv4Address("127.0.0.1")]),
    (AnyUrl, pl.String(), [AnyUrl("http://a.b/c")]),
    (HttpUrl, pl.String(), [HttpUrl("http://a.b/c")]),
    (ByteSize, pl.Int64(), [ByteSize(5)]),
    (PastDate, pl.Date(), [MIDNIGHT.date()]),
    (AwareDatetime, pl.Datetime("us", "UTC"), [datetime(2020, 1, 1, tzinfo=UTC)]),
    (condecimal(max_digits=5, decimal_places=2), pl.Decimal(5, 2), [Decimal("1.50")]),
    (timedelta, pl.Duration("us"), [timedelta(1, 2, 3)]),
    (time, pl.Time(), [time(1, 2, 3, 4)]),
    (re.Pattern[str], pl.String(), [re.compile("a+")]),
    (Base64Bytes, pl.String(), [b"YWJj"]),
    (ImportString, pl.String(), ["math.cos"]),
    (Annotated[complex, PlainValidator(to_complex), PlainSerializer(from_complex)], pl.String(), [1 + 2j]),
]
PARAMS = [pytest.param(*each, id=str(each[0]).replace(f"{__name__}.", "")[:60]) for each in KINDS]


@pytest.mark.parametrize(("kind", "dtype", "values"), PARAMS)
def test_every_kind_has_a_column_from_which_its_values_come_back(
    kind: Any, dtype: pl.DataType, values: list[Any]
) -> None:
    model = create_model("Model", f=(kind, ...))
    assert greendata.schema_of(model) == pl.Schema({"f": dtype})
    comes_back(model, values, ("parquet", "arrow", "json", "ndjson"))


def comes_back(model: type[BaseModel], values: list[Any], formats: Sequence[Format] = ("parquet", "arrow")) -> None:
    """Assert that rows with these values of the field ``f`` come back from a frame, from files and from text."""
    models = [model(f=value) for value in values]
    rows = Frame[model].from_rows([{"f": value} for value in values])  # type: ignore[valid-type]
    df = rows.plan.collect()
    found = {
        "rows": rows.collect(),
        "models": Frame[model].from_rows(models).collect(),  # type: ignore[valid-type]
        "to_models": greendata.to_models(df, model),
        "validated": greendata.to_models(greendata.validate(df, model), model),
    }
    dtype = df.dtypes[0]
    if dtype == pl.String and None not in values and "" not in values:  # a CSV file has no nulls besides empty text
        formats = [*formats, "csv"]
    for format in () if dtype == pl.Object else formats:
        body = b"".join(greendata.encode(df, format))
        found[format] = greendata.to_models(greendata.decode(body, format, model=model), model)
    for way, having in found.items():  # pydantic reads the string "1.0" of a JSON body as the integer of int | float
        assert same(having, models) if "json" not in way else having == models, (way, having)
    if dtype != pl.Object:
        assert greendata.validate(df, model).equals(df)


def same(value: Any, other: Any) -> bool:
    """Return True if two values are equal and have the same types, to any depth."""
    if type(value) is not type(other):
        return False
    if isinstance(value, list | tuple):
        return len(value) == len(other) and all(map(same, value, other))
    if isinstance(value, dict):
        return same([*value], [*other]) and same([*value.values()], [*other.values()])
    if isinstance(value, set | frozenset):
        return value == other and {*map(type, value)} == {*map(type, other)}
    if isinstance(value, BaseModel):
        return bool(value == other) and same(value.__dict__, other.__dict__)
    if isinstance(value, Point | WithUnion | Tree):
        return same(value.__dict__, other.__dict__)
    return bool(value == other)


FILES = [(int | str, [1, "1", "one"]), (Pet, [Cat(lives=9)]), (dict[str, int], [{"a": 1}]), (Any, [1, "1", {"a": 1}])]


@pytest.mark.parametrize(("kind", "values"), FILES, ids=["union", "models", "dict", "any"])
def test_files_of_typed_frames_come_back(kind: Any, values: list[Any], tmp_path: Path) -> None:
    model = create_model("Model", n=(int, ...), f=(kind, ...))
    rows = Frame[model].from_rows([{"n": 1, "f": value} for value in values])  # type: ignore[valid-type]
    for form in ("parquet", "ipc", "ndjson", *(["csv"] if rows.schema["f"] == pl.String else [])):
        path = tmp_path / f"rows.{form}"
        getattr(rows, f"write_{form}")(path)
        scanned = getattr(Frame[model], f"scan_{form}")(path)  # type: ignore[valid-type]
        assert same(scanned.collect(), rows.collect()), form
        assert same(scanned.filter(pl.col("n") == 1).collect(), rows.collect()), form
        assert scanned.to_frame().equals(rows.to_frame()), form


def test_a_body_with_a_tab_is_judged_by_pydantic_unless_greendata_wrote_it() -> None:
    model = create_model("Model", f=(int | str, ...))
    stored = b"".join(greendata.encode(Frame[model].from_rows([{"f": 1}]).to_frame(), "json"))  # type: ignore[valid-type]
    assert stored == rb'[{"f":"\t1"}]'
    assert greendata.to_models(greendata.decode(stored, "json", model=model), model) == [model(f=1)]
    other = greendata.decode(rb'[{"f": "\t1"}]', "json", model=model)
    assert greendata.to_models(other, model) == [model(f="\t1")]


def test_text_goes_through_a_database(tmp_path: Path) -> None:
    model = create_model("Model", f=(Cat | int | str, ...), g=(dict[str, Any], ...), h=(date | str, ...))
    rows = [
        {"f": Cat(lives=9), "g": {"a": [1, None]}, "h": MIDNIGHT.date()},
        {"f": 1, "g": {}, "h": "2020-01-01"},
        {"f": "1", "g": {"b": "x"}, "h": ""},
    ]
    frame = Frame[model].from_rows(rows)  # type: ignore[valid-type]
    database = f"sqlite:///{tmp_path}/rows.db"
    greendata.write_sql(frame.to_frame(), "rows", database).get()
    back = Frame[model].from_frame(greendata.read_sql("select * from rows", database).get())  # type: ignore[valid-type]
    assert same(back.collect(), frame.collect())


def in_model(kind: Any) -> Any:
    return create_model("Inner", g=(kind, ...))


AROUND: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "list": (lambda kind: list[kind], lambda value: [value]),
    "dict": (lambda kind: dict[str, kind], lambda value: {"k": value}),
    "optional": (lambda kind: Optional[kind], lambda value: value),  # noqa: UP045 - of a type made at run time
    "tuple": (lambda kind: tuple[int, kind], lambda value: (1, value)),
    "model": (in_model, lambda value: {"g": value}),
    "root": (lambda kind: RootModel[kind], lambda value: value),
    "union": (lambda kind: kind | Empty if isinstance(kind, type) else Optional[kind], lambda value: value),  # noqa: UP045
    "box": (lambda kind: Box[kind], lambda value: {"item": value}),
}
DEEP = [(kind, values) for kind, dtype, values in KINDS if dtype != pl.Object and values]


@given(data=st.data())
@settings(max_examples=80)
def test_kinds_within_others_come_back(data: st.DataObject) -> None:
    kind, values = data.draw(st.sampled_from(DEEP))
    given_values = data.draw(st.lists(st.sampled_from(values), min_size=1, max_size=3))
    for name in data.draw(st.lists(st.sampled_from([*AROUND]), min_size=1, max_size=2)):
        around, put = AROUND[name]
        kind, given_values = around(kind), [put(value) for value in given_values]
    comes_back(create_model("Model", f=(kind, ...)), given_values)


COLUMNS = [
    pl.Series("f", ["1", "01", "x", "true", "1.0", "2020-01-01", str(UUID(int=1)), "P1D", "null", "", None]),
    pl.Series("f", [1, 0, None]),
    pl.Series("f", [1.0, 2.5, None]),
    pl.Series("f", [True, None]),
    pl.Series("f", [b"a"]),
    pl.Series("f", [MIDNIGHT, None]),
    pl.Series("f", [MIDNIGHT.date()]),
    pl.Series("f", [{"kind": "cat", "lives": 9}, {"kind": "dog", "lives": 1}, {"kind": None, "lives": None}, None]),
    pl.Series("f", [{"x": 1, "y": "a"}, {"x": None, "y": None}, None]),
    pl.Series("f", [[1], [None], None]),
]


@pytest.mark.filterwarnings("ignore:__int__ returned non-int")  # ipaddress, of booleans
@pytest.mark.parametrize(("kind", "dtype", "values"), PARAMS)
def test_columns_of_other_programs_are_judged_by_pydantic(kind: Any, dtype: pl.DataType, values: list[Any]) -> None:
    del dtype, values
    model = create_model("Model", f=(kind, ...))
    for column in COLUMNS:
        good, failures = greendata.filter_valid(column.to_frame(), model)
        expected, wrong = judged(column, model)
        unfit = {*failures.filter(pl.col("rule") == "column_form")["row"]}
        assert {*failures["row"]} - unfit == wrong, (column, failures)
        found = greendata.to_models(good, model)
        fitting = [row for number, row in expected.items() if number not in unfit]
        assert found == fitting, (column, found, fitting)


def judged(column: pl.Series, model: type[BaseModel]) -> tuple[dict[int, BaseModel], set[int]]:
    """Return pydantic's models for the values of a column, by row, and the numbers of the rows that it rejects."""
    expected: dict[int, BaseModel] = {}
    wrong = set()
    for number, value in enumerate(column.to_list()):
        try:
            expected[number] = model.model_validate({"f": value})
        except ValidationError:
            wrong.add(number)
    return expected, wrong


def test_pairs_of_one_key_are_no_dict() -> None:
    """A dict would keep one of the values."""
    pairs = pl.Series([[{"key": "a", "value": 1}, {"key": "a", "value": 2}], [{"key": "a", "value": 3}]])
    for column in (pairs, pairs.implode()):
        kind = dict[str, int] if column is pairs else list[dict[str, int]]
        model = create_model("Model", f=(kind, ...))
        good, failures = greendata.filter_valid(pl.DataFrame({"f": column}), model)
        assert failures["rule"].to_list() == ["dict_type"]
        assert good["f"].to_list() == ([[{"key": "a", "value": 3}]] if column is pairs else [])


def test_members_of_one_value_are_not_confused() -> None:
    model = create_model("Model", f=(Literal["dark!", Shade.DARK], ...))
    with pytest.raises(FrameInvalid, match="does not come back"):
        Frame[model].from_rows([{"f": Shade.DARK}])  # type: ignore[valid-type]
    assert Frame[model].from_rows([{"f": "dark!"}]).collect()[0].f == "dark!"  # type: ignore[valid-type, attr-defined]


def test_a_key_without_a_field_is_not_lost() -> None:
    with pytest.raises(FrameInvalid, match=r"y: column_form in row 0.*a key without a field has no column"):
        Frame[Open].from_rows([{"x": 1, "y": 2}])
    assert Frame[Open].from_rows([{"x": 1}]).collect() == [Open(x=1)]
