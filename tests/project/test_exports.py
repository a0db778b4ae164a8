"""What a module says it offers is what it offers: ``__all__`` is a sorted tuple, and true both ways."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator

import pytest

from tests.support.house import MODULES, Module

# Floors without a word of their own (a package that only holds rooms) and the command line offer no names.
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
    """The functions and classes a module makes itself, and for a package the names it takes from its rooms.

    Constants are exempt: most are a room's own business, and stand without an underscore to be read.
    """
    is_window = module.path.name == "__init__.py"
    for statement in _statements(module):
        if isinstance(statement, ast.ClassDef | ast.FunctionDef):
            yield statement.name
        elif is_window and isinstance(statement, ast.ImportFrom) and str(statement.module).startswith("greendata"):
            names = {alias.name for alias in statement.names if alias.asname is None}
            yield from names - {"when_imported"}  # what it uses itself


def _statements(module: Module) -> Iterator[ast.stmt]:
    """The statements of a module, with those for type checkers."""
    for statement in module.tree.body:
        yield from statement.body if isinstance(statement, ast.If) else [statement]
