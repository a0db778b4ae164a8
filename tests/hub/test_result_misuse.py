"""Results that are used as their values or as asyncio futures: each use says what to write instead."""

from __future__ import annotations

import asyncio
import collections.abc
import copy
import inspect
import pickle
import sys
import warnings
from collections.abc import Callable
from typing import Any

import gevent
import polars as pl
import pytest
from gevent.monkey import is_module_patched

import greendata
from greendata.errors import BatchesHaveNoResult, UsedAsValue
from tests.conftest import Gate, run_python
from tests.support.natives import in_a_plain_thread

LF = pl.LazyFrame({"a": [1, 2, 3]})


def entered(result: Any) -> None:
    with result:
        raise AssertionError("a result is not a context manager")


def awaited(result: Any) -> None:
    async def wait() -> None:
        await result

    asyncio.run(wait())


def looped(result: Any) -> None:
    for _ in result:
        raise AssertionError("a result has no items")


USES: dict[str, tuple[Callable[[Any], object], str]] = {
    "an attribute": (lambda result: result.height, "has no attribute 'height'; call get() first: result.get().height"),
    "a method": (lambda result: result.to_dicts(), "call get() first: result.get().to_dicts"),
    "a method of a plan": (lambda result: result.collect(), "call get() first: result.get().collect"),
    "an index": (lambda result: result["a"], "cannot be indexed or iterated over; call get() first"),
    "a loop": (looped, "cannot be indexed or iterated over; call get() first"),
    "a list": (list, "cannot be indexed or iterated over; call get() first"),
    "a member test": (lambda result: 1 in result, "cannot be indexed or iterated over; call get() first"),
    "with": (entered, "is not a context manager; call get() for its value"),
    "await": (awaited, "in asyncio: await asyncio.to_thread(result.get)"),
    "a task": (lambda result: asyncio.run(asyncio.wait_for(result, 1)), "await asyncio.to_thread(result.get)"),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("is_ready", [True, False])
def test_a_result_used_as_its_value_says_what_to_write(use: str, held: Gate, *, is_ready: bool) -> None:
    result: Any = greendata.collect(LF) if is_ready else greendata.run(held, label="collect")
    if is_ready:
        result.wait()
    func, text = USES[use]
    with pytest.raises(UsedAsValue) as caught:
        func(result)
    assert str(caught.value).startswith("the Result of 'collect' ")
    assert text in str(caught.value)
    assert isinstance(caught.value, AttributeError)
    assert isinstance(caught.value, TypeError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_what_looks_at_a_result_is_not_misled() -> None:
    result: Any = greendata.collect(LF)
    assert not any(hasattr(result, name) for name in ("height", "columns", "__getitem__", "__enter__", "_repr_html_"))
    assert not isinstance(result, collections.abc.Iterable | collections.abc.Sequence | collections.abc.Coroutine)
    assert getattr(result, "shape", None) is None
    assert bool(result)
    with pytest.raises(AttributeError, match="object has no attribute 'hight'"):
        result.hight  # noqa: B018 - of neither a result nor a frame
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):  # as before: it belongs to its hub
        with pytest.raises(TypeError):
            copied(result)
    names = {name for name, _ in inspect.getmembers(result)}
    assert {"get", "status"} <= names
    assert names.isdisjoint({"height", "to_dicts"})
    assert set(dir(result)).isdisjoint({"height", "to_dicts", "__getitem__"})
    assert result.get().height == 3
    assert "done" in repr(result)


@pytest.mark.parametrize("has_hub", [True, False])
def test_waiting_in_an_event_loop_warns_once_for_each_line(*, has_hub: bool) -> None:
    if sys.version_info >= (3, 14) and is_module_patched("threading"):
        pytest.skip("from Python 3.14 on, asyncio.to_thread hangs in the threads that gevent has patched")

    def work() -> list[Any]:
        if has_hub:
            gevent.get_hub()

        async def handler() -> int:
            return sum(greendata.run(lambda: 1, label="report").get() for _ in range(3))

        async def careful() -> int:
            return await asyncio.to_thread(greendata.run(lambda: 1).get)

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            assert asyncio.run(handler()) == 3
            assert asyncio.run(careful()) == 1
        return caught

    (caught,) = in_a_plain_thread(work)
    assert str(caught.message) == (
        "waiting for the Result of 'report' blocks the asyncio event loop of this thread; "
        "use: await asyncio.to_thread(result.get)"
    )
    assert caught.category is RuntimeWarning
    assert caught.filename == __file__


def test_a_callback_of_an_event_loop_warns_as_well() -> None:
    def work() -> None:
        gevent.get_hub()
        loop = asyncio.new_event_loop()
        loop.call_soon(lambda: greendata.run(lambda: 1).wait())
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()

    def recorded() -> list[Any]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            work()
        return caught

    assert len(in_a_plain_thread(recorded)) == 1


def test_another_greenlet_than_that_of_the_loop_may_wait() -> None:
    """Under the patch an event loop may run in one greenlet, and the others do not block it."""
    program = """
        from gevent import monkey; monkey.patch_all()
        import asyncio, warnings, gevent, greendata
        from gevent.event import Event

        warnings.simplefilter("error")
        started, ended = Event(), Event()

        async def serve():
            started.set()
            while not ended.is_set():
                await asyncio.sleep(0.001)

        server = gevent.spawn(asyncio.run, serve())
        started.wait()
        assert greendata.run(lambda: 3).get() == 3
        ended.set()
        server.get()
        print("quiet")
    """
    assert run_python(program).stdout.strip() == "quiet"


def test_asyncio_is_not_imported_for_the_warning() -> None:
    program = "import sys, greendata; greendata.run(int).get(); print('asyncio' in sys.modules)"
    assert run_python(program).stdout.strip() == "False"


def test_a_stream_of_batches_is_told_from_a_result() -> None:
    stream: Any = greendata.batches(LF)
    for name in ("get", "result", "wait", "cancel"):
        assert not hasattr(stream, name)
        with pytest.raises(BatchesHaveNoResult, match=rf"no {name}\(\), it is an iterator.* collect\(lf\)\.get\(\)"):
            getattr(stream, name)()
    with pytest.raises(AttributeError, match="no attribute 'height'"):
        stream.height  # noqa: B018
    assert sum(batch.height for batch in stream) == 3
