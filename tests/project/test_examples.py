"""Every example is a program that runs to its end and prints something. The server and the demo have separate tests."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.processes import ROOT, run_python

pytestmark = pytest.mark.once("unpatched")  # each test starts a process

SCRIPTS = sorted((ROOT / "examples").glob("*.py"))


def _has_main(script: Path) -> bool:
    tree = ast.parse(script.read_text(encoding="utf-8"))
    return any(isinstance(statement, ast.FunctionDef) and statement.name == "main" for statement in tree.body)


@pytest.mark.guard(180)
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_example_runs(script: Path) -> None:
    """A script with a ``main`` is run. Any other is imported, and must not start anything."""
    finished = run_python(script if _has_main(script) else f"import examples.{script.stem}", timeout=120)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    assert bool(finished.stdout) == _has_main(script)
