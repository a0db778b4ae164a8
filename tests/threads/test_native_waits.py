"""Patched functions in threads without a hub: threads wait natively, greenlets in a hub, each wakes the other."""

from __future__ import annotations

import pytest

from tests.support.lakes import TABLES
from tests.support.processes import run_python
from tests.support.stress import SCENARIOS

ALL = (0, "all\n", "")

pytestmark = pytest.mark.once("unpatched")  # each test runs in a separate process


@pytest.mark.parametrize("scene", SCENARIOS)
def test_a_crowd_of_jobs_greenlets_and_threads_comes_to_its_end(scene: str) -> None:
    assert run_python(["-m", "tests.support.stress", scene, ""]) == ALL


@pytest.mark.parametrize("scene", ["Lock", "Condition", "SimpleQueue", "executors", "timeouts and kills"])
def test_a_crowd_comes_to_its_end_where_workers_have_hubs(scene: str) -> None:
    assert run_python(["-m", "tests.support.stress", scene, "hubs"]) == ALL


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


@pytest.mark.parametrize("way", ["patch", "verbs"])
@pytest.mark.parametrize("table", TABLES)
def test_greenlets_scan_one_table_side_by_side(table: str, way: str) -> None:
    assert run_python(["-m", "tests.support.lakes", table, way], warnings="ignore") == ALL


def test_eager_readers_read_a_response_while_the_hub_sends_it() -> None:
    code = """
        from gevent import monkey; monkey.patch_all()
        import io, urllib.request
        import gevent, greendata, polars as pl, requests
        from gevent.pywsgi import WSGIServer

        greendata.patch_polars()
        kinds = ("csv", "parquet", "json", "ndjson", "ipc", "ipc_stream")
        bodies = {}
        for kind in kinds:
            getattr(pl.DataFrame({"a": range(10_000)}), f"write_{kind}")(written := io.BytesIO())
            bodies[f"/{kind}"] = written.getvalue()

        def answer(environ, start):
            body = bodies[environ["PATH_INFO"]]
            start("200 OK", [("Content-Length", str(len(body)))])
            for first in range(0, len(body), 20_000):
                gevent.sleep(0)
                yield body[first : first + 20_000]

        server = WSGIServer(("127.0.0.1", 0), answer, log=None)
        server.start()
        for kind in kinds:
            url, read = f"http://127.0.0.1:{server.server_port}/{kind}", getattr(pl, f"read_{kind}")
            assert read(requests.get(url, stream=True, timeout=20).raw).height == 10_000
            assert read(urllib.request.urlopen(url, timeout=20)).height == 10_000
        print("all")
    """
    assert run_python(code, warnings="ignore") == ALL


def test_a_connection_of_requests_goes_from_greenlet_to_worker_and_back() -> None:
    code = """
        from gevent import monkey; monkey.patch_all()
        import greendata, requests
        from gevent._hub_local import get_hub_if_exists
        from gevent.pywsgi import WSGIServer

        ports = set()
        def answer(environ, start):
            ports.add(environ["REMOTE_PORT"])
            start("200 OK", [("Content-Length", "5")])
            return [b"hello"]

        server = WSGIServer(("127.0.0.1", 0), answer, log=None)
        server.start()
        session = requests.Session()

        def ask():
            return session.get(f"http://127.0.0.1:{server.server_port}/", timeout=20).text

        greendata.configure(max_workers=1)
        assert [greendata.run(ask).get() if n % 3 else ask() for n in range(9)] == ["hello"] * 9
        assert len(ports) == 1, ports
        assert greendata.run(get_hub_if_exists).get() is None
        print("all")
    """
    assert run_python(code) == ALL


@pytest.mark.parametrize("used", [True, False])
def test_an_executor_that_was_made_before_greendata_was_imported_serves_jobs_too(used: bool) -> None:  # noqa: FBT001
    code = f"""
        from gevent import monkey; monkey.patch_all()
        import concurrent.futures, time
        early = concurrent.futures.ThreadPoolExecutor(3)
        if {used}:
            early.submit(int).result()
        import gevent, polars, greendata

        def use():
            assert list(early.map(lambda n: (time.sleep(0.0001), n)[1], range(10))) == list(range(10))

        waits = [greendata.run(use) for _ in range(4)] + [gevent.spawn(use) for _ in range(4)]
        for wait in waits:
            wait.get()
        print("all")
    """
    assert run_python(code) == ALL


def test_an_executor_that_was_made_before_greendata_was_imported_has_its_threads_in_the_hub_of_its_queue() -> None:
    code = """
        from gevent import monkey; monkey.patch_all()
        import concurrent.futures
        early = concurrent.futures.ThreadPoolExecutor(3)
        import gevent, greendata

        def use():
            return early.submit(gevent.get_hub).result()

        print(greendata.run(use).get() is gevent.get_hub(), use() is gevent.get_hub())
    """
    assert run_python(code) == (0, "True True\n", "")


def test_locks_that_were_made_earlier_are_shared_and_conditions_over_them() -> None:
    code = """
        from gevent import monkey; monkey.patch_all()
        import logging, threading, queue
        lock, rlock, condition = threading.Lock(), threading.RLock(), threading.Condition(threading.Lock())
        logging.basicConfig(filename="/dev/null", level=logging.INFO)
        import gevent, polars, greendata
        total = [0]

        def use():
            for _ in range(100):
                with lock, rlock, condition:
                    total[0] += 1
                    logging.info("%d", total[0])

        waits = [greendata.run(use) for _ in range(4)] + [gevent.spawn(use) for _ in range(4)]
        for wait in waits:
            wait.get()
        print(total[0])
    """
    assert run_python(code) == (0, "800\n", "")


def test_it_follows_when_gevent_patches_after_the_import() -> None:
    code = """
        import polars, greendata
        from gevent import monkey; monkey.patch_all()
        from greendata.threads import sharing
        print(sharing.are_shared())
    """
    assert run_python(code) == (0, "True\n", "")


def test_a_thread_that_is_a_greenlet_of_another_hub_is_joined_from_anywhere() -> None:
    code = """
        from gevent import monkey; monkey.patch_all()
        import threading
        import gevent, greendata
        from greendata.hub import native

        greendata.run(int).get()
        go, made = threading.Event(), []

        def in_another_hub():
            hub = gevent.get_hub()
            made.append(threading.Thread(target=go.wait))
            made[0].start()
            made[0].join()
            hub.destroy(destroy_loop=True)
            made.clear()

        native.start_thread(in_another_hub, ())
        while not made or not made[0].is_alive():
            gevent.sleep(0.001)
        thread = made[0]
        thread.join(timeout=0.001)
        assert thread.is_alive()
        joined = greendata.run(thread.join)
        gevent.spawn(go.set)
        thread.join()
        assert not thread.is_alive()
        joined.get()
        while made:
            gevent.sleep(0.001)
        print("all")
    """
    assert run_python(code) == ALL


def test_threads_of_a_native_thread_are_native_also_when_it_has_a_hub() -> None:
    code = """
        from gevent import monkey; monkey.patch_all()
        import concurrent.futures, threading
        import gevent, polars, greendata

        shared, begun = concurrent.futures.ThreadPoolExecutor(2), []

        def begin():
            gevent.sleep(0.001)  # its hub is destroyed when it ends
            begun.append(shared.submit(int).result())

        def job():
            thread = threading.Thread(target=begin)
            thread.start()
            thread.join()

        greendata.run(job).get()
        print(begun, shared.submit(int).result(timeout=20))
    """
    assert run_python(code) == (0, "[0] 0\n", "")
