"""An exception is raised at each single step of a worker: every waiter is notified, and the next job runs.

User code may raise an exception in any thread at any moment (``PyThreadState_SetAsyncExc``). Time limits do that in the
thread that runs a job, and may be late: after the job.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dis import opname
from types import FrameType
from typing import Any

import pytest

from greendata.errors import WorkerLost
from greendata.hub import native
from greendata.hub.result import Result
from greendata.pool.pool import Pool
from greendata.pool.workers import Workers
from tests.support.gates import Gate, rest
from tests.support.natives import Native, settle_down, small_pool, until
from tests.support.races import Interruption

LIMIT = 60.0  # seconds: a guard against threads that never continue
WORKERS_FILE = Workers.put.__code__.co_filename


# After these instructions the interpreter checks for exceptions raised by other threads.
WINDOWS = ("RESUME", "CALL", "JUMP_BACKWARD")


class Interrupter:
    """Raise an exception in the first thread started for *entry*, at one of its windows, and again some calls later."""

    def __init__(self, entry: Callable[..., object], step: int, again: int) -> None:
        self.remaining, self.again = step, again
        self._entry = entry
        self._is_due = True
        self._last: dict[FrameType, str] = {}  # the last instruction of each frame

    def start_thread(self, func: Callable[..., object], args: tuple[object, ...]) -> int:
        """Replace `native.start_thread`."""
        entry = getattr(getattr(func, "func", None), "__func__", None)
        if not self._is_due or entry is not self._entry:
            return start_thread(func, args)
        self._is_due = False
        return start_thread(self._run, (func, args))

    def _run(self, func: Callable[..., object], args: tuple[object, ...]) -> None:
        sys.settrace(self._look)
        with suppress(Interruption):
            func(*args)
        sys.settrace(None)
        sys.setprofile(None)

    def _look(self, frame: FrameType, kind: str, _: object) -> Any:
        if frame.f_code.co_filename != WORKERS_FILE:
            return None
        frame.f_trace = self._look  # Python 3.13 heeds the next for a frame that is traced
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if kind == "opcode":
            is_window = self._last.get(frame, "RESUME").startswith(WINDOWS)
            self._last[frame] = opname[frame.f_code.co_code[frame.f_lasti]]
            self.remaining -= is_window
            if is_window and not self.remaining:
                self._last.clear()
                sys.settrace(None)
                if self.again:
                    sys.setprofile(self._look_again)
                raise Interruption
        elif kind == "return":
            self._last.pop(frame, None)
        return self._look

    def _look_again(self, frame: FrameType, kind: str, _: object) -> None:
        is_closed = frame.f_code.co_name == "<genexpr>"  # exceptions in it are printed and ignored
        if frame.f_code.co_filename == WORKERS_FILE and not is_closed and kind in ("call", "c_call", "return"):
            self.again -= 1
            if not self.again:
                sys.setprofile(None)
                raise Interruption


start_thread = native.start_thread


def outcome(result: Result[int]) -> object:
    """Return the outcome of *result*, which a greenlet and a plain thread must see alike."""

    def see() -> object:
        try:
            return result.get(timeout=LIMIT)
        except (Interruption, WorkerLost) as error:
            return type(error)

    plain = Native(see)
    seen = see()
    assert plain.join() == seen
    return seen


def dismiss(pool: Pool) -> None:
    """End the worker of *pool*."""
    while pool._workers.workers:
        if pool._workers._tokens.empty():
            pool._workers._tokens.put("end")  # again, if it was interrupted when it took the token
        rest()


def interruptions(monkeypatch: pytest.MonkeyPatch, entry: Callable[..., object], again: int) -> Iterator[None]:
    """Interrupt *entry* at each window in turn, or at every third one if it is interrupted twice."""
    step = 1
    while True:
        interrupter = Interrupter(entry, step, again)
        monkeypatch.setattr(native, "start_thread", interrupter.start_thread)
        yield
        if interrupter.remaining > 0:
            return
        step += 3 if again else 1


@pytest.mark.parametrize("again", [0, 1, 2, 3, 5, 8])
def test_an_interrupted_worker_loses_no_job(again: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    for _ in interruptions(monkeypatch, Workers._serve, again):
        pool = small_pool(max_workers=1)
        outcomes = [outcome(pool.submit(int, text)) for text in "345"]
        assert sum(isinstance(each, int) for each in outcomes) >= (1 if again else 2)
        settle_down(pool)
        assert pool.drain(LIMIT) is True
        now = pool.stats()
        assert (now.queued, now.running, now.lost, now.done + now.failed) == (0, 0, 0, 3)
        until(lambda pool=pool: pool.stats().workers <= 1)  # type: ignore[misc]  # two threads may each have started one
        seen.update(outcomes)
        dismiss(pool)
    assert seen > {3, 4, 5}


@pytest.mark.parametrize("again", [0, 2])
def test_an_interrupted_watch_for_stuck_jobs_is_replaced(
    again: int, monkeypatch: pytest.MonkeyPatch, make_gate: Callable[[], Gate]
) -> None:
    for _ in interruptions(monkeypatch, Workers._watch_stuck, again):
        pool, held = small_pool(max_workers=1, stuck_after=0.02), make_gate()
        stuck = pool.submit(held, 3)
        held.wait_arrived()
        assert pool.submit(int, "4").get(timeout=LIMIT) == 4
        held.open()
        assert stuck.get(timeout=LIMIT) == 3
        settle_down(pool)
        dismiss(pool)


def test_the_error_names_the_worker() -> None:
    error = WorkerLost("greendata-7")
    assert str(error).startswith("greendata-7 ended while it had the job")
    assert isinstance(error, RuntimeError)
