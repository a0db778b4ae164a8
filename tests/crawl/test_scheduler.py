"""The scheduler, at a clock that the test turns: whatever it decides, it decides without waiting."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from greendata.crawl.scheduler import (
    BACK_OFF,
    FAILED_MOST,
    IDLE,
    JITTER,
    UNREACHABLE_MOST,
    WINDOW,
    RequestOutcome,
    Scheduler,
)
from greendata.http.retry import retry_after_of

pytestmark = pytest.mark.once("patched")  # no thread and no hub takes part

A, B = "http://a.example:80", "http://b.example:80"


@dataclass(eq=False)
class Page:
    origin: str
    name: int = 0


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def scheduler_at(clock: Clock, **options: float) -> Scheduler[Page]:
    return Scheduler(clock=clock, seed=7, **{"workers": 100, "per_host": 1, "delay": 0.0, **options})  # type: ignore[arg-type]


def taken(scheduler: Scheduler[Page]) -> Page:
    page = scheduler.take()
    assert isinstance(page, Page)
    return page


def waits(scheduler: Scheduler[Page]) -> float:
    seconds = scheduler.take()
    assert isinstance(seconds, float)
    return seconds


# -- one host ------------------------------------------------------------------------------------------


def test_nothing_to_do_is_not_the_same_as_nothing_to_do_yet() -> None:
    scheduler = scheduler_at(Clock())
    assert scheduler.take() is None
    scheduler.add(Page(A))
    page = taken(scheduler)
    assert waits(scheduler) == math.inf
    scheduler.done(page)
    assert scheduler.take() is None


def test_requests_of_a_host_start_in_order_and_not_before_its_delay() -> None:
    clock = Clock()
    scheduler = scheduler_at(clock, per_host=5, delay=2.0)
    for name in range(3):
        scheduler.add(Page(A, name))
    assert taken(scheduler).name == 0
    assert waits(scheduler) == 2.0
    clock.now = 1.5
    assert waits(scheduler) == 0.5
    clock.now = 2.0
    assert taken(scheduler).name == 1
    assert waits(scheduler) == 2.0


def test_requests_in_flight_to_a_host_are_limited() -> None:
    scheduler = scheduler_at(Clock(), per_host=2)
    for name in range(3):
        scheduler.add(Page(A, name))
    first, _ = taken(scheduler), taken(scheduler)
    assert waits(scheduler) == math.inf
    scheduler.done(first)
    assert taken(scheduler).name == 2


def test_a_request_that_is_added_while_others_are_in_flight_starts_at_once() -> None:
    scheduler = scheduler_at(Clock(), per_host=2)
    scheduler.add(Page(A, 0))
    taken(scheduler)
    scheduler.add(Page(A, 1))
    assert taken(scheduler).name == 1


def test_a_held_host_sends_urgent_requests_only() -> None:
    scheduler = scheduler_at(Clock(), per_host=2)
    scheduler.hold(A)
    scheduler.add(Page(A, 1))
    assert waits(scheduler) == math.inf
    scheduler.add(Page(A, 0), urgent=True)
    assert taken(scheduler).name == 0
    assert waits(scheduler) == math.inf
    scheduler.release(A)
    assert taken(scheduler).name == 1


def test_an_urgent_request_that_failed_is_tried_again_although_the_host_is_held() -> None:
    clock = Clock()
    scheduler = scheduler_at(clock)
    scheduler.hold(A)
    scheduler.add(Page(A, 0), urgent=True)
    scheduler.add(Page(A, 1))
    page = taken(scheduler)
    scheduler.done(page, RequestOutcome.FAILED, retry=page, urgent=True)
    clock.now += waits(scheduler)
    assert taken(scheduler) is page


def test_a_request_that_was_not_sent_leaves_no_delay() -> None:
    scheduler = scheduler_at(Clock(), delay=10.0)
    scheduler.add(Page(A, 0))
    scheduler.add(Page(A, 1))
    scheduler.done(taken(scheduler), RequestOutcome.UNSENT)
    assert taken(scheduler).name == 1
    assert scheduler.host(A).failures == 0


def test_what_was_not_sent_does_not_undo_a_pause_that_came_meanwhile() -> None:
    scheduler = scheduler_at(Clock(), per_host=2, delay=0.0)
    for name in range(3):
        scheduler.add(Page(A, name))
    first, second = taken(scheduler), taken(scheduler)
    scheduler.done(first, RequestOutcome.THROTTLED, retry_after=60.0)
    scheduler.done(second, RequestOutcome.UNSENT)
    assert waits(scheduler) == 60.0


def test_crawl_delay_makes_the_delay_longer_never_shorter_and_is_bounded() -> None:
    clock = Clock()
    scheduler = scheduler_at(clock, delay=1.0, max_wait=30.0)
    for asked, kept in ((0.1, 1.0), (5.0, 5.0), (1e9, 30.0), (-3.0, 1.0), (math.nan, 1.0), (None, 1.0)):
        scheduler.set_delay(A, asked)
        scheduler.add(Page(A))
        scheduler.add(Page(A))
        page = taken(scheduler)
        assert waits(scheduler) in (kept, math.inf)
        scheduler.done(page)
        assert waits(scheduler) == kept
        clock.now += kept
        scheduler.done(taken(scheduler))
        clock.now += 60.0


def test_a_crawl_delay_counts_from_the_request_before_it_was_known() -> None:
    clock = Clock()
    scheduler = scheduler_at(clock, delay=0.0)
    scheduler.add(Page(A, 0))
    scheduler.add(Page(A, 1))
    robots = taken(scheduler)
    scheduler.done(robots)
    clock.now = 1.0
    scheduler.set_delay(A, 5.0)
    assert waits(scheduler) == 4.0
    clock.now = 5.0
    taken(scheduler)


# -- pauses --------------------------------------------------------------------------------------------


def test_retry_after_stops_the_whole_host() -> None:
    clock = Clock()
    scheduler = scheduler_at(clock)
    scheduler.add(Page(A, 0))
    scheduler.add(Page(A, 1))
    page = taken(scheduler)
    scheduler.done(page, RequestOutcome.THROTTLED, retry_after=30.0, retry=page)
    assert waits(scheduler) == 30.0
    clock.now = 30.0
    assert taken(scheduler) is page


@pytest.mark.parametrize("asked", [-30.0, 0.0, math.nan])
def test_a_pause_in_the_past_is_a_usual_back_off(asked: float) -> None:
    scheduler = scheduler_at(Clock())
    scheduler.add(Page(A))
    page = taken(scheduler)
    scheduler.done(page, RequestOutcome.THROTTLED, retry_after=asked, retry=page)
    assert BACK_OFF * JITTER[0] <= waits(scheduler) <= BACK_OFF * JITTER[1]


@pytest.mark.parametrize("asked", [1e9, math.inf, 1e308])
def test_a_huge_pause_is_bounded(asked: float) -> None:
    scheduler = scheduler_at(Clock(), max_wait=90.0)
    scheduler.add(Page(A))
    page = taken(scheduler)
    scheduler.done(page, RequestOutcome.THROTTLED, retry_after=asked, retry=page)
    assert waits(scheduler) == 90.0


def test_back_off_doubles_and_an_answer_ends_it() -> None:
    clock = Clock()
    scheduler = scheduler_at(clock)
    scheduler.add(Page(A))
    pauses = []
    for _ in range(UNREACHABLE_MOST - 1):
        page = taken(scheduler)
        scheduler.done(page, RequestOutcome.UNREACHABLE, retry=page)
        pauses.append(waits(scheduler))
        clock.now += pauses[-1]
    for number, pause in enumerate(pauses):
        assert BACK_OFF * 2**number * JITTER[0] <= pause <= BACK_OFF * 2**number * JITTER[1]
    scheduler.done(taken(scheduler))
    scheduler.add(Page(A, 1))
    assert taken(scheduler).name == 1


def test_hosts_that_fail_together_do_not_come_back_together() -> None:
    scheduler = scheduler_at(Clock())
    for number in range(20):
        scheduler.add(Page(f"http://{number}.example:80"))
    pages = [taken(scheduler) for _ in range(20)]
    for page in pages:
        scheduler.done(page, RequestOutcome.UNREACHABLE, retry=page)
    assert len({scheduler.host(page.origin).next_start for page in pages}) == 20


def test_the_jitter_is_that_of_the_seed() -> None:
    def pause() -> float:
        scheduler = scheduler_at(Clock())
        scheduler.add(Page(A))
        page = taken(scheduler)
        scheduler.done(page, RequestOutcome.UNREACHABLE, retry=page)
        return waits(scheduler)

    assert pause() == pause()


def test_an_error_of_the_server_delays_its_own_request_and_not_the_host() -> None:
    scheduler = scheduler_at(Clock())
    scheduler.add(Page(A, 0))
    scheduler.add(Page(A, 1))
    page = taken(scheduler)
    scheduler.done(page, RequestOutcome.FAILED, retry=page)
    assert taken(scheduler).name == 1


def test_a_host_that_failed_gets_one_request_at_a_time_until_it_answers() -> None:
    clock = Clock()
    scheduler = scheduler_at(clock, per_host=3)
    for name in range(5):
        scheduler.add(Page(A, name))
    scheduler.done(taken(scheduler), RequestOutcome.UNREACHABLE)
    clock.now = 10.0
    trial = taken(scheduler)
    assert waits(scheduler) == math.inf
    scheduler.done(trial)
    assert [taken(scheduler).name for _ in range(3)] == [2, 3, 4]


def test_an_unreachable_host_is_given_up_and_its_requests_come_out_at_once() -> None:
    clock = Clock()
    scheduler = scheduler_at(clock, delay=5.0)
    for name in range(20):
        scheduler.add(Page(A, name))
    for _ in range(UNREACHABLE_MOST):
        scheduler.done(taken(scheduler), RequestOutcome.UNREACHABLE)
        if not scheduler.host(A).is_given_up:
            clock.now += waits(scheduler)
    assert scheduler.host(A).is_given_up
    left = [taken(scheduler) for _ in range(20 - UNREACHABLE_MOST)]
    for page in left:
        scheduler.done(page, RequestOutcome.UNSENT)
    assert scheduler.take() is None
    assert scheduler.hosts_given_up == 1


def test_a_host_with_a_broken_section_is_not_given_up_for_it() -> None:
    clock = Clock()
    scheduler = scheduler_at(clock)
    for _ in range(FAILED_MOST - 1):
        scheduler.add(Page(A))
        scheduler.done(taken(scheduler), RequestOutcome.FAILED)
    assert not scheduler.host(A).is_given_up
    scheduler.add(Page(A))
    scheduler.done(taken(scheduler), RequestOutcome.THROTTLED)
    assert scheduler.host(A).is_given_up


# -- several hosts -------------------------------------------------------------------------------------


def test_hosts_take_turns() -> None:
    scheduler = scheduler_at(Clock())
    for name in range(3):
        scheduler.add(Page(A, name))
        scheduler.add(Page(B, name))
    order = []
    while isinstance(page := scheduler.take(), Page):
        order.append((page.origin, page.name))
        scheduler.done(page)
    assert order == [(A, 0), (B, 0), (A, 1), (B, 1), (A, 2), (B, 2)]


def test_no_host_takes_more_than_its_share_of_the_workers() -> None:
    scheduler = scheduler_at(Clock(), workers=8, per_host=8)
    for origin in (A, B):
        scheduler.add(Page(origin))
        scheduler.done(taken(scheduler))  # both have answered: they are no suspects
    for name in range(20):
        scheduler.add(Page(A, name))
        scheduler.add(Page(B, name))
    assert Counter(taken(scheduler).origin for _ in range(8)) == {A: 4, B: 4}


def test_a_host_alone_may_use_all_workers() -> None:
    scheduler = scheduler_at(Clock(), workers=8, per_host=8)
    scheduler.add(Page(A))
    scheduler.done(taken(scheduler))
    for name in range(20):
        scheduler.add(Page(A, name))
    assert [taken(scheduler).name for _ in range(8)] == list(range(8))


def test_hosts_that_wait_for_their_time_take_no_share_from_the_others() -> None:
    scheduler = scheduler_at(Clock(), workers=8, per_host=8)
    for origin, outcome in ((A, RequestOutcome.ANSWERED), (B, RequestOutcome.THROTTLED)):
        scheduler.add(Page(origin))
        scheduler.done(taken(scheduler), outcome, retry_after=60.0 if origin == B else None)
    for name in range(20):
        scheduler.add(Page(A, name))
        scheduler.add(Page(B, name))
    assert Counter(taken(scheduler).origin for _ in range(8)) == {A: 8}


@dataclass
class Web:
    """Hosts that answer after some seconds; a discrete simulation of a crawl by *workers* workers."""

    scheduler: Scheduler[Page]
    clock: Clock
    workers: int
    seconds: Callable[[Page], tuple[float, RequestOutcome, float | None]]
    answered: Counter[str] = field(default_factory=Counter)
    in_flight: list[tuple[float, int, Page, RequestOutcome, float | None]] = field(default_factory=list)
    number: int = 0

    def run(self, until: float) -> None:
        while True:
            wait = self._start_all()
            at = min(self.clock.now + wait, self.in_flight[0][0] if self.in_flight else math.inf)
            if at > until or at == math.inf:
                return
            self.clock.now = at
            if self.in_flight and self.in_flight[0][0] <= at:
                self._end(*heapq.heappop(self.in_flight))

    def _start_all(self) -> float:
        """Start what may be started, and return the seconds until there may be more."""
        while len(self.in_flight) < self.workers:
            page = self.scheduler.take()
            if not isinstance(page, Page):
                return math.inf if page is None else page
            if self.scheduler.host(page.origin).is_given_up:
                self.scheduler.done(page, RequestOutcome.UNSENT)
                continue
            seconds, outcome, retry_after = self.seconds(page)
            self.number += 1
            heapq.heappush(self.in_flight, (self.clock.now + seconds, self.number, page, outcome, retry_after))
        return math.inf

    def _end(self, _at: float, _number: int, page: Page, outcome: RequestOutcome, retry_after: float | None) -> None:
        self.scheduler.done(page, outcome, seconds=self.seconds(page)[0], retry_after=retry_after)
        self.answered[page.origin] += outcome is RequestOutcome.ANSWERED
        self.scheduler.add(Page(page.origin))


GOOD = [f"http://good{number}.example:80" for number in range(40)]
BAD = [f"http://bad{number}.example:80" for number in range(60)]
TROUBLES = {
    "slow": (20.0, RequestOutcome.ANSWERED, None),
    "dead": (10.0, RequestOutcome.UNREACHABLE, None),
    "throttled": (0.05, RequestOutcome.THROTTLED, 30.0),
    "broken": (0.05, RequestOutcome.FAILED, None),
}


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize(("per_host", "delay", "workers"), [(1, 1.0, 100), (4, 0.1, 100), (2, 0.0, 200)])
def test_bad_hosts_leave_the_others_at_their_rate(trouble: str, per_host: int, delay: float, workers: int) -> None:
    def rate(*origins: str) -> Counter[str]:
        clock = Clock()
        scheduler = scheduler_at(clock, per_host=per_host, delay=delay, workers=workers)
        for origin in origins:
            for _ in range(10):
                scheduler.add(Page(origin))
        web = Web(
            scheduler,
            clock,
            workers,
            lambda page: (0.05, RequestOutcome.ANSWERED, None) if page.origin in GOOD else TROUBLES[trouble],
        )
        web.run(until=20.0)
        return web.answered

    alone, together = rate(*GOOD), rate(*GOOD, *BAD)
    assert min(alone[origin] for origin in GOOD) >= 19
    for origin in GOOD:
        assert together[origin] >= 0.95 * alone[origin]


def test_new_hosts_get_their_turn_among_busy_ones() -> None:
    clock = Clock()
    scheduler = scheduler_at(clock, workers=4)
    for origin in GOOD:
        for _ in range(10):
            scheduler.add(Page(origin))
    web = Web(scheduler, clock, 4, lambda _: (0.05, RequestOutcome.ANSWERED, None))
    web.run(until=1.0)
    scheduler.add(Page(A))
    web.run(until=3.0)
    assert web.answered[A] >= 1


# -- the frontier --------------------------------------------------------------------------------------


def test_hosts_are_filled_when_they_run_low() -> None:
    scheduler = scheduler_at(Clock())
    scheduler.expect(A)
    assert scheduler.wanted() == [(A, WINDOW)]
    assert not scheduler.needs_refill
    for name in range(WINDOW):
        scheduler.add(Page(A, name))
    while not scheduler.needs_refill:
        scheduler.done(taken(scheduler))
    assert scheduler.wanted() == [(A, WINDOW - WINDOW // 2)]
    scheduler.exhausted(A)
    scheduler.done(taken(scheduler))
    assert not scheduler.needs_refill
    scheduler.expect(A)
    assert scheduler.needs_refill


def test_only_hosts_without_work_are_forgotten() -> None:
    scheduler = scheduler_at(Clock())
    scheduler.add(Page(A))
    scheduler.expect(B)
    for number in range(IDLE + 10):
        scheduler.host(f"http://{number}.example:80").robots = number
    assert scheduler.hosts_in_memory == 2
    assert scheduler.host("http://0.example:80").robots is None
    assert scheduler.host(f"http://{IDLE + 9}.example:80").robots == IDLE + 9
    assert taken(scheduler).origin == A


def test_every_request_of_many_hosts_comes_out_once() -> None:
    clock = Clock()
    scheduler = scheduler_at(clock, delay=1.0)
    for number in range(20_000):
        scheduler.add(Page(f"http://{number}.example:80"))
        scheduler.add(Page(f"http://{number}.example:80", 1))
    pages = 0
    while (page := scheduler.take()) is not None:
        if isinstance(page, Page):
            scheduler.done(page)
            pages += 1
        else:
            clock.now += page
    assert pages == 40_000


# -- Retry-After ---------------------------------------------------------------------------------------

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("9" * 30, 1e30),
        ("9" * 5_000, math.inf),
        ("Thu, 01 Jan 2026 00:02:00 GMT", 120.0),
        ("Thursday, 01-Jan-26 00:02:00 GMT", 120.0),
        ("Thu Jan  1 00:02:00 2026", 120.0),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0.0),
        ("1 Jan 1 00:00:00 +2359", 0.0),
        (None, None),
        ("", None),
        ("-5", None),
        ("1e9", None),
        ("nan", None),
        ("soon", None),
        ("١٢", None),
        ("Thu, 99 Foo 2026 00:00:00 +9999", None),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_of(header, NOW) == (seconds if seconds is None else pytest.approx(seconds))
