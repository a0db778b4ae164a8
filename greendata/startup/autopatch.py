"""The entry point for gevent: patch Polars when the program imports it, if an environment variable is set.

gevent calls `autopatch` at the end of every `patch_all`, in every program of an environment that contains greendata. So
`autopatch` reads the environment and imports nothing. If the variable is set, it first makes gevent's patched locks
usable from native threads, before the program creates its queues. Then it waits for the program to import Polars.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

from greendata.startup.importing import when_imported
from greendata.startup.variables import AUTOPATCH, PREFIX, VARIABLES, WORDS, yes_or_no

__all__ = ("autopatch", "patch_all_arguments", "value_at_patch_all")

_value: str | None = None  # of the variable at the end of patch_all; read by any thread
_arguments: dict[str, object] = {}  # of that patch_all; read by any thread


def autopatch(event: object = None) -> None:
    """Patch Polars when it is imported, or now if it is imported already, if ``GREENDATA_AUTOPATCH`` is set.

    The values are 1, true, yes, on and 0, false, no, off, in upper or lower case. An empty value counts as not set.

    Issue a `RuntimeWarning` for each ``GREENDATA_*`` variable that greendata does not have: the name of this one may be
    misspelled.

    Args:
        event: gevent's event at the end of `patch_all`.

    Raises:
        BadSetting: the variable has another value. Polars is not patched.

    Example:
        >>> autopatch()
    """
    global _value, _arguments
    if any(name.startswith(PREFIX) and name not in VARIABLES for name in os.environ):
        import_module("greendata.startup.environment").warn_of_unknown_variables()
    _arguments = getattr(event, "patch_all_arguments", {})
    _value = os.environ.get(AUTOPATCH, "")
    asked = yes_or_no(_value)
    if asked or "greendata.threads.sharing" in sys.modules:
        import_module("greendata.threads.sharing").share()  # with native threads
    if asked:
        when_imported("polars", _patch)
    elif asked is None:
        raise import_module("greendata.errors").BadSetting(AUTOPATCH, _value, f"one of {', '.join(WORDS)}")


def value_at_patch_all() -> str | None:
    """Return the value of the variable at the end of `patch_all`, or None if `autopatch` was not called.

    Example:
        >>> value_at_patch_all() in (None, "")
        True
    """
    return _value


def patch_all_arguments() -> dict[str, object]:
    """Return the arguments of the last `patch_all`, such as ``{"thread": False}``; none if `autopatch` was not called.

    Example:
        >>> patch_all_arguments().get("thread", True)
        True
    """
    return _arguments


def _patch() -> None:
    import_module("greendata.query.patching.patch").patch_polars()
