"""Polars' own functions, diverted into the pool; and what a fork does to them."""

from greendata.startup.importing import modules_of as _modules_of

__all__ = ()

__getattr__ = _modules_of(__name__)
