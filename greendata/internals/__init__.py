"""The private names of other libraries that greendata uses. Each library has one file, and no other file uses them."""

from greendata.startup.importing import modules_of as _modules_of

__all__ = ()

__getattr__ = _modules_of(__name__)
