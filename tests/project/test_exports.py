"""``__all__`` of each module is a sorted tuple of exactly the public names."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Callable, Iterator

import pytest

import greendata
from tests.support.processes import run_python
from tests.support.source_tree import MODULES, Module

# Packages without statements and the command line export no names.
EXPORTING = [module for module in MODULES if module.tree.body[1:] and not module.name.endswith("__main__")]

every_module = pytest.mark.parametrize("module", EXPORTING, ids=lambda module: module.name)


@every_module
def test_all_is_a_sorted_tuple(module: Module) -> None:
    names = importlib.import_module(module.name).__all__
    assert isinstance(names, tuple)
    assert list(names) == sorted(set(names))


@every_module
def test_all_names_what_is_there(module: Module) -> None:
    imported = importlib.import_module(module.name)
    assert [name for name in imported.__all__ if not hasattr(imported, name)] == []


@every_module
def test_what_is_public_is_in_all(module: Module) -> None:
    imported = importlib.import_module(module.name)
    public = {name for name in _offered(module) if not name.startswith("_")}
    assert sorted(public - set(imported.__all__)) == []


def _offered(module: Module) -> Iterator[str]:
    """Yield the functions and classes that a module defines; for a package also those imported from its modules.

    Constants are exempt: most are details of a module, and have no underscore for readability.
    """
    is_package = module.path.name == "__init__.py"
    for statement in _statements(module):
        if isinstance(statement, ast.ClassDef | ast.FunctionDef):
            yield statement.name
        elif is_package and isinstance(statement, ast.ImportFrom) and str(statement.module).startswith("greendata"):
            names = {alias.name for alias in statement.names if alias.asname is None}
            yield from names - {"when_imported"}  # which the package only uses


def _statements(module: Module) -> Iterator[ast.stmt]:
    """Yield the statements of a module, including those for type checkers."""
    for statement in module.tree.body:
        yield from statement.body if isinstance(statement, ast.If) else [statement]


def test_completion_shows_the_nouns_and_verbs() -> None:
    public = [name for name in dir(greendata) if not name.startswith("_")]
    assert sorted(public) == sorted({*greendata.__all__, "errors", "monkey"} - {"__version__"})


def test_the_errors_that_programs_catch_are_on_top_and_all_are_in_errors() -> None:
    on_top = {name for name in dir(greendata) if name in greendata.errors.__all__}
    assert len(on_top) == 12
    for name in greendata.errors.__all__:
        assert getattr(greendata, name) is getattr(greendata.errors, name)


@pytest.mark.once("unpatched")
def test_an_unknown_name_suggests_the_nearest() -> None:
    finished = run_python("import greendata; greendata.colect")
    last = finished.stderr.splitlines()[-1]
    assert last == "AttributeError: module 'greendata' has no attribute 'colect'. Did you mean: 'collect'?"


def _verbs() -> Iterator[tuple[str, Callable[..., object]]]:
    """Yield the public functions with more than one parameter: where there is one, the first sentence is about it."""
    owners: dict[str, object] = {"greendata": greendata, "greendata.stages": greendata.stages, "Group": greendata.Group}
    for prefix, owner in owners.items():
        for name, thing in vars(owner).items() if isinstance(owner, type) else _public(owner):
            if inspect.isroutine(thing) and not name.startswith("_") and len(_arguments(thing)) > 1:
                yield f"{prefix}.{name}", thing


def _public(module: object) -> list[tuple[str, object]]:
    return [(name, getattr(module, name)) for name in module.__all__]  # type: ignore[attr-defined]


def _arguments(function: Callable[..., object]) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


@pytest.mark.parametrize(("name", "function"), [pytest.param(*found, id=found[0]) for found in _verbs()])
def test_help_explains_each_argument(name: str, function: Callable[..., object]) -> None:
    args = str(inspect.getdoc(function)).partition("\nArgs:\n")[2].partition("\n\n")[0]
    assert re.findall(r"^    (\w+): ", args, re.MULTILINE) == _arguments(function)
