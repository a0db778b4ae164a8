"""What gevent has patched, on native threads: locks, queues, threads, sockets and children wait there natively."""

from greendata.startup.importing import modules_of as _modules_of

__all__ = ()

__getattr__ = _modules_of(__name__)
