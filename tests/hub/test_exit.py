"""Process exit: a process ends when nothing is pending, and exits silently when work is in flight."""

from __future__ import annotations

import pytest

from tests.conftest import Finished, run_python

pytestmark = pytest.mark.once("patched")  # each test runs in a separate process

PATCH = "from gevent.monkey import patch_all; patch_all()"
both_ways = pytest.mark.parametrize("patch", ["", PATCH], ids=["plain", "patched"])

# Work that is still in flight when the main program is over.
IN_FLIGHT = {
    "native sleep": "submit(native_sleep, 0.5)",
    "more than there are workers": "[submit(native_sleep, 0.2) for _ in range(9)]",
    "hub sleep": "submit(time.sleep, 0.5)",
    "polars query": "[collect(heavy()) for _ in range(6)]",
    "python function in a query": "[collect(with_function()) for _ in range(6)]",
}
PROLOGUE = """
{patch}
import sys, time
import gevent
from gevent.monkey import get_original
import polars as pl
from greendata import collect
from greendata.pool.pool import stats, submit
from tests.support.gates import Gate
from tests.support.natives import until

native_sleep = get_original("time", "sleep")

def begun():
    return stats().running or stats().done or stats().failed

def heavy():
    lf = pl.LazyFrame({{"a": range(300_000)}})
    return lf.group_by(key=pl.col("a") % 1000).agg(pl.col("a").sort().sum(), s=pl.col("a").std()).sort("key")

def slow(series):
    native_sleep(0.5)
    return series

def with_function():
    return pl.LazyFrame({{"a": [1]}}).with_columns(pl.col("a").map_batches(slow, return_dtype=pl.Int64))
"""


def run(patch: str, code: str, **options: float) -> Finished:
    return run_python(PROLOGUE.format(patch=patch) + code, **options)  # type: ignore[arg-type]


@both_ways
@pytest.mark.parametrize("work", IN_FLIGHT)
def test_it_exits_cleanly_with_work_in_flight(work: str, patch: str) -> None:
    assert run(patch, f"pending = {IN_FLIGHT[work]}\nuntil(begun)") == (0, "", "")


@both_ways
def test_greenlets_that_wait_are_not_woken_by_the_exit(patch: str) -> None:
    """They would continue unexpectedly: with `JobCancelled` if the job was queued, or by submitting more work."""
    code = """
    def serve():
        while True:
            submit(native_sleep, 0.1).get()

    served = [gevent.spawn(serve) for _ in range(9)]
    gevent.idle()
    until(lambda: stats().queued and stats().running)
    """
    assert run(patch, _dedent(code)) == (0, "", "")


@both_ways
def test_only_the_error_of_the_main_program_is_reported(patch: str) -> None:
    finished = run(patch, "pending = submit(native_sleep, 0.3)\nuntil(begun)\nint('provoked')")
    assert finished.returncode == 1
    assert finished.stderr.startswith("Traceback")
    assert finished.stderr.count("Traceback") == 1
    assert finished.stderr.rstrip().endswith("invalid literal for int() with base 10: 'provoked'")


@both_ways
def test_the_exit_code_is_kept(patch: str) -> None:
    assert run(patch, "pending = submit(native_sleep, 0.3)\nuntil(begun)\nsys.exit(7)") == (7, "", "")


@both_ways
def test_a_failure_without_a_waiter_is_not_reported(patch: str) -> None:
    errors = ["ValueError", "SystemExit", "KeyboardInterrupt", "GeneratorExit", "gevent.Timeout", "gevent.GreenletExit"]
    jobs = "\n".join(f"submit(fail, {error})" for error in errors)
    code = f"def fail(kind):\n    raise kind()\n{jobs}\nuntil(lambda: stats().failed == {len(errors)})"
    assert run(patch, code) == (0, "", "")


@both_ways
def test_the_loop_ends_when_nothing_is_pending(patch: str) -> None:
    code = """
    gevent.get_hub()  # before the jobs, which are delivered to the hub of the submitting thread
    results = [submit(native_sleep, 0.1) for _ in range(6)]
    print(gevent.get_hub().join(), all(result.ready() for result in results))
    print(gevent.wait(timeout=60), stats().queued + stats().running)
    """
    assert run(patch, _dedent(code)) == (0, "True True\nTrue 0\n", "")


@both_ways
def test_a_cancelled_job_that_goes_on_does_not_hold_the_loop(patch: str) -> None:
    code = """
    gate = Gate()
    result = submit(gate)
    gate.wait_arrived()
    result.cancel()
    print(gevent.get_hub().join(), stats().abandoned)
    gate.open()
    """
    assert run(patch, _dedent(code)) == (0, "True 1\n", "")


@both_ways
def test_a_hub_destroyed_with_work_in_flight(patch: str) -> None:
    code = """
    lost = [submit(native_sleep, 0.2) for _ in range(6)]
    waiter = gevent.spawn(lost[0].get)
    until(begun)
    gevent.get_hub().destroy(destroy_loop=True)
    print(submit(int, "3").get(timeout=30), lost[0].get(timeout=30), [result.wait() for result in lost])
    """
    assert run(patch, _dedent(code)) == (0, "3 None [None, None, None, None, None, None]\n", "")


@both_ways
def test_exit_handlers_that_run_later_may_still_work(patch: str) -> None:
    code = """
    import atexit
    atexit.register(lambda: print(submit(int, "4").get(), collect(with_function()).get().item()))
    print(submit(int, "3").get())
    """
    assert run(patch, _dedent(code)) == (0, "3\n4 1\n", "")


@both_ways
def test_a_job_that_never_returns_delays_the_exit_by_exit_timeout_at_most(patch: str) -> None:
    code = """
    import greendata
    lock = get_original("_thread", "allocate_lock")()
    lock.acquire()
    greendata.configure(exit_timeout=0.2)
    submit(lock.acquire)
    until(lambda: stats().running)
    """
    assert run(patch, _dedent(code)) == (0, "", "")


def _dedent(code: str) -> str:
    return "\n".join(line[4:] for line in code.splitlines())


def test_greenlets_that_jobs_left_on_their_workers_do_not_outlive_the_interpreter() -> None:
    code = """
        from gevent import monkey; monkey.patch_all()
        import sys, threading, gevent, greendata

        def turn():
            while True:
                gevent.sleep(0.0001)

        meeting = threading.Barrier(8)
        results = [greendata.run(lambda: (gevent.spawn(turn), gevent.sleep(0), meeting.wait())) for _ in range(8)]
        for result in results:
            result.get()
        sys.setswitchinterval(1e-6)
        print("out")
    """
    assert run_python(code) == (0, "out\n", "")


def test_greenlets_do_not_run_on_while_callers_end() -> None:
    """With patching, gevent itself runs the hub while the interpreter waits for its threads."""
    code = """
    import gevent, greendata
    from greendata.hub import native
    over = []

    def serve():
        while True:
            gevent.sleep(0)
            if over:
                print("ran on")

    gevent.spawn(serve)
    caller = greendata.Caller.new()
    held = caller.call_soon(gevent.sleep, 3600)
    gevent.sleep(0.001)
    over.append(1)
    """
    assert run("", _dedent(code)) == (0, "", "")
