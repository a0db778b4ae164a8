"""Parquet files that declare implausible sizes are rejected before Polars reads them. Most files here are handmade."""

from __future__ import annotations

import io

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal

from greendata.errors import Malformed
from greendata.formats.decoders import decode
from greendata.formats.encoders import encode
from greendata.formats.guards import parquet_pages
from greendata.formats.guards.parquet_footer import check_parquet
from greendata.formats.guards.thrift import Reader, Skimmer, Writer
from greendata.formats.row_groups import MAGIC, RowGroups

Field = tuple[int, int, bytes]  # number, type and value

I32, I64, BINARY, LIST, STRUCT = 5, 6, 8, 9, 12


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def integer(number: int, value: int, kind: int = I64) -> Field:
    return number, kind, varint(value << 1 if value >= 0 else (-value << 1) - 1)


def text(number: int, value: bytes) -> Field:
    return number, BINARY, varint(len(value)) + value


def many(number: int, kind: int, items: list[bytes]) -> Field:
    return number, LIST, bytes([len(items) << 4 | kind]) + b"".join(items)


def struct(*fields: Field) -> bytes:
    out, last = bytearray(), 0
    for number, kind, value in fields:
        out += bytes(((number - last) << 4 | kind,)) + value
        last = number
    return bytes(out) + b"\0"


def page(
    data: bytes,
    values: int,
    *,
    unpacked: int | None = None,
    packed: int | None = None,
    kind: int = 0,
    encoding: int = 0,
) -> bytes:
    """Return a data page of version 1 (*kind* 0), a dictionary page (2) or a data page of version 2 (3)."""
    field = {0: 2, 2: 2, 3: 4}[kind]
    head = {0: 5, 2: 7, 3: 8}[kind], STRUCT, struct(integer(1, values, I32), integer(field, encoding, I32))
    sizes = len(data) if unpacked is None else unpacked, len(data) if packed is None else packed
    return struct(integer(1, kind, I32), integer(2, sizes[0], I32), integer(3, sizes[1], I32), head) + data


def file(
    *written: bytes,
    values: int = 1,
    begin: int = 4,
    width: int = 0,
    size: int | None = None,
    type: int = 1,
    lists: int = 0,
) -> bytes:
    """Return a file with one column: of values of a *type*, or of *width* bytes, in so many *lists*."""
    body = MAGIC + b"".join(written)
    kind = integer(1, 7 if width else type, I32)
    element = struct(kind, *([integer(2, width, I32)] if width else []), text(4, b"a"))
    above = [struct(integer(3, 2, I32), text(4, b"l"), integer(5, 1, I32))] * lists
    meta = struct(
        kind,
        integer(5, values),
        integer(7, len(body) - 4 if size is None else size),
        integer(9, begin),
    )
    group = struct(many(1, STRUCT, [struct((3, STRUCT, meta))]), integer(3, 1))
    schema = [struct(text(4, b"r"), integer(5, 1, I32)), *above, element]
    footer = struct(many(2, STRUCT, schema), integer(3, 1), many(4, STRUCT, [group]))
    return body + footer + len(footer).to_bytes(4, "little") + MAGIC


PLAIN = page(b"\1\0\0\0", 1)


def test_handmade_files_are_accepted() -> None:
    check_parquet(file(PLAIN))
    check_parquet(file(page(b"\1\0\0\0", 1, kind=2), PLAIN))
    check_parquet(file(page(bytes(16), 1), width=16))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (file(page(b"\1\0\0\0", -1)), "a page declares -1 values"),
        (file(page(b"\1\0\0\0", -1, kind=2), PLAIN), "a page declares -1 values"),
        (file(page(b"\1\0\0\0", -(2**31), kind=3)), "a page declares -2147483648 values"),
        (file(page(b"\1\0\0\0", 1, unpacked=-1)), "a page declares 1 values and -1 bytes"),
        (file(page(b"\1\0\0\0", 1, packed=-5)), "a page declares 1 values"),
        (file(PLAIN, values=-1), "a column declares -1 values"),
        (file(PLAIN, values=1 << 38), "a column declares 274877906944 values, and its pages 1"),
        (file(page(b"\1\0\0\0", 1, kind=2), PLAIN, values=3), "a column declares 3 values, and its pages 2"),
        (file(PLAIN, begin=-4), "a column declares 1 values"),
        (file(PLAIN, size=1 << 40), "a column lies outside the file"),
        (file(PLAIN, begin=1 << 40), "a column lies outside the file"),
        (file(page(b"\1\0\0\0", (1 << 28) + 1)), "above the limit"),
        (file(*[page(b"\1\0\0\0", 1 << 27)] * 3), "above the limit"),
        (file(page(b"\1\0\0\0", 1, unpacked=(1 << 31) - 1)), "above the limit"),
        (file(page(b"\1" * 100, 1 << 20), width=1 << 20), "above the limit"),
        (file(b"\xff" * 40), "the header of a page cannot be read"),
        (file(page(b"\1", 1 << 26), type=2), "claim 67108864 values and 553648128 bytes"),  # 64-bit integers
        (file(page(b"\1", 1 << 25), type=6), "claim 33554432 values and 545259520 bytes"),  # texts, if only nulls
        (file(page(b"\1", 1 << 23), lists=9), "claim 8388608 values and 649068544 bytes"),
        (file(page(b"\1" * 1000, 1 << 19, encoding=7), type=6), "524288 values in a page share prefixes"),
        (file(page(b"\1" * 1000, 1 << 19, kind=3, encoding=7), type=6), "may be 1000 bytes each; .* isolate=True"),
    ],
)
def test_sizes_above_the_limits_are_rejected(content: bytes, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        decode(content, "parquet")


def test_highly_compressed_text() -> None:
    one = io.BytesIO()
    pl.DataFrame({"a": ["x" * (1 << 25)]}).write_parquet(one, compression="zstd")
    groups, body = RowGroups(), bytearray(MAGIC)
    for _ in range(16):
        body += groups.add(one.getvalue(), len(body))
    body += groups.footer()
    with pytest.raises(Malformed, match="above the limit"):
        decode(bytes(body), "parquet")
    assert decode(one.getvalue(), "parquet")["a"].str.len_bytes().item() == 1 << 25


def test_many_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    df = pl.DataFrame({"a": range(10_000), "b": [b"x" * 50] * 10_000, "c": [[1, 2]] * 10_000})
    file = io.BytesIO()
    df.write_parquet(file, row_group_size=100, data_page_size=100)
    assert_frame_equal(decode(file.getvalue(), "parquet"), df)
    monkeypatch.setattr(parquet_pages, "PAGES", 100)
    with pytest.raises(Malformed, match="its 101 pages claim"):
        decode(file.getvalue(), "parquet")


def test_files_that_encode_writes_are_accepted() -> None:
    for df in (
        pl.DataFrame(),
        pl.DataFrame(schema={"a": pl.Int8, "b": pl.List(pl.String)}),
        pl.DataFrame({"a": [None]}),
    ):
        assert_frame_equal(decode(b"".join(encode(df, "parquet")), "parquet"), df)
    constant = pl.select(pl.repeat("constant", 3_000_000).alias("a"))
    assert decode(b"".join(encode(constant, "parquet")), "parquet").height == 3_000_000


def test_endless_numbers() -> None:
    """Without a limit, the number would grow with each byte, and each byte would take longer than the one before."""
    endless = bytes((1 << 4 | I32,)) + b"\xff" * 10_000 + b"\x01\0"
    content = MAGIC + endless + len(endless).to_bytes(4, "little") + MAGIC
    with pytest.raises(Malformed, match="its footer cannot be read"):
        check_parquet(content)
    with pytest.raises(Malformed, match="the header of a page cannot be read"):
        check_parquet(file(endless))
    largest = bytes((1 << 4 | I64,)) + b"\xff" * 9 + b"\x01\0"
    assert Skimmer(largest).numbers({1: 0}) == {1: -(2**63)}


def test_footers_survive_a_round_trip() -> None:
    frame = pl.DataFrame({"a": [1, None], "b": ["x", "y"], "c": [[1.5], []], "d": [{"e": True}, {"e": None}]})
    for rows in (frame, frame.head(0), pl.concat([frame] * 20).with_columns(pl.all().name.suffix("2"))):
        out = io.BytesIO()
        rows.write_parquet(out, row_group_size=2)
        content = out.getvalue()
        footer = content[-8 - int.from_bytes(content[-8:-4], "little") : -8]
        assert bytes(Writer().struct(Reader(footer).struct())) == footer


def test_text_with_shared_prefixes() -> None:
    values = [f"https://example.com/products/{number:06}" for number in range(1000)]
    file = io.BytesIO()
    pq.write_table(pa.table({"a": values}), file, use_dictionary=False, column_encoding={"a": "DELTA_BYTE_ARRAY"})
    assert decode(file.getvalue(), "parquet")["a"].to_list() == values


@pytest.mark.parametrize("swapped", [True, False])
def test_a_footer_with_two_schemas_is_rejected(*, swapped: bool) -> None:
    """Polars would read the columns by the last one."""
    content = file(page(b"\1\0\0\0", 1))
    length = int.from_bytes(content[-8:-4], "little")
    fields = Reader(content[-8 - length : -8]).struct()
    schema, groups = Writer().struct({2: fields[2]})[:-1], Writer().struct({4: fields[4]})[:-1]
    assert schema[0] >> 4 == 2
    again = bytes((schema[0] & 0x0F, 4)) + schema[1:]  # the number of the field in full, not as a difference
    footer = bytes(groups + again if swapped else schema + again) + b"\0"
    with pytest.raises(Malformed, match="its footer cannot be read"):
        check_parquet(content[: -8 - length] + footer + len(footer).to_bytes(4, "little") + MAGIC)
