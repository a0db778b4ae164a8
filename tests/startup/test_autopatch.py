"""How the patch is applied in a process: by gevent's entry point, and before or after `patch_all`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from greendata.pool.settings import Settings
from greendata.startup.variables import POOL_VARIABLES
from tests.support.processes import ROOT, run_python

pytestmark = pytest.mark.once("unpatched")  # each test runs a separate process

# A query whose function waits for a greenlet: it answers only if Polars is patched.
PROOF = """
import gevent, polars as pl
from tests.support.gates import Gate, open_from_hub

gate = Gate()
open_from_hub(gate)
print(pl.DataFrame({"a": [1, 2]}).lazy().map_batches(gate).collect().height, len(gate.arrived))
"""

ORDERS = {
    "greendata first": "import greendata; greendata.patch_polars(); from gevent import monkey; monkey.patch_all()",
    "gevent first": "from gevent import monkey; monkey.patch_all(); import greendata; greendata.patch_polars()",
    "imported first, patched last": (
        "import greendata, polars; from gevent import monkey; monkey.patch_all(); greendata.patch_polars()"
    ),
    "without gevent's patch": "import greendata; greendata.patch_polars()",
    "a query before": (
        "import polars; polars.select(1); from gevent import monkey; monkey.patch_all()\n"
        "import greendata; greendata.patch_polars(); polars.select(1)"
    ),
}

CLEAN = (0, "2 1\n", "")


@pytest.mark.parametrize("order", ORDERS)
def test_it_may_come_before_or_after_patch_all(order: str) -> None:
    assert run_python(ORDERS[order] + "\n" + PROOF) == CLEAN


def test_autopatch_needs_no_change_of_code() -> None:
    code = "from gevent import monkey; monkey.patch_all()\n" + PROOF
    assert run_python(code, env={"GREENDATA_AUTOPATCH": "1"}) == CLEAN


@pytest.mark.parametrize("value", ["true", "YES", " on "])
def test_the_words_that_patch(value: str) -> None:
    code = "from gevent import monkey; monkey.patch_all()\nimport greendata; print(greendata.is_polars_patched())"
    assert run_python(code, env={"GREENDATA_AUTOPATCH": value}) == (0, "True\n", "")


@pytest.mark.parametrize("value", ["ja", "2", "enable", "1;"])
def test_another_word_is_an_error(value: str) -> None:
    finished = run_python("from gevent import monkey; monkey.patch_all()", env={"GREENDATA_AUTOPATCH": value})
    expected = f"GREENDATA_AUTOPATCH must be one of 1, true, yes, on, 0, false, no, off, got {value!r}"
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1] == f"greendata.errors.arguments.BadSetting: {expected}"


@pytest.mark.parametrize("value", [None, "", "0", "false", "No", "OFF"])
def test_without_the_variable_nothing_is_patched(value: str | None) -> None:
    code = """
        from gevent import monkey; monkey.patch_all()
        import sys; print("polars" in sys.modules and __import__("greendata").is_polars_patched())
    """
    assert run_python(code, env={"GREENDATA_AUTOPATCH": value}) == (0, "False\n", "")


@pytest.mark.parametrize("name", ["GREENDATA_AUTO_PATCH", "GREENDATA_AUTOPACTH"])
def test_a_misspelled_variable_is_a_warning_in_a_program_that_uses_nothing_else_of_ours(name: str) -> None:
    code = "from gevent import monkey; monkey.patch_all(); monkey.patch_all()"
    finished = run_python(code, env={name: "1"}, warnings="default")
    expected = f"{name} is not an environment variable of greendata; did you mean GREENDATA_AUTOPATCH?"
    assert finished == (0, "", f"<environment>:1: RuntimeWarning: {expected}\n")


def test_variables_without_effect_are_warnings_where_the_pool_is_used() -> None:
    env = {"GREENDATA_MAX_WORKRS": "2", "GREENDATA_MAX_BODY": "5", "GREENDATA_XYZ": "1", "GREENDATA_NATIVE_WAITS": "ja"}
    finished = run_python("import greendata; greendata.run(int).get()", env=env, warnings="default")
    lines = sorted(line.partition("Warning: ")[2] for line in finished.stderr.splitlines())
    assert lines[0] == "GREENDATA_MAX_BODY has no effect in the environment; it is a key of a Flask app's config"
    assert lines[1].endswith("did you mean GREENDATA_MAX_WORKERS?")
    words = "1, true, yes, on, 0, false, no, off"
    assert lines[2] == f"GREENDATA_NATIVE_WAITS must be one of {words}, got 'ja'; it counts as 1"
    assert lines[3].startswith("GREENDATA_XYZ is not an environment variable of greendata; there are GREENDATA_AUTO")
    assert len(lines) == 4


def test_the_known_variables_are_those_of_the_settings() -> None:
    fields = {f"GREENDATA_{field.name.upper()}" for field in dataclasses.fields(Settings) if field.name != "route"}
    assert set(POOL_VARIABLES) == fields


def test_autopatch_patches_when_gevent_does_and_not_before() -> None:
    code = """
        import greendata
        print(greendata.is_polars_patched())
        from gevent import monkey; monkey.patch_all()
        print(greendata.is_polars_patched())
        greendata.unpatch_polars()
        print(greendata.is_polars_patched())
    """
    assert run_python(code, env={"GREENDATA_AUTOPATCH": "1"}) == (0, "False\nTrue\nFalse\n", "")


MODULES = ("doctor", "http.session", "internals.polars", "observe", "observe.doctor", "pipelines.stages", "web.flask")


@pytest.mark.parametrize("module", MODULES)
def test_any_module_may_be_the_first_to_import_polars(module: str) -> None:
    """The patch is applied while that module is being imported."""
    name = f"greendata.{module}"
    code = f"""
        from gevent import monkey
        monkey.patch_all()
        import greendata
        {f"import {name}" if module != "doctor" else name}
        import polars
        print(greendata.is_polars_patched())
    """
    assert run_python(code, env={"GREENDATA_AUTOPATCH": "1"}) == (0, "True\n", "")


def test_gevents_own_runner_is_enough(tmp_path: Path) -> None:
    script = tmp_path / "service.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{PROOF}", encoding="utf-8")
    finished = run_python(["-m", "gevent.monkey", str(script)], env={"GREENDATA_AUTOPATCH": "1"})
    assert (finished.returncode, finished.stdout) == (0, "2 1\n")


LACKING = """
from gevent import monkey
from greendata.startup.importing import when_imported

def take_away():
    import polars._plr as plr
    del plr.PyLazyFrame.{name}

when_imported("polars", take_away)  # called before the patch, to simulate a Polars without that function
monkey.patch_all()
"""


def test_a_service_starts_with_a_polars_that_lacks_a_function() -> None:
    code = (
        LACKING.format(name="to_dot")
        + PROOF
        + """
from greendata.observe import doctor
print(next(finding.verdict for finding in doctor.examine() if "PyLazyFrame.to_dot;" in finding.text))
"""
    )
    finished = run_python(code, env={"GREENDATA_AUTOPATCH": "1"}, warnings="default")
    assert finished[:2] == (0, "2 1\nwarn\n")
    assert "RuntimeWarning: 1 function not found in Polars" in finished.stderr
    assert "polars._plr:PyLazyFrame.to_dot. The others are patched" in finished.stderr


def test_a_service_does_not_start_with_a_polars_that_lacks_one_that_matters() -> None:
    code = LACKING.format(name="collect") + "import polars"
    finished = run_python(code, env={"GREENDATA_AUTOPATCH": "1"})
    assert finished.returncode == 1
    assert "SeamMissing: 1 function not found in Polars" in finished.stderr
