"""With the patch, errors and warnings are the same as without it."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable

import gevent
import polars as pl
import pytest

import greendata
from tests.support.frames import ROWS, gated_batches


class OwnError(Exception):
    """An error defined in a user's module."""


def failing(kind: type[BaseException]) -> Callable[[object], object]:
    def fail(_: object) -> object:
        raise kind

    return fail


ESCAPES = (ValueError, OwnError, SystemExit, KeyboardInterrupt, gevent.Timeout, gevent.GreenletExit, GeneratorExit)

# Each lets a user's function run in another part of Polars.
CALLING: dict[str, Callable[[Callable[[object], object]], object]] = {
    "map_batches": lambda f: ROWS.lazy().map_batches(f).collect(),  # type: ignore[arg-type]
    "map_batches streaming": lambda f: ROWS.lazy().map_batches(f).collect(engine="streaming"),  # type: ignore[arg-type]
    "a column": lambda f: ROWS.select(pl.col("a").map_batches(f, return_dtype=pl.Int64)),  # type: ignore[arg-type]
    "map_elements": lambda f: ROWS["a"].map_elements(f, return_dtype=pl.Int64),
    "map_rows": ROWS.map_rows,
    "map_groups": lambda f: ROWS.group_by("a").map_groups(f),  # type: ignore[arg-type]
    "a source": lambda f: gated_batches(f, 3).collect(),
    "batches": lambda f: list(gated_batches(f, 3).collect_batches()),
    "a sink": lambda f: ROWS.lazy().sink_batches(f),  # type: ignore[arg-type]
}

WRONG: dict[str, Callable[[], object]] = {
    "no such column": lambda: ROWS.select("b"),
    "no such column, lazily": lambda: ROWS.lazy().select("b").collect(),
    "types that do not fit": lambda: ROWS.select(pl.col("a").str.len_chars()),
    "a cast": lambda: pl.DataFrame({"a": ["x"]}).select(pl.col("a").cast(pl.Int64)),
    "no such file": lambda: pl.read_parquet("/nothing/here.parquet"),
    "a directory that is not there": lambda: ROWS.write_parquet("/nothing/here.parquet"),
    "an unknown engine": lambda: ROWS.lazy().collect(engine="warp"),  # type: ignore[call-overload]
    "a bad argument": lambda: ROWS.lazy().collect(colour="blue"),  # type: ignore[call-overload]
    "SQL": lambda: ROWS.sql("select b from self"),
    "a plan": lambda: ROWS.lazy().select("b").explain(),
    "a schema": lambda: ROWS.lazy().select("b").collect_schema(),
}

WARNING: dict[str, Callable[[], object]] = {
    "columns of a lazy frame": lambda: ROWS.lazy().columns,
    "a slow function": lambda: ROWS.select(pl.col("a").map_elements(lambda x: x + 1, return_dtype=pl.Int64)),
    "a join of unknown order": lambda: ROWS.with_columns(g=1).join_asof(ROWS.with_columns(g=1), on="a", by="g"),
}


def outcome(work: Callable[[], object]) -> tuple[object, ...]:
    """Return the type, text, last traceback line and cause of the error that *work* raises."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - any at all
        work()
    error = caught.value
    trace = "".join(traceback.format_exception(error)).strip()
    return (
        type(error),
        str(error),
        trace.splitlines()[-1],
        error.__cause__,
        error.__context__,
        getattr(error, "__notes__", None),
    )


def under_the_patch(work: Callable[[], object]) -> object:
    gevent.get_hub()  # without a hub everything would run in this thread
    greendata.patch_polars()
    try:
        return work()
    finally:
        greendata.unpatch_polars()


@pytest.mark.parametrize("kind", ESCAPES)
@pytest.mark.parametrize("name", CALLING)
def test_errors_of_a_users_function(name: str, kind: type[BaseException]) -> None:
    def work() -> object:
        return CALLING[name](failing(kind))

    own = outcome(work)
    assert under_the_patch(lambda: outcome(work)) == own


@pytest.mark.parametrize("name", WRONG)
def test_errors_of_polars(name: str) -> None:
    own = outcome(WRONG[name])
    assert under_the_patch(lambda: outcome(WRONG[name])) == own


@pytest.mark.parametrize("name", WARNING)
def test_warnings_of_polars(name: str) -> None:
    def warned() -> list[tuple[type[Warning], str]]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", ResourceWarning)  # from what is collected meanwhile
            WARNING[name]()
        return [(each.category, str(each.message)) for each in caught]

    own = warned()
    assert own
    assert under_the_patch(warned) == own


def test_an_interrupted_wait_leaves_polars_usable() -> None:
    def work() -> object:
        with pytest.raises(KeyboardInterrupt):
            CALLING["map_batches"](failing(KeyboardInterrupt))
        return ROWS.filter(pl.col("a") > 1).height

    assert under_the_patch(work) == 2
