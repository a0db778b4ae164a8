"""What every test can use: gates for native jobs, proofs that the hub is alive, guarded processes.

The suite runs twice, unpatched (``python -m pytest``) and patched (``python -m pytest_gevent``); `PATCHED`
tells which of the two this is. What shows the same in both is marked with the one that is to have it, as in
``pytest.mark.once("patched")``. With ``--once``, which ``make test`` gives to both runs, the other one leaves it out.
``make test`` also divides each run into parts: ``--part 1/5`` is every fifth file, and does not import the others.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import gevent
import hypothesis
import polars
import pytest
from gevent.monkey import is_module_patched

from greendata.tasks.caller import Caller
from tests.support.gates import Gate, open_from_hub, rest
from tests.support.processes import ROOT, Finished, run_python

__all__ = ("PATCHED", "ROOT", "Finished", "Gate", "run_python")

pytest_plugins = ("tests.support.guards",)

DESCRIPTOR_GUARD = 5.0  # seconds for descriptors to be closed that somebody has let go of already
STEADY = 10  # looks in a row that find the same descriptors

TESTS = Path(__file__).resolve().parent

PATCHED: bool = is_module_patched("socket")
RUN = "patched" if PATCHED else "unpatched"

_left_out = pytest.StashKey[list[str]]()  # names of files
_part = pytest.StashKey[frozenset[Path]]()  # the files of this part; absent if there is only one part

# Examples come from the test itself and not from a clock, a random seed or a folder of earlier failures.
hypothesis.settings.register_profile("suite", database=None, deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--once", action="store_true", help='leave out what is marked once("patched") or so for the other run'
    )
    parser.addoption("--part", default="1/1", help="run part K of N, as in 1/5: every N-th file with tests")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", 'once(run): shows the same in both runs, and is for the "patched" or "unpatched"'
    )
    part, parts = map(int, config.getoption("--part").split("/"))
    if parts > 1:
        config.stash[_part] = frozenset(sorted(TESTS.rglob("test_*.py"))[part - 1 :: parts])


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the files of other parts to them, before they are imported."""
    mine = config.stash.get(_part, None)
    return None if mine is None or collection_path.suffix != ".py" or collection_path in mine else True


@pytest.hookimpl(trylast=True)  # after -k and -m
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what shows the same in both runs, and is for the other one."""
    markers = [item.get_closest_marker("once") if config.getoption("--once") else None for item in items]
    left = [item for item, marker in zip(items, markers, strict=True) if marker is not None and marker.args[0] != RUN]
    config.stash[_left_out] = sorted({item.path.name for item in left})
    config.hook.pytest_deselected(items=left)
    left_out = set(left)
    items[:] = [item for item in items if item not in left_out]


def pytest_report_collectionfinish(config: pytest.Config) -> str:
    files = config.stash.get(_left_out, [])
    return f"left to the other run, which shows the same: {', '.join(files)}" if files else ""


def pytest_report_header() -> str:
    """The line that tells the two runs of the suite apart."""
    state = "patched by gevent.monkey" if PATCHED else "not patched"
    loop = gevent.config.loop
    return f"greendata: {state}; gevent {gevent.__version__} on {loop.__module__}, polars {polars.__version__}"


@pytest.fixture(scope="session", autouse=True)
def _hub() -> None:
    """Make the hub of this thread, so that no test finds one only because another test came before it."""
    gevent.get_hub()


@pytest.fixture
def make_gate() -> Iterator[Callable[[], Gate]]:
    """A function that makes gates; whatever it made is open when the test is over."""
    made: list[Gate] = []

    def make() -> Gate:
        made.append(Gate())
        return made[-1]

    yield make
    for gate in made:
        gate.open()


@pytest.fixture
def held(make_gate: Callable[[], Gate]) -> Gate:
    """A held job: ``submit(held, 42)`` runs until ``held.open()``, and then its outcome is 42."""
    return make_gate()


@pytest.fixture
def hub_alive(make_gate: Callable[[], Gate]) -> Iterator[Gate]:
    """A native job that ends only if the hub turns while it runs: ``submit(hub_alive, 42).get() == 42``.

    A greenlet opens the gate once the job has come to it. If the hub is blocked, nobody does, and the job
    fails. As a UDF it proves the same of a query.
    """
    gate = make_gate()
    ticker = open_from_hub(gate)
    yield gate
    ticker.kill()


@pytest.fixture
def caller() -> Iterator[Caller]:
    """The caller of this thread, which is stopped after the test."""
    caller = Caller.current()
    yield caller
    caller.stop().get(timeout=60)


@pytest.fixture
def keeps_descriptors() -> Callable[[], AbstractContextManager[None]]:
    """A context manager for the lines that must leave the open file descriptors as they were.

    Do once before it what is done for the first time only (make the hub, start Polars' threads).
    """
    return _keeps_descriptors


@contextmanager
def _keeps_descriptors() -> Iterator[None]:
    gc.collect()  # what earlier tests left is closed now, not within the lines under proof
    before = _open_descriptors()
    end = time.monotonic() + DESCRIPTOR_GUARD
    engines = sys.modules.get("greendata.engines.children")
    while engines and any(child.was_killed for child in tuple(engines._living)) and time.monotonic() < end:
        rest()  # a native thread closes what belonged to a process that was killed, once that has ended
    natives = sys.modules.get("tests.support.natives")
    while natives and natives.left_natives() and time.monotonic() < end:
        rest()  # the end of a thread closes its hub
    looks = 0
    while looks < STEADY and time.monotonic() < end:  # nor is what a thread of theirs closes a moment later
        rest()
        looks = looks + 1 if before == (now := _open_descriptors()) else 0
        before = now
    yield
    gc.collect()
    end = time.monotonic() + DESCRIPTOR_GUARD
    while (after := _open_descriptors()) != before and time.monotonic() < end:
        rest()  # a patched os.close closes in a later turn of the hub
    opened = {number: after[number] for number in after.keys() - before.keys()}
    closed = {number: before[number] for number in before.keys() - after.keys()}
    assert not opened, f"{len(opened)} descriptors were left open: {opened}"
    assert not closed, f"{len(closed)} descriptors were closed that were open before: {closed}"


def _open_descriptors() -> dict[int, str]:
    """What is open, but for files of /proc: other threads open those for a moment, to read the names of threads."""
    folder = Path("/proc/self/fd") if Path("/proc/self/fd").exists() else Path("/dev/fd")
    targets = {int(name): _target(folder / name) for name in os.listdir(folder)}
    return {number: target for number, target in targets.items() if target and not target.startswith("/proc/")}


def _target(entry: Path) -> str | None:
    """What this descriptor is open for; None for one that is closed: the listing's own, or another thread's."""
    try:
        os.fstat(int(entry.name))
        return os.readlink(entry)
    except OSError as error:
        return "?" if error.errno == errno.EINVAL else None  # /dev/fd may hold no links
