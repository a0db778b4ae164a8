"""Make Polars cooperative, in the manner of `gevent.monkey`: every execution yields to the hub.

After `patch_polars`, ``lf.collect()``, ``df.join(...)``, ``pl.read_parquet(...)`` and whatever else makes Polars
compute runs in the pool when a greenlet calls it, while the hub goes on. Values, errors and warnings are
Polars' own. In a thread without a hub, on Polars' own threads and in the hub itself, Polars runs as ever.

With ``GREENDATA_AUTOPATCH=1`` in the environment, `gevent.monkey.patch_all` does it, through the entry point that
gevent calls at its end: a service needs no change of its code.
"""

from __future__ import annotations

import os

from greendata.frames.patch import is_polars_patched, patch_polars, unpatch_polars

__all__ = ("autopatch", "is_polars_patched", "patch_polars", "unpatch_polars")


def autopatch(_event: object = None) -> None:
    """Patch if ``GREENDATA_AUTOPATCH`` is set to anything but "" or "0"; gevent's entry point calls this."""
    if os.environ.get("GREENDATA_AUTOPATCH", "0") not in ("", "0"):
        patch_polars()
