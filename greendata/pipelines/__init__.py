"""Pipelines of greenlets and pool jobs, and the sinks that they write to."""

from greendata.startup.importing import modules_of as _modules_of

__all__ = ()

__getattr__ = _modules_of(__name__)
