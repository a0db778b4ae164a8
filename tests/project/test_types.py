"""Both type checkers reject wrong calls, each of them, and find the right types of right ones."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT, run_python

pytestmark = [pytest.mark.once("unpatched"), pytest.mark.guard(300)]  # each test starts a process

HERE = ROOT / "tests" / "project" / "types"
RIGHT, WRONG = HERE / "right.py", HERE / "wrong.py"


def _marked() -> set[int]:
    """Return the lines of the wrong calls."""
    lines = WRONG.read_text(encoding="utf-8").splitlines()
    return {number for number, line in enumerate(lines, 1) if "  # wrong" in line}


def _mypy() -> set[tuple[str, int]]:
    pytest.importorskip("mypy", reason="mypy comes with the extra dev")
    arguments = ["-m", "mypy", "--strict", str(RIGHT), str(WRONG)]
    found = run_python(arguments, timeout=280)
    errors = re.findall(r"^(?:.*/)?(\w+\.py):(\d+): error", found.stdout, re.MULTILINE)
    return {(name, int(line)) for name, line in errors}


def _pyright() -> set[tuple[str, int]]:
    pytest.importorskip("basedpyright", reason="basedpyright comes with the extra dev")
    config = str(HERE / "pyrightconfig.json")
    arguments = ["-m", "basedpyright", "-p", config, "--pythonpath", sys.executable, "--outputjson"]
    found = run_python([*arguments, str(RIGHT), str(WRONG)], timeout=280)
    errors = json.loads(found.stdout)["generalDiagnostics"]
    return {(Path(error["file"]).name, error["range"]["start"]["line"] + 1) for error in errors}


def test_mypy_knows_right_calls_from_wrong_ones() -> None:
    assert _mypy() == {(WRONG.name, line) for line in _marked()}


def test_pyright_knows_right_calls_from_wrong_ones() -> None:
    assert _pyright() == {(WRONG.name, line) for line in _marked()}


def test_the_mistakes_of_a_keyboard_are_among_the_wrong_calls() -> None:
    wrong = WRONG.read_text(encoding="utf-8")
    for mistake in ('engine="strming"', "seperator=", "configure(max_wrkers="):
        assert mistake in wrong
