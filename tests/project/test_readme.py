"""Every Python snippet of README.md is a program that runs."""

from __future__ import annotations

import re

import pytest

from tests.support.processes import ROOT, run_python

pytestmark = pytest.mark.once("patched")  # each test starts a process

README = ROOT / "README.md"
FENCED = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _snippets() -> list[tuple[int, str]]:
    """Return each snippet with the line in which it begins."""
    text = README.read_text(encoding="utf-8")
    return [(text.count("\n", 0, found.start(1)) + 1, found[1]) for found in FENCED.finditer(text)]


@pytest.mark.parametrize(("line", "code"), [pytest.param(*found, id=f"line {found[0]}") for found in _snippets()])
def test_snippet_runs(line: int, code: str) -> None:
    at_its_line = "\n" * (line - 1) + code  # so that line numbers in tracebacks are those of README.md
    finished = run_python(at_its_line)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""


def test_there_are_snippets_for_the_three_ways_in() -> None:
    assert len(_snippets()) >= 3
