"""Calls that type checkers reject: each line that ends with a mark. `test_types` has both checkers read this file."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from flask import Flask
from pydantic import BaseModel

import greendata
from greendata import Caller, Frame, Group, stages
from greendata.web.flask import GreenData, respond


class User(BaseModel):
    name: str


def half(number: int, *, exact: bool = True) -> float:
    return number / 2 if exact else number // 2


def verbs(lf: pl.LazyFrame, df: pl.DataFrame, path: Path) -> None:
    greendata.collect(lf, engine="strming")  # wrong
    greendata.collect(lf, enigne="streaming")  # wrong
    greendata.collect(lf, timeout="2")  # wrong
    greendata.collect(lf, background=True)  # wrong
    greendata.collect(df)  # wrong
    greendata.collect_all(lf)  # wrong
    greendata.batches(lf, chunk_rows=10)  # wrong
    greendata.explain(lf, format="json")  # wrong
    greendata.sink_csv(lf, path, seperator=";")  # wrong
    greendata.sink_csv(lf, path, quote_style="allways")  # wrong
    greendata.sink_parquet(lf, path, compression="zip")  # wrong
    greendata.read_csv(path, seperator=";")  # wrong
    greendata.read_parquet(path, column=["a"])  # wrong
    greendata.write_csv(df, seperator=";")  # wrong
    greendata.write_parquet(df)  # wrong
    greendata.to_models(df, "User")  # wrong
    greendata.encode(df, "xml")  # wrong
    greendata.encode("abc", "csv")  # wrong
    greendata.decode(b"", "csv", modell=User)  # wrong
    greendata.validate(df, User, trust="types")  # wrong
    greendata.read_csv_url("https://localhost/a.csv", seperator=";")  # wrong
    greendata.read_sql("SELECT 1", "sqlite://", parms=[1])  # wrong
    greendata.write_sql(df, "t", "sqlite://", if_exists="apend")  # wrong
    lf.green.collect()  # wrong: no namespace that is registered with Polars is known to type checkers


def results(lf: pl.LazyFrame) -> None:
    greendata.run(half)  # wrong
    greendata.run(half, "3")  # wrong
    greendata.run(half, 3, exakt=True)  # wrong
    print(greendata.collect(lf).height)  # wrong
    greendata.collect(lf).get(timout=2)  # wrong
    greendata.run(lf.collect, engin="streaming")  # wrong
    greendata.wait([greendata.collect(lf)], return_when="FIRST")  # wrong
    greendata.gather(lf, lf)  # wrong
    print(greendata.gather(greendata.collect(lf)).get()[0].heigth)  # wrong


def groups(lf: pl.LazyFrame) -> None:
    with Group(on_eror="collect") as group:  # wrong
        group.collect(lf, engine="strming")  # wrong
        group.collect(lf, enigne="streaming")  # wrong
        group.run(half, "3")  # wrong
        group.spawn(half, 3, exakt=True)  # wrong
    Group(on_error="ignore")  # wrong
    Caller.current().call_soon(half, "3")  # wrong
    Caller.new(nam="side")  # wrong


def frames(path: Path, users: Frame[User]) -> None:
    Frame[User].scan_csv(path, seperator=";")  # wrong
    users.sort("name", descnding=True)  # wrong
    users.join(users, on="name", how="outerr")  # wrong
    users.write_parquet(path, compresion="lz4")  # wrong
    print(users.collect()[0].nam)  # wrong


def pipelines(lines: list[str], path: Path) -> None:
    stages.map(half, [1, 2], worker=4)  # wrong
    stages.map([1, 2], half)  # wrong
    stages.map(half, [1, 2], on="thread")  # wrong
    stages.filter(str.isalpha, lines, on_error="ignore")  # wrong
    stages.batch(row=10)  # wrong
    stages.sink_parquet(path, compresion="lz4")  # wrong
    stages.from_iterable(lines, on="inline")  # wrong


def web(app: Flask, df: pl.DataFrame) -> None:
    GreenData(app, dashbord=True)  # wrong
    respond(df, "cvs")  # wrong
    respond(df, formt="csv")  # wrong


def settings() -> None:
    greendata.configure(max_wrkers=4)  # wrong
    greendata.GreenEngine("strming")  # wrong
    greendata.drain(timout=1)  # wrong
    greendata.configure(max_workers="4")  # wrong
