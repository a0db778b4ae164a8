"""However a pipeline ends, all workers have ended and every ``on_done`` has run."""

from __future__ import annotations

import atexit
import gc
import itertools
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event

from greendata.pipelines import stages
from greendata.pipelines.run import workers
from greendata.pipelines.stages import Stage
from greendata.tasks.caller import Caller
from tests.support.gates import Gate
from tests.support.processes import run_python


class Watched:
    """An endless pipeline of all kinds of stages that records which workers have started and which have ended."""

    def __init__(self, **last: Any) -> None:
        self.started: list[str] = []
        self.done: list[str] = []
        chain = itertools.count() | self._map("first", workers=3, maxsize=2) | self._map("inline", on="inline")
        chain = chain | self._map("native", on="native", workers=2) | stages.ordered(window=5)
        self.stage: Stage[int] = chain | self._map("last", **{"workers": 2, "maxsize": 1, **last})

    def _map(self, name: str, **options: Any) -> Any:
        begin, end = (lambda: self.started.append(name)), (lambda: self.done.append(name))
        return stages.map(lambda x: x, on_start=begin, on_done=end, **options)

    def assert_is_over(self) -> None:
        assert len(self.started) == 8
        assert sorted(self.done) == sorted(self.started)
        before = list(self.done)
        gevent.idle()
        assert self.done == before
        assert not workers()


def every_greenlet_of_a_pipeline() -> list[Any]:
    """Return all greenlets that are not dead, found without the pipelines."""
    gc.collect()
    greenlets = [found for found in gc.get_objects() if type(found) is gevent.Greenlet and not found.dead]
    return [found for found in greenlets if "greendata.pipelines" in found._run.__module__]


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    yield made
    assert not workers()


def test_close_returns_when_every_worker_is_gone(watched: Watched) -> None:
    stream = iter(watched.stage)
    assert next(stream) is not None
    assert len(workers()) >= 7
    stream.close()
    assert sorted(watched.done) == sorted(watched.started)
    assert not workers()
    assert not every_greenlet_of_a_pipeline()
    assert list(stream) == []
    stream.close()


def test_leaving_the_block_closes(watched: Watched) -> None:
    with stages.to_iterable(watched.stage) as stream:
        next(stream)
    watched.assert_is_over()


def test_a_break_ends_the_run(watched: Watched) -> None:
    for element in watched.stage:
        if element > 10:
            break
    while workers():
        gevent.idle()
    watched.assert_is_over()


def test_a_dropped_stream_ends_its_run(watched: Watched) -> None:
    cycle: list[Any] = [iter(watched.stage)]
    cycle.append(cycle)
    next(cycle[0])
    del cycle
    gc.collect()
    while workers():
        gevent.idle()
    watched.assert_is_over()


def test_a_stream_dropped_in_another_thread_ends_its_run(watched: Watched) -> None:
    import greendata

    box = [iter(watched.stage)]
    next(box[0])
    greendata.run(box.clear).get()
    while workers():
        gevent.idle()
    watched.assert_is_over()


def test_a_stream_belongs_to_the_thread_that_starts_it(watched: Watched) -> None:
    box = [iter(watched.stage)]
    with Caller.new() as side:
        side.call_soon(lambda: (next(box[0]), box.clear())).get()
        while workers():
            gevent.sleep(0.001)
    watched.assert_is_over()


def test_a_killed_consumer_ends_the_run() -> None:
    never = Event()
    ended: list[str] = []
    stage = stages.map(lambda _: never.wait(), range(9), workers=2, on_done=lambda: ended.append("done"))
    consumer = gevent.spawn(list, stage)
    gevent.idle()
    consumer.kill()
    assert ended == ["done"] * 2
    assert not workers()


def test_a_consumer_killed_between_two_elements_ends_the_run(watched: Watched) -> None:
    never = Event()

    def consume() -> None:
        for _ in watched.stage:
            never.wait()

    consumer = gevent.spawn(consume)
    while len(watched.started) < 8:
        gevent.idle()
    consumer.kill()
    while workers():
        gevent.idle()
    watched.assert_is_over()


def test_a_timeout_around_the_consumer_ends_the_run() -> None:
    ended: list[str] = []
    stage = stages.map(lambda _: Event().wait(), [1], on_done=lambda: ended.append("done"))
    with pytest.raises(gevent.Timeout) as caught, gevent.Timeout(0.001) as timer:
        list(stage)
    assert caught.value is timer
    assert ended == ["done"]
    assert not workers()


def test_a_consumer_whose_stream_another_greenlet_closes_reaches_the_end() -> None:
    stream = iter(stages.map(lambda _: Event().wait(), range(3), workers=2))
    consumer = gevent.spawn(list, stream)
    gevent.idle()
    stream.close()
    assert consumer.get() == []
    assert not workers()


def test_cancelling_the_result_ends_the_run(watched: Watched) -> None:
    result = watched.stage.submit()
    while len(watched.started) < 8:
        gevent.idle()
    assert result.cancel()
    while workers():
        gevent.idle()
    watched.assert_is_over()


@pytest.mark.parametrize("on", ["greenlet", "native", "inline"])
def test_on_done_runs_after_an_error(on: Any) -> None:
    ended: list[str] = []
    stage = stages.map(lambda x: 1 // x, [1, 0], workers=3, on=on, on_done=lambda: ended.append("done"))
    with pytest.raises(ZeroDivisionError):
        stage.run()
    assert ended == ["done"] * (1 if on == "inline" else 3)
    assert not workers()


def test_on_done_may_wait_and_is_not_cut_short() -> None:
    ended: list[str] = []
    doors = [Event(), Event()]

    def end() -> None:
        doors[0].set()
        doors[1].wait()
        ended.append("done")

    stream = iter(stages.map(lambda x: x, itertools.count(), on_done=end))
    next(stream)
    closers = [gevent.spawn(stream.close) for _ in range(2)]
    doors[0].wait()
    assert not ended
    doors[1].set()
    gevent.joinall(closers, raise_error=True)
    assert ended == ["done"]


def test_on_done_is_not_called_where_on_start_failed() -> None:
    ended: list[str] = []
    stage = stages.map(abs, [1], on_start=lambda: 1 // 0, on_done=lambda: ended.append("done"))
    with pytest.raises(ZeroDivisionError):
        stage.run()
    assert not ended


def test_an_error_of_on_done_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        stages.map(abs, [1], on_done=lambda: 1 // 0).run()
    stream = iter(stages.map(abs, itertools.count(), on_done=lambda: 1 // 0))
    next(stream)
    with pytest.raises(ZeroDivisionError):
        stream.close()


def test_an_error_of_on_done_after_an_error_is_a_note_of_that() -> None:
    for on in ("greenlet", "inline"):
        with pytest.raises(KeyError) as caught:
            stages.map({}.__getitem__, [1], on_done=lambda: 1 // 0, on=on).run()
        assert "ZeroDivisionError" in caught.value.__notes__[1]


def test_a_native_call_is_given_up_and_the_run_ends(held: Gate) -> None:
    stream = iter(stages.map(held, range(3), on="native"))
    consumer = gevent.spawn(list, stream)
    held.wait_arrived()
    stream.close()
    assert not workers()
    assert consumer.get() == []


def test_a_break_at_the_end_of_a_program_still_runs_on_done() -> None:
    finished = run_python("""
        import itertools
        import os
        from greendata.pipelines import stages
        for _ in stages.map(abs, itertools.count(), workers=2, on_done=lambda: os.write(1, b"done\\n")):
            break
    """)
    assert finished == (0, "done\ndone\n", "")


def test_a_native_on_done_runs_after_the_pool_was_drained() -> None:
    finished = run_python("""
        import itertools
        import os
        import greendata
        from greendata.pipelines import stages
        stages.map(abs, [1]).run()
        for _ in stages.map(abs, itertools.count(), on="native", workers=2, on_done=lambda: os.write(1, b"done\\n")):
            break
    """)
    assert finished == (0, "done\ndone\n", "")


def test_runs_leave_nothing_for_the_end_of_the_program() -> None:
    stages.map(abs, [1]).run()
    before = atexit._ncallbacks()
    for _ in range(3):
        stages.map(abs, [1]).run()
    assert atexit._ncallbacks() == before


@pytest.mark.parametrize("patch", ["", "from gevent import monkey; monkey.patch_all()"], ids=["unpatched", "patched"])
@pytest.mark.once("unpatched")  # in a process of its own
def test_cleanup_that_waits_for_a_worker_at_exit_is_done(patch: str) -> None:
    """The pool drops its queue at exit, so the runs have to be closed before, whichever of the two was there first."""
    code = f"""
{patch}
import gevent, greendata
from gevent.monkey import get_original
from greendata import stages
from greendata.pool import pool
from greendata.pool.cleanup import run_to_completion, run_uninterrupted

sleep = get_original("time", "sleep")
is_over = lambda: pool.shared._closed or stream._run._closer is not None

def hold():
    while not is_over():
        sleep(0.001)

def work(number):
    if number:
        greendata.run(hold)
        run_uninterrupted(lambda: run_to_completion(lambda: print("done"), label="end").get())
    return number

greendata.configure(max_workers=1)
stream = iter(stages.map(work, [0, 1]))
print(next(stream))
while not greendata.stats().queued:
    gevent.sleep(0.001)
"""
    assert run_python(code) == (0, "0\ndone\n", "")
