"""Typed frames: how they are made, how rows are taken, and that every way validates them."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import polars as pl
import pyarrow as pa
import pytest
from pydantic import BaseModel, Field, TypeAdapter, create_model, field_validator

import greendata
from greendata import Frame
from greendata.errors import (
    BadArgument,
    ColumnsUnequal,
    DeadlineExceeded,
    FileMissing,
    FrameInvalid,
    JobCancelled,
    ModelMismatch,
    NoModel,
    NotAFrame,
    NotArrow,
    PathRefused,
    PlanRefused,
    UnreadableFile,
)
from greendata.typed import frame as typed
from tests.conftest import Gate
from tests.support.frames import crowded, gated, gated_schema
from tests.support.natives import Native, until
from tests.support.processes import ROOT, run_python


class User(BaseModel):
    name: str
    age: Annotated[int, Field(ge=0)]
    nick: str = "-"

    @field_validator("name")
    @classmethod
    def is_no_robot(cls, name: str) -> str:
        if name == "robot":
            raise ValueError("no robots")
        return name


GOOD = pl.DataFrame({"name": ["Ann", "Bob", "Eve"], "age": [41, 17, 30]})
BAD = pl.DataFrame({"name": ["Ann", "robot", "Eve"], "age": [41, 17, -1]})
ANN, BOB, EVE = USERS = [User(name="Ann", age=41), User(name="Bob", age=17), User(name="Eve", age=30)]
FORMATS = ("parquet", "csv", "ndjson", "ipc")


def test_a_frame_is_bound_to_its_model_once() -> None:
    assert Frame[User] is Frame[User]
    assert Frame[User].model is User
    assert repr(Frame[User].from_frame(GOOD)) == "<Frame[User] of name: String, age: Int64>"
    for thing in (int, "User", None, GOOD):
        with pytest.raises(NoModel, match=r"write Frame\[User\]"):
            Frame[thing]  # type: ignore[type-var, valid-type]
    with pytest.raises(NoModel, match="got none"):
        Frame.from_frame(GOOD)


def test_a_bound_frame_can_be_subclassed() -> None:
    class Users(Frame[User]):
        def adults(self) -> Users:
            return self.filter(pl.col("age") >= 18)

    assert Users.from_frame(GOOD).adults().collect() == [ANN, EVE]
    assert type(Users.from_frame(GOOD).select("age").as_model(create_model("Age", age=(int, ...)))).__base__ is Frame


def test_a_model_is_freed_with_its_frames() -> None:
    model = create_model("Passing", name=(str, ...))
    frame = Frame[model].from_columns({"name": ["Ann"]})  # type: ignore[valid-type]
    bound = weakref.ref(type(frame))
    del frame, model
    until(lambda: (gc.collect(), bound())[1] is None)  # the worker that planned it may be about to drop it


# -- construction -------------------------------------------------------------------------------------


def test_from_rows_of_dicts_and_models() -> None:
    rows = [{"name": "Ann", "age": "41"}, BOB, {"name": "Eve", "age": 30.0, "more": 1}]
    frame = Frame[User].from_rows(iter(rows))
    assert frame.collect() == USERS
    assert frame.schema == {"name": pl.String, "age": pl.Int64, "nick": pl.String}
    assert Frame[User].from_rows([]).collect() == []


@pytest.mark.parametrize("value", [10**5000, [10**5000], {"x": -(10**5000)}], ids=["alone", "in a list", "in a dict"])
def test_integers_that_python_does_not_print_are_failures(value: Any) -> None:
    kind: Any = list[int] if isinstance(value, list) else dict[str, int] if isinstance(value, dict) else int
    for model in (create_model("Exact", a=(kind, ...)), create_model("Anything", a=(Any, ...))):
        with pytest.raises(FrameInvalid, match="an integer of 16610 bits"):
            Frame[model].from_rows([{"a": value}])  # type: ignore[valid-type]


def test_from_rows_names_every_failure() -> None:
    with pytest.raises(FrameInvalid) as caught:
        Frame[User].from_rows([ANN, {"name": "robot", "age": 1}, {"name": "Eve", "age": "x"}, 7])  # type: ignore[list-item]
    assert caught.value.failures.select("row", "column", "rule").rows() == [
        (1, "name", "value_error"),
        (2, "age", "int_parsing"),
        (3, None, "model_type"),
    ]


def test_rows_that_no_column_can_hold_are_failures() -> None:
    with pytest.raises(FrameInvalid) as caught:
        Frame[User].from_rows([{"name": "Ann", "age": 2**70}])
    assert caught.value.failures["column"].to_list() == ["age"]


def test_from_columns() -> None:
    assert Frame[User].from_columns({"name": ["Ann", "Bob", "Eve"], "age": ("41", 17, 30)}).collect() == USERS
    assert Frame[User].from_columns({"name": GOOD["name"], "age": GOOD["age"]}).collect() == USERS
    with pytest.raises(ColumnsUnequal, match="2 columns of 2 lengths: age: 1, name: 2"):
        Frame[User].from_columns({"name": ["Ann", "Bob"], "age": [1]})
    with pytest.raises(ColumnsUnequal):
        Frame[User].from_columns({"name": GOOD["name"], "age": GOOD["age"].head(1)})
    with pytest.raises(BadArgument, match="column 'name' must be a sequence"):
        Frame[User].from_columns({"name": "Ann", "age": [1, 2, 3]})
    with pytest.raises(BadArgument, match="columns must be a mapping"):
        Frame[User].from_columns([1])  # type: ignore[arg-type]


def test_from_frame() -> None:
    assert Frame[User].from_frame(GOOD).collect() == USERS
    assert Frame[User].from_frame(GOOD.lazy()).collect() == USERS
    with pytest.raises(NotAFrame):
        Frame[User].from_frame({"name": ["Ann"]})  # type: ignore[arg-type]


def test_columns_that_cannot_be_the_models_are_named_at_once() -> None:
    with pytest.raises(ModelMismatch) as caught:
        Frame[User].from_frame(pl.DataFrame({"name": [["Ann"]], "nick": [1]}))
    assert caught.value.missing == ("age",)
    assert [*caught.value.misfits] == ["name", "nick"]
    assert str(caught.value) == (
        "3 columns do not fit User: no column 'age', column 'name' is List(String), not String, "
        "column 'nick' is Int64, not String; rename(), select() or cast() first"
    )


def test_the_schema_of_a_lazy_frame_is_asked_for_off_the_hub(hub_alive: Gate) -> None:
    class Row(BaseModel):
        a: int

    assert Frame[Row].from_frame(gated_schema(hub_alive)).schema == {"a": pl.Int64}


def test_from_arrow_takes_whatever_has_a_stream() -> None:
    class Table:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return GOOD.__arrow_c_stream__(requested_schema)

    assert Frame[User].from_arrow(Table()).collect() == USERS
    assert Frame[User].from_arrow(greendata.batches(GOOD.lazy())).collect() == USERS
    with pytest.raises(NotArrow, match="got list"):
        Frame[User].from_arrow([1])


def test_an_arrow_stream_that_breaks_off_is_refused() -> None:
    class Broken:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return object()

    with pytest.raises((PlanRefused, ValueError, TypeError)):
        Frame[User].from_arrow(Broken())


@pytest.mark.parametrize("kind", FORMATS)
def test_files_are_written_and_read(kind: str, tmp_path: Path) -> None:
    frame = Frame[User].from_frame(GOOD)
    assert getattr(frame, f"write_{kind}")(f"users.{kind}", root=tmp_path) == 3
    assert [path.name for path in tmp_path.iterdir()] == [f"users.{kind}"]
    scan = getattr(Frame[User], f"scan_{kind}")
    for found in (scan(f"users.{kind}", root=tmp_path), scan(tmp_path / f"users.{kind}"), scan("*", root=tmp_path)):
        assert found.collect() == USERS
        assert found.filter(pl.col("age") < 18).collect() == [BOB]


@pytest.mark.parametrize("kind", FORMATS)
def test_an_empty_frame_is_written_and_read(kind: str, tmp_path: Path) -> None:
    frame = Frame[User].from_frame(GOOD.clear())
    assert getattr(frame, f"write_{kind}")(tmp_path / "none") == 0
    if kind != "ndjson":  # without lines there are no columns, if the model has validators
        assert getattr(Frame[User], f"scan_{kind}")(tmp_path / "none").collect() == []


def test_nested_values_come_back(tmp_path: Path) -> None:
    class Place(BaseModel):
        zip: str

    class Order(BaseModel):
        key: UUID
        day: date
        tags: set[str]
        notes: dict[str, int]
        at: tuple[int, str]
        place: Place | None = None

    order = Order(key=UUID(int=7), day=date(2020, 2, 29), tags={"b"}, notes={"x": 1}, at=(1, "a"), place=Place(zip="1"))
    Frame[Order].from_rows([order]).write_parquet("orders.parquet", root=tmp_path)
    assert Frame[Order].scan_parquet("orders.parquet", root=tmp_path).collect() == [order]
    with Frame[Order].scan_parquet("orders.parquet", root=tmp_path).stream() as stream:
        assert list(stream.models()) == [[order]]


def test_csv_is_read_in_the_types_of_the_model(tmp_path: Path) -> None:
    class Row(BaseModel):
        code: str
        day: date
        size: float

    (tmp_path / "rows.csv").write_text("code,day,size\n" + "007,2020-02-29,1\n" * 200 + "x,2020-03-01,1.5\n")
    rows = Frame[Row].scan_csv("rows.csv", root=tmp_path).collect()
    assert rows[0] == Row(code="007", day=date(2020, 2, 29), size=1.0)
    assert rows[-1] == Row(code="x", day=date(2020, 3, 1), size=1.5)


def test_ndjson_finds_keys_that_come_late(tmp_path: Path) -> None:
    class Row(BaseModel):
        size: float
        note: str | None = None

    (tmp_path / "rows.ndjson").write_text('{"size":1}\n' * 200 + '{"size":1.5,"note":"late"}\n')
    rows = Frame[Row].scan_ndjson("rows.ndjson", root=tmp_path).collect()
    assert rows[-1] == Row(size=1.5, note="late")
    assert rows[0] == Row(size=1.0)


# -- bad files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["parquet", "ipc"])
def test_a_file_cut_short_is_refused_at_the_call(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "users"
    getattr(GOOD, f"write_{kind}")(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UnreadableFile, match="cannot read users: ") as caught:
        getattr(Frame[User], f"scan_{kind}")("users", root=tmp_path)
    assert isinstance(caught.value.__cause__, pl.exceptions.PolarsError)
    assert str(tmp_path) not in str(caught.value)


def test_a_malformed_csv_is_named_with_value_column_and_place(tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("name,age\n" + "Ann,41\n" * 300 + "Bob,old\n")
    frame = Frame[User].scan_csv("users.csv", root=tmp_path)
    with pytest.raises(UnreadableFile, match=r"users.csv: could not parse `old` as .* 'age' .*offset in the file is"):
        frame.collect()
    (tmp_path / "ragged.csv").write_text("name,age\nAnn,1,2\n")
    with pytest.raises(UnreadableFile, match="more fields than"):
        Frame[User].scan_csv("ragged.csv", root=tmp_path).collect()
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(UnreadableFile, match="empty CSV"):
        Frame[User].scan_csv("empty.csv", root=tmp_path)


def test_malformed_ndjson_is_refused(tmp_path: Path) -> None:
    (tmp_path / "users.ndjson").write_text('{"name":"Ann","age":1,"nick":"a"}\n' * 300 + '{"name":\n')
    with pytest.raises(UnreadableFile, match=r"users\.ndjson: line 301: "):
        Frame[User].scan_ndjson("users.ndjson", root=tmp_path).collect()


def test_missing_files_are_named_below_the_root(tmp_path: Path) -> None:
    for kind in FORMATS:
        scan = getattr(Frame[User], f"scan_{kind}")
        with pytest.raises(FileMissing, match=r"^there is no file or folder 'no'$"):
            scan("no", root=tmp_path)
        with pytest.raises(FileNotFoundError):
            scan(tmp_path / "no")
        with pytest.raises(PathRefused):
            scan("../no", root=tmp_path)
        with pytest.raises(PathRefused):
            getattr(Frame[User].from_frame(GOOD), f"write_{kind}")("../out", root=tmp_path)


def test_a_file_that_becomes_a_link_is_not_read(tmp_path: Path) -> None:
    GOOD.write_parquet(tmp_path / "users.parquet")
    GOOD.write_parquet(tmp_path / "other.parquet")
    frame = Frame[User].scan_parquet("users.parquet", root=tmp_path)
    (tmp_path / "users.parquet").unlink()
    (tmp_path / "users.parquet").symlink_to("other.parquet")
    for take in (frame.collect, frame.to_frame, frame.submit().get, lambda: next(frame.stream())):
        with pytest.raises(PathRefused, match="has become a link"):
            take()


def test_polars_does_not_expand_a_glob_in_a_name(tmp_path: Path) -> None:
    (tmp_path / "[ab].ndjson").write_text('{"name":"Ann","age":41}\n')
    (tmp_path / "a.ndjson").write_text('{"name":"Bob","age":17}\n')
    assert Frame[User].scan_ndjson("[ab].ndjson", root=tmp_path).collect() == [ANN]


# -- results ------------------------------------------------------------------------------------------


def test_four_ways_to_take_the_rows() -> None:
    frame = Frame[User].from_frame(GOOD)
    columns = {"name": ["Ann", "Bob", "Eve"], "age": [41, 17, 30], "nick": ["-", "-", "-"]}
    assert frame.collect() == USERS == TypeAdapter(list[User]).validate_python(GOOD.to_dicts())
    assert frame.to_dict() == columns
    assert frame.to_frame().to_dict(as_series=False) == columns
    assert frame.submit().get(timeout=30) == USERS
    with frame.stream(batch_size=2) as stream:
        assert [batch["name"].to_list() for batch in stream] == [["Ann", "Bob"], ["Eve"]]
    with frame.stream(batch_size=2) as stream:
        assert list(stream.models()) == [[ANN, BOB], [EVE]]


WAYS: dict[str, Callable[[Frame[User], Path], Any]] = {
    "collect": lambda frame, _: frame.collect(),
    "to_dict": lambda frame, _: frame.to_dict(),
    "to_frame": lambda frame, _: frame.to_frame(),
    "submit": lambda frame, _: frame.submit().get(timeout=30),
    "stream": lambda frame, _: list(frame.stream(batch_size=1)),
    "models": lambda frame, _: list(frame.stream(batch_size=1).models()),
    **{
        f"write_{kind}": (lambda frame, path, kind=kind: getattr(frame, f"write_{kind}")(path))  # type: ignore[misc]
        for kind in FORMATS
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_validates_the_rows(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row numbers are those of the whole frame, and a file appears complete or not at all."""
    monkeypatch.setattr(typed, "BATCH_ROWS", 1)
    path = tmp_path / "out"
    path.write_text("before")
    with pytest.raises(FrameInvalid) as caught:
        WAYS[way](Frame[User].from_frame(BAD), path)
    rows = caught.value.failures["row"].to_list()
    assert rows in ([1, 2], [1])
    assert caught.value.failures["rule"][0] == "value_error"
    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_trust_is_a_property_of_the_frame(tmp_path: Path) -> None:
    trusted = Frame[User].from_frame(BAD.with_columns(nick=pl.lit("-")), trust="shape_only")
    assert trusted.to_frame().height == 3
    assert trusted.filter(pl.col("age") < 0).write_parquet(tmp_path / "a.parquet") == 1
    assert trusted.select("age").trust == "shape_only"
    with trusted.stream() as stream:
        assert next(stream).height == 3


def test_a_query_and_its_models_leave_the_hub_alone(hub_alive: Gate) -> None:
    class Row(BaseModel):
        a: int

    assert Frame[Row].from_frame(gated(hub_alive)).collect() == [Row(a=1), Row(a=2), Row(a=3)]


def test_everything_goes_through_the_pool(tmp_path: Path) -> None:
    frame = Frame[User].from_frame(GOOD)
    frame.write_parquet(tmp_path / "a.parquet")
    for work in (
        frame.collect,
        frame.to_frame,
        lambda: frame.filter(pl.col("age") > 18),
        lambda: Frame[User].scan_parquet(tmp_path / "a.parquet"),
        lambda: frame.write_csv(tmp_path / "a.csv"),
        lambda: next(frame.stream()),
    ):
        with crowded():
            work()  # type: ignore[no-untyped-call, unused-ignore]


def test_submit_can_be_cancelled_and_has_a_deadline(held: Gate) -> None:
    class Row(BaseModel):
        a: int

    frame = Frame[Row].from_frame(gated(held))
    result = frame.submit()
    held.wait_arrived()
    assert result.cancel()
    with pytest.raises(JobCancelled):
        result.get()
    late = frame.submit(timeout=0.05)
    with pytest.raises(DeadlineExceeded):
        late.get()
    held.open()


def test_threads_without_a_hub_take_frames_too() -> None:
    frame = Frame[User].from_frame(GOOD)
    assert Native(frame.collect).join() == USERS
    assert Native(lambda: frame.submit().get(timeout=30)).join() == USERS
    assert greendata.run(lambda: frame.submit().get(timeout=30)).get(timeout=30) == USERS


def test_bad_options_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    frame = Frame[User].from_frame(GOOD)
    with pytest.raises(TypeError, match="compresion"):
        frame.write_parquet(tmp_path / "a.parquet", compresion="lz4")
    with pytest.raises(FileMissing, match="'no'"):
        frame.write_csv("no/a.csv", root=tmp_path)
    for size in (0, -1, 1.5, True):
        with pytest.raises(BadArgument, match="batch_size must be a whole number >= 1"):
            frame.stream(batch_size=size)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.once("unpatched")
@pytest.mark.guard(180)
def test_the_type_checker_knows_the_models() -> None:
    """mypy checks a separate file with ``assert_type``; only errors of that file count."""
    pytest.importorskip("mypy", reason="mypy comes with the extra dev")
    finished = run_python(["-m", "mypy", "--strict", "tests/typed/typed_names.py"], timeout=170)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert (ROOT / "tests" / "typed" / "typed_names.py").exists()


NOT_UNICODE = b"\xff\xfe\xc3" * 6


def _arrow_text(kind: pa.DataType) -> pa.Array:
    """An Arrow array with text that is not UTF-8: Arrow does not check it."""
    raw = pa.array([NOT_UNICODE, b"ok"], pa.large_binary() if kind == pa.large_string() else pa.binary())
    return pa.Array.from_buffers(kind, 2, raw.buffers())


@pytest.mark.parametrize(
    "array",
    [
        _arrow_text(pa.string()),
        _arrow_text(pa.large_string()),
        pa.DictionaryArray.from_arrays(pa.array([0, 1]), _arrow_text(pa.string())),
        pa.ListArray.from_arrays([0, 1, 2], _arrow_text(pa.string())),
        pa.FixedSizeListArray.from_arrays(_arrow_text(pa.string()), 1),
        pa.StructArray.from_arrays([_arrow_text(pa.string())], ["x"]),
    ],
    ids=lambda array: str(array.type),
)
def test_text_from_arrow_that_is_not_unicode_is_rejected(array: pa.Array) -> None:
    model = greendata.model_of({"a": pl.Int64})
    with pytest.raises(PlanRefused, match="utf"):
        Frame[model].from_arrow(pa.table({"a": array}))  # type: ignore[valid-type]
    with pytest.raises(PlanRefused, match="utf"):
        Frame[model].from_columns({"a": array})  # type: ignore[valid-type]
