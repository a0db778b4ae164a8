"""The ``GREENDATA_*`` keys in the config of an app: defaults, checks, and the settings of the pool.

A key that has no effect gives a warning, and so does a process in which the extension cannot do what it promises
because Polars is not patched.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

from flask import Flask
from gevent.monkey import is_module_patched

from greendata.errors import BadSetting
from greendata.hub.checks import is_count
from greendata.hub.deadline import seconds_of
from greendata.hub.origin import calling_frame
from greendata.pool import pool
from greendata.pool.settings import Settings
from greendata.query.choice import check_engine
from greendata.query.patching.patch import is_polars_patched
from greendata.startup.environment import APP_KEYS, describe_unknown
from greendata.startup.variables import AUTOPATCH, PREFIX, VARIABLES
from greendata.web.body import MAX_BODY
from greendata.web.client import has_client

__all__ = ("apply_config", "warn_unless_patched")

DEFAULTS = {
    "GREENDATA_DASHBOARD": False,
    "GREENDATA_DASHBOARD_PATHS": False,
    "GREENDATA_MAX_BODY": MAX_BODY,
    "GREENDATA_REQUEST_TIMEOUT": None,
}

_has_warned = False  # that Polars is not patched; any thread writes


def apply_config(app: Flask) -> None:
    """Set the defaults of the extension's keys, check their values, and configure the pool.

    A setting of the pool applies to the process. So the app that is made last decides, and the config of an app takes
    precedence over the environment. Text is converted, as in the environment; None and "" count as not set.

    Raises:
        BadSetting: a value is invalid. The pool was not changed.

    Example:
        >>> app = Flask("service")
        >>> app.config["GREENDATA_MAX_WORKERS"] = 8
        >>> apply_config(app)
        >>> app.config["GREENDATA_DASHBOARD"], pool.shared.settings.max_workers
        (False, 8)
    """
    for name, value in DEFAULTS.items():
        app.config.setdefault(name, value)
    _check(app)
    given = {name: value for name, value in app.config.items() if name.startswith(PREFIX)}
    changes = Settings.changes_in(given)
    if changes:
        _warn_of_conflicts(app, changes)
        pool.configure(**changes)
    if "engine" in changes:
        check_engine()
    for name in sorted(given.keys() - set(APP_KEYS)):
        if name in VARIABLES:
            text = f"{name} has no effect in the config of {app.name!r}; it is a variable of the environment"
        else:
            text = describe_unknown(name, APP_KEYS, kind=f"a key of greendata, in the config of {app.name!r}")
        _warn(text)


def warn_unless_patched(app: Flask, environ: dict[str, Any] | None = None) -> None:
    """Warn, once in a process, if Polars is not patched.

    Where gevent has patched the process, the app's set-up decides, with two exceptions: a worker of gunicorn may be
    patched later, by a hook or by `GreenWorker`, and a command of Flask serves no requests. There, the first request
    decides. Where gevent has not patched the process, the first request of a real client does: tests and scripts that
    import the app need no patch.

    Args:
        app: the app that is set up, or handles a request.
        environ: the environment of the request, or None at the set-up.

    Example:
        >>> import greendata
        >>> greendata.patch_polars()
        >>> warn_unless_patched(Flask("service"))
        >>> greendata.unpatch_polars()
    """
    global _has_warned
    if _has_warned or is_polars_patched():
        return
    is_green = is_module_patched("socket")
    decides = (is_green and not _may_be_patched_later()) if environ is None else (is_green or has_client(environ))
    if not decides:
        return
    _has_warned = True
    if is_green:
        trouble = "a plain lf.collect() blocks all requests of the process, and no deadline ends it"
        remedy = f"`greendata.patch_polars()`, set {AUTOPATCH}=1 in its environment"
    else:  # the variable would have no effect
        trouble = "gevent has not patched the process, and a plain lf.collect() has no deadline"
        remedy = "`from gevent import monkey; monkey.patch_all(); import greendata; greendata.patch_polars()`"
    _warn(
        f"GreenData({app.name!r}): Polars is not patched: {trouble}. Begin the program with the line {remedy}, or "
        "serve it with gunicorn -k greendata.web.gunicorn.GreenWorker"
    )


def _may_be_patched_later() -> bool:
    return "gunicorn.arbiter" in sys.modules or os.environ.get("FLASK_RUN_FROM_CLI") == "true"


def _check(app: Flask) -> None:
    seconds, size = app.config["GREENDATA_REQUEST_TIMEOUT"], app.config["GREENDATA_MAX_BODY"]
    for name in ("GREENDATA_DASHBOARD", "GREENDATA_DASHBOARD_PATHS"):
        if not isinstance(app.config[name], bool):
            raise BadSetting(name, app.config[name], "True or False")
    try:
        seconds_of(seconds)
    except ValueError as error:
        raise BadSetting("GREENDATA_REQUEST_TIMEOUT", seconds, "None or a number of seconds >= 0") from error
    if not is_count(size, least=0):
        raise BadSetting("GREENDATA_MAX_BODY", size, "a whole number of bytes >= 0")


def _warn_of_conflicts(app: Flask, changes: dict[str, Any]) -> None:
    environment = Settings.changes_in(os.environ)
    for name in sorted(changes.keys() & environment.keys()):
        if changes[name] != environment[name]:
            _warn(
                f"{PREFIX}{name.upper()} is {environment[name]} in the environment and {changes[name]} in the config "
                f"of {app.name!r}, which applies"
            )


def _warn(text: str) -> None:
    """Issue a warning at the innermost line outside of greendata, which made the extension or serves the request."""
    frame = calling_frame()
    assert frame is not None
    warnings.warn_explicit(text, RuntimeWarning, frame.f_code.co_filename, frame.f_lineno)
