"""One result: it is an AsyncResult and a Future, is settled exactly once, and no cycle keeps its job alive."""

from __future__ import annotations

import gc
import sys
import traceback
import weakref
from collections.abc import Callable, Iterator
from functools import partial

import gevent
import pytest
from gevent.event import AsyncResult

from greendata.errors import JobCancelled, ResultTimeout, WaitsForItself
from greendata.hub.outcome import Outcome, Status
from greendata.hub.result import Result
from greendata.pool.pool import submit
from greendata.pool.workers import Workers
from tests.conftest import Gate
from tests.support.natives import Native, get_ident, until
from tests.support.processes import run_python
from tests.support.races import at


class Marker:
    """An object that a job refers to, whose deletion can be observed."""


def fail(kind: type[BaseException]) -> None:
    raise kind("provoked")


def test_it_is_an_async_result_that_gevent_waits_for(held: Gate, make_gate: Callable[[], Gate]) -> None:
    other = make_gate()
    first, second = submit(held, 1), submit(other, 2)
    assert isinstance(first, AsyncResult)
    assert gevent.wait([first, second], timeout=0) == []
    held.open()
    assert gevent.wait([first, second], count=1) == [first]
    other.open()
    assert set(gevent.iwait([first, second])) == {first, second}
    assert gevent.joinall([first, second]) == [first, second]


def test_status_goes_one_way(held: Gate, make_gate: Callable[[], Gate]) -> None:
    done, failed, cancelled = submit(held, 1), submit(int, "x"), submit(make_gate())
    seen = {done.status}
    held.wait_arrived()
    seen.add(done.status)
    assert seen <= {Status.QUEUED, Status.RUNNING}
    assert done.status is Status.RUNNING
    cancelled.cancel()
    held.open()
    gevent.wait([done, failed, cancelled])
    assert [result.status for result in (done, failed, cancelled)] == ["done", "failed", "cancelled"]
    assert [result.successful() for result in (done, failed, cancelled)] == [True, False, False]
    assert [result.cancelled() for result in (done, failed, cancelled)] == [False, False, True]
    assert all(result.ready() and result.done() for result in (done, failed, cancelled))


def test_its_attributes_before_and_after_the_outcome(held: Gate) -> None:
    result = submit(held, 42, label="the answer")
    assert (result.value, result.exception, result.exc_info, result.ready()) == (None, None, (), False)
    held.wait_arrived()
    held.open()
    assert result.get() == result.wait() == result.get_nowait() == result.result() == result.value == 42
    assert (result.exception, result.exc_info, result.label) == (None, (), "the answer")
    assert result.worker.startswith("greendata-")
    assert result.queued_seconds >= 0
    assert result.run_seconds >= 0
    assert "'the answer' done on greendata-" in repr(result)


def test_the_original_error_arrives_with_its_traceback_and_cause() -> None:
    cause = KeyError("cause")

    def inner() -> None:
        raise ValueError("provoked") from cause

    result = submit(inner)
    with pytest.raises(ValueError, match="provoked") as caught:
        result.get()
    assert caught.value is result.exception
    assert caught.value.__cause__ is cause
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[-1] == "inner"
    assert "run" not in names, "the pool's own frames are shown"
    assert [frame.name for frame in traceback.extract_tb(result.exc_info[2])] == ["inner"]
    assert result.wait() is None


def test_the_traceback_does_not_grow() -> None:
    result = submit(int, "x")
    lengths = set()
    for _ in range(5):
        with pytest.raises(ValueError, match="invalid literal") as caught:
            result.get()
        lengths.add(len(traceback.extract_tb(caught.value.__traceback__)))
    assert len(lengths) == 1


def test_get_without_blocking(held: Gate) -> None:
    result = submit(held, 7)
    for get in (lambda: result.get(block=False), lambda: result.get(timeout=0), result.get_nowait):
        with pytest.raises(ResultTimeout) as caught:
            get()
        assert caught.value.result is result
    held.open()
    assert result.get() == 7
    assert result.get(block=False) == result.get(timeout=0) == 7


def test_a_settable_result_keeps_the_first_outcome() -> None:
    result: Result[int] = Result()
    waiting = [gevent.spawn(result.get) for _ in range(3)]
    gevent.idle()
    result.set(1)
    result.set(2)
    result.set_exception(ValueError("late"))
    assert result.cancel() is False
    gevent.joinall(waiting)
    assert [waiter.value for waiter in waiting] == [1, 1, 1]
    assert result.get() == 1


@pytest.mark.parametrize("link", [False, True])
def test_a_settable_result_accepts_errors_and_greenlets(hub_errors: list[str], link: bool) -> None:  # noqa: FBT001
    result: Result[int] = Result()
    if link:
        gevent.spawn(int, "provoked").link(result)
        until(lambda: hub_errors)
        hub_errors.clear()
    else:
        result.set_exception(ValueError("provoked"))
    with pytest.raises(ValueError, match="provoked"):
        result.get(timeout=30)


def test_setting_the_result_of_a_job_decides_it(held: Gate) -> None:
    result = submit(held, 1)
    held.wait_arrived()
    result.set(99)
    assert result.get() == 99
    held.open()
    until(lambda: result.end().ready())
    assert result.get() == 99


def test_a_thread_that_halts_while_it_decides_leaves_the_job_its_outcome(
    held: Gate, make_gate: Callable[[], Gate]
) -> None:
    """A result is never settled before it can be read. Otherwise the outcome of a job that ends then would be lost."""

    class Late(ValueError):
        """An error that supports weak references."""

    error, gate = Late(), make_gate()
    result = submit(held, 1)
    held.wait_arrived()

    def decide(error: ValueError) -> None:
        sys.setprofile(at("call", "trace_of", Outcome.settle.__code__, gate))
        result.set_exception(error)

    other = Native(decide, error)
    gate.wait_arrived()
    held.open()
    assert result.get() == 1
    gate.open()
    other.join()
    assert (result.status, result.get(), result.exception) == (Status.DONE, 1, None)
    gone = weakref.ref(error)
    del error, other
    gc.collect()
    assert gone() is None  # the late error is not kept


def test_links_are_called_once_in_the_hub(held: Gate) -> None:
    heard: list[tuple[str, int]] = []
    result = submit(held, 1)

    def early(_: object) -> None:
        heard.append(("early", get_ident()))

    def unlinked(_: object) -> None:
        heard.append(("unlinked", get_ident()))

    result.rawlink(early)
    result.rawlink(unlinked)
    result.unlink(unlinked)
    result.unlink(unlinked)  # it is already removed: nothing happens
    held.open()
    result.get()
    result.rawlink(lambda _: heard.append(("late", get_ident())))
    until(lambda: len(heard) == 2)
    gevent.idle()
    assert heard == [("early", get_ident()), ("late", get_ident())]
    with pytest.raises(TypeError, match="Expected callable"):
        result.rawlink(None)  # type: ignore[arg-type]


def test_an_error_in_a_link_does_not_keep_the_others(held: Gate, hub_errors: list[str]) -> None:
    heard: list[str] = []
    result = submit(held, 1)
    result.rawlink(lambda _: int("provoked"))
    result.rawlink(lambda _: heard.append("second"))
    waiting = gevent.spawn(result.get)
    gevent.idle()
    held.open()
    assert waiting.get(timeout=30) == 1
    until(lambda: heard and hub_errors)
    assert "provoked" in hub_errors.pop()


def test_a_link_unlinked_after_the_outcome_and_before_its_turn_is_not_called(held: Gate) -> None:
    heard: list[object] = []
    result = submit(held, 1)
    result.rawlink(heard.append)
    held.open()
    while not result.ready():  # without running the hub
        pass
    result.unlink(heard.append)
    gevent.idle()
    assert heard == []


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def _submit_watched(died: list[int], end: Callable[[], object]) -> Result[object]:
    in_frame, in_closure, argument = Marker(), Marker(), Marker()
    for marker in (in_frame, in_closure, argument):
        weakref.finalize(marker, lambda: died.append(get_ident()))

    def job(_: Marker) -> object:
        local = in_closure, Marker()
        weakref.finalize(local[1], lambda: died.append(get_ident()))
        return end()

    del in_frame
    return submit(job, argument)


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("kind", [ValueError, SystemExit])
def test_objects_of_a_failed_job_are_freed_with_the_result_on_the_hubs_thread(kind: type[BaseException]) -> None:
    died: list[int] = []
    result = _submit_watched(died, partial(fail, kind))
    result.wait()
    result.end().get()
    assert len(died) == 1  # only `in_frame`; the traceback refers to all others
    del result
    until(lambda: len(died) == 4)
    assert set(died) == {get_ident()}


@pytest.mark.usefixtures("no_collector")
def test_objects_of_a_job_are_freed_on_the_hubs_thread() -> None:
    died: list[int] = []
    result = _submit_watched(died, lambda: 42)
    assert result.get() == 42
    until(lambda: len(died) == 4)
    assert died.count(get_ident()) == 3  # the object that the job created died in the worker


@pytest.mark.usefixtures("no_collector")
def test_objects_of_a_cancelled_job_are_freed_on_the_hubs_thread(held: Gate) -> None:
    died: list[int] = []
    result = _submit_watched(died, held)
    held.wait_arrived()
    result.cancel()
    with pytest.raises(JobCancelled):
        result.get()
    held.open()
    until(lambda: len(died) == 4)
    assert died.count(get_ident()) == 3


@pytest.mark.usefixtures("no_collector")
def test_objects_of_a_job_that_returns_while_its_cancellation_is_heard_are_freed_on_the_hubs_thread(
    held: Gate, make_gate: Callable[[], Gate]
) -> None:
    """The hub hears of it when the job has returned, and before the worker has dropped its references."""
    died: list[int] = []
    leaving = make_gate()

    def end() -> None:
        held()
        sys.setprofile(at("call", "release", Workers._finish_job.__code__, leaving))

    result = _submit_watched(died, end)
    held.wait_arrived()
    result.cancel()
    held.open()
    while not leaving.arrived:  # without running the hub
        pass
    until(lambda: result.is_delivered)
    gevent.idle()
    leaving.open()
    until(lambda: len(died) == 4)
    assert died.count(get_ident()) == 3


def test_a_result_dropped_while_its_job_runs_loses_nothing(held: Gate) -> None:
    ran: list[int] = []
    submit(lambda: held() or ran.append(1))  # type: ignore[func-returns-value]
    held.wait_arrived()
    gc.collect()
    held.open()
    until(lambda: ran)


def test_a_link_made_in_a_thread_without_a_hub_runs_in_the_owning_hub(held: Gate) -> None:
    heard: list[int] = []
    result = submit(held, 1)
    Native(result.rawlink, lambda _: heard.append(get_ident())).join()
    dropped: list[object] = []

    def link_and_unlink() -> None:
        result.rawlink(dropped.append)
        result.unlink(dropped.append)

    Native(link_and_unlink).join()
    held.open()
    until(lambda: heard)
    assert (heard, dropped) == ([get_ident()], [])
    late: list[int] = []
    thread = Native(result.rawlink, lambda _: late.append(get_ident()))
    thread.join()
    assert late == [thread.ident]  # the outcome was delivered: there is nothing to wait for


def test_a_link_from_a_thread_without_a_hub_leaves_links_of_the_owning_hub_to_it(held: Gate) -> None:
    heard: list[tuple[str, int]] = []
    result = submit(held, 1)
    result.rawlink(lambda _: heard.append(("owner", get_ident())))
    held.wait_arrived()
    held.open()
    while not result.ready():  # settled, and the hub has not run since
        pass
    _block_until_linked(result, lambda _: heard.append(("plain", get_ident())))
    until(lambda: len(heard) == 2)
    assert set(heard) == {("owner", get_ident()), ("plain", get_ident())}


def _block_until_linked(result: Result[object], callback: Callable[[object], object]) -> None:
    linked: list[bool] = []
    Native(lambda: result.rawlink(callback) or linked.append(True))  # type: ignore[func-returns-value]
    while not linked:  # without running the hub
        pass


def test_a_result_without_a_job_may_be_set_in_any_thread() -> None:
    """The loop keeps running for its waiters, even with nothing else to do."""
    finished = run_python(
        """
        import gevent
        from greendata.hub import native
        from greendata.hub.result import Result

        def set_soon(result, value):
            native.start_thread(lambda: (native.sleep(0.05), result.set(value)), ())

        first = lambda result: next(gevent.iwait([result])).value
        for wait in (Result.get, first, lambda result: gevent.wait([result])[0].value):
            result = Result()
            set_soon(result, 7)
            print(wait(result))
        result, is_here = Result(), Result()
        result.rawlink(lambda _: is_here.set(native.get_ident() == here))
        here = native.get_ident()
        set_soon(result, 7)
        print(is_here.get())
        failed = Result()
        native.start_thread(lambda: failed.set_exception(ZeroDivisionError()), ())
        try:
            failed.get()
        except ZeroDivisionError as error:
            print(type(error))
        """
    )
    assert finished == (0, "7\n7\n7\nTrue\n<class 'ZeroDivisionError'>\n", "")


def test_the_error_of_a_result_may_be_about_the_result_itself() -> None:
    result = Result[None]("report")
    result.set_exception(error := WaitsForItself(result))
    assert str(error).startswith("waiting for <Result 'report' failed WaitsForItself(")
    assert "waiting for <Result ...> would" in str(error)


def test_errors_of_many_results_may_be_about_one_another() -> None:
    results = [Result[None](f"report {number}") for number in range(50)]
    for result, other in zip(results, results[1:] + results[:1], strict=True):
        result.set_exception(WaitsForItself(other))
    assert all(len(repr(result)) < 250 and len(str(result.exception)) < 250 for result in results)
