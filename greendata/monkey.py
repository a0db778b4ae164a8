"""Make Polars cooperative, in the manner of `gevent.monkey`: every execution yields to the hub.

After `patch_polars`, ``lf.collect()``, ``df.join(...)``, ``pl.read_parquet(...)`` and whatever else makes Polars
compute runs in the pool when a greenlet calls it, while the hub goes on. Values, errors and warnings are
Polars' own. In a thread without a hub, on Polars' own threads and in the hub itself, Polars runs as ever.

With ``GREENDATA_AUTOPATCH=1`` in the environment, `gevent.monkey.patch_all` does it, through the entry point that
gevent calls at its end: a service needs no change of its code.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

from greendata.frames import fork  # noqa: F401 - its hooks tell a forked child that Polars' threads are gone
from greendata.frames.seam import EXECUTIONS, Seam
from greendata.hub import pool

__all__ = ("autopatch", "is_polars_patched", "patch_polars", "unpatch_polars")

_seam = Seam(EXECUTIONS, "the pool")


def patch_polars() -> None:
    """Make every Polars execution yield to the hub. Idempotent; before or after `patch_all`, as you like.

    Each execution becomes a switch point: another greenlet may run between ``df.filter(...)`` and the next line.

    Raises:
        SeamMissing: the Polars in place cannot be patched; nothing was.

    Example:
        >>> patch_polars()
        >>> is_polars_patched()
        True
        >>> unpatch_polars()
    """
    if not _seam.is_diverted:
        _seam.divert(_through_the_pool)


def unpatch_polars() -> None:
    """Take the patch back. Idempotent; executions that are on their way come to their end.

    Example:
        >>> unpatch_polars()
    """
    _seam.restore()


def is_polars_patched() -> bool:
    """True between `patch_polars` and `unpatch_polars`.

    Example:
        >>> is_polars_patched()
        False
    """
    return _seam.is_diverted


def autopatch(_event: object = None) -> None:
    """Patch if ``GREENDATA_AUTOPATCH`` is set to anything but "" or "0"; gevent's entry point calls this."""
    if os.environ.get("GREENDATA_AUTOPATCH", "0") not in ("", "0"):
        patch_polars()


def _through_the_pool(func: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(func)
    def run_in_the_pool(*args: Any, **kwargs: Any) -> Any:
        return pool.call(func, *args, **kwargs)

    return run_in_the_pool
