"""Errors of the hub, the pool and their users: the text, the attributes and the base classes of each."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable

import gevent
import polars as pl
import pytest

from greendata import errors
from greendata.errors import GreenDataError
from greendata.hub.deadline import deadline
from greendata.pool.pool import submit
from greendata.pool.settings import Settings
from tests.conftest import Gate
from tests.support.natives import expiring, small_pool


def raised(provoke: Callable[[], object], kind: type[BaseException]) -> BaseException:
    with pytest.raises(kind) as caught:
        provoke()
    return caught.value


def test_every_error_has_the_root_and_is_in_the_tree() -> None:
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert issubclass(kind, GreenDataError)
        assert name in (errors.__doc__ or ""), f"{name} is missing from the tree"


def test_result_timeout(held: Gate) -> None:
    result = submit(held, label="report")
    for parent in (errors.ResultTimeout, gevent.Timeout, TimeoutError, GreenDataError, Exception):
        error = raised(lambda: result.get(timeout=0.01), parent)
        assert isinstance(error, errors.ResultTimeout)
        assert error.result is result
        assert error.seconds == 0.01
        assert str(error).startswith("no outcome within 0.01 seconds from <Result 'report'")
    assert str(raised(result.get_nowait, errors.ResultTimeout)).startswith("no outcome without waiting from")
    assert "call cancel() to give it up" in str(error)
    held.open()


def test_deadline_exceeded(held: Gate) -> None:
    pool = small_pool(max_workers=1)
    running = expiring(lambda timeout: pool.submit(held, timeout=timeout, label="report"), held)
    queued = pool.submit(held, timeout=0, label="export")
    assert str(raised(queued.get, TimeoutError)) == "export had not begun at its deadline of 0 seconds"
    error = raised(running.get, errors.DeadlineExceeded)
    assert isinstance(error, TimeoutError)
    assert str(error).startswith("report was still running (its native call cannot be stopped) at its deadline of ")
    held.open()


def test_job_cancelled(held: Gate) -> None:
    pool = small_pool(max_workers=1)
    running, queued = pool.submit(held, label="report"), pool.submit(held, label="export")
    held.wait_arrived()
    running.cancel("the client left")
    queued.cancel()
    assert str(raised(queued.get, errors.JobCancelled)) == "export was cancelled before it began"
    text = str(raised(running.get, errors.JobCancelled))
    assert text.startswith("report was cancelled while it ran (its native call cannot be stopped)")
    assert "the client left" in text
    held.open()


def test_job_aborted() -> None:
    error = raised(submit(exit, 3, label="report").get, RuntimeError)
    assert isinstance(error, errors.JobAborted)
    assert str(error) == "report ended with SystemExit: 3"
    assert isinstance(error.__cause__, SystemExit)
    shown = "".join(traceback.format_exception(error))
    assert shown.index("SystemExit: 3") < shown.index("JobAborted: report ended")


def test_pool_full_and_pool_closed(held: Gate) -> None:
    pool = small_pool(max_workers=1, max_queue=1)
    pool.submit(held)
    held.wait_arrived()
    pool.submit(held)
    full = raised(lambda: pool.submit(held), RuntimeError)
    assert isinstance(full, errors.PoolFull)
    assert (full.queued, full.max_queue) == (1, 1)
    assert str(full) == (
        "1 job is already waiting and max_queue is 1; try again later, or raise it with "
        "greendata.configure(max_queue=...)"
    )
    held.open()
    pool.drain()
    closed = raised(lambda: pool.submit(int), RuntimeError)
    assert str(closed) == "the pool is drained and takes no more work; greendata.configure() opens it again"
    assert isinstance(closed, errors.PoolClosed)


def test_errors_after_a_fork() -> None:
    lost = errors.ResultLost("report")
    assert isinstance(lost, RuntimeError)
    assert str(lost) == "report was submitted before the fork and belongs to the parent process; submit it again here"
    forked = errors.PolarsForked()
    assert isinstance(forked, RuntimeError)
    assert "every query would hang here" in str(forked)
    assert "gunicorn --preload" in str(forked)


def test_bad_arguments() -> None:
    text = str(raised(lambda: submit(int, timeout=-1), ValueError))
    assert text == "timeout must be None or a number of seconds >= 0, got -1"
    assert str(raised(lambda: deadline(float("nan")).__enter__(), errors.BadTimeout)).endswith("got nan")
    setting = raised(lambda: Settings().changed(nice=20), ValueError)
    assert isinstance(setting, errors.BadSetting)
    assert (setting.name, setting.value) == ("nice", 20)
    assert str(setting) == "nice must be a whole number from 0 to 19, got 20"
    uncalled = raised(lambda: submit(submit(int).get()), TypeError)
    assert isinstance(uncalled, errors.NotCallable)
    assert str(uncalled) == "expected a callable to run, got 0; pass the function itself, not what it returned"


def test_bad_variables_in_the_environment() -> None:
    bad = raised(lambda: Settings.from_environment({"GREENDATA_STUCK_AFTER": "later"}), errors.BadSetting)
    assert str(bad) == "GREENDATA_STUCK_AFTER must be a number, got 'later'"
    assert isinstance(bad.__cause__, ValueError)
    assert Settings.from_environment({"GREENDATA_STUCK_AFTER": "", "GREENDATA_NICE": " "}) == Settings()


def test_an_error_of_a_job_is_not_wrapped() -> None:
    error = raised(submit(pickle.loads, b"nonsense").get, pickle.UnpicklingError)
    assert not isinstance(error, GreenDataError)


TEXTS: dict[str, tuple[Callable[[int], BaseException], str, str]] = {
    "seconds": (lambda n: errors.DeadlineExceeded("a", n, running=False), "of 1 second", "of 2 seconds"),
    "jobs": (lambda n: errors.PoolFull(n, 9), "1 job is already waiting", "2 jobs are already waiting"),
    "survivors": (
        lambda n: errors.GroupTimeout("a", n, [submit(int, label="b")] * n),
        "within 1 second; its members were cancelled, 1 cannot be stopped and continues: b",
        "within 2 seconds; its members were cancelled, 2 cannot be stopped and continue: b, b",
    ),
    "element": (lambda n: errors.ElementTimeout("a", n), "of 1 second for", "of 2 seconds for"),
    "fetch": (lambda n: errors.FetchTimeout("http://a.b/", n), "within 1 second", "within 2 seconds"),
    "answer": (lambda n: errors.AnswerTooLarge("http://a.b/", n), "than 1 byte;", "than 2 bytes;"),
    "body": (errors.BodyTooLarge, "the limit of 1 byte;", "the limit of 2 bytes;"),
    "columns": (
        lambda n: errors.NotWritable("csv", dict.fromkeys("ab"[:n], "List")),
        "1 column that csv cannot store: a (List); drop, unnest or cast it",
        "2 columns that csv cannot store: a (List), b (List); drop, unnest or cast them",
    ),
    "database": (
        lambda n: errors.ColumnUnwritable(dict.fromkeys("ab"[:n], "List"), "SQLite"),
        "1 column cannot be stored in SQLite: 'a' (List); cast or drop it before",
        "2 columns cannot be stored in SQLite: 'a' (List), 'b' (List); cast or drop them before",
    ),
    "schema": (lambda n: errors.FrameMismatch(dict.fromkeys("ab"[:n], 0), {}), "1 column missing", "2 columns missing"),
    "model": (lambda n: errors.ModelMismatch("User", "ab"[:n], {}), "1 column does not fit", "2 columns do not fit"),
    "functions": (lambda n: errors.SeamMissing("ab"[:n], "2.0"), "1 function not found", "2 functions not found"),
    "signature": (lambda n: errors.BadSignature(int, "ab"[:n], ()), "1 parameter of", "2 parameters of"),
    "rules": (lambda n: errors.BodyInvalid(failed(n)), "breaks 1 rule of", "breaks 2 rules of"),
    "rows": (lambda n: errors.FrameInvalid("User", n, failed(n)), "1 failure in 1 of 1 row of", "in 2 of 2 rows of"),
}


def failed(rows: int) -> pl.DataFrame:
    row = {"column": "a", "value": "x", "rule": "int_parsing", "message": "no number"}
    return pl.DataFrame([{"row": number, **row} for number in range(rows)])


@pytest.mark.parametrize("case", TEXTS)
def test_texts_use_the_singular_for_one(case: str) -> None:
    make, one, two = TEXTS[case]
    assert one in str(make(1))
    assert two in str(make(2))
