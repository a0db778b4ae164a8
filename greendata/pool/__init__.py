"""The one pool of native threads: its jobs, its workers, its queue and its settings."""

from greendata.startup.importing import modules_of as _modules_of

__all__ = ()

__getattr__ = _modules_of(__name__)
