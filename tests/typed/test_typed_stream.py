"""Streams of typed frames: batches that arrive while the query runs, row numbers, and how a stream ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import gevent
import polars as pl
import pytest
from polars.io.plugins import register_io_source
from pydantic import BaseModel, Field

from greendata import Frame
from greendata.errors import BatchesBusy, FrameInvalid, UnreadableFile
from greendata.typed import frame as typed
from tests.support.gates import Gate
from tests.support.natives import until


class Row(BaseModel):
    a: Annotated[int, Field(lt=7)]
    b: str = "-"


NUMBERS = pl.DataFrame({"a": range(10)})


def counting(taken: list[int], ended: list[bool]) -> pl.LazyFrame:
    """Yield batches of 1 000 rows forever. *taken* gets the number of each batch that Polars requests."""

    def source(*_: object) -> Iterator[pl.DataFrame]:
        try:
            while True:
                taken.append(len(taken))
                yield pl.DataFrame({"a": [1] * 1_000})
        finally:
            ended.append(True)

    return register_io_source(source, schema={"a": pl.Int64})


def released(ended: list[bool]) -> bool:
    """Call Polars, which frees Python objects that its threads have released."""
    pl.Series([0])
    return bool(ended)


def test_the_first_batch_comes_before_the_end_and_closing_stops_the_query() -> None:
    taken: list[int] = []
    ended: list[bool] = []
    with Frame[Row].from_frame(counting(taken, ended)).stream(batch_size=1_000) as stream:
        assert next(stream).columns == ["a", "b"]
        assert next(stream.models())[0] == Row(a=1)
        assert not ended
    until(lambda: released(ended))
    assert list(stream) == []
    assert len(taken) < 1_000


def test_memory_holds_few_batches() -> None:
    """Polars stops requesting batches when its own small buffer is full, however slow the consumer is."""
    taken: list[int] = []
    ended: list[bool] = []
    with Frame[Row].from_frame(counting(taken, ended)).stream(batch_size=1_000) as stream:
        for _ in range(50):
            next(stream)
            assert len(taken) < 500
    until(lambda: released(ended))


def test_batches_are_as_long_as_asked_for() -> None:
    frame = Frame[Row].from_frame(NUMBERS.filter(pl.col("a") < 7))
    with frame.stream(batch_size=3) as stream:
        assert [batch["a"].to_list() for batch in stream] == [[0, 1, 2], [3, 4, 5], [6]]
    with frame.stream() as stream:
        assert [batch.height for batch in stream] == [7]
    with frame.filter(pl.col("a") > 100).stream() as stream:
        assert list(stream) == []


@pytest.mark.parametrize("way", ["frames", "models"])
def test_row_numbers_are_those_of_the_whole_frame(way: str) -> None:
    stream = Frame[Row].from_frame(NUMBERS).stream(batch_size=4)
    batches = iter(stream) if way == "frames" else stream.models()
    assert len(next(batches)) == 4
    with pytest.raises(FrameInvalid) as caught:
        next(batches)
    assert caught.value.failures["row"].to_list() == [7]
    assert caught.value.rows == 8
    assert list(stream) == []


def test_the_repr_of_a_stream() -> None:
    stream = Frame[Row].from_frame(NUMBERS).stream(batch_size=4)
    next(stream)
    assert repr(stream).startswith("<ModelStream of Row after 4 rows: <Batches 'stream of Row' open at ")
    stream.close()


def test_a_second_consumer_is_an_error(held: Gate) -> None:
    lf = NUMBERS.head(3).lazy().map_batches(held)
    stream = Frame[Row].from_frame(lf).stream()
    first = gevent.spawn(next, stream)
    held.wait_arrived()
    with pytest.raises(BatchesBusy):
        next(stream)
    held.open()
    first.join()


def test_a_bad_file_is_named_in_a_stream_too(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a\n" + "1\n" * 300 + "x\n")
    with pytest.raises(UnreadableFile, match=r"cannot read rows\.csv: could not parse `x`"):
        list(Frame[Row].scan_csv("rows.csv", root=tmp_path).stream())


@pytest.mark.parametrize("kind", ["parquet", "csv", "ndjson", "ipc"])
def test_writes_go_batch_by_batch(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typed, "BATCH_ROWS", 2)
    frame = Frame[Row].from_frame(NUMBERS.filter(pl.col("a") < 7))
    assert getattr(frame, f"write_{kind}")(tmp_path / "rows") == 7
    assert [row.a for row in getattr(Frame[Row], f"scan_{kind}")(tmp_path / "rows").collect()] == list(range(7))
    assert [file.name for file in tmp_path.iterdir()] == ["rows"]
