"""Maps and extension types, which are new in Polars 2.1: in every format, and in models."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import greendata
from greendata import Frame
from greendata.errors import FrameInvalid, Malformed, NotWritable
from greendata.formats.format import FORMATS, Format

if not hasattr(pl, "Map"):
    pytest.skip("Polars before 2.1 has no maps", allow_module_level=True)

MAPS: dict[str, tuple[Any, list[Any]]] = {
    "plain": (pl.Map(pl.String, pl.Int64), [{"a": 1, "": 2}, None, {}]),
    "binary": (pl.Map(pl.String, pl.Binary), [{"a": b"\xff"}, {"b": None}]),
    "moments": (pl.Map(pl.String, pl.Datetime("ns", "Europe/Paris")), [{"a": None}]),
    "integers": (pl.Map(pl.Int64, pl.Duration("us")), [{-1: timedelta(seconds=1), 2**62: None}]),
    "dates": (pl.Map(pl.Date, pl.List(pl.Date)), [{date(2024, 1, 1): [date(2024, 1, 2), None]}]),
    "maps": (pl.Map(pl.String, pl.Map(pl.String, pl.Int8)), [{"a": {"b": 1}, "c": None}]),
    "in lists": (pl.List(pl.Map(pl.String, pl.Binary)), [[{"a": b"\x80"}, None], []]),
    "in structs": (pl.Struct({"m": pl.Map(pl.String, pl.Date)}), [{"m": {"a": date(2024, 1, 1)}}]),
}
EXTENSION = pl.Extension("greendata.test", pl.Datetime("us"))

every_map = pytest.mark.parametrize("name", MAPS)


def frame(name: str) -> pl.DataFrame:
    dtype, values = MAPS[name]
    return pl.DataFrame({"m": pl.Series(values, dtype=dtype)})


@every_map
@pytest.mark.parametrize("format", FORMATS)
def test_maps_come_back_with_their_schema(name: str, format: Format) -> None:
    df = frame(name)
    if format == "csv":
        with pytest.raises(NotWritable):
            greendata.encode(df, "csv")
        return
    body = b"".join(greendata.encode(df, format))
    assert_frame_equal(greendata.decode(body, format, schema=df.schema), df)
    if format in ("arrow", "parquet"):
        assert_frame_equal(greendata.decode(body, format, model=greendata.model_of(df.schema)), df)


@every_map
def test_maps_have_models(name: str) -> None:
    df = frame(name)
    model = greendata.model_of(df.schema)
    assert greendata.schema_of(model) == df.schema
    assert_frame_equal(greendata.validate(df, model), df)
    rows = Frame[model].from_frame(df)  # type: ignore[valid-type]
    assert rows.collect() == greendata.to_models(df, model)
    again = Frame[model].from_rows(rows.collect())  # type: ignore[valid-type]
    assert_frame_equal(again.plan.collect(), df)


def test_values_in_maps_are_validated() -> None:
    model = greendata.model_of({"m": pl.Map(pl.String, pl.Int8)})
    df = pl.DataFrame({"m": pl.Series([{"a": 1}, {"a": 300}], dtype=pl.Map(pl.String, pl.Int64))})
    good, failures = greendata.filter_valid(df, model)
    assert good["m"].to_list() == [{"a": 1}]
    assert failures.select("row", "column", "rule").rows() == [(1, "m.a", "less_than")]
    far = pl.DataFrame({"m": pl.Series([[{"key": "a", "value": 10**7}]])})
    far = far.cast(pl.List(pl.Struct({"key": pl.String, "value": pl.Int32})))
    far = far.cast(pl.List(pl.Struct({"key": pl.String, "value": pl.Date}))).cast(pl.Map(pl.String, pl.Date))
    with pytest.raises(FrameInvalid, match="Python has no date"):
        greendata.to_models(far, greendata.model_of(far.schema))


def test_a_duplicate_key_is_malformed() -> None:
    body = b'[{"m": [{"key": "a", "value": 1}, {"key": "a", "value": 2}]}]'
    with pytest.raises(Malformed):
        greendata.decode(body, "json", schema=pl.Schema({"m": pl.Map(pl.String, pl.Int64)}))


@pytest.mark.parametrize("format", FORMATS)
def test_extensions_come_back_with_their_schema(format: Format) -> None:
    moments = pl.DataFrame({"a": [datetime(2024, 1, 1, 12), None]})
    df = moments.with_columns(pl.col("a").ext.to(EXTENSION))
    body = b"".join(greendata.encode(df, format))
    assert_frame_equal(greendata.decode(body, format, schema=df.schema), df)
    if format in ("json", "csv"):
        assert b"2024-01-01T12:00:00" in body
    assert_frame_equal(greendata.validate(df, greendata.model_of(moments.schema)), moments)
    assert len(Frame[greendata.model_of(moments.schema)].from_frame(df).collect()) == 2  # type: ignore[misc]
    binary = pl.DataFrame({"a": [b"\xff"]}).with_columns(pl.col("a").ext.to(pl.Extension("greendata.b", pl.Binary)))
    body = b"".join(greendata.encode(binary, format))
    assert_frame_equal(greendata.decode(body, format, schema=binary.schema), binary)
