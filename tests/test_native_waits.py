"""What gevent has patched, on threads that have no hub: they wait natively, greenlets in their hub, for each other."""

from __future__ import annotations

import pytest

from tests.crowd import SCENES
from tests.processes import run_python

ALL = (0, "all\n", "")


@pytest.mark.parametrize("scene", SCENES)
def test_a_crowd_of_jobs_greenlets_and_threads_comes_to_its_end(scene: str) -> None:
    assert run_python(["-m", "tests.crowd", scene, ""]) == ALL


@pytest.mark.parametrize("scene", ["Lock", "Condition", "SimpleQueue", "executors", "timeouts and kills"])
def test_so_it_does_where_workers_have_hubs(scene: str) -> None:
    assert run_python(["-m", "tests.crowd", scene, "hubs"]) == ALL


def test_it_can_be_switched_off() -> None:
    code = """
        from gevent import monkey; monkey.patch_all()
        import threading, time, gevent.event, gevent.thread
        before = time.sleep, threading.Event, gevent.thread.LockType.acquire
        import greendata
        greendata.patch_polars()
        print((time.sleep, threading.Event, gevent.thread.LockType.acquire) == before)
    """
    assert run_python(code, env={"GREENDATA_NATIVE_WAITS": "off"}) == (0, "True\n", "")
    assert run_python(code) == (0, "False\n", "")


def test_without_gevents_patch_the_standard_library_is_left_alone() -> None:
    code = """
        import queue, threading, time
        before = time.sleep, threading.Event, queue.Queue, queue.SimpleQueue
        import greendata
        greendata.patch_polars()
        greendata.run(int).get(timeout=20)
        print((time.sleep, threading.Event, queue.Queue, queue.SimpleQueue) == before)
    """
    assert run_python(code) == (0, "True\n", "")
