"""`single_flight`: which caller starts the load, which callers wait, and the outcome that each of them gets."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from functools import lru_cache
from typing import Any

import gevent
import pytest
from flask import Flask
from gevent.event import Event

import greendata
from greendata import single_flight
from greendata.errors import DeadlineExceeded, JobCancelled, NotCallable, WaitsForItself
from greendata.hub.deadline import Limit, current_deadline, within
from greendata.pool import pool
from greendata.pool.job import on_submit
from greendata.web.flask import GreenData
from tests.conftest import Gate, run_python
from tests.support.gates import rest
from tests.support.natives import Native


class Load:
    """A load that waits for `go`, and counts how often it has begun."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun: list[tuple[Any, ...]] = []
        self.go = Event()
        self.shared = single_flight(self)
        self._error = error

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        loaded = (*args, *kwargs.items(), object())
        self.begun.append(loaded)
        self.go.wait()
        if self._error is not None:
            raise self._error
        return loaded

    def wait_begun(self, count: int = 1) -> None:
        while len(self.begun) < count:
            rest()


def outcome_of(func: Callable[[], Any]) -> Any:
    """Return what *func* returns or raises: the hub would print the error of a greenlet that fails."""
    try:
        return func()
    except BaseException as error:  # noqa: BLE001 - any error is an outcome
        return error


def test_concurrent_callers_share_one_load() -> None:
    load = Load()
    callers = [gevent.spawn(load.shared, "a") for _ in range(30)]
    load.wait_begun()
    gevent.idle()
    load.go.set()
    assert {id(caller.get()) for caller in callers} == {id(load.begun[0])}
    assert len(load.begun) == 1
    load.shared("a")
    assert len(load.begun) == 2  # the value is not stored


def test_a_cache_around_it_loads_once() -> None:
    load = Load()
    cached = lru_cache(load.shared)
    callers = [gevent.spawn(cached, "a") for _ in range(30)]
    load.wait_begun()
    load.go.set()
    gevent.joinall(callers, raise_error=True)
    assert cached("a") is load.begun[0]
    assert len(load.begun) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [(("a",), ("b",)), ((1,), (1.0,)), ((1,), (True,)), ((), ("a",)), (("a", "b"), ("b", "a"))],
)
def test_other_arguments_start_another_load(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    load = Load()
    callers = [gevent.spawn(load.shared, *arguments) for arguments in (one, other, one, other)]
    callers += [gevent.spawn(load.shared, name=arguments[:1] and arguments[0]) for arguments in (one, other)]
    load.wait_begun(4)
    load.go.set()
    gevent.joinall(callers, raise_error=True)
    assert len(load.begun) == 4
    assert [caller.get()[:-1] for caller in callers[:2]] == [one, other]


def test_the_order_of_named_arguments_does_not_matter() -> None:
    load = Load()
    callers = [gevent.spawn(load.shared, a=1, b=2), gevent.spawn(load.shared, b=2, a=1)]
    load.wait_begun()
    load.go.set()
    gevent.joinall(callers, raise_error=True)
    assert len(load.begun) == 1


def test_an_error_is_raised_in_all_callers_and_not_stored() -> None:
    load = Load(error := ValueError("no such file"))
    callers = [gevent.spawn(outcome_of, load.shared) for _ in range(3)]
    load.wait_begun()
    load.go.set()
    assert [caller.get() for caller in callers] == [error] * 3
    with pytest.raises(ValueError, match="no such file"):
        load.shared()
    assert len(load.begun) == 2


@pytest.mark.parametrize("first", [True, False])
def test_killing_a_caller_does_not_end_the_load(first: bool) -> None:  # noqa: FBT001
    load = Load()
    callers = [gevent.spawn(load.shared) for _ in range(3)]
    load.wait_begun()
    callers.pop(0 if first else 1).kill()
    load.go.set()
    assert [caller.get() for caller in callers] == [load.begun[0]] * 2
    assert len(load.begun) == 1


def test_the_load_continues_without_waiters() -> None:
    load = Load()
    caller = gevent.spawn(load.shared)
    load.wait_begun()
    caller.kill()
    late = gevent.spawn(load.shared)
    gevent.idle()
    load.go.set()
    assert late.get() is load.begun[0]
    assert len(load.begun) == 1


def test_each_caller_has_its_own_deadline_and_the_load_none() -> None:
    load = Load()
    seen: list[object] = []

    @single_flight
    def look() -> object:
        seen.append((current_deadline(), on_submit.get()))
        return load.shared()

    def hurried() -> object:
        with within(Limit(until=0.0, seconds=2.0)):
            return look()

    def patient() -> object:
        with greendata.deadline(60):
            return look()

    callers = [gevent.spawn(outcome_of, caller) for caller in (hurried, patient, look)]
    late = callers[0].get()
    assert isinstance(late, DeadlineExceeded)
    assert str(late) == "look was still running at its deadline of 2 seconds"
    load.wait_begun()
    load.go.set()
    assert [caller.get() for caller in callers[1:]] == [load.begun[0]] * 2
    assert seen == [(None, None)]


def test_a_request_that_has_ended_leaves_the_load_to_the_others(held: Gate) -> None:
    begun: list[str] = []
    app = Flask("service")
    app.config["GREENDATA_REQUEST_TIMEOUT"] = 60
    GreenData(app)

    @single_flight
    def load() -> object:
        begun.append(app.name)
        return greendata.run(held, "loaded").get()

    @app.get("/first")
    def first() -> str:
        gevent.spawn(load)
        leaver = gevent.Greenlet(load)
        leaver.start()
        rest()
        leaver.kill()
        return "left"

    app.add_url_rule("/second", "second", load)
    assert app.test_client().get("/first").text == "left"
    second = gevent.spawn(lambda: app.test_client().get("/second").text)
    rest()
    held.open()
    assert second.get() == "loaded"
    assert begun == ["service"]


def test_a_scope_that_ends_cancels_the_wait_and_not_the_load() -> None:
    load = Load()
    adopted: list[greendata.Result[Any]] = []
    token = on_submit.set(adopted.append)
    try:
        caller = gevent.Greenlet(outcome_of, load.shared)
        caller.gr_context = copy_context()
        caller.start()
        load.wait_begun()
        (waiting,) = adopted
        waiting.cancel("the client left")
        given_up = caller.get()
        assert isinstance(given_up, JobCancelled)
        assert given_up.message == "the client left"
        late = gevent.spawn(load.shared)
        load.go.set()
        assert late.get() is load.begun[0]
    finally:
        on_submit.reset(token)


def test_native_threads_and_greenlets_share_a_load(held: Gate) -> None:
    begun: list[object] = []
    joined: list[greendata.Result[Any]] = []

    @single_flight
    def load() -> object:
        begun.append(object())
        return held(begun[0])

    def join() -> object:
        on_submit.set(joined.append)  # called for each caller that waits
        return load()

    first = Native(load)
    held.wait_arrived()
    thread, greenlets = Native(join), [gevent.spawn(join), gevent.spawn(join)]
    while len(joined) < 3:
        rest()
    held.open()
    assert {id(value) for value in (first.join(), thread.join(), *(each.get() for each in greenlets))} == {id(begun[0])}
    assert len(begun) == 1


def test_a_worker_does_not_wait_for_a_greenlet_that_may_need_it(held: Gate) -> None:
    before = pool.shared.settings.max_workers
    greendata.configure(max_workers=1)
    begun: list[str] = []

    @single_flight
    def load() -> object:
        begun.append("begun")
        return greendata.run(held, "loaded").get()

    try:
        blocker = greendata.run(held, "blocked")
        caller = gevent.spawn(load)
        while not begun:
            rest()
        job = greendata.run(load)
        held.open()
        assert [blocker.get(), caller.get(), job.get()] == ["blocked", "loaded", "loaded"]
    finally:
        greendata.configure(max_workers=before)


def test_jobs_share_a_load_that_one_of_them_runs(held: Gate) -> None:
    begun: list[str] = []

    @single_flight
    def load() -> object:
        begun.append("begun")
        return held("loaded")

    jobs = [greendata.run(load) for _ in range(3)]
    held.wait_arrived()
    caller = gevent.spawn(load)
    while greendata.stats().running < 3:
        rest()
    held.open()
    assert [job.get() for job in jobs] == ["loaded"] * 3
    assert caller.get() == "loaded"


def test_a_recursive_load_raises() -> None:
    @single_flight
    def load(depth: int) -> int:
        return load(depth)

    @single_flight
    def factorial(number: int) -> int:
        return 1 if number == 0 else number * factorial(number - 1)

    with pytest.raises(WaitsForItself):
        load(1)
    with pytest.raises(WaitsForItself):
        greendata.run(load, 1).get()
    with pytest.raises(WaitsForItself):
        Native(load, 1).join()
    assert factorial(5) == 120


def test_a_base_exception_reaches_the_others_too(held: Gate) -> None:
    @single_flight
    def load() -> object:
        held()
        raise SystemExit(3)

    first = Native(load)
    held.wait_arrived()
    other = gevent.spawn(outcome_of, load)
    gevent.idle()
    held.open()
    aborted = other.get()
    assert isinstance(aborted, greendata.JobAborted)
    assert isinstance(aborted.__cause__, SystemExit)
    with pytest.raises(SystemExit):
        first.join()


def test_a_key_that_cannot_be_hashed_again_leaves_no_flight_behind() -> None:
    class Fickle:
        """An argument that can be hashed only once."""

        hashed = 0

        def __hash__(self) -> int:
            self.hashed += 1
            if self.hashed > 1:
                raise RuntimeError("outside of the request")
            return 1

    load = Load()
    load.go.set()
    assert load.shared(Fickle()) is not load.shared(Fickle())
    with pytest.raises(TypeError, match="unhashable"):
        load.shared([])
    with pytest.raises(NotCallable):
        single_flight(42)  # type: ignore[call-overload]


def test_methods_share_by_their_object() -> None:
    class Shop:
        """A class with a method that is loaded once."""

        begun = 0

        @single_flight
        def load(self) -> int:
            """Return the price."""
            type(self).begun += 1
            gevent.idle()
            return id(self)

    shop, other = Shop(), Shop()
    callers = [gevent.spawn(shop.load), gevent.spawn(shop.load), gevent.spawn(other.load)]
    assert [caller.get() for caller in callers] == [id(shop), id(shop), id(other)]
    assert Shop.begun == 2
    assert Shop.load.__doc__ == "Return the price."


def test_the_hub_itself_runs_the_function() -> None:
    seen: list[str] = []
    gevent.get_hub().loop.run_callback(lambda: seen.append(single_flight(lambda: "here")()))
    gevent.idle()
    assert seen == ["here"]


def test_a_forked_child_does_not_wait_for_its_parents_load() -> None:
    finished = run_python(
        """
        import os
        import gevent
        from greendata import single_flight

        gate = gevent.event.Event()

        @single_flight
        def load():
            if os.getpid() == parent:
                gate.wait()
            return os.getpid()

        parent = os.getpid()
        first = gevent.spawn(load)
        gevent.sleep(0)
        gevent.idle()
        if (pid := gevent.os.fork()) == 0:
            os._exit(load() != os.getpid())
        assert os.waitpid(pid, 0)[1] == 0
        gate.set()
        assert first.get() == parent
        print("done")
        """
    )
    assert finished.stdout == "done\n", finished
