"""Objects cross to a child and back unchanged, the large parts of them in files beside the pickle."""

from __future__ import annotations

import array
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import cloudpickle
import numpy as np
import polars as pl
import pytest

import greendata
from greendata.engines.messages import MAX_DESCRIPTORS, MAX_INLINE, close_all
from greendata.engines.plans import pack_object, unpack_object
from greendata.engines.process import ProcessEngine
from greendata.errors import NotSendable
from tests.support.gates import Gate, open_from_hub
from tests.support.races import at

N = MAX_INLINE
TEXTS = {
    "one piece": "x" * N,
    "some pieces": "x" * (5 << 20),
    "latin": "\xe9" * (3 << 20) + "x",
    "a late wide character": "x" * (3 << 20) + "\u20ac",
    "a later wider one": "\xe9" * (1 << 20) + "\u20ac" * (1 << 20) + "\U0001f600",
    "surrogates": "\ud800x\udfff" * (1 << 20),
    "a short one": "\ud800x\udfff\U0001f600",
    "just too short": "\u20ac" * (N - 1),
    "empty": "",
}
ARRAYS = {
    "C order": np.arange(3 * N).reshape(3, N),
    "Fortran order": np.asfortranarray(np.arange(3 * N).reshape(3, N)),
    "steps": np.arange(3 * N)[::3],
    "small": np.arange(3),
    "records": np.zeros(N, dtype=[("a", "i8"), ("b", "S3")]),
    "objects": np.array(["x" * N, None, b"y" * N, 3], dtype=object),
    "empty": np.zeros((0, N)),
}


@pytest.fixture(scope="module")
def engine() -> Iterator[ProcessEngine]:
    with ProcessEngine(workers=1) as made:
        yield made


def same(value: Any) -> Any:
    return value


def there_and_back(value: Any) -> Any:
    packed, files = pack_object(value)
    try:
        return unpack_object(pickle.loads(pickle.dumps(packed)), files)
    finally:
        close_all(files)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_texts(text: str, engine: ProcessEngine) -> None:
    assert there_and_back(text) == text
    assert engine.call(same, {text: [text]}) == {text: [text]}


@pytest.mark.parametrize("values", ARRAYS.values(), ids=ARRAYS.keys())
def test_arrays(values: np.ndarray[Any, Any], engine: ProcessEngine) -> None:
    found = engine.call(same, values)
    own = pickle.loads(pickle.dumps(values, protocol=pickle.HIGHEST_PROTOCOL))
    assert found.dtype == own.dtype
    assert found.strides == own.strides
    assert np.array_equal(found, own)
    assert found.flags.writeable


def test_an_array_that_cannot_be_written_stays_so(engine: ProcessEngine) -> None:
    values = np.arange(N)
    values.flags.writeable = False
    found = engine.call(same, values)
    assert np.array_equal(found, values)
    assert not found.flags.writeable


@pytest.mark.parametrize(
    "value",
    [
        bytearray(b"x" * (5 << 20)),
        bytearray(b"xyz"),
        b"y" * (5 << 20),
        array.array("d", range(N)),
        pl.Series("a", ["x" * N, None]),
        [pl.DataFrame({"a": range(N)}), pl.DataFrame()],
        {bytes(N): bytearray(N)},
        (greendata.run, len),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_objects(value: Any, engine: ProcessEngine) -> None:
    found = engine.call(same, value)
    assert type(found) is type(value)
    if isinstance(value, pl.Series):
        assert found.equals(value)
    elif isinstance(value, list):
        assert all(ours.equals(own) for ours, own in zip(found, value, strict=True))
    else:
        assert found == value
    if isinstance(value, dict):
        assert [*map(type, found.values())] == [bytearray]


def test_views_become_bytes_whatever_their_size(engine: ProcessEngine) -> None:
    data = bytes(range(256)) * 1024
    for view in (memoryview(data), memoryview(data)[::2], memoryview(data).cast("H"), memoryview(data)[:3]):
        assert engine.call(same, view) == view.tobytes()
        assert there_and_back([view, view]) == [view.tobytes()] * 2


def test_what_is_one_object_stays_one(engine: ProcessEngine) -> None:
    text, data = "x" * N, bytearray(N)
    values = np.arange(N)
    first, second, *views = engine.call(same, [[text, data], [text, data], values, values[:]])
    assert first[0] is second[0]
    assert first[1] is second[1]
    first[1][0] = 7
    assert second[1][0] == 7
    assert np.array_equal(views[0], views[1])


def test_more_parts_than_a_message_has_room_for(
    engine: ProcessEngine, keeps_descriptors: Callable[[], AbstractContextManager[None]]
) -> None:
    texts = ["\u20ac" * N + str(number) for number in range(MAX_DESCRIPTORS + 3)]
    arrays = [np.full(N, number, dtype="u1") for number in range(5)]
    datas = [bytearray([number]) * N for number in range(5)]
    engine.call(abs, 1)
    with keeps_descriptors():
        found = engine.call(same, (texts, arrays, datas, list(range(N))))
        assert found[0] == texts
        assert all(map(np.array_equal, found[1], arrays))
        assert all(each.flags.writeable for each in found[1])
        assert found[2] == datas
        assert {*map(type, found[2])} == {bytearray}
        assert found[3] == list(range(N))


def test_what_cannot_be_pickled_leaves_no_descriptors(
    engine: ProcessEngine, keeps_descriptors: Callable[[], AbstractContextManager[None]]
) -> None:
    with keeps_descriptors(), pytest.raises(NotSendable):
        engine.call(same, ["x" * N, bytearray(N), np.arange(N), (each for each in ())])


def test_the_hub_runs_while_a_large_value_is_pickled() -> None:
    """A job waits between two pieces until the hub opens the gate."""
    value = [{"a": number} for number in range(100_000)]
    gate = Gate()

    def pack() -> Any:
        sys.setprofile(at("call", "write", cloudpickle.Pickler.dump.__code__, gate))
        try:
            return pack_object(value)
        finally:
            sys.setprofile(None)

    opening = open_from_hub(gate)
    packed, files = greendata.run(pack).get()
    opening.join()
    assert unpack_object(packed, files) == value
    close_all(files)
