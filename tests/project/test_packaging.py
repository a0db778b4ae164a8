"""An installed greendata: its metadata, its entry point, and an import without side effects."""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import importlib.resources
import re

import pytest

import greendata
from tests.support.processes import ROOT, run_python
from tests.support.source_tree import MODULES

pytestmark = pytest.mark.once("patched")  # each test starts a process

DISTRIBUTION = importlib.metadata.distribution("greendata")


def test_version_is_a_literal_that_the_metadata_repeats() -> None:
    window = next(module for module in MODULES if module.name == "greendata")
    versions = [
        statement.value
        for statement in window.tree.body
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__version__"
    ]
    assert [ast.literal_eval(version) for version in versions] == [greendata.__version__]
    assert DISTRIBUTION.version == greendata.__version__


def test_license_and_python_version_are_declared() -> None:
    assert DISTRIBUTION.metadata["License-Expression"] == "MIT"
    assert DISTRIBUTION.metadata["Requires-Python"] == ">=3.11"
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")


def test_requirements_are_the_ones_that_are_imported() -> None:
    required = {re.split(r"[<>=;\[ ]", line)[0] for line in DISTRIBUTION.requires or () if "extra ==" not in line}
    assert required == {"gevent", "greenlet", "polars", "pydantic", "requests", "urllib3"}


def test_extras() -> None:
    extras = set(DISTRIBUTION.metadata.get_all("Provides-Extra") or ())
    assert {"dev", "flask", "gunicorn", "test", "web"} <= extras
    of_web = {line for line in DISTRIBUTION.requires or () if "web" in line.partition(";")[2]}
    assert sorted(re.split(r"[<>=;]", line)[0] for line in of_web) == ["flask", "gunicorn[gevent]"]


def test_type_checkers_see_that_the_package_is_typed() -> None:
    assert importlib.resources.files("greendata").joinpath("py.typed").is_file()
    assert "py.typed" in _setup_cfg()["options.package_data"]["greendata"]


def test_gevent_finds_the_entry_point() -> None:
    found = importlib.metadata.entry_points(group="gevent.plugins.monkey.did_patch_all", name="greendata")
    assert [point.value for point in found] == ["greendata.monkey:autopatch"]
    assert all(callable(point.load()) for point in found)


def test_percent_signs_in_setup_cfg_only_join_extras() -> None:
    extras = _setup_cfg()["options.extras_require"]
    joins = re.findall(r"%\((\w+)\)s", (ROOT / "setup.cfg").read_text(encoding="utf-8"))
    assert set(joins) <= set(extras)
    assert "%" not in re.sub(r"%\(\w+\)s", "", (ROOT / "setup.cfg").read_text(encoding="utf-8"))


def test_importing_it_has_no_effect() -> None:
    """The import leaves threads, hubs and functions as they are after the import of its libraries alone."""
    finished = run_python(
        """
        import os, sys
        import gevent.monkey, polars.lazyframe.engine, pydantic, requests
        from gevent._hub_local import get_hub_if_exists

        def state():
            owners = polars, polars.LazyFrame, polars.DataFrame, polars.lazyframe.engine._LocalEngine
            names = {owner: {name: value for name, value in vars(owner).items() if callable(value)} for owner in owners}
            for functions in names.values():
                functions.pop("green", None)  # the namespace, which Polars' public function registers
            tasks = "/proc/self/task"
            return {
                "threads of the system": len(os.listdir(tasks)) if os.path.exists(tasks) else None,
                "threads of Python": len(sys._current_frames()),
                "hub": get_hub_if_exists(),
                "patched by gevent": {name: dict(saved) for name, saved in gevent.monkey.saved.items()},
                "functions of Polars": names,
            }

        before = state()
        import greendata
        print([name for name, value in state().items() if value != before[name]])
        """
    )
    assert finished == (0, "[]\n", "")


def test_importing_it_imports_nothing_that_waits_to_be_patched() -> None:
    """A module that imported ssl before gevent patched it keeps the original ``SSLContext``."""
    unwanted = ("ssl", "requests", "urllib3", "flask", "gunicorn", "rich", "prometheus_client", "adbc_driver_manager")
    code = f"import greendata, sys; print([name for name in {unwanted} if name in sys.modules])"
    assert run_python(code) == (0, "[]\n", "")


def test_it_may_be_imported_before_or_after_patching() -> None:
    for order in ("import greendata; patch_all()", "patch_all(); import greendata"):
        assert run_python(f"from gevent.monkey import patch_all; {order}") == (0, "", "")


def _setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser
