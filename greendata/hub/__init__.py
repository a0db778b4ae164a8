"""Greenlets and native threads: what brings an outcome home to the hub that asked. It has never heard of Polars."""

from greendata.startup.importing import modules_of as _modules_of

__all__ = ()

__getattr__ = _modules_of(__name__)
