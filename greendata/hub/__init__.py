"""Greenlets and native threads: the floor that everything else stands on. It has never heard of Polars."""

from greendata.start.importing import modules_of as _modules_of

__all__ = ()

__getattr__ = _modules_of(__name__)
