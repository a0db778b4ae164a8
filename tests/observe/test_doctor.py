"""The doctor, in processes with and without problems."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

import greendata
from greendata import doctor
from greendata.errors import BadArgument
from tests.conftest import PATCHED, run_python

pytestmark = pytest.mark.once("patched")  # each test runs a separate process

EXAMINE = """
import dataclasses, json, os
from greendata import doctor
print(json.dumps([dataclasses.asdict(finding) for finding in doctor.examine()]), flush=True)
"""


def findings(before: str = "", **env: str | None) -> dict[str, dict[str, Any]]:
    """Run *before* and then the doctor, and return the findings by name."""
    ours = {"WEB_CONCURRENCY": None, "POLARS_MAX_THREADS": None}
    finished = run_python(before + EXAMINE, env={**ours, **env}, warnings="ignore")
    assert finished.returncode == 0, finished.stderr
    return {finding["name"]: finding for finding in json.loads(finished.stdout.splitlines()[-1])}


PATCH = "from gevent import monkey\nmonkey.patch_all()\n"


def test_an_unpatched_process_gets_a_finding_for_both_patches() -> None:
    found = findings()
    assert found["gevent patch"]["verdict"] == found["Polars patch"]["verdict"] == "warn"
    assert "not patched: socket" in found["gevent patch"]["text"]
    assert "GREENDATA_AUTOPATCH=1" in found["Polars patch"]["text"]
    assert "order of imports" not in found


def test_a_correct_process_has_no_failures() -> None:
    found = findings(PATCH + "import greendata; greendata.patch_polars()\n")
    assert {finding["verdict"] for finding in found.values()} == {"ok"}
    assert "polars " in found["versions"]["text"]


def test_greendata_may_be_imported_before_the_patch() -> None:
    found = findings("import greendata\n" + PATCH)
    assert found["order of imports"]["verdict"] == "ok", found["order of imports"]["text"]


def test_modules_with_blocking_functions_are_named() -> None:
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
def test_how_psycopg_waits_is_reported(name: str, verdict: str) -> None:
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


@pytest.mark.parametrize(
    ("on_fork", "verdict", "text"),
    [("raise", "fail", "no query can run here; run none before the fork (--preload)"), ("process", "ok", "(on_fork)")],
)
def test_a_child_of_a_process_where_polars_ran_is_lost(on_fork: str, verdict: str, text: str) -> None:
    fork = (
        "import atexit, os, sys, greendata, polars as pl\nfrom gevent.monkey import get_original\npl.select(1)\n"
        "pid = os.fork()\nif pid:\n    get_original('os', 'waitpid')(pid, 0)\n    os._exit(0)\n"
        "atexit.register(lambda: (sys.stdout.flush(), os._exit(0)))\n"  # Polars 2.0 hangs forked children at exit
    )
    found = findings(fork, GREENDATA_ON_FORK=on_fork)["fork"]
    assert found["verdict"] == verdict
    assert found["text"].endswith(text)


def test_a_process_where_polars_ran_is_warned_not_to_fork() -> None:
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


EARLY = """
import functools, queue, threading
making = threading.Lock()
again = threading.RLock()
room = threading.Condition()
rooms = threading.Semaphore(2)
ready = threading.Event()
work = queue.Queue()
by_name = {"a": threading.Lock()}
many = [threading.Lock()]
class Kept:
    lock = threading.Lock()
    @functools.cached_property  # which has an RLock in Python 3.11
    def sales(self): return 1
class Cache:
    def __init__(self): self.lock = threading.Lock()
cache = Cache()
names = {"making": making}
background = threading.Thread(target=int)
"""
NAMES = ["by_name[...]", "cache.lock", "making", "many[...]", "ready", "room", "rooms", "work", "Kept.lock"]


def test_locks_of_the_program_that_were_made_too_early_are_named() -> None:
    code = "from greendata.observe.doctor.locks import native_locks; print(native_locks())\n"
    finished = run_python(EARLY + PATCH + code, warnings="ignore")
    assert ast.literal_eval(finished.stdout) == sorted(f"__main__.{name}" for name in NAMES)
    assert run_python(PATCH + EARLY + code, warnings="ignore").stdout == "[]\n"


def test_early_locks_are_a_warning() -> None:
    early = "import threading\nmaking = threading.Lock()\n"
    found = findings(early + PATCH)["locks"]
    assert found["verdict"] == "warn"
    assert found["text"].startswith(
        "native, made before patch_all: __main__.making; a greenlet that runs a query under"
    )
    assert findings(PATCH + early)["locks"]["verdict"] == "ok"
    assert "locks" not in findings(early)


def test_a_lock_that_many_modules_share_is_one(tmp_path: Path) -> None:
    for module, text in {
        "shop": "import threading\nmaking = threading.Lock()\n",
        "web": "from shop import making\n",
    }.items():
        (tmp_path / f"{module}.py").write_text(text, encoding="utf-8")
    early = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport web\n"
    assert "before patch_all: shop.making; " in findings(early + PATCH)["locks"]["text"]


def test_locks_of_libraries_count_if_they_use_polars(tmp_path: Path) -> None:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "reports.py").write_text("import threading, polars\nlock = threading.Lock()\n", encoding="utf-8")
    (folder / "other.py").write_text("import threading\nlock = threading.Lock()\n", encoding="utf-8")
    early = f"import sys\nsys.path.insert(0, {str(folder)!r})\nimport reports, other\n"
    assert "before patch_all: reports.lock; " in findings(early + PATCH)["locks"]["text"]


def test_proxies_and_lazy_modules_are_not_touched() -> None:
    early = "import threading\nmaking = threading.Lock()\n"
    late = """
import sys, types
class Proxy:
    __class__ = property(lambda self: 1 / 0)
    def __getattr__(self, name): 1 / 0
    def __eq__(self, other): 1 / 0
    __hash__ = None
class Lazy(types.ModuleType):
    def __getattr__(self, name): 1 / 0
sys.modules["lazy"] = Lazy("lazy")
sys.modules["nothing"] = None
proxy = Proxy()
"""
    assert "before patch_all: __main__.making; " in findings(early + PATCH + late)["locks"]["text"]


AUTOPATCH = {
    "never asked": ("", None, "Set GREENDATA_AUTOPATCH=1, or call greendata.patch_polars()"),
    "no patch_all": ("", "1", "nothing has called patch_all here, which looks at it: gunicorn -k gevent does"),
    "parts of it": (
        "from gevent import monkey; monkey.patch_thread()\n",
        "1",
        "only single patches of gevent were made",
    ),
    "too late": (
        PATCH + "import os; os.environ['GREENDATA_AUTOPATCH'] = '1'\n",
        None,
        "was not set yet when patch_all",
    ),
    "no word": (
        PATCH + "import os; os.environ['GREENDATA_AUTOPATCH'] = 'ja'\n",
        None,
        "GREENDATA_AUTOPATCH is 'ja', which is neither yes nor no: set it to 1",
    ),
    "taken back": (PATCH + "import greendata; greendata.unpatch_polars()\n", "1", "Set GREENDATA_AUTOPATCH=1, or call"),
}


@pytest.mark.parametrize("case", AUTOPATCH)
def test_an_autopatch_that_did_nothing_is_explained(case: str) -> None:
    before, value, told = AUTOPATCH[case]
    found = findings(before, GREENDATA_AUTOPATCH=value)["Polars patch"]
    assert found["verdict"] == "warn"
    assert told in found["text"]


def test_a_patch_that_the_caller_excluded_is_named() -> None:
    found = findings("from gevent import monkey\nmonkey.patch_all(thread=False)\n")["gevent patch"]
    assert found["verdict"] == "warn"
    assert found["text"].startswith("threading is excluded by the caller of patch_all(thread=False): a greenlet that")
    both = findings("from gevent import monkey\nmonkey.patch_all(ssl=False, thread=False)\n")["gevent patch"]
    assert both["text"].startswith("threading and ssl are excluded by the caller of patch_all(thread=False, ssl=False)")


def test_users_of_psycopg2_are_named() -> None:
    stand_in = (
        "import sys, types\nsys.modules['psycopg2'] = psycopg2 = types.ModuleType('psycopg2')\n"
        "sys.modules['shop'] = types.ModuleType('shop')\nsys.modules['shop'].driver = psycopg2\ndel psycopg2\n"
    )
    assert findings(PATCH + stand_in)["psycopg2"]["text"].endswith("psycopg 3; imported by shop")


def test_variables_without_effect_are_a_warning() -> None:
    found = findings(GREENDATA_MAX_WORKRS="2", GREENDATA_REQUEST_TIMEOUT="5")["settings"]
    assert found["verdict"] == "warn"
    assert "did you mean GREENDATA_MAX_WORKERS?" in found["text"]
    assert "GREENDATA_REQUEST_TIMEOUT has no effect in the environment; it is a key of a Flask" in found["text"]
    assert "settings" not in findings()


def test_it_starts_no_threads_of_polars() -> None:
    code = EXAMINE + "from greendata.query.patching.fork_guard import polars_has_run\nprint(polars_has_run())\n"
    finished = run_python(code)
    assert finished.stdout.splitlines()[-1] == "False"


def test_gevents_monitor() -> None:
    run = "import gevent\ngevent.sleep(0)\n"
    assert findings(run)["gevent monitor"]["text"].startswith("off; ")
    on = findings(run, GEVENT_MONITOR_THREAD_ENABLE="1", GEVENT_MAX_BLOCKING_TIME="0.5")["gevent monitor"]
    assert on["text"] == "on, reports blocks of 0.5 s"


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
def test_impossible_numbers_of_workers_are_refused(workers: int) -> None:
    with pytest.raises(BadArgument, match="workers must be a whole number >= 1"):
        doctor.examine(workers=workers)
