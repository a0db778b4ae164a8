"""The environment variables of greendata, and a warning for each ``GREENDATA_*`` variable that it does not have.

gevent's entry point loads this module only if there is such a variable.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from greendata.startup.variables import NATIVE_WAITS, POOL_VARIABLES, PREFIX, VARIABLES, WORDS, yes_or_no

__all__ = ("describe_unknown", "unknown_variables", "warn_of_unknown_variables")

# The keys in the config of a Flask app, see `greendata.web.flask`.
APP_KEYS = (
    "GREENDATA_DASHBOARD",
    "GREENDATA_DASHBOARD_PATHS",
    "GREENDATA_MAX_BODY",
    "GREENDATA_REQUEST_TIMEOUT",
    *POOL_VARIABLES,
)

_described: set[str] = set()  # variables that were warned of; any thread adds


def describe_unknown(name: str, known: Iterable[str], *, kind: str) -> str:
    """Return the text of a warning for a setting of an unknown name, with the nearest known one.

    Args:
        kind: what the known names are, in the singular.

    Example:
        >>> describe_unknown("GREENDATA_MAX_WORKRS", VARIABLES, kind="an environment variable of greendata")
        'GREENDATA_MAX_WORKRS is not an environment variable of greendata; did you mean GREENDATA_MAX_WORKERS?'
    """
    names = sorted(known)
    nearest = get_close_matches(name.removeprefix(PREFIX), [known.removeprefix(PREFIX) for known in names], n=1)
    hint = f"did you mean {PREFIX}{nearest[0]}?" if nearest else f"there are {', '.join(names)}"
    return f"{name} is not {kind}; {hint}"


def unknown_variables(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the ``GREENDATA_*`` variables that have no effect, each with a text that says so.

    Example:
        >>> unknown_variables({"GREENDATA_REQUEST_TIMEOUT": "5", "PATH": "/bin"})
        {'GREENDATA_REQUEST_TIMEOUT': "GREENDATA_REQUEST_TIMEOUT has no effect in the environment; it is a key of a \
Flask app's config"}
    """
    found = {}
    for name in environ:
        if name.startswith(PREFIX) and name not in VARIABLES:
            if name in APP_KEYS:
                found[name] = f"{name} has no effect in the environment; it is a key of a Flask app's config"
            else:
                found[name] = describe_unknown(name, VARIABLES, kind="an environment variable of greendata")
    waits = environ.get(NATIVE_WAITS, "")
    if yes_or_no(waits) is None:
        found[NATIVE_WAITS] = f"{NATIVE_WAITS} must be one of {', '.join(WORDS)}, got {waits!r}; it counts as 1"
    return found


def warn_of_unknown_variables() -> None:
    """Issue a `RuntimeWarning` for each ``GREENDATA_*`` variable that has no effect, once in a process.

    Example:
        >>> warn_of_unknown_variables()
    """
    for name, text in unknown_variables().items():
        if name not in _described:
            _described.add(name)
            warnings.warn_explicit(text, RuntimeWarning, "<environment>", 1)  # it is about no line of code
