"""JSON and NDJSON: rows as text, their shapes, and the readers of both."""

from greendata.startup.importing import modules_of as _modules_of

__all__ = ()

__getattr__ = _modules_of(__name__)
