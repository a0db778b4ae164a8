"""Servers: what a request may use, what it gets back, and how a worker begins and ends."""

from greendata.startup.importing import modules_of as _modules_of

__all__ = ()

__getattr__ = _modules_of(__name__)
