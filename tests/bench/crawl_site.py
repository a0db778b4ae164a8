"""The site that the crawlers of the bench crawl: a process of its own, with pages like those of a news site or a shop.

Started as a program it tells its port, answers each line of its input with what it has counted, and ends with the
input. A path is ``/SHAPE/NUMBER``, where the shape is one of `SHAPES`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from random import Random
from typing import Any

from greendata.testing import Reply, Request, Site

__all__ = ("Counts", "serving")

FILLERS = 40  # different bodies of the long pages
LONG = 121_000  # bytes of a long page, the mean
LINKS = 175  # of a long page
PAGES = 500  # that the links of the long pages lead to
WIDE = 1_000_000  # that the links of the wide pages lead to
SENTENCE = (
    "the of and price harbour window garden market evening report council winter river engine study letter paper north "
    "über straße façade señor naïve zażółć 東京 Привет study model light copper silver morning train station bridge"
)
WORDS = SENTENCE.split()


class Counts:
    """What the site has counted so far."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process = process
        self.port = port

    def url(self, path: str, host: int = 0) -> str:
        return f"http://127.0.0.{1 + host}:{self.port}{path}"

    def read(self) -> dict[str, Any]:
        """Return ``requests``, ``connections`` and ``most``: those of each host at once."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        counted: dict[str, Any] = json.loads(self._process.stdout.readline())
        return counted


@contextmanager
def serving(*, hosts: int = 1, delay: float = 0.0) -> Iterator[Counts]:
    """Run the site in a process of its own."""
    command = [sys.executable, "-m", __name__, str(hosts), str(delay)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield Counts(process, int(process.stdout.readline()))
        finally:
            process.terminate()


def page(request: Request) -> Reply | None:
    """Return the page of a path."""
    _, shape, number, *_ = f"{request.path}//".split("/")
    return SHAPES[shape](int(number)) if shape in SHAPES and number.isdigit() else None


def long_page(number: int) -> Reply:
    """A page of 121 kB with 175 links, 150 of them to pages of this site."""
    before, after = _fillers()[number % FILLERS]
    hrefs = [f"/long/{(number * 7 + step * step) % PAGES}" for step in range(LINKS - 25)]
    links = "\n".join(f'<li class="item"><a class="card__link" href="{href}">Article {href}</a></li>' for href in hrefs)
    title = f"<title>Article {number} &amp; more</title>"
    canonical = f'<link rel="canonical" href="/long/{number}">'
    return Reply(body=f"<!DOCTYPE html><html lang=en><head>{title}{canonical}{before}{links}{after}")


def small_page(number: int) -> Reply:
    """A page of 10 kB without links."""
    return Reply(body=f"<title>{number}</title>" + "<p>some words in a paragraph</p>\n" * 310)


def wide_page(number: int) -> Reply:
    """A page of 1 kB with ten links, all different from those of other pages: a tree of a million pages."""
    links = "".join(f"<a href=/wide/{number * 10 + step}>x</a>" for step in range(1, 11) if number * 10 + step < WIDE)
    return Reply(body=f"<title>{number}</title>{links}")


SHAPES = {"long": long_page, "small": small_page, "wide": wide_page}


@cache
def _fillers() -> list[tuple[str, str]]:
    return [_filler(Random(number)) for number in range(FILLERS)]


def _filler(random: Random) -> tuple[str, str]:
    """What stands before and after the links of a long page."""
    script = "window.dataLayer=[];(function(w,d){var a=d.createElement('script');a.async=1})(window,document);"
    meta = "".join(f'<meta property="og:{name}" content="{_text(random, 8)}">' for name in ("title", "type", "image"))
    style = "".join(f".c{number}{{margin:{number}px;color:#{number:06x}}}" for number in range(300))
    description = f'<meta name="description" content="{_text(random, 25)}">'
    before = f"<meta charset=utf-8>{description}{meta}<style>{style}</style><script>{script * 20}</script></head><body>"
    outside = "".join(f'<li><a href="https://other.example/{number}?utm_source=a#b">x</a></li>' for number in range(25))
    before += f'<header><nav class="nav nav--main"><ul>{outside}</ul></nav></header><main><ul>'
    blocks = ["</ul>"]
    size = random.randrange(LONG // 2, LONG * 3 // 2) - len(before) - (LINKS - 25) * 80
    while size > 0:
        blocks.append(
            f'<section class="block block--{random.randrange(9)}" data-id="{random.random()}">'
            f"<h2>{_text(random, 6)}</h2><p>{_text(random, 60)} <em>{_text(random, 3)}</em><br>"
            f"{_text(random, 40)}</p><figure>"
            f'<img loading=lazy src="/img/{random.randrange(10**9)}.webp" alt="{_text(random, 5)}" width=640>'
            "</figure></section>\n"
        )
        size -= len(blocks[-1])
    return before, "".join([*blocks, "</main><footer>imprint</footer></body></html>"])


def _text(random: Random, words: int) -> str:
    return " ".join(random.choices(WORDS, k=words))


def _counted(site: Site) -> dict[str, Any]:
    return {
        "requests": len(site.requests),
        "connections": {host: site.connections(host) for host in site.hosts},
        "most": {host: site.most_at_once(host) for host in site.hosts},
    }


def main(hosts: str, delay: str) -> None:
    _fillers()
    with Site(page, robots="User-agent: *\nDisallow: /private\n", hosts=int(hosts), delay=float(delay)) as site:
        print(site.port, flush=True)
        for _ in sys.stdin:
            print(json.dumps(_counted(site)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
