"""Values of every dtype, unit and zone survive every format and every call unchanged, or raise an error of greendata.

Values that Python cannot hold (nanoseconds, far years) survive in columns. Converting them to Python values raises.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import greendata
from greendata import Frame
from greendata.errors import FrameInvalid, GreenDataError, Malformed
from greendata.formats.format import FORMATS, Format

pytestmark = pytest.mark.once("unpatched")  # values only: patching makes no difference

QUICK = settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
ZONES = ("UTC", "Europe/Paris", "Asia/Kathmandu", "America/New_York", "Africa/Monrovia")
DAY = 86_400
SECONDS = {"ms": 10**3, "us": 10**6, "ns": 10**9}  # ticks in a second
FIRST, LAST = (
    int((moment - datetime(1970, 1, 1)).total_seconds()) for moment in (datetime.min, datetime(9999, 12, 31))
)


def _whole(low: int, high: int) -> st.SearchStrategy[int]:
    near = st.integers(max(low, -1000), min(high, 1000))
    return near | st.integers(low, high) | st.sampled_from((low, high))


def _made(dtype: Any, values: st.SearchStrategy[Any], *, out_of: Any = None) -> st.SearchStrategy[pl.Series]:
    lists = st.lists(st.none() | values, min_size=1, max_size=4)
    made = lists.map(lambda some: pl.Series("a", some, dtype=out_of or dtype))
    return made if out_of is None else made.map(lambda series: series.cast(dtype))


def _decimals(precision: int, scale: int) -> st.SearchStrategy[pl.Series]:
    most = 10**precision - 1
    exact = _whole(-most, most).map(
        lambda digits: Decimal((int(digits < 0), tuple(map(int, str(abs(digits)))), -scale))
    )
    return _made(pl.Decimal(precision, scale), exact)


def _moments(unit: Any, zone: str | None) -> st.SearchStrategy[pl.Series]:
    """Generate all nanoseconds, or else the years that Python supports, in every zone."""
    ticks = SECONDS[unit]
    low, high = (-(2**63), 2**63 - 1) if unit == "ns" else ((FIRST + DAY) * ticks, (LAST - DAY) * ticks)
    days = DAY * ticks if zone and unit == "ns" else 0  # leave space for the local time
    return _made(pl.Datetime(unit, zone), _whole(low + days, high - days), out_of=pl.Int64)


INTEGERS = {
    dtype: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    for dtype, bits, signed in (
        (pl.Int8, 8, True),
        (pl.Int16, 16, True),
        (pl.Int32, 32, True),
        (pl.Int64, 64, True),
        (pl.Int128, 128, True),
        (pl.UInt8, 8, False),
        (pl.UInt16, 16, False),
        (pl.UInt32, 32, False),
        (pl.UInt64, 64, False),
        (pl.UInt128, 128, False),
    )
}
COLUMNS: dict[str, st.SearchStrategy[pl.Series]] = {
    **{str(dtype()): _made(dtype, _whole(*bounds)) for dtype, bounds in INTEGERS.items()},
    "Float64": _made(pl.Float64, st.floats()),
    "Float32": _made(pl.Float32, st.floats(width=32)),
    "Boolean": _made(pl.Boolean, st.booleans()),
    "String": _made(pl.String, st.text(max_size=6) | st.sampled_from(["null", "NaN", "1", " ", "\r\n", "\0", '"'])),
    "Binary": _made(pl.Binary, st.binary(max_size=5)),
    "Date": _made(pl.Date, _whole(FIRST // DAY, LAST // DAY), out_of=pl.Int32),
    "Time": _made(pl.Time, _whole(0, DAY * 10**9 - 1), out_of=pl.Int64),
    "Null": _made(pl.Null, st.none()),
    "Enum": _made(pl.Enum(["x", "", "y z", "1"]), st.sampled_from(["x", "", "y z", "1"])),
    "Categorical": _made(pl.Categorical, st.text(max_size=3)),
    **{f"Datetime {unit} {zone}": _moments(unit, zone) for unit in SECONDS for zone in (None, *ZONES)},
    **{
        f"Duration {unit}": _made(pl.Duration(unit), _whole(-(2**63), 2**63 - 1), out_of=pl.Int64)  # type: ignore[arg-type]
        for unit in SECONDS
    },
    **{f"Decimal {digits}": _decimals(*digits) for digits in ((38, 0), (38, 38), (38, 10), (10, 2), (1, 0), (3, 3))},
}
TEXT = ("json", "ndjson", "csv")


def _flat(series: pl.Series) -> pl.DataFrame:
    return series.to_frame().with_columns(b=pl.lit(1, pl.Int64))


def _listed(series: pl.Series) -> pl.DataFrame:
    return pl.DataFrame({"a": series.implode()})


def _in_structs(series: pl.Series) -> pl.DataFrame:
    return pl.DataFrame({"a": series.alias("x").to_frame().to_struct("a")})


def _unchanged(found: pl.DataFrame, df: pl.DataFrame) -> None:
    """Assert that two frames are identical; NaN equals NaN."""
    assert found.schema == df.schema
    assert found.equals(df), (found, df)


def _as_in_json(series: pl.Series, format: str) -> pl.Series:
    """Return *series* with null for values that JSON does not have."""
    if format in ("json", "ndjson") and series.dtype.is_float():
        return pl.select(pl.when(series.is_finite()).then(series).alias("a")).to_series()
    return series


every_column = pytest.mark.parametrize("name", COLUMNS)
every_shape = pytest.mark.parametrize("shape", [_flat, _listed, _in_structs])


@every_column
@every_shape
@QUICK
@given(data=st.data())
def test_formats_with_a_schema(name: str, shape: Callable[[pl.Series], pl.DataFrame], data: st.DataObject) -> None:
    series = data.draw(COLUMNS[name].map(lambda found: lambda: found))()
    for format in FORMATS if shape is _flat else FORMATS[:2] + FORMATS[3:]:
        body = b"".join(greendata.encode(shape(series), format))
        df = shape(_as_in_json(series, format))
        _unchanged(greendata.decode(body, format, schema=df.schema), df)


@every_column
@QUICK
@given(data=st.data())
def test_formats_with_a_model(name: str, data: st.DataObject) -> None:
    series = data.draw(COLUMNS[name].map(lambda found: lambda: found))()
    for format in FORMATS:
        body = b"".join(greendata.encode(_flat(series), format))
        df = _flat(_as_in_json(series, format))
        is_cut = series.dtype.is_temporal() and format in TEXT[:2] and _has_nanoseconds(series)  # pydantic reads JSON
        with suppress(FrameInvalid):  # a duration that Python cannot hold
            found = greendata.decode(body, format, model=greendata.model_of(df.schema))
            if not is_cut:
                _unchanged(found, df)


def _has_nanoseconds(series: pl.Series) -> bool:
    in_ticks = getattr(series.dtype, "time_unit", "ns") == "ns" and not isinstance(series.dtype, pl.Date)
    return in_ticks and bool((series.to_physical() % 1000 != 0).any())


@every_column
@QUICK
@given(data=st.data())
def test_frames(name: str, data: st.DataObject) -> None:
    df = _flat(data.draw(COLUMNS[name].map(lambda found: lambda: found))())
    model = greendata.model_of(df.schema)
    good, failures = greendata.filter_valid(df, model)
    _unchanged(good, df.filter(~pl.int_range(pl.len()).is_in(failures["row"].implode())))
    assert not failures.height or (name == "Duration ms" and set(failures["rule"]) == {"column_form"})
    rows = Frame[model].from_frame(good)  # type: ignore[valid-type]
    with rows.stream(batch_size=2) as stream:
        _unchanged(pl.concat([good.head(0), *stream]), good)
    try:
        models = rows.collect()
    except FrameInvalid:
        assert _has_nanoseconds(df["a"])
        with pytest.raises(FrameInvalid, match="Python has no"):
            greendata.to_models(good, model)
        return
    assert greendata.to_models(good, model) == models or df["a"].dtype.is_float()
    _unchanged(Frame[model].from_rows(models).plan.collect(), good)  # type: ignore[valid-type]


@every_column
@pytest.mark.parametrize("kind", ["parquet", "csv", "ndjson", "ipc"])
@QUICK
@given(data=st.data())
def test_files(kind: str, name: str, tmp_path: Path, data: st.DataObject) -> None:
    series = data.draw(COLUMNS[name].map(lambda found: lambda: found))()
    model = greendata.model_of(_flat(series).schema)
    with suppress(FrameInvalid):  # a duration that Python cannot hold
        getattr(Frame[model].from_frame(_flat(series)), f"write_{kind}")(tmp_path / "file")  # type: ignore[valid-type]
        scanned = getattr(Frame[model], f"scan_{kind}")(tmp_path / "file")  # type: ignore[valid-type]
        _unchanged(scanned.to_frame(), _flat(_as_in_json(series, kind)))


# -- text as a value: exactly that value, or Malformed ----------------------------------------------

NUMBERS = st.from_regex(r"[+-]?[0-9]{1,40}(\.[0-9]{0,40})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
SHORT = st.decimals(allow_nan=False, allow_infinity=False).map(str)
MOMENTS = st.from_regex(
    r"(1[5-9]|2[0-9]|9[0-9])[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[T ]([01][0-9]|2[0-3]):[0-5][0-9]"
    r":[0-6][0-9](\.[0-9]{1,12})?",
    fullmatch=True,
)
SPANS = st.from_regex(
    r"-?P([0-9]{1,8}D)?(T([0-9]{1,4}H)?([0-9]{1,4}M)?([0-9]{1,6}(\.[0-9]{1,12})?S)?)?", fullmatch=True
)


def _read(text: str, dtype: pl.DataType, format: Format) -> pl.Series | None:
    """Return the column with this text as its value, or None if it is rejected."""
    body = {"csv": f"a,b\n{text},1\n", "json": f'[{{"a":"{text}"}}]', "ndjson": f'{{"a":"{text}"}}\n'}[format]
    try:
        return greendata.decode(body.encode(), format, schema=pl.Schema({"a": dtype}))["a"]
    except Malformed:
        return None


@pytest.mark.parametrize("format", TEXT)
@settings(max_examples=50)
@given(
    text=NUMBERS | SHORT,
    dtype=st.sampled_from([pl.Decimal(38, 10), pl.Decimal(10, 2), pl.Int8(), pl.Int64(), pl.UInt128()]),
)
@example(text="1e-30", dtype=pl.Decimal(38, 10))
@example(text="0." + "1" * 11, dtype=pl.Decimal(38, 10))
@example(text="-0.000", dtype=pl.Decimal(10, 2))
def test_text_of_numbers(format: Format, text: str, dtype: pl.DataType) -> None:
    found = _read(text, dtype, format)
    assert found is None or Fraction(found.item()) == Fraction(Decimal(text))


@pytest.mark.parametrize("format", TEXT)
@settings(max_examples=50)
@given(text=NUMBERS | SHORT, dtype=st.sampled_from([pl.Float64(), pl.Float32()]))
@example(text="1e400", dtype=pl.Float64())
@example(text="1e39", dtype=pl.Float32())
def test_text_of_floats(format: Format, text: str, dtype: pl.DataType) -> None:
    found = _read(text, dtype, format)
    if found is not None and not math.isclose(found.item(), float(text), rel_tol=1e-15):
        assert dtype == pl.Float32()
        assert math.isclose(found.item(), float(text), rel_tol=1e-6, abs_tol=1e-45)


@pytest.mark.parametrize("format", TEXT)
@settings(max_examples=50)
@given(text=MOMENTS, unit=st.sampled_from([*SECONDS]))
@example(text="2262-04-11T23:47:16.854775808", unit="ns")
@example(text="1677-09-21T00:12:43.145224192", unit="ns")
@example(text="2024-01-01T10:00:60", unit="us")
@example(text="1969-12-31T23:59:59.9999999", unit="us")
def test_text_of_moments(format: Format, text: str, unit: Any) -> None:
    found = _read(text, pl.Datetime(unit), format)
    zoned = _read(text + "+02:00", pl.Datetime(unit, "UTC"), format)
    whole, _, fraction = text.replace(" ", "T").partition(".")
    try:
        seconds = Fraction(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
    except ValueError:
        assert found is zoned is None
        return
    exact = (seconds + Fraction(f"0.{fraction or 0}")) * SECONDS[unit]
    assert found is None or found.to_physical().item() == exact
    assert zoned is None or zoned.to_physical().item() == exact - 2 * 3600 * SECONDS[unit]
    if exact.denominator == 1 and -(2**63) + 10**14 < exact < 2**63 - 10**14:
        assert found is not None
        assert zoned is not None


@pytest.mark.parametrize("format", TEXT)
@settings(max_examples=50)
@given(text=SPANS, unit=st.sampled_from([*SECONDS]))
def test_text_of_spans(format: Format, text: str, unit: Any) -> None:
    found = _read(text, pl.Duration(unit), format)
    if found is None:
        return
    days, _, clock = text.lstrip("-").removeprefix("P").rpartition("T") if "T" in text else (text.lstrip("-P"), "", "")
    total = Fraction(days.rstrip("D") or 0) * DAY
    for sign, size in (("H", 3600), ("M", 60), ("S", 1)):
        part, found_it, rest = clock.partition(sign)
        total, clock = (total + Fraction(part) * size, rest) if found_it else (total, clock)
    assert found.to_physical().item() == (-total if text.startswith("-") else total) * SECONDS[unit]


def test_far_years_are_reported_wherever_python_values_are_made() -> None:
    for series in (
        pl.Series("a", [-800_000, 2**31 - 1], dtype=pl.Int32).cast(pl.Date),
        pl.Series("a", [-(2**63), 2**62]).cast(pl.Datetime("us", "Europe/Paris")),
        pl.Series("a", [2**63 - 1]).cast(pl.Datetime("ms")),
        pl.Series("a", [2**63 - 1]).cast(pl.Duration("ms")),
        pl.Series("a", [[10**7]]).cast(pl.List(pl.Int32)).cast(pl.List(pl.Date)),
    ):
        df = series.to_frame()
        model = greendata.model_of(df.schema)
        rows = Frame[model].from_frame(df, trust="strict")  # type: ignore[valid-type]
        calls: tuple[Callable[[], object], ...] = (
            rows.collect,
            rows.to_dict,
            lambda df=df: greendata.to_dicts(df),  # type: ignore[misc]
            lambda df=df: greendata.to_columns(df),  # type: ignore[misc]
            lambda df=df, model=model: greendata.to_models(df, model),  # type: ignore[misc]
            lambda df=df, model=model: greendata.validate(df, model),  # type: ignore[misc]
            lambda rows=rows: [*rows.stream().models()],  # type: ignore[misc]
        )
        for call in calls:
            with pytest.raises(FrameInvalid, match="Python has no"):
                call()
        spare = df.with_columns(id=1)
        assert len(greendata.to_models(spare, greendata.model_of({"id": pl.Int64}))) == df.height
        with suppress(GreenDataError):
            b"".join(greendata.encode(df, "ndjson"))


JSON_NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,44})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)


@pytest.mark.parametrize("form", ["[{{{0}}}]", "{{{0}}}\n", '{{"a":[{1}],"b":["1.50"]}}'])
@settings(max_examples=50)
@given(text=JSON_NUMBERS)
@example(text="0.12345678901234567891")
@example(text="1.50")
@example(text="1e-7")
@example(text="123456789012345678901234567890123456789012")
def test_numbers_of_json_are_their_digits(form: str, text: str) -> None:
    body = form.format(f'"a":{text},"b":"1.50"', text).encode()
    format: Format = "ndjson" if form.endswith("\n") else "json"
    for dtype in (pl.String(), pl.Decimal(38, 12), pl.Decimal(38, 30)):
        schema = pl.Schema({"a": dtype, "b": pl.String})
        try:
            found = greendata.decode(body, format, schema=schema)
        except Malformed:
            continue
        assert found["b"].to_list() == ["1.50"]
        if dtype == pl.String():
            assert Decimal(found["a"].item()) == Decimal(text)
            assert found["a"].item().partition(".")[2] == text.partition(".")[2]
        else:
            assert Fraction(found["a"].item()) == Fraction(Decimal(text))


def test_numbers_beside_numbers_of_many_digits() -> None:
    body = b'[{"a":0.12345678901234567891,"i":7,"f":2.5,"l":[1.25,null],"s":"x: 1.50, \\"2.50\\"","b":true}, {}]'
    kinds = {"a": pl.Decimal(38, 20), "i": pl.Int8, "f": pl.Float64, "l": pl.List(pl.Decimal(5, 2)), "s": pl.String}
    found = greendata.decode(body, "json", schema=pl.Schema({**kinds, "b": pl.Boolean}))
    row = Decimal("0.12345678901234567891"), 7, 2.5, [Decimal("1.25"), None], 'x: 1.50, "2.50"', True
    assert found.rows() == [row, (None,) * 6]
    with pytest.raises(Malformed):
        greendata.decode(b'[{"a":0.12345678901234567891,"s":\x01x\x01}]', "json", schema=pl.Schema(kinds))
