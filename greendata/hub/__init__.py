"""Results and notifications between native threads and hubs. This package does not depend on Polars."""

from greendata.startup.importing import modules_of as _modules_of

__all__ = ()

__getattr__ = _modules_of(__name__)
