"""Locks, queues, threads, sockets and child processes that gevent has patched, made to work in native threads."""

from greendata.startup.importing import modules_of as _modules_of

__all__ = ()

__getattr__ = _modules_of(__name__)
