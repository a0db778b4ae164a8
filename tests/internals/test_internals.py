"""The private names of each other library are used in one file only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from inspect import getsource
from textwrap import dedent
from typing import Any

import pytest

from tests.support.private_names import Classes, foreign, is_private
from tests.support.source_tree import MODULES, Module

# The file of each library.
HOMES = {
    "gevent": "greendata.internals.gevent",
    "polars": "greendata.internals.polars",
    "pydantic": "greendata.internals.pydantic",
    "urllib3": "greendata.internals.urllib3",
    "werkzeug": "greendata.web.flask",
}

# Python's own: what takes the place of its threads, locks and child processes has to do as they do.
PYTHON = {
    "greendata.engines.child": "_socket _thread",
    "greendata.engines.children": "_args_from_interpreter_flags _socket",
    "greendata.engines.messages": "_socket",
    "greendata.engines.ray_cluster.program": "_socket",
    "greendata.hub.contexts": "_recreate_cm",
    "greendata.hub.waiters": "_get_running_loop",
    "greendata.threads.children": "_execute_child _fork_exec _handle_exitstatus _internal_poll _try_wait _waitpid_lock",
    "greendata.threads.locks": "_at_fork_reinit _is_owned _queue",
    "greendata.hub.native": "_local _queue _thread",
    "greendata.threads.thread": "_ThreadHandle _args _at_fork_reinit _global_shutdown_lock _set_tstate_lock "
    "_start_joinable_thread _start_new_thread _target _thread _tstate_lock _work_queue _worker",
    "greendata.startup.importing": "_initializing _thread",
    "greendata.testing": "_socket",
    "greendata.web.client": "_sock _socket",
}

CLASSES = Classes(module.tree for module in MODULES)
HERE = [module for module in MODULES if module.name not in HOMES.values()]


@pytest.mark.parametrize("module", HERE, ids=lambda module: module.name)
def test_private_names_of_other_libraries_stand_in_their_file(module: Module) -> None:
    known = set(PYTHON.get(module.name, "").split())
    strangers = [f"line {use.line}: {use.name}" for use in foreign(module.tree, CLASSES) if use.name not in known]
    strangers += [f"line {line}: {name}" for line, name in inherited(module) if name not in known]
    assert strangers == [], f"move them into one of {sorted(HOMES.values())}"


def test_the_lists_of_private_names_are_true() -> None:
    names = {module.name: module for module in MODULES}
    assert set(HOMES.values()) | PYTHON.keys() <= names.keys()
    for name, known in PYTHON.items():
        used = {use.name for use in foreign(names[name].tree, CLASSES)} | {found for _, found in inherited(names[name])}
        assert used == set(known.split())
    for home in HOMES.values():
        assert foreign(names[home].tree, CLASSES) or list(inherited(names[home]))


def inherited(module: Module) -> Iterator[tuple[int, str]]:
    """Yield the private names that classes of *module* share with a base of another library or of Python."""
    nodes = [node for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)]
    if not any(node.bases for node in nodes) or module.name.endswith("__main__"):
        return
    namespace = vars(import_module(module.name))
    for node in nodes:
        found = namespace.get(node.name)
        bases = found.__mro__[1:] if isinstance(found, type) else [*unnamed_bases(node, namespace)]
        theirs = {name for base in bases if not is_ours(base) for name in private_names_of(base)}
        for inner in ast.walk(node):
            name = inner.attr if isinstance(inner, ast.Attribute) else getattr(inner, "name", None)
            if isinstance(name, str) and name in theirs:
                yield inner.lineno, name  # type: ignore[attr-defined]  # both node types have one


def unnamed_bases(node: ast.ClassDef, namespace: dict[str, Any]) -> Iterator[type]:
    """Yield the bases, direct and indirect, of a class that is defined inside a function."""
    for base in node.bases:
        root, *path = ast.unparse(base).split(".")
        found = namespace.get(root)
        for name in path:
            found = getattr(found, name, None)
        if isinstance(found, type):
            yield from found.__mro__


def is_ours(base: type) -> bool:
    return base.__module__.partition(".")[0] == "greendata"


@cache
def private_names_of(base: type) -> set[str]:
    """Return the private names of a class, and of the instance attributes that its Python methods set."""
    names = set(vars(base))
    try:
        source = ast.parse(dedent(getsource(base)))
    except (OSError, TypeError):  # a compiled class
        source = ast.Module([], [])
    names |= {
        inner.attr
        for inner in ast.walk(source)
        if isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name) and inner.value.id == "self"
    }
    return {name for name in names if is_private(name)}


# -- the search itself ------------------------------------------------------------------------------------

FOREIGN = {
    "import polars._plr": "_plr",
    "import polars._plr as plr": "_plr",
    "from polars._typing import IntoExpr": "_typing",
    "from gevent import _socket3": "_socket3",
    "from gevent.event import _AbstractResult as Base": "_AbstractResult",
    "if TYPE_CHECKING:\n    from polars._typing import IntoExpr": "_typing",
    "def f():\n    from pydantic._internal import _fields": "_internal",
    "lf._ldf": "_ldf",
    "lf.lazy()._ldf.collect()": "_ldf",
    "lf._ldf = None": "_ldf",
    "del lf._ldf": "_ldf",
    "gevent.socket.socket._wait = wait": "_wait",
    "def _wait(): ...\nsocket._wait = _wait": "_wait",
    "def _wait(self): self._read_event": "_read_event",
    "_sock = other._sock": "_sock",
    "class A:\n    def f(self, other): other._theirs": "_theirs",
    "class A:\n    def f(self): self._theirs": "_theirs",
    "class A(Foreign):\n    def f(self): super()._theirs()": "_theirs",
    "class B:\n    def _mine(self): ...\nclass A:\n    def f(self): self._mine()": "_mine",
    "model.__pydantic_core_schema__": "__pydantic_core_schema__",
    "getattr(lf, '_ldf', None)": "_ldf",
    "setattr(lf, '_ldf', None)": "_ldf",
    "attrgetter('_sock')": "_sock",
    "operator.attrgetter('_sock')": "_sock",
    "get_original('subprocess', '_fork_exec')": "_fork_exec",
    "vars(lf)['_ldf']": "_ldf",
    "lf.__dict__['_ldf']": "_ldf",
    "lf.__dict__.pop('_ldf')": "_ldf",
    "match lf:\n    case LazyFrame(_ldf=plan): ...": "_ldf",
    "f(core, _use_prebuilt=False)": "_use_prebuilt",
    "NAMES = ('polars._plr:PyLazyFrame.collect',)": "polars._plr:PyLazyFrame.collect",
    "import_module('gevent._socketcommon')": "gevent._socketcommon",
    "import threading\nclass A:\n    _lock = 1\nthreading._lock": "_lock",
}
OWN = (
    "from greendata.hub import _anything",
    "def _f(): ...\n_f()",
    "class A:\n    def __init__(self): self._mine = 1\n    def f(self, other): return self._mine == other._mine",
    "class A:\n    __slots__ = ('_mine',)\nA()._mine",
    "class A:\n    _mine: int\nclass B(A):\n    def f(self): return self._mine",
    "class A:\n    def _f(self): ...\nclass B(A):\n    def _f(self): super()._f()",
    "class A:\n    def f(self): self.__class__, self.__dict__",
    "def f(*, _mine): ...\nf(_mine=1)",
    "row._replace(a=1), sys._getframe(1), os._exit(0)",
    "lf.ldf, getattr(lf, 'ldf'), lf.__dict__['ldf']",
    "'_ldf', 'see polars._plr for more', 'polars.DataFrame'",
    "for _ in (): ...",
)


@pytest.mark.parametrize("source", FOREIGN)
def test_a_private_name_is_found(source: str) -> None:
    tree = ast.parse(source)
    assert FOREIGN[source] in [use.name for use in foreign(tree, Classes([tree]))]


@pytest.mark.parametrize("source", OWN)
def test_a_name_of_our_own_is_not_private(source: str) -> None:
    tree = ast.parse(source)
    assert foreign(tree, Classes([tree])) == []
