"""Blocked hubs: reports with the stack from either sampler, and warnings at the line of an inline execution."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator

import gevent
import polars as pl
import pytest

import greendata
from greendata.errors import BadArgument
from greendata.observe import Block, HubBlockedWarning, warn_on_block, watch_blocks
from greendata.query.patching.function_patch import is_patched
from tests.conftest import run_python
from tests.support.gates import rest
from tests.support.natives import Native, until

LF = pl.LazyFrame({"a": [1, 2, 3]})


def keep_hub(seconds: float = 0.3) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(100))


def keep_until(reported: list[Block]) -> Block:
    """Block the hub repeatedly until it is reported: on a busy machine the sampler may miss a block."""
    while not (found := [block for block in reported if block.label.endswith(" in keep_hub")]):
        count = len(reported)
        keep_hub()
        while len(reported) == count:
            rest()
    return found[0]


def test_a_block_is_reported_with_its_line_and_stack() -> None:
    reported: list[Block] = []
    with watch_blocks(0.1, on_block=reported.append) as watch:
        block = keep_until(reported)
        assert block in watch.blocks()
    assert "test_block_watch.py" in block.label
    assert block.seconds >= 0.1
    assert "keep_until" in [location.function for location in block.stack]
    assert str(block).startswith(f"the hub was blocked for {block.seconds:.3f} s in {block.label}\n  ")


def test_without_a_listener_it_is_logged_from_a_greenlet(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "greendata.observe"), watch_blocks(0.1):
        keep_hub()
        until(lambda: caplog.records)
    assert caplog.records[0].name == "greendata.observe"
    assert caplog.records[0].getMessage().startswith("the hub was blocked for ")


def test_nothing_is_reported_after_close() -> None:
    reported: list[Block] = []
    watch = watch_blocks(0.05, on_block=reported.append)
    watch.close()
    watch.close()
    keep_hub(0.1)
    gevent.sleep(0.01)
    assert reported == []


@pytest.mark.parametrize("threshold", [0, 0.01, -1, float("nan"), True, "long"])
def test_a_threshold_that_cannot_be_used_is_refused(threshold: float) -> None:
    with pytest.raises(BadArgument, match=r"threshold must be a number of seconds >= 0\.02"):
        watch_blocks(threshold)


def test_gevents_monitor_takes_the_stacks_if_it_is_enabled() -> None:
    finished = run_python(
        """
        import gevent, gevent.events, time
        import greendata
        from greendata.hub import native

        def keep_hub():
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                sum(range(100))

        gevent.sleep(0)  # the hub starts, and the monitor with it
        reported = []
        with greendata.observe.watch_blocks(0.1, on_block=reported.append):
            assert len(gevent.events.subscribers) == 1
            assert "greendata-watch" not in native.thread_names().values()
            while not any(block.label.endswith(" in keep_hub") for block in reported):
                gevent.spawn(keep_hub).join()
                gevent.sleep(0.05)
        assert not gevent.events.subscribers
        print("reported")
        """,
        env={"GEVENT_MONITOR_THREAD_ENABLE": "1", "GEVENT_MAX_BLOCKING_TIME": "0.1"},
    )
    assert finished.stdout == "reported\n", finished.stderr


def test_gevents_monitor_begins_with_the_hub_and_not_before() -> None:
    """The monitor ends if it finds a hub that has not started, for example while a program is imported."""
    finished = run_python(
        """
        import gevent, time
        import greendata
        from greendata.hub import native

        reported = []
        with greendata.observe.watch_blocks(0.05, on_block=reported.append):
            print(gevent.get_hub().periodic_monitoring_thread)
            while not any(block.stack for block in reported):
                gevent.sleep(0.02)
                native.sleep(0.2)
        print("reported")
        """,
        env={"GEVENT_MONITOR_THREAD_ENABLE": "1", "GEVENT_MAX_BLOCKING_TIME": "0.1"},
    )
    assert finished.stdout == "None\nreported\n", finished.stderr


def test_a_forked_child_starts_a_new_sampler() -> None:
    finished = run_python(
        """
        import gevent, os, time
        from gevent.monkey import get_original
        import greendata

        def keep_hub():
            end = time.monotonic() + 0.3
            while time.monotonic() < end:
                sum(range(100))

        reported = []
        watch = greendata.observe.watch_blocks(0.1, on_block=reported.append)
        gevent.sleep(0.05)
        pid = os.fork()
        if pid:
            get_original("os", "waitpid")(pid, 0)
            os._exit(0)
        while not any(block.stack for block in reported):
            gevent.sleep(0.05)
            keep_hub()
        print("reported in the child", flush=True)
        os._exit(0)
        """
    )
    assert finished.stdout == "reported in the child\n", finished.stderr


def test_watching_does_not_keep_the_process() -> None:
    finished = run_python("import gevent, greendata; greendata.observe.watch_blocks(); print(gevent.wait())")
    assert (finished.returncode, finished.stdout) == (0, "True\n"), finished.stderr


@pytest.fixture
def caught() -> Iterator[list[warnings.WarningMessage]]:
    """Collect the warnings of all inline executions in the test."""
    gevent.get_hub()
    with warnings.catch_warnings(record=True) as found, warn_on_block():
        warnings.simplefilter("always")
        yield found


def test_a_plain_collect_in_a_greenlet_is_named_with_its_line(caught: list[warnings.WarningMessage]) -> None:
    LF.collect()
    (warning,) = caught
    assert warning.category is HubBlockedWarning
    assert warning.filename == __file__
    assert str(warning.message) == (
        "collect ran on the hub's thread; use greendata.patch_polars(), a verb of greendata, or greendata.run"
    )
    assert isinstance(warning.message, HubBlockedWarning)
    assert warning.message.seconds >= 0.0


def test_eager_work_and_readers_are_named_too(caught: list[warnings.WarningMessage]) -> None:
    pl.DataFrame({"a": [2, 1]}).sort("a")
    pl.read_csv(b"a,b\n1,2\n")
    assert len({warning.lineno for warning in caught}) == 2
    assert {warning.filename for warning in caught} == {__file__}


def test_executions_in_the_pool_give_no_warning(caught: list[warnings.WarningMessage]) -> None:
    greendata.collect(LF).get(timeout=10)
    greendata.patch_polars()
    try:
        LF.collect()
    finally:
        greendata.unpatch_polars()
    assert Native(LF.collect).join().height == 3
    assert caught == []


def test_the_patch_in_the_hub_itself_runs_inline_and_warns(caught: list[warnings.WarningMessage]) -> None:
    seen: list[int] = []
    greendata.patch_polars()
    try:
        gevent.get_hub().loop.run_callback(lambda: seen.append(LF.collect().height))
        until(lambda: seen)
    finally:
        greendata.unpatch_polars()
    assert [warning.category for warning in caught] == [HubBlockedWarning]


def test_a_line_is_reported_once_by_default() -> None:
    gevent.get_hub()
    with warnings.catch_warnings(record=True) as found, warn_on_block():
        warnings.simplefilter("default")
        for _ in range(3):
            LF.collect()
    assert len(found) == 1


def test_as_an_error_it_is_raised_at_the_line() -> None:
    gevent.get_hub()
    with warn_on_block(), pytest.raises(HubBlockedWarning):
        LF.collect()


def test_blocks_may_overlap_and_the_last_one_ends_it() -> None:
    first, second = warn_on_block(), warn_on_block()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert is_patched("warnings")
    second.__exit__(None, None, None)
    assert not is_patched("warnings")
    assert type(pl._plr.PyLazyFrame.collect).__name__ == "method_descriptor"


def test_patch_and_warnings_come_off_in_any_order() -> None:
    original = pl._plr.PyLazyFrame.collect
    with warn_on_block():
        greendata.patch_polars()
    assert greendata.is_polars_patched()
    assert pl._plr.PyLazyFrame.collect is not original
    with warn_on_block():
        greendata.unpatch_polars()
        assert pl._plr.PyLazyFrame.collect is not original
    assert pl._plr.PyLazyFrame.collect is original
