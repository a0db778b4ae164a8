"""Private names that source uses and that are not its own: read off the syntax tree, without running anything.

An attribute is the package's own if one of its classes defines it where it can be meant: for ``self`` and ``super()``
the class or an ancestor of it, for any other object a class of the same file. What a file defines outside of classes
are no attributes. All others are another library's or Python's.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

__all__ = ("Classes", "Use", "foreign", "is_private")

LIBRARIES = "adbc_driver_manager adbc_driver_postgresql flask gevent greenlet gunicorn polars pydantic requests urllib3"
PATH = re.compile(rf"(?:{'|'.join(LIBRARIES.split())})[.:](?:\w+[.:])*_[a-zA-Z][\w.:]*")  # in a string
DUNDER = re.compile(rf"__(?:{'|'.join(LIBRARIES.split())})_\w+__")  # a name for that library alone
BY_NAME = {"attrgetter", "delattr", "get_original", "getattr", "hasattr", "methodcaller", "setattr"}
# These begin with an underscore for other reasons, and Python documents them.
DOCUMENTED = {
    *("_asdict", "_fields", "_fields_", "_make", "_replace"),
    *("_current_exceptions", "_current_frames", "_exit", "_getframe"),
}


@dataclass(frozen=True)
class Use:
    """A private name, as it stands at one line of a file."""

    name: str
    line: int


@dataclass
class Class:
    """What the classes of one name define, and the names of their bases."""

    defined: set[str] = field(default_factory=set)
    bases: set[str] = field(default_factory=set)


class Classes:
    """The classes of some files, by name."""

    def __init__(self, trees: Iterable[ast.Module]) -> None:
        self._found: dict[str, Class] = {}
        for tree in trees:
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    found = self._found.setdefault(node.name, Class())
                    found.defined |= set(_defined(node))
                    found.bases |= {_name_of(base) for base in node.bases}

    def own(self, name: str) -> set[str]:
        """Return the private attributes of a class and of its ancestors in these files."""
        seen, pending = set[str](), {name}
        defined: set[str] = set()
        while pending:
            seen |= pending
            found = [self._found[name] for name in pending if name in self._found]
            defined |= {attribute for each in found for attribute in each.defined}
            pending = {base for each in found for base in each.bases} - seen
        return defined


def foreign(tree: ast.Module, classes: Classes) -> list[Use]:
    """Return the private names in *tree* that are not those of *classes*."""
    defined = {name for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for name in _defined(node)}
    parameters = {arg.arg for node in ast.walk(tree) if isinstance(node, ast.arguments) for arg in _args(node)}
    finder = _Finder(classes, defined, parameters)
    finder.visit(tree)
    return sorted(set(finder.uses), key=lambda use: (use.line, use.name))


def is_private(name: str) -> bool:
    """True for ``_name``, and for ``__library_name__``."""
    if name.startswith("__") and name.endswith("__"):
        return DUNDER.fullmatch(name) is not None
    return name.startswith("_") and name.strip("_") != "" and name not in DOCUMENTED


class _Finder(ast.NodeVisitor):
    def __init__(self, classes: Classes, defined: set[str], parameters: set[str]) -> None:
        self.uses: list[Use] = []
        self._classes = classes
        self._defined = defined  # names that the classes of this file define
        self._parameters = parameters  # parameters of the functions of this file
        self._inside: list[str] = []  # the classes around the node
        self._modules: set[str] = set()  # names of modules that are imported

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._inside.append(node.name)
        self.generic_visit(node)
        self._inside.pop()

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._modules.add(alias.asname or alias.name.partition(".")[0])
            self._note_path(alias.name, node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            if not (node.module or "").startswith("greendata"):
                self._note_path(f"{node.module}.{alias.name}", node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if _is_self(node.value) and self._inside:
            if is_private(node.attr) and node.attr not in self._classes.own(self._inside[-1]):
                self.uses.append(Use(node.attr, node.lineno))
        else:
            self._note_attribute(node.attr, node, of_module=_name_of(node.value) in self._modules)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        func = _name_of(node.func)
        on_dict = isinstance(node.func, ast.Attribute) and _is_dict(node.func.value)
        if func in BY_NAME or on_dict:
            for name in filter(str.isidentifier, map(_text_of, node.args)):
                self._note_attribute(name, node, of_module=func == "get_original")
        for keyword in node.keywords:
            if keyword.arg and is_private(keyword.arg) and keyword.arg not in self._parameters:
                self.uses.append(Use(keyword.arg, keyword.value.lineno))
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        name = _text_of(node.slice)
        if name.isidentifier() and _is_dict(node.value):
            self._note_attribute(name, node)
        self.generic_visit(node)

    def visit_MatchClass(self, node: ast.MatchClass) -> None:
        for name in node.kwd_attrs:
            self._note_attribute(name, node)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and PATH.fullmatch(node.value):
            self.uses.append(Use(node.value, node.lineno))

    def _note_path(self, path: str, node: ast.stmt) -> None:
        self.uses += [Use(part, node.lineno) for part in path.split(".") if is_private(part)]

    def _note_attribute(self, name: str, node: ast.expr | ast.pattern, *, of_module: bool = False) -> None:
        if is_private(name) and (of_module or name not in self._defined):
            self.uses.append(Use(name, node.lineno))


def _defined(node: ast.ClassDef) -> Iterator[str]:
    """Yield the private attributes that the body of a class defines, and that its methods give to ``self``."""
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield statement.name
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))
            if "__slots__" in map(_name_of, targets) and statement.value is not None:
                yield from map(_text_of, ast.walk(statement.value))
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store) and _is_self(inner.value):
            yield inner.attr


def _args(node: ast.arguments) -> Iterator[ast.arg]:
    yield from (*node.posonlyargs, *node.args, *node.kwonlyargs)


def _is_self(node: ast.expr) -> bool:
    return _name_of(node) in ("self", "cls", "super")


def _is_dict(node: ast.expr) -> bool:
    return _name_of(node) in ("vars", "__dict__")


def _name_of(node: ast.expr) -> str:
    """Return the last name of ``a``, ``a.b``, ``a.b()`` or ``a.b[c]``, or "" for anything else."""
    while isinstance(node, ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _text_of(node: ast.AST) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
