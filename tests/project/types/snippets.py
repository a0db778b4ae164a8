"""Write the Python snippets of README.md and the guides to files, for type checkers: ``python -m ... FOLDER``.

Each file has the line numbers of its page. A line with the ``.green`` namespace, which type checkers do not know, is
marked for them.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.support.snippets import PAGES, Page

__all__ = ("write_snippets",)


def write_snippets(folder: Path) -> int:
    """Write the snippets of all pages to *folder*, which is emptied first, and return their number."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    snippets = {name: code for page in PAGES for name, code in _of_page(page).items()}
    for name, code in snippets.items():
        lines = [_marked(line) if ".green." in line else line for line in code.splitlines()]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(snippets)


def _of_page(page: Page) -> dict[str, str]:
    """Return the snippets of *page* by the names of their files, which differ between pages."""
    stem = page.path.stem.replace("-", "_").lower()
    programs = {f"{stem}_line_{line}.py": "\n" * (line - 1) + code for line, code in page.programs}
    return programs | {f"{stem}_{name}": code for name, code in page.files.items()}


def _marked(line: str) -> str:
    code, space, comment = line.partition("  # ")
    return f"{code}  # type: ignore{space}{comment}"


if __name__ == "__main__":
    write_snippets(Path(sys.argv[1]))
