"""``lf.green`` and ``df.green`` have the same verbs, with every argument."""

from __future__ import annotations

import io
from inspect import signature
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import greendata
from greendata.query import verbs
from greendata.query.namespace import GreenFrame, GreenLazyFrame
from tests.support.frames import ROWS, gated
from tests.support.gates import Gate

LAZY = ("batches", "collect", "collect_schema", "explain", "sink_csv", "sink_ipc", "sink_ndjson", "sink_parquet")
EAGER = ("write_csv", "write_ipc", "write_json", "write_ndjson", "write_parquet")


def green(frame: pl.LazyFrame | pl.DataFrame) -> Any:
    """Return the namespace, which is missing in Polars' annotations."""
    return getattr(frame, "green")  # noqa: B009


def test_frames_have_the_namespace() -> None:
    assert isinstance(green(ROWS.lazy()), GreenLazyFrame)
    assert isinstance(green(ROWS), GreenFrame)


@pytest.mark.parametrize(("frame", "names"), [(ROWS.lazy(), LAZY), (ROWS, EAGER)], ids=["lazy", "eager"])
def test_dir_shows_the_verbs(frame: Any, names: tuple[str, ...]) -> None:
    public = [name for name in dir(green(frame)) if not name.startswith("_")]
    assert public == sorted(names)
    for name in names:
        assert getattr(green(frame), name).__func__ is getattr(verbs, name)


def test_every_verb_of_a_frame_is_there() -> None:
    takes_no_frame = {"collect_all", "run"} | {name for name in verbs.__all__ if name.startswith("read_")}
    assert {*LAZY, *EAGER} == set(verbs.__all__) - takes_no_frame


def test_arguments_are_passed_on(held: Gate) -> None:
    result = green(gated(held)).collect(timeout=60, label="report", key="tenant", engine="streaming")
    held.open()
    assert result.label == "report"
    assert_frame_equal(result.get(), ROWS)
    with green(ROWS.lazy()).batches(chunk_size=1) as stream:
        assert [batch.height for batch in stream] == [1, 1, 1]
    text = io.StringIO()
    green(ROWS).write_csv(text, separator=";").get()
    assert text.getvalue() == ROWS.write_csv(separator=";")


def test_the_hub_keeps_running(hub_alive: Gate) -> None:
    assert_frame_equal(green(gated(hub_alive)).collect().get(), ROWS)


def test_the_error_for_an_unknown_verb_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"'colect' is not a verb of GreenLazyFrame; it has batches, collect, "):
        green(ROWS.lazy()).colect()
    with pytest.raises(AttributeError, match=r"'collect' is not a verb of GreenFrame; it has write_csv, "):
        green(ROWS).collect()


def test_bad_input_raises_the_error_of_the_verb() -> None:
    with pytest.raises(greendata.BadEngine):
        green(ROWS.lazy()).collect(engine="warp")
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        green(ROWS).write_csv(colour="blue")


def test_help_shows_the_verbs_own_arguments() -> None:
    of_verb, of_frame = signature(verbs.sink_csv), signature(green(ROWS.lazy()).sink_csv)
    assert list(of_frame.parameters) == list(of_verb.parameters)[1:]
    assert green(ROWS.lazy()).sink_csv.__doc__ == verbs.sink_csv.__doc__
