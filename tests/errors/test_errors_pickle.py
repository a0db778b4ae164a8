"""Copies and pickles of errors, as process pools, `multiprocessing` and Celery make them."""

from __future__ import annotations

import copy
import inspect
import pickle
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gevent
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greendata import errors
from greendata.errors import GreenDataError
from greendata.errors.root import Unpicklable
from greendata.hub.result import Result
from tests.support.processes import ROOT, run_python


class Stubborn:
    """An object that can be pickled, and fails to load."""

    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("no number",)


class Nameless(GreenDataError, LookupError):
    """An error of a user, with a different signature."""

    def __init__(self, *, shop: str) -> None:
        super().__init__()
        self.shop = shop

    def __str__(self) -> str:
        return f"no shop {self.shop!r}"


def failures() -> pl.DataFrame:
    return pl.DataFrame([{"row": 0, "column": "a", "value": "x", "rule": "int_parsing", "message": "no number"}])


TEXTS = st.text(max_size=8)
THINGS: st.SearchStrategy[Any] = st.one_of(
    TEXTS,
    st.integers(),
    st.lists(st.integers(), max_size=3),
    st.sampled_from([int, len, ValueError("x"), pl.Int64]),
    st.builds(lambda: lambda: 0),  # a function that cannot be imported
    st.just(sys.__stderr__),
    st.builds(gevent.get_hub),
    st.builds(Stubborn),
)
# By annotation, or by its part before a bracket or a bar; what is missing here is taken for an object.
ARGUMENTS: dict[str, st.SearchStrategy[Any]] = {
    "str": TEXTS,
    "int": st.integers(0, 10**6),
    "float": st.floats(0, 1e6),
    "bool": st.booleans(),
    "Iterable": st.lists(TEXTS, min_size=1, max_size=3),
    "Iterable[AnyResult]": st.lists(st.builds(Result, label=st.just("report")), max_size=2),
    "Mapping": st.dictionaries(TEXTS, TEXTS | st.builds(lambda: lambda: 0), min_size=1, max_size=3),
    "Mapping[str, int]": st.dictionaries(TEXTS, st.integers(0, 9), min_size=1, max_size=3),
    "Mapping[str, tuple[object, object]]": st.dictionaries(TEXTS, st.tuples(THINGS, THINGS), max_size=3),
    "AnyResult": st.builds(Result, label=st.just("report")),
    "BaseException": st.sampled_from([SystemExit(3), ValueError("broken")]),
    "Path": st.just(Path("/srv")),
    "pl.DataFrame": st.builds(failures),
}
SPECIAL = {("NotAFrame", "expected"): st.just("LazyFrame"), ("BadChoice", "choices"): st.just(("a", "b"))}
KINDS = [getattr(errors, name) for name in errors.__all__] + [Nameless]


def arguments(kind: type[GreenDataError], parameter: inspect.Parameter) -> st.SearchStrategy[Any]:
    annotation = str(parameter.annotation)
    general = ARGUMENTS.get(annotation.partition("[")[0].partition(" |")[0], THINGS)
    return SPECIAL.get((kind.__name__, parameter.name), ARGUMENTS.get(annotation, general))


def made(kind: type[GreenDataError]) -> st.SearchStrategy[GreenDataError]:
    if kind.__init__ in {cls.__init__ for cls in kind.__mro__ if cls.__module__ == "builtins"}:
        return st.builds(kind)
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    by_place = [arguments(kind, found) for found in parameters if found.kind is found.POSITIONAL_OR_KEYWORD]
    by_name = {found.name: arguments(kind, found) for found in parameters if found.kind is found.KEYWORD_ONLY}
    by_name.pop("armed", None)  # it needs a timer of the waiting greenlet
    return st.builds(kind, *by_place, **by_name)


def pickled(error: Any) -> Any:
    return pickle.loads(pickle.dumps(error))


WAYS: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": pickled,
    "pickle twice": lambda error: pickled(pickled(error)),
    "copy of a pickle": lambda error: copy.deepcopy(pickled(error)),
} | {f"protocol {n}": partial(lambda n, error: pickle.loads(pickle.dumps(error, n)), n) for n in (0, 2, 4)}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=25)
@given(data=st.data())
def test_every_error_survives_pickling(kind: type[GreenDataError], data: st.DataObject) -> None:
    error = data.draw(made(kind))
    error.add_note("in the shop")
    way = data.draw(st.sampled_from(list(WAYS)))
    found = WAYS[way](error)
    assert type(found) is kind
    assert found is not error
    assert (str(found), repr(found)) == (str(error), f"{kind.__name__}({str(error)!r})")
    assert found.__notes__ == ["in the shop"]
    assert type(found.__cause__) is type(error.__cause__)
    before = {name: value for name, value in vars(error).items() if name != "timer"}
    assert before.keys() <= vars(found).keys()
    for name, value in before.items():
        assert same(getattr(found, name), value), name
    assert len(found.args) == len(error.args)
    assert getattr(found, "errno", None) is None or same(found.errno, error.errno)  # type: ignore[attr-defined]


def same(after: object, before: object) -> bool:
    """Return True if an attribute arrived: equal, of the same type if it cannot be compared, or an `Unpicklable`."""
    if isinstance(after, Unpicklable):
        return True
    if isinstance(after, pl.DataFrame) and isinstance(before, pl.DataFrame):
        return after.equals(before)
    return after == before or repr(type(after)) == repr(type(before))


def test_the_repr_of_polars_forked_says_what_to_do() -> None:
    assert "Run no query before the fork" in repr(errors.PolarsForked())


def test_attributes_are_pickled() -> None:
    full = pickled(errors.PoolFull(3, 2))
    assert (full.queued, full.max_queue, full.args) == (3, 2, (3, 2))
    invalid = pickled(errors.FrameInvalid("User", 1, failures()))
    assert invalid.failures.equals(failures())
    assert invalid.failures is invalid.args[2]
    late = pickled(errors.DeadlineExceeded("report", 2.0, running=True, native=False))
    assert (late.label, late.seconds, late.running, late.native) == ("report", 2.0, True, False)
    gone = pickled(errors.ClientGone("export"))
    assert (gone.errno, gone.label) == (errors.ClientGone("export").errno, "export")


def test_an_attribute_that_cannot_be_pickled_or_loaded_becomes_its_repr() -> None:
    func = lambda: 0  # noqa: E731 - it needs a function without a name
    assert pickled(errors.ServiceEnded("mail", func)).value == Unpicklable(repr(func))
    assert repr(pickled(errors.ServiceEnded("mail", Stubborn())).value) == "<unpicklable: Stubborn>"


def test_an_unpickled_result_timeout_is_a_gevent_timeout() -> None:
    error = errors.ResultTimeout(Result(label="report"), 2.0)
    for way in WAYS.values():
        found = way(error)
        assert isinstance(found, gevent.Timeout)
        assert isinstance(found, TimeoutError)
        assert not found.pending
        assert found.seconds == error.seconds
        found.close()


def test_the_cause_is_pickled_or_its_text_becomes_a_note() -> None:
    class Local(Exception):
        pass

    aborted = errors.JobAborted("report", SystemExit(3))
    assert pickled(aborted).__cause__.code == 3
    assert copy.copy(aborted).__cause__ is aborted.__cause__
    lost = pickled(errors.JobAborted("report", Local("out of paper")))
    assert lost.__cause__ is None
    assert lost.__notes__ == ["caused by Local: out of paper"]
    assert str(lost) == "report ended with Local: out of paper"
    assert copy.copy(errors.PoolClosed()).__suppress_context__ is False


def test_an_error_that_refers_to_itself_survives_pickling() -> None:
    error = errors.ServiceEnded("mail", None)
    error.value = [error]
    for way in WAYS.values():
        assert str(way(error)).startswith("service mail returned ")


def test_process_pools_continue_after_an_error(tmp_path: Path) -> None:
    program = tmp_path / "program.py"  # a spawned process imports it
    program.write_text(
        textwrap.dedent(
            """
            import concurrent.futures, multiprocessing, time
            import greendata

            def late(_):
                return greendata.run(time.sleep, 1, timeout=0).get()

            def impatient(_):
                return greendata.run(time.sleep, 0.2).get(timeout=0)

            def invalid(_):
                greendata.validate({"x": 1}, int)

            def outcome(call):
                try:
                    return call()
                except Exception as error:
                    return type(error).__name__

            if __name__ == "__main__":
                spawn = multiprocessing.get_context("spawn")
                with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
                    print([outcome(pool.submit(work, 0).result) for work in (late, impatient, invalid, abs)])
                with spawn.Pool(1) as pool:
                    print([outcome(pool.apply_async(work, (0,)).get) for work in (late, impatient, invalid, abs)])
            """
        ),
        encoding="utf-8",
    )
    finished = run_python(program, env={"PYTHONPATH": str(ROOT)}, warnings="default")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout == "['DeadlineExceeded', 'ResultTimeout', 'NotAFrame', 0]\n" * 2
