"""The doctor, in processes that are well and in some that are not."""

from __future__ import annotations

import json
from typing import Any

import pytest

import greendata
from greendata import doctor
from greendata.errors import BadArgument
from tests.conftest import PATCHED, run_python

EXAMINE = """
import dataclasses, json, os
from greendata import doctor
print(json.dumps([dataclasses.asdict(finding) for finding in doctor.examine()]), flush=True)
"""


def findings(before: str = "", **env: str | None) -> dict[str, dict[str, Any]]:
    """What the doctor says after *before* was run, by name."""
    ours = {"WEB_CONCURRENCY": None, "POLARS_MAX_THREADS": None}
    finished = run_python(before + EXAMINE, env={**ours, **env}, warnings="ignore")
    assert finished.returncode == 0, finished.stderr
    return {finding["name"]: finding for finding in json.loads(finished.stdout.splitlines()[-1])}


PATCH = "from gevent import monkey\nmonkey.patch_all()\n"


def test_an_unpatched_process_is_told_of_both_patches() -> None:
    found = findings()
    assert found["gevent patch"]["verdict"] == found["Polars patch"]["verdict"] == "warn"
    assert "not patched: socket" in found["gevent patch"]["text"]
    assert "GREENDATA_AUTOPATCH=1" in found["Polars patch"]["text"]
    assert "order of imports" not in found


def test_a_process_as_it_should_be_is_well() -> None:
    found = findings(PATCH + "import greendata; greendata.patch_polars()\n")
    assert {finding["verdict"] for finding in found.values()} == {"ok"}
    assert "polars " in found["versions"]["text"]


def test_greendata_may_be_imported_before_the_patch() -> None:
    found = findings("import greendata\n" + PATCH)
    assert found["order of imports"]["verdict"] == "ok", found["order of imports"]["text"]


def test_modules_that_hold_what_blocks_are_named() -> None:
    early = "import sys, types, time\nsys.modules['shop'] = types.SimpleNamespace(pause=time.sleep)\n"
    found = findings(early + PATCH)["order of imports"]
    assert found["verdict"] == "fail"
    assert "shop (time.sleep)" in found["text"]


def test_many_early_modules_are_counted() -> None:
    early = (
        "import sys, types, time\nfor n in range(7):\n"
        "    sys.modules[f'shop{n}'] = types.SimpleNamespace(pause=time.sleep)\n"
    )
    assert " and 2 more; " in findings(early + PATCH)["order of imports"]["text"]


@pytest.mark.parametrize(("name", "verdict"), [("wait_c", "fail"), ("wait_epoll", "ok")])
def test_psycopg_says_itself_how_it_waits(name: str, verdict: str) -> None:
    stand_in = (
        "import sys, types\nsys.modules['psycopg'] = types.ModuleType('psycopg')\n"
        "waiting = sys.modules['psycopg.waiting'] = types.ModuleType('psycopg.waiting')\n"
        f"def {name}(): pass\nwaiting.wait = {name}\n"
    )
    assert findings(PATCH + stand_in)["psycopg"]["verdict"] == verdict
    assert "psycopg" not in findings(stand_in)


@pytest.mark.parametrize(("callback", "verdict"), [("None", "fail"), ("print", "ok")])
def test_psycopg2_needs_its_callback(callback: str, verdict: str) -> None:
    stand_in = (
        "import sys, types\nsys.modules['psycopg2'] = types.ModuleType('psycopg2')\n"
        "extensions = sys.modules['psycopg2.extensions'] = types.ModuleType('psycopg2.extensions')\n"
        f"extensions.get_wait_callback = lambda: {callback}\n"
    )
    assert findings(PATCH + stand_in)["psycopg2"]["verdict"] == verdict


def test_a_child_of_a_process_where_polars_ran_is_lost() -> None:
    fork = (
        "import atexit, os, sys, greendata, polars as pl\nfrom gevent.monkey import get_original\npl.select(1)\n"
        "pid = os.fork()\nif pid:\n    get_original('os', 'waitpid')(pid, 0)\n    os._exit(0)\n"
        "atexit.register(lambda: (sys.stdout.flush(), os._exit(0)))\n"  # Polars 2.0 hangs forked children at exit
    )
    found = findings(fork)["fork"]
    assert found["verdict"] == "fail"
    assert "--preload" in found["text"]


def test_a_process_where_polars_ran_is_told_not_to_fork() -> None:
    found = findings("import polars as pl\npl.select(1)\n")["fork"]
    assert found["verdict"] == "ok"
    assert "Polars has run here" in found["text"]


def test_threads_times_processes_beyond_the_cores() -> None:
    found = findings(POLARS_MAX_THREADS="64", WEB_CONCURRENCY="4")["threads"]
    assert found["verdict"] == "warn"
    assert found["text"].startswith("64 Polars threads x 4 processes on ")
    assert "POLARS_MAX_THREADS=" in found["text"]
    assert findings(POLARS_MAX_THREADS="2", WEB_CONCURRENCY="4")["threads"]["verdict"] == "ok"


def test_one_polars_thread_can_deadlock() -> None:
    found = findings(POLARS_MAX_THREADS="1")["threads"]
    assert found["verdict"] == "fail"
    assert "POLARS_MAX_THREADS >= 2" in found["text"]


def test_cluster_clients_in_a_patched_process() -> None:
    stand_in = "import sys, types\nsys.modules['ray'] = types.ModuleType('ray')\n"
    found = findings(PATCH + stand_in)["cluster clients"]
    assert found["verdict"] == "fail"
    assert found["text"].startswith("ray hang")
    assert "cluster clients" not in findings(stand_in)


def test_gevents_monitor() -> None:
    run = "import gevent\ngevent.sleep(0)\n"
    assert findings(run)["gevent monitor"]["text"].startswith("off; ")
    on = findings(run, GEVENT_MONITOR_THREAD_ENABLE="1", GEVENT_MAX_BLOCKING_TIME="0.5")["gevent monitor"]
    assert on["text"] == "on, tells of 0.5 s"


def test_it_examines_the_process_it_is_called_in() -> None:
    found = {finding.name: finding for finding in doctor.examine()}
    assert (found["gevent patch"].verdict is doctor.Verdict.OK) == PATCHED
    greendata.patch_polars()
    try:
        patched = {finding.name: finding for finding in doctor.examine()}
    finally:
        greendata.unpatch_polars()
    assert patched["Polars patch"].verdict is doctor.Verdict.OK
    assert found["Polars patch"].verdict is doctor.Verdict.WARN


@pytest.mark.parametrize("workers", [0, -1, True, 1.5])
def test_workers_that_cannot_be(workers: int) -> None:
    with pytest.raises(BadArgument, match="workers must be a whole number >= 1"):
        doctor.examine(workers=workers)
