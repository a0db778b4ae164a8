"""The entry point for gevent: patch Polars when the program imports it, if an environment variable is set.

gevent calls `autopatch` at the end of every `patch_all`, in every program of an environment that contains greendata. So
`autopatch` reads one variable and imports nothing. If the variable is set, it first makes gevent's patched locks usable
from native threads, before the program creates its queues. Then it waits for the program to import Polars.
"""

from __future__ import annotations

import os
import sys
import warnings
from importlib import import_module

from greendata.startup.importing import when_imported

__all__ = ("VARIABLE", "asks_for_patch", "autopatch", "value_at_patch_all")

VARIABLE = "GREENDATA_AUTOPATCH"
YES = ("1", "true", "yes", "on")
NO = ("", "0", "false", "no", "off")

_value: str | None = None  # of the variable at the end of patch_all; read by any thread


def autopatch(_event: object = None) -> None:
    """Patch Polars when it is imported, or now if it is imported already, if ``GREENDATA_AUTOPATCH`` is set.

    The values are 1, true, yes, on and 0, false, no, off, in upper or lower case. An empty value counts as not set. For
    any other value a `RuntimeWarning` is issued and Polars is not patched.

    Example:
        >>> autopatch()
    """
    global _value
    _value = os.environ.get(VARIABLE, "")
    asked = asks_for_patch(_value)
    if asked or "greendata.threads.sharing" in sys.modules:
        import_module("greendata.threads.sharing").share()  # with native threads
    if asked:
        when_imported("polars", _patch)
    elif asked is None:
        expected = ", ".join(YES + NO[1:])
        warnings.warn(
            f"{VARIABLE} must be one of {expected}, got {_value!r}; Polars is not patched", RuntimeWarning, stacklevel=2
        )


def asks_for_patch(value: str) -> bool | None:
    """Return True or False for a value of the variable, or None if it is not a valid value.

    Example:
        >>> asks_for_patch("on"), asks_for_patch("No"), asks_for_patch("maybe")
        (True, False, None)
    """
    word = value.strip().lower()
    return True if word in YES else False if word in NO else None


def value_at_patch_all() -> str | None:
    """Return the value of the variable at the end of `patch_all`, or None if `autopatch` was not called.

    Example:
        >>> value_at_patch_all() in (None, "")
        True
    """
    return _value


def _patch() -> None:
    import_module("greendata.query.patching.patch").patch_polars()
