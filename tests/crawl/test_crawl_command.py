"""``python -m greendata crawl``: its exit codes, what it says, and that it can be stopped and resumed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from greendata.testing import Request, Site
from tests.support.processes import ROOT, Finished, run_python

pytestmark = pytest.mark.once("unpatched")  # each test starts a process

PAGES = 40


def page(request: Request) -> str | None:
    number = int(request.path[1:] or 0)
    return "".join(f"<a href='/{n}'>x</a>" for n in (2 * number + 1, 2 * number + 2) if n < PAGES)


def arguments(site: Site, out: Path, *more: str) -> list[str]:
    who = ["--user-agent", "testbot (test@example.com)", "--allow-private", "127.0.0.1"]
    return ["-m", "greendata", "crawl", site.url("/"), "--out", str(out), *who, "--delay", "0", *more]


def command(site: Site, out: Path, *more: str) -> Finished:
    return run_python(arguments(site, out, *more))


def urls_in(out: Path) -> list[str]:
    return pl.scan_parquet(out).collect()["url"].to_list()


def test_a_crawl_ends_with_0_and_says_what_came_of_it(tmp_path: Path) -> None:
    with Site(page, robots=404) as site:
        ended = command(site, tmp_path / "pages", "--follow", "--columns", "url,status")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == ""
    assert ended.stderr.startswith(f"done: {PAGES} pages, 0 to do, 0.0 MB, 0 errors")
    assert f"{PAGES}  200\n" in ended.stderr
    frame = pl.scan_parquet(tmp_path / "pages").collect()
    assert frame.columns == ["url", "status"]
    assert frame["url"].n_unique() == frame.height == PAGES


def test_options_limit_the_crawl_and_again_begins_anew(tmp_path: Path) -> None:
    with Site(page, robots=404) as site:
        assert command(site, tmp_path / "one").returncode == 0
        assert len(urls_in(tmp_path / "one")) == 1
        assert command(site, tmp_path / "one", "--again").returncode == 0
        assert len(urls_in(tmp_path / "one")) == 2
        assert command(site, tmp_path / "three", "--follow", "--depth", "1").returncode == 0
        assert len(urls_in(tmp_path / "three")) == 3
        assert command(site, tmp_path / "most", "--follow", "--max-pages", "5").returncode == 0
        assert len(urls_in(tmp_path / "most")) == 5


def test_without_any_response_it_ends_with_1(tmp_path: Path) -> None:
    with Site(page, robots=404) as site:
        ended = run_python(
            ["-m", "greendata", "crawl", site.url("/"), "--out", str(tmp_path / "a"), "--user-agent", "t"]
        )
        assert not site.requests
    assert ended.returncode == 1
    assert ended.stderr.startswith("done: 1 page, 0 to do, 0.0 MB, 1 error, 0 hosts wait")
    assert "AddressRefused" in ended.stderr


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (["--resume", "--again"], "not allowed with"),
        (["--per-host", "0"], "per-host"),
        (["--delay", "-1"], "delay must be"),
        (["--columns", "url,nothing"], "columns must be"),
        (["--allow-private", "no such name"], "a name that can be found"),
        (["--max-page", "x"], "max-page"),
    ],
)
def test_a_mistake_ends_with_2_and_its_reason(wrong: list[str], text: str, tmp_path: Path) -> None:
    with Site(page, robots=404) as site:
        ended = command(site, tmp_path / "pages", *wrong)
    assert ended.returncode == 2
    assert text in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "pages").exists()


def test_a_folder_with_another_crawl_is_left_as_it_is(tmp_path: Path) -> None:
    with Site(page, robots=404) as site:
        command(site, tmp_path / "pages")
        ended = command(site, tmp_path / "pages")
    assert ended.returncode == 2
    assert "there is a crawl already" in ended.stderr
    assert "--resume" in ended.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_cleanly_and_it_says_how_to_continue(number: int, code: int, tmp_path: Path) -> None:
    out = tmp_path / "pages"
    with Site(page, robots=404) as site, site.hold("/20") as hold:
        process = subprocess.Popen(
            [sys.executable, *arguments(site, out, "--follow")], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        hold.wait()
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        hold.open()
        assert process.returncode == code
        assert "Traceback" not in said
        assert said.splitlines()[-1].startswith("to continue: python -m greendata crawl http")
        assert said.rstrip().endswith("--resume")
        before = len(urls_in(out))
        assert 10 <= before < PAGES
        assert command(site, out, "--follow", "--resume").returncode == 0
    assert len(urls_in(out)) == len({*urls_in(out)}) == PAGES


ON_TERMINAL = """
import os, pty, sys, termios
child, terminal = pty.fork()
if not child:
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
termios.tcsetwinsize(terminal, (24, 200))
try:
    while piece := os.read(terminal, 4096):
        sys.stdout.buffer.write(piece)
except OSError:  # Linux reports the end of a terminal as an error
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_it_shows_a_bar_on_a_terminal(tmp_path: Path) -> None:
    with Site(page, robots=404) as site:
        ended = run_python(["-c", ON_TERMINAL, *arguments(site, tmp_path / "pages", "--follow")])
    assert ended.returncode == 0, ended.stderr
    assert f"{PAGES}/{PAGES}" in ended.stdout
    assert "hosts wait" in ended.stdout
