"""Calls that type checkers accept, with the types that they find. `test_types` has both checkers read this file."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import assert_type

import gevent
import polars as pl
from pydantic import BaseModel

import greendata
from greendata import Caller, Frame, Group, Result, stages
from greendata.query.batches import Batches
from greendata.tasks.task import TaskResult


class User(BaseModel):
    name: str
    age: int


def half(number: int, *, exact: bool = True) -> float:
    return number / 2 if exact else number // 2


def words(line: str) -> Iterator[str]:
    yield from line.split()


def verbs(lf: pl.LazyFrame, df: pl.DataFrame, path: Path) -> None:
    assert_type(greendata.collect(lf), Result[pl.DataFrame])
    assert_type(greendata.collect(lf, engine="streaming", timeout=2, key="tenant", label="report").get(), pl.DataFrame)
    assert_type(greendata.collect(lf, engine=greendata.GreenEngine("in-memory")).get(timeout=2), pl.DataFrame)
    assert_type(greendata.collect_all([lf, lf], optimizations=pl.QueryOptFlags.none()).get(), list[pl.DataFrame])
    assert_type(greendata.collect_schema(lf).get(), pl.Schema)
    assert_type(greendata.explain(lf, format="tree", optimized=False).get(), str)
    assert_type(greendata.batches(lf, chunk_size=10), Batches[pl.DataFrame])
    assert_type(greendata.sink_csv(lf, path, separator=";", quote_style="always", engine="streaming").get(), None)
    assert_type(greendata.sink_parquet(lf, path, compression="lz4", row_group_size=10).get(), None)
    assert_type(greendata.read_csv(path, separator=";", schema_overrides={"a": pl.Int8}).get(), pl.DataFrame)
    assert_type(greendata.read_parquet([path], columns=["a"]).get(), pl.DataFrame)
    assert_type(greendata.write_csv(df, separator=";").get(), str)
    assert_type(greendata.write_csv(df, path).get(), None)
    assert_type(greendata.write_json(df).get(), str)
    assert_type(greendata.write_ndjson(df, BytesIO()).get(), None)
    assert_type(greendata.write_ipc(df, None, compression="zstd").get(), BytesIO)
    assert_type(greendata.write_parquet(df, path, statistics="full").get(), None)
    assert_type(greendata.to_models(df, User), list[User])
    assert_type(greendata.validate(df, User, trust="strict"), pl.DataFrame)
    assert_type(greendata.read_sql("SELECT 1", "sqlite://", params=[1]).get(), pl.DataFrame)
    assert_type(greendata.read_sql("SELECT 1", "sqlite://", batch_rows=10), greendata.SqlBatches)


def results(lf: pl.LazyFrame) -> None:
    assert_type(greendata.run(half, 3).get(), float)
    assert_type(greendata.run(half, 3, exact=False).get(), float)
    assert_type(greendata.run(half, 3, exact=False, timeout=2, key="tenant", label="half").get(), float)
    assert_type(greendata.run(len, "abc").get_nowait(), int)
    assert_type(greendata.run(half, 3).value, float | None)
    assert_type(greendata.run(sorted, [3, 1], reverse=True).get(), list[int])
    assert_type(greendata.run(User, name="Ann", age=41).get(), User)
    assert_type(greendata.run(lf.collect).get(), pl.DataFrame)
    frame, number = greendata.collect(lf), greendata.run(half, 3)
    assert_type(greendata.gather(frame, frame).get(), list[pl.DataFrame])
    assert_type(greendata.gather(frame, number).get(), list[pl.DataFrame | float])
    assert_type(greendata.gather(frame, number, frame).get(), list[pl.DataFrame | float])
    assert_type(greendata.gather(*[number, number]).get(), list[float])
    assert_type(greendata.gather([number, number]).get(), list[float])
    assert_type(greendata.gather(greendata.run(len, word) for word in "ab").get(), list[int])
    assert_type(greendata.gather(number, number, return_exceptions=True).get(), list[float | BaseException])
    done, _ = greendata.wait([frame, frame], timeout=2)
    assert_type(done, set[Result[pl.DataFrame]])
    for result in greendata.as_completed([number, number]):
        assert_type(result, Result[float])
    assert_type(greendata.shield(frame), Result[pl.DataFrame])
    assert_type(greendata.single_flight(half)(3, exact=True), float)
    greendata.gather(number, gevent.spawn(half, 3))


def groups(lf: pl.LazyFrame) -> None:
    with Group(timeout=5, on_error="collect") as group:
        assert_type(group.collect(lf, engine="streaming", label="report"), Result[pl.DataFrame])
        assert_type(group.run(half, 3, exact=True).get(), float)
        assert_type(group.run(half, 3, timeout=2).get(), float)
        assert_type(group.spawn(half, 3), TaskResult[float])
    with Caller.new(name="side") as side:
        assert_type(side.call_soon(half, 3, exact=False).get(), float)
        assert_type(side.call_later(0.1, half, 3), TaskResult[float])
        assert_type(side.to_thread(half, 3), Result[float])


def frames(path: Path) -> None:
    users = Frame[User].scan_csv(path, separator=";", has_header=False, trust="strict")
    assert_type(users, Frame[User])
    assert_type(users.sort("age", descending=True).unique("name", keep="first").head(3).collect(), list[User])
    assert_type(users.submit(timeout=2), Result[list[User]])
    assert_type(users.join(users, on="name", how="left", suffix="_2", validate="m:1"), Frame[BaseModel])
    assert_type(users.write_parquet(path, compression="zstd"), int)


def pipelines(lines: list[str], path: Path) -> None:
    assert_type(stages.map(half, [1, 2], workers=4, on="native", on_error="skip").get(), list[float])
    assert_type(lines | stages.flat_map(words, maxsize=10, timeout=2), stages.Stage[str])
    assert_type(stages.filter(str.isalpha, lines, progress="words").get(), list[str])
    stages.each(print, lines, run=True, workers=2)
    rows = [{"a": 1}] | stages.batch(rows=10) | stages.sink_parquet(path, compression="lz4")
    assert_type(rows.get(), list[stages.Written])


def settings() -> None:
    assert_type(greendata.configure(max_workers=4, nice=0, stuck_after=60.0).max_workers, int)
