"""The methods of `Frame` have the parameters of Polars' own functions, and the defaults of these.

What differs on purpose is named here, with the reason.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import BaseModel

from greendata import Frame

OWN = {"path", "root", "trust"}
SOURCE = {"source", "file"}

SCANS = {f"scan_{kind}": getattr(pl, f"scan_{kind}") for kind in ("csv", "ipc", "ndjson", "parquet")}
WRITES = {
    "write_csv": pl.DataFrame.write_csv,
    "write_ipc": pl.LazyFrame.sink_ipc,
    "write_parquet": pl.DataFrame.write_parquet,
}
OPERATIONS = {
    name: getattr(pl.LazyFrame, name)
    for name in (
        "drop",
        "filter",
        "group_by",
        "head",
        "join",
        "rename",
        "select",
        "slice",
        "sort",
        "tail",
        "unique",
        "with_columns",
    )
}

ONE_FILE = "all rows are written to one local file, through an open file"
LEFT_OUT = {
    "write_csv": dict.fromkeys(("check_extension", "storage_options", "credential_provider"), ONE_FILE),
    "write_parquet": dict.fromkeys(
        (
            "credential_provider",
            "encryption",
            "mkdir",
            "partition_by",
            "partition_chunk_size_bytes",
            "storage_options",
        ),
        ONE_FILE,
    ),
    "write_ipc": {
        **dict.fromkeys(("credential_provider", "mkdir", "sinked_paths_callback", "storage_options"), ONE_FILE),
        "sync_on_close": "the file is always flushed to the disk before it gets its name",
        "engine": "the batches come from one query, which has ended",
        "lazy": "the file is written now",
        "maintain_order": "the batches are written in their order",
        "optimizations": "there is nothing to optimize",
    },
}
DEFAULTS = {
    ("group_by", "maintain_order"): "the same rows give the same frame each time",
    ("join", "maintain_order"): "the same rows give the same frame each time",
    ("unique", "maintain_order"): "the same rows give the same frame each time",
}
# Parameters that the newest Polars has and an older one that is supported does not have.
NEW = {"2.1": {"scan_parquet": {"decryption"}}}


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return {
        found.name: found
        for found in inspect.signature(function).parameters.values()
        if not found.name.startswith("_") and found.name != "self" and found.kind is not found.VAR_KEYWORD
    }


def _newer(name: str) -> set[str]:
    installed = tuple(int(part) for part in re.findall(r"\d+", pl.__version__)[:2])
    return {
        found
        for since, new in NEW.items()
        if installed < tuple(int(part) for part in since.split("."))
        for found in new.get(name, ())
    }


@pytest.mark.parametrize(("name", "function"), {**SCANS, **WRITES, **OPERATIONS}.items())
def test_a_method_has_the_parameters_of_polars(name: str, function: Callable[..., Any]) -> None:
    own, theirs = _parameters(getattr(Frame, name)), _parameters(function)
    left_out = LEFT_OUT.get(name, {}).keys()
    assert own.keys() - OWN - _newer(name) == theirs.keys() - SOURCE - OWN - left_out
    options = [found for found in own.keys() & theirs.keys() if (name, found) not in DEFAULTS and found != "path"]
    assert {found: own[found].default for found in options} == {found: theirs[found].default for found in options}


def test_no_file_method_takes_any_keyword() -> None:
    for name in (*SCANS, *WRITES, "sort", "join", "unique"):
        kinds = {found.kind for found in inspect.signature(getattr(Frame, name)).parameters.values()}
        assert inspect.Parameter.VAR_KEYWORD not in kinds


@pytest.mark.parametrize("name", [*SCANS, *WRITES])
def test_help_explains_each_argument(name: str) -> None:
    method = getattr(Frame, name)
    args = inspect.getdoc(method).split("\nArgs:\n")[1].split("\n\n")[0]  # type: ignore[union-attr]
    parameters = [found for found in inspect.signature(method).parameters if found != "self"]
    assert re.findall(r"^    (\w+): ", args, re.MULTILINE) == parameters


class Row(BaseModel):
    city: str
    amount: int


ROWS = Frame[Row].from_columns({"city": ["Rome", "Oslo", "Rome"], "amount": [2, 1, 2]})


def test_the_arguments_arrive(tmp_path: Path) -> None:
    assert ROWS.sort("amount", "city", descending=[True, False]).to_dict()["amount"] == [2, 2, 1]
    assert ROWS.unique("city", keep="none").to_dict()["city"] == ["Oslo"]
    assert ROWS.unique(maintain_order=True).collect() == ROWS.head(n=2).collect()
    assert ROWS.drop("amount", "unknown", strict=False).to_dict() == {"city": ["Rome", "Oslo", "Rome"]}
    assert ROWS.rename({"unknown": "x"}, strict=False).to_dict() == ROWS.to_dict()
    totals = ROWS.group_by("city", maintain_order=True).agg(pl.col("amount").sum())
    assert totals.to_dict() == {"city": ["Rome", "Oslo"], "amount": [4, 1]}
    joined = ROWS.join(totals, "city", how="left", suffix="_total", maintain_order="left_right")
    assert joined.to_dict()["amount_total"] == [4, 1, 4]
    renamed = totals.rename({"city": "town"})
    assert ROWS.join(renamed, left_on="city", right_on="town", how="semi").to_dict() == ROWS.to_dict()
    assert ROWS.write_csv(tmp_path / "a.csv", separator=";", quote_style="always") == 3
    assert (tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()[1] == '"Rome";"2"'
    assert Frame[Row].scan_csv(tmp_path / "a.csv", separator=";", skip_rows_after_header=1).to_dict() == {
        "city": ["Oslo", "Rome"],
        "amount": [1, 2],
    }
    assert ROWS.write_parquet(tmp_path / "a.parquet", row_group_size=1, metadata={"by": "us"}) == 3
    assert pl.read_parquet_metadata(tmp_path / "a.parquet")["by"] == "us"
    assert ROWS.write_ipc(tmp_path / "a.arrow", compression="zstd") == 3
    assert Frame[Row].scan_ipc(tmp_path / "a.arrow", n_rows=1).to_dict() == {"city": ["Rome"], "amount": [2]}
