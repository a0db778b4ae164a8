"""The stages `fetch` and `crawl` at a real site: what becomes of each URL, and what the site sees of it."""

from __future__ import annotations

import gc
import json
import os
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gevent
import polars as pl
import pytest
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, ConfigDict

import greendata
from greendata import observe
from greendata.crawl.crawler import Crawler
from greendata.crawl.dataset import Dataset
from greendata.crawl.frontier import Frontier
from greendata.crawl.html import ParsedPage
from greendata.crawl.page import Page
from greendata.crawl.stats import CrawlCounters
from greendata.crawl.urls import Url, parse_url
from greendata.crawl.verbs import CrawlStage, FetchStage, crawl, fetch
from greendata.errors import (
    AsyncFunction,
    BadArgument,
    BadChoice,
    BadTimeout,
    BadUrl,
    CrawlFolderRefused,
    CrawlMismatch,
    CrawlRunning,
    DeadlineExceeded,
    NotCallable,
    NotIterable,
    NotSendable,
    UnknownArgument,
)
from greendata.observe.metrics import Metrics
from greendata.observe.running import crawl_totals
from greendata.pipelines import run as runs
from greendata.pipelines import stages
from greendata.testing import Reply, Request, Site
from tests.support.gates import Gate

BOT: dict[str, Any] = {"user_agent": "testbot/1.0 (test@example.com)", "allow_private": True, "delay": 0}


def fetched(*urls: str, **options: Any) -> dict[str, Any]:
    """Fetch *urls*, and return their pages by URL."""
    return {page.url: page for page in fetch(urls, **{**BOT, **options})}


def crawled(*seeds: str, **options: Any) -> dict[str, Any]:
    """Crawl from *seeds*, check that each URL is one page, and return the pages by URL."""
    pages = list(crawl(seeds, **{**BOT, **options}))
    found = {page.url: page for page in pages}
    assert len(found) == len(pages)
    return found


def links(*targets: str) -> str:
    return "".join(f"<a href='{target}'>x</a>" for target in targets)


def tree(size: int) -> Callable[[Request], str]:
    """Return the pages ``/0`` to ``/{size - 1}``, each of which links to five others."""

    def page(request: Request) -> str:
        first = 5 * int(request.path[1:]) + 1
        return links(*(f"/{number}" for number in range(first, min(first + 5, size))))

    return page


# -- fetch ---------------------------------------------------------------------------------------------


def test_every_url_is_one_page() -> None:
    with Site({"/": "<title>Home</title>", "/gone": 410, "/empty": ""}) as site:
        urls = [site.url("/"), site.url("/gone"), site.url("/none"), site.url("/empty"), site.refused_url, "nonsense"]
        pages = fetched(*urls, retries=0)
    assert sorted(pages) == sorted(urls)
    assert [(page.status, page.error) for page in map(pages.get, urls)] == [
        (200, None),
        (410, None),
        (404, None),
        (200, None),
        (None, "ConnectionFailed"),
        (None, "BadUrl"),
    ]
    home = pages[site.url("/")]
    assert (home.title, home.robots, home.bytes, home.fetched_at.tzinfo.tzname(None)) == ("Home", "allowed", 19, "UTC")


def test_pages_come_in_the_order_of_their_urls_if_they_are_ordered() -> None:
    with Site(lambda request: request.path, hosts=3) as site:
        urls = [site.url(f"/{number}", host=site.hosts[number % 3]) for number in range(60)]
        pages = urls | fetch(**BOT) | stages.ordered()
        assert [page.url for page in pages] == urls


def test_a_url_that_is_given_twice_is_fetched_twice() -> None:
    with Site({"/": "x"}) as site:
        assert len(list(fetch([site.url("/")] * 3, **BOT))) == 3
        assert site.count("/") == 3


def test_a_stage_runs_again_with_each_iteration_and_its_result_can_be_submitted() -> None:
    with Site({"/": "x"}) as site:
        stage = fetch([site.url("/")], **BOT)
        assert site.count() == 0
        assert len(list(stage)) == len(stage.submit().get(timeout=30)) == 1
        assert site.count("/") == 2
        assert stage.expected == 1


def test_pages_go_through_further_stages_into_parquet(tmp_path: Path) -> None:
    with Site(lambda request: f"<title>{request.path}</title>") as site:
        pages = [site.url(f"/{number}") for number in range(20)] | fetch(**BOT)
        rows = pages | stages.map(lambda page: {"url": page.url, "title": page.title}, on="inline")
        (rows | stages.batch(rows=8) | stages.sink_parquet(tmp_path / "a.parquet")).run()
    frame = pl.read_parquet(tmp_path / "a.parquet")
    assert sorted(frame["title"]) == sorted(f"/{number}" for number in range(20))


def test_placeholders_of_earlier_stages_pass_through() -> None:
    with Site({"/": "x"}) as site:
        urls = range(30) | stages.filter(lambda number: number % 3 == 0, on="inline")
        pages = urls | stages.map(lambda _: site.url("/"), on="inline") | fetch(**BOT) | stages.ordered()
        assert len(list(pages)) == 10


def test_more_urls_than_are_held_in_memory_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greendata.crawl.verbs.HELD", 5)
    with Site({}) as site:
        assert len(fetched(*(site.url(f"/{number}") for number in range(50)))) == 50


def test_an_element_that_is_not_text_ends_the_pipeline_and_is_named() -> None:
    with Site({"/": "x"}) as site, pytest.raises(BadArgument, match="each URL must be text, got 7") as caught:
        list(fetch([site.url("/"), 7], **BOT))  # type: ignore[list-item]
    assert caught.value.__notes__ == ["raised by fetch over element 1"]
    assert runs.workers() == []


def test_an_error_of_the_source_ends_the_pipeline() -> None:
    def urls() -> Any:
        yield "http://127.0.0.1:1/"
        raise LookupError("no more")

    with pytest.raises(LookupError):
        list(fetch(urls(), **BOT))
    assert runs.workers() == []


# -- redirects -----------------------------------------------------------------------------------------


def test_redirects_go_through_the_rules_of_the_host_that_they_lead_to() -> None:
    with Site(hosts=3) as site:
        there, nowhere = site.url("/there", host=site.hosts[1]), site.url("/private", host=site.hosts[2])
        site._pages = {
            "127.0.0.1/a": Reply.redirect(there),
            "127.0.0.1/b": Reply.redirect(nowhere, 308),
            "127.0.0.2/there": "<title>there</title>",
            "127.0.0.3/robots.txt": "User-agent: *\nDisallow: /private",
        }
        pages = fetched(site.url("/a"), site.url("/b"))
        allowed, disallowed = pages[site.url("/a")], pages[site.url("/b")]
        assert (allowed.status, allowed.title, allowed.final_url, allowed.redirects) == (200, "there", there, [])
        assert (disallowed.error, disallowed.final_url, disallowed.robots) == (
            "RobotsDisallowed",
            nowhere,
            "disallowed",
        )
        assert site.count("/private") == 0
        assert [site.count("/robots.txt", host=host) for host in site.hosts] == [1, 1, 1]


def test_redirects_are_limited_and_each_hop_is_recorded() -> None:
    def step(request: Request) -> Reply | str:
        number = int(request.path[1:])
        return Reply.redirect(f"/{number + 1}") if number != 13 else "<title>end</title>"

    with Site(step, robots=404) as site:
        pages = fetched(site.url("/0"), site.url("/3"), site.url("/11"))
    assert (pages[site.url("/0")].status, pages[site.url("/0")].error) == (302, "TooManyRedirects")
    assert (pages[site.url("/3")].title, pages[site.url("/3")].final_url) == ("end", site.url("/13"))
    assert pages[site.url("/3")].redirects == [site.url(f"/{number}") for number in range(4, 13)]
    assert pages[site.url("/11")].redirects == [site.url("/12")]


@pytest.mark.parametrize("location", ["ftp://example.com/", "http://user:pw@example.com/", "http://[", "javascript:x"])
def test_a_redirect_to_what_cannot_be_fetched_is_a_row(location: str) -> None:
    with Site({"/": Reply.redirect(location)}) as site:
        [page] = fetch([site.url("/")], **BOT)
    assert (page.status, page.error) == (302, "BadRedirect")


def test_headers_of_the_caller_stay_with_the_hosts_of_the_urls() -> None:
    with Site(hosts=2) as site:
        site._pages = {"127.0.0.1/": Reply.redirect(site.url("/there", host=site.hosts[1])), "127.0.0.2/there": "x"}
        list(fetch([site.url("/")], headers={"Authorization": "secret"}, **BOT))
        sent = [
            (request.host, request.headers.get("authorization"))
            for request in site.requests
            if request.path != "/robots.txt"
        ]
    assert sent == [("127.0.0.1", "secret"), ("127.0.0.2", None)]


def test_private_addresses_are_refused_in_every_hop_and_robots() -> None:
    with Site({"/": Reply.redirect("http://127.0.0.9:8080/")}) as site:
        refused = fetched(site.url("/"), allow_private=False)[site.url("/")]
        hop = fetched(site.url("/"), allow_private=["127.0.0.1"])[site.url("/")]
        assert (refused.error, refused.status, refused.robots) == ("AddressRefused", None, "unreachable")
        assert (hop.error, hop.final_url) == ("AddressRefused", "http://127.0.0.9:8080/")
        assert site.count() == 2


# -- robots.txt ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("robots", "error", "verdict"),
    [
        (404, None, "allowed"),
        (403, None, "allowed"),
        ("User-agent: *\nDisallow: /", "RobotsDisallowed", "disallowed"),
        ("User-agent: other\nDisallow: /", None, "allowed"),
        ("User-agent: testbot\nDisallow: /\nUser-agent: *\nAllow: /", "RobotsDisallowed", "disallowed"),
        (500, "RobotsUnreachable", "unreachable"),
        (429, "RobotsUnreachable", "unreachable"),
        (Reply(fault="reset"), "ConnectionFailed", "unreachable"),
        (Reply.redirect("/elsewhere"), "RobotsDisallowed", "disallowed"),
        (Reply.redirect("/robots.txt"), None, "allowed"),
    ],
)
def test_robots_txt_decides(robots: Any, error: str | None, verdict: str) -> None:
    with Site({"/": "x", "/elsewhere": "User-agent: *\nDisallow: /"}, robots=robots) as site:
        [page] = fetch([site.url("/")], retries=0, **BOT)
        assert (page.error, page.robots) == (error, verdict)
        assert site.count("/") == (error is None)


def test_robots_txt_comes_first_and_once_for_each_host() -> None:
    with Site(lambda _: "x", robots="User-agent: *\nDisallow: /no", hosts=2) as site:
        urls = [site.url(f"/{number}", host=site.hosts[host]) for number in range(20) for host in range(2)]
        fetched(*urls)
        for host in site.hosts:
            assert [request.path for request in site.asked(host=host)].index("/robots.txt") == 0
            assert site.count("/robots.txt", host=host) == 1


def test_nothing_is_sent_to_a_host_before_its_robots_txt_has_come() -> None:
    with Site({"/": "x"}, robots="") as site, site.hold("/robots.txt") as hold:
        result = fetch([site.url("/")], **BOT).submit()
        hold.wait()
        assert not result.ready()
        hold.open()
        assert result.get(timeout=30)[0].status == 200
        assert [request.path for request in site.requests] == ["/robots.txt", "/"]


def test_a_robots_txt_of_an_unreachable_host_gives_its_pages_the_reason() -> None:
    with Site() as site:
        pages = fetched(site.refused_url, site.refused_url + "a", retries=0)
    assert {(page.error, page.robots) for page in pages.values()} == {("ConnectionFailed", "unreachable")}


# -- politeness, as the site sees it --------------------------------------------------------------------


def test_requests_at_one_time_and_the_delay_between_them_are_those_of_the_caller() -> None:
    with Site(lambda _: "x", delay=0.02, hosts=2) as site:
        urls = [site.url(f"/{number}", host=site.hosts[host]) for number in range(8) for host in range(2)]
        begun = time.monotonic()
        fetched(*urls, per_host=2, delay=0.03)
        assert time.monotonic() - begun >= 7 * 0.03  # at the site, requests may arrive closer together
        for host in site.hosts:
            assert site.most_at_once(host) <= 2
            assert site.connections(host) <= 2


def test_a_crawl_delay_is_kept() -> None:
    with Site(lambda _: "x", robots="User-agent: *\nCrawl-delay: 0.1") as site:
        begun = time.monotonic()
        fetched(*(site.url(f"/{number}") for number in range(4)))
        assert time.monotonic() - begun >= 3 * 0.1


def test_a_host_that_asks_to_wait_is_left_alone_and_then_asked_again() -> None:
    busy = Reply(status=503, headers={"Retry-After": "1"})
    with Site({"/a": [busy, "<title>a</title>"], "/b": "b"}, hosts=1) as site:
        pages = fetched(site.url("/a"), site.url("/b"), per_host=1)
        times = [request.at for request in site.asked("/a")]
        assert (pages[site.url("/a")].title, len(times)) == ("a", 2)
        assert times[1] - times[0] >= 1.0


@pytest.mark.parametrize("asked", ["-5", "99999999999", "Fri, 31 Dec 9999 23:59:59 GMT", "soon", "0"])
def test_a_strange_retry_after_delays_nothing_for_long(asked: str) -> None:
    busy = Reply(status=429, headers={"Retry-After": asked})
    with Site({"/": [busy, "x"]}) as site:
        [page] = fetch([site.url("/")], max_wait=0.05, retries=1, **BOT)
    assert page.status == 200


def test_errors_are_tried_again_and_the_last_answer_is_the_row() -> None:
    with Site({"/a": [500, Reply(fault="reset"), "x"], "/b": 502}) as site:
        pages = fetched(site.url("/a"), site.url("/b"), retries=2)
        assert (pages[site.url("/a")].status, site.count("/a")) == (200, 3)
        assert (pages[site.url("/b")].status, pages[site.url("/b")].error, site.count("/b")) == (502, None, 3)


def test_a_host_that_does_not_answer_holds_up_nobody() -> None:
    with Site(lambda _: "x", hosts=2) as site, site.hold(host="127.0.0.2") as hold:
        bad = [site.url(f"/{number}", host=site.hosts[1]) for number in range(50)]
        good = [site.url(f"/{number}") for number in range(50)]
        pages = iter(fetch([*bad, *good], workers=4, **BOT))
        assert {next(pages).url for _ in good} == {*good}
        hold.open()
        assert {page.url for page in pages} == {*bad}


# -- crawl ---------------------------------------------------------------------------------------------

SHOP = {
    "/": links("/a", "/b", "/a#top", "http://other.invalid/", "mailto:x@example.com"),
    "/a": links("/", "/c") + "<title>A</title>",
    "/b": links("/c") + "<a rel=nofollow href=/secret>x</a>",
    "/c": links("/d"),
    "/d": "the end",
    "/secret": "x",
}


def test_links_are_followed_within_the_scope_and_each_url_is_one_page() -> None:
    with Site(SHOP) as site:
        pages = crawled(site.url("/"))
        assert {page.removeprefix(site.url("")): found.depth for page, found in pages.items()} == {
            "/": 0,
            "/a": 1,
            "/b": 1,
            "/c": 2,
            "/d": 3,
        }
        assert all(site.count(path) == 1 for path in ("/", "/a", "/b", "/c", "/d"))


@pytest.mark.parametrize(
    ("options", "paths"),
    [
        ({"follow": False}, "/"),
        ({"depth": 0}, "/"),
        ({"depth": 1}, "/ /a /b"),
        ({"max_pages": 2}, "/ /a"),
        ({"max_pages": 0}, ""),
        ({"scope": re.compile(":[0-9]+/a?$")}, "/ /a"),
        ({"scope": lambda url: url.path in ("/a", "/b")}, "/ /a /b"),
        ({"follow": lambda page: ["/c"]}, "/ /c"),
        ({"follow": lambda page: [link for link in page.links if link.path > "/b"]}, "/"),
    ],
)
def test_what_is_followed_is_the_choice_of_the_caller(options: dict[str, Any], paths: str) -> None:
    with Site(SHOP) as site:
        pages = crawled(site.url("/"), per_host=1, **options)
    assert sorted(url.removeprefix(site.url("")) for url in pages) == paths.split()


def test_a_redirect_out_of_scope_is_a_row_that_says_so() -> None:
    with Site(hosts=2) as site:
        site._pages = {"127.0.0.1/": Reply.redirect(site.url("/", host=site.hosts[1])), "127.0.0.2/": "x"}
        [page] = crawl(site.url("/"), **BOT)
        assert (page.error, page.status) == ("OutOfScope", 302)
        assert site.count(host="127.0.0.2") == 0


def test_a_scope_that_raises_fails_its_page_only() -> None:
    def scope(url: Url) -> bool:
        raise LookupError(url.path)

    with Site({"/": Reply.redirect("/a"), "/b": links("/c")}, robots=404) as site:
        pages = crawled(site.url("/"), site.url("/b"), scope=scope)
    moved, linking = pages[site.url("/")], pages[site.url("/b")]
    assert (moved.status, moved.error, moved.message) == (302, "ExtractFailed", "scope raised LookupError: /a")
    assert (linking.status, linking.error, linking.message) == (200, "ExtractFailed", "LookupError: /c")


def test_sitemaps_lead_to_pages_that_no_link_leads_to() -> None:
    with Site(hosts=2) as site:
        site._pages = {
            "127.0.0.1/": "x",
            "/a": "x",
            "/b": "x",
            "127.0.0.1/index.xml": Reply.sitemap([site.url("/map.xml"), site.url("/index.xml")], index=True),
            "127.0.0.1/map.xml": Reply.sitemap([site.url("/a"), "http://other.invalid/"]),
            "127.0.0.2/sitemap.xml": Reply.sitemap([site.url("/b", host=site.hosts[1])]),
            "127.0.0.2/": "x",
            "127.0.0.1/robots.txt": f"Sitemap: {site.url('/index.xml')}",
        }
        seeds = [site.url("/"), site.url("/", host=site.hosts[1])]
        assert crawled(*seeds, sitemaps=True).keys() == {*seeds, site.url("/a"), site.url("/b", host=site.hosts[1])}
        assert crawled(*seeds).keys() == {*seeds}


def test_few_sitemaps_are_in_memory_at_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greendata.crawl.scheduler.BACK_OFF", 0.01)
    with Site(hosts=10) as site:
        maps = [Reply.sitemap([site.url("/a", host=host)]) for host in site.hosts]
        site._pages = {f"{host}/sitemap.xml": each for host, each in zip(site.hosts, maps, strict=True)}
        site._pages |= {"/": "x", "/a": "x"}
        site._pages["127.0.0.1/sitemap.xml"] = Reply.redirect("/moved.xml")
        site._pages["127.0.0.1/moved.xml"] = maps[0]
        site._pages["127.0.0.2/sitemap.xml"] = [503, maps[1]]
        site._pages["127.0.0.3/robots.txt"] = "User-agent: *\nDisallow: /sitemap.xml"
        seeds = [site.url("/", host=host) for host in site.hosts]
        with site.hold("/sitemap.xml") as hold:
            stage = crawl(seeds, sitemaps=True, **BOT)
            pages = iter(stage)
            found = [next(pages).url for _ in seeds]  # a worker takes the next request before its page is parsed
            hold.wait(4)
            assert stage.stats().in_flight == hold.waiting == 4
        found += [page.url for page in pages]
        expected = [*seeds, *(site.url("/a", host=host) for host in site.hosts if host != "127.0.0.3")]
        assert sorted(found) == sorted(expected)


def test_a_scope_that_raises_for_a_url_of_a_sitemap_leaves_that_out_and_says_so() -> None:
    def scope(url: Url) -> bool:
        if url.path in {"/b", "/other.xml"}:
            raise LookupError(url.path)
        return True

    with Site(robots="Sitemap: /map.xml\nSitemap: /other.xml") as site:
        site._pages = {"/": "x", "/a": "x", "/map.xml": Reply.sitemap([site.url("/b"), site.url("/a")])}
        with pytest.warns(RuntimeWarning, match="left out .* of a sitemap: scope raised LookupError: /") as warned:
            assert crawled(site.url("/"), sitemaps=True, scope=scope).keys() == {site.url("/"), site.url("/a")}
        assert len(warned) == 1


def test_a_crawl_of_many_hosts_and_pages_ends_with_every_page_once() -> None:
    def page(request: Request) -> str:
        number = int(request.path[1:] or 0)
        return links(
            *(f"http://127.0.0.{host}:{port}/{number * 2 + step}" for step in (1, 2) for host in (1, 2, 3, 4))
            if number < 31
            else ()
        )

    with Site(page, robots=404, hosts=4) as site:
        port = site.port
        pages = crawled(site.url("/0"), scope="any")
        assert len(pages) == 4 * 62 + 1
        assert Counter(request.target for request in site.asked()) == Counter(
            {**{f"/{number}": 4 for number in range(1, 63)}, "/0": 1, "/robots.txt": 4}
        )


def test_more_hosts_than_fit_in_memory_are_all_crawled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greendata.crawl.keeper.HOSTS", 3)
    monkeypatch.setattr("greendata.crawl.keeper.ORIGINS", 2)
    monkeypatch.setattr("greendata.crawl.scheduler.IDLE", 1)
    with Site(lambda _: links("/x"), robots=404, hosts=20) as site:
        seeds = [site.url("/", host=site.hosts[host]) for host in range(20)]
        assert len(crawled(*seeds)) == 40


def test_seeds_may_come_from_a_generator() -> None:
    with Site(lambda _: "x") as site:
        assert len(list(crawl((site.url(f"/{number}") for number in range(1_100)), follow=False, **BOT))) == 1_100


def test_without_a_folder_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Site(SHOP) as site:
        stream = iter(crawl(site.url("/"), **BOT))
        next(stream)
        stream.close()
        assert os.listdir(tmp_path) == []
        crawled(site.url("/"))
        assert os.listdir(tmp_path) == []


# -- extract -------------------------------------------------------------------------------------------


class Product(BaseModel):
    name: str
    price: float | None = None


def product(page: ParsedPage) -> Product | None:
    if page.url.path == "/bad":
        raise ValueError("no price")
    assert page.tree is not None
    name = page.tree.css_first("h1")
    return None if name is None else Product(name=name.text())


@pytest.mark.parametrize("on", ["native", "process"])
def test_extract_makes_items_off_the_hub_and_a_failure_is_a_row(on: Any) -> None:
    with Site(
        {"/a": "<h1>Shoe</h1>", "/b": "x", "/bad": "<h1>x</h1>", "/gone": Reply(body="<h1>x</h1>", status=404)}
    ) as site:
        urls = [site.url(path) for path in ("/a", "/b", "/bad", "/gone")]
        pages = fetched(*urls, extract=product, on=on)
    a, b, bad, gone = (pages[url] for url in urls)
    assert (a.item, b.item, gone.item) == (Product(name="Shoe"), None, None)
    assert (bad.error, bad.message, bad.status) == ("ExtractFailed", "ValueError: no price", 200)


def deadly(page: ParsedPage) -> Product:
    if page.url.path == "/3":
        os._exit(1)
    return Product(name=page.url.path)


def test_a_page_that_ends_the_child_process_fails_alone() -> None:
    with Site(lambda _: "x") as site:
        pages = fetched(*(site.url(f"/{number}") for number in range(6)), extract=deadly, on="process")
    lost = pages.pop(site.url("/3"))
    assert (lost.error, lost.status, lost.bytes) == ("ParseFailed", 200, 1)
    assert sorted(page.item.name for page in pages.values()) == ["/0", "/1", "/2", "/4", "/5"]


class Locked(BaseModel):
    """An item that cannot be pickled, so it cannot leave a child process."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    lock: Any


def locked(page: ParsedPage) -> Product | Locked:
    return Locked(lock=threading.Lock()) if page.url.path == "/3" else Product(name=page.url.path)


def test_an_item_that_cannot_leave_the_child_process_fails_its_page_only() -> None:
    with Site({"/3": links("/0", "/1", "/2"), "/0": "x", "/1": "x", "/2": "x"}) as site:
        pages = crawled(site.url("/3"), extract=locked, on="process")
    failed = pages.pop(site.url("/3"))
    assert (failed.error, failed.status, failed.item) == ("ExtractFailed", 200, None)
    assert failed.message.startswith("NotSendable: ")
    assert "cannot pickle '_thread.lock' object" in failed.message
    assert sorted(page.item.name for page in pages.values()) == ["/0", "/1", "/2"]


def test_a_function_that_cannot_be_sent_to_the_child_process_ends_the_crawl() -> None:
    lock = threading.Lock()
    with Site({"/": "x"}) as site, pytest.raises(NotSendable, match="the function or an argument cannot"):
        fetched(site.url("/"), extract=lambda page: lock, on="process")


def panics(page: ParsedPage) -> None:
    raise pl.exceptions.PanicException("a bug of Polars")


def gives_up(page: ParsedPage) -> None:
    raise gevent.Timeout(3)


@pytest.mark.parametrize(
    ("extract", "message"),
    [(panics, "PanicException: a bug of Polars"), (gives_up, "Timeout: 3 seconds")],
)
def test_what_is_not_an_exception_fails_its_page_only(extract: Any, message: str) -> None:
    with Site({"/": "x"}) as site:
        [page] = fetched(site.url("/"), extract=extract).values()
    assert (page.error, page.message) == ("ExtractFailed", message)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ("/a", "what follow= returns must be an iterable of URLs, got '/a'"),
        (None, "what follow= returns must be an iterable of URLs, got None"),
        (["/a", None], "each URL that follow= returns must be text, or a Url, got None"),
    ],
)
def test_what_follow_returns_is_checked(found: Any, said: str) -> None:
    with Site(lambda _: "x") as site:
        [page] = crawled(site.url("/"), follow=lambda page: found).values()
        assert (page.error, page.message) == ("ExtractFailed", f"BadArgument: {said}")


def test_headers_of_the_caller_take_the_place_of_those_of_the_crawler() -> None:
    with Site({"/": Reply(body="x", etag='"2"')}) as site:
        fetched(site.url("/"), headers={"accept": "text/html", "if-none-match": '"1"', "X-API-Key": "k"})
        head = site.asked("/")[0].head.decode()
        assert [line for line in head.splitlines() if line.lower().startswith(("accept:", "if-none", "x-"))] == [
            *("Accept: text/html", 'If-None-Match: "1"', "X-API-Key: k")
        ]


def test_follow_that_raises_fails_its_page_only() -> None:
    with Site(SHOP) as site:
        [page] = crawl(site.url("/"), follow=lambda page: {}[page.url], **BOT)
    assert (page.error, page.message) == ("ExtractFailed", f"KeyError: Url({site.url('/')!r})")


# -- a dataset -----------------------------------------------------------------------------------------


def rows_of(out: Path) -> pl.DataFrame:
    return pl.scan_parquet(out).collect()


def test_every_page_is_a_row_before_it_is_yielded(tmp_path: Path) -> None:
    out = tmp_path / "pages"
    with Site(SHOP) as site:
        pages = list(crawl(site.url("/"), out=out, **BOT))
        frame = rows_of(out)
        assert sorted(frame["url"]) == sorted(page.url for page in pages)
        assert frame.filter(pl.col("url") == site.url("/a"))["title"].to_list() == ["A"]
        assert {*frame["status"]} == {200}


def test_columns_and_items_are_those_of_the_caller(tmp_path: Path) -> None:
    out = tmp_path / "pages"
    with Site({"/": "<h1>Shoe</h1>" + links("/b"), "/b": "x"}) as site:
        crawl(site.url("/"), out=out, extract=product, columns=["url", "item"], **BOT).run()
    frame = rows_of(out)
    assert frame.columns == ["url", "item"]
    assert frame.sort("url")["item"].to_list()[0] == {"name": "Shoe", "price": None}


def test_a_crawl_that_was_closed_is_resumed_and_each_page_is_one_row(tmp_path: Path) -> None:
    out = tmp_path / "pages"
    with Site(tree(300), robots=404) as site:
        stream = iter(crawl(site.url("/0"), out=out, **BOT))
        for _ in range(100):
            next(stream)
        stream.close()
        assert runs.workers() == []
        before = rows_of(out)
        assert 100 <= before.height < 300
        with pytest.raises(CrawlFolderRefused):
            list(crawl(site.url("/0"), out=out, **BOT))
        later = list(crawl(site.url("/0"), out=out, resume=True, **BOT))
        frame = rows_of(out)
        assert frame.height == frame["url"].n_unique() == 300
        assert before.height + len(later) == 300
        assert sum(site.count(f"/{number}") for number in range(300)) <= 300 + 2 + 100  # in flight, and one batch


def test_max_pages_counts_rows_of_the_dataset_and_can_be_raised(tmp_path: Path) -> None:
    out = tmp_path / "pages"
    with Site(tree(50), robots=404) as site:
        for most in (7, 7, 20):
            crawl(site.url("/0"), out=out, max_pages=most, resume=True, **BOT).run()
            assert rows_of(out).height == most


def test_a_second_crawl_asks_whether_pages_have_changed(tmp_path: Path) -> None:
    out = tmp_path / "pages"
    pages = {
        "/": Reply(body=links("/a", "/b"), etag='"1"'),
        "/a": Reply(body="<title>a</title>", last_modified="Thu, 01 Jan 2026 00:00:00 GMT"),
        "/b": ["<title>old</title>", "<title>new</title>"],
    }
    with Site(pages) as site:
        for _ in range(2):
            crawl(site.url("/"), out=out, again=True, **BOT).run()
        frame = rows_of(out).sort("fetched_at")
        status = [frame.filter(pl.col("url") == site.url(path))["status"].to_list() for path in ("/", "/a", "/b")]
        assert status == [[200, 304], [200, 304], [200, 200]]
        crawl(site.url("/"), out=out, again=True, **BOT).run()  # the validators of a 304 are those before
        assert rows_of(out).filter(url=site.url("/"))["status"].to_list().count(304) == 2


def test_a_part_that_was_cut_is_reported_and_its_pages_are_fetched_again(tmp_path: Path) -> None:
    out = tmp_path / "pages"
    with Site(SHOP) as site:
        crawl(site.url("/"), out=out, **BOT).run()
        urls = sorted(rows_of(out)["url"])
        os.truncate(out / "crawl-001-part-000001.parquet", 100)
        text = "greendata repaired the crawl into .*: 1 part was cut short or removed, and its pages are fetched again"
        with pytest.warns(RuntimeWarning, match=text):
            crawl(site.url("/"), out=out, resume=True, **BOT).run()
        assert sorted(rows_of(out)["url"]) == urls


def test_a_crawl_is_resumed_with_the_seeds_that_it_was_begun_with(tmp_path: Path) -> None:
    out = tmp_path / "pages"
    with Site(SHOP) as site:
        seeds = [site.url("/"), site.url("/a")]
        crawl(seeds, out=out, follow=False, **BOT).run()
        with pytest.raises(CrawlMismatch, match=r"begun with seeds '2 URLs \(digest .*\)', got '1 URL \(digest "):
            crawl(site.url("/b"), out=out, follow=False, resume=True, **BOT).run()
        assert rows_of(out)["url"].to_list().count(site.url("/b")) == 0
        crawl({*seeds}, out=out, follow=False, resume=True, **BOT).run()
        crawl([*seeds, site.url("/b")], out=out, follow=False, again=True, **BOT).run()  # the next crawl may have more
        assert sorted(rows_of(out)["url"]) == sorted([*seeds, *seeds, site.url("/b")])


def test_two_crawls_into_one_folder_and_another_scope_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "pages"
    with Site(SHOP) as site, site.hold("/a") as hold:
        running = crawl(site.url("/"), out=out, **BOT).submit()
        hold.wait()
        with pytest.raises(CrawlRunning):
            list(crawl(site.url("/"), out=out, resume=True, **BOT))
        hold.open()
        running.get(timeout=30)
        with pytest.raises(CrawlMismatch):
            list(crawl(site.url("/"), out=out, resume=True, scope="any", **BOT))
    assert runs.workers() == []


def test_a_full_disk_ends_the_crawl_with_its_reason_and_a_folder_that_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "pages"
    fsync, synced = os.fsync, []

    def full(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) > 12:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    from greendata.errors import CrawlNotSaved

    with Site(tree(1000), robots=404) as site:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(CrawlNotSaved, match="No space left"):
                crawl(site.url("/0"), out=out, **BOT).run()
        assert runs.workers() == []
        crawl(site.url("/0"), out=out, resume=True, **BOT).run()
        assert rows_of(out)["url"].n_unique() == rows_of(out).height == 1000


# -- the end -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [fetch, crawl])
def test_closing_ends_all_greenlets_and_connections(make: Callable[..., FetchStage | CrawlStage]) -> None:
    with Site(lambda _: links(*(f"/{number}" for number in range(100))), hosts=3) as site:
        seeds = [site.url(f"/{number}", host=site.hosts[host]) for number in range(30) for host in range(3)]
        stream = iter(make(seeds, **BOT))
        next(stream)
        stream.close()
        assert runs.workers() == []
        site.wait_idle()
        _until(lambda: site.open_connections() == 0)


def test_cancelling_a_submitted_crawl_ends_it(tmp_path: Path) -> None:
    with Site(SHOP) as site, site.hold("/a") as hold:
        result = crawl(site.url("/"), out=tmp_path / "pages", **BOT).submit()
        hold.wait()
        result.cancel()
        _until(lambda: not runs.workers())
        assert rows_of(tmp_path / "pages").height <= 4
        hold.open()
        crawl(site.url("/"), out=tmp_path / "pages", resume=True, **BOT).run()
        assert rows_of(tmp_path / "pages")["url"].n_unique() == rows_of(tmp_path / "pages").height == 5


def test_a_crawl_that_is_closed_while_its_folder_is_opened_releases_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, opened, open_dataset = Gate(), [], Dataset.open

    def slowly(*arguments: Any, **options: Any) -> Dataset:
        opened.append(open_dataset(*arguments, **options))
        gate()
        return opened[0]

    out = tmp_path / "pages"
    with Site(SHOP) as site:
        with monkeypatch.context() as patch:
            patch.setattr(Dataset, "open", slowly)
            result = crawl(site.url("/"), out=out, **BOT).submit()
            _until(lambda: bool(opened))
            result.cancel()
            gate.open()
            _until(lambda: not runs.workers())
        crawl(site.url("/"), out=out, resume=True, **BOT).run()
        assert rows_of(out).height == 5


def test_a_deadline_ends_a_crawl_and_releases_its_folder(tmp_path: Path) -> None:
    out = tmp_path / "pages"
    with Site(SHOP) as site, site.hold("/a") as hold:
        with pytest.raises(DeadlineExceeded), greendata.deadline(0.2):
            crawl(site.url("/"), out=out, **BOT).submit().get()
        _until(lambda: not runs.workers())
        hold.open()
        crawl(site.url("/"), out=out, resume=True, **BOT).run()
        assert rows_of(out)["url"].n_unique() == rows_of(out).height == 5


def test_two_crawls_of_one_hub_run_side_by_side() -> None:
    with Site(SHOP) as site:
        both = [crawl(site.url("/"), **BOT).submit() for _ in range(2)]
        assert [len(result.get(timeout=30)) for result in both] == [5, 5]


def test_the_hub_turns_while_many_urls_are_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two thousand URLs are leased from the disk at once, and a list of seeds may have any number."""
    turns = 0

    def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            gevent.sleep(0.0001)  # not 0: a hub that never polls leaves no time to other threads

    seen: list[int] = []
    add = Crawler.add

    def seen_by(crawler: Crawler, task: Any) -> None:
        seen.append(turns)
        add(crawler, task)

    monkeypatch.setattr(Crawler, "add", seen_by)
    turning = gevent.spawn(turn)
    try:
        with Site(lambda _: "x", hosts=64) as site, site.hold("/robots.txt"):
            seeds = [site.url(f"/{number}", host=host) for number in range(40) for host in site.hosts]
            gevent.sleep(0.0001)
            before = turns
            stream: Any = iter(crawl(seeds, **BOT))
            assert turns > before
            with stream:
                running = gevent.spawn(next, stream, None)
                _until(lambda: len(seen) == 64 * 32)
                running.kill()
            assert seen[0] < seen[-1]
    finally:
        turning.kill()


def test_a_consumer_that_takes_its_time_holds_up_the_crawl_and_not_the_memory() -> None:
    with Site(lambda _: "x") as site:
        stream = iter(fetch((site.url(f"/{number}") for number in range(1000)), maxsize=3, **BOT))
        next(stream)
        site.wait_idle()
        asked = -1
        while asked != site.count():  # until the crawl waits for its consumer
            asked = site.count()
            gevent.sleep(0.05)
        assert asked < 300
        assert len(list(stream)) == 999


def _until(is_true: Callable[[], bool]) -> None:
    with gevent.Timeout(30):
        while not is_true():
            gevent.sleep(0.001)


# -- what it says --------------------------------------------------------------------------------------


def test_the_counters_and_the_summary_tell_what_came_of_the_pages() -> None:
    with Site({**SHOP, "/c": 404}, robots="User-agent: *\nDisallow: /b") as site:
        stage = crawl(site.url("/"), **BOT)
        assert stage.stats().pages == 0
        list(stage)
        stats = stage.stats()
        origin = site.url("")
        assert (stats.pages, stats.statuses, stats.errors) == (4, {200: 2, 404: 1}, {"RobotsDisallowed": 1})
        assert (stats.todo, stats.done, stats.in_flight, stats.has_ended, stats.failed) == (0, 4, 0, True, 1)
        assert stats.requests == len(site.requests) == 4
        assert stage.summary().select("host", "status", "error", "pages").rows() == [
            (origin, 200, None, 2),
            (origin, None, "RobotsDisallowed", 1),
            (origin, 404, None, 1),
        ]


def test_a_stage_that_is_kept_for_its_counters_keeps_nothing_else() -> None:
    def living() -> int:
        gc.collect()
        return sum(isinstance(found, Crawler | Frontier) for found in gc.get_objects())

    before = living()
    with Site(SHOP) as site:
        stage = crawl(site.url("/"), **BOT)
        pages = list(stage)
    _until(lambda: living() <= before)  # a worker may hold the last job for a moment
    stats = stage.stats()
    assert (stats.pages, stats.done, stats.todo, stats.hosts_waiting) == (len(pages), len(pages), 0, 0)


@pytest.mark.once("unpatched")  # with a native thread
def test_the_summary_can_be_read_by_another_thread_while_pages_are_counted() -> None:
    counters = CrawlCounters()
    pages = [Page(url="http://x.example/", status=status) for status in range(200, 300)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(1) as executor:
            counting = executor.submit(
                lambda: [counters.finished(page, f"http://{host}.example") for host in range(400) for page in pages]
            )
            while not counting.done():
                counters.summary()
            counting.result()
    finally:
        sys.setswitchinterval(interval)


def test_a_progress_bar_shows_pages_bytes_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with Site(SHOP) as site:
        list(crawl(site.url("/"), progress="shop", **BOT))
    shown = capsys.readouterr().err
    assert "shop" in shown
    assert "5/5" in shown
    assert "0 errors" in shown


def test_a_crawl_that_runs_is_listed_and_counted_for_the_process() -> None:
    before = crawl_totals()
    with Site({**SHOP, "/d": Reply(fault="reset")}, robots=404) as site, site.hold("/c") as hold:
        result = crawl(site.url("/"), retries=0, **BOT).submit()
        hold.wait()
        _until(lambda: observe.crawls()[0].pages == 3)
        [running] = observe.stats().crawls
        assert (running.label, running.failed, running.in_flight) == ("crawl 127.0.0.1", 0, 1)
        assert json.loads(observe.snapshot_json())["crawls"][0]["pages"] == 3
        hold.open()
        assert len(result.get(timeout=30)) == 5
    _until(lambda: observe.crawls() == ())
    after = crawl_totals()
    assert (after.pages - before.pages, after.failed - before.failed) == (5, 1)
    assert after.requests - before.requests == 6


def test_prometheus_counts_pages_and_requests() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    try:
        with Site(SHOP) as site:
            list(crawl(site.url("/"), **BOT))
        metrics.exposition()
        value = registry.get_sample_value
        assert (value("greendata_crawl_pages_total"), value("greendata_crawl_requests_total")) == (5, 6)
        assert (value("greendata_crawl_failed_pages_total"), value("greendata_crawl_in_flight")) == (0, 0)
    finally:
        metrics.close()
        observe.stop()


# -- mistakes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"user_agent": ""}, BadArgument, "user_agent"),
        ({"user_agent": None}, BadArgument, "user_agent"),
        ({"user_agent": "a\r\nb: c"}, BadArgument, "user_agent"),
        ({"per_host": 0}, BadArgument, "per_host"),
        ({"workers": 0}, BadArgument, "workers"),
        ({"delay": -1}, BadArgument, "delay"),
        ({"delay": float("nan")}, BadArgument, "delay"),
        ({"max_wait": "1"}, BadArgument, "max_wait"),
        ({"timeout": 0}, BadTimeout, "timeout"),
        ({"timeout": None}, BadTimeout, "timeout"),
        ({"retries": -1}, BadArgument, "retries"),
        ({"max_bytes": 0}, BadArgument, "max_bytes"),
        ({"headers": {"a": 1}}, BadArgument, r"headers\['a'\] must be text, got <class 'int'>"),
        ({"headers": {"a": "one\ntwo"}}, BadArgument, r"headers\['a'\] must be one line .* got '\\n'"),
        ({"headers": {"a": "\u20ac"}}, BadArgument, r"headers\['a'\] must be one line .* got '\u20ac'"),
        ({"headers": {"a b": "1"}}, BadArgument, "headers must be .* got 'a b'"),
        ({"headers": {"": "1"}}, BadArgument, "headers must be .* got ''"),
        ({"headers": "a: secret"}, BadArgument, "headers must be a dict of names and values, got <class 'str'>"),
        ({"headers": {"user-Agent": "x"}}, BadArgument, "headers must be .*user_agent=.* got 'user-Agent'"),
        ({"headers": {"Host": "x"}}, BadArgument, "headers must be .* got 'Host'"),
        ({"allow_private": 7}, BadArgument, "allow_private"),
        ({"allow_private": None}, BadArgument, "allow_private"),
        ({"allow_private": "10.0.0.0"}, BadArgument, "allow_private"),
        ({"allow_private": ["10.0.0"]}, BadArgument, "allow_private"),
        ({"on": "thread"}, BadChoice, "on"),
        ({"extract": 7}, NotCallable, "7"),
        ({"progress": 7}, BadArgument, "progress"),
        ({"worker": 7}, UnknownArgument, "workers"),
    ],
)
@pytest.mark.parametrize("make", [fetch, crawl])
def test_a_wrong_argument_is_an_error_of_the_call(make: Any, options: dict[str, Any], error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        make(["http://example.com/"], **{"user_agent": "t", **options})


class Shop:
    """An object that can be called, and does not say what it returns."""

    def __call__(self, page: ParsedPage):  # type: ignore[no-untyped-def]
        return None


def of_a_model_that_is_not_there(page: ParsedPage) -> Missing:  # type: ignore[name-defined]  # noqa: F821
    """Say that a model is returned that only exists elsewhere, as after a class in a function."""


async def not_awaited(url: Url) -> bool:
    return False


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"scope": "page"}, BadChoice, "scope"),
        ({"follow": "a"}, NotCallable, "a"),
        ({"depth": -1}, BadArgument, "depth"),
        ({"max_pages": 1.5}, BadArgument, "max_pages"),
        ({"resume": True}, BadArgument, "out="),
        ({"again": True}, BadArgument, "out="),
        ({"columns": ["url"]}, BadArgument, "out="),
        ({"columns": ["nothing"], "out": "/tmp/x"}, BadChoice, "columns"),
        ({"columns": [], "out": "/tmp/x"}, BadArgument, "columns must be .* at least one"),
        ({"columns": "url", "out": "/tmp/x"}, BadArgument, "columns must be a list"),
        ({"columns": 7, "out": "/tmp/x"}, BadArgument, "columns must be a list"),
        ({"columns": [["url"]], "out": "/tmp/x"}, BadArgument, "columns must be a list"),
        ({"out": 7}, BadArgument, "out must be the path of a folder, got 7"),
        ({"out": b"/tmp/x"}, BadArgument, "out must be the path of a folder"),
        ({"out": ""}, BadArgument, "out must be the path of a folder"),
        ({"out": "a\0b"}, BadArgument, "out must be the path of a folder"),
        ({"extract": lambda page: None, "out": "/tmp/x"}, BadArgument, "return annotation"),
        ({"extract": Shop(), "out": "/tmp/x"}, BadArgument, "return annotation"),
        ({"extract": of_a_model_that_is_not_there, "out": "/tmp/x"}, BadArgument, "of its module"),
        ({"scope": not_awaited}, AsyncFunction, "not_awaited"),
    ],
)
def test_a_wrong_argument_of_crawl_is_an_error_of_the_call(options: dict[str, Any], error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        crawl("http://example.com/", **{"user_agent": "t", **options})


def test_wrong_urls_are_errors_of_the_call_where_they_are_known() -> None:
    with pytest.raises(BadUrl):
        crawl("example.com", user_agent="t")
    with pytest.raises(BadUrl):
        crawl(["http://example.com/", "ftp://example.com/"], user_agent="t")
    for seeds in (7, b"http://example.com/"):
        with pytest.raises(BadArgument, match="seeds"):
            crawl(seeds, user_agent="t")  # type: ignore[arg-type]
    with pytest.raises(BadArgument, match="urls"):
        fetch("http://example.com/", user_agent="t")
    with pytest.raises(NotIterable):
        fetch(7, user_agent="t")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="user_agent"):
        fetch(["http://example.com/"])  # type: ignore[call-overload]


def test_a_folder_without_a_parent_is_an_error_of_the_iteration(tmp_path: Path) -> None:
    stage = crawl("http://example.com/", out=tmp_path / "a" / "b", **BOT)
    with pytest.raises(CrawlFolderRefused, match="create it first"):
        list(stage)
    assert runs.workers() == []


def test_urls_may_be_parsed_already() -> None:
    with Site({"/": "x"}) as site:
        url = parse_url(site.url("/"))
        assert [page.url for page in fetch([url], **BOT)] == [site.url("/")]
        assert [page.url for page in crawl(url, **BOT)] == [page.url for page in crawl([url], **BOT)] == [url.href]
