"""Pipelines with frames and files as sinks, and the progress bar."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import gevent
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from greendata.errors import BadArgument, FrameMismatch, NotAFrame, NotIterable
from greendata.pipelines import stages
from greendata.pipelines.run import workers
from greendata.pipelines.stages import Written
from tests.support.gates import Gate


def test_batch_collects_rows_into_frames() -> None:
    frames = list(range(5) | stages.map(lambda n: {"n": n, "s": str(n)}) | stages.batch(rows=2))
    assert [frame.height for frame in frames] == [2, 2, 1]
    assert pl.concat(frames).rows() == [(n, str(n)) for n in range(5)]


def test_batch_takes_tuples_and_a_schema() -> None:
    schema = {"n": pl.Int8, "s": pl.String}
    frames = list(stages.batch([(1, "a"), (2, None)], rows=10, schema=schema))
    assert [frame.schema for frame in frames] == [schema]
    empty = list(stages.batch([], rows=10, schema=schema))
    assert [(frame.height, frame.schema) for frame in empty] == [(0, schema)]
    assert list(stages.batch([], rows=10)) == []


def test_batch_infers_from_all_of_its_rows() -> None:
    rows = [{"a": None}] * 500 + [{"a": 1.5, "b": "late"}]
    (frame,) = stages.batch(rows, rows=1000)
    assert frame.schema == {"a": pl.Float64, "b": pl.String}


def test_batch_in_order() -> None:
    def slow(n: int) -> tuple[int]:
        for _ in range(n % 3):
            gevent.sleep(0)
        return (n,)

    chain = stages.map(slow, workers=4) | stages.batch(rows=10, schema=["n"])
    chain = chain | stages.map(lambda frame: frame["n"].to_list(), workers=2) | stages.ordered()
    assert list(itertools.chain.from_iterable(range(100) | chain)) == list(range(100))


def test_bad_batches() -> None:
    for rows in (0, -1, 1.5):
        with pytest.raises(BadArgument, match="rows must be"):
            stages.batch(rows=rows)  # type: ignore[arg-type]
    with pytest.raises(NotIterable):
        stages.batch(3, rows=1)  # type: ignore[call-overload]


def test_a_pipeline_ends_in_one_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "n.parquet"
    chain = stages.map(lambda n: {"n": n}) | stages.batch(rows=100) | stages.sink_parquet(path, compression="lz4")
    assert (range(1050) | chain).get() == [Written(path, 1050, 11, path.stat().st_size)]
    assert pl.read_parquet(path)["n"].to_list() == list(range(1050))
    assert pl.scan_parquet(path).filter(pl.col("n") == 777).collect().height == 1
    assert pl.scan_parquet(path).select(pl.len()).collect().item() == 1050
    assert [path.name for path in tmp_path.iterdir()] == ["n.parquet"]


cells: dict[Any, st.SearchStrategy[Any]] = {
    pl.Int64: st.integers(-(2**63), 2**63 - 1),
    pl.Float64: st.floats(),
    pl.String: st.text(max_size=20),
    pl.Boolean: st.booleans(),
    pl.Binary: st.binary(max_size=20),
    pl.List(pl.Int16): st.lists(st.integers(-5, 5), max_size=4),
}


@given(st.data())
@settings(max_examples=30)
def test_every_frame_comes_back(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(list(cells)), min_size=1, max_size=20))
    schema = {f"c{number}": kind for number, kind in enumerate(kinds)}
    row = st.tuples(*(st.none() | cells[kind] for kind in kinds))
    tables = data.draw(st.lists(st.lists(row, max_size=5), min_size=1, max_size=20))
    frames = [pl.DataFrame(rows, schema=schema, orient="row") for rows in tables]
    path = tmp_path_factory.mktemp("frames") / "all.parquet"
    stages.sink_parquet(path, frames, row_group_size=2).run()
    assert_frame_equal(pl.read_parquet(path), pl.concat(frames))
    assert_frame_equal(pl.scan_parquet(path).collect(engine="streaming"), pl.concat(frames))


def test_row_groups_are_written_as_they_come(tmp_path: Path) -> None:
    path, many = tmp_path / "n.parquet", 100
    growing: list[int] = []

    def frames() -> Any:
        for number in range(many):
            growing.extend(file.stat().st_size for file in tmp_path.iterdir())
            assert not path.exists()
            yield pl.DataFrame({"n": [random.Random(number).randbytes(40_000)]})

    assert stages.sink_parquet(path, frames()).get()[0].row_groups == many
    assert growing == sorted(growing)
    assert len(set(growing)) >= 3  # the file is written in pieces of Python's buffer, up to 128 KiB


def test_without_frames_no_file_is_written(tmp_path: Path) -> None:
    path = tmp_path / "none.parquet"
    assert stages.sink_parquet(path, []).get() == [Written(path, 0, 0, 0)]
    stages.sink_parquet(path, stages.batch([], rows=1, schema={"a": pl.Int8})).run()
    assert pl.read_parquet(path).schema == {"a": pl.Int8}


def test_the_file_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "kept.parquet"
    before = pl.DataFrame({"before": [1]})
    before.write_parquet(path)
    rows = stages.map(lambda n: {"n": 1 // (50 - n)}, range(100))
    with pytest.raises(ZeroDivisionError):
        (rows | stages.batch(rows=10) | stages.sink_parquet(path)).run()
    assert_frame_equal(pl.read_parquet(path), before)
    assert [file.name for file in tmp_path.iterdir()] == ["kept.parquet"]


def test_an_early_close_leaves_no_file(tmp_path: Path) -> None:
    rows = itertools.count() | stages.map(lambda n: {"n": n}) | stages.batch(rows=10)
    result = stages.sink_parquet(tmp_path / "n.parquet", rows).submit()
    while not list(tmp_path.iterdir()):
        gevent.idle()
    assert result.cancel()
    while workers() or list(tmp_path.iterdir()):
        gevent.idle()


def test_a_write_that_was_given_up_ends_before_its_file_is_removed(tmp_path: Path, held: Gate) -> None:
    class Slow(pl.DataFrame):
        def write_parquet(self, *args: Any, **options: Any) -> None:
            held()
            super().write_parquet(*args, **options)

    frames = [pl.DataFrame({"n": [1]}), Slow({"n": [2]})]
    result = stages.sink_parquet(tmp_path / "n.parquet", frames).submit()
    held.wait_arrived()
    result.cancel()
    while list(tmp_path.iterdir()):
        gevent.idle()
    held.open()
    gevent.idle()
    assert not list(tmp_path.iterdir())


def test_bad_frames(tmp_path: Path) -> None:
    path = tmp_path / "bad.parquet"
    with pytest.raises(FrameMismatch, match=r"Int64.*batch\(schema=...\)"):
        stages.sink_parquet(path, [pl.DataFrame({"a": [1]}), pl.DataFrame({"a": ["b"]})]).run()
    with pytest.raises(NotAFrame, match=r"expected a polars\.DataFrame, got dict"):
        stages.sink_parquet(path, [{"a": 1}]).run()  # type: ignore[list-item]
    with pytest.raises(TypeError, match="compresion"):
        stages.sink_parquet(path, compresion="zstd")
    with pytest.raises(FileNotFoundError):
        stages.sink_parquet(tmp_path / "no" / "folder.parquet", [pl.DataFrame({"a": [1]})]).run()
    assert not list(tmp_path.iterdir())


def test_progress_draws_a_bar_with_the_total(capsys: pytest.CaptureFixture[str]) -> None:
    tqdm = pytest.importorskip("tqdm", reason="the extra progress is not installed")
    stages.map(abs, range(7), workers=2, progress="pages").run()
    stages.filter(bool, range(7), progress="rows").run()
    drawn = capsys.readouterr().err
    assert "pages: 100%" in drawn
    assert "7/7" in drawn
    assert "rows: 6it" in drawn
    assert tqdm.tqdm.monitor is None  # no thread was started
