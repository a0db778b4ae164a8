"""For any bytes in any format, `decode` returns a frame or raises Malformed, and the process survives."""

from __future__ import annotations

import io
import random
from datetime import datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greendata.errors import Malformed
from greendata.formats.decoders import decode
from greendata.formats.encoders import encode
from greendata.formats.format import FORMATS, Format

pytestmark = pytest.mark.once("unpatched")  # values only: patching makes no difference

every_format = pytest.mark.parametrize("format", FORMATS)

ROWS = 40
FLAT = pl.DataFrame(
    {
        "i": range(ROWS),
        "s": [f'text "{number % 7}", longer than what a view stores inline' for number in range(ROWS)],
        "n": [None] * ROWS,
        "b": [True, None] * (ROWS // 2),
        "d": [datetime(2024, 1, 1)] * ROWS,
    }
)
NESTED = FLAT.with_columns(
    l=pl.concat_list("i", "i"),
    st=pl.struct("i", "s"),
    c=pl.col("s").cast(pl.Categorical),
    e=pl.col("s").cast(pl.Binary),
)


def valid(format: Format) -> list[bytes]:
    """Return valid bodies of a format, in every variant."""
    df = FLAT if format == "csv" else NESTED
    bodies = [b"".join(encode(parts, format)) for parts in ([df], [df.head(1), df])]
    if format == "json":
        columns = pl.DataFrame([series.implode() for series in df.drop("e").iter_columns()])
        bodies.append(columns.write_json()[1:-1].encode())
    if format in ("arrow", "parquet"):
        for compression in ("uncompressed", "lz4", "zstd"):
            file = io.BytesIO()
            (df.write_ipc_stream if format == "arrow" else df.write_parquet)(file, compression=compression)  # type: ignore[operator]
            bodies.append(file.getvalue())
    return bodies


BODIES = {format: valid(format) for format in FORMATS}
SCHEMAS: tuple[pl.Schema | None, ...] = (None, FLAT.schema, NESTED.drop("c").schema)
NUMBERS = (
    b"\xff" * 4,
    b"\xff\xff\xff\x7f",
    b"\0" * 8,
    b"\xff" * 7 + b"\x7f",
    (1 << 40).to_bytes(8, "little"),
    b"\0\0\0\x80",
)
WORDS = (
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\n",
    b"\r",
    b"null",
    b"1e999",
    b"-",
    b"\\u0000",
    b"\xff",
    b"NaN",
    b"''",
)


def outcome(content: bytes, format: Format, schema: pl.Schema | None) -> pl.DataFrame | Malformed:
    try:
        return decode(content, format, schema=schema)
    except Malformed as error:
        return error


@every_format
def test_the_bodies_are_valid(format: Format) -> None:
    for body in BODIES[format]:
        assert isinstance(outcome(body, format, None), pl.DataFrame)


@every_format
@given(content=st.binary(max_size=200), schema=st.sampled_from(SCHEMAS[:2]))
@settings(max_examples=150)
def test_any_bytes(format: Format, content: bytes, schema: pl.Schema | None) -> None:
    outcome(content, format, schema)


words = st.lists(
    st.sampled_from([*WORDS, b"a", b'"a"', b'"i"', b"1", b" ", b'{"i":1}', b'"x"', b"=", b"true"]), max_size=30
)


@pytest.mark.parametrize("format", ["json", "ndjson", "csv"])
@given(content=words.map(b"".join), schema=st.sampled_from(SCHEMAS[:2]))
@settings(max_examples=300)
def test_any_words(format: Format, content: bytes, schema: pl.Schema | None) -> None:
    outcome(content, format, schema)


def mutated(body: bytes, chance: random.Random, words: tuple[bytes, ...]) -> bytes:
    """Return *body* truncated, or with some bytes overwritten, removed or inserted."""
    if chance.random() < 0.15:
        return body[: chance.randrange(len(body))]
    changed = bytearray(body)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(changed))
        word = bytes((chance.randrange(256),)) if chance.random() < 0.4 else chance.choice(words)
        end = at + chance.choice((0, len(word), len(word), 2 * len(word)))
        changed[at:end] = word
    return bytes(changed)


@every_format
@given(seed=st.integers(0, 2**32), schema=st.sampled_from(SCHEMAS))
@settings(max_examples=300)
def test_valid_bodies_with_damage(format: Format, seed: int, schema: pl.Schema | None) -> None:
    chance = random.Random(seed)
    words: Any = NUMBERS if format in ("arrow", "parquet") else WORDS
    content = mutated(chance.choice(BODIES[format]), chance, words)
    if format == "csv" and schema is not None:
        schema = FLAT.schema
    found = outcome(content, format, schema)
    if isinstance(found, Malformed):
        assert str(found).startswith(f"not valid {format}")
    else:
        assert found.estimated_size() < 1 << 28
