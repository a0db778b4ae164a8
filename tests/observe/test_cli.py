"""The command line, with each command in a separate process."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from greendata import errors, observe
from greendata.observe import client, top
from tests.conftest import Finished, run_python

pytestmark = pytest.mark.once("patched")  # each test runs a separate process

# A server with a query that runs and one that failed, and the command line in the same process.
SERVED = """
from gevent import monkey
monkey.patch_all()
import os, socket, sys
import gevent
from gevent.pywsgi import WSGIServer
import greendata
from greendata.__main__ import main
from tests.support.gates import Gate

def app(environ, start_response):
    snapshot = greendata.observe.snapshot_json()
    answers = {{
        "/greendata/stats.json": ("200 OK", snapshot),
        "/key": ("200 OK" if environ.get("HTTP_X_KEY") == "s3cret" else "403 Forbidden", snapshot),
        "/password": ("200 OK" if environ.get("HTTP_AUTHORIZATION") == "Basic YTpi" else "401 No", snapshot),
        "/html": ("200 OK", "<html>a page</html>"),
        "/json": ("200 OK", '{{"at": 1.0}}'),
    }}
    status, body = answers.get(environ["PATH_INFO"], ("404 Not Found", ""))
    start_response(status, [("Content-Type", "application/json")])
    return [body.encode()]

if {unix}:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind({folder} + "/s")
    listener.listen()
    base = {folder} + "/s"
else:
    listener = socket.create_server(("127.0.0.1", 0))
    base = "http://127.0.0.1:%d" % listener.getsockname()[1]
server = WSGIServer(listener, app, log=None)
server.start()
greendata.observe.start()
gate = Gate()
greendata.run(gate, label="the [bold]long\\x1b[31m report", key="tenant 7")
gate.wait_arrived()
greendata.run(int, "x", label="broken").wait()
while not greendata.observe.stats().history:
    gevent.sleep(0.01)
code = main([argument.replace("BASE", base).replace("HOST", base.rpartition("/")[2]) for argument in {arguments}])
gate.open()
sys.exit(code)
"""


def run(*arguments: str, **env: str) -> Finished:
    return run_python(["-m", "greendata", *arguments], env={"COLUMNS": "140", "WEB_CONCURRENCY": None, **env})


def served(*arguments: str, folder: Path | None = None) -> Finished:
    code = SERVED.format(unix=folder is not None, folder=repr(str(folder)), arguments=list(arguments))
    return run_python(code, env={"COLUMNS": "160"})


def fails(finished: Finished, text: str) -> None:
    """Assert that the command exited with status 2 and a reason, without a traceback."""
    assert finished.returncode == 2, finished.stderr
    assert text in finished.stderr
    assert "Traceback" not in finished.stderr
    assert finished.stdout == ""


def test_the_doctor_prints_a_line_for_each_finding() -> None:
    finished = run("doctor")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines()[0].startswith("warn  gevent patch    not patched: ")
    assert finished.stdout.splitlines()[-1] == "no failures, 2 warnings, 4 checks are ok"


def test_the_doctor_as_json_and_its_exit_code() -> None:
    finished = run("doctor", "--json", POLARS_MAX_THREADS="1")
    assert finished.returncode == 1
    found = json.loads(finished.stdout)
    assert found["ok"] is False
    assert [finding["name"] for finding in found["findings"] if finding["verdict"] == "fail"] == ["threads"]


def test_the_doctor_imports_a_module_first(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("from gevent import monkey\nmonkey.patch_all()\n", encoding="utf-8")
    finished = run("doctor", "shop", "--workers", "1", PYTHONPATH=f"{tmp_path}:.", GREENDATA_AUTOPATCH="1")
    assert finished.returncode == 0, finished.stderr
    assert "ok    gevent patch" in finished.stdout
    assert "ok    Polars patch" in finished.stdout


QUERY = "import polars as pl\n\ndef load():\n    return pl.select(1)\n\nTABLE = load()\napp = object()\n"


@pytest.mark.parametrize("target", ["shop", "shop:app", "shop:load()"])
def test_the_doctor_tells_a_query_at_import(tmp_path: Path, target: str) -> None:
    (tmp_path / "shop.py").write_text(QUERY, encoding="utf-8")
    finished = run("doctor", target, PYTHONPATH=f"{tmp_path}:.")
    assert finished.returncode == 0, finished.stderr
    assert f"warn  query at import  importing {target} runs a query, first at {tmp_path}/shop.py:4 in load: with " in (
        finished.stdout
    )
    assert run("doctor", target, "--strict", PYTHONPATH=f"{tmp_path}:.").returncode == 1


def test_a_query_in_a_factory_is_one_at_import(tmp_path: Path) -> None:
    source = "import polars as pl\n\ndef make():\n    pl.select(1)\n    return object()\n"
    (tmp_path / "shop.py").write_text(source, encoding="utf-8")
    assert "shop.py:4 in make" in run("doctor", "shop:make()", PYTHONPATH=f"{tmp_path}:.").stdout
    assert "query at import" not in run("doctor", "shop:make", PYTHONPATH=f"{tmp_path}:.").stdout


def test_the_doctor_examines_a_module_as_under_gunicorns_gevent_worker(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("import polars, ssl, socket\nfrom time import sleep\n", encoding="utf-8")
    finished = run("doctor", "--gevent", "--strict", "shop:sleep", PYTHONPATH=f"{tmp_path}:.", GREENDATA_AUTOPATCH="1")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert finished.stdout.splitlines()[0] == "ok    gevent patch      the standard library is cooperative"
    assert finished.stdout.splitlines()[-1] == "no failures, no warnings, 9 checks are ok"
    assert finished.stderr == ""


def test_the_doctor_names_who_imported_a_driver_that_blocks(tmp_path: Path) -> None:
    for folder in ("psycopg2", "shop"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "psycopg2" / "extensions.py").write_text("def get_wait_callback(): pass\n", encoding="utf-8")
    (tmp_path / "shop" / "db.py").write_text(
        "def connect():\n    import psycopg2.extensions\n\nconnect()\n", encoding="utf-8"
    )
    finished = run("doctor", "--gevent", "shop.db", PYTHONPATH=f"{tmp_path}:.")
    assert finished.returncode == 1
    assert f"psycopg 3; imported by {tmp_path}/shop/db.py:2 in connect" in finished.stdout


def test_strict_counts_warnings(tmp_path: Path) -> None:
    assert run("doctor").returncode == 0
    finished = run("doctor", "--strict", "--json")
    assert (finished.returncode, json.loads(finished.stdout)["ok"]) == (1, False)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("1 / 0", "importing shop raised ZeroDivisionError: division by zero"),
        ("import nobody", "No module named 'nobody'"),
        ("raise SystemExit('set SHOP_KEY')", "importing shop raised SystemExit: set SHOP_KEY"),
    ],
)
def test_a_module_that_cannot_be_imported(tmp_path: Path, source: str, text: str) -> None:
    (tmp_path / "shop.py").write_text(source, encoding="utf-8")
    fails(run("doctor", "shop", PYTHONPATH=f"{tmp_path}:."), text)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "the following arguments are required"),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        (["doctor", "--workers", "0"], "got 0, expected a whole number >= 1"),
        (["doctor", "--workers", "two"], "got two, expected a whole number >= 1"),
        (["doctor", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["top"], "the following arguments are required: address"),
        (["top", "nowhere", "--interval", "0"], "expected seconds from 0.1 to 3600"),
        (["top", "nowhere", "--interval", "often"], "got often, expected seconds from 0.1 to 3600"),
        (["top", "nowhere", "--header", "nonsense"], "expected NAME:VALUE"),
        (["top", "/nowhere"], "the path of an existing Unix socket, got '/nowhere'"),
        (["top", "http://[::1"], "address must be a URL"),
        (["top", "http://127.0.0.1:99999"], "address must be a URL"),
        (["top", "http:///x"], "a URL with a host"),
        (["top", "http://127.0.0.1:1"], "no snapshot from http://127.0.0.1:1: Connection refused"),
        (["top", "http://127.0.0.1:1", "--header", "A: b\r\nc: d"], "headers must be headers that HTTP can send"),
    ],
)
def test_failures_are_printed_on_stderr(arguments: list[str], text: str) -> None:
    fails(run(*arguments), text)


@pytest.mark.parametrize("target", ["shop.py", "./shop.py", "/srv/shop"])
def test_a_file_is_not_a_module(tmp_path: Path, target: str) -> None:
    (tmp_path / "shop.py").touch()
    fails(run("doctor", target, PYTHONPATH=f"{tmp_path}:."), "give the name of a module, as in `import service`, not")


def test_a_name_that_the_module_lacks(tmp_path: Path) -> None:
    (tmp_path / "shop.py").touch()
    fails(run("doctor", "shop:app", PYTHONPATH=f"{tmp_path}:."), "importing shop:app raised AttributeError: module")


def test_top_shows_one_frame() -> None:
    finished = served("top", "--once", "BASE")
    assert finished.returncode == 0, finished.stderr
    shown = finished.stdout
    assert "running 1  queued 0" in shown
    assert "hub lag" in shown
    assert "the [bold]long·[31m report" in shown  # neither markup nor an escape code
    assert "tenant 7" in shown
    assert "ValueError" in shown
    assert "by label, with 95 % within" in shown
    assert "waiting" not in shown
    assert "\x1b" not in shown


def test_top_shows_the_queue_the_origin_of_queries_and_equal_failures_as_one() -> None:
    snapshot = json.loads(observe.snapshot_json())
    job = {"id": "1", "label": "report", "key": None, "worker": "w", "seconds": 1.0, "abandoned": False}
    job |= {"internal": False, "origin": "GET /report\x1b[31m"}
    own = job | {"label": "close", "internal": True, "origin": None}
    times = {"run": [0.05, 0.5, None], "wait": [0.001, 0.001, 0.001]}
    snapshot |= {
        "jobs": [job, own],
        "queue": [job | {"label": "next"}, own],
        "queries": {"running": 1, "queued": 1, "done": 7, "failed": 0, "cancelled": 0, "internal_jobs": 20},
        "by_label": [{"label": "report", "done": 1234, "failed": 0, "cancelled": 0, **times}],
        "failure_groups": [{"label": "export *", "error": "KeyError", "count": 3, "at": snapshot["at"], "text": None}],
    }
    console = Console(file=io.StringIO(), width=140)
    with console.capture() as shown:
        console.print(top.frame(snapshot))
    text = shown.get()
    for line in ("1 waiting", "next GET /report·[31m", "close (internal)", "KeyError (3 times)", "internal jobs 20"):
        assert line in text
    assert re.search(r"report +│ 1,234 │ +0 │ +0 │ 500 ms │ +1 ms", text)


def test_top_over_a_unix_socket(tmp_path: Path) -> None:
    finished = served("top", "--once", "BASE", folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "tenant 7" in finished.stdout


def test_top_with_a_header_and_with_a_password() -> None:
    assert served("top", "--once", "BASE/key", "--header", "X-Key: s3cret").returncode == 0
    assert served("top", "--once", "http://a:b@HOST/password").returncode == 0
    fails(
        served("top", "--once", "BASE/key"),
        "not allowed: it responds with 403 Forbidden; pass what dashboard_auth expects: top --header NAME:VALUE",
    )


@pytest.mark.parametrize(
    "address",
    [
        "http://ann:s3cret@127.0.0.1:1/?key=s3cret",
        "http://ann:s3cret@127.0.0.1:port/",
        "http://ann:s3cret/4@127.0.0.1/",
        "http://ann:s3cret@/",
        "ftp://ann:s3cret@127.0.0.1/",
    ],
)
def test_no_error_contains_a_secret(address: str) -> None:
    for end in ("", "\n"):
        with pytest.raises(errors.GreenDataError) as caught:
            client.fetch(address, {"X-Key": f"s3cret{end}"})
        assert "s3cret" not in f"{caught.value} {caught.value!r}"


def test_top_of_a_server_that_asks_for_a_password() -> None:
    fails(
        served("top", "--once", "BASE/password"),
        "not allowed: it responds with 401 No; pass what dashboard_auth expects",
    )


def test_top_of_an_address_without_a_snapshot() -> None:
    fails(served("top", "--once", "BASE/html"), "did not return a snapshot of greendata, got '<html>a page</html>'")
    fails(served("top", "BASE/json"), "give the URL of its stats.json")
    fails(served("top", "BASE/none"), "it responds with 404 Not Found")


def test_top_goes_on_until_an_error_ends_it() -> None:
    snapshots = [json.loads(observe.snapshot_json()) for _ in range(3)]

    def look() -> dict[str, Any]:
        if not snapshots:
            raise errors.NoSnapshot("here", "it is gone")
        return snapshots.pop()

    file = io.StringIO()
    with pytest.raises(errors.NoSnapshot):
        top.follow(look, Console(file=file, width=140), interval=0)
    assert file.getvalue().count("hub lag") == 1  # no terminal: the last frame


def test_top_without_rich_names_the_extra() -> None:
    finished = run_python(
        "import sys; sys.modules['rich.console'] = None\n"
        "from greendata.__main__ import main; sys.exit(main(['top', 'http://127.0.0.1:1']))"
    )
    fails(finished, "pip install 'greendata[cli]'")


def test_demo_and_bench_take_their_own_arguments() -> None:
    demo = run("demo", "--seconds", "-1")
    assert demo.returncode == 2
    assert "python -m examples.demo: error: argument --seconds" in demo.stderr
    bench = run("bench", "nonsense")
    assert bench.returncode == 1
    assert "no part of the bench: nonsense" in bench.stderr


def test_demo_and_bench_outside_of_a_checkout(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, greendata.__main__ as command\n"
        f"command.SOURCE = pathlib.Path({str(tmp_path)!r})\n"
        "sys.exit(command.main(['demo']))"
    )
    fails(run_python(code), f"it is not in {tmp_path}; get the source, and run `make demo` in it")


def test_errors_have_their_standard_parents() -> None:
    assert issubclass(errors.NoSnapshot, ConnectionError)
    assert issubclass(errors.NotASnapshot, ValueError)
    assert issubclass(errors.NoCheckout, FileNotFoundError)
    assert issubclass(errors.NotImportable, ImportError)
    error = errors.NotImportable("shop", ZeroDivisionError("division by zero"))
    assert (error.module, str(error)) == ("shop", "importing shop raised ZeroDivisionError: division by zero")
