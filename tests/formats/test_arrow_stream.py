"""One Arrow stream of many frames: Polars and pyarrow read it, and invalid streams are rejected before Polars."""

from __future__ import annotations

import io
import struct
from datetime import UTC, datetime

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from greendata.errors import Malformed
from greendata.formats.arrow_stream import END, ArrowStreamWriter
from greendata.formats.decoders import decode
from greendata.formats.encoders import encode
from greendata.formats.guards import arrow_check
from greendata.formats.guards.arrow_check import check_arrow_stream

FRAME = pl.DataFrame(
    {
        "i": [1, None, 3],
        "s": ["a", None, "long enough not to be inlined in a view"],
        "b": [b"x", None, b""],
        "d": [datetime(2024, 1, 1, tzinfo=UTC), None, datetime(1970, 1, 1, tzinfo=UTC)],
        "l": [["a"], None, []],
        "st": [{"x": 1, "y": "z"}, None, {"x": None, "y": None}],
        "n": [None, None, None],
    }
)


def stream(*frames: pl.DataFrame) -> bytes:
    return b"".join(encode(frames, "arrow"))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_one_stream_of_many_frames(count: int) -> None:
    content = stream(*[FRAME] * count)
    expected = pl.concat([FRAME] * count)
    assert_frame_equal(pl.read_ipc_stream(content), expected)
    with pa.ipc.open_stream(content) as reader:
        batches = list(reader)
    assert len(batches) == count
    table = pa.Table.from_batches(batches)
    table.validate(full=True)
    assert_frame_equal(pl.DataFrame(pl.from_arrow(table)), expected)
    assert content.count(END) >= 1
    check_arrow_stream(content)


def test_concatenated_streams_are_rejected() -> None:
    file = io.BytesIO()
    FRAME.write_ipc_stream(file)
    joined = file.getvalue() * 2
    assert pl.read_ipc_stream(joined).height == FRAME.height  # Polars drops half of it without an error
    with pytest.raises(Malformed, match="come after the end mark; streams cannot be concatenated"):
        check_arrow_stream(joined)


categories = st.lists(st.none() | st.sampled_from("abcdefghij"), max_size=5)


@given(st.lists(categories, min_size=1, max_size=5))
def test_each_batch_keeps_its_categories(batches: list[list[str | None]]) -> None:
    kinds = {"c": pl.Categorical, "e": pl.Enum(list("abcdefghij")), "l": pl.List(pl.Categorical)}
    frames = [
        pl.DataFrame({"c": values, "e": values, "l": [[value, value] for value in values]}, schema=kinds)
        for values in batches
    ]
    content = stream(*frames)
    expected = pl.concat(frames)
    assert_frame_equal(pl.read_ipc_stream(content), expected)
    with pa.ipc.open_stream(content) as reader:
        read = [batch.to_pydict() for batch in reader]
    assert [row["c"] for row in read] == batches
    assert [row["e"] for row in read] == batches
    assert [row["l"] for row in read] == [[[value, value] for value in values] for values in batches]


def test_a_slice_carries_no_more_than_itself() -> None:
    whole = pl.DataFrame({"s": ["0123456789abcdef" * 8] * 100_000})
    assert len(ArrowStreamWriter().add(whole.slice(500, 1))) < 1000


def test_a_stream_that_is_cut_short_anywhere() -> None:
    content = stream(FRAME, FRAME)
    for length in range(len(content)):
        with pytest.raises(Malformed, match="not valid arrow: "):
            check_arrow_stream(content[:length])


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_oversized_buffers_are_rejected(compression: str) -> None:
    file = io.BytesIO()
    pl.DataFrame({"a": range(1000)}).write_ipc_stream(file, compression=compression)  # type: ignore[arg-type]
    content = file.getvalue()
    check_arrow_stream(content)
    honest = struct.pack("<q", 8000)
    assert content.count(honest) >= 1
    for claim in (1 << 60, arrow_check.DECODED_BYTES + 1, -2):
        with pytest.raises(Malformed, match=f"a compressed buffer declares {claim} bytes"):
            check_arrow_stream(content.replace(honest, struct.pack("<q", claim)))


def test_huge_columns_of_nulls_are_rejected() -> None:
    content = stream(pl.DataFrame({"n": [None] * 77}))
    length, claim = struct.pack("<q", 77), struct.pack("<q", arrow_check.NODE_ROWS + 1)
    with pytest.raises(Malformed, match="a column of 268435457 values"):
        check_arrow_stream(content.replace(length, claim))
    many = stream(*[pl.DataFrame({"n": [None] * 77})] * 3).replace(length, struct.pack("<q", arrow_check.NODE_ROWS))
    with pytest.raises(Malformed, match="values: above the limit"):
        check_arrow_stream(many)


def test_buffers_that_overlap_are_rejected() -> None:
    """Polars copies each buffer: a thousand columns that share a megabyte would be a gigabyte."""
    content = stream(pl.DataFrame({"a": range(1000), "b": range(1000)}))
    second, whole = struct.pack("<4q", 8000, 0, 8000, 8000), struct.pack("<4q", 0, 0, 0, 16000)
    assert content.count(second) == 1
    with pytest.raises(Malformed, match="its buffers overlap: they have more than the 16000 bytes of their message"):
        decode(content.replace(second, whole), "arrow")


def test_many_dictionaries_in_a_row_are_rejected() -> None:
    """Polars 2.1 reads them by recursion: ten thousand of them overflow the stack, and end the process."""
    frame = pl.DataFrame({"c": ["a"]}, schema={"c": pl.Categorical})
    content = stream(frame)
    schema_end = 8 + struct.unpack_from("<i", content, 4)[0]
    rows = ArrowStreamWriter()
    rows.add(frame)
    messages = rows.add(frame)  # a dictionary and a record batch
    length, size = struct.unpack_from("<i", messages, 4)[0], len(messages)
    dictionary = next(
        bytes(messages[:end]) for end in range(8 + length, size) if messages[end : end + 4] == b"\xff\xff\xff\xff"
    )
    many = content[:schema_end] + dictionary * 20_000 + bytes(messages) + END
    with pytest.raises(Malformed, match="more than 2048 dictionaries without rows between them"):
        decode(many, "arrow")
    between = content[:schema_end] + bytes(messages) * 3000 + END
    assert decode(between, "arrow").height == 3000


def test_fields_too_deep() -> None:
    field = pa.field("x", pa.int8())
    for _ in range(arrow_check.DEPTH + 1):
        field = pa.field("x", pa.struct([field]))
    sink = io.BytesIO()
    pa.ipc.new_stream(sink, pa.schema([field])).close()
    with pytest.raises(Malformed, match="fields nest more than 64 levels deep"):
        check_arrow_stream(sink.getvalue())


def test_fields_too_many() -> None:
    sink = io.BytesIO()
    pa.ipc.new_stream(sink, pa.schema([(f"c{n}", pa.int8()) for n in range(arrow_check.FIELDS + 1)])).close()
    with pytest.raises(Malformed, match="more than 16384 fields"):
        check_arrow_stream(sink.getvalue())


def test_content_that_is_not_a_stream() -> None:
    file = io.BytesIO()
    FRAME.write_ipc(file)
    content = stream(FRAME)
    schema_length = 8 + struct.unpack_from("<i", content, 4)[0]
    for other, text in {
        file.getvalue(): "it is an Arrow file",
        content[schema_length:]: "expected a schema and then batches",
        END: "expected a schema",
        b"": "cut short",
        END[:4] + b"\x08\0\0\0" + b"\xff" * 8: "points outside it",
    }.items():
        with pytest.raises(Malformed, match=text):
            check_arrow_stream(other)
