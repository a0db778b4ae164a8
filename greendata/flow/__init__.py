"""The flow floor: pipelines of greenlets, and what they end in."""

from greendata.start.importing import modules_of as _modules_of

__all__ = ()

__getattr__ = _modules_of(__name__)
