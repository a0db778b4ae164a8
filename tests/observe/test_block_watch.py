"""Who blocked the hub: blame lines with both witnesses, and warnings at the line of an inline execution."""

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
from greendata.query.patching.function_patch import diverted_for
from tests.conftest import run_python
from tests.support.gates import rest
from tests.support.natives import Native, until

LF = pl.LazyFrame({"a": [1, 2, 3]})


def keep_hub(seconds: float = 0.3) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(100))


def keep_until(told: list[Block]) -> Block:
    """Keep the hub again and again, until it is told of: a witness on a busy machine may come too late for one time."""
    while not (found := [block for block in told if block.label.endswith(" in keep_hub")]):
        count = len(told)
        keep_hub()
        while len(told) == count:
            rest()
    return found[0]


def test_a_silence_is_told_with_its_line_and_stack() -> None:
    told: list[Block] = []
    with watch_blocks(0.1, on_block=told.append) as watch:
        block = keep_until(told)
        assert block in watch.blocks()
    assert "test_block_watch.py" in block.label
    assert block.seconds >= 0.1
    assert "keep_until" in [site.function for site in block.stack]
    assert str(block).startswith(f"the hub was silent for {block.seconds:.3f} s in {block.label}\n  ")


def test_without_a_listener_it_is_logged_from_a_greenlet(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "greendata.observe"), watch_blocks(0.1):
        keep_hub()
        until(lambda: caplog.records)
    assert caplog.records[0].name == "greendata.observe"
    assert caplog.records[0].getMessage().startswith("the hub was silent for ")


def test_after_its_end_nothing_is_told() -> None:
    told: list[Block] = []
    watch = watch_blocks(0.05, on_block=told.append)
    watch.close()
    watch.close()
    keep_hub(0.1)
    gevent.sleep(0.01)
    assert told == []


@pytest.mark.parametrize("threshold", [0, 0.01, -1, float("nan"), True, "long"])
def test_a_threshold_that_cannot_be_used_is_refused(threshold: float) -> None:
    with pytest.raises(BadArgument, match=r"threshold must be a number of seconds >= 0\.02"):
        watch_blocks(threshold)


def test_gevents_own_monitor_is_the_witness_where_it_is_on() -> None:
    finished = run_python(
        """
        import gevent, gevent.events, time
        import greendata
        from greendata.hub import native

        def keep_hub():
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                sum(range(100))

        gevent.sleep(0)  # the hub begins, and the monitor with it
        told = []
        with greendata.observe.watch_blocks(0.1, on_block=told.append):
            assert len(gevent.events.subscribers) == 1
            assert "greendata-blame" not in native.thread_names().values()
            while not any(block.label.endswith(" in keep_hub") for block in told):
                gevent.spawn(keep_hub).join()
                gevent.sleep(0.05)
        assert not gevent.events.subscribers
        print("told")
        """,
        env={"GEVENT_MONITOR_THREAD_ENABLE": "1", "GEVENT_MAX_BLOCKING_TIME": "0.1"},
    )
    assert finished.stdout == "told\n", finished.stderr


def test_gevents_monitor_begins_with_the_hub_and_not_before() -> None:
    """It ends for good where it looks at a hub that has not begun, as while a program is imported."""
    finished = run_python(
        """
        import gevent, time
        import greendata
        from greendata.hub import native

        told = []
        with greendata.observe.watch_blocks(0.05, on_block=told.append):
            print(gevent.get_hub().periodic_monitoring_thread)
            while not any(block.stack for block in told):
                gevent.sleep(0.02)
                native.sleep(0.2)
        print("told")
        """,
        env={"GEVENT_MONITOR_THREAD_ENABLE": "1", "GEVENT_MAX_BLOCKING_TIME": "0.1"},
    )
    assert finished.stdout == "None\ntold\n", finished.stderr


def test_a_forked_child_has_a_witness_of_its_own() -> None:
    finished = run_python(
        """
        import gevent, os, time
        from gevent.monkey import get_original
        import greendata

        def keep_hub():
            end = time.monotonic() + 0.3
            while time.monotonic() < end:
                sum(range(100))

        told = []
        watch = greendata.observe.watch_blocks(0.1, on_block=told.append)
        gevent.sleep(0.05)
        pid = os.fork()
        if pid:
            get_original("os", "waitpid")(pid, 0)
            os._exit(0)
        while not any(block.stack for block in told):
            gevent.sleep(0.05)
            keep_hub()
        print("told in the child", flush=True)
        os._exit(0)
        """
    )
    assert finished.stdout == "told in the child\n", finished.stderr


def test_watching_does_not_keep_the_process() -> None:
    finished = run_python("import gevent, greendata; greendata.observe.watch_blocks(); print(gevent.wait())")
    assert (finished.returncode, finished.stdout) == (0, "True\n"), finished.stderr


@pytest.fixture
def caught() -> Iterator[list[warnings.WarningMessage]]:
    """The warnings of inline executions in the test, each time."""
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


def test_what_goes_through_the_pool_is_silent(caught: list[warnings.WarningMessage]) -> None:
    greendata.collect(LF).get(timeout=10)
    greendata.patch_polars()
    try:
        LF.collect()
    finally:
        greendata.unpatch_polars()
    assert Native(LF.collect).join().height == 3
    assert caught == []


def test_the_patch_in_the_hub_itself_runs_inline_and_is_named(caught: list[warnings.WarningMessage]) -> None:
    seen: list[int] = []
    greendata.patch_polars()
    try:
        gevent.get_hub().loop.run_callback(lambda: seen.append(LF.collect().height))
        until(lambda: seen)
    finally:
        greendata.unpatch_polars()
    assert [warning.category for warning in caught] == [HubBlockedWarning]


def test_a_line_is_told_of_once_by_default() -> None:
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
    assert diverted_for("warnings")
    second.__exit__(None, None, None)
    assert not diverted_for("warnings")
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
