"""Checks of untrusted bytes before a parser reads them: sizes, depths and counts."""

from greendata.startup.importing import modules_of as _modules_of

__all__ = ()

__getattr__ = _modules_of(__name__)
