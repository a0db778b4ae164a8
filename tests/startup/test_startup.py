"""The start-up cost of greendata: which modules are loaded, and when."""

from __future__ import annotations

import ast
import pickle

import pytest

import greendata
from tests.support.processes import run_python
from tests.support.source_tree import MODULES

pytestmark = pytest.mark.once("unpatched")  # each test runs a separate process

WINDOW = next(module for module in MODULES if module.name == "greendata")
START = tuple(f"greendata.startup{name}" for name in ("", ".autopatch", ".importing", ".variables"))

HEAVY = {
    "gevent",
    "polars",
    "pydantic",
    "requests",
    "urllib3",
    "flask",
    "gunicorn",
    "adbc_driver_manager",
    "rich",
    "tqdm",
}

LOADED = """
def loaded():
    return {name.partition(".")[0] for name in sys.modules}

def ours():
    return sorted(name for name in sys.modules if name.partition(".")[0] == "greendata")
"""


def lines_of(code: str, env: dict[str, str | None] | None = None) -> list[str]:
    finished = run_python(f"import sys\n{LOADED}\n{code}", env=env)
    assert (finished.returncode, finished.stderr) == (0, "")
    return finished.stdout.splitlines()


@pytest.mark.parametrize("value", [None, "", "0", "off"])
def test_without_the_variable_the_entry_point_only_reads_the_environment(value: str | None) -> None:
    code = """
import gevent.monkey, gevent.events
patched = set()
def note(event):
    patched.update(sys.modules)
gevent.events.subscribers.append(note)  # called before the entry points
gevent.monkey.patch_all()
new = {name for name in set(sys.modules) - patched if name.partition(".")[0] not in sys.stdlib_module_names}
print(sorted(new))
"""
    (new,) = lines_of(code, {"GREENDATA_AUTOPATCH": value})
    assert ast.literal_eval(new) == ["greendata", "greendata.monkey", *START]


def test_the_variable_does_not_import_polars() -> None:
    code = f"from gevent import monkey; monkey.patch_all(); print(loaded() & {HEAVY})"
    assert lines_of(code, {"GREENDATA_AUTOPATCH": "1"}) == ["{'gevent'}"]


def test_importing_greendata_loads_nothing_and_makes_no_hub() -> None:
    (names,) = lines_of("import greendata; print(ours(), loaded() & {'gevent', 'polars', 'pydantic', 'requests'})")
    assert names == "['greendata', 'greendata.startup', 'greendata.startup.importing'] set()"


USES = {
    "an error": ("greendata.PoolFull", {"gevent"}),
    "the pool": ("greendata.configure", {"gevent"}),
    "a group": ("greendata.Group", {"gevent"}),
    "a verb": ("greendata.collect", {"gevent", "polars"}),
    "the patch": ("greendata.patch_polars", {"gevent", "polars"}),
    "the counters": ("greendata.observe.start", {"gevent", "polars"}),
}


@pytest.mark.parametrize("use", USES)
def test_a_name_loads_what_it_needs(use: str) -> None:
    name, wanted = USES[use]
    (loaded,) = lines_of(f"import greendata; {name}; print(sorted(loaded() & {HEAVY}))")
    assert ast.literal_eval(loaded) == sorted(wanted)


def test_a_verb_does_not_load_the_encoders() -> None:
    code = "import greendata; greendata.collect; print([name.partition('.')[2] for name in ours()])"
    loaded = set(ast.literal_eval(lines_of(code)[0]))
    unwanted = {f"frames.{room}" for room in ("decoders", "encoders", "sql", "typed", "urls", "validation")}
    assert not loaded & {*unwanted, "flow", "hub.caller", "hub.group", "observe", "web"}


ORDERS = (
    "import greendata, polars as pl",
    "import polars as pl, greendata",
    "from gevent import monkey; monkey.patch_all(); import polars as pl",
)


@pytest.mark.parametrize("order", ORDERS)
def test_the_namespace_exists_once_polars_is_imported(order: str) -> None:
    assert lines_of(f"{order}\nprint(pl.LazyFrame({{'a': [1]}}).green.collect().get(timeout=60).height)") == ["1"]


def test_polars_reads_its_environment_when_the_program_imports_it() -> None:
    code = """
from gevent import monkey; monkey.patch_all()
import os; os.environ["POLARS_MAX_THREADS"] = "3"
import greendata, polars as pl
print(pl.thread_pool_size(), greendata.is_polars_patched())
"""
    assert lines_of(code, {"GREENDATA_AUTOPATCH": "1", "POLARS_MAX_THREADS": None}) == ["3 True"]


def test_the_import_of_polars_is_the_moment_of_the_patch() -> None:
    code = """
from gevent import monkey; monkey.patch_all()
assert "polars" not in sys.modules
from polars import LazyFrame
from greendata.query.patching.function_patch import is_patched
print(is_patched("the pool"), type(sys.modules["polars"].__loader__).__name__)
"""
    assert lines_of(code, {"GREENDATA_AUTOPATCH": "1"}) == ["True SourceFileLoader"]


def test_type_checkers_see_what_is_loaded() -> None:
    block = next(found for found in WINDOW.tree.body if isinstance(found, ast.If))
    seen = {
        alias.name: statement.module
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert sorted(seen) == sorted({*greendata.__all__, *greendata._MODULES} - {"__version__"})
    for name, module in seen.items():
        location = greendata._MODULES.get(name) or f"{greendata._DEFINED_IN.get(name, 'greendata.errors')}.{name}"
        assert location == f"{module}.{name}"


def test_names_are_listed_before_they_are_loaded() -> None:
    (missing,) = lines_of("import greendata; print(sorted(set(greendata.__all__) - set(dir(greendata))))")
    assert missing == "[]"
    assert lines_of("from greendata import *; print(collect, validate, stages)")[0].startswith("<function collect")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'greendata' has no attribute 'colect'"):
        greendata.colect  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'colect'"):
        from greendata import colect  # noqa: F401
    with pytest.raises(AttributeError, match=r"module 'greendata\.monkey' has no attribute 'patch'"):
        greendata.monkey.patch  # noqa: B018


def test_names_are_loaded_once() -> None:
    assert greendata.collect is greendata.collect
    assert pickle.loads(pickle.dumps(greendata.collect)) is greendata.collect
