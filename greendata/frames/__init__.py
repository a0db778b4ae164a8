"""Polars on the hub: verbs, engine, batches, and what they know of Polars' insides."""

import polars  # noqa: F401 - before any module here: the fork guard and the patch are among them, and wait for Polars

from greendata.start.importing import modules_of as _modules_of

__all__ = ()

__getattr__ = _modules_of(__name__)
