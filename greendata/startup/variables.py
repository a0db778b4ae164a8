"""The names of greendata's environment variables, and the words that switch one on or off.

gevent's entry point loads this module in every program, so it imports nothing.
"""

from __future__ import annotations

__all__ = ("AUTOPATCH", "NATIVE_WAITS", "POOL_VARIABLES", "PREFIX", "VARIABLES", "WORDS", "yes_or_no")

PREFIX = "GREENDATA_"
AUTOPATCH = "GREENDATA_AUTOPATCH"
NATIVE_WAITS = "GREENDATA_NATIVE_WAITS"
POOL_VARIABLES = (  # the settings of the pool
    "GREENDATA_ENGINE",
    "GREENDATA_EXIT_TIMEOUT",
    "GREENDATA_ISOLATE",
    "GREENDATA_MAX_QUEUE",
    "GREENDATA_MAX_WORKERS",
    "GREENDATA_NICE",
    "GREENDATA_ON_FORK",
    "GREENDATA_STUCK_AFTER",
)
VARIABLES = (AUTOPATCH, NATIVE_WAITS, *POOL_VARIABLES)

_YES = ("1", "true", "yes", "on")
_NO = ("", "0", "false", "no", "off")
WORDS = _YES + _NO[1:]


def yes_or_no(value: str) -> bool | None:
    """Return True or False for the value of a variable, or None if it is neither yes nor no.

    Example:
        >>> yes_or_no("on"), yes_or_no("No"), yes_or_no("maybe")
        (True, False, None)
    """
    word = value.strip().lower()
    return True if word in _YES else False if word in _NO else None
