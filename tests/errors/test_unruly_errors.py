"""Errors of users that refuse attributes or have no text: each reaches its waiter unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gevent
import polars as pl
import pytest

import greendata
from greendata import stages
from greendata.errors import JobAborted
from greendata.errors.notes import note
from greendata.hub.deadline import current_deadline
from greendata.hub.pacing import paced
from greendata.observe.inline import warn_on_block
from greendata.observe.trace import trace
from greendata.pool.cleanup import run_uninterrupted
from greendata.pool.pool import call
from tests.support.natives import settle_down, small_pool


@dataclass(frozen=True)
class Frozen(Exception):
    """Refuse attributes, and so notes and an assigned traceback."""

    code: int = 7


class Mute(Exception):
    """Have no text and no ``repr``, be false, and be unhashable."""

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        raise TypeError("no text")

    __repr__ = __str__

    def __bool__(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        raise TypeError("nothing to compare")

    def __setattr__(self, name: str, value: object) -> None:
        raise TypeError("no attributes")


class Closed(Exception):
    """Raise at each access to the traceback."""

    def with_traceback(self, trace: object) -> Any:
        raise TypeError("no traceback")

    def __getattribute__(self, name: str) -> Any:
        if name == "__traceback__":
            raise TypeError("no traceback")
        return super().__getattribute__(name)


@dataclass(frozen=True)
class FrozenExit(BaseException):
    """Not an `Exception`."""

    code: int = 7


UNRULY = (Frozen, Mute, Closed)


def fail_with(kind: type[BaseException]) -> Callable[..., Any]:
    def fail(*_: object) -> Any:
        raise kind

    return fail


def source(fail: Callable[..., Any]) -> Iterator[object]:
    yield 1
    fail()


def in_group(fail: Callable[..., Any]) -> None:
    try:
        with greendata.Group() as group:
            group.spawn(fail)
            group.run(fail)
    except ExceptionGroup as found:
        raise found.exceptions[0] from None


def in_block(fail: Callable[..., Any]) -> None:
    try:
        with greendata.Group():
            fail()
    except ExceptionGroup as found:
        raise found.exceptions[0] from None


def in_deadline(fail: Callable[..., Any]) -> None:
    with greendata.deadline(60):
        fail()


def in_observed(fail: Callable[..., Any]) -> None:
    with warn_on_block():
        fail()


def in_udf(fail: Callable[..., Any]) -> None:
    lf = pl.LazyFrame({"a": [1]}).select(pl.col("a").map_batches(fail, return_dtype=pl.Int64))
    greendata.collect(lf, engine="in-memory").get()


def on_done(fail: Callable[..., Any]) -> None:
    list(stages.map(abs, [1], on_done=fail))


def twice(fail: Callable[..., Any]) -> None:
    """The second error becomes a note of the first."""
    list(stages.map(fail, [1], on_done=fail))


WAYS: dict[str, Callable[[Callable[..., Any]], object]] = {
    "run": lambda fail: greendata.run(fail).get(),
    "call": call,
    "inline": lambda fail: greendata.run(lambda: greendata.run(fail).get()).get(),
    "caller": lambda fail: greendata.Caller.current().call_soon(fail).get(),
    "direct": lambda fail: greendata.Caller.current().call_direct(fail).get(),
    "queue": lambda fail: greendata.Caller.current().queue_call(fail).get(),
    "group": in_group,
    "block": in_block,
    "deadline": in_deadline,
    "observed": in_observed,
    "udf": in_udf,
    "gather": lambda fail: greendata.gather(greendata.run(fail)).get(),
    "shield": lambda fail: greendata.shield(greendata.run(fail)).get(),
    "run_uninterrupted": run_uninterrupted,
    "flight": lambda fail: greendata.single_flight(fail)(),
    "greenlets": lambda fail: list(stages.map(fail, [1])),
    "native": lambda fail: list(stages.map(fail, [1], on="native")),
    "stage inline": lambda fail: list(stages.map(fail, [1], on="inline")),
    "ordered": lambda fail: list(stages.ordered(stages.map(fail, [1]))),
    "flat_map": lambda fail: list(stages.flat_map(fail, [1])),
    "source": lambda fail: list(stages.map(abs, source(fail))),
    "on_start": lambda fail: list(stages.map(abs, [1], on_start=fail)),
    "on_done": on_done,
    "twice": twice,
    "paced": lambda fail: paced(fail, [1]),
}


# Of a `Closed` in a function inside a query Polars makes a panic.
CASES = [(way, kind) for way in WAYS for kind in UNRULY if (way, kind) != ("udf", Closed)]


@pytest.mark.parametrize(("way", "kind"), CASES)
def test_an_error_reaches_its_waiter_unchanged(way: str, kind: type[Exception]) -> None:
    gevent.get_hub()
    raised: list[type[BaseException]] = []
    try:
        WAYS[way](fail_with(kind))
    except BaseException as error:  # noqa: BLE001 - pytest.raises would call str() on it
        raised.append(type(error))
    assert raised == [kind]
    assert greendata.run(int, "3").get() == 3


@pytest.mark.parametrize("kind", [*UNRULY, FrozenExit])
def test_a_worker_outlives_an_error(kind: type[BaseException]) -> None:
    pool = small_pool(max_workers=1)
    results = [pool.submit(fail_with(kind)) for _ in range(3)]
    for result in results:
        result.wait()
        assert type(result.exception) is (kind if issubclass(kind, Exception) else JobAborted)
        assert "failed" in repr(result)
    assert pool.submit(int, "3").get() == 3
    settle_down(pool)
    assert (pool.stats().failed, pool.stats().done) == (3, 1)


def test_an_aborted_job_has_a_text_even_if_its_cause_has_none() -> None:
    class Silent(BaseException):
        def __str__(self) -> str:
            raise TypeError

    result = small_pool().submit(fail_with(Silent), label="job")
    result.wait()
    assert str(result.exception) == "job ended with Silent: (its text raised TypeError)"


def test_an_error_that_refuses_attributes_gets_its_note() -> None:
    error = Frozen()
    note(error, "first")
    note(error, "second")
    assert error.__notes__ == ["first", "second"]


def test_a_trace_is_written_whatever_its_block_raises(tmp_path: Path) -> None:
    with suppress(Frozen), trace(tmp_path / "out.json"):
        fail_with(Frozen)()
    assert (tmp_path / "out.json").exists()


@pytest.mark.parametrize("kind", [StopIteration, RuntimeError, GeneratorExit, Frozen])
def test_a_block_raises_its_error_unchanged(kind: type[BaseException]) -> None:
    error = kind()
    with pytest.raises(kind) as caught, greendata.deadline(60):
        raise error
    assert caught.value is error
    assert current_deadline() is None


def test_a_deadline_is_a_decorator_too() -> None:
    @greendata.deadline(60)
    def left() -> float | None:
        return current_deadline()

    assert left() is not None
    assert left() is not None
