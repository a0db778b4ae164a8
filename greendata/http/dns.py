"""The addresses of host names: cached, each looked up once at a time, on native threads of their own.

``getaddrinfo`` cannot be cancelled, and a name whose server does not respond takes it 5 to 30 seconds. gevent's
resolver has ten threads for the whole process. Ten such names would stop every other lookup of the service, so it is
not used::

    any thread or greenlet                              a native thread
    ----------------------                              ---------------
    resolve(host):
      a cached outcome is returned
      else join the lookup of that host,
      or queue one  ------------------------------->    takes lookups until the queue is empty
      result.get(): a greenlet sleeps in its hub          getaddrinfo(host)
                                            <----------   keeps the outcome, result.set()

- At most `LOOKUPS` run at a time. One that has run for `OVERDUE` seconds no longer counts, so that names that do not
  respond do not stop the others. At most `MAX_OVERDUE` of these exist; then the others wait for them.
- A waiter leaves at its own deadline. The lookup continues, and its outcome is cached.
- A failure is cached as well, for a shorter time.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, NamedTuple

from gevent.monkey import get_original, is_module_patched

from greendata.errors import ResultTimeout
from greendata.hub import native
from greendata.hub.result import Result

__all__ = ("Address", "LookupFailed", "LookupTimeout", "NO_NAME", "Resolver", "resolver")

LOOKUPS = 6  # at a time; more help only if the name server is far away, and the resolver of a router refuses too many
OVERDUE = 1.0  # seconds; most lookups take less than a tenth
MAX_OVERDUE = 24  # native threads
HANGING = 10.0  # seconds; a lookup that has run for longer fails its waiters, new ones at once
KNOWN = 60.0  # seconds that addresses are kept: getaddrinfo does not say how long they are valid
UNKNOWN = 30.0  # seconds that "there is no such name" is kept
FAILED = 5.0  # seconds that another failure is kept, such as a name server that does not respond
CACHED = 10_000  # outcomes
_WORKER_NAME = "gd-dns"  # in top -H, gdb and py-spy
NO_NAME = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
_NUMERIC = socket.AI_NUMERICHOST


class Address(NamedTuple):
    """One address of a host: the family of its sockets, the address as text, and what IPv6 has after the port."""

    family: int
    ip: str
    rest: tuple[int, ...] = ()

    def at_port(self, port: int) -> tuple[Any, ...]:
        """Return the address of a socket, as ``connect`` takes it."""
        return (self.ip, port, *self.rest)


class LookupFailed(socket.gaierror):
    """A host name has no addresses, or its lookup failed."""


class LookupTimeout(LookupFailed, TimeoutError):
    """The lookup of a host name did not end in time."""


class _Lookup:
    """One running or queued lookup."""

    __slots__ = ("begun", "host", "result", "until")

    def __init__(self, host: str) -> None:
        self.host = host
        self.result = Result[tuple[Address, ...] | LookupFailed](f"look up {host}")
        self.until = 0.0  # when the last of its waiters leaves; under the lock
        self.begun = 0.0  # when a thread took it, or 0; under the lock


class Resolver:
    """Look up and cache the addresses of host names. Safe from any thread; a greenlet yields to its hub.

    Args:
        getaddrinfo: looks a name up; None for the system's. In a patched process that is Python's own function rather
            than gevent's, unless something else has replaced ``socket.getaddrinfo``.
        lookups: how many may run at a time.
        overdue: seconds after which a running lookup no longer counts.
        max_overdue: how many such lookups there may be.

    Example:
        >>> [address.ip for address in Resolver().resolve("0x7f.1", timeout=5)]
        ['127.0.0.1']
    """

    def __init__(
        self,
        getaddrinfo: Callable[..., Any] | None = None,
        *,
        lookups: int = LOOKUPS,
        overdue: float = OVERDUE,
        max_overdue: int = MAX_OVERDUE,
    ) -> None:
        self._given = getaddrinfo
        self._lookups = lookups
        self._overdue = overdue
        self._max_overdue = max_overdue
        self.after_fork_in_child()

    def after_fork_in_child(self) -> None:
        """Forget everything: in the child of a fork the threads do not exist, and the lock may be held."""
        self._lock = native.allocate_lock()  # never held while anything waits; guards all of the following
        self._function: Callable[..., Any] | None = None  # whose outcomes are cached
        self._cache: dict[str, tuple[float, tuple[Address, ...] | LookupFailed]] = {}  # and until when; oldest first
        self._pending: dict[str, _Lookup] = {}  # queued and running, by host
        self._queue: deque[_Lookup] = deque()
        self._running: set[_Lookup] = set()

    def resolve(self, host: str, timeout: float) -> tuple[Address, ...]:
        """Return the addresses of *host*, in the order in which they are to be tried; at least one.

        An address in any of the forms that the system knows (``0x7f.1``, ``2130706433``) is its own address.

        Raises:
            LookupFailed: there are none.
            LookupTimeout: none were found within *timeout* seconds.
        """
        if (found := _numeric(host)) is not None:
            return found
        function = self._given or _system_lookup()
        ends = monotonic() + timeout
        with self._lock:
            if function is not self._function:
                self._function = function
                self._cache.clear()
                self._pending.clear()
            cached = self._cached(host)
            if cached is None:
                lookup = self._join(host, ends)
        outcome = self._outcome_of(lookup, ends) if cached is None else cached
        if isinstance(outcome, LookupFailed):
            raise type(outcome)(*outcome.args)  # a new one: the traceback of a cached one would grow
        return outcome

    def forget(self, host: str) -> None:
        """Drop what is known about *host*, since none of its addresses can be connected to."""
        with self._lock:
            self._cache.pop(host, None)

    # -- under the lock ---------------------------------------------------------------------------------------

    def _cached(self, host: str) -> tuple[Address, ...] | LookupFailed | None:
        until, outcome = self._cache.get(host, (0.0, None))
        if outcome is not None and until <= monotonic():
            del self._cache[host]
            return None
        return outcome

    def _join(self, host: str, ends: float) -> _Lookup:
        lookup = self._pending.get(host)
        if lookup is None:
            lookup = self._pending[host] = _Lookup(host)
            self._queue.append(lookup)
        lookup.until = max(lookup.until, ends)
        return lookup

    def _may_begin(self) -> bool:
        """Return True if another lookup may run now."""
        late = monotonic() - self._overdue
        in_time = sum(lookup.begun > late for lookup in self._running)
        return in_time < self._lookups and len(self._running) < self._lookups + self._max_overdue

    def _next(self) -> _Lookup | None:
        while self._queue and self._may_begin():
            lookup = self._queue.popleft()
            now = monotonic()
            if lookup.until <= now:  # all its waiters have left
                self._drop(lookup)
                continue
            lookup.begun = now
            self._running.add(lookup)
            return lookup
        return None

    def _drop(self, lookup: _Lookup) -> None:
        if self._pending.get(lookup.host) is lookup:
            del self._pending[lookup.host]

    # -- waiting --------------------------------------------------------------------------------------------------

    def _outcome_of(self, lookup: _Lookup, ends: float) -> tuple[Address, ...] | LookupFailed:
        while not lookup.result.ready():
            now = monotonic()
            if now >= ends or (lookup.begun and now - lookup.begun >= HANGING):
                return LookupTimeout(socket.EAI_AGAIN, f"the lookup of {lookup.host!r} did not end in time")
            self._start_thread()
            # It wakes up now and then, because running lookups may have become overdue, and another one may start.
            until = min(ends, lookup.begun + HANGING) if lookup.begun else min(ends, now + self._overdue)
            try:
                return lookup.result.get(timeout=max(0.0, until - now))
            except ResultTimeout:
                continue
        return lookup.result.get()

    def _start_thread(self) -> None:
        with self._lock:
            is_needed = bool(self._queue) and self._may_begin()
        if is_needed:
            try:
                native.start_thread(self._look_up_queued, ())
            except RuntimeError as error:
                raise LookupFailed(socket.EAI_MEMORY, "no native thread can be started") from error

    # -- in native threads ------------------------------------------------------------------------------------

    def _look_up_queued(self) -> None:
        native.name_this_thread(_WORKER_NAME)
        while True:
            with self._lock:
                lookup, function = self._next(), self._function
            if lookup is None:
                return
            outcome: tuple[Address, ...] | LookupFailed = LookupFailed(socket.EAI_FAIL, "the lookup was aborted")
            try:
                outcome = _look_up(function, lookup.host)
            finally:
                self._finish(lookup, outcome)

    def _finish(self, lookup: _Lookup, outcome: tuple[Address, ...] | LookupFailed) -> None:
        with self._lock:
            self._running.discard(lookup)
            if self._pending.get(lookup.host) is lookup:  # False after a change of the function
                del self._pending[lookup.host]
                self._cache[lookup.host] = monotonic() + _lifetime(outcome), outcome
                while len(self._cache) > CACHED:
                    del self._cache[next(iter(self._cache))]
        lookup.result.set(outcome)


def _numeric(host: str) -> tuple[Address, ...] | None:
    """Return the address that *host* is, or None if it is a name. Nothing is looked up."""
    if host[:1].isalpha() and ":" not in host:  # most names; no form of an address begins like this
        return None
    try:
        return _addresses(_native_getaddrinfo(host, 0, 0, socket.SOCK_STREAM, 0, _NUMERIC))
    except (OSError, UnicodeError, ValueError):
        return None


def _system_lookup() -> Callable[..., Any]:
    current: Callable[..., Any] = socket.getaddrinfo
    if is_module_patched("socket"):
        import gevent.socket

        if current is gevent.socket.getaddrinfo:
            return _native_getaddrinfo
    return current


def _look_up(function: Callable[..., Any] | None, host: str) -> tuple[Address, ...] | LookupFailed:
    assert function is not None
    try:
        found = _addresses(function(host, 0, _family(), socket.SOCK_STREAM))
    except socket.gaierror as error:
        return LookupFailed(error.errno, error.strerror)
    except (UnicodeError, ValueError) as error:  # labels that are empty or too long, a null character
        return LookupFailed(socket.EAI_NONAME, str(error))
    except Exception as error:  # noqa: BLE001 - a function that has replaced the system's may raise anything
        return LookupFailed(socket.EAI_FAIL, f"{type(error).__name__}: {error}")
    return found or LookupFailed(socket.EAI_NONAME, "it has no addresses")


def _family() -> int:
    """Return the family of the addresses that this system can connect to."""
    from urllib3.util.connection import allowed_gai_family

    return allowed_gai_family()


def _addresses(found: list[Any]) -> tuple[Address, ...]:
    rows = (Address(int(family), str(where[0]), tuple(where[2:])) for family, _, _, _, where in found)
    return tuple(dict.fromkeys(row for row in rows if row.family in (socket.AF_INET, socket.AF_INET6)))


def _lifetime(outcome: tuple[Address, ...] | LookupFailed) -> float:
    if not isinstance(outcome, LookupFailed):
        return KNOWN
    return UNKNOWN if outcome.errno in NO_NAME else FAILED


_native_getaddrinfo: Callable[..., Any] = get_original("socket", "getaddrinfo")
resolver = Resolver()  # of this process
os.register_at_fork(after_in_child=resolver.after_fork_in_child)
