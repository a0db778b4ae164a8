"""Any text is a name of a column or of a struct field, in every function that takes names, and never a pattern."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from pydantic import BaseModel, ConfigDict, Field, create_model

import greendata
from greendata import Frame
from greendata.formats.format import FORMATS, Format

pytestmark = pytest.mark.once("unpatched")  # tests values only, which do not depend on patching

ODD = (
    "",
    "*",
    "^a$",
    "^.*$",
    "^$",
    "a",
    'a"b',
    '"',
    '""',
    "a,b",
    "a\nb",
    " a ",
    "\0row",
    "\0",
    "é",
    "'",
    "row",
    "0",
    "_a",
)
NAMES = st.lists(st.sampled_from(ODD) | st.text(max_size=4), min_size=1, max_size=5, unique=True)
QUICK = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])

every_format = pytest.mark.parametrize("format", FORMATS)


def frame(names: list[str]) -> pl.DataFrame:
    return pl.DataFrame({name: [number, number + 1] for number, name in enumerate(names)})


@QUICK
@given(names=NAMES)
@example(names=list(ODD))
def test_validation_keeps_and_names_columns(names: list[str]) -> None:
    df = frame(names)
    model = greendata.model_of(df.schema)
    assert_frame_equal(greendata.validate(df, model), df)
    for trust in ("shape_only", "strict"):
        assert_frame_equal(greendata.validate(df, model, trust=trust), df)
    required = create_model("Required", **{f"f{at}": (int, Field(alias=name)) for at, name in enumerate(names)})
    nulls = greendata.filter_valid(_nulls(df), required, trust="strict").failures
    assert nulls["column"].unique(maintain_order=True).to_list() == names
    good, failures = greendata.filter_valid(
        df.cast(pl.String).with_columns(df.to_series(0).cast(pl.String) + "x"), model
    )
    assert good.schema == df.schema
    assert failures["column"].to_list() == [names[0]] * 2
    some = create_model("Some", only=(int, ...))
    assert set(greendata.filter_valid(df, some).failures["column"]) == {"only"}


def _nulls(df: pl.DataFrame) -> pl.DataFrame:
    return pl.DataFrame({name: pl.Series(name, [None], dtype=dtype) for name, dtype in df.schema.items()})


@QUICK
@given(names=NAMES)
@example(names=list(ODD))
def test_columns_that_are_not_fields(names: list[str]) -> None:
    df = frame([name for name in names if name != "id"]).with_columns(id=pl.Series(["1", " 2 "]))

    def model(extra: str) -> type[BaseModel]:
        return create_model("Model", __config__=ConfigDict(extra=extra), id=(int, ...))  # type: ignore[typeddict-item]

    unknown = df.columns[:-1]
    assert greendata.validate(df, model("ignore")).rows() == [(1,), (2,)]
    allowed = greendata.validate(df, model("allow"))
    assert allowed.columns == ["id", *unknown]
    assert_frame_equal(allowed, df.with_columns(id=pl.Series([1, 2]))[["id", *unknown]])
    assert greendata.filter_valid(df, model("forbid")).failures["column"].to_list() == unknown * 2


@QUICK
@given(names=NAMES)
@example(names=list(ODD))
def test_fields_of_structs(names: list[str]) -> None:
    inner = frame(names).with_columns(pl.Series(names[0], [1, None]))
    df = pl.DataFrame({"s": inner.to_struct("s"), "l": pl.concat([inner.to_struct("s").implode()] * 2)})
    assert_frame_equal(greendata.validate(df, greendata.model_of(df.schema)), df)
    dates = pl.DataFrame({"s": inner.cast(pl.Int32).cast(pl.Date).to_struct("s")})
    assert_frame_equal(greendata.validate(dates, greendata.model_of(dates.schema)), dates)
    for format in ("json", "ndjson", "arrow", "parquet"):
        body = b"".join(greendata.encode(df, format))  # type: ignore[arg-type]
        assert_frame_equal(greendata.decode(body, format, schema=df.schema), df)  # type: ignore[arg-type]


@QUICK
@given(names=NAMES, format=st.sampled_from(FORMATS))
@example(names=list(ODD), format="csv")
@example(names=list(ODD), format="ndjson")
def test_formats(names: list[str], format: Format) -> None:
    df = frame(names)
    body = b"".join(greendata.encode(df, format))
    assert_frame_equal(greendata.decode(body, format, schema=df.schema), df)
    assert_frame_equal(greendata.decode(body, format, model=greendata.model_of(df.schema)), df)
    assert sorted(greendata.decode(body, format).columns) == sorted(names)
    backwards = pl.Schema({name: df.schema[name] for name in reversed(names)})
    assert greendata.decode(body, format, schema=backwards).columns == names[::-1]


def test_defused_names() -> None:
    df = pl.DataFrame({"": ["=1"], "*": ["a"], "^a$": ["b"]})
    body = b"".join(greendata.encode(df, "csv", escape_formulas=True))
    assert greendata.decode(body, "csv").rows(named=True) == [{"": "'=1", "*": "a", "^a$": "b"}]


@QUICK
@given(names=NAMES)
@example(names=list(ODD))
def test_operations(names: list[str]) -> None:
    df = frame(names)
    rows = Frame[greendata.model_of(df.schema)].from_frame(df)  # type: ignore[misc]
    for name in names:
        one = df[[name]]
        others = [other for other in names if other != name]
        assert_frame_equal(rows.select(name).to_frame(), one)
        assert_frame_equal(rows.select([name]).to_frame(), one)
        assert rows.drop(name).schema.names() == others
        assert_frame_equal(rows.sort(name, descending=True).to_frame(), df.reverse())
        assert_frame_equal(rows.unique(name).to_frame(), df)
        assert_frame_equal(rows.filter(**{name: df[name][1]}).to_frame(), df.tail(1))
        assert rows.group_by(name).agg(pl.len().alias("new length")).schema.names() == [name, "new length"]
        assert_frame_equal(rows.select(name).join(one, on=name).to_frame(), one)
        assert_frame_equal(rows.select(name).join(one, left_on=name, right_on=name).to_frame(), one)
        assert rows.rename({name: "a new name"}).schema.names() == [*_renamed(names, name)]
        assert rows.with_columns(**{"a new name": name}).schema.names() == [*names, "a new name"]  # type: ignore[arg-type]


def _renamed(names: list[str], old: str) -> list[str]:
    return ["a new name" if name == old else name for name in names]


def test_a_pattern_that_is_not_a_column_name_stays_a_pattern() -> None:
    rows = Frame[greendata.model_of({"ab": pl.Int64, "ac": pl.Int64, "b": pl.Int64})].from_columns(  # type: ignore[misc]
        {"ab": [1], "ac": [2], "b": [3]}
    )
    assert rows.select("^a.$").schema.names() == ["ab", "ac"]
    assert rows.drop("^a.$").schema.names() == ["b"]


@QUICK
@given(names=NAMES)
@example(names=list(ODD))
@example(names=["\ufeff"])
@example(names=["\ufeffa", "\ufeff"])
@pytest.mark.parametrize("kind", ["parquet", "csv", "ndjson", "ipc"])
def test_files(kind: str, names: list[str], tmp_path: Path) -> None:
    df = frame(names)
    bound = Frame[greendata.model_of(df.schema)]  # type: ignore[misc]
    getattr(bound.from_frame(df), f"write_{kind}")(tmp_path / "file")
    assert_frame_equal(getattr(bound, f"scan_{kind}")(tmp_path / "file").to_frame(), df)
    assert len(getattr(bound, f"scan_{kind}")(tmp_path / "file").collect()) == 2


@pytest.mark.parametrize("names", [["\ufeff"], ["\ufeffa", "b"]])
def test_a_name_that_begins_like_the_mark_of_an_encoding(names: list[str]) -> None:
    df = frame(names)
    for include_bom in (False, True):
        body = b"".join(greendata.encode(df, "csv", include_bom=include_bom))
        assert greendata.decode(body, "csv").columns == names
        assert pl.read_csv(body).columns == names
