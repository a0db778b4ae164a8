"""`Scheduler`: which request of a crawl may be sent next, and when.

It is a data structure without threads, greenlets or timers. The caller passes a clock, and `Scheduler.take` returns
either the request to send now or the time for which nothing may be sent. So no worker sleeps out the delay of a host,
and a test decides what time it is.

    add ──► Host.queue ──► waiting (a heap by due time) ──► ready (two queues) ──► take ──► in flight ──► done
                                                              trusted, suspect

Guarantees:

- A host never has more than ``per_host`` requests in flight, and never two starts within its delay. Requests for
  robots.txt and sitemaps count as the others do.
- Ready hosts take turns: after each start a host goes to the end of the queue, and the host that is ready longest is
  next.
- A host that has not answered yet, failed last, or answers slowly is a suspect. Suspects together hold at most half of
  the workers, however many there are. While several hosts have work, none holds more than its share of the workers.
  So a slow, throttled or dead host leaves the others at their rate.
- A host that fails is left alone for a time that doubles with each failure, with jitter, and then gets one request at a
  time until it answers. A host that is unreachable `UNREACHABLE_MOST` times in a row, or fails `FAILED_MOST` times in a
  row, is given up: its requests come out of `take` at once, and are not to be sent.
- A pause that a host asks for (Retry-After, Crawl-delay) is kept, up to ``max_wait``.
- Memory is bounded by the caller: it adds what `wanted` asks for. Of hosts without work, the last `IDLE` are kept.

All calls are made by the greenlets of one hub, and none of them switches.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict, deque
from collections.abc import Callable
from enum import Enum
from heapq import heappop, heappush
from typing import Any, Generic, Protocol, TypeVar

__all__ = ("HasOrigin", "Host", "RequestOutcome", "Scheduler")

BACK_OFF = 1.0  # seconds after the first failure of a host; doubled by each further one
BACK_OFF_MAX = 60.0  # seconds; a host that restarts is found again within a minute
JITTER = (0.75, 1.25)  # factors; hosts that fail together do not come back together
UNREACHABLE_MOST = 6  # in a row: 1 + 2 + 4 + 8 + 16 seconds of back-off before the last attempt
FAILED_MOST = 40  # in a row, whatever the failure: a host may have a section that is broken, and is not given up for it
SLOW = 5.0  # seconds that the responses of a host take on average; with more it is a suspect
WEIGHT = 0.3  # of the newest response in that average
WINDOW = 32  # requests of a host in memory; a look into the frontier costs as much as about ten of them
IDLE = 4_096  # hosts without work whose state is kept: their robots rules, above all


class HasOrigin(Protocol):
    """What is scheduled: anything that knows the host it goes to.

    Attributes:
        origin: the host key, ``scheme://host:port``.
    """

    @property
    def origin(self) -> str:
        """The host key, ``scheme://host:port``."""


R = TypeVar("R", bound=HasOrigin)
_Ready = deque[tuple[int, int, "Host[R]"]]  # ready hosts, with a number that says since when, and their tickets


class RequestOutcome(Enum):
    """What a request says about its host.

    Example:
        >>> RequestOutcome.ANSWERED.name
        'ANSWERED'
    """

    ANSWERED = "answered"  # the host works, whatever the status
    FAILED = "failed"  # an error of the server: this request waits, and the host becomes a suspect
    THROTTLED = "throttled"  # too many requests: the whole host waits
    UNREACHABLE = "unreachable"  # no response: the whole host waits
    UNSENT = "unsent"  # the request was not sent after all; says nothing


class _Place(Enum):
    IDLE = 0  # nothing to send
    WAITING = 1  # in the heap, until its due time
    READY = 2  # in one of the two queues
    BUSY = 3  # the next `done` decides


class Host(Generic[R]):
    """What a crawl knows of a host while it has it in memory. The crawler writes *robots* and *cursor*.

    Attributes:
        origin: the host key.
        robots, cursor: what the crawler keeps for the host; they are forgotten together with it.
        failures: failures in a row.
        is_given_up: its requests are not sent any more.
        is_held: only urgent requests are sent.
    """

    __slots__ = (
        "after_start",
        "before_start",
        "cursor",
        "delay",
        "due_at",
        "failures",
        "in_flight",
        "is_given_up",
        "is_held",
        "is_suspect",
        "later",
        "may_have_more",
        "next_start",
        "origin",
        "place",
        "queue",
        "robots",
        "seconds",
        "ticket",
        "unreachable",
        "urgent",
    )

    def __init__(self, origin: str, delay: float) -> None:
        self.origin = origin
        self.delay = delay  # seconds between two starts
        self.robots: Any = None
        self.cursor = 0
        self.failures = 0
        self.unreachable = 0  # failures in a row without any response
        self.in_flight = 0
        self.is_given_up = False
        self.is_held = False
        self.is_suspect = True
        self.may_have_more = False  # the frontier may have requests that are not in memory
        self.next_start = -math.inf  # no start before
        self.before_start = -math.inf  # what `next_start` was before the last start, in case that is not sent
        self.after_start = -math.inf  # and what it was after it
        self.due_at = math.inf  # when it leaves the heap
        self.place = _Place.IDLE
        self.seconds = 0.0  # that a response takes, on average
        self.ticket = 0  # entries of the heap and the queues with another ticket are void
        self.urgent: deque[R] = deque()
        self.queue: deque[R] = deque()
        self.later: list[tuple[float, int, R]] = []  # a heap of requests that are tried again, by due time

    @property
    def queued(self) -> int:
        """The number of requests that wait."""
        return len(self.urgent) + len(self.queue) + len(self.later)

    def due(self) -> float:
        """Return when the next request may be sent; infinity if there is none."""
        if self.is_given_up:
            return -math.inf if self.queued else math.inf
        if self.urgent:
            return self.next_start
        if self.is_held:
            return math.inf
        if self.queue:
            return self.next_start
        return max(self.next_start, self.later[0][0]) if self.later else math.inf

    def pop(self, now: float) -> R:
        """Remove and return the next request."""
        if self.urgent:
            return self.urgent.popleft()
        if self.later and (not self.queue or self.later[0][0] <= now):
            return heappop(self.later)[2]
        return self.queue.popleft()

    def __repr__(self) -> str:
        return f"<Host {self.origin}: {self.place.name.lower()}, {self.queued} queued, {self.in_flight} in flight>"


class Scheduler(Generic[R]):
    """Decides which request is sent next.

    Args:
        workers: requests that are in flight at one time.
        per_host: requests to one host that are in flight at one time.
        delay: seconds between two starts at one host.
        max_wait: the limit, in seconds, of a pause that a host asks for.
        clock: returns seconds that never go back.
        seed: of the jitter.

    Attributes:
        in_flight: requests that were taken and are not done.
        queued: requests that wait.
        hosts_waiting: hosts that have requests and wait for their time.
        hosts_given_up: hosts that were given up.

    Example:
        >>> from collections import namedtuple
        >>> Page = namedtuple("Page", "origin path")
        >>> now = 0.0
        >>> scheduler = Scheduler(workers=10, per_host=1, delay=2.0, clock=lambda: now)
        >>> for path in ("/a", "/b"):
        ...     scheduler.add(Page("http://one.example:80", path))
        >>> page = scheduler.take()
        >>> page.path, scheduler.take()
        ('/a', inf)
        >>> scheduler.done(page)
        >>> scheduler.take()
        2.0
        >>> now = 2.0
        >>> scheduler.take().path
        '/b'
    """

    def __init__(
        self,
        *,
        workers: int = 100,
        per_host: int = 2,
        delay: float = 0.25,
        max_wait: float = 120.0,
        clock: Callable[[], float],
        seed: int | None = None,
    ) -> None:
        self._workers = workers
        self._per_host = per_host
        self._delay = delay
        self._max_wait = max_wait
        self._clock = clock
        self._random = random.Random(seed)
        self._hosts: dict[str, Host[R]] = {}
        self._idle: OrderedDict[str, Host[R]] = OrderedDict()  # hosts without work, the longest idle first
        self._waiting: list[tuple[float, int, int, Host[R]]] = []  # a heap: due time, number, ticket, host
        self._trusted: _Ready[R] = deque()
        self._suspect: _Ready[R] = deque()
        self._contending: set[Host[R]] = set()  # hosts that are ready or have a request in flight
        self._to_refill: dict[str, None] = {}  # hosts that should be refilled from the frontier, in order
        self._numbers = 0  # makes entries of heaps with equal times comparable
        self._in_suspect = 0  # requests in flight to suspects
        self.in_flight = 0
        self.queued = 0
        self.hosts_waiting = 0
        self.hosts_given_up = 0

    # -- requests -----------------------------------------------------------------------------------

    def add(self, request: R, *, urgent: bool = False) -> None:
        """Queue *request* at its host.

        Args:
            urgent: send it before the others of the host, and even while the host is held.
        """
        host = self.host(request.origin)
        (host.urgent if urgent else host.queue).append(request)
        self.queued += 1
        self._update_refill(host)
        if host.place is _Place.READY or (host.place is _Place.WAITING and host.due() >= host.due_at):
            return
        self._place(host)

    def take(self) -> R | float | None:
        """Return a request to be sent now, the seconds until there may be one, or None.

        The seconds are infinite while everything that waits depends on a request in flight. None means that nothing
        waits and nothing is in flight.
        """
        now = self._clock()
        while self._waiting and self._waiting[0][0] <= now:
            _, _, ticket, host = heappop(self._waiting)
            if ticket == host.ticket:
                self._make_ready(host)
        next_host = self._next_ready()
        if next_host is None:
            return self._until(now)
        request = next_host.pop(now)
        self.queued -= 1
        self._start(next_host, now)
        return request

    def done(
        self,
        request: R,
        outcome: RequestOutcome = RequestOutcome.ANSWERED,
        *,
        seconds: float = 0.0,
        retry_after: float | None = None,
        retry: R | None = None,
        urgent: bool = False,
    ) -> None:
        """Report the end of *request*, which `take` returned. Call it exactly once for each request.

        Args:
            outcome: what it says about the host.
            seconds: that the response took.
            retry_after: the pause that the host asked for, in seconds; None without one.
            retry: the request to be sent again after a pause; None if it is not tried again.
            urgent: the retry is urgent, see `add`, and the whole host waits for it.
        """
        host = self._hosts[request.origin]
        now = self._clock()
        host.in_flight -= 1
        self.in_flight -= 1
        self._in_suspect -= host.is_suspect
        pause = self._record(host, outcome, seconds)
        if retry_after is not None:
            pause = max(pause, self.bounded(retry_after))
        if outcome is RequestOutcome.UNSENT and host.next_start == host.after_start:
            host.next_start = host.before_start  # nothing was sent that a delay could follow
        if outcome in (RequestOutcome.THROTTLED, RequestOutcome.UNREACHABLE) or retry_after is not None or urgent:
            host.next_start = max(host.next_start, now + pause)
        if retry is not None:
            self.queued += 1
            self._numbers += 1
            if urgent:
                host.urgent.append(retry)
            else:
                heappush(host.later, (now + pause, self._numbers, retry))
        self._update_refill(host)
        self._place(host)

    # -- hosts --------------------------------------------------------------------------------------

    def host(self, origin: str) -> Host[R]:
        """Return the host of that key; a new one if it is not in memory."""
        host = self._hosts.get(origin)
        if host is None:
            host = self._hosts[origin] = Host(origin, self._delay)
            self._rest(host)
        return host

    def knows(self, origin: str) -> bool:
        """Return True if a host is in memory."""
        return origin in self._hosts

    def hold(self, origin: str) -> None:
        """Send only urgent requests to a host until `release`. Its robots.txt must be known first, for example."""
        host = self.host(origin)
        host.is_held = True
        self._place(host)

    def release(self, origin: str) -> None:
        """Send all requests of a host again."""
        host = self.host(origin)
        host.is_held = False
        self._place(host)

    def set_delay(self, origin: str, seconds: float | None) -> None:
        """Set the delay that a host asks for, from its last request on. It is never shorter than the crawl's own."""
        host = self.host(origin)
        delay = self._delay if seconds is None else max(self._delay, self.bounded(seconds))
        if host.next_start == host.after_start:
            host.next_start = host.after_start = host.after_start + delay - host.delay
        host.delay = delay
        self._place(host)

    def bounded(self, seconds: float) -> float:
        """Return *seconds*, a pause that a host asks for, from 0 to the limit. NaN counts as 0.

        Example:
            >>> scheduler = Scheduler(max_wait=60, clock=lambda: 0.0)
            >>> [scheduler.bounded(seconds) for seconds in (-5, 5, 1e300, float("nan"))]
            [0.0, 5.0, 60.0, 0.0]
        """
        return float(min(seconds, self._max_wait)) if seconds > 0 else 0.0

    # -- the frontier -------------------------------------------------------------------------------

    def expect(self, origin: str) -> None:
        """Note that the frontier may have requests for a host that are not in memory."""
        host = self.host(origin)
        host.may_have_more = True
        self._update_refill(host)

    def exhausted(self, origin: str) -> None:
        """Note that the frontier has no more requests for a host."""
        host = self.host(origin)
        host.may_have_more = False
        self._update_refill(host)
        if host.place is _Place.IDLE:
            self._rest(host)

    def wanted(self, limit: int = 64) -> list[tuple[str, int]]:
        """Return hosts that should be refilled from the frontier, the oldest need first, with the number of requests.

        The hosts are not returned again before they have sent something or `expect` was called for them.
        """
        origins = list(self._to_refill)[:limit]
        for origin in origins:
            del self._to_refill[origin]
        return [(origin, WINDOW - self._hosts[origin].queued) for origin in origins]

    @property
    def needs_refill(self) -> bool:
        """True if `wanted` would return a host."""
        return bool(self._to_refill)

    @property
    def hosts_in_memory(self) -> int:
        """The number of hosts that have work, or may have some in the frontier."""
        return len(self._hosts) - len(self._idle)

    # -- inside -------------------------------------------------------------------------------------

    def _start(self, host: Host[R], now: float) -> None:
        host.in_flight += 1
        self.in_flight += 1
        self._in_suspect += host.is_suspect
        if not host.is_given_up:
            host.before_start = host.next_start
            host.next_start = host.after_start = now + host.delay
        self._update_refill(host)
        self._place(host)

    def _record(self, host: Host[R], outcome: RequestOutcome, seconds: float) -> float:
        """Update what is known of *host*, and return the back-off in seconds."""
        if outcome is RequestOutcome.UNSENT:
            return 0.0
        pause = 0.0
        host.unreachable = host.unreachable + 1 if outcome is RequestOutcome.UNREACHABLE else 0
        if outcome is RequestOutcome.ANSWERED:
            host.failures = 0
            host.seconds += WEIGHT * (seconds - host.seconds)
        else:
            host.failures += 1
            doublings = min(host.failures - 1, 30)  # the pause is at its limit long before
            pause = min(BACK_OFF * 2.0**doublings, BACK_OFF_MAX) * self._random.uniform(*JITTER)
            if host.unreachable >= UNREACHABLE_MOST or host.failures >= FAILED_MOST:
                self.hosts_given_up += not host.is_given_up
                host.is_given_up = True
        self._suspect_if(host, (host.failures > 0 or host.seconds > SLOW) and not host.is_given_up)
        return pause

    def _suspect_if(self, host: Host[R], is_suspect: bool) -> None:  # noqa: FBT001 - the new value of a field
        if is_suspect is not host.is_suspect:
            host.is_suspect = is_suspect
            self._in_suspect += host.in_flight if is_suspect else -host.in_flight

    def _place(self, host: Host[R]) -> None:
        """Put *host* where it belongs now. Every earlier entry of it becomes void."""
        host.ticket += 1
        due = host.due()
        limit = math.inf if host.is_given_up else 1 if host.failures else self._per_host
        if due == math.inf:
            self._move(host, _Place.BUSY if host.in_flight else _Place.IDLE)
        elif host.in_flight >= limit:
            self._move(host, _Place.BUSY)
        elif due > self._clock():
            self._move(host, _Place.WAITING)
            host.due_at = due
            self._numbers += 1
            heappush(self._waiting, (due, self._numbers, host.ticket, host))
        else:
            self._make_ready(host)
        self._note(host)

    def _move(self, host: Host[R], place: _Place) -> None:
        self.hosts_waiting += (place is _Place.WAITING) - (host.place is _Place.WAITING)
        host.place = place

    def _make_ready(self, host: Host[R]) -> None:
        self._move(host, _Place.READY)
        self._numbers += 1
        (self._suspect if host.is_suspect else self._trusted).append((self._numbers, host.ticket, host))
        self._contending.add(host)

    def _next_ready(self) -> Host[R] | None:
        """Remove and return the host that is ready longest and may send a request."""
        while True:
            queue = self._trusted
            _discard_void(queue)
            _discard_void(self._suspect)
            if (
                self._suspect
                and self._in_suspect < max(1, self._workers // 2)
                and (not queue or self._suspect[0][0] < queue[0][0])
            ):
                queue = self._suspect
            if not queue:
                return None
            host = queue.popleft()[2]
            if host.in_flight < max(1, self._workers // len(self._contending)) or host.is_given_up:
                return host
            self._move(host, _Place.BUSY)  # it has its share; the end of one of its requests makes it ready again

    def _note(self, host: Host[R]) -> None:
        """Update the sets of hosts."""
        if host.in_flight or host.place is _Place.READY:
            self._contending.add(host)
        else:
            self._contending.discard(host)
        if host.place is _Place.IDLE:
            self._rest(host)
        else:
            self._idle.pop(host.origin, None)

    def _rest(self, host: Host[R]) -> None:
        """Keep a host without work among the idle ones, and forget those that are idle longest."""
        if host.queued or host.in_flight or host.may_have_more:
            self._idle.pop(host.origin, None)
            return
        self._idle[host.origin] = host
        self._idle.move_to_end(host.origin)
        while len(self._idle) > IDLE:
            origin, forgotten = self._idle.popitem(last=False)
            del self._hosts[origin]
            self._to_refill.pop(origin, None)
            forgotten.ticket += 1

    def _update_refill(self, host: Host[R]) -> None:
        """Note whether *host* should be refilled: few of its requests are in memory, and there may be more."""
        if host.may_have_more and host.queued <= WINDOW // 2:
            self._to_refill[host.origin] = None
            self._idle.pop(host.origin, None)
        else:
            self._to_refill.pop(host.origin, None)

    def _until(self, now: float) -> float | None:
        while self._waiting and self._waiting[0][2] != self._waiting[0][3].ticket:
            heappop(self._waiting)
        if self._waiting:
            return max(0.0, self._waiting[0][0] - now)
        return math.inf if self.queued or self.in_flight else None


def _discard_void(queue: _Ready[R]) -> None:
    while queue and (queue[0][1] != queue[0][2].ticket or queue[0][2].place is not _Place.READY):
        queue.popleft()
