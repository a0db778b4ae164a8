"""Make Polars cooperative, as `gevent.monkey` does for the standard library: every execution yields to the hub.

After `patch_polars`, ``lf.collect()``, ``df.join(...)``, ``pl.read_parquet(...)`` and all other functions that make
Polars compute run in the pool when a greenlet calls them, while the hub serves other greenlets. Values, errors and
warnings are Polars' own. In a thread without a hub, on Polars' own threads and in the hub, Polars runs unpatched.

With ``GREENDATA_AUTOPATCH=1`` in the environment, `gevent.monkey.patch_all` requests the patch through the entry point
that gevent calls at its end. Polars is patched when the program imports it, so a service needs no change of its code.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from greendata.startup.autopatch import autopatch

if TYPE_CHECKING:
    from greendata.query.patching.patch import is_polars_patched, patch_polars, unpatch_polars

__all__ = ("autopatch", "is_polars_patched", "patch_polars", "unpatch_polars")


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module("greendata.query.patching.patch"), name)  # which imports Polars
