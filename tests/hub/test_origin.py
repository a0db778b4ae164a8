"""The note in a failed job's error: its label, its key and the line that submitted it."""

from __future__ import annotations

import copy
import datetime
import enum
import pickle
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple
from weakref import ref

import gevent
import polars as pl
import pytest

import greendata
from greendata.errors import DeadlineExceeded, JobAborted, JobCancelled
from greendata.errors.notes import NOTES
from greendata.hub.result import Result
from greendata.pool.pool import call
from tests.conftest import Gate
from tests.errors.test_unruly_errors import UNRULY, fail_with
from tests.support.failures import fail, raised
from tests.support.natives import in_a_plain_thread

BROKEN = pl.LazyFrame({"a": [1]}).select("b")


def error_of(result: Any) -> Any:
    """Return the error of *result*; the tests read its notes."""
    result.wait()
    assert result.exception is not None
    return result.exception


def notes_of(result: Any) -> list[str]:
    notes: list[str] = error_of(result).__notes__
    return notes


def line_of(func: Callable[..., Any], offset: int) -> str:
    """Return the place of the line *offset* lines below the ``def`` of *func*, as a note shows it."""
    code = func.__code__
    return f"{code.co_filename}:{code.co_firstlineno + offset} in {code.co_name}"


def test_a_failed_query_says_which_one_it_was_and_where_it_was_submitted() -> None:
    def report() -> Result[pl.DataFrame]:
        return greendata.collect(BROKEN, label="report", key="shop-7")

    result = report()
    with pytest.raises(pl.exceptions.ColumnNotFoundError) as caught:
        result.get()
    assert caught.value.__notes__ == [f"in greendata job 'report', key 'shop-7', submitted at {line_of(report, 1)}"]
    assert caught.value.__notes__[0] in "".join(traceback.format_exception(caught.value))


# Each fails in another way; the line of the submit is always in this file.
WAYS: dict[str, Callable[[], Any]] = {
    "run": lambda: greendata.run(fail_with(ValueError)),
    "run with options": lambda: greendata.run(sorted, [1, ""], reverse=True),
    "collect": lambda: greendata.collect(BROKEN),
    "collect_all": lambda: greendata.collect_all([BROKEN]),
    "the namespace": lambda: BROKEN.green.collect(engine="in-memory"),
    "a sink": lambda: greendata.sink_parquet(BROKEN, "/tmp/never.parquet"),
    "a reader": lambda: greendata.read_parquet("/nothing/here.parquet"),
    "a writer": lambda: greendata.write_csv(pl.DataFrame({"a": [[1]]})),
    "an engine": lambda: BROKEN.collect_async(gevent=True, engine=greendata.GreenEngine()),
    "batches": lambda: greendata.run(lambda: list(greendata.batches(BROKEN))),
    "a call in a greenlet": lambda: greendata.Caller.current().call_soon(fail, ValueError()),
    "a call in a pool": lambda: greendata.Caller.current().to_thread(fail, ValueError()),
    "a call in the hub": lambda: greendata.Caller.current().call_direct(fail, ValueError()),
    "a queued call": lambda: greendata.Caller.current().queue_call(fail, ValueError()),
    "inside a job": lambda: greendata.run(lambda: greendata.run(fail_with(ValueError)).get()),
    "a greenlet that ends the process": lambda: greendata.Caller.current().call_soon(fail, SystemExit()),
    "a job that ends the process": lambda: greendata.run(fail_with(SystemExit)),
    "gathered": lambda: greendata.gather(greendata.run(fail_with(ValueError))),
    "shielded": lambda: greendata.shield(greendata.run(fail_with(ValueError))),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_submit_knows_its_line(way: str) -> None:
    gevent.get_hub()
    *inner, note = notes_of(WAYS[way]())
    assert f", submitted at {__file__}:{WAYS[way].__code__.co_firstlineno} in <lambda>" in note
    assert len(inner) == (1 if way in ("inside a job", "batches") else 0)
    assert all(f", submitted at {__file__}:" in other for other in inner)


def test_the_line_is_known_in_a_thread_without_a_hub() -> None:
    assert "in <lambda>" in in_a_plain_thread(lambda: notes_of(greendata.run(fail_with(ValueError)))[0])


def test_members_of_a_group_keep_their_notes() -> None:
    with raised() as found, greendata.Group(on_error="collect") as group:
        group.run(fail_with(ValueError), label="first", key=1)
        group.spawn(fail_with(ValueError))
        group.collect(BROKEN, label="third")
    notes = sorted(note for error in found.value.exceptions for note in error.__notes__)
    begins = ["in greendata job 'fail', submitted", "in greendata job 'first', key 1, ", "in greendata job 'third', "]
    assert [note.startswith(begin) for note, begin in zip(notes, begins, strict=True)] == [True] * 3


def test_a_job_that_is_cancelled_or_late_says_so_too(held: Gate) -> None:
    cancelled = greendata.run(held, label="first", key=1)
    cancelled.cancel()
    late = greendata.run(held, label="second", timeout=0)
    with greendata.deadline(0):
        call = greendata.Caller.current().call_soon(held)
    assert type(error_of(cancelled)) is JobCancelled
    assert type(error_of(late)) is type(error_of(call)) is DeadlineExceeded
    assert [len(notes_of(result)) for result in (cancelled, late, call)] == [1, 1, 1]
    assert notes_of(cancelled)[0].startswith("in greendata job 'first', key 1, submitted at ")


def test_the_same_error_is_noted_once_however_often_it_is_raised() -> None:
    result = greendata.run(fail_with(ValueError))
    gathered = greendata.gather(result, result)

    def get(waited: Result[Any]) -> BaseException:
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the one of the job
            waited.get()
        return caught.value

    waiters = [gevent.spawn(get, each) for each in (result, gathered, greendata.shield(result)) for _ in range(3)]
    gevent.joinall(waiters, raise_error=True)
    assert len(notes_of(result)) == 1
    assert all(waiter.value is result.exception for waiter in waiters)


def test_an_error_of_several_jobs_names_each() -> None:
    error = ValueError("out of stock")
    for label in "abc":
        for _ in range(3):
            greendata.run(fail, error, label=label).wait()
    assert [note.partition(",")[0] for note in error.__notes__] == [f"in greendata job '{label}'" for label in "abc"]


def test_an_error_that_is_raised_for_ever_keeps_its_latest_notes_and_those_of_others() -> None:
    error = ValueError("out of stock")
    error.add_note("call the warehouse")
    results = [greendata.run(fail, error, key=key) for key in range(1000)]
    greendata.wait(results)
    greendata.run(fail, error, label="last").wait()
    # Two workers may have added one each at the same time.
    assert len(error.__notes__) <= 1 + NOTES + greendata.configure().max_workers
    assert error.__notes__[0] == "call the warehouse"
    assert error.__notes__[-1].startswith("in greendata job 'last'")


@pytest.mark.parametrize("kind", UNRULY)
def test_an_unruly_error_has_the_note_as_well(kind: type[Exception]) -> None:
    (note,) = vars_of(error_of(greendata.run(fail_with(kind))))["__notes__"]
    assert note.startswith("in greendata job 'fail', submitted at ")


def vars_of(error: BaseException) -> dict[str, Any]:
    found: dict[str, Any] = vars(BaseException)["__dict__"].__get__(error)
    return found


class Noted(Exception):
    """Has notes before it is raised, in the class."""

    __notes__ = ("a note of the class",)


class ReadOnly(Exception):
    """Has notes that cannot be changed."""

    @property
    def __notes__(self) -> list[str]:
        return ["mine"]


class Refusing(Exception):
    """Accepts no notes."""

    def add_note(self, note: str, /) -> None:
        raise TypeError(note)


def test_notes_of_the_class_are_kept() -> None:
    assert len(notes_of(greendata.run(fail_with(Noted)))) == 2
    assert notes_of(greendata.run(fail_with(ReadOnly))) == ["mine"]
    assert type(error_of(greendata.run(fail_with(Refusing)))) is Refusing
    given = ValueError()
    given.__notes__ = ("a", "b")  # type: ignore[assignment]
    assert notes_of(greendata.run(fail, given))[:2] == ["a", "b"]


def test_notes_survive_pickle_and_copy_as_plain_text() -> None:
    results = [greendata.run(fail_with(kind), key=1) for kind in (ValueError, SystemExit)]
    results.append(greendata.run(int, timeout=0))
    for result in results:
        for carried in (pickle.loads(pickle.dumps(error_of(result))), copy.deepcopy(error_of(result))):
            assert carried.__notes__ == notes_of(result)
            assert type(carried.__notes__[0]) is str
    assert b"greendata" not in pickle.dumps(error_of(results[0])).replace(b"in greendata job", b"")


class Colour(enum.StrEnum):
    RED = "red"


class Place(NamedTuple):
    shop: str
    shelf: int


@dataclass(frozen=True)
class Tenant:
    name: str

    def __repr__(self) -> str:
        raise AssertionError("a key was used on another thread than its own")


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("shop-7", "'shop-7'"),
        (7, "7"),
        (True, "True"),
        (("shop", 7, None), "('shop', 7, <NoneType>)"),
        (Colour.RED, "'red'"),
        (Place("a", 3), "('a', 3)"),
        (b"x", "b'x'"),
        (datetime.date(2026, 1, 2), "datetime.date(2026, 1, 2)"),
        (uuid.UUID(int=7), "UUID('00000000-0000-0000-0000-000000000007')"),
        (Tenant("a"), "<Tenant>"),
        ((Tenant("a"), 1), "(<Tenant>, 1)"),
        (tuple(range(10**6)), "(0, 1, 2, 3, 4, 5, ...)"),
    ],
    ids=range(12),
)
def test_a_key_is_shown_without_running_its_code(key: Any, shown: str) -> None:
    assert f", key {shown}, submitted" in notes_of(greendata.run(fail_with(ValueError), key=key))[0]


def test_long_labels_and_keys_are_shortened() -> None:
    (note,) = notes_of(greendata.run(fail_with(ValueError), key="k" * 10**6, label="l" * 10**6))
    assert len(note) < 500
    assert ", submitted at " in note


def test_a_key_of_the_request_counts() -> None:
    from greendata.pool.job import default_key

    token = default_key.set("tenant-3")
    try:
        assert ", key 'tenant-3', " in notes_of(greendata.run(fail_with(ValueError)))[0]
    finally:
        default_key.reset(token)


def test_a_submit_with_no_line_of_the_user_names_the_job() -> None:
    greenlet = gevent.spawn(greendata.collect, BROKEN, label="report", key=1)
    greenlet.join()
    assert notes_of(greenlet.value) == ["in greendata job 'report', key 1"]


def test_the_frames_of_the_submit_are_not_kept(held: Gate) -> None:
    class Big:
        """Stands for a frame of the user."""

    seen: list[ref[Big]] = []

    def submit() -> Result[object]:
        big = Big()
        seen.append(ref(big))
        return greendata.run(held)

    result = submit()
    assert seen[0]() is None
    held.open()
    result.get()


def test_what_the_pool_runs_for_the_calling_line_is_not_noted() -> None:
    gevent.get_hub()
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        call(fail_with(ValueError))
    assert not hasattr(caught.value, "__notes__")
    with pytest.raises(SystemExit) as ended:
        call(fail_with(SystemExit))
    assert not hasattr(ended.value, "__notes__")
    assert type(error_of(greendata.run(fail_with(SystemExit)))) is JobAborted


def test_the_line_of_a_call_over_several_lines_is_its_first() -> None:
    result = greendata.run(
        fail,
        ValueError(),
    )
    first = line_of(test_the_line_of_a_call_over_several_lines_is_its_first, 1)
    assert notes_of(result)[0].endswith(f"submitted at {first}")


def test_the_stack_of_helpers_is_skipped_only_where_it_is_greendatas() -> None:
    def helper(submit: Callable[[], Any]) -> Any:
        return submit()

    (note,) = notes_of(helper(partial(greendata.run, fail, ValueError())))
    assert note.endswith(f"submitted at {line_of(helper, 1)}")
