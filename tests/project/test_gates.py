"""The tools of the suite: gates hold, and a blocked hub, a leak and a hanging program are detected."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from gevent.monkey import get_original

from tests.conftest import Gate, run_python
from tests.support.gates import rest

start_thread = get_original("_thread", "start_new_thread")


def test_gate_holds_natively_until_it_is_opened(held: Gate) -> None:
    passed: list[object] = []
    for number in range(3):
        start_thread(lambda number: passed.append(held(number)), (number,))
    held.wait_arrived(3)
    assert passed == []
    held.open()
    while len(passed) < 3:
        rest()
    assert sorted(passed) == [0, 1, 2]
    held.open()
    assert held("later") == "later"


def test_the_hub_opens_the_gate_while_it_turns(hub_alive: Gate) -> None:
    passed: list[object] = []
    start_thread(lambda: passed.append(hub_alive(42)), ())
    while not passed:
        rest()
    assert passed == [42]


def test_a_blocked_hub_never_opens_the_gate(hub_alive: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.gates.GUARD", 0.05)
    with pytest.raises(TimeoutError, match="was the hub blocked"):
        hub_alive()  # in the hub's thread: this blocks the hub


def test_a_leaked_descriptor_is_reported(
    keeps_descriptors: Callable[[], AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with keeps_descriptors():
        os.close(os.open(os.devnull, os.O_RDONLY))

    def leak() -> int:
        monkeypatch.setattr("tests.conftest.DESCRIPTOR_GUARD", 0.0)  # nobody will close it
        return os.open(os.devnull, os.O_RDONLY)

    leaked = []
    with (
        pytest.raises(AssertionError, match=r"1 descriptors were left open: \{\d+: '/dev/null'\}"),
        keeps_descriptors(),
    ):
        leaked.append(leak())
    os.close(leaked[0])


def test_a_program_that_hangs_shows_where() -> None:
    program = """
        import _thread

        def stuck():
            print("said before", flush=True)
            lock = _thread.allocate_lock()
            lock.acquire()
            lock.acquire()

        stuck()
        """
    with pytest.raises(AssertionError, match=r"still running after 3 seconds\nsaid before\n(?s:.*) in stuck"):
        run_python(program, timeout=3)


def test_a_warning_in_a_program_is_an_error() -> None:
    finished = run_python("import warnings; warnings.warn('never mind')")
    assert finished.returncode == 1
    assert "UserWarning: never mind" in finished.stderr


def test_a_program_without_greendata_stays_without_it_where_it_takes_a_gate() -> None:
    """Like the master of a gunicorn in which only the workers load greendata."""
    code = "import sys, tests.support.gates; print([name for name in sys.modules if name.startswith('greendata')])"
    assert run_python(code) == (0, "[]\n", "")
