"""The example service responds correctly, and the demo compares, draws, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl
import pytest
from flask.testing import FlaskClient

from examples import flask_app, sales
from examples.demo import (
    DemoError,
    Load,
    Machine,
    Outcome,
    Run,
    Silence,
    Span,
    draw,
    drive,
    drive_elsewhere,
    serving,
    table,
)
from examples.demo.figures import quantile
from tests.support.environments import environment
from tests.support.gates import rest
from tests.support.processes import ROOT, run_python

ROWS = 20_000
IDLE = Machine(cores=2, load=0.25)
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sales")


@pytest.fixture
def client(folder: Path) -> FlaskClient:
    return flask_app.create_app(folder, rows=ROWS).test_client()


@pytest.fixture
def sold(client: FlaskClient, folder: Path) -> pl.DataFrame:
    client.get("/report")
    (path,) = folder.iterdir()  # only the finished file, no temporary one
    return pl.read_parquet(path)


def test_ping(client: FlaskClient) -> None:
    assert client.get("/ping").text == "pong\n"


def test_report_has_the_best_quarters_first(client: FlaskClient, sold: pl.DataFrame) -> None:
    rows: list[dict[str, Any]] = client.get("/report?top=1000").get_json()
    assert [row["revenue"] for row in rows] == sorted((row["revenue"] for row in rows), reverse=True)
    best = rows[0]
    start = pl.lit(best["quarter"]).str.to_date()
    of_best = sold.filter(
        pl.col("store") == best["store"], pl.col("day").is_between(start, start.dt.offset_by("3mo"), closed="left")
    )
    assert best["orders"] == of_best.height
    assert best["customers"] == of_best["customer"].n_unique()
    assert best["revenue"] == pytest.approx((of_best["price"] * of_best["quantity"]).sum())
    assert client.get("/report").get_json() == rows[:20]


def test_search_finds_the_largest_sales_of_a_store(client: FlaskClient, sold: pl.DataFrame) -> None:
    rows: list[dict[str, Any]] = client.get("/search?store=7&limit=1000").get_json()
    assert len(rows) == sold.filter(pl.col("store") == 7).height
    assert [row["revenue"] for row in rows] == sorted((row["revenue"] for row in rows), reverse=True)
    day = rows[0]["day"]
    assert client.get(f"/search?store=7&day={day}").get_json() == [row for row in rows if row["day"] == day]


def test_export_as_csv_has_every_row(client: FlaskClient, sold: pl.DataFrame) -> None:
    answer = client.get("/export?format=csv")
    assert answer.content_type == "text/csv; charset=utf-8; header=present"
    assert pl.read_csv(answer.data, schema_overrides=sold.schema).equals(sold)


def test_export_as_ndjson_has_every_row(client: FlaskClient, sold: pl.DataFrame) -> None:
    answer = client.get("/export?format=ndjson")
    assert answer.content_type == "application/x-ndjson"
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert rows == sold.with_columns(pl.col("day").cast(pl.String)).to_dicts()


def test_export_of_one_store(client: FlaskClient, sold: pl.DataFrame) -> None:
    got = pl.read_csv(client.get("/export?store=7&format=csv").data)
    assert got.height == sold.filter(pl.col("store") == 7).height


@pytest.mark.usefixtures("sold")
def test_a_client_that_leaves_ends_the_query(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[weakref.ref[Any]] = []
    collect_batches = pl.LazyFrame.collect_batches

    def noted(lf: pl.LazyFrame, **options: Any) -> Any:
        batches = collect_batches(pl.concat([lf] * 100), **options)  # so many that it is not read to its end in advance
        opened.append(weakref.ref(batches))
        return batches

    monkeypatch.setattr(pl.LazyFrame, "collect_batches", noted)
    answer = client.get("/export?format=ndjson", buffered=False)
    assert next(answer.iter_encoded())
    assert opened[0]() is not None
    answer.close()
    while opened[0]() is not None:
        rest()


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/report?top=0", "top"),
        ("/report?top=many", "top"),
        ("/report?top=1e3", "top"),
        ("/search", "store"),
        ("/search?store=200", "store"),
        ("/search?store=-1", "store"),
        ("/search?store=%C2%B2", "store"),
        ("/search?store=" + "9" * 5000, "store"),
        ("/search?store=7&limit=100000", "limit"),
        ("/search?store=7&day=yesterday", "day"),
        ("/export?format=xml", "format"),
        ("/export?store=x", "store"),
    ],
)
def test_bad_input_is_named(client: FlaskClient, path: str, named: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 400
    told = answer.get_json()
    assert told.get("error", told.get("detail")).startswith(f"{named}: ")


def test_an_unknown_page_is_not_a_server_error(client: FlaskClient) -> None:
    assert client.get("/nowhere").status_code == 404


def test_workers_that_start_at_once_make_one_whole_file(tmp_path: Path) -> None:
    ask = "from examples.legacy_app import app; print(len(app.test_client().get('/report').get_json()))"
    env = {**os.environ, "SALES_DATA": str(tmp_path), "SALES_ROWS": "200000"}
    workers = [
        subprocess.Popen([sys.executable, "-c", ask], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [worker.communicate(timeout=60)[0] for worker in workers] == ["20\n"] * 3
    (path,) = tmp_path.iterdir()
    assert pl.scan_parquet(path).select(pl.len()).collect().item() == 200_000


def test_a_file_that_cannot_be_made_leaves_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: False)  # as for two workers at once, one of which finds a folder
    (tmp_path / "sales-10.parquet").mkdir()
    with pytest.raises(IsADirectoryError):
        sales.sales_file(tmp_path, 10)
    assert [path.name for path in tmp_path.iterdir()] == ["sales-10.parquet"]


def test_the_other_servers_answer_the_same(surroundings: dict[str, str]) -> None:
    """The plain service, and those of the bench, which change its view."""
    answers = []
    for module in ("examples.legacy_app", "tests.bench.async_app", "tests.bench.pool_app"):
        ask = f"from {module} import app; print(app.test_client().get('/report').get_json())"
        answers.append(run_python(ask, env=surroundings))
    assert answers == [(0, answers[0].stdout, "")] * 3
    assert "revenue" in answers[0].stdout


def test_the_plain_side_has_nothing_of_greendata_and_the_other_has(tmp_path: Path) -> None:
    """In an environment like that of `make demo`, which has what greendata requires, but not greendata itself."""
    python = environment(tmp_path / "environment", "web")
    for part in (tmp_path / "environment").glob("lib/*/site-packages/greendata*"):
        part.unlink() if part.is_symlink() else shutil.rmtree(part)
    finished = run_python(
        """
        import json
        from examples.demo.__main__ import VARIANTS
        from examples.demo.load import fetch
        from examples.demo.server import serving
        for name, env in VARIANTS:
            with serving("tests.support.loaded_app:app", env=env) as server:
                print(name, *json.loads(fetch(server.host, server.port, "/modules")[1]))
        """,
        python=python,
    )
    assert finished.stderr == ""
    plain, green = finished.stdout.splitlines()
    assert plain == "plain"
    assert "greendata.query.patching.patch" in green.split()


def test_a_wrong_number_of_rows_is_the_default_in_the_plain_service(surroundings: dict[str, str]) -> None:
    ask = "from examples.legacy_app import app; print(len(app.test_client().get('/report?top=x').get_json()))"
    assert run_python(ask, env=surroundings) == (0, "20\n", "")


def test_the_index_lists_every_route_and_has_forms(client: FlaskClient) -> None:
    page = client.get("/").text
    for path in ("/ping", "/report", "/search", "/export", "/livez", "/readyz"):
        assert f"<code>{path}</code>" in page
    assert page.count("<form") == 3
    assert "/greendata/" not in page


def test_the_index_leads_to_the_dashboard_in_debug_mode(surroundings: dict[str, str]) -> None:
    ask = """
        from examples.flask_app import app
        client = app.test_client()
        print('href="/greendata/"' in client.get("/").text, client.get("/greendata/").status_code)
    """
    assert run_python(ask, env=surroundings | {"FLASK_DEBUG": "1"}) == (0, "True 200\n", "")


def run_of(name: str, *silences: tuple[float, float], ping: float = 0.002) -> Run:
    reports = (Span(0, 9.5, 10.5), Span(1, 10.0, 12.0), Span(0, 10.5, 14.5))
    pings = (Span(0, 10.0, 10.0 + ping), Span(0, 11.0, 11.0 + ping))
    return Run(name, Outcome(10.0, 12.0, pings, reports), tuple(Silence(*silence) for silence in silences))


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (0.991, 100.0), (1.0, 100.0)])
def test_quantile(share: float, expected: float) -> None:
    assert quantile([float(number) for number in range(100, 0, -1)], share) == expected


def test_quantile_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_a_report_counts_by_its_share_of_the_window() -> None:
    assert run_of("x").outcome.reports_per_second == pytest.approx((0.5 + 1.0 + 1.5 / 4.0) / 2.0)


def test_the_longest_silence_is_one_of_the_window() -> None:
    assert run_of("x", (1.0, 9.0), (9.0, 10.1), (10.5, 10.6), (12.5, 20.0)).longest_silence == pytest.approx(1.1)
    assert run_of("x").longest_silence == 0.0


def test_table() -> None:
    text = table(run_of("plain", (10.0, 11.0), ping=1.25), run_of("green", (10.0, 10.01), ping=0.0025))
    assert text.splitlines() == [
        "                                        plain           green           ratio",
        "-----------------------------------------------------------------------------",
        "ping p50                           1,250.0 ms          2.5 ms          0.002x",
        "ping p99                           1,250.0 ms          2.5 ms          0.002x",
        "ping worst                         1,250.0 ms          2.5 ms          0.002x",
        "pings                                    2               2                 1x",
        "reports a second                      0.94            0.94                 1x",
        "longest silence of the hub         1,000.0 ms         10.0 ms           0.01x",
    ]


def test_picture_has_a_half_for_each_run_and_the_same_scales() -> None:
    runs = [run_of("plain & <old>", (10.0, 11.9)), run_of("green", (10.0, 10.004))]
    picture = ElementTree.fromstring(draw(runs, IDLE))
    upper, lower = (group for group in picture.findall(f"{SVG}g"))
    assert [half.findtext(f"{SVG}text") for half in (upper, lower)] == ["plain & <old>", "green"]
    scales = [[mark.text for mark in half.iter(f"{SVG}text") if mark.get("class") == "mild"] for half in (upper, lower)]
    assert scales[0] == scales[1]
    assert {"1 ms", "1 s", "0 s", "2 s", "reports", "pings"} <= set(scales[0])
    assert [len(list(half.iter(f"{SVG}rect"))) for half in (upper, lower)] == [3, 3]
    pings = [path.get("d", "") for path in picture.iter(f"{SVG}path") if path.get("class") == "ping"]
    assert [boxes.count("M") for boxes in pings] == [2, 2]
    assert str(IDLE) in [text.text for text in picture.iter(f"{SVG}text")]


def test_picture_leaves_out_what_is_not_of_the_window() -> None:
    def bars(*silences: tuple[float, float]) -> int:
        picture = ElementTree.fromstring(draw([run_of("x", *silences)], IDLE))
        (path,) = (path for path in picture.iter(f"{SVG}path") if path.get("class") == "silence")
        return path.get("d", "").count("M")

    assert bars() == 0
    assert bars((8.0, 9.0), (9.9, 10.1), (10.2, 10.2005), (11.0, 11.5), (12.0, 13.0)) == 2


def test_picture_of_nothing() -> None:
    with pytest.raises(ValueError, match="no runs"):
        draw([], IDLE)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_taken_port_is_named(taken_port: int) -> None:
    with pytest.raises(DemoError, match=f"port {taken_port} of 127.0.0.1 is not free"), serving(port=taken_port):
        pytest.fail("served on a port that was taken")


def test_a_server_that_dies_is_quoted() -> None:
    with pytest.raises(DemoError, match=r"(?s)died with code 3.*no_such_module"), serving("no_such_module:app"):
        pytest.fail("served an app that is not there")


def test_a_missing_gunicorn_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DemoError, match="gunicorn is not installed"), serving():
        pytest.fail("served without gunicorn")


@pytest.mark.parametrize("way", [drive, drive_elsewhere])
def test_a_server_that_is_not_there_is_reported(way: Any) -> None:
    with socket.socket() as deaf:  # bound, so that the port is taken; not listening, so that it refuses connections
        deaf.bind(("127.0.0.1", 0))
        with pytest.raises(DemoError, match="a client failed: ConnectionRefusedError"):
            way(Load(seconds=0.1, warmup=0.1), host="127.0.0.1", port=deaf.getsockname()[1])


@pytest.fixture
def surroundings(tmp_path: Path) -> dict[str, str]:
    """Return an environment with small data. Its processes are recognized by their folder for temporary files."""
    for name in ("tmp", "home"):
        (tmp_path / name).mkdir()
    return {
        "HOME": str(tmp_path / "home"),
        "SALES_DATA": str(tmp_path / "data"),
        "SALES_ROWS": str(ROWS),
        "TMPDIR": str(tmp_path / "tmp"),
        "XDG_RUNTIME_DIR": str(tmp_path / "home"),
    }


def alive_in(surroundings: dict[str, str]) -> list[int]:
    """Return the processes that were started with this environment and have not ended."""
    mark = f"TMPDIR={surroundings['TMPDIR']}".encode()
    numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return [number for number in numbers if mark in environment_of(number)]


def environment_of(process: int) -> list[bytes]:
    try:
        return Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, PermissionError, ProcessLookupError):  # it has ended, or belongs to another user
        return []


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_short_demo_compares_draws_and_leaves_nothing_else(surroundings: dict[str, str], tmp_path: Path) -> None:
    picture = tmp_path / "demo.svg"
    order = ["-m", "examples.demo", "--seconds", "0.6", "--warmup", "0.2", "--picture", str(picture)]
    finished = run_python(order, env=surroundings, timeout=100)
    assert finished.stderr == ""
    assert finished.returncode == 0
    words = ("plain: loading", "greendata: loading", "ping p99", "reports a second", "longest silence")
    for word in ("before the runs", *words):
        assert word in finished.stdout
    assert finished.stdout.endswith(f"{picture}\n")
    halves = ElementTree.parse(picture).getroot().findall(f"{SVG}g/{SVG}text")
    assert {"plain", "greendata"} <= {text.text for text in halves}
    assert_all_end(surroundings)
    assert files_in(tmp_path) == {"demo.svg", f"data/sales-{ROWS}.parquet"}


@pytest.fixture
def demo(surroundings: dict[str, str], tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A demo that would take an hour."""
    order = [sys.executable, "-m", "examples.demo", "--seconds", "3000", "--picture", str(tmp_path / "demo.svg")]
    env = {**os.environ, **surroundings}
    with subprocess.Popen(
        order, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


def read_until(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    assert any(said == f"{line}\n" for said in process.stdout), f"the demo ended before it said {line!r}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stage", ["starting", "loading"])
def test_a_signal_ends_the_demo_and_all_it_started(
    demo: subprocess.Popen[str], surroundings: dict[str, str], tmp_path: Path, number: signal.Signals, stage: str
) -> None:
    read_until(demo, f"plain: {stage}")
    while len(alive_in(surroundings)) < 2:  # a process that was just started has no environment for a moment
        assert demo.poll() is None, "the demo ended by itself"
        rest()
    demo.send_signal(number)
    _, stderr = demo.communicate(timeout=60)
    assert stderr == f"demo: stopped by {number.name}\n"
    assert demo.returncode == 128 + number
    assert_all_end(surroundings)
    assert files_in(tmp_path) <= {f"data/sales-{ROWS}.parquet"}


def test_a_demo_that_is_killed_takes_its_server_with_it(
    demo: subprocess.Popen[str], surroundings: dict[str, str]
) -> None:
    read_until(demo, "plain: loading")
    demo.kill()
    demo.wait()
    assert_all_end(surroundings)


def assert_all_end(surroundings: dict[str, str]) -> None:
    """Fail if a process goes on; one that was killed may need a moment to end."""
    for process in alive_in(surroundings):
        await_end(process)
    assert alive_in(surroundings) == []


def await_end(process: int) -> None:
    """Wait until `process`, which is not a child of this process, has ended."""
    try:
        handle = os.pidfd_open(process)
    except ProcessLookupError:
        return
    try:
        assert select.select([handle], [], [], 60.0)[0], f"process {process} outlived its owner"
    finally:
        os.close(handle)


@pytest.mark.parametrize(
    "wrong", [["--seconds", "0"], ["--seconds", "nan"], ["--port", "70000"], ["--ping-clients", "0"]]
)
def test_a_wrong_option_is_refused(wrong: list[str]) -> None:
    finished = run_python(["-m", "examples.demo", *wrong])
    assert finished.returncode == 2
    assert f"argument {wrong[0]}: " in finished.stderr
