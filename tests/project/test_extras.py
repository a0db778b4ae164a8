"""Each extra alone suffices for its purpose, and code that needs a missing library names the extra to install."""

from __future__ import annotations

import textwrap
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.support.environments import environment
from tests.support.processes import children_end, run_python
from tests.support.servers import Server

pytestmark = pytest.mark.once("patched")  # each test starts a process

# The library, the code that needs it, the text of the error, and the extra.
NEEDS = {
    "flask": ("flask", "import greendata.web.flask", "greendata.web.flask needs Flask", "flask"),
    "gunicorn": ("gunicorn", "import greendata.web.gunicorn", "greendata.web.gunicorn needs gunicorn", "gunicorn"),
    "tqdm": ("tqdm", "greendata.stages.map(abs, [1], progress='pages')", "progress= needs tqdm", "progress"),
    "prometheus-client": (
        "prometheus_client",
        "import greendata.observe.metrics",
        "greendata.observe.metrics needs prometheus-client",
        "metrics",
    ),
    "rich": ("rich", "import greendata.observe.top", "greendata.observe.top needs rich", "cli"),
    "Ray": ("ray", "greendata.RayTasks()", "RayTasks needs Ray", "ray"),
    "ada-url": ("ada_url", "import greendata.crawl.urls", "greendata.crawl needs ada-url", "crawl"),
    "protego": ("protego", "import greendata.crawl.robots", "greendata.crawl needs protego", "crawl"),
    "selectolax": ("selectolax", "import greendata.crawl.html", "greendata.crawl needs selectolax", "crawl"),
    "cloudpickle": (
        "cloudpickle",
        "from greendata.crawl import fetch; fetch(user_agent='x', on='process')",
        "on='process' needs cloudpickle",
        "process",
    ),
    "PostgreSQL": (
        "adbc_driver_postgresql",
        "greendata.read_sql('SELECT 1', 'postgresql://localhost/shop')",
        "this database needs adbc_driver_postgresql",
        "sql",
    ),
}


@pytest.mark.parametrize(("library", "use", "needs", "extra"), NEEDS.values(), ids=NEEDS.keys())
def test_a_missing_library_names_its_extra(library: str, use: str, needs: str, extra: str) -> None:
    finished = run_python(
        f"""
        import sys
        sys.modules[{library!r}] = None  # as if it were not installed
        import greendata
        try:
            {use}
        except ImportError as error:
            print(error)
        """
    )
    assert finished == (0, f"{needs}; install it with: pip install 'greendata[{extra}]'\n", "")


def test_greendata_itself_does_without_them() -> None:
    missing = dict.fromkeys(library for library, *_ in NEEDS.values())
    finished = run_python(f"import sys; sys.modules.update({missing}); import greendata; print(greendata.stats().done)")
    assert finished == (0, "0\n", "")


# The purpose of each extra, as a new user would try it, in an environment that has nothing else.
COMMANDS = {
    None: """
        import gevent.monkey; gevent.monkey.patch_all()
        import polars as pl, greendata
        from greendata.__main__ import main
        assert greendata.is_polars_patched()
        print(greendata.collect(pl.LazyFrame({"a": [1]})).get().height, main(["doctor"]))

        def same(value):
            return value

        with greendata.ProcessEngine(workers=1) as engine:
            for work in (lambda: engine.call(same, 1), lambda: pl.LazyFrame().map_batches(same).collect(engine=engine)):
                try:
                    work()
                except greendata.errors.NotSendable as error:
                    print(str(error).rpartition("; ")[2])
    """,
    "flask": """
        import polars as pl
        from flask import Flask
        from greendata.web.flask import GreenData, health, respond

        app = Flask("service")
        GreenData(app)
        app.register_blueprint(health())
        app.get("/report")(lambda: respond(pl.DataFrame({"a": [1]})))
        print(app.test_client().get("/report?format=csv").text)
        print(app.test_cli_runner().invoke(args=["greendata", "status"]).exit_code)
    """,
    "progress": """
        from greendata import stages
        print(stages.map(abs, [-1, 2], progress="pages").get())
    """,
    "metrics": """
        from greendata import observe
        from greendata.observe.metrics import Metrics
        observe.start()
        print(b"greendata_" in Metrics().exposition()[0])
    """,
    "cli": """
        import gevent, gevent.pywsgi, subprocess, sys
        from greendata import observe

        def snapshot(environ, start_response):
            start_response("200 OK", [("Content-Type", "application/json")])
            return [observe.snapshot_json().encode()]

        observe.start()
        server = gevent.pywsgi.WSGIServer(("127.0.0.1", 0), snapshot, log=None)
        server.start()
        command = [sys.executable, "-m", "greendata", "top", "--once", f"http://127.0.0.1:{server.server_port}/"]
        from gevent.subprocess import run
        print(run(command, stdout=subprocess.PIPE, text=True).returncode)
    """,
    "crawl": """
        import gevent.monkey; gevent.monkey.patch_all()
        from greendata.crawl import crawl
        from greendata.testing import Site
        with Site({"/": "<h1>Shop</h1><a href=/a>a</a>", "/a": "<title>A</title>"}) as site:
            pages = crawl(site.url("/"), user_agent="testbot (test@example.com)", allow_private=True, delay=0)
            print([page.title for page in pages], pages.stats().errors)
    """,
    "process": """
        import greendata, polars as pl
        with greendata.ProcessEngine(workers=1) as engine:
            frame = pl.LazyFrame().select(a=pl.int_range(1_000_000)).collect(engine=engine)
            print(frame["a"].sum(), engine.call(lambda: 1 + 1))
    """,
    "ray": """
        import greendata, polars as pl
        with greendata.RayTasks("127.0.0.1:1") as engine:
            try:
                pl.LazyFrame({"a": [1]}).collect(engine=engine)
            except greendata.errors.ClusterUnreachable as error:
                print(error.reason)
    """,
    "sql": """
        import tempfile
        import greendata, polars as pl
        with tempfile.TemporaryDirectory() as folder:
            shop = folder + "/shop.sqlite"
            greendata.write_sql(pl.DataFrame({"a": [1, 2]}), "t", shop).get()
            print(greendata.read_sql("SELECT sum(a) AS a FROM t", shop).get().item())
        try:
            greendata.read_sql("SELECT 1", "postgresql://127.0.0.1:1/shop").get()
        except greendata.DatabaseUnreachable:
            print("no server there")
    """,
}
ANSWERS = {
    None: "1 0\ninstall cloudpickle: pip install 'greendata[process]'",
    "flask": "a\n1\n0",
    "progress": "[1, 2]",
    "metrics": "True",
    "cli": "0",
    "crawl": "[None, 'A'] {}",
    "process": "499999500000 2",
    "ray": "ConnectionRefusedError: [Errno 111] Connection refused",
    "sql": "3\nno server there",
}


@pytest.mark.parametrize("extra", COMMANDS, ids=str)
def test_an_extra_alone_is_enough_for_its_command(extra: str | None, tmp_path: Path) -> None:
    python = environment(tmp_path / "environment", extra)
    env = {"GREENDATA_AUTOPATCH": None if extra else "1"}
    finished = run_python(COMMANDS[extra], env=env, warnings="default", python=python)
    assert finished.returncode == 0, finished.stderr
    lines = finished.stdout.splitlines()
    assert [line for line in ANSWERS[extra].splitlines() if line not in lines] == []


SERVICES = {
    "gunicorn": """
        import polars as pl

        def app(environ, start_response):
            start_response("200 OK", [])
            return [str(pl.DataFrame({"a": [1, 2]}).filter(pl.col("a") > 1).item()).encode()]
    """,
    "web": """
        import polars as pl
        from flask import Flask
        from greendata.web.flask import GreenData, respond

        app = Flask("service")
        GreenData(app)
        app.get("/")(lambda: respond(pl.LazyFrame({"a": [1, 2]}).filter(pl.col("a") > 1), "csv"))
    """,
}
WORKERS = ("greendata.web.gunicorn.GreenWorker", "gevent")


@children_end
@pytest.mark.parametrize("worker", WORKERS)
@pytest.mark.parametrize("extra", SERVICES)
def test_an_extra_alone_is_enough_for_its_server(extra: str, worker: str, tmp_path: Path) -> None:
    python = environment(tmp_path / "environment", extra)
    service = textwrap.dedent(SERVICES[extra])
    server = Server(tmp_path, service, ["-k", worker], {"GREENDATA_AUTOPATCH": "1"}, python=python)
    try:
        assert server.ask("/").split() == {"gunicorn": ["2"], "web": ["a", "2"]}[extra]
    finally:
        server.terminate()
        assert server.wait_end() == 0, server.read_log()


def test_every_extra_for_users_is_tried() -> None:
    for_developers = {"bench", "dev", "docs", "test"}
    declared = set(distribution("greendata").metadata.get_all("Provides-Extra") or ())
    assert declared - for_developers == {*COMMANDS, *SERVICES} - {None}
