"""The keys in an app's config: those of the pool, unknown ones, and a process without the patch of Polars."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
from flask import Flask

import greendata
from greendata.errors import BadSetting
from greendata.pool import pool
from greendata.startup.environment import APP_KEYS
from greendata.web import config
from greendata.web.flask import GreenData
from tests.conftest import Finished, run_python


def app_with(**keys: object) -> Flask:
    app = Flask("service")
    app.config.update(keys)
    return app


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    before = pool.shared.settings
    yield
    pool.configure(
        max_workers=before.max_workers,
        max_queue=before.max_queue,
        nice=before.nice,
        stuck_after=before.stuck_after,
        exit_timeout=before.exit_timeout,
    )


def test_settings_of_the_pool_reach_it() -> None:
    GreenData(
        app_with(GREENDATA_MAX_WORKERS=3, GREENDATA_MAX_QUEUE="70", GREENDATA_STUCK_AFTER="60.5", GREENDATA_NICE=None)
    )
    settings = pool.shared.settings
    assert (settings.max_workers, settings.max_queue, settings.stuck_after) == (3, 70, 60.5)
    assert settings.nice == greendata.pool.settings.Settings.from_environment().nice


def test_an_app_without_settings_of_the_pool_changes_none() -> None:
    pool.configure(max_workers=5)
    GreenData(app_with(GREENDATA_MAX_WORKERS=""))
    assert pool.shared.settings.max_workers == 5


@pytest.mark.parametrize(
    ("name", "value"),
    [("GREENDATA_MAX_WORKERS", "many"), ("GREENDATA_MAX_WORKERS", 0), ("GREENDATA_NICE", 20), ("GREENDATA_NICE", True)],
)
def test_a_setting_that_cannot_be_used_is_an_error_and_changes_nothing(name: str, value: object) -> None:
    before = pool.shared.settings
    with pytest.raises(BadSetting):
        GreenData(app_with(GREENDATA_MAX_QUEUE=7, **{name: value}))
    assert pool.shared.settings == before


def test_an_unknown_key_is_a_warning_with_the_nearest_one() -> None:
    text = r"^GREENDATA_REQUEST_TIMOUT is not a key of greendata, in the config of 'service'; did you mean "
    with pytest.warns(RuntimeWarning, match=text + r"GREENDATA_REQUEST_TIMEOUT\?$") as caught:
        GreenData(app_with(GREENDATA_REQUEST_TIMOUT=5))
    assert caught[0].filename == __file__
    with pytest.warns(RuntimeWarning, match="GREENDATA_XYZ is not a key of greendata, .*; there are GREENDATA_DASH"):
        GreenData(app_with(GREENDATA_XYZ=5))


def test_a_variable_of_the_environment_has_no_effect_in_the_config() -> None:
    with pytest.warns(RuntimeWarning, match="GREENDATA_AUTOPATCH has no effect in the config of 'service'; it is a"):
        GreenData(app_with(GREENDATA_AUTOPATCH="1"))


def test_known_keys_and_those_of_others_give_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "GreenData.*Polars is not patched")
        app = app_with(GREENDATABASE=1, GREENDATA_MAX_BODY=5, **{f"{name}": None for name in APP_KEYS[4:]})
        GreenData(app)
    assert set(config.DEFAULTS) <= set(APP_KEYS)


def test_the_config_applies_if_the_environment_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENDATA_MAX_WORKERS", "4")
    text = "GREENDATA_MAX_WORKERS is 4 in the environment and 3 in the config of 'service', which applies"
    with pytest.warns(RuntimeWarning, match=text):
        GreenData(app_with(GREENDATA_MAX_WORKERS=3))
    assert pool.shared.settings.max_workers == 3
    GreenData(app_with(GREENDATA_MAX_WORKERS="4"))


# -- a process without the patch, which each test starts ----------------------------------------------------------

APP = """
from flask import Flask
from greendata.web.flask import GreenData
app = Flask("shop")
app.add_url_rule("/", "index", lambda: "")
GreenData(app)
GreenData(Flask("second"))
for _ in range(3):
    assert app.test_client().get("/").status_code == 200
"""
PATCH = "from gevent import monkey; monkey.patch_all()\n"
BEGIN = "RuntimeWarning: GreenData('shop'): Polars is not patched: "

in_a_process = pytest.mark.once("patched")


def warned(code: str, **env: str) -> Finished:
    finished = run_python(code, env=env, warnings="default")
    assert finished.returncode == 0, finished.stderr
    return finished


@in_a_process
def test_a_process_without_the_patch_warns_once_with_the_line_that_mends_it() -> None:
    found = warned(PATCH + APP).stderr
    assert found.count("RuntimeWarning") == 1
    assert BEGIN + "a plain lf.collect() blocks all requests of the process, and no deadline ends it. Begin" in found
    assert "with the line `greendata.patch_polars()`, set GREENDATA_AUTOPATCH=1 in its environment, or serve" in found
    assert found.startswith("<string>:7: ")  # the line that makes the extension


SERVED = """
from http.client import HTTPConnection
from threading import Thread
from werkzeug.serving import make_server
server = make_server("127.0.0.1", 0, app)
for _ in range(2):
    thread = Thread(target=server.handle_request)
    thread.start()
    client = HTTPConnection("127.0.0.1", server.server_port)
    client.request("GET", "/")
    client.getresponse().read()
    client.close()
    thread.join()
server.server_close()
"""


@in_a_process
def test_a_server_without_any_patch_is_shown_both_lines() -> None:
    found = warned(APP + SERVED).stderr
    assert found.count("RuntimeWarning") == 1
    assert BEGIN + "gevent has not patched the process" in found
    patch = "`from gevent import monkey; monkey.patch_all(); import greendata; greendata.patch_polars()`"
    assert f"{patch}, or serve" in found
    assert "GREENDATA_AUTOPATCH" not in found  # it would have no effect


@in_a_process
def test_an_app_that_serves_nobody_needs_no_patch() -> None:
    assert warned(APP).stderr == ""


@in_a_process
@pytest.mark.parametrize(
    ("before", "autopatch"),
    [
        (PATCH + "import greendata; greendata.patch_polars()\n", ""),
        ("import greendata; greendata.patch_polars()\n", ""),
        (PATCH, "1"),
    ],
)
def test_a_process_with_the_patch_does_not_warn(before: str, autopatch: str) -> None:
    assert warned(before + APP, GREENDATA_AUTOPATCH=autopatch).stderr == ""


@in_a_process
def test_a_worker_of_gunicorn_is_looked_at_when_it_serves() -> None:
    late = APP.replace("for _", "import greendata; greendata.patch_polars()\nfor _")
    assert warned("import gunicorn.arbiter\n" + PATCH + late).stderr == ""
    found = warned("import gunicorn.arbiter\n" + PATCH + APP).stderr
    assert found.count(BEGIN) == 1
    assert warned(PATCH + APP.partition("for _")[0], FLASK_RUN_FROM_CLI="true").stderr == ""
