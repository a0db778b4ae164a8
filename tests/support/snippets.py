"""The snippets of a Markdown page: programs, files, and commands with their expected output.

- A ``python`` block is a program, or a file of the page if its first line is a comment with a name (``# service.py``).
- A ``console`` block has commands after ``$``, which are run by a shell in the folder of the page's files, and the
  expected output below each (``...`` matches anything). A server, such as gunicorn, runs until the end of the page.
  Port 8000 stands for a free port.
- Other blocks are not run.
"""

from __future__ import annotations

import doctest
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.support.processes import ROOT
from tests.support.servers import GUARD, NO_CONTROL

__all__ = ("PAGES", "Command", "Page", "run_commands")

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE_NAME = re.compile(r"# (\w+\.py)\n")
_SERVER = re.compile(r"(\w+=\S+ )*(gunicorn|celery) ")


@dataclass(frozen=True)
class Command:
    """A command of a page, its line in the page, and the output that the page shows."""

    line: int
    text: str
    expected: str

    @property
    def is_server(self) -> bool:
        """Whether the command runs until it is stopped."""
        return _SERVER.match(self.text) is not None


@dataclass(frozen=True)
class Page:
    """A page of the documentation."""

    path: Path

    @property
    def name(self) -> str:
        """The path in the repository."""
        return str(self.path.relative_to(ROOT))

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def files(self) -> dict[str, str]:
        """The files of the page by name."""
        return {named[1]: code for _, code in self._blocks("python") if (named := _FILE_NAME.match(code))}

    @cached_property
    def programs(self) -> list[tuple[int, str]]:
        """The programs of the page, each with the line in which it begins."""
        return [(line, code) for line, code in self._blocks("python") if not _FILE_NAME.match(code)]

    @cached_property
    def commands(self) -> list[Command]:
        """The commands of the page."""
        return [command for line, block in self._blocks("console") for command in _commands(line, block)]

    def _blocks(self, language: str) -> Iterator[tuple[int, str]]:
        for found in _FENCED.finditer(self.text):
            if found[1] == language:
                yield self.text.count("\n", 0, found.start(2)) + 1, found[2]


def _commands(line: int, block: str) -> Iterator[Command]:
    for part in re.split(r"^(?=\$ )", block, flags=re.MULTILINE)[1:]:
        text, _, expected = part[2:].partition("\n")
        yield Command(line, text, expected)
        line += part.count("\n")


PAGES = [Page(ROOT / "README.md"), *(Page(path) for path in sorted((ROOT / "examples" / "guides").glob("*.md")))]


def run_commands(page: Page, folder: Path) -> None:
    """Write the files of *page* to *folder*, run its commands there, and compare what they print."""
    for name, code in page.files.items():
        (folder / name).write_text(code, encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as servers:
        for command in page.commands:
            if command.is_server:
                servers.enter_context(_serving(command, folder, listener))
            else:
                _run(command, folder, listener)


def _run(command: Command, folder: Path, listener: socket.socket) -> None:
    text = command.text.replace(":8000", f":{listener.getsockname()[1]}")
    process = subprocess.Popen(
        text,
        shell=True,
        cwd=folder,
        env=_environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=2 * GUARD)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said = f"{process.communicate()[0]}\nstill running after {2 * GUARD:g} seconds"
    got, expected = (f"{text.strip()}\n" for text in (said, command.expected))
    matches = doctest.OutputChecker().check_output(expected, got, doctest.ELLIPSIS)
    logs = "".join(f"\n{log.name}:\n{log.read_text(errors='replace')}" for log in folder.glob("*.log"))
    assert matches, f"line {command.line}: {command.text}\nexpected:\n{expected}\ngot:\n{got}{logs}"


@contextmanager
def _serving(command: Command, folder: Path, listener: socket.socket) -> Iterator[None]:
    options = ["--bind", f"fd://{listener.fileno()}", *NO_CONTROL]
    with (folder / f"server-{command.line}.log").open("wb") as log:
        process = subprocess.Popen(
            command.text,
            shell=True,
            cwd=folder,
            env=_environment(folder) | {"GUNICORN_CMD_ARGS": " ".join(options)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
    try:
        yield
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the group that *process* leads; by SIGKILL if SIGTERM does not end its leader."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(GUARD)
    finally:
        with suppress(ProcessLookupError):  # the whole group has ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _environment(folder: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GREENDATA_")}
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return inherited | {"PATH": programs, "PYTHONPATH": str(folder), "HOME": str(folder)}
