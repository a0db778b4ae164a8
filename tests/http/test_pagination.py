"""`greendata.paginate` at a real API on loopback."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

import gevent
import polars as pl
import pytest
from pydantic import BaseModel

import greendata
from greendata.errors import (
    AnswerTooLarge,
    BadArgument,
    BadTimeout,
    FetchFailed,
    Malformed,
    NotCallable,
    PagesEndless,
    UrlRefused,
    WrongContentType,
)
from greendata.http import pagination, retry
from greendata.http.pagination import ApiPage
from greendata.testing import Reply, Request, Site

JSON = "application/json"
LOOPBACK = ["127.0.0.0/8"]


class Order(BaseModel):
    id: int
    note: str | None = None


def api(body: object, **options: Any) -> Reply:
    text = body if isinstance(body, str) else json.dumps(body)
    return Reply(body=text, content_type=options.pop("content_type", JSON), **options)


def orders(first: int, count: int = 2) -> list[dict[str, int]]:
    return [{"id": number} for number in range(first, first + count)]


def pages_of(site: Site, path: str = "/", **options: Any) -> pl.DataFrame:
    """Return the frame of all pages from *path* on."""
    with greendata.GuardedSession(allow_private=LOOPBACK) as session:
        return greendata.paginate(session, site.url(path), **options).get(timeout=60)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, which are over at once."""
    waited: list[float] = []
    monkeypatch.setattr(pagination, "_sleep", waited.append)
    return waited


# -- where the next page is -------------------------------------------------------------------------------------


def cursor_api(request: Request) -> Reply:
    at = int(parse_qs(request.query).get("cursor", ["0"])[0])
    return api({"data": {"items": orders(at)}, "meta": {"next": str(at + 2) if at < 6 else None}})


def page_api(request: Request) -> Reply:
    page = int(parse_qs(request.query).get("page", ["1"])[0])
    return api(orders(2 * page - 2) if page <= 4 else [])


LINKS = {
    "/": api(orders(0), headers={"Link": '<http://a.test/>; rel="prev", </b?x=1>; title="x"; rel="last next"'}),
    "/b?x=1": api(orders(2), headers={"Link": "<c>; rel=next"}),
    "/c": api(orders(4), headers={"Link": '</>; rel="first"'}),
}
BODY = {
    "/": api({"results": orders(0), "next": "/b"}),
    "/b": api({"results": orders(2), "next": "?c"}),
    "/b?c": api({"results": orders(4), "next": None}),
}


def test_the_link_header() -> None:
    with Site(LINKS) as site:
        assert pages_of(site)["id"].to_list() == [*range(6)]


@pytest.mark.parametrize(
    "link",
    [
        '</items;v=1?page=2>; rel="next"',
        '</items;v=1?page=2>; title="x=1; y"; rel="next"',
        '</items;v=1?page=2>; title="a, <b>\\"; rel=prev"; crossorigin; REL=next; rel=prev',
        '</other>; title="; rel=next, </wrong>; rel=next", </items;v=1?page=2>;rel = next',
        "/items?page=2; rel=next",
    ],
)
def test_no_form_of_a_link_ends_the_pages(link: str) -> None:
    pages = dict.fromkeys(("/items;v=1?page=2", "/items?page=2"), api(orders(2)))
    with Site({"/": api(orders(0), headers={"Link": link}), **pages}) as site:
        assert pages_of(site)["id"].to_list() == [*range(4)]


def test_a_url_in_the_body() -> None:
    with Site(BODY) as site:
        assert pages_of(site, next="next", rows="results")["id"].to_list() == [*range(6)]
        assert pages_of(site, next=["next"], rows=["results"])["id"].to_list() == [*range(6)]


def test_a_cursor_in_the_body() -> None:
    with Site(cursor_api) as site:
        df = pages_of(site, "/orders?limit=2&cursor=0&q=a%20b,c", rows="data.items", next={"cursor": "meta.next"})
        assert df["id"].to_list() == [*range(8)]
        assert [request.query for request in site.requests][1] == "limit=2&q=a%20b,c&cursor=2"


def test_the_number_of_a_page() -> None:
    with Site(page_api) as site:
        assert pages_of(site, "/?page=1", next={"page": 1})["id"].to_list() == [*range(8)]
        assert site.count() == 5


def test_a_function() -> None:
    seen: list[ApiPage] = []

    def following(page: ApiPage) -> str | None:
        seen.append(page)
        return f"/?page={page.number + 2}" if page.rows and page.number < 2 else None

    with Site(page_api) as site:
        assert pages_of(site, next=following)["id"].to_list() == [*range(6)]
        assert [(page.number, page.rows) for page in seen] == [(0, 2), (1, 2), (2, 2)]
        assert seen[1].url == site.url("/?page=2")
        assert seen[0].headers["content-type"] == JSON


# -- the frame --------------------------------------------------------------------------------------------------


def test_values_do_not_depend_on_their_page() -> None:
    """Numbers keep their digits, a column that comes late is a column, and strings may have line ends."""
    big = '[{"id": 9007199254740993, "a": "x\\n y"},\r\n {"id":\n 1}]'
    with Site(
        {"/": api({"rows": [{"id": 1}], "next": "/b"}), "/b": api('{"next": null, "rows": ' + big + "}")}
    ) as site:
        df = pages_of(site, rows="rows", next="next")
    assert df.to_dicts() == [{"id": 1, "a": None}, {"id": 9007199254740993, "a": "x\n y"}, {"id": 1, "a": None}]


def test_rows_are_validated_by_a_model() -> None:
    pages = {"/": api({"rows": [{"id": "7"}], "next": "/b"}), "/b": api({"rows": [{"id": 8, "note": None}, {"id": 9}]})}
    with Site(pages) as site:
        assert pages_of(site, rows="rows", next="next", model=Order).rows() == [(7, None), (8, None), (9, None)]
        pages["/b"] = api({"rows": [{"id": 1}, {"id": "x"}]})
        with pytest.raises(greendata.FrameInvalid) as caught:
            pages_of(site, rows="rows", next="next", model=Order)
    assert caught.value.failures["row"].to_list() == [2]


def test_pages_without_rows() -> None:
    with Site({"/": api({"rows": None}), "/b": api([]), "/c": api("", content_type="application/x-ndjson")}) as site:
        assert pages_of(site, rows="rows", model=Order).schema == {"id": pl.Int64, "note": pl.String}
        for path in ("/b", "/c"):
            assert pages_of(site, path).shape == (0, 0)


def test_one_row_per_line() -> None:
    pages = {
        "/": api('{"id": 1}\n{"id": 2}\n', content_type="application/x-ndjson", headers={"Link": "</b>; rel=next"})
    }
    with Site({**pages, "/b": api('{"id": 3}', content_type="application/jsonl")}) as site:
        assert pages_of(site)["id"].to_list() == [1, 2, 3]


# -- attempts ---------------------------------------------------------------------------------------------------


def test_a_page_is_requested_again(pauses: list[float]) -> None:
    for fault in (Reply(fault="close"), Reply(fault="short", body="[1]", content_type=JSON), Reply(status=500)):
        pauses.clear()
        with Site({"/": [fault, fault, fault, api(orders(0))]}) as site:
            assert pages_of(site).height == 2
            assert site.count() == 4
        assert [low <= pause <= 2 * low for low, pause in zip((0.5, 1, 2), pauses, strict=True)] == [True] * 3


@pytest.mark.parametrize("status", retry.RETRIED)
def test_what_another_attempt_does_not_change_is_raised(status: int, pauses: list[float]) -> None:
    with Site({"/": status}) as site:
        with pytest.raises(FetchFailed, match=f"the status is {status}") as caught:
            pages_of(site, attempts=3)
        assert (caught.value.status, site.count(), len(pauses)) == (status, 3, 2)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_other_statuses_are_raised_at_once(status: int) -> None:
    with Site({"/": status}) as site:
        with pytest.raises(FetchFailed, match=f"the status is {status}"):
            pages_of(site)
        assert site.count() == 1


def test_a_page_that_does_not_arrive_is_raised_after_the_last_attempt() -> None:
    with Site({"/": Reply(fault="reset")}) as site:
        with pytest.raises(FetchFailed, match="no response"):
            pages_of(site, attempts=2)
        assert site.count() == 2


ASKED = {"0": 0.0, "7": 7.0, "2.5": 2.5, "Thu, 01 Jan 1970 00:00:00 GMT": 0.0}
NONSENSE = ["-5", "soon", "", "1e9", "Thu, 99 Jan 1970", "\xb2", "Mon, 01 Jan 99999 00:00:00 GMT"]


@pytest.mark.parametrize("header", [*ASKED, *NONSENSE])
def test_the_pause_that_a_server_asks_for(header: str, pauses: list[float]) -> None:
    throttled = Reply(status=429, headers={"Retry-After": header})
    with Site({"/": [throttled, api(orders(0))]}) as site:
        assert pages_of(site).height == 2
    [pause] = pauses
    assert pause == ASKED[header] if header in ASKED else 0.5 <= pause <= 1.0


@pytest.mark.parametrize("header", ["61", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_pause_that_is_too_long_is_raised_at_once(header: str) -> None:
    with Site({"/": Reply(status=503, headers={"Retry-After": header})}) as site:
        with pytest.raises(
            FetchFailed, match=r"the status is 503, and it asks for a pause of .* seconds; raise max_wait"
        ):
            pages_of(site)
        assert site.count() == 1


def test_a_pause_beyond_the_deadline_is_not_waited_for(pauses: list[float]) -> None:
    busy = Reply(status=503, headers={"Retry-After": "50"})
    with Site({"/": busy}) as site, pytest.raises(FetchFailed, match="the status is 503"):
        pages_of(site, timeout=20.0)
    assert pauses == []


def test_the_hub_runs_during_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is there once a greenlet has seen the pause."""
    monkeypatch.undo()
    with Site({"/": [503, api(orders(0))]}) as site, greendata.GuardedSession(allow_private=LOOPBACK) as session:
        result = greendata.paginate(session, site.url())
        site.wait_for(1)
        assert result.get(timeout=60).height == 2


# -- limits -----------------------------------------------------------------------------------------------------


def counting(request: Request) -> Reply:
    at = int(request.query or 0)
    return api({"rows": orders(at), "next": f"?{at + 1}"})


def test_the_number_of_pages_is_limited() -> None:
    with Site(counting) as site:
        with pytest.raises(PagesEndless, match=r"/ do not end: there are more than 3; raise max_pages"):
            pages_of(site, rows="rows", next="next", max_pages=3)
        assert site.count() == 3


def test_the_size_of_all_pages_is_limited() -> None:
    with Site(counting) as site:
        with pytest.raises(AnswerTooLarge, match="is larger than 200 bytes"):
            pages_of(site, rows="rows", next="next", max_bytes=200)
        assert 1 < site.count() < 10


LOOPS: dict[str, tuple[Any, Any]] = {
    "itself": ({"/": api(orders(0), headers={"Link": "</>; rel=next"})}, "link"),
    "the first": (
        {
            "/": api(orders(0), headers={"Link": "</b>; rel=next"}),
            "/b": api(orders(1), headers={"Link": "</>; rel=next"}),
        },
        "link",
    ),
    "the same cursor": ({"/": api({"id": 1, "next": "a"})}, {"cursor": "next"}),
    "a number that is ignored": ({"/": api(orders(0))}, {"page": 1}),
}


@pytest.mark.parametrize("case", LOOPS)
def test_pages_that_come_again(case: str) -> None:
    pages, following = LOOPS[case]
    if case == "the same cursor":
        pages = {"/": api({"rows": orders(0), "next": "a"}), "/?cursor=a": api({"rows": orders(2), "next": "a"})}
    with Site(pages) as site:
        with pytest.raises(PagesEndless, match=r"leads back to a page|is the same as the one before"):
            pages_of(site, next=following, rows="rows" if case == "the same cursor" else None)
        assert site.count() <= 2


@pytest.mark.parametrize("target", ["http://127.0.0.2:{port}/", "https://127.0.0.1:{port}/", "//127.0.0.1:1/"])
def test_a_next_page_at_another_host_does_not_get_the_headers(target: str) -> None:
    with Site(hosts=2) as site:
        pages = {"/": api({"rows": [], "next": target.format(port=site.port)})}
    with Site(pages, hosts=2) as site:
        pages["/"] = api({"rows": [], "next": target.format(port=site.port)})
        with pytest.raises(UrlRefused, match="at another host, which would get the headers of the session"):
            pages_of(site, rows="rows", next="next")
        assert site.count() == 1


@pytest.mark.parametrize("target", ["file:///etc/passwd", "http://[", "javascript:alert(1)"])
def test_a_next_page_that_is_not_a_url(target: str) -> None:
    with Site({"/": api({"rows": [], "next": target})}) as site, pytest.raises(UrlRefused):
        pages_of(site, rows="rows", next="next")


def test_the_first_page_is_checked_as_well() -> None:
    with Site({"/": api([])}) as site, greendata.GuardedSession() as session:
        with pytest.raises(UrlRefused, match=r"its address 127\.0\.0\.1 is not public"):
            greendata.paginate(session, site.url()).get(timeout=60)
        assert site.connections() == 0


@pytest.mark.parametrize("cursor", ["1700000000.12345678901", "1e3", "9" * 5_000, "-0"])
def test_a_cursor_keeps_its_digits(cursor: str) -> None:
    def page(request: Request) -> Reply:
        following = "null" if request.query else cursor
        return api(f'{{"rows": {json.dumps(orders(len(request.query)))}, "next": {following}}}')

    with Site(page) as site:
        pages_of(site, rows="rows", next={"c": "next"})
        assert [request.query for request in site.requests] == ["", f"c={cursor}"]


@pytest.mark.parametrize("following", ["next", {"c": "next"}])
@pytest.mark.parametrize("value", ["null", "false", '""'])
def test_values_that_end_the_pages(value: str, following: Any) -> None:
    with Site({"/": api(f'{{"rows": [{{"id": 0}}], "next": {value}}}')}) as site:
        assert pages_of(site, rows="rows", next=following).height == site.count() == 1


@pytest.mark.parametrize("value", ["true", '{"a": 1}', "[1]", r'"\ud800"'])
def test_values_that_lead_nowhere(value: str) -> None:
    with Site({"/": api(f'{{"rows": [], "next": {value}}}')}) as site:
        with pytest.raises(BadArgument, match="next must be a place or a function with a URL"):
            pages_of(site, rows="rows", next="next")
        with pytest.raises(Malformed, match="expected text or a number at 'next', got"):
            pages_of(site, rows="rows", next={"c": "next"})
        assert site.count() == 2


# -- pages that cannot be read ------------------------------------------------------------------------------------

BAD: dict[str, tuple[Reply, type[Exception], str | None, dict[str, Any]]] = {
    "html": (Reply(body="<h1>Log in</h1>"), WrongContentType, "is of type text/html, expected one of", {}),
    "no array": (api({"a": 1}), Malformed, "there is no array at 'rows'", {"rows": "rows"}),
    "no object": (api([1]), Malformed, "expected an object", {"rows": "rows"}),
    "an object in its place": (api({"rows": {"a": 1}}), Malformed, "there is no array", {"rows": "rows"}),
    "garbage": (api("[{]"), Malformed, None, {}),
    "cut": (api('[{"id": 1}'), Malformed, "does not end", {}),
    "empty": (api(""), Malformed, "it is empty", {}),
    "numbers": (api("[1, 2]"), Malformed, None, {}),
    "a number as the next page": (
        api({"rows": [], "next": 5}),
        BadArgument,
        "next must be a place",
        {"rows": "rows", "next": "next"},
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_pages_that_cannot_be_read(case: str) -> None:
    page, error, text, options = BAD[case]
    with Site({"/": page}) as site, pytest.raises(error, match=text):
        pages_of(site, **options)


def test_an_error_of_the_function_is_raised() -> None:
    def broken(_: ApiPage) -> str:
        raise LookupError("mine")

    with Site({"/": api([])}) as site, pytest.raises(LookupError, match="mine"):
        pages_of(site, next=broken)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"next": 5}, NotCallable),
        ({"next": {}}, BadArgument),
        ({"next": {"page": 1, "offset": 0}}, BadArgument),
        ({"next": ""}, BadArgument),
        ({"next": {"cursor": "a..b"}}, BadArgument),
        ({"rows": ""}, BadArgument),
        ({"max_pages": 0}, BadArgument),
        ({"max_bytes": 0}, BadArgument),
        ({"attempts": 0}, BadArgument),
        ({"max_wait": -1}, BadTimeout),
        ({"timeout": None}, BadTimeout),
        ({"session": None}, BadArgument),
        ({"url": "ftp://example.com/"}, UrlRefused),
    ],
)
def test_bad_arguments_are_refused_at_the_call(options: dict[str, Any], error: type[Exception]) -> None:
    with greendata.GuardedSession() as session, pytest.raises(error):
        greendata.paginate(**{"session": session, "url": "http://example.com/", **options})


def test_it_runs_in_a_greenlet_and_where_there_is_no_hub() -> None:
    with Site(LINKS) as site:
        for df in (gevent.spawn(pages_of, site).get(), greendata.run(pages_of, site).get(timeout=60)):
            assert df["id"].to_list() == [*range(6)]


def test_a_cancelled_walk_requests_no_more_pages() -> None:
    with Site(counting) as site, site.hold("/") as hold:
        with greendata.GuardedSession(allow_private=LOOPBACK) as session:
            result = greendata.paginate(session, site.url(), rows="rows", next="next")
            hold.wait()
            result.cancel()
            with pytest.raises(greendata.JobCancelled):
                result.get()
        hold.open()
        result.end().get()
        assert site.count() == 1
