"""The private names of gevent that greendata depends on: all of them, and in no other file.

`get_hub_if_exists` is asked for on every way through the package, so it is here as gevent has it, and costs what it
costs there. All others belong to what `greendata.threads.sharing` replaces. They are looked up when they are asked
for: `gevent.socket` and `gevent.thread` import more than a program without sockets and threads needs.
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
    """Give the gevent socket these watchers, or None for none."""
    sock._read_event = read
    sock._write_event = write


class SocketMethods(NamedTuple):
    """Methods of gevent's sockets, for all kinds of them.

    Attributes:
        wait: for one of the socket's watchers.
        connect: to an address, without the checks of the public method.
        shutdown: the public method.
        close: with the watchers.
    """

    wait: Callable[..., Any]
    connect: Callable[..., Any]
    shutdown: Callable[..., Any]
    close: Callable[..., Any]


def socket_methods() -> SocketMethods:
    """Return the methods that are in place now."""
    from gevent._socketcommon import SocketMixin  # type: ignore[import-not-found]

    return SocketMethods(
        wait=SocketMixin._wait,
        connect=SocketMixin._internal_connect,
        shutdown=SocketMixin.shutdown,
        close=SocketMixin._drop_events_and_close,
    )


def replace_socket_methods(methods: SocketMethods) -> None:
    """Put *methods* in the place of those of every gevent socket, also of one that is there already."""
    from gevent._socketcommon import SocketMixin

    SocketMixin._wait = methods.wait
    SocketMixin._internal_connect = methods.connect
    SocketMixin.shutdown = methods.shutdown
    SocketMixin._drop_events_and_close = methods.close


def replace_socket_hub(get_hub: Callable[[], Any]) -> None:
    """Have gevent's sockets and `gevent.select` call *get_hub* for the hub of the thread that makes a socket."""
    import gevent.select
    from gevent import _socket3, _socketcommon  # type: ignore[attr-defined]

    modules: tuple[Any, ...] = (_socketcommon, _socket3, gevent.select)
    for module in modules:
        module.get_hub = get_hub


def resolve_address(sock: Any, address: Any) -> Any:
    """Return *address* with its host looked up, for the native socket *sock*."""
    from gevent._socketcommon import _resolve_addr

    return _resolve_addr(sock, address)


# -- child processes ----------------------------------------------------------------------------------------

get_loop_of_child: Callable[[Any], Any] = attrgetter("_loop")  # of a `gevent.subprocess.Popen`


# -- threads ------------------------------------------------------------------------------------------------


WHERE_THREADS_WAIT = frozenset({"gevent._threading", "gevent._monitor"})  # modules where gevent's threads wait for work


def thread_handle() -> type[Any]:
    """Return the class of what a greenlet is joined by that is a `threading.Thread`, from Python 3.13 on."""
    from gevent.thread import _ThreadHandle  # type: ignore[import-not-found]

    found: type[Any] = _ThreadHandle
    return found


def set_greenlet(handle: Any, greenlet: object) -> None:
    """Let the handle of a thread be that of *greenlet*."""
    handle._set_greenlet(greenlet)


def thread_lock_setter() -> Callable[[Any], None] | None:
    """Return the method that makes the lock by which a thread is joined, or None: from Python 3.13 on there is none."""
    from gevent.threading import Thread  # type: ignore[import-not-found]

    return getattr(Thread, "_set_tstate_lock", None)
