"""Politeness, as the server sees it: what it was asked, when, and how much of it at one time.

A lower bound of a time is no guess: the request with the number n of a host was sent n delays after the crawl began, or
later, however slow the machine is.
"""

from __future__ import annotations

import gzip
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import gevent
import pytest

from greendata.crawl import Page, crawl, fetch
from greendata.crawl import scheduler as scheduling
from greendata.crawl.robots import RobotsRules
from greendata.testing import Reply, Request, Site
from tests.support.gates import Gate, open_from_hub

UA = "testbot/1.0 (testbot@example.com)"
LOOPBACK = ["127.0.0.0/8"]
TEXT = "<title>page</title>"


def fetched(urls: list[str], **options: Any) -> dict[str, Page]:
    """Return the pages by their URLs; every URL is one page."""
    options = {"user_agent": UA, "allow_private": LOOPBACK, "delay": 0, **options}
    pages = list(fetch(urls, **options))
    assert sorted(page.url for page in pages) == sorted(urls)
    return {page.url: page for page in pages}


def in_background(urls: list[str], **options: Any) -> gevent.Greenlet:
    return gevent.spawn(fetched, urls, **options)


@pytest.fixture(autouse=True)
def _short_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling, "BACK_OFF", 0.01)


def urls_of(site: Site, count: int, *, hosts: int = 1) -> list[str]:
    return [site.url(f"/{number}", host=site.hosts[host]) for number in range(count) for host in range(hosts)]


# -- delays and numbers -----------------------------------------------------------------------------------


def test_requests_to_a_host_are_a_delay_apart_and_robots_is_one_of_them() -> None:
    with Site(lambda _: TEXT, robots="", hosts=2) as site:
        begun = time.monotonic()
        fetched(urls_of(site, 3, hosts=2), delay=0.05)
        for host in site.hosts:
            asked = site.asked(host=host)
            assert asked[0].path == "/robots.txt"
            assert len(asked) == 4
            for number, request in enumerate(asked):
                assert request.at - begun >= number * 0.05


def test_a_crawl_delay_of_robots_is_kept() -> None:
    with Site(lambda _: TEXT, robots="User-agent: *\nCrawl-delay: 0.1\n") as site:
        begun = time.monotonic()
        fetched(urls_of(site, 3))
        assert [request.at - begun >= number * 0.1 for number, request in enumerate(site.requests)] == [True] * 4


def test_a_host_has_no_more_requests_at_once_than_it_may() -> None:
    with Site(lambda _: TEXT, robots="", hosts=3) as site:
        holds = [site.hold(f"/{number}") for number in range(8)]
        pages = in_background(urls_of(site, 8, hosts=3), per_host=2)
        for host in site.hosts:
            site.wait_for(3, host=host)  # robots.txt and two pages
        for hold in holds:
            hold.open()
        pages.get()
        assert [site.most_at_once(host) for host in site.hosts] == [2, 2, 2]


def test_all_hosts_together_have_no_more_requests_than_there_are_workers() -> None:
    with Site(lambda _: TEXT, robots="", hosts=4) as site:
        fetched(urls_of(site, 4, hosts=4), workers=3)
        assert site.most_at_once() <= 3


def test_a_host_that_is_silent_does_not_hold_up_the_others() -> None:
    with Site(lambda _: TEXT, robots="", hosts=5) as site:
        hold = site.hold(host=site.hosts[0])
        pages = in_background(urls_of(site, 20, hosts=5), per_host=2, workers=4)
        for host in site.hosts[1:]:
            site.wait_for(21, host=host)
        hold.wait()
        assert (hold.waiting, pages.ready()) == (1, False)  # its robots.txt
        hold.open()
        pages.get()


def test_connections_are_kept_and_no_host_has_more_than_it_may() -> None:
    with Site(lambda _: TEXT, robots="", hosts=3) as site:
        fetched(urls_of(site, 10, hosts=3), per_host=2)
        assert all(site.connections(host) <= 2 for host in site.hosts)


# -- robots.txt -------------------------------------------------------------------------------------------


def test_robots_comes_before_everything_else() -> None:
    with Site(lambda _: TEXT, robots="", hosts=2) as site, site.hold("/robots.txt") as hold:
        pages = in_background(urls_of(site, 3, hosts=2))
        hold.wait(2)
        assert {request.path for request in site.requests} == {"/robots.txt"}
        hold.open()
        pages.get()
        assert site.count("/robots.txt") == 2


def test_what_robots_disallows_is_not_asked_for() -> None:
    robots = "User-agent: *\nDisallow: /\n\nUser-agent: testbot\nDisallow: /private\n"
    with Site(lambda _: TEXT, robots=robots) as site:
        pages = fetched([site.url("/open"), site.url("/private/1")])
        refused = pages[site.url("/private/1")]
        assert (refused.error, refused.robots, refused.status) == ("RobotsDisallowed", "disallowed", None)
        assert (pages[site.url("/open")].robots, pages[site.url("/open")].error) == ("allowed", None)
        assert [request.path for request in site.requests] == ["/robots.txt", "/open"]


@pytest.mark.parametrize(
    ("robots", "error"),
    [
        (404, None),
        (403, None),
        (410, None),
        (Reply.redirect("/robots.txt"), None),  # more than five redirects: there is no file
        (500, "RobotsUnreachable"),
        (503, "RobotsUnreachable"),
        (Reply(fault="reset"), "ConnectionFailed"),
        (Reply(fault="close"), "ConnectionFailed"),
        (Reply(fault="garbage"), "BadResponse"),
    ],
    ids=lambda value: str(getattr(value, "fault", None) or getattr(value, "status", value)),
)
def test_what_comes_of_robots_decides(robots: Any, error: str | None) -> None:
    with Site(lambda _: TEXT, robots=robots) as site:
        page = fetched([site.url("/a")], retries=1)[site.url("/a")]
        assert (page.error, page.robots) == (error, "allowed" if error is None else "unreachable")
        assert site.count("/a") == (error is None)


@pytest.mark.parametrize("fault", ["short", "reset body", "bad chunk"])
def test_a_robots_txt_that_breaks_off_allows_nothing_and_is_asked_for_again(fault: Any) -> None:
    robots = "User-agent: *\nAllow: /public\n" + 20 * "# a comment\n" + "Disallow: /private\n"
    broken = Reply(body=robots, fault=fault)
    with Site(lambda _: TEXT, robots=broken) as site:
        [page] = fetched([site.url("/private")], retries=1).values()
        assert (page.error, page.robots) == ("BadResponse", "unreachable")
        assert (site.count("/robots.txt"), site.count("/private")) == (2, 0)
    with Site(lambda _: TEXT, robots=[broken, robots]) as site:
        pages = fetched([site.url("/private"), site.url("/public")])
        assert [page.error for page in pages.values()].count("RobotsDisallowed") == 1
        assert (site.count("/robots.txt"), site.count("/private"), site.count("/public")) == (2, 0, 1)


def test_a_robots_txt_that_is_compressed_and_breaks_off_allows_nothing() -> None:
    packed = gzip.compress(b"User-agent: *\nDisallow: /private\n")[:-8]  # without its checksum and length
    reply = Reply(body=packed, headers={"Content-Encoding": "gzip"})
    with Site(lambda _: TEXT, robots=reply) as site:
        [page] = fetched([site.url("/private")], retries=0).values()
        assert (page.error, site.count("/private")) == ("BadResponse", 0)


def test_a_verdict_that_takes_long_is_found_off_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub has to open a gate at which the verdict waits."""
    gate = Gate()
    allows = RobotsRules.allows
    monkeypatch.setattr(RobotsRules, "allows", lambda rules, url: bool(gate(allows(rules, url))))
    stars = "".join(f"Disallow: /*aaaaaaaa{number}$\n" for number in range(1_000))
    with Site(lambda _: TEXT, robots=f"User-agent: *\nDisallow: /private\n{stars}") as site:
        opening = open_from_hub(gate)
        public, private = (site.url(path + "a" * 4_000) for path in ("/public/", "/private/"))
        pages = fetched([public, private])
        assert (pages[public].error, pages[private].error) == (None, "RobotsDisallowed")
        opening.get()


def test_a_host_that_is_too_busy_for_its_robots_is_asked_later() -> None:
    robots = [Reply(status=429, headers={"Retry-After": "1"}), "User-agent: *\nDisallow: /b"]
    with Site(lambda _: TEXT, robots=robots) as site:
        pages = fetched([site.url("/a"), site.url("/b")])
        assert pages[site.url("/b")].error == "RobotsDisallowed"
        first, second, *others = site.requests
        assert (first.path, second.path, [request.path for request in others]) == ("/robots.txt", "/robots.txt", ["/a"])
        assert second.at - first.at >= 1.0


def test_robots_that_moved_to_another_host() -> None:
    pages = {
        "127.0.0.1/robots.txt": lambda request: Reply.redirect(f"http://127.0.0.2:{port_of(request)}/robots.txt"),
        "127.0.0.2/robots.txt": "User-agent: *\nDisallow: /b",
        "/a": TEXT,
        "/b": TEXT,
    }
    with Site(pages, hosts=2) as site:
        found = fetched([site.url("/a"), site.url("/b")])
        assert [page.error for page in found.values()].count("RobotsDisallowed") == 1
        assert site.count("/b") == 0


def port_of(request: Request) -> str:
    return request.headers["host"].rpartition(":")[2]


def test_a_redirect_is_asked_for_under_the_rules_of_its_own_host() -> None:
    pages = {
        "127.0.0.1/robots.txt": "",
        "127.0.0.2/robots.txt": "User-agent: *\nDisallow: /private",
        "127.0.0.1/a": lambda request: Reply.redirect(f"http://127.0.0.2:{port_of(request)}/private"),
        "127.0.0.1/b": lambda request: Reply.redirect(f"http://127.0.0.2:{port_of(request)}/open"),
        "/open": TEXT,
    }
    with Site(pages, hosts=2) as site:
        found = fetched([site.url("/a"), site.url("/b")])
        a, b = (found[site.url(path)] for path in ("/a", "/b"))
        assert (a.error, b.error, b.final_url) == ("RobotsDisallowed", None, site.url("/open", host=site.hosts[1]))
        assert [request.path for request in site.asked(host="127.0.0.2")] == ["/robots.txt", "/open"]


def test_everything_is_asked_for_under_the_name_of_the_crawler() -> None:
    with Site({"/a": Reply.redirect("/b"), "/b": TEXT}) as site:
        fetched([site.url("/a")])
        assert [request.headers["user-agent"] for request in site.requests] == [UA] * 3


# -- Retry-After and back-off -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_in_seconds_is_kept_by_the_whole_host(status: int) -> None:
    turns = [Reply(status=status, headers={"Retry-After": "1"}), TEXT]
    with Site({"/a": turns, "/b": TEXT}, robots="") as site:
        pages = fetched([site.url("/a"), site.url("/b")], per_host=1)
        assert {page.status for page in pages.values()} == {200}
        asked = [request for request in site.requests if request.path != "/robots.txt"]
        first = next(number for number, request in enumerate(asked) if request.path == "/a")
        assert asked[first + 1].at - asked[first].at >= 1.0


def test_retry_after_as_a_date_is_kept() -> None:
    told: list[datetime] = []

    def busy(_: Request) -> Reply:
        told.append((datetime.now(UTC) + timedelta(seconds=2)).replace(microsecond=0))
        return Reply(status=503, headers={"Retry-After": format_datetime(told[0], usegmt=True)})

    def ready(_: Request) -> str:
        told.append(datetime.now(UTC))
        return TEXT

    with Site({"/a": [busy, ready]}, robots="") as site:
        assert fetched([site.url("/a")])[site.url("/a")].status == 200
    assert told[1] >= told[0]


@pytest.mark.parametrize(
    "header",
    [
        "-5",
        "0",
        "soon",
        "",
        "99999999999999999999",
        "1e308",
        "Mon, 01 Jan 1990 00:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 GMT",
    ],
)
def test_a_retry_after_that_makes_no_sense_is_bounded(header: str) -> None:
    with Site({"/a": [Reply(status=503, headers={"Retry-After": header}), TEXT]}, robots="") as site:
        assert fetched([site.url("/a")], max_wait=0.1)[site.url("/a")].status == 200
        assert site.count("/a") == 2


def test_a_host_that_fails_is_left_alone_for_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling, "BACK_OFF", 0.1)
    with Site({"/a": [503, 503, TEXT]}, robots="") as site:
        assert fetched([site.url("/a")])[site.url("/a")].status == 200
        gaps = [after.at - before.at for before, after in zip(site.asked("/a"), site.asked("/a")[1:], strict=False)]
        assert [gap >= least for gap, least in zip(gaps, (0.075, 0.15), strict=True)] == [True, True]


def test_attempts_end_and_the_last_answer_is_the_row() -> None:
    with Site({"/a": 503}, robots="") as site:
        page = fetched([site.url("/a")], retries=2)[site.url("/a")]
        assert (page.status, site.count("/a")) == (503, 3)


def test_a_host_that_never_answers_is_given_up() -> None:
    with Site(lambda _: Reply(fault="close"), robots="") as site:
        pages = fetched(urls_of(site, 30), retries=0)
        assert {page.error for page in pages.values()} == {"ConnectionFailed", "HostGivenUp"}
        assert len(site.asked()) - 1 <= scheduling.UNREACHABLE_MOST + 1  # once over the connection of robots.txt


# -- a crawl ----------------------------------------------------------------------------------------------


def test_a_crawl_asks_for_each_page_once_and_stays_in_its_scope() -> None:
    def page(request: Request) -> str:
        others = "".join(f"<a href=/{number}>x</a><a href=/{number}#top>x</a>" for number in range(20))
        return f"{others}<a href=http://127.0.0.2:{port_of(request)}/other>x</a>"

    with Site(page, robots="", hosts=2) as site:
        stage = crawl(site.url("/0"), user_agent=UA, allow_private=LOOPBACK, delay=0, scope="host")
        assert len(list(stage)) == 20
        assert sorted(request.path for request in site.requests) == sorted(
            ["/robots.txt", *(f"/{n}" for n in range(20))]
        )


def test_sitemaps_count_as_requests_of_their_host() -> None:
    pages: dict[str, Any] = {
        "/robots.txt": lambda request: f"Sitemap: http://127.0.0.1:{port_of(request)}/index.xml",
        "/index.xml": lambda request: Reply.sitemap([f"http://127.0.0.1:{port_of(request)}/map.xml"], index=True),
        "/map.xml": lambda request: Reply.sitemap([f"http://127.0.0.1:{port_of(request)}/{n}" for n in range(3)]),
        **{f"/{number}": TEXT for number in range(4)},
    }
    with Site(pages) as site:
        begun = time.monotonic()
        stage = crawl(site.url("/3"), user_agent=UA, allow_private=LOOPBACK, delay=0.05, sitemaps=True)
        assert sorted(page.url for page in stage) == [site.url(f"/{number}") for number in range(4)]
        assert len(site.requests) == 7
        assert [request.at - begun >= number * 0.05 for number, request in enumerate(site.requests)] == [True] * 7
