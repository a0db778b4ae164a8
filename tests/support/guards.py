"""A pytest plugin: no failure in a test stays hidden, and nothing waits forever.

- An error that a hub prints (a greenlet died, a callback raised) fails the test. A test that provokes an error
  removes it from the list that the fixture `hub_errors` returns.
- A job that is still queued, running or abandoned in the shared pool when a test is over fails the test.
- A test that takes longer than its guard (120 seconds, or ``@pytest.mark.guard(seconds)``) ends the run with
  exit code 124 and the stacks of all threads and greenlets. A native thread watches, so a blocked hub is
  caught as well. Collection and the end of the process are guarded too.

Unraisable exceptions, exceptions in threads and warnings are handled by pytest: setup.cfg makes them errors.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TextIO

import gevent
import greenlet
import pytest
from gevent._hub_local import get_hub_if_exists
from gevent.hub import Hub
from gevent.monkey import get_original

from tests.support.gates import rest

__all__ = ("EXIT_CODE", "hub_errors")

GUARD = 120.0  # seconds for one test with its fixtures
EXIT_CODE = 124  # the exit code of timeout(1)
POOL_GUARD = 10.0  # seconds for the workers to finish jobs whose outcome the test has already seen

_errors: list[str] = []  # what hubs printed; a hub's thread appends, the test's thread takes out


@pytest.fixture
def hub_errors() -> list[str]:
    """The errors that hubs printed so far in this test, as text. Errors that are left in the list fail the test."""
    return _errors


class Watchdog:
    """The native thread that ends the process when its time is up."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._stderr = os.fdopen(os.dup(2), "w", buffering=1)  # the real one: there is no capture yet
        self.watch("the start of the run", GUARD)
        get_original("_thread", "start_new_thread")(self._run, ())

    def watch(self, what: str, seconds: float) -> None:
        """Watch *what*, which may take *seconds*, in place of the previous subject."""
        self._watched = what, seconds, time.monotonic() + seconds  # one tuple: the watchdog reads it whole

    def _run(self) -> None:
        sleep: Callable[[float], None] = get_original("time", "sleep")
        while time.monotonic() < self._watched[2]:
            sleep(0.5)
        try:
            self._report(*self._watched[:2])
        finally:
            os._exit(EXIT_CODE)

    def _report(self, what: str, seconds: float) -> None:
        out = self._stderr
        print(f"\n\n{'=' * 30} HANG: {what} took more than {seconds:g} seconds {'=' * 30}", file=out)
        faulthandler.dump_traceback(file=out, all_threads=True)
        print_greenlets(out)
        capture = self._config.pluginmanager.getplugin("capturemanager")
        if capture is not None:
            capture.suspend_global_capture(in_=True)
            print("Captured so far:", *capture.read_global_capture(), sep="\n", file=out)
        print(f"HANG: {what}", file=out)  # again at the end, which is seen first in a long log


def print_greenlets(out: TextIO) -> None:
    """Print every suspended greenlet of this process and where it waits. Safe from any thread."""
    waiting = [found for found in gc.get_objects() if isinstance(found, greenlet.greenlet) and found.gr_frame]
    print(f"\n{len(waiting)} suspended greenlets", file=out)
    for found in waiting:
        print(f"\n{found!r}", *traceback.format_stack(found.gr_frame), sep="\n", file=out)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "guard(seconds): how long the test may take before it counts as hung")
    config.stash[_watchdog] = Watchdog(config)
    config.stash[_print_exception] = Hub.print_exception
    Hub.print_exception = _print_and_note(Hub.print_exception)


def pytest_unconfigure(config: pytest.Config) -> None:
    Hub.print_exception = config.stash[_print_exception]
    sys.stdout.flush()  # so that the summary is written even if the process is killed
    config.stash[_watchdog].watch("the end of the process", GUARD)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    marker = item.get_closest_marker("guard")
    watchdog = item.config.stash[_watchdog]
    watchdog.watch(item.nodeid, marker.args[0] if marker else GUARD)
    try:
        return (yield)
    finally:
        watchdog.watch(f"what came after {item.nodeid}", GUARD)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    outcome = yield
    _fail_on_hub_errors()
    return outcome


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    outcome = yield
    if get_hub_if_exists() is not None:
        gevent.idle()  # runs callbacks that the test left in the hub now, and not in the next test
    _fail_on_hub_errors()
    _fail_on_busy_pool()
    if (natives := sys.modules.get("tests.support.natives")) is not None:
        natives.dismiss_pools()  # otherwise hundreds of their threads would be left at the end of the run
    return outcome


def pytest_enter_pdb(config: pytest.Config) -> None:
    config.stash[_watchdog].watch("the debugger", float("inf"))


def _print_and_note(original: Callable[..., None]) -> Callable[..., None]:
    def print_exception(
        hub: Hub, context: object, kind: Any, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        # As text: the exception itself would keep the frames of the test alive.
        _errors.append("".join(traceback.format_exception(kind, value, trace)) + f"in {context!r}")
        original(hub, context, kind, value, trace)

    return print_exception


def _fail_on_hub_errors() -> None:
    if _errors:
        printed = "\n\n".join(_errors)
        count = len(_errors)
        _errors.clear()
        pytest.fail(f"{count} errors printed by a hub\n\n{printed}", pytrace=False)


def _fail_on_busy_pool() -> None:
    pool = sys.modules.get("greendata.pool.pool")
    if pool is None:
        return
    end = time.monotonic() + POOL_GUARD
    while (stats := pool.stats()).running or stats.queued or stats.abandoned:
        if time.monotonic() > end:
            pytest.fail(f"the test left work in the pool: {stats!r}", pytrace=False)
        rest()


_watchdog = pytest.StashKey[Watchdog]()
_print_exception = pytest.StashKey[Callable[..., None]]()
