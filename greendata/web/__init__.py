"""Flask and gunicorn: request scopes, request bodies, responses, health checks, and the start and end of a worker."""

from greendata.startup.importing import modules_of as _modules_of

__all__ = ()

__getattr__ = _modules_of(__name__)
