"""Errors in pipelines: the function's exception with the element's index, the policies, timeouts, bad input."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import gevent
import polars as pl
import pytest
from gevent.event import Event

import greendata
from greendata.errors import (
    BadArgument,
    BadChoice,
    BadSignature,
    BadTimeout,
    ElementTimeout,
    NotCallable,
    NotIterable,
    StreamBusy,
    UnknownArgument,
)
from greendata.errors.notes import NOTES
from greendata.hub.result import Result
from greendata.pipelines import stages
from greendata.pipelines.run import workers as stages_at_work
from tests.support.gates import Gate
from tests.support.natives import TIMEOUTS

every_place = pytest.mark.parametrize("on", ["greenlet", "native", "inline"])


@every_place
def test_the_original_object_with_the_index_as_a_note(on: Any) -> None:
    error = LookupError("mine")

    def fail_at_two(x: int) -> int:
        if x == 2:
            raise error
        return x

    with pytest.raises(LookupError) as caught:
        list(stages.map(fail_at_two, range(5), on=on))
    assert caught.value is error
    assert error.__notes__ == ["raised by map(fail_at_two) over element 2: 2"]


def test_ordered_raises_after_all_earlier_elements() -> None:
    stream = iter(range(100) | stages.map(lambda x: 1 // (x - 50), workers=4) | stages.ordered())
    assert len(list(itertools.islice(stream, 50))) == 50
    with pytest.raises(ZeroDivisionError):
        next(stream)
    assert list(stream) == []


def test_an_error_in_a_generator_names_its_element() -> None:
    def broken(x: int) -> Iterator[int]:
        yield x
        raise KeyError(x)

    for chain in (stages.flat_map(broken), stages.flat_map(broken, workers=2) | stages.ordered()):
        with pytest.raises(KeyError) as caught:
            list("a" | stages.flat_map(lambda c: [c]) | chain)
        assert caught.value.__notes__ == ["raised by flat_map(broken) over element (0, 0): 'a'"]


def test_an_error_of_the_source_says_after_how_many_elements() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("the disk")

    for chain in (stages.map(abs), stages.map(abs, workers=2) | stages.ordered()):
        with pytest.raises(OSError, match="the disk") as caught:
            list(source() | chain)
        assert caught.value.__notes__ == ["raised by the source, after 1 element"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("x" * 10**6, "'xxxx"),
        (b"x" * 10**6, "b'xxxx"),
        (list(range(10**6)), "[0, 1, 2, 3, 4, 5, ...]"),
        ({"a": {"b": {"c": {"d": 1}}}}, "{'a': {'b': {'c': {...}}}}"),
        (pl.DataFrame({"a": range(1000)}), "<DataFrame: 1000 x 1>"),
        (pl.Series("a", range(1000)), "shape: (1_000,)"),
        (10**5000, "<int "),  # the rest depends on the version of Python
        ("two\nlines", r"'two\nlines'"),
    ],
    ids=range(8),
)
def test_the_element_in_a_note_is_shortened(value: object, shown: str) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        list(stages.map(lambda _: 1 // 0, [value]))
    (note,) = caught.value.__notes__
    assert note.startswith(f"raised by map(<lambda>) over element 0: {shown}")
    assert len(note) < 200
    assert "\n" not in note


def test_an_element_without_a_text_is_named_by_its_type() -> None:
    class Mute:
        def __repr__(self) -> str:
            raise TypeError("no text")

    with pytest.raises(ZeroDivisionError) as caught:
        list(stages.map(lambda _: 1 // 0, [Mute()]))
    assert caught.value.__notes__[0].startswith("raised by map(<lambda>) over element 0: <Mute ")


def test_one_error_for_many_elements_keeps_few_notes() -> None:
    error = LookupError("always this one")
    assert list(stages.map(_raise(error), range(1000), on_error=lambda *_: None)) == []
    assert len(error.__notes__) == NOTES
    assert error.__notes__[-1] == "raised by map(raise_it) over element 999: 999"


def _raise(error: BaseException) -> Callable[[object], object]:
    def raise_it(_: object) -> object:
        raise error

    return raise_it


def test_a_run_as_a_result_says_who_ran_it() -> None:
    result = stages.map(lambda x: 1 // x, [0]).submit()
    with pytest.raises(ZeroDivisionError) as caught:
        result.get()
    stage, job = caught.value.__notes__
    assert stage == "raised by map(<lambda>) over element 0: 0"
    assert job.startswith(f"in greendata job 'map(<lambda>)', submitted at {__file__}:")


@every_place
def test_skip_drops_the_element_and_a_function_is_called(on: Any) -> None:
    calls: list[tuple[type, int]] = []
    skipped = stages.map(lambda x: 6 // x, [3, 0, 2], on_error="skip", on=on)
    assert sorted(skipped) == [2, 3]
    dropped = stages.map(lambda x: 6 // x, [3, 0, 2], on_error=lambda e, x: calls.append((type(e), x)), on=on)
    assert sorted(dropped) == [2, 3]
    assert list(stages.ordered(dropped)) == [2, 3]
    assert calls == [(ZeroDivisionError, 0)] * 2


@every_place
@pytest.mark.parametrize("kind", [stages.filter, stages.each, stages.flat_map])
def test_every_kind_of_stage_applies_the_policies(kind: Callable[..., Any], on: Any) -> None:
    def work(x: int) -> list[int]:
        return [[1][1 - x]]  # an IndexError for 0

    list(kind(work, [1, 0, 1], on_error="skip", on=on))
    with pytest.raises(IndexError):
        list(kind(work, [1, 0, 1], on=on))


def test_an_error_of_the_policy_ends_the_pipeline() -> None:
    def complain(error: BaseException, value: object) -> None:
        raise RuntimeError(f"cannot do {value}") from error

    with pytest.raises(RuntimeError, match="cannot do 0"):
        stages.map(lambda x: 1 // x, [0], on_error=complain).run()


def test_a_timeout_is_for_the_function_alone() -> None:
    """Twelve fast elements and a slow consumer: no element times out."""
    stream = iter(stages.map(lambda x: x, range(12), timeout=0.001, maxsize=1))
    got = []
    for element in stream:
        gevent.sleep(0.002)
        got.append(element)
    assert got == list(range(12))


@pytest.mark.parametrize("on", ["greenlet", "inline"])
def test_an_element_out_of_time(on: Any) -> None:
    def work(x: int) -> int:
        if x == 1:
            Event().wait()
        return x

    assert sorted(stages.map(work, range(3), timeout=0.001, on_error="skip", on=on)) == [0, 2]
    with pytest.raises(ElementTimeout, match=r"longer than its timeout of 0\.001 seconds") as caught:
        list(stages.map(work, range(3), timeout=0.001, on=on))
    assert caught.value.__notes__ == ["raised by map(work) over element 1: 1"]
    assert isinstance(caught.value, TimeoutError)


def test_a_native_element_out_of_time_is_abandoned(held: Gate) -> None:
    assert list(stages.map(held, [1], timeout=0.001, on_error="skip", on="native")) == []
    assert greendata.stats().abandoned == 1
    assert list(stages.map(abs, [-2], timeout=60, on_error="skip", on="native")) == [2]


def test_waiting_for_a_native_thread_is_not_the_function_s_time(make_gate: Callable[[], Gate]) -> None:
    for timeout in TIMEOUTS[:-1]:  # on a busy machine `abs` itself may take longer than the first ones
        gate = make_gate()
        jobs = [greendata.run(gate) for _ in range(greendata.pool.pool.shared.settings.max_workers)]
        gate.wait_arrived(len(jobs))
        result = stages.map(abs, [-1], on="native", timeout=timeout).submit()
        gevent.sleep(1.5 * timeout)
        assert not result.ready()
        gate.open()
        gevent.joinall(jobs)
        if result.wait() is not None:
            break
    assert result.get() == [1]


def test_a_generator_s_timeout_counts_its_own_time() -> None:
    def slow(x: int) -> Iterator[int]:
        yield x
        Event().wait()

    with pytest.raises(ElementTimeout):
        list(stages.flat_map(slow, [1], timeout=0.001))
    paced = stages.flat_map(range, [5], timeout=0.001, maxsize=1)
    assert [gevent.sleep(0.002) or x for x in paced] == [0, 1, 2, 3, 4]


@every_place
def test_the_users_own_timeouts_are_errors(on: Any) -> None:
    own = gevent.Timeout(None)

    def work(error: BaseException) -> None:
        raise error

    with pytest.raises(TimeoutError, match="mine"):
        list(stages.map(work, [TimeoutError("mine")], timeout=60, on=on))
    with pytest.raises(gevent.Timeout) as caught:
        list(stages.map(work, [own], timeout=None if on == "native" else 60, on=on))
    assert caught.value is own
    assert list(stages.map(work, [own], on_error="skip", on=on)) == []


def test_a_base_exception_passes_every_policy() -> None:
    def leave(_: object) -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        stages.map(leave, [1], on_error="skip").run()


def test_two_greenlets_cannot_share_an_iterator() -> None:
    door = Event()
    stream = iter(stages.map(lambda x: door.wait() and x, [1]))
    first = gevent.spawn(next, stream)
    gevent.idle()
    with pytest.raises(StreamBusy, match="another greenlet is already waiting"):
        next(stream)
    door.set()
    assert first.get() == 1
    assert list(stream) == []


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"workers": 0}, BadArgument),
        ({"workers": -1}, BadArgument),
        ({"workers": 1.5}, BadArgument),
        ({"workers": True}, BadArgument),
        ({"maxsize": -1}, BadArgument),
        ({"timeout": math.nan}, BadTimeout),
        ({"timeout": -1}, BadTimeout),
        ({"timeout": "1"}, BadTimeout),
        ({"on": "thread"}, BadChoice),
        ({"on_error": "ignore"}, BadArgument),
        ({"on_start": 1}, NotCallable),
        ({"on_done": 1}, NotCallable),
        ({"on_start": lambda session: None}, BadSignature),
        ({"on_done": lambda session: None}, BadSignature),
        ({"on_done": lambda element_index: None}, BadSignature),
    ],
)
def test_bad_options_are_rejected_at_the_call(options: dict[str, Any], error: type[Exception]) -> None:
    for kind in (stages.map, stages.filter, stages.flat_map, stages.each):
        with pytest.raises(error):
            kind(abs, [1], **options)
        with pytest.raises(error):
            kind(abs, **options)


@pytest.mark.parametrize("timeout", [math.nan, -1, "1", True])
def test_a_bad_timeout_of_get_runs_nothing(timeout: Any) -> None:
    calls: list[int] = []
    with pytest.raises(BadTimeout):
        stages.map(calls.append, [1]).get(timeout=timeout)
    gevent.idle()
    assert not calls


def test_a_function_that_cannot_be_called_is_rejected_at_the_call() -> None:
    with pytest.raises(NotCallable):
        stages.map(3, [1])  # type: ignore[call-overload]
    with pytest.raises(BadSignature, match="takes no positional argument"):
        stages.map(lambda: 1, [1])
    with pytest.raises(BadSignature, match=r"2 parameters .*: a, b; a stage provides element_index, stage_status"):
        stages.map(lambda x, b, a, element_index: 1, [1])
    assert list(stages.map(lambda x, y=2, *rest, z=3, **more: x + y + z, [1])) == [6]


def test_what_on_start_does_not_return_is_reported_before_the_first_element() -> None:
    calls: list[int] = []

    def work(x: int, session: str) -> None:
        calls.append(x)

    with pytest.raises(BadSignature, match=r"1 parameter .*: session"):
        stages.map(work, [1], on_start=lambda: {"other": 1}).run()
    with pytest.raises(BadArgument, match="what on_start returns must be a dict or None, got 'session'"):
        stages.map(work, [1], on_start=lambda: "session").run()
    assert not calls


def test_a_source_that_is_not_iterable_is_rejected_at_the_call() -> None:
    for bad in (3, None, abs):
        for make in (
            lambda source: stages.map(abs, source),
            lambda source: source | stages.map(abs),
            stages.map(abs),
            stages.ordered,
            stages.from_iterable,
            stages.to_iterable,
            stages.concat,
            lambda source: stages.concat([source]),
        ):
            with pytest.raises(NotIterable, match="expected a stage or an iterable"):
                make(bad)


def test_bad_sizes_are_rejected_at_the_call() -> None:
    with pytest.raises(BadArgument, match="window must be a whole number >= 1, got 0"):
        stages.ordered([1], window=0)
    with pytest.raises(BadArgument):
        stages.concat([[1]], maxsize=-1)
    with pytest.raises(BadArgument):
        stages.from_iterable([1], maxsize=-1)
    with pytest.raises(BadChoice):
        stages.from_iterable([1], on="inline")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: stages.map(abs, [1], worker=3), "map.*'worker'; did you mean 'workers'. It takes workers, maxsize,"),
        (lambda: stages.flat_map(range, max_size=3), "flat_map.*'max_size'; did you mean 'maxsize'"),
        (
            lambda: stages.each(print, onerror="skip"),
            "each.*'onerror'; did you mean 'on_error'. It takes run, workers,",
        ),
        (lambda: stages.filter(bool, retries=3), "filter.*'retries'; it takes workers, maxsize, timeout, "),
        (lambda: stages.batch(row=10), "batch.*'row'; did you mean 'rows'. It takes rows and schema"),
        (lambda: stages.ordered(windows=10), "ordered.*'windows'; did you mean 'window'. It takes window$"),
        (lambda: stages.sink_parquet("a.parquet", compresion="lz4"), "'compresion'; did you mean 'compression'"),
    ],
)
def test_an_unknown_keyword_suggests_the_nearest(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UnknownArgument, match=message) as caught:
        make()
    assert isinstance(caught.value, TypeError)


def _waiting(value: int) -> int:
    gevent.sleep(0)
    return value


@pytest.mark.parametrize("on_error", ["skip", lambda error, value: None])
@pytest.mark.parametrize(
    "stage_of",
    [
        lambda **options: stages.map(_waiting, count(), on="inline", **options),
        lambda **options: stages.filter(_waiting, count(1), on="inline", **options),
        lambda **options: stages.each(_waiting, count(), on="inline", **options),
        lambda **options: stages.flat_map(lambda x: [_waiting(x)], count(), on="inline", **options),
        lambda **options: stages.map(abs, stages.map(_waiting, count(), on="inline", **options), on="inline"),
        lambda **options: stages.ordered(stages.map(_waiting, count(), on="inline", timeout=60, **options)),
    ],
)
def test_a_timeout_around_the_loop_ends_it(stage_of: Any, on_error: Any) -> None:
    """Test an inline stage whose function waits, and which skips the elements for which it fails."""
    with pytest.raises(gevent.Timeout) as raised, gevent.Timeout(0.01) as around:
        for _ in stage_of(on_error=on_error):
            pass
    assert raised.value is around
    assert stages_at_work() == []


def test_a_timeout_that_the_function_raises_is_the_elements_in_a_worker() -> None:
    def out_of_time(value: int) -> int:
        raise gevent.Timeout(value)

    assert list(stages.map(out_of_time, range(3), workers=2, on_error="skip")) == []


def test_a_result_that_is_late_is_the_elements_everywhere() -> None:
    def late(value: int) -> int:
        return Result[int]().get(timeout=0)

    assert list(stages.map(late, range(3), on="inline", on_error="skip")) == []
