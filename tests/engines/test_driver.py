"""Driver: many requests to one child process, and how all of them end with it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from greendata.engines import children as children_
from greendata.engines.child import DONE, FAILED
from greendata.engines.ray_cluster.driver import Answers, Driver
from greendata.engines.ray_cluster.program import CANCELLED, FRAME
from greendata.errors import ClusterUnreachable, EngineClosed, WorkerDied
from tests.support.natives import Native, until
from tests.support.processes import run_python
from tests.support.races import at

PROGRAM = "tests.support.child_tasks:serve_many"


def start(program: str = PROGRAM, *arguments: Any) -> Driver:
    return Driver(program, arguments, dict(os.environ), partial(ClusterUnreachable, "there"))


@pytest.fixture
def driver() -> Iterator[Driver]:
    made = start()
    yield made
    made.close(EngineClosed)


def ask(driver: Driver, number: int, *arguments: Any, files: tuple[int, ...] = ()) -> Answers:
    return driver.begin(number, (("answer", number, *arguments), list(files)))


def error_in(answers: Answers) -> BaseException:
    word, error, _ = answers.get()
    assert word == FAILED
    assert isinstance(error, BaseException)
    return error


def test_requests_are_answered_in_any_order_and_with_files(driver: Driver) -> None:
    held = ask(driver, 1, "hold")
    answers = [ask(driver, number, "echo", "x" * number * 1000) for number in range(2, 100)]
    for number, each in enumerate(answers, start=2):
        assert each.get()[:2] == (FRAME, "x" * number * 1000)
        assert each.get()[:2] == (DONE, None)
    assert held.empty()
    file = os.memfd_create("test")
    os.write(file, b"content")
    answer = ask(driver, 100, "file", files=(file,))
    word, value, (received,) = answer.get()
    assert (word, value, os.pread(received, 100, 0)) == (FRAME, None, b"content")
    os.close(received)
    assert answer.get()[0] == DONE
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)


def test_a_request_can_be_cancelled_and_others_go_on(driver: Driver) -> None:
    first, second = ask(driver, 1, "hold"), ask(driver, 2, "hold")
    until(lambda: driver.is_ready)
    driver.cancel(1)
    assert first.get()[0] == CANCELLED
    driver.cancel(1)
    driver.cancel(3)
    assert second.empty()


def test_a_request_to_a_driver_that_is_not_ready_can_be_cancelled() -> None:
    driver = start(PROGRAM, "never ready")
    try:
        answers = ask(driver, 1, "hold")
        driver.cancel(1)
        assert answers.get()[0] == CANCELLED
    finally:
        driver.close(EngineClosed)


def test_a_request_is_cancelled_by_a_thread_that_begins_another(driver: Driver) -> None:
    """The garbage collector may drop a stream in any thread, also in one that has the lock of the requests."""
    first = ask(driver, 1, "hold")
    until(lambda: driver.is_ready)
    sys.setprofile(at("c_call", "eventfd_write", Driver.begin.__code__, partial(driver.cancel, 1)))
    try:
        second = ask(driver, 2, "echo", "text")
    finally:
        sys.setprofile(None)
    assert first.get()[0] == CANCELLED
    assert second.get()[:2] == (FRAME, "text")


def test_shared_frames_that_find_no_descriptor_are_sent_with_the_next_query() -> None:
    """One of two frames finds one."""
    finished = run_python(
        """
        import os, resource
        from functools import partial
        import polars as pl
        from greendata.engines.ray import RayTasks
        from greendata.engines.ray_cluster.driver import Driver
        from greendata.errors import ClusterUnreachable, EngineClosed

        def free():
            os.close(descriptor := os.dup(0))
            return descriptor

        engine = RayTasks("127.0.0.1:1")
        program = "tests.support.child_tasks:serve_many"
        driver = Driver(program, (), dict(os.environ), partial(ClusterUnreachable, "there"))
        engine._drivers[:] = [driver]
        query = pl.concat([engine.share(pl.DataFrame({"a": range(100_000)})) for _ in range(2)])
        before = len(os.listdir("/proc/self/fd"))
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free() + 1, limits[1]))
        try:
            query.collect(engine=engine)
        except OSError as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        print(len(os.listdir("/proc/self/fd")) - before, driver.keys)
        engine.close()
        """
    )
    assert finished == (0, "[Errno 24] Too many open files\n0 set()\n", "")


def test_what_arrives_for_a_request_that_was_left_is_closed(
    driver: Driver, keeps_descriptors: Callable[[], AbstractContextManager[None]]
) -> None:
    until(lambda: driver.is_ready)
    assert ask(driver, 1, "echo", "").get()[0] == FRAME
    with keeps_descriptors():
        for number in range(2, 12):
            file = os.memfd_create("test")
            answers = ask(driver, number, "file", files=(file,))
            if number % 2:
                until(lambda answers=answers: answers.qsize() == 2)  # type: ignore[misc]
            driver.end(number, answers)
        del answers
        assert ask(driver, 12, "echo", "").get()[0] == FRAME


@pytest.mark.parametrize(
    "blow",
    [
        lambda driver: os.kill(driver.pid, signal.SIGKILL),
        lambda driver: os.kill(driver.pid, signal.SIGSTOP),
        lambda driver: driver._sock.send(b"\x08\0\0\0\0\0\0\0garbage!"),
        lambda driver: ask(driver, 9, "garbage"),
        lambda driver: ask(driver, 9, "exit"),
        lambda driver: driver.kill(),
    ],
    ids=["killed", "stopped", "garbage there", "garbage here", "exit", "kill"],
)
def test_all_requests_fail_when_the_process_ends(driver: Driver, blow: Any) -> None:
    answers = [ask(driver, number, "hold") for number in range(1, 6)]
    until(lambda: driver.is_ready)
    blow(driver)
    errors = [error_in(each) for each in answers]
    assert {type(error) for error in errors} == {WorkerDied}
    assert len({id(error) for error in errors}) == len(errors)
    assert not driver.is_alive
    assert not Path(f"/proc/{driver.pid}").exists()
    assert isinstance(error_in(ask(driver, 10, "echo", "")), WorkerDied)


def test_a_driver_that_cannot_begin_tells_why() -> None:
    driver = start(PROGRAM, "refused")
    errors = [error_in(ask(driver, number, "hold")) for number in (1, 2)]
    assert {type(error) for error in errors} == {PermissionError}
    assert errors[0] is not errors[1]
    driver.close(EngineClosed)

    driver = start("tests.support.child_tasks:nothing")
    with pytest.raises(ClusterUnreachable, match=r"(?s)there cannot be used: .*AttributeError"):
        raise error_in(ask(driver, 1, "hold"))
    driver.close(EngineClosed)


def test_a_driver_that_never_begins_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children_, "START_TIMEOUT", 0.0)
    driver = start(PROGRAM, "never ready")
    assert isinstance(error_in(ask(driver, 1, "hold")), ClusterUnreachable)
    driver.close(EngineClosed)


def test_closing_fails_the_requests_and_leaves_nothing(
    driver: Driver, keeps_descriptors: Callable[[], AbstractContextManager[None]]
) -> None:
    until(lambda: driver.is_ready)
    with keeps_descriptors():
        other = start()
        answers = ask(other, 1, "hold")
        other.close(EngineClosed)
        assert isinstance(error_in(answers), EngineClosed)
        assert isinstance(error_in(ask(other, 2, "echo", "")), EngineClosed)
        other.close(EngineClosed)


def test_requests_of_several_threads(driver: Driver) -> None:
    def ask_many(first: int) -> bool:
        found = [ask(driver, first + number, "echo", number) for number in range(50)]
        return [each.get()[1] for each in found] == list(range(50))

    threads = [Native(ask_many, 1000 * number) for number in range(1, 5)]
    assert [thread.join() for thread in threads] == [True] * 4
