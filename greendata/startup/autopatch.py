"""gevent's entry point: have Polars patched when the program imports it, if the environment asks for it.

gevent calls `autopatch` at the end of every `patch_all`, in any program of an environment that has greendata. So it
looks at one variable and imports nothing. If the variable asks for the patch, it has native threads share what gevent
has patched, before the program makes its queues, and waits for the program to import Polars.
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

_value: str | None = None  # of the variable, when patch_all was over; any thread reads


def autopatch(_event: object = None) -> None:
    """Patch Polars when it is imported, or now, if ``GREENDATA_AUTOPATCH`` says so.

    The words are 1, true, yes, on and 0, false, no, off, in capitals or not; an empty value counts as not set. Any
    other is a `RuntimeWarning`, and Polars is not patched.

    Example:
        >>> autopatch()
    """
    global _value
    _value = os.environ.get(VARIABLE, "")
    asked = asks_for_patch(_value)
    if asked or "greendata.threads.sharing" in sys.modules:
        import_module("greendata.threads.sharing").share()  # with native threads, of which there will be some
    if asked:
        when_imported("polars", _patch)
    elif asked is None:
        expected = ", ".join(YES + NO[1:])
        warnings.warn(
            f"{VARIABLE} must be one of {expected}, got {_value!r}; Polars is not patched", RuntimeWarning, stacklevel=2
        )


def asks_for_patch(value: str) -> bool | None:
    """Return what a value of the variable means, or None if it means nothing.

    Example:
        >>> asks_for_patch("on"), asks_for_patch("No"), asks_for_patch("maybe")
        (True, False, None)
    """
    word = value.strip().lower()
    return True if word in YES else False if word in NO else None


def value_at_patch_all() -> str | None:
    """Return the value the variable had when `patch_all` was over, or None if `patch_all` has not called us.

    Example:
        >>> value_at_patch_all() in (None, "")
        True
    """
    return _value


def _patch() -> None:
    import_module("greendata.query.patching.patch").patch_polars()
