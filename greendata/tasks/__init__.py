"""Many results at once, and functions on a hub of your choice: groups, waiting, callers."""

from greendata.startup.importing import modules_of as _modules_of

__all__ = ()

__getattr__ = _modules_of(__name__)
