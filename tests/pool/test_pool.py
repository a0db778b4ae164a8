"""The pool: submit never blocks, admission is bounded, threads are few and long-lived, jobs are cleaned up."""

from __future__ import annotations

import contextvars
import os
import re
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any

import gevent
import pytest

from greendata.errors import BadSetting, JobAborted, NotCallable, PoolClosed, PoolFull, UnknownArgument
from greendata.hub.result import Result
from greendata.hub.waker import HubWaker
from greendata.pool.pool import Pool, call, submit
from greendata.pool.settings import Settings
from tests.conftest import Gate, run_python
from tests.support.natives import Native, get_ident, settle_down, small_pool, until


def test_submit_returns_while_every_worker_is_held(held: Gate) -> None:
    pool = small_pool(max_workers=2)
    results = [pool.submit(held, number) for number in range(100)]
    assert not any(result.ready() for result in results)  # the gate is still closed
    held.wait_arrived(2)
    now = pool.stats()
    assert (now.workers, now.running, now.queued) == (2, 2, 98)
    held.open()
    assert [result.get() for result in results] == list(range(100))
    settle_down(pool)
    assert pool.stats().done == 100


def test_the_hub_turns_while_a_job_runs(hub_alive: Gate) -> None:
    assert submit(hub_alive, 42).get() == 42


def test_threads_start_on_first_use_carry_names_and_stay() -> None:
    pool = small_pool(max_workers=3)
    assert pool.stats().workers == 0
    idents = set()
    for _ in range(20):
        idents.add(pool.submit(get_ident).get())
        settle_down(pool)
    assert len(idents) == pool.stats().workers == 1
    assert get_ident() not in idents
    assert pool.submit(int).get() == 0
    result = pool.submit(int)
    result.get()
    assert result.worker.startswith("greendata-")


def test_a_full_pool_rejects_jobs_and_keeps_nothing_of_them(held: Gate) -> None:
    pool = small_pool(max_workers=2, max_queue=3)
    results = [pool.submit(held, number) for number in range(5)]
    held.wait_arrived(2)
    for number in range(50):
        with pytest.raises(PoolFull, match="max_queue is 3") as caught:
            pool.submit(held, key=number)
        assert caught.value.max_queue == 3
    assert pool.stats().rejected == 50
    assert len(pool._workers.queue.rotation) == 1, "rejected submits left something in the queue"
    held.open()
    assert [result.get() for result in results] == [0, 1, 2, 3, 4]
    settle_down(pool)
    assert pool.submit(int).get() == 0


def test_bad_arguments_raise_at_once() -> None:
    pool = small_pool()
    waker = HubWaker.here(gevent.get_hub())
    expected = waker.expected
    with pytest.raises(NotCallable, match="got 42"):
        pool.submit(42)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        pool.submit(int, key=[])  # type: ignore[arg-type]
    assert pool.stats() == small_pool().stats()
    assert waker.expected == expected
    assert pool.submit(int).get() == 0


def test_nested_submits_run_inline_on_the_worker() -> None:
    pool = small_pool(max_workers=1)

    def outer() -> tuple[bool, bool, object]:
        result = pool.submit(get_ident)
        failed = pool.submit(int, "x")
        return result.ready(), result.get() == get_ident(), type(failed.exception)

    assert pool.submit(outer).get() == (True, True, ValueError)


def test_a_program_or_a_caller_may_be_named_like_threads_of_polars() -> None:
    """The main thread has the first 15 letters of the program's name."""
    finished = run_python(
        """
        from _thread import get_ident
        from greendata.hub import native
        native.name_this_thread("polars-service")
        import gevent, greendata
        gevent.get_hub()
        loader = greendata.Caller.new(name="polars-loader")
        print(greendata.run(get_ident).get() == get_ident())
        print(loader.call_soon(lambda: greendata.run(get_ident).get() == get_ident()).get())
        """
    )
    assert finished == (0, "False\nFalse\n", "")


def test_threads_of_a_program_that_is_named_like_polars_use_the_pool() -> None:
    """They inherit its name. A hub in such a thread keeps running."""
    finished = run_python(
        """
        from _thread import get_ident
        from greendata.hub import native
        native.name_this_thread("polars-api")
        import gevent, greendata
        from tests.support.natives import Native
        def ask():
            gevent.get_hub()
            return greendata.run(get_ident).get() == get_ident()
        print(Native(ask).join(), greendata.run(get_ident).get() == get_ident())
        """
    )
    assert finished == (0, "False False\n", "")


def test_without_names_of_threads_a_first_query_before_the_hub_makes_no_thread_run_inline() -> None:
    finished = run_python(
        """
        from _thread import get_ident
        from pathlib import Path
        from greendata.hub import native
        native._TASKS = Path("/no/proc/here")
        import gevent, greendata
        from tests.support.natives import Native
        def ask():
            first = greendata.run(get_ident).get() == get_ident()
            gevent.get_hub()
            return first, greendata.run(get_ident).get() == get_ident()
        print(ask(), Native(ask).join())
        """
    )
    assert finished == (0, "(False, False) (True, False)\n", "")


def test_a_plain_thread_without_a_hub_submits_too(held: Gate) -> None:
    result = Native(submit, held, 42).join()
    held.open()
    assert result.get() == 42


def test_call_runs_on_a_worker_for_a_greenlet_and_inline_elsewhere() -> None:
    assert call(get_ident) != get_ident()
    plain = Native(call, get_ident)
    assert plain.join() == plain.ident
    inline: Result[int] = Result()
    gevent.get_hub().loop.run_callback(lambda: inline.set(call(get_ident)))  # in the hub itself
    assert inline.get() == get_ident()
    with pytest.raises(SystemExit):
        call(exit, 3)
    with pytest.raises(ValueError, match="base 36"):
        call(int, "!", base=36)


def test_a_call_that_is_interrupted_is_cancelled(held: Gate) -> None:
    waiting = gevent.spawn(call, held)
    held.wait_arrived()
    waiting.kill()
    held.open()
    assert isinstance(waiting.value, gevent.GreenletExit)


def test_context_variables_are_copied() -> None:
    variable = contextvars.ContextVar("variable", default="default")
    variable.set("of the submitter")

    def job() -> str:
        found = variable.get()
        variable.set("of the job")
        return found

    assert submit(job).get() == "of the submitter"
    assert variable.get() == "of the submitter"
    assert submit(variable.get).get() == "of the submitter"


def test_a_worker_keeps_the_hub_that_a_job_made() -> None:
    pool = small_pool(max_workers=1)
    hub = pool.submit(sleep_on_a_hub).get()
    assert all(pool.submit(sleep_on_a_hub).get() is hub for _ in range(20))


def test_greenlets_that_a_job_leaves_on_its_hub_run_between_jobs() -> None:
    pool = small_pool(max_workers=1)
    left = pool.submit(lambda: gevent.spawn_later(0.001, int)).get()
    until(left.ready)


def test_a_worker_that_ends_destroys_its_hub(held: Gate) -> None:
    pool = small_pool(max_workers=2)
    results = [pool.submit(lambda: held(sleep_on_a_hub())) for _ in range(2)]
    held.wait_arrived(2)
    held.open()
    hubs = [result.get() for result in results]
    pool.configure(max_workers=1)
    until(lambda: sum(hub.loop is None for hub in hubs) == 1)


def sleep_on_a_hub() -> Any:
    gevent.sleep(0)
    return gevent.get_hub()


@pytest.mark.parametrize(
    "kind",
    [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, gevent.Timeout, gevent.GreenletExit],
)
def test_every_kind_of_exception_arrives_once_and_the_worker_continues(kind: type[BaseException]) -> None:
    pool = small_pool(max_workers=1)

    def fail() -> None:
        raise kind()

    ident = pool.submit(get_ident).get()
    expected = kind if issubclass(kind, Exception) else JobAborted
    with pytest.raises(expected) as caught:
        pool.submit(fail, label="failing").get()
    if expected is JobAborted:
        assert type(caught.value.__cause__) is kind
        assert str(caught.value).startswith(f"failing ended with {kind.__name__}")
    assert pool.submit(get_ident).get() == ident


def test_configure_grows_and_shrinks(make_gate: Callable[[], Gate]) -> None:
    pool, first = small_pool(max_workers=1), make_gate()
    results = [pool.submit(first, number) for number in range(6)]
    first.wait_arrived(1)
    assert pool.configure(max_workers=4).max_workers == 4
    first.wait_arrived(4)  # the queued jobs got workers at once
    pool.configure(max_workers=2)
    first.open()
    assert [result.get() for result in results] == list(range(6))
    until(lambda: pool.stats().workers == 2)
    second = make_gate()
    more = [pool.submit(second) for _ in range(5)]
    second.wait_arrived(2)
    assert (pool.stats().running, pool.stats().queued) == (2, 3)
    second.open()
    gevent.wait(more)
    settle_down(pool)
    assert pool.stats().done == 11


@pytest.mark.parametrize(
    "bad",
    [
        {"max_workers": 0},
        {"max_workers": True},
        {"max_workers": 2.5},
        {"max_queue": -1},
        {"nice": 20},
        {"stuck_after": 0},
        {"stuck_after": float("nan")},
        {"exit_timeout": -1},
        {"exit_timeout": "soon"},
    ],
    ids=str,
)
def test_a_bad_setting_changes_nothing(bad: dict[str, object]) -> None:
    pool = small_pool()
    before = pool.settings
    with pytest.raises(BadSetting, match=next(iter(bad))):
        pool.configure(**{"max_queue": 7, **bad})
    assert pool.settings == before


def test_an_unknown_setting_suggests_the_nearest_and_changes_nothing() -> None:
    pool = small_pool()
    before = pool.settings
    text = "configure() got an unexpected keyword argument 'max_wrkers'; did you mean 'max_workers'? It takes "
    with pytest.raises(UnknownArgument, match=re.escape(text)) as caught:
        pool.configure(max_queue=7, max_wrkers=2)  # type: ignore[call-arg]
    assert (caught.value.name, caught.value.known) == ("max_wrkers", tuple(field.name for field in fields(Settings)))
    with pytest.raises(UnknownArgument, match=r"'threads'; it takes max_workers, max_queue, "):
        pool.configure(threads=2)  # type: ignore[call-arg]
    assert pool.settings == before


def test_a_setting_that_is_none_stays_as_it_is() -> None:
    pool = small_pool(max_queue=7)
    assert pool.configure(max_queue=None, nice=1) == replace(pool.settings, max_queue=7, nice=1)


def test_settings_come_from_the_environment() -> None:
    environ = {"GREENDATA_MAX_WORKERS": "3", "GREENDATA_STUCK_AFTER": "1.5", "GREENDATA_NICE": "0"}
    assert Settings.from_environment(environ) == Settings(max_workers=3, stuck_after=1.5, nice=0)
    with pytest.raises(BadSetting, match="GREENDATA_MAX_QUEUE must be a whole number, got 'many'"):
        Settings.from_environment({"GREENDATA_MAX_QUEUE": "many"})
    code = "from greendata.pool.pool import configure; print(configure().max_workers)"
    assert run_python(code, env={"GREENDATA_MAX_WORKERS": "3"}) == (0, "3\n", "")


def test_statistics_add_up(held: Gate) -> None:
    pool = small_pool(max_workers=2)
    done = [pool.submit(int) for _ in range(3)]
    failed = [pool.submit(int, "x") for _ in range(2)]
    gevent.wait([*done, *failed])
    settle_down(pool)
    running, queued = [pool.submit(held) for _ in range(2)], [pool.submit(held) for _ in range(2)]
    held.wait_arrived(2)
    queued[0].cancel()
    running[0].cancel()
    now = pool.stats()
    assert (now.running, now.queued, now.abandoned) == (2, 1, 1)
    held.open()
    settle_down(pool)
    now = pool.stats()
    assert (now.done, now.failed, now.cancelled, now.rejected) == (5, 2, 2, 0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="priorities are a thread's on Linux alone")
def test_only_polars_threads_get_a_lower_priority() -> None:
    """A worker that has the GIL and waits for a core delays the hub; child processes of a job inherit its priority."""
    finished = run_python(
        """
        import os, subprocess, sys
        import polars as pl
        import greendata
        from greendata.hub import native
        from tests.support.natives import until

        def of(thread):
            return os.getpriority(os.PRIO_PROCESS, thread) - base

        def child():
            code = "import os; print(os.getpriority(os.PRIO_PROCESS, 0))"
            return int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout) - base

        def runtime():
            return {of(thread) for thread, name in native.thread_names().items() if name[:7] == "polars-"}

        base = os.getpriority(os.PRIO_PROCESS, 0)
        greendata.configure(nice=2)
        lf = pl.LazyFrame({"a": [1]}).group_by("a").len()
        until(lambda: greendata.collect(lf).get() is not None and runtime() == {2})
        print(greendata.run(lambda: of(native.get_native_id())).get(timeout=30), greendata.run(child).get(timeout=30))
        greendata.configure(nice=4)
        print(runtime())
        """
    )
    assert finished == (0, "0 0\n{4}\n", "")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="priorities are a thread's on Linux alone")
def test_a_thread_that_was_interrupted_before_it_set_priorities_leaves_the_latest_setting_in_force() -> None:
    finished = run_python(
        """
        import os, sys
        import polars as pl
        import greendata
        from greendata.hub import native
        from greendata.pool import workers
        from tests.support.natives import until
        from tests.support.races import at

        def runtime():
            names = native.thread_names()
            return {os.getpriority(os.PRIO_PROCESS, t) - base for t, name in names.items() if name[:7] == "polars-"}

        base = os.getpriority(os.PRIO_PROCESS, 0)
        greendata.configure(nice=1)
        lf = pl.LazyFrame({"a": [1]}).group_by("a").len()
        until(lambda: greendata.collect(lf).get() is not None and runtime() == {1})
        setting = workers._lower_priority_of_runtime.__code__
        sys.setprofile(at("c_call", "setpriority", setting, lambda: greendata.configure(nice=4)))
        greendata.configure(nice=2)
        print(runtime())
        """
    )
    assert finished == (0, "{4}\n", "")


@pytest.mark.skipif(not hasattr(os, "setuid") or os.getuid() != 0, reason="only root can change its user")
def test_a_worker_starts_when_threads_have_a_lower_priority_already() -> None:
    finished = run_python(
        """
        import os
        import polars
        from greendata import collect, configure
        from greendata.pool.pool import Pool
        from greendata.pool.settings import Settings

        configure(nice=15)
        lf = polars.LazyFrame({"a": [1]})
        print(collect(lf).get().item())
        os.setuid(65534)
        print(Pool(Settings(nice=5)).submit(lf.collect).get(timeout=30).item())  # only root may lower Polars' threads
        """
    )
    assert finished == (0, "1\n1\n", "")


def test_a_reentrant_submit_from_a_finalizer_does_not_deadlock() -> None:
    pool = small_pool(max_workers=2)
    late: list[Result[int]] = []

    class Finalized:
        def __del__(self) -> None:
            late.append(pool.submit(int, "3"))

    with pool._workers.lock:  # as if the finalizer ran inside the pool
        made = Finalized()
        del made
    assert late[0].get() == 3


def test_a_drained_pool_rejects_jobs(held: Gate) -> None:
    pool = small_pool(max_workers=1)
    results = [pool.submit(held, number) for number in range(3)]
    held.wait_arrived()
    draining = gevent.spawn(pool.drain)
    gevent.idle()
    with pytest.raises(PoolClosed, match=r"configure\(\) opens it again"):
        pool.submit(int)
    held.open()
    assert draining.get() is True
    assert [result.get() for result in results] == [0, 1, 2]
    assert pool.drain() is True
    pool.configure()
    assert pool.submit(int).get() == 0


def test_a_drain_that_is_out_of_time_cancels_what_is_queued(held: Gate) -> None:
    pool = small_pool(max_workers=1)
    running, queued = pool.submit(held, 1), pool.submit(held, 2)
    held.wait_arrived()
    assert pool.drain(timeout=0.01) is False
    assert queued.cancelled()
    held.open()
    assert running.get() == 1
    assert pool.drain(timeout=60) is True


@pytest.mark.parametrize("way", ["cancel", "deadline"])
def test_a_drain_ends_when_the_last_queued_job_is_cancelled(held: Gate, way: str) -> None:
    """No worker can notify it: here all are lost to jobs that do not return."""
    pool = small_pool(max_workers=1)
    running = pool.submit(held)
    held.wait_arrived()
    hidden = pool._workers.running.popitem()  # hide the running job: the queued one is the last
    queued = pool.submit(held, timeout=0.05 if way == "deadline" else None)
    draining = gevent.spawn(pool.drain)
    gevent.idle()
    if way == "cancel":
        queued.cancel()
    assert draining.get() is True
    pool._workers.running.update([hidden])
    held.open()
    running.get()


def test_a_drain_from_a_plain_thread_and_an_idle_pool() -> None:
    pool = small_pool()
    pool.submit(int).get()
    assert Native(pool.drain).join() is True
    assert Pool(Settings()).drain(timeout=0) is True


def test_stuck_jobs_occupy_their_workers_only(held: Gate) -> None:
    pool = small_pool(max_workers=2, stuck_after=0.05)
    stuck = [pool.submit(held) for _ in range(2)]
    held.wait_arrived(2)
    rescued = pool.submit(int)  # no submit follows
    assert rescued.get() == 0
    assert pool.stats().lost >= 1
    until(lambda: pool.stats().workers == 2)  # the second may be being replaced
    held.open()
    gevent.wait(stuck)
    settle_down(pool)
    assert pool.stats().done == 3
    assert {pool.submit(get_ident).get() for _ in range(5)}


def test_the_number_of_lost_workers_is_bounded(held: Gate) -> None:
    pool = small_pool(max_workers=2, stuck_after=0.02)
    stuck = [pool.submit(held) for _ in range(8)]
    held.wait_arrived(4)
    until(lambda: pool.stats().lost == 2)
    now = pool.stats()
    assert (now.workers, now.running, now.queued) == (2, 4, 4)
    held.open()
    gevent.wait(stuck)
    settle_down(pool)
    assert pool.stats().workers <= 2
    assert pool.stats().done == 8


def test_partials_and_labels() -> None:
    assert submit(partial(int, base=16), "ff").get() == 255
    assert submit(int).label == "int"
    assert submit(partial(int)).label == "partial"
    assert submit(int, label="mine").label == "mine"
