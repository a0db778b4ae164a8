"""Every example in a docstring runs and prints what it says; every name in the shop window has one."""

from __future__ import annotations

import doctest
import importlib
from types import FunctionType

import pytest

import greendata
from tests.support.house import MODULES

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

WINDOW = {name: getattr(greendata, name) for name in greendata.__all__}
SHOWN = sorted(
    name
    for name, thing in WINDOW.items()
    if isinstance(thing, FunctionType) or (isinstance(thing, type) and not issubclass(thing, BaseException))
)


def _examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    modules = [importlib.import_module(module.name) for module in MODULES if module.place[1] != "__main__"]
    return [found for module in modules for found in finder.find(module) if found.examples]


@pytest.mark.parametrize("example", _examples(), ids=lambda example: example.name)
def test_docstring_example(example: doctest.DocTest) -> None:
    report: list[str] = []
    results = doctest.DocTestRunner(optionflags=OPTIONS).run(example, out=report.append)
    assert not results.failed, "".join(report)


@pytest.mark.parametrize("name", SHOWN)
def test_every_name_in_the_window_shows_how_it_is_used(name: str) -> None:
    assert ">>> " in (WINDOW[name].__doc__ or "")
