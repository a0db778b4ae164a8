"""The page in a real browser with a real gunicorn: what a viewer sees and does."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from greendata.observe.client import fetch
from greendata.testing import Site
from tests.support.browsers import CONTRAST, Browser, opened_browser
from tests.support.gates import rest
from tests.support.servers import GUARD, Server

pytestmark = pytest.mark.once("patched")  # each test starts a process

SERVICE = """
import gevent
import greendata
from flask import Flask
from greendata.web.flask import GreenData, keep

app = Flask("service")
app.config["GREENDATA_DASHBOARD"] = True
GreenData(app, dashboard_auth=lambda: True)
results = {}

def read(name):
    with open(name, "rb") as gate:
        return gate.read()

def fail():
    raise ValueError("secret: 4711")

@app.post("/hold/<path:label>")
def hold(label):
    results[label] = keep(greendata.run(read, "gate", label=label, key="tenant 7"))
    return ""

@app.post("/fail/<path:label>")
def failing(label):
    greendata.run(fail, label=label).wait()
    return ""

@app.post("/crawl/<int:port>")
def crawling(port):
    from greendata.crawl import crawl
    pages = crawl(f"http://127.0.0.1:{port}/", user_agent="testbot (test@example.com)", allow_private=True, delay=0)
    results[port] = gevent.spawn(pages.run)  # not a part of the request
    return ""

@app.post("/outcome/<path:label>")
def outcome(label):
    return repr(results[label].exception)
"""

NASTY = "<img src=x onerror=document.title='taken'><b>report"
WIDE, PHONE = 1120, 360  # CSS pixels
LEAST_CONTRAST = 4.5  # WCAG 2.2, 1.4.3

T = TypeVar("T")


class Page:
    """The open page, and the server behind it."""

    def __init__(self, browser: Browser, server: Server, gate: Path) -> None:
        self.browser = browser
        self.address = f"http://127.0.0.1:{server.port}/greendata/"
        self._port = server.port
        self._gate = gate

    def post(self, path: str) -> str:
        """Send a request to the service without the browser."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=GUARD)
        connection.request("POST", quote(path), headers={"Connection": "close"})
        return connection.getresponse().read().decode()

    def text(self, selector: str) -> str:
        return str(self.browser.run("return document.querySelector(arguments[0]).innerText", selector))

    def shows(self, selector: str) -> bool:
        """Return True if the element is visible. `text` is the same for a hidden one."""
        return bool(self.browser.run("return document.querySelector(arguments[0]).checkVisibility()", selector))

    def rows(self, table: str) -> list[list[str]]:
        """Return the texts of the table's cells, row by row."""
        script = "return [...arguments[0].tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.innerText))"
        found: list[list[str]] = self.browser.run(script, self.browser.driver.find_element("id", table))
        return found

    def press(self, key: str) -> None:
        ActionChains(self.browser.driver).send_keys(key).perform()

    def focused(self) -> str:
        """Return the accessible name of the focused element."""
        return str(self.browser.run("return document.activeElement.getAttribute('aria-label') ?? ''"))

    def release(self) -> None:
        """Let all held jobs end."""
        while (pool := fetch(self.address + "stats.json")["pool"])["running"] or pool["queued"]:
            os.close(os.open(self._gate, os.O_RDWR))
            rest(0.05)


def until(condition: Callable[[], T]) -> T:
    """Wait until the condition returns a true value, and return it."""
    while not (found := condition()):
        rest(0.05)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("page")
    os.mkfifo(made / "gate")
    return made


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    started = Server(folder, SERVICE, ["-k", "gevent", "--graceful-timeout", "1"], {"GREENDATA_MAX_WORKERS": "3"})
    yield started
    started.terminate()
    started.wait_end()


@pytest.fixture(scope="module")
def browser(folder: Path) -> Iterator[Browser]:
    with opened_browser(folder) as opened:
        yield opened


@pytest.fixture
def page(browser: Browser, server: Server, folder: Path) -> Iterator[Page]:
    """Open the page. After the test, release held jobs, and check that the page has logged nothing."""
    opened = Page(browser, server, folder / "gate")
    browser.show_as("light", width=WIDE)
    browser.driver.get(opened.address)
    until(lambda: opened.text("#connection") == "Live")
    yield opened
    opened.release()
    assert browser.console() == []


def test_the_page_shows_the_process_that_responds(page: Page) -> None:
    seen = fetch(page.address + "stats.json")
    assert page.text("#pid") == str(seen["pid"])
    assert page.text("footer").startswith("This page shows one worker process.")
    assert page.text("#workers") == "of 3 threads"
    until(lambda: page.shows("#no-jobs"))
    assert page.text("#no-jobs") == "No queries are running."
    trace = until(lambda: page.browser.run("return document.querySelector('#lag-chart .trace').getAttribute('d')"))
    assert re.fullmatch(r"M[\d.]+,[\d.]+(L[\d.]+,[\d.]+)*", trace)
    assert re.fullmatch(r"[\d.]+ m?s now, [\d.]+ m?s at most", page.text("#lag-chart .reading"))


def test_a_held_query_is_in_the_list_with_its_age(page: Page) -> None:
    page.post(f"/hold/{NASTY}")
    [[label, age, action]] = until(lambda: page.rows("jobs"))
    assert label == f"{NASTY}\ntenant 7"  # shown as text, not as markup
    assert page.browser.driver.title == "greendata"
    assert re.fullmatch(r"\d+(\.\d)? s", age)
    assert action == "Cancel"
    until(lambda: page.rows("jobs")[0][1] != age)
    assert page.text("#running") == "1"
    page.release()
    until(lambda: page.shows("#no-jobs") and not page.shows("#jobs"))


def test_the_button_cancels(page: Page) -> None:
    page.post("/hold/report")
    until(lambda: page.rows("jobs"))
    page.browser.driver.find_element("css selector", "#jobs button").click()
    until(lambda: page.text("#said") == "report was cancelled.")
    assert page.post("/outcome/report").startswith("JobCancelled(")
    until(lambda: page.rows("jobs")[0][0].endswith("cancelled, still computing"))
    assert page.rows("jobs")[0][2] == ""


def test_the_page_works_by_keyboard(page: Page) -> None:
    for label in ("first", "second"):
        page.post(f"/hold/{label}")
    until(lambda: len(page.rows("jobs")) == 2)
    page.press(Keys.TAB)
    assert page.focused() == "Cancel first"
    assert page.browser.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press(Keys.TAB)
    assert page.focused() == "Cancel second"
    page.press(Keys.ENTER)
    until(lambda: "JobCancelled" in page.post("/outcome/second"))
    until(lambda: page.focused() == "Cancel first")  # the focus moves to a remaining button
    page.press(Keys.SPACE)
    until(lambda: "JobCancelled" in page.post("/outcome/first"))
    until(lambda: page.browser.run("return document.activeElement.id") == "jobs-title")


def test_a_failure_is_shown_by_its_type(page: Page) -> None:
    page.post("/fail/monthly totals")
    until(lambda: [row[0] for row in page.rows("failures")][:1] == ["monthly totals"])
    [_, error, when] = page.rows("failures")[0]
    assert error == "ValueError"
    assert re.fullmatch(r"\d+ s ago", when)
    assert "4711" not in page.browser.driver.page_source


def test_a_crawl_is_shown_while_it_runs(page: Page) -> None:
    pages = {"/": "<a href=/a>a</a><a href=/b>b</a><a href=/c>c</a>", "/a": "a", "/b": 404}
    with Site(pages, robots=404) as site, site.hold("/c") as hold:
        page.post(f"/crawl/{site.port}")
        until(lambda: page.shows("#crawls-section") and page.rows("crawls")[0][1] == "3")
        [[label, finished, todo, failed, megabytes, waiting, rate, age]] = page.rows("crawls")
        assert (label, finished, failed, megabytes, waiting) == ("crawl 127.0.0.1", "3", "0", "0.0", "0")
        assert todo.isdecimal()
        assert re.fullmatch(r"\d+\.\d", rate)
        assert re.fullmatch(r"\d+(\.\d)? s", age)
        hold.open()
        until(lambda: not page.shows("#crawls-section"))


def test_the_queue_is_listed_and_a_waiting_query_can_be_cancelled(page: Page) -> None:
    for label in ("first", "second", "third", "fourth"):  # there are three threads
        page.post(f"/hold/{label}")
    until(lambda: [row[0] for row in page.rows("queue")] == ["fourth\ntenant 7"])  # others have waited for a moment
    [[_, waits, action]] = page.rows("queue")
    assert action == "Cancel"
    assert re.fullmatch(r"\d+(\.\d)? s", waits)
    assert until(lambda: page.text("#queued")) == "1"
    page.browser.driver.find_element("css selector", "#queue button").click()
    until(lambda: page.text("#said") == "fourth was cancelled.")
    assert "before it began" in page.post("/outcome/fourth")
    until(lambda: page.shows("#no-queue") and not page.shows("#queue"))


def test_what_a_cancel_does_is_said_before_it(page: Page) -> None:
    until(lambda: not page.shows("#note"))
    page.post("/hold/report")
    until(lambda: page.shows("#note"))
    assert page.text("#note").startswith("Cancel answers the waiting request at once. Polars cannot be stopped")
    button = page.browser.driver.find_element("css selector", "#jobs button")
    assert button.get_attribute("title") == (
        "The request gets an answer at once; Polars computes on until the query has finished."
    )


def test_equal_failures_are_one_row_and_times_are_by_label(page: Page) -> None:
    for number in range(3):
        page.post(f"/fail/export {number}")
    until(lambda: page.rows("failures")[0][0] == "export *\n3 times")
    assert sum(row[0].startswith("export") for row in page.rows("failures")) == 1
    (row,) = [row for row in until(lambda: page.rows("labels")) if row[0] == "export *"]
    assert row[1:4] == ["0", "3", "0"]
    assert all(re.fullmatch(r"≤ [\d.]+ m?s", text) for text in row[4:])


@pytest.mark.parametrize("width", [WIDE, PHONE])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_legible(page: Page, tmp_path: Path, theme: str, width: int) -> None:
    for label in (NASTY, "W" * 150):
        page.post(f"/fail/{label}")
        page.post(f"/hold/{label}")
    until(lambda: len(page.rows("jobs")) == 2 and len(page.rows("failures")) >= 2)
    page.browser.show_as(theme, width=width, height=1400)
    is_dark = page.browser.run("return matchMedia('(prefers-color-scheme: dark)').matches")
    assert is_dark == (theme == "dark")
    contrast, where = page.browser.run(CONTRAST)
    assert contrast >= LEAST_CONTRAST, where
    assert page.browser.run("return document.documentElement.scrollWidth") <= width
    page.browser.driver.save_screenshot(str(tmp_path / f"{theme}-{width}.png"))
