"""The architecture: the packages, what each may import, and which foreign libraries it may use.

`PACKAGES` is the plan, and greendata/ARCHITECTURE.md explains it. A new package, or a new library in a package, is a
line here.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from tests.support.source_tree import MODULES, Module


@dataclass(frozen=True)
class Package:
    """A package of the plan. It may import the packages above it, and the foreign libraries that it names."""

    name: str
    libraries: str = ""


# Each package imports only packages above it.
PACKAGES = (
    Package("startup"),
    Package("internals", "gevent polars pydantic pydantic_core urllib3"),
    Package("errors", "gevent"),
    Package("hub", "gevent greenlet"),
    Package("threads", "gevent greenlet"),
    Package("pool", "gevent greenlet"),
    Package("tasks", "gevent greenlet"),
    Package("schema", "polars pydantic pydantic_core"),
    Package("query", "polars pydantic pydantic_core"),
    Package("engines", "gevent polars"),
    Package("validation", "polars pydantic pydantic_core"),
    Package("formats", "polars pydantic pydantic_core"),
    Package("sql", "polars adbc_driver_manager"),
    Package("typed", "polars pydantic pydantic_core"),
    Package("http", "brotli certifi gevent polars requests urllib3"),
    Package("pipelines", "gevent greenlet polars tqdm"),
    Package("observe", "gevent polars prometheus_client rich"),
    Package("crawl", "ada_url charset_normalizer gevent polars protego pydantic selectolax urllib3"),
    Package("web", "click flask gevent gunicorn polars werkzeug"),
    Package("top", "gevent"),
)
HEIGHT = {package.name: height for height, package in enumerate(PACKAGES)}
STANDARD = sys.stdlib_module_names | {"annotationlib"}  # which only Python 3.14 has
LIBRARIES = {package.name: set(package.libraries.split()) for package in PACKAGES}
FILES = 15  # in one folder, at most

# Modules of the standard library that the package must not use, and why.
FORBIDDEN = {
    "asyncio": "this package is for greenlets",
    "concurrent": "after monkey.patch_all its threads are greenlets; submit to the pool",
    "queue": "after monkey.patch_all it blocks greenlets, not threads; use greendata.hub.native",
    "threading": "after monkey.patch_all its locks and threads are greenlets; use greendata.hub.native",
}
# Exceptions: these files change what `monkey.patch_all` has patched, for threads without a hub.
EXCEPTIONS = {
    "concurrent": {"threads.thread"},
    "queue": {"threads.locks"},
    "threading": {"threads.locks", "threads.thread"},
}

PLACES = {module.name: module.place[0] for module in MODULES}

every_module = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)


@every_module
def test_every_file_is_in_a_package_of_the_plan(module: Module) -> None:
    assert module.place[0] in HEIGHT


def test_no_folder_has_too_many_files() -> None:
    sizes = Counter(str(module.path.parent) for module in MODULES if module.path.stem != "__init__")
    assert {folder: size for folder, size in sizes.items() if size > FILES} == {}


@every_module
def test_imports_go_down(module: Module) -> None:
    height = HEIGHT[module.place[0]]
    upwards = [
        f"line {found.line}: {found.target}"
        for found in module.imports
        if (target := _within(found.target)) and HEIGHT[PLACES[target]] > height
    ]
    assert not upwards


@every_module
def test_foreign_libraries_are_those_of_the_plan(module: Module) -> None:
    foreign = [
        f"line {found.line}: {found.target}"
        for found in module.imports
        if not found.for_types
        and (library := found.target.split(".")[0]) not in STANDARD
        and library not in {"greendata", *LIBRARIES[module.place[0]]}
    ]
    assert not foreign


@every_module
def test_forbidden_parts_of_the_standard_library_stay_out(module: Module) -> None:
    found = [
        f"line {found.line}: {found.target}: {FORBIDDEN[library]}"
        for found in module.imports
        if not found.for_types
        and (library := found.target.split(".")[0]) in FORBIDDEN
        and module.name.removeprefix("greendata.") not in EXCEPTIONS.get(library, ())
    ]
    assert not found


def test_no_two_files_import_each_other_not_even_for_types() -> None:
    imports = {
        module.name: {target for found in module.imports if (target := _within(found.target)) and target not in PUBLIC}
        for module in MODULES
        if module.name not in PUBLIC
    }
    assert _cycles(imports) == set()


def test_no_two_packages_import_each_other() -> None:
    imports: dict[str, set[str]] = {package.name: set() for package in PACKAGES}
    for module in MODULES:
        for found in module.imports:
            if (target := _within(found.target)) and target not in PUBLIC and module.name not in PUBLIC:
                imports[module.place[0]].add(PLACES[target])
    assert _cycles(imports) == set()


def test_the_public_module_has_no_logic() -> None:
    public = next(module for module in MODULES if module.name == "greendata")
    docstring, *statements = public.tree.body
    assert isinstance(docstring, ast.Expr)
    loading = {
        "TYPE_CHECKING",
        "__all__",
        "__version__",
        "_DEFINED_IN",
        "_MODULES",
        "__getattr__",
        "__dir__",
        "when_imported",
    }
    assert [ast.unparse(found) for found in statements if _subject(found) not in loading] == []


PUBLIC = {"greendata"}  # it names the contents of all others, and loads them on use


def _cycles(imports: Mapping[str, set[str]]) -> set[str]:
    """Return the modules that are part of a cycle of *imports*, or import one that is."""
    left = {name: set(targets) - {name} for name, targets in imports.items()}
    while free := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in free:
            del left[name]
    return set(left)


def _subject(statement: ast.stmt) -> str | None:
    """Return the name that a statement assigns, defines, tests or calls; imports are ignored."""
    match statement:
        case ast.ImportFrom():
            return "__all__"
        case (
            ast.Assign(targets=[ast.Name(id=name)])
            | ast.FunctionDef(name=name)
            | ast.If(test=ast.Name(id=name) | ast.UnaryOp(operand=ast.Name(id=name)))
        ):
            return name
        case ast.Expr(value=ast.Call(func=ast.Name(id=name))):
            return name
    return None


def _within(target: str) -> str | None:
    """Return the module of greendata that an import of *target* loads, or None for other libraries."""
    if target in PLACES:
        return target
    parent = target.rpartition(".")[0]
    return parent if parent in PLACES else None
