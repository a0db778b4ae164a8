"""Every example in a docstring runs and prints the expected output; every public name has an example."""

from __future__ import annotations

import doctest
import importlib
import inspect
from types import FunctionType

import pytest

import greendata
from tests.support.source_tree import MODULES

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

PUBLIC = {name: getattr(greendata, name) for name in greendata.__all__}
SHOWN = sorted(
    name
    for name, thing in PUBLIC.items()
    if isinstance(thing, FunctionType) or (isinstance(thing, type) and not issubclass(thing, BaseException))
)


def _examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    modules = [importlib.import_module(module.name) for module in MODULES if module.place[1] != "__main__"]
    examples = [found for module in modules for found in finder.find(module)]
    for module in modules:  # decorated functions: doctest takes them for functions of the decorator's module
        wrapped = [thing for thing in vars(module).values() if getattr(thing, "__module__", "") == module.__name__]
        functions = [inspect.unwrap(thing) for thing in wrapped if hasattr(thing, "__wrapped__")]
        examples += [found for function in functions for found in finder.find(function, module=module)]
    return [found for found in examples if found.examples]


@pytest.mark.parametrize("example", _examples(), ids=lambda example: example.name)
def test_docstring_example(example: doctest.DocTest) -> None:
    report: list[str] = []
    results = doctest.DocTestRunner(optionflags=OPTIONS).run(example, out=report.append)
    assert not results.failed, "".join(report)


@pytest.mark.parametrize("name", SHOWN)
def test_every_public_name_has_an_example(name: str) -> None:
    assert ">>> " in (PUBLIC[name].__doc__ or "")
