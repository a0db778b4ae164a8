"""How the patch is applied in a process: by gevent's entry point, and before or after `patch_all`."""

from __future__ import annotations

from pathlib import Path

import pytest

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
def test_another_word_is_a_warning_and_no_patch(value: str) -> None:
    code = "from gevent import monkey; monkey.patch_all()\nimport greendata; print(greendata.is_polars_patched())"
    finished = run_python(code, env={"GREENDATA_AUTOPATCH": value}, warnings="default")
    assert finished[:2] == (0, "False\n")
    expected = f"GREENDATA_AUTOPATCH must be one of 1, true, yes, on, 0, false, no, off, got {value!r}"
    assert f"RuntimeWarning: {expected}; Polars is not patched" in finished.stderr


@pytest.mark.parametrize("value", [None, "", "0", "false", "No", "OFF"])
def test_without_the_variable_nothing_is_patched(value: str | None) -> None:
    code = """
        from gevent import monkey; monkey.patch_all()
        import sys; print("polars" in sys.modules and __import__("greendata").is_polars_patched())
    """
    assert run_python(code, env={"GREENDATA_AUTOPATCH": value}) == (0, "False\n", "")


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
