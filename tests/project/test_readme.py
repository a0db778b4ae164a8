"""README.md and the guides: every snippet runs, commands print what is shown, and the pages stay short."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.processes import run_python
from tests.support.snippets import PAGES, Page, run_commands

pytestmark = pytest.mark.once("patched")  # each test starts a process

README = PAGES[0]
DOORS = ("gunicorn-gevent.md", "legacy-flask.md", "crawler.md")
WORDS = {True: 700, False: 499}  # of README, and of a guide

PROGRAMS = [
    pytest.param(line, code, id=f"{page.path.name} line {line}") for page in PAGES for line, code in page.programs
]
WITH_COMMANDS = [pytest.param(page, id=page.path.name) for page in PAGES if page.commands]
BY_NAME = [pytest.param(page, id=page.path.name) for page in PAGES]


@pytest.mark.parametrize(("line", "code"), PROGRAMS)
def test_program_runs(line: int, code: str) -> None:
    at_its_line = "\n" * (line - 1) + code  # so that line numbers in tracebacks are those of the page
    finished = run_python(at_its_line)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""


@pytest.mark.guard(280)
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed, which the guides ask servers with")
@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_commands_print_what_the_page_shows(page: Page, tmp_path: Path) -> None:
    run_commands(page, tmp_path)


@pytest.mark.parametrize("page", BY_NAME)
def test_every_file_of_a_page_is_used_by_a_command(page: Page) -> None:
    """A file is neither a program nor checked otherwise."""
    bodies = (code.partition("\n")[2] for code in page.files.values())  # without the line that names the file
    said = " ".join([*(command.text for command in page.commands), *bodies])
    assert [name for name in page.files if name.removesuffix(".py") not in said] == []


@pytest.mark.parametrize("page", BY_NAME)
def test_a_page_is_short(page: Page) -> None:
    assert len(page.text.split()) <= WORDS[page is README]


def test_readme_leads_to_the_three_doors_and_to_every_guide() -> None:
    assert [door for door in DOORS if f"(examples/guides/{door})" not in README.text] == []
    linked = "".join(page.text for page in PAGES)
    assert [page.path.name for page in PAGES[1:] if f"{page.path.name})" not in linked] == []
