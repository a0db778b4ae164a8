"""Bytes of strangers, looked at before a parser gets them: sizes, depths, counts."""

from greendata.startup.importing import modules_of as _modules_of

__all__ = ()

__getattr__ = _modules_of(__name__)
