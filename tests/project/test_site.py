"""The documentation as a site: it is built without a network, complete, and every link in it leads somewhere."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import greendata
from tests.support.processes import ROOT, run_python

pytest.importorskip("pdoc", reason="pdoc comes with the extra docs")

from examples.site.__main__ import Page, linked

pytestmark = pytest.mark.once("patched")  # the fixture starts a process


@dataclass
class Found(HTMLParser):
    """The targets of a page: its ids and its links."""

    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.ids.add(value)
            elif name in ("href", "src") and value and tag != "link":
                self.links.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "docs"
    without_network = """
        import socket, sys
        def refuse(*_):
            raise OSError("the site is built without a network")
        socket.socket.connect = socket.getaddrinfo = refuse
        sys.argv = ["examples.site", sys.argv[1]]
        from examples.site.__main__ import main
        main()
    """
    finished = run_python(["-c", _dedented(without_network), str(folder)])
    assert finished == (0, f"The site: {folder / 'index.html'}\n", "")
    return folder


def _dedented(code: str) -> str:
    return "\n".join(line.removeprefix(" " * 8) for line in code.splitlines())


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Found]:
    found = {}
    for path in site.rglob("*.html"):
        page = found[str(path.relative_to(site))] = Found()
        page.feed(path.read_text(encoding="utf-8"))
    return found


def _broken(site: Path, pages: dict[str, Found]) -> Iterator[str]:
    for name, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:  # another site, or data
                continue
            path = posixpath.normpath(posixpath.join(posixpath.dirname(name), parts.path)) if parts.path else name
            if not (site / path).is_file():
                yield f"{name}: {link}"
            elif parts.fragment and path in pages and unquote(parts.fragment) not in pages[path].ids:
                yield f"{name}: {link} (no such place in the page)"


def test_no_link_is_broken(site: Path, pages: dict[str, Found]) -> None:
    assert sorted(_broken(site, pages)) == []


def test_links_to_other_sites_are_secure(pages: dict[str, Found]) -> None:
    others = {link for page in pages.values() for link in page.links if link.startswith("http:")}
    assert others == set()


def test_every_guide_and_the_architecture_are_pages(pages: dict[str, Found]) -> None:
    guides = {f"guides/{path.stem}.html" for path in (ROOT / "examples" / "guides").glob("*.md")}
    assert guides | {"index.html", "architecture.html"} <= set(pages)
    assert guides | {"architecture.html", "reference/greendata.html"} <= set(pages["index.html"].links)


def test_every_public_name_is_in_the_reference(pages: dict[str, Found]) -> None:
    modules = {"crawl", "doctor", "errors", "monkey", "observe", "stages"}
    errors = {name for name in greendata.errors.__all__ if isinstance(getattr(greendata.errors, name), type)}
    assert set(greendata.__all__) - modules <= pages["reference/greendata.html"].ids | errors
    assert errors <= pages["reference/greendata/errors.html"].ids


def test_names_in_guides_lead_to_the_reference(pages: dict[str, Found]) -> None:
    links = pages["guides/from-collect-async.html"].links
    assert {"../reference/greendata.html#collect", "../reference/greendata/errors.html#PoolFull"} <= set(links)


def test_a_folder_of_other_files_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("unfinished", encoding="utf-8")
    finished = run_python(["-m", "examples.site", str(tmp_path)])
    assert finished == (1, "", f"{tmp_path} is neither empty nor a site: its files would be lost\n")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_code_that_looks_like_a_link_stays(tmp_path: Path) -> None:
    text = "[a](b.md) `Frame[Sale](rows)`\n```python\nFrame[Sale](rows)\n```\n"
    page = Page(tmp_path / "page.md", "guides/page.html", "a page", text)
    assert linked(page, {tmp_path / "b.md": "b.html"}, tmp_path) == text.replace("(b.md)", "(../b.html)")
