"""The source of the package: its modules, and what each of them imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.support.processes import ROOT

__all__ = ("MODULES", "Import", "Module")

PACKAGE = ROOT / "greendata"


@dataclass(frozen=True)
class Import:
    """One imported module at one line of a file."""

    target: str
    line: int
    at_import: bool  # False for an import inside a function, which runs when the function is called
    for_types: bool  # under ``if TYPE_CHECKING``, so only for type checkers


@dataclass(frozen=True)
class Module:
    """One file of the package."""

    path: Path

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(encoding="utf-8"), str(self.path))

    @property
    def name(self) -> str:
        """The dotted name; for an ``__init__`` that of its package."""
        parts = self.path.relative_to(ROOT).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def place(self) -> tuple[str, str]:
        """The package, and the module or package in it; a file directly in greendata is in the package ``top``."""
        parts = self.path.relative_to(PACKAGE).with_suffix("").parts
        return ("top", parts[0]) if len(parts) == 1 else (parts[0], parts[1])

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        """All imports, including those in functions and those for types."""
        return tuple(_imports(self.tree, at_import=True, for_types=False))


def _imports(node: ast.AST, *, at_import: bool, for_types: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, node.lineno, at_import, for_types) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert not node.level, f"line {node.lineno}: imports are absolute here"
        yield from (Import(f"{node.module}.{alias.name}", node.lineno, at_import, for_types) for alias in node.names)
    at_import = at_import and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    types = node.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" else ()
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, at_import=at_import, for_types=for_types or child in types)


MODULES = tuple(Module(path) for path in sorted(PACKAGE.rglob("*.py")))
