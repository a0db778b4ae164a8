"""Private names of other libraries that greendata depends on: one file for each library, and nowhere else."""

from greendata.startup.importing import modules_of as _modules_of

__all__ = ()

__getattr__ = _modules_of(__name__)
