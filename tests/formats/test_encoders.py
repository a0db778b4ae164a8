"""Encoding and decoding: every format, edge cases, many batches, and errors on the way."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import gevent
import gevent.event
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from polars.testing.parametric import dataframes
from pydantic import BaseModel

import greendata
from greendata import Frame
from greendata.errors import (
    BadChoice,
    BadTimeout,
    ChunksBusy,
    DeadlineExceeded,
    FrameInvalid,
    FrameMismatch,
    JobCancelled,
    NotAFrame,
    NotIterable,
    NotWritable,
)
from greendata.formats import encoders
from greendata.formats.decoders import decode
from greendata.formats.encoders import encode
from greendata.formats.format import FORMATS, MEDIA_TYPES, SUFFIXES, Format
from tests.support.frames import crowded, gated_batches
from tests.support.gates import Gate, rest

every_format = pytest.mark.parametrize("format", FORMATS)
TEXT: tuple[Format, ...] = ("json", "ndjson", "csv")

FLAT = pl.DataFrame(
    {
        "i": [1, None, -3],
        "f": [0.1, None, 1e300],
        "s": ["a", None, "\u2028\"\\,\n\r\n\t='é😀"],
        "b": [True, None, False],
        "date": [date(2024, 2, 29), None, date(1, 1, 1)],
        "naive": [datetime(2024, 1, 2, 3, 4, 5, 678901), None, datetime(9999, 12, 31)],
        "zoned": pl.Series([datetime(2024, 7, 1, 12), None, datetime(1800, 1, 1)]).dt.replace_time_zone(
            "Europe/Berlin"
        ),
        "ns": pl.Series([1_234_567_890_123_456_789, None, -1]).cast(pl.Datetime("ns")),
        "time": [time(23, 59, 59, 999999), None, time(0)],
        "duration": [timedelta(days=1, seconds=2, microseconds=3), None, timedelta(microseconds=-1)],
        "decimal": [Decimal("12345678901234567890.123456789"), None, Decimal("-0.000000001")],
        "binary": [b"\x00\xff", None, b""],
        "enum": pl.Series(["x", None, "y"], dtype=pl.Enum(["y", "x"])),
        "category": pl.Series(["x", None, "y"], dtype=pl.Categorical),
        "i8": pl.Series([127, None, -128], dtype=pl.Int8),
        "u64": pl.Series([2**64 - 1, None, 0], dtype=pl.UInt64),
        "^i$": [1, 2, 3],
    }
)
NESTED = FLAT.select(
    "i",
    pl.struct(pl.exclude("i")).alias("struct"),
    pl.struct(pl.concat_list("zoned"), pl.concat_list("duration", "duration").alias("d")).alias("lists"),
    pl.concat_list("binary").alias("list"),
    pl.concat_list("decimal", "decimal").list.to_array(2).alias("array"),
)
FRAMES = {
    "flat": FLAT,
    "nested": NESTED,
    "no rows": FLAT.clear(),
    "one row": FLAT.head(1),
    "all null": FLAT.slice(1, 1),
    "chunks": pl.concat([FLAT, FLAT, FLAT], rechunk=False),
}


def body(source: object, format: Format, **options: object) -> bytes:
    return b"".join(encode(source, format, **options))  # type: ignore[arg-type]


@every_format
@pytest.mark.parametrize("df", FRAMES.values(), ids=FRAMES.keys())
def test_frames_survive_a_round_trip(format: Format, df: pl.DataFrame) -> None:
    if format == "csv" and df is NESTED:
        pytest.skip("CSV has no form for nested columns")
    assert_frame_equal(decode(body(df, format), format, schema=df.schema), df)
    three = pl.concat([df, df, df])
    assert_frame_equal(decode(body([df, df, df], format), format, schema=df.schema), three)
    assert_frame_equal(decode(body(three.lazy(), format), format, schema=df.schema), three)


@every_format
def test_a_frame_without_columns(format: Format) -> None:
    for nothing in (pl.DataFrame(), [], [pl.DataFrame()], pl.LazyFrame()):
        assert decode(body(nothing, format), format).shape == (0, 0)


@every_format
def test_a_query_without_rows_keeps_its_schema(format: Format) -> None:
    query = FLAT.lazy().filter(pl.col("i") > 100)
    assert_frame_equal(decode(body(query, format), format, schema=FLAT.schema), FLAT.clear())
    if format not in ("json", "ndjson"):
        assert decode(body(query, format), format).columns == FLAT.columns


@settings(max_examples=60)
@given(
    df=dataframes(
        max_size=6,
        allow_null=True,
        allow_time_zones=True,
        excluded_dtypes=[pl.Object, pl.Categorical, pl.Float32, pl.Float64, pl.Float16, pl.Int128, pl.UInt128],
    ),
    cut=st.integers(0, 6),
)
def test_frames_of_every_type_survive_a_round_trip(df: pl.DataFrame, cut: int) -> None:
    df = df.with_columns(pl.col(pl.Datetime).dt.replace_time_zone(None)) if _has_far_years(df) else df
    parts = [df.slice(0, cut), df.slice(cut)]
    for format in ("arrow", "parquet"):
        assert_frame_equal(decode(body(parts, format), format, schema=df.schema), df)


def _has_far_years(df: pl.DataFrame) -> bool:
    return any(isinstance(dtype, pl.Datetime) for dtype in df.dtypes)


cells: dict[pl.DataType, st.SearchStrategy[object]] = {
    pl.Int8(): st.integers(-128, 127),
    pl.UInt64(): st.integers(0, 2**64 - 1),
    pl.Int128(): st.integers(-(2**63), 2**63),
    pl.Float64(): st.floats(allow_nan=False, allow_infinity=False),
    pl.Boolean(): st.booleans(),
    pl.String(): st.text(max_size=5),
    pl.Binary(): st.binary(max_size=5),
    pl.Date(): st.dates(),
    pl.Time(): st.times(),
    pl.Datetime("us"): st.datetimes(),
    pl.Datetime("ms"): st.datetimes().map(lambda value: value.replace(microsecond=value.microsecond // 1000 * 1000)),
    pl.Datetime("us", "America/New_York"): st.datetimes(
        datetime(2, 1, 1), datetime(9998, 1, 1), timezones=st.just(UTC)
    ).map(lambda value: value.astimezone(ZoneInfo("America/New_York"))),
    pl.Duration("us"): st.timedeltas(timedelta(days=-(10**6)), timedelta(days=10**6)),
    pl.Decimal(38, 6): st.decimals(-(10**20), 10**20, places=6),
    pl.Enum(["a", "b"]): st.sampled_from("ab"),
}
nested = {pl.List(kind): st.lists(st.none() | some, max_size=3) for kind, some in cells.items()} | {
    pl.Struct({"x": kind, "y": pl.List(kind)}): st.fixed_dictionaries(
        {"x": st.none() | some, "y": st.none() | st.lists(some, max_size=2)}
    )
    for kind, some in cells.items()
}


@settings(max_examples=150)
@given(st.data())
def test_text_keeps_every_digit(data: st.DataObject) -> None:
    format = data.draw(st.sampled_from(TEXT))
    kinds = cells if format == "csv" else cells | nested
    chosen = data.draw(st.lists(st.sampled_from(list(kinds)), min_size=1, max_size=4))
    schema = pl.Schema({f"c{number}": kind for number, kind in enumerate(chosen)})
    row = st.tuples(*(st.none() | kinds[kind] for kind in chosen))
    df = pl.DataFrame(data.draw(st.lists(row, max_size=5)), schema=schema, orient="row")
    assert_frame_equal(decode(body(df, format), format, schema=schema), df)


def test_json_is_what_every_parser_reads() -> None:
    rows = json.loads(body(FLAT, "json"))
    assert rows == [json.loads(line) for line in body(FLAT, "ndjson").splitlines()]
    assert rows[0]["naive"] == "2024-01-02T03:04:05.678901"
    assert rows[0]["zoned"] == "2024-07-01T12:00:00.000000+02:00"
    assert rows[2]["zoned"] == "1799-12-31T23:06:32.000000+00:00"  # the offset of Berlin was 53 minutes 28 seconds
    assert rows[0]["decimal"] == "12345678901234567890.123456789"
    assert rows[0]["duration"] == "P1DT2.000003S"
    assert rows[0]["binary"] == "AP8="
    assert rows[1] == {**dict.fromkeys(FLAT.columns), "^i$": 2}


def test_numbers_that_are_not_finite_are_null_in_json_and_themselves_elsewhere() -> None:
    df = pl.DataFrame({"f": [1.5, float("nan"), float("inf"), float("-inf")]})
    for format in ("json", "ndjson"):
        assert decode(body(df, format), format, schema=df.schema)["f"].to_list() == [1.5, None, None, None]
    for format in ("csv", "arrow", "parquet"):
        assert_frame_equal(decode(body(df, format), format, schema=df.schema), df)


def test_csv_has_one_header_and_is_what_every_parser_reads() -> None:
    df = pl.DataFrame({"a,b": ["x", 'q"q', "two\nlines", "", None], "c": [1, 2, None, 4, 5]})
    text = body([df, df.clear(), df], "csv").decode()
    rows = list(csv.reader(io.StringIO(text, newline="")))
    expected = [["x", "1"], ['q"q', "2"], ["two\nlines", ""], ["", "4"], ["", "5"]]
    assert rows == [["a,b", "c"], *expected, *expected]
    assert body(df, "csv") == df.write_csv().encode()


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "\n", "\0", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_formulas_are_escaped_on_request(first: str) -> None:
    df = pl.DataFrame({f"{first}name": [f'{first}cmd("x"),;1', "safe=1"], "n": [-1, -2], "c": ["-a", "b"]})
    df = df.with_columns(pl.col("c").cast(pl.Categorical))
    text = body(df, "csv", escape_formulas=True).decode()
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    assert header == [f"'{first}name", "n", "c"]
    assert rows == [[f'\'{first}cmd("x"),;1', "-1", "'-a"], ["safe=1", "-2", "b"]]
    assert text.endswith('"safe=1",-2,"b"\n')  # all text is quoted, since a semicolon may be a separator too
    assert f"'{first}" not in body(df, "csv").decode()


def test_two_names_may_be_the_same_once_escaped() -> None:
    df = pl.DataFrame({"=a": [1], "'=a": [2]})
    assert body(df, "csv", escape_formulas=True) == b'"\'=a","\'=a"\n1,2\n'


@every_format
def test_chunks_are_bounded(format: Format) -> None:
    df = pl.DataFrame({"s": ["0123456789abcdef" * 4096] * 20, "n": range(20)})
    df = df.with_columns(pl.col("s") + pl.col("n").cast(pl.String).str.pad_start(600_000, "x"))
    chunks = list(encode(df, format))
    assert max(map(len, chunks)) <= encoders.CHUNK_BYTES
    assert all(chunks)
    assert_frame_equal(decode(b"".join(chunks), format, schema=df.schema), df)


@every_format
def test_a_chunk_is_ready_before_the_next_batch_is_requested(format: Format) -> None:
    asked: list[int] = []

    def batches() -> Iterator[pl.DataFrame]:
        for number in range(3):
            asked.append(number)
            yield FLAT

    with encode(batches(), format) as chunks:
        assert next(chunks)
        assert asked == [0]


@every_format
def test_the_hub_keeps_running(format: Format) -> None:
    with crowded():
        assert body(FLAT, format)


@every_format
def test_a_consumer_that_stops_stops_the_query(format: Format) -> None:
    ended: list[int] = []
    query = gated_batches(lambda number: number, 1000, lambda: ended.append(1))
    with encode(query, format) as chunks:
        assert next(chunks)
    while not ended:
        rest()
        pl.Series([0])  # a call into Polars frees Python objects that its threads have released
    assert list(chunks) == []


def test_a_consumer_that_never_began_closes_its_source() -> None:
    closed: list[int] = []

    class Source:
        def __iter__(self) -> Source:
            return self

        def __next__(self) -> pl.DataFrame:
            raise AssertionError("no frame was requested")

        def close(self) -> None:
            closed.append(1)

    chunks = encode(Source(), "json")
    chunks.close()
    chunks.close()
    assert closed == [1]
    assert list(chunks) == []


@every_format
def test_a_late_error_is_raised(format: Format) -> None:
    closed: list[int] = []

    def batches() -> Iterator[pl.DataFrame]:
        try:
            yield FLAT
            raise ZeroDivisionError("late")
        finally:
            closed.append(1)

    chunks = encode(batches(), format)
    assert next(chunks)
    with pytest.raises(ZeroDivisionError, match="late"):
        list(chunks)
    assert closed == [1]
    assert list(chunks) == []


def test_a_late_error_of_a_query_is_raised() -> None:
    def fail_late(number: object) -> object:
        return 1 // (number - 5)  # type: ignore[operator]

    with pytest.raises(ZeroDivisionError):
        body(gated_batches(fail_late, 10), "ndjson")


MISMATCHES: dict[str, tuple[pl.DataFrame, str]] = {
    "missing": (pl.DataFrame({"a": [1]}), "1 column missing: b"),
    "extra": (pl.DataFrame({"a": [1], "b": ["x"], "c": [1], "d": [1]}), "2 columns too many: c, d"),
    "dtype": (pl.DataFrame({"a": ["x"], "b": ["x"]}), "column 'a' is String, expected Int64"),
    "order": (pl.DataFrame({"b": ["x"], "a": [1]}), "its columns are in the order b, a, expected a, b"),
}


@every_format
@pytest.mark.parametrize(("other", "text"), MISMATCHES.values(), ids=MISMATCHES.keys())
def test_the_error_for_another_schema_names_the_difference(format: Format, other: pl.DataFrame, text: str) -> None:
    first = pl.DataFrame({"a": [1], "b": ["x"]})
    with pytest.raises(FrameMismatch, match=text) as caught:
        body([first, other], format)
    assert caught.value.expected == first.schema
    assert caught.value.got == other.schema


def test_columns_without_a_form() -> None:
    objects = pl.DataFrame({"o": pl.Series([object()], dtype=pl.Object), "n": [1]})
    for format in FORMATS:
        with pytest.raises(NotWritable, match=f"1 column that {format} cannot store: o \\(Object\\)"):
            encode(objects, format)
    with pytest.raises(NotWritable, match=r"2 columns that csv cannot store: l \(List\(Int64\)\), s ") as caught:
        encode(pl.DataFrame({"l": [[1]], "s": [{"a": 1}]}), "csv")
    assert list(caught.value.columns) == ["l", "s"]
    with pytest.raises(NotWritable):
        body([objects], "parquet")
    with pytest.raises(NotWritable):
        body(pl.LazyFrame({"l": [[1]]}), "csv")


@pytest.mark.parametrize("source", ["abc", b"abc", {"a": [1]}, [{"a": 1}], [FLAT, None], ([1],)], ids=repr)
def test_what_is_never_a_frame_is_refused_at_the_call(source: Any) -> None:
    before = greendata.stats()
    with pytest.raises(NotAFrame, match=r"expected a polars\.DataFrame, got (str|bytes|dict|NoneType|list)"):
        encode(source, "csv")
    assert greendata.stats() == before


def test_bad_arguments() -> None:
    with pytest.raises(BadChoice, match="format must be 'json', 'ndjson', 'csv', 'arrow' or 'parquet', got 'xml'"):
        encode(FLAT, "xml")  # type: ignore[arg-type]
    with pytest.raises(NotIterable):
        encode(3, "json")  # type: ignore[call-overload, arg-type]
    with pytest.raises(BadTimeout):
        encode(FLAT, "json", timeout=-1)
    with pytest.raises(NotAFrame, match=r"expected a polars.DataFrame, got dict"):
        body([{"a": 1}], "json")
    with pytest.raises(NotAFrame, match="NoneType"):
        body([FLAT, None], "json")


def test_a_deadline_is_for_the_whole_body() -> None:
    def batches() -> Iterator[pl.DataFrame]:
        while True:
            yield FLAT

    with pytest.raises(DeadlineExceeded):
        for _ in encode(batches(), "ndjson", timeout=0.05):
            pass


def test_one_consumer_at_a_time(held: Gate) -> None:
    def source() -> Iterator[pl.DataFrame]:
        yield from greendata.batches(gated_batches(held, 1))

    chunks = encode(source(), "ndjson")
    waiting = gevent.spawn(list, chunks)
    held.wait_arrived()
    with pytest.raises(ChunksBusy, match="another greenlet is already waiting for the next chunk"):
        next(chunks)
    assert "waiting" in repr(chunks)
    held.open()
    assert len(waiting.get()) == 1


def test_closing_frees_a_consumer_that_waits(held: Gate) -> None:
    chunks = encode(gated_batches(held, 3), "ndjson")

    def consume() -> None:
        with pytest.raises(JobCancelled):
            next(chunks)

    waiting = gevent.spawn(consume)
    held.wait_arrived()
    chunks.close()
    waiting.get()
    held.open()


def test_closing_while_the_source_is_running() -> None:
    closed: list[int] = []
    begun, gate = gevent.event.Event(), gevent.event.Event()

    def batches() -> Iterator[pl.DataFrame]:
        try:
            yield FLAT
            begun.set()
            gate.wait()
            yield FLAT
        finally:
            closed.append(1)

    chunks = encode(batches(), "ndjson")
    assert next(chunks)
    waiting = gevent.spawn(list, chunks)
    begun.wait()
    chunks.close()
    assert closed == []
    gate.set()
    assert waiting.get() == []
    assert closed == [1]


def test_media_types_and_suffixes() -> None:
    assert set(MEDIA_TYPES) == set(SUFFIXES) == set(FORMATS)
    assert MEDIA_TYPES["arrow"] == "application/vnd.apache.arrow.stream"
    assert MEDIA_TYPES["parquet"] == "application/vnd.apache.parquet"
    assert MEDIA_TYPES["csv"] == "text/csv; charset=utf-8; header=present"
    assert MEDIA_TYPES["ndjson"] == "application/x-ndjson"
    assert MEDIA_TYPES["json"] == "application/json"


@pytest.mark.parametrize("format", ["json", "ndjson", "arrow", "parquet"])
def test_models_with_dicts_and_tuples_survive_a_round_trip(format: Format) -> None:
    class Inner(BaseModel):
        counts: dict[str, int]
        at: datetime = datetime(2024, 1, 1)

    class Whole(BaseModel):
        d: dict[int, list[bytes]]
        t: tuple[int, str]
        i: list[Inner]
        o: dict[str, Inner] | None = {}

    inner = Inner(counts={"a": 1}, at=datetime(2024, 2, 29, 12, 0, 0, 5))
    rows = [
        Whole(d={1: [b"\xff"], 2: []}, t=(1, "a"), i=[inner, inner], o=None),
        Whole(d={}, t=(2, "b"), i=[], o={"k": inner}),
    ]
    df = Frame[Whole].from_rows(rows).to_frame()
    found = decode(body(df, format), format, model=Whole)
    assert_frame_equal(found, df)
    assert Frame[Whole].from_frame(found).collect() == rows
    if format in ("json", "ndjson"):
        with pytest.raises(FrameInvalid, match="dict_type"):
            decode(body(df.drop("o"), format), format, model=Whole)  # null is not replaced by a default
