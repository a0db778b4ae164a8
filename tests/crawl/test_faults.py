"""Whatever a server does, every URL ends as exactly one row, and its error names what happened."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest

from greendata.crawl import Page, crawl, fetch
from greendata.crawl import scheduler as scheduling
from greendata.testing import Reply, Site
from tests.support.natives import TIMEOUTS

UA = "testbot/1.0 (testbot@example.com)"
LOOPBACK = ["127.0.0.1"]
HTML = "<!DOCTYPE html><title>A page</title><p>" + "text with words " * 200
BYTES = HTML.encode()


@pytest.fixture(autouse=True)
def _short_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling, "BACK_OFF", 0.01)


def fetched(site: Site, *paths: str, **options: Any) -> list[Page]:
    """Return the page of each path, in their order."""
    options = {
        "user_agent": UA,
        "allow_private": LOOPBACK,
        "delay": 0,
        "retries": 1,
        "timeout": 60.0,
        "max_bytes": 1 << 20,
        "per_host": 8,
        **options,
    }
    urls = [site.url(path) for path in paths]
    pages = list(fetch(urls, **options))
    assert sorted(page.url for page in pages) == sorted(urls)
    by_url = {page.url: page for page in pages}
    return [by_url[url] for url in urls]


def packed(wbits: int, body: bytes = BYTES) -> bytes:
    packer = zlib.compressobj(wbits=wbits)
    return packer.compress(body) + packer.flush()


def encoded(name: str, body: bytes) -> Reply:
    return Reply(body=body, headers={"Content-Encoding": name})


# Each endpoint: what it sends, and the status, error and `truncated` of its row.
WHOLE = (200, None, False)
ENDPOINTS: dict[str, tuple[Any, tuple[int | None, str | None, bool]]] = {
    "plain": (HTML, WHOLE),
    "no content": (204, (204, None, False)),
    "empty": ("", WHOLE),
    "not found": (404, (404, None, False)),
    "gone": (410, (410, None, False)),
    "server error": (500, (500, None, False)),
    "unknown status": (799, (799, None, False)),
    "gzip": (encoded("gzip", gzip.compress(BYTES)), WHOLE),
    "gzip of two members": (encoded("gzip", gzip.compress(BYTES[:50]) + gzip.compress(BYTES[50:])), WHOLE),
    "gzip and more": (encoded("gzip", gzip.compress(BYTES) + b"\0\0more"), WHOLE),
    "gzip cut short": (encoded("gzip", gzip.compress(BYTES)[:-20]), (200, None, True)),
    "deflate": (encoded("deflate", packed(15)), WHOLE),
    "deflate without header": (encoded("deflate", packed(-15)), WHOLE),
    "said to be gzip": (encoded("gzip", BYTES), WHOLE),
    "said to be something": (encoded("utf-8", BYTES), WHOLE),
    "unknown encoding": (encoded("compress", BYTES), (200, "UnknownEncoding", False)),
    "short": (Reply(body=HTML, fault="short"), (200, None, True)),
    "reset in the body": (Reply(body=HTML, fault="reset body"), (200, None, True)),
    "bad chunk": (Reply(body=HTML, fault="bad chunk"), (200, None, True)),
    "endless": (Reply(fault="endless"), (200, "BodyTooLarge", True)),
    "bomb": (Reply.bomb(1 << 26), (200, "BodyTooLarge", True)),
    "too large": (Reply(body=b"a" * (1 << 21)), (200, "BodyTooLarge", True)),
    "picture": (Reply(body=b"\x89PNG", content_type="image/png"), (200, "WrongContentType", False)),
    "archive": (Reply(body=b"PK" * 10**6, content_type="application/zip"), (200, "WrongContentType", False)),
    "reset": (Reply(fault="reset"), (None, "ConnectionFailed", False)),
    "close": (Reply(fault="close"), (None, "ConnectionFailed", False)),
    "garbage": (Reply(fault="garbage"), (None, "BadResponse", False)),
    "endless headers": (Reply(fault="endless head"), (None, "BadResponse", False)),
    "huge header": (Reply(body=HTML, headers={"X-Huge": "a" * 1_000_000}), (None, "BadResponse", False)),
    "thousand headers": (Reply(body=HTML, headers={f"X-{n}": "a" for n in range(1000)}), (None, "BadResponse", False)),
    "loop": (Reply.redirect("/loop"), (302, "TooManyRedirects", False)),
    "redirect to a file": (Reply.redirect("file:///etc/passwd"), (302, "BadRedirect", False)),
    "redirect to nonsense": (Reply.redirect("http://[::1"), (302, "BadRedirect", False)),
    "redirect nowhere": (Reply(status=302), (302, None, False)),
    "redirect elsewhere": (Reply.redirect("/plain"), WHOLE),
    "stale": (Reply(body=HTML, fault="stale"), WHOLE),
}


def path_of(name: str) -> str:
    return "/" + name.replace(" ", "-")


def test_every_endpoint_is_one_row_that_names_what_happened() -> None:
    pages = {path_of(name): page for name, (page, _) in ENDPOINTS.items()}
    with Site(pages) as site:
        found = fetched(site, *pages)
    ended = {name: (page.status, page.error, page.truncated) for name, page in zip(ENDPOINTS, found, strict=True)}
    assert ended == {name: said for name, (_, said) in ENDPOINTS.items()}
    by_name = dict(zip(ENDPOINTS, found, strict=True))
    for name in (
        "gzip",
        "gzip of two members",
        "gzip and more",
        "deflate",
        "deflate without header",
        "redirect elsewhere",
    ):
        assert (by_name[name].title, by_name[name].bytes) == ("A page", len(BYTES))
    for name in ("short", "reset in the body", "bad chunk"):
        assert (by_name[name].title, by_name[name].bytes) == ("A page", len(BYTES) // 2)
    assert all(page.message for page in found if page.error)


@pytest.mark.parametrize("fault", ["silent", "slow", "slow head"])
def test_a_server_that_is_slow_costs_its_timeout(fault: Any) -> None:
    with Site({"/slow": Reply(body=HTML, fault=fault, pause=0.05), "/plain": HTML}) as site:
        for timeout in TIMEOUTS:
            slow, plain = fetched(site, "/slow", "/plain", timeout=timeout, retries=0)
            if plain.error is None:  # on a busy machine it has no time either
                break
        assert (slow.error, plain.error) == ("Timeout", None)
        site.wait_idle()
        assert site.open_connections() <= 1


def test_a_port_at_which_nobody_listens() -> None:
    with Site() as site:
        (page,) = list(fetch([site.refused_url], user_agent=UA, allow_private=LOOPBACK, delay=0, retries=0))
        assert (page.url, page.status, page.robots) == (site.refused_url, None, "unreachable")
        assert page.error == "ConnectionFailed"


def test_a_connection_that_was_closed_while_it_was_idle_is_replaced() -> None:
    with Site(lambda _: Reply(body=HTML, fault="stale"), robots="") as site:
        pages = fetched(site, *(f"/{number}" for number in range(10)), per_host=1, retries=0)
        assert [page.error for page in pages] == [None] * 10


@pytest.mark.parametrize(
    ("content_type", "body", "charset", "text"),
    [
        ("text/html; charset=utf-8", "<title>é</title>".encode("latin-1"), "utf-8", "�"),
        ("text/html; charset=latin1", "<title>é</title>".encode("latin-1"), "windows-1252", "é"),
        ("text/html", '<meta charset="windows-1251"><title>я</title>'.encode("cp1251"), "windows-1251", "я"),
        ("text/html; charset=nonsense", "<title>é</title>".encode(), "utf-8", "é"),
        ("text/html; charset=iso-8859-1", b"\xef\xbb\xbf<title>\xc3\xa9</title>", "utf-8", "é"),
        ("text/html; charset=utf-16", "<title>é</title>".encode("utf-16"), "utf-16le", "é"),
    ],
)
def test_charsets(content_type: str, body: bytes, charset: str, text: str) -> None:
    with Site({"/": Reply(body=body, content_type=content_type)}) as site:
        (page,) = fetched(site, "/")
        assert ((page.charset or "").lower(), page.title, page.error) == (charset, text, None)


def test_a_crawl_over_every_endpoint_ends_with_one_row_for_each() -> None:
    links = "".join(f"<a href={path_of(name)}>x</a>" for name in ENDPOINTS)
    pages = {path_of(name): page for name, (page, _) in ENDPOINTS.items()}
    with Site({"/": links, **pages}) as site:
        stage = crawl(
            site.url("/"), user_agent=UA, allow_private=LOOPBACK, delay=0, retries=0, max_bytes=1 << 20, per_host=8
        )
        found = list(stage)
        assert sorted(page.url for page in found) == sorted([site.url("/"), *(site.url(path) for path in pages)])
        assert stage.stats().pages == len(found)


# -- addresses --------------------------------------------------------------------------------------------


def inner_urls(port: int) -> list[str]:
    """Return names for the second host of the site, which may not be connected to."""
    return [
        f"http://127.0.0.2:{port}/secret",
        f"http://2130706434:{port}/secret",
        f"http://0x7f.2:{port}/secret",
        f"http://127.2:{port}/secret",
        f"http://[::ffff:127.0.0.2]:{port}/secret",
        f"http://[::ffff:7f00:2]:{port}/secret",
        f"http://[64:ff9b::7f00:2]:{port}/secret",
        f"http://127.0.0.2:{port}\\@127.0.0.1/secret",
        f"http:\\\\127.0.0.2:{port}\\secret",
    ]


def test_no_hop_of_any_kind_leads_to_an_address_that_is_not_allowed() -> None:
    def outside(request: Any) -> Any:
        port = int(request.headers["host"].rpartition(":")[2])
        urls = inner_urls(port)
        match request.path.split("/"):
            case ["", "robots.txt"]:
                return "\n".join(f"Sitemap: {url}" for url in urls[:2])
            case ["", "to", number]:
                return Reply.redirect(urls[int(number)])
            case ["", ""]:
                return "".join(f"<a href='{url}'>x</a><a href=/to/{n}>x</a>" for n, url in enumerate(urls))
        return None

    with Site(outside, hosts=2) as site:
        stage = crawl(
            site.url("/"), user_agent=UA, allow_private=LOOPBACK, delay=0, retries=0, scope="any", sitemaps=True
        )
        pages = {page.url: page for page in stage}
        refused = [page for page in pages.values() if page.url != site.url("/")]
        assert len(refused) > len(inner_urls(site.port))
        assert {page.status for page in refused} <= {None, 302}
        assert {page.error for page in refused} <= {"AddressRefused", "BadRedirect"}
        assert site.connections("127.0.0.2") == 0


def test_a_robots_file_that_redirects_to_an_address_that_is_not_allowed() -> None:
    def page(request: Any) -> Any:
        port = request.headers["host"].rpartition(":")[2]
        return Reply.redirect(f"http://127.0.0.2:{port}/robots.txt") if request.path == "/robots.txt" else HTML

    with Site(page, hosts=2) as site:
        (found,) = fetched(site, "/a", retries=0)
        assert (found.error, found.robots) == ("AddressRefused", "unreachable")
        assert (site.connections("127.0.0.2"), site.count("/a")) == (0, 0)
