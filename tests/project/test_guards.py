"""The guards of the suite: each kind of hidden failure, provoked in an inner run of pytest, is reported."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from tests.conftest import PATCHED
from tests.support.guards import EXIT_CODE
from tests.support.processes import ROOT, Finished, run_python

RUNNER = "pytest_gevent" if PATCHED else "pytest"


def _run_inner(folder: Path, tests: str) -> Finished:
    script = folder / "test_inner.py"
    script.write_text(textwrap.dedent(tests), encoding="utf-8")
    options = [
        "-p",
        "tests.support.guards",
        "-p",
        "no:cacheprovider",
        "-c",
        str(ROOT / "setup.cfg"),
        "--rootdir",
        str(folder),
    ]
    return run_python(["-m", RUNNER, *options, str(script)], warnings="default")


def test_hidden_failures_are_reported(tmp_path: Path) -> None:
    finished = _run_inner(
        tmp_path,
        """
        import _thread, gc, threading, warnings
        import gevent
        from gevent.monkey import get_original

        def test_fine(hub_errors):
            failed = gevent.spawn(int, "provoked")
            failed.join()
            assert "provoked" in hub_errors.pop()

        def test_greenlet_dies():
            gevent.spawn(int, "reported by the hub").join()

        def test_greenlet_dies_later():
            gevent.spawn(int, "reported after the test")

        def test_greenlet_dies_in_another_hub():
            def work():
                gevent.spawn(int, "reported by a second hub").join()
                gevent.get_hub().destroy()
                over.release()

            over = get_original("_thread", "allocate_lock")()
            over.acquire()
            get_original("_thread", "start_new_thread")(work, ())
            over.acquire()

        def test_thread_dies():
            thread = threading.Thread(target=int, args=("reported by a thread",))
            thread.start()
            thread.join()

        def test_finalizer_fails():
            class Unclean:
                def __del__(self):
                    int("reported by a finalizer")

            Unclean()
            gc.collect()

        def test_warns():
            warnings.warn("reported by a warning")
        """,
    )
    assert finished.returncode == pytest.ExitCode.TESTS_FAILED, finished
    failed = re.findall(r"^(?:FAILED|ERROR) .*::(\w+)", finished.stdout, re.MULTILINE)
    assert sorted(failed) == [
        "test_finalizer_fails",
        "test_greenlet_dies",
        "test_greenlet_dies_in_another_hub",
        "test_greenlet_dies_later",
        "test_thread_dies",
        "test_warns",
    ]
    for source in ("the hub", "a second hub", "a thread", "a finalizer", "a warning"):
        assert f"reported by {source}" in finished.stdout
    assert "reported after the test" in finished.stdout


def test_work_left_in_the_pool_is_reported(tmp_path: Path) -> None:
    finished = _run_inner(
        tmp_path,
        """
        import tests.support.guards
        from greendata.pool import pool
        from tests.support.gates import Gate

        tests.support.guards.POOL_GUARD = 0.0
        gate = Gate()

        def test_leaves_a_job():
            pool.submit(gate)
            gate.wait_arrived()

        def test_cleans_up():
            tests.support.guards.POOL_GUARD = 60.0
            gate.open()
        """,
    )
    assert finished.returncode == pytest.ExitCode.TESTS_FAILED, finished
    assert re.findall(r"^(?:FAILED|ERROR) .*::(\w+)", finished.stdout, re.MULTILINE) == ["test_leaves_a_job"]
    assert "the test left work in the pool" in finished.stdout


@pytest.mark.parametrize("wait", ["the_hub_is_blocked", "the_greenlet_waits"])
def test_a_hang_ends_the_run_and_shows_who_waits(tmp_path: Path, wait: str) -> None:
    finished = _run_inner(
        tmp_path,
        f"""
        import gevent
        import pytest
        from gevent.event import Event
        from gevent.monkey import get_original

        def the_hub_is_blocked():
            lock = get_original("_thread", "allocate_lock")()
            lock.acquire()
            lock.acquire()

        def the_greenlet_waits():
            gevent.get_hub().loop.timer(3600).start(print)  # something to wait for: no LoopExit
            Event().wait()

        def bystander():
            Event().wait()

        @pytest.mark.guard(2)
        def test_hangs():
            print("said before the hang")
            gevent.spawn(bystander)
            gevent.idle()
            {wait}()
        """,
    )
    assert finished.returncode == EXIT_CODE, finished
    assert "HANG: test_inner.py::test_hangs took more than 2 seconds" in finished.stderr
    assert f"in {wait}" in finished.stderr
    assert "in bystander" in finished.stderr
    assert "said before the hang" in finished.stderr


def test_a_process_that_does_not_end_is_ended(tmp_path: Path) -> None:
    finished = _run_inner(
        tmp_path,
        """
        import atexit
        import pytest
        from gevent.monkey import get_original
        import tests.support.guards

        def never_ends():
            lock = get_original("_thread", "allocate_lock")()
            lock.acquire()
            lock.acquire()

        class Impatient:
            @pytest.hookimpl(tryfirst=True)
            def pytest_unconfigure(self):
                tests.support.guards.GUARD = 3

        def test_passes(request):
            request.config.pluginmanager.register(Impatient())
            atexit.register(never_ends)
        """,
    )
    assert finished.returncode == EXIT_CODE, finished
    assert "HANG: the end of the process took more than 3 seconds" in finished.stderr
    assert "1 passed" in finished.stdout
    assert "in never_ends" in finished.stderr
