"""Pipelines of greenlets and jobs, and what they end in."""

from greendata.startup.importing import modules_of as _modules_of

__all__ = ()

__getattr__ = _modules_of(__name__)
