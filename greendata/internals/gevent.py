"""The private names of gevent that greendata uses. No other file uses private names of gevent.

`get_hub_if_exists` is called on every code path, so it is gevent's function itself, without a wrapper. All other names
are for `greendata.threads.sharing`. They are looked up when they are called, because `gevent.socket` and
`gevent.thread` import more than a program without sockets and threads needs.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

from gevent._hub_local import get_hub_if_exists
from gevent._hub_primitives import wait_on_socket, wait_on_watcher

__all__ = (
    "SocketMethods",
    "WHERE_THREADS_WAIT",
    "get_hub_if_exists",
    "get_loop_of_child",
    "get_native_socket",
    "get_read_watcher",
    "get_write_watcher",
    "replace_socket_hub",
    "replace_socket_methods",
    "resolve_address",
    "set_greenlet",
    "set_watchers",
    "socket_methods",
    "thread_handle",
    "thread_lock_setter",
    "wait_on_socket",
    "wait_on_watcher",
)

# -- sockets ------------------------------------------------------------------------------------------------

get_native_socket: Callable[[Any], Any] = attrgetter("_sock")
get_read_watcher: Callable[[Any], Any] = attrgetter("_read_event")
get_write_watcher: Callable[[Any], Any] = attrgetter("_write_event")


def set_watchers(sock: Any, read: object, write: object) -> None:
    """Set the watchers of the gevent socket *sock*; None removes a watcher."""
    sock._read_event = read
    sock._write_event = write


class SocketMethods(NamedTuple):
    """Methods that all classes of gevent sockets share.

    Attributes:
        wait: waits for one of the socket's watchers.
        connect: connects to an address, without the checks of the public method.
        shutdown: the public method.
        close: closes the socket and its watchers.
    """

    wait: Callable[..., Any]
    connect: Callable[..., Any]
    shutdown: Callable[..., Any]
    close: Callable[..., Any]


def socket_methods() -> SocketMethods:
    """Return the current methods."""
    from gevent._socketcommon import SocketMixin  # type: ignore[import-not-found]

    return SocketMethods(
        wait=SocketMixin._wait,
        connect=SocketMixin._internal_connect,
        shutdown=SocketMixin.shutdown,
        close=SocketMixin._drop_events_and_close,
    )


def replace_socket_methods(methods: SocketMethods) -> None:
    """Replace the methods of all gevent sockets, including existing ones, by *methods*."""
    from gevent._socketcommon import SocketMixin

    SocketMixin._wait = methods.wait
    SocketMixin._internal_connect = methods.connect
    SocketMixin.shutdown = methods.shutdown
    SocketMixin._drop_events_and_close = methods.close


def replace_socket_hub(get_hub: Callable[[], Any]) -> None:
    """Have gevent's sockets and `gevent.select` call *get_hub* for the hub of the calling thread."""
    import gevent.select
    from gevent import _socket3, _socketcommon  # type: ignore[attr-defined]

    modules: tuple[Any, ...] = (_socketcommon, _socket3, gevent.select)
    for module in modules:
        module.get_hub = get_hub


def resolve_address(sock: Any, address: Any) -> Any:
    """Return *address* with its host name resolved, for the native socket *sock*."""
    from gevent._socketcommon import _resolve_addr

    return _resolve_addr(sock, address)


# -- child processes ----------------------------------------------------------------------------------------

get_loop_of_child: Callable[[Any], Any] = attrgetter("_loop")  # of a `gevent.subprocess.Popen`


# -- threads ------------------------------------------------------------------------------------------------


# The modules in which gevent's threads wait for work.
WHERE_THREADS_WAIT = frozenset({"gevent._threading", "gevent._monitor"})


def thread_handle() -> type[Any]:
    """Return the class of the handles by which threads that are greenlets are joined, from Python 3.13 on."""
    from gevent.thread import _ThreadHandle  # type: ignore[import-not-found]

    found: type[Any] = _ThreadHandle
    return found


def set_greenlet(handle: Any, greenlet: object) -> None:
    """Make *handle*, the handle of a thread, refer to *greenlet*."""
    handle._set_greenlet(greenlet)


def thread_lock_setter() -> Callable[[Any], None] | None:
    """Return the method that creates the lock by which a thread is joined, or None from Python 3.13 on."""
    from gevent.threading import Thread  # type: ignore[import-not-found]

    return getattr(Thread, "_set_tstate_lock", None)
