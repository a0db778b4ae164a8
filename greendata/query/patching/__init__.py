"""Patches of Polars' native functions: to run them in the pool, and to make them raise after a fork."""

from greendata.startup.importing import modules_of as _modules_of

__all__ = ()

__getattr__ = _modules_of(__name__)
