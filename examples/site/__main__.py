"""`python -m examples.site FOLDER`: build the documentation as a site, without access to a network.

pdoc makes the reference from the docstrings, and renders the pages, which are Markdown files of the source. Links
between them become links of the site; a link to a file that does not exist is an error.
"""

__all__ = ("build", "main")

import os
import posixpath
import re
import shutil
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pdoc.doc
from pdoc import render
from pdoc.render_helpers import to_html

import greendata

TOP = Path(__file__).parents[2]
# The documented modules. What they export is public.
MODULES = (
    "greendata",
    "greendata.crawl",
    "greendata.errors",
    "greendata.http.session",
    "greendata.observe",
    "greendata.observe.doctor",
    "greendata.observe.metrics",
    "greendata.observe.trace",
    "greendata.pipelines.stages",
    "greendata.testing",
    "greendata.web.flask",
    "greendata.web.gunicorn",
)
INDEX = Path("reference", "search.js")  # of a site's search
# The pages in the order of the navigation; guides that are not named here follow.
DOORS = ("gunicorn-gevent", "legacy-flask", "crawler", "troubleshooting", "faq")

_LINK = re.compile(r"```.*?```|`[^`]*`|(?<=\]\()([^)#\s]*)(#[^)\s]*)?(?=\))", re.DOTALL)  # or code, which has none
_CODE = re.compile(r"<code>(?:greendata\.)?(\w+)(?:\(.*?\))?</code>")
_TABLE = re.compile(r"^=+ +=+$.*^=+ +=+$", re.DOTALL | re.MULTILINE)  # from its first rule to its last


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the site: its source, its path in the site, its title, and its text in Markdown."""

    source: Path
    path: str
    title: str
    text: str


def main() -> None:
    """Build the site in the folder that is named, and print the path of its first page."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m examples.site FOLDER")
    folder = Path(sys.argv[1])
    if folder.exists() and any(folder.iterdir()) and not (folder / INDEX).exists():
        sys.exit(f"{folder} is neither empty nor a site: its files would be lost")
    build(folder)
    print(f"The site: {(folder / 'index.html').resolve()}")


def build(folder: Path) -> None:
    """Build the site in *folder*; a site that is there is replaced.

    Raises:
        FileNotFoundError: a page has a link to a file that does not exist.
    """
    shutil.rmtree(folder, ignore_errors=True)
    render.configure(
        docformat="google",
        template_directory=Path(__file__).with_name("templates"),
        footer_text=f"greendata {greendata.__version__}",
    )
    pages = [*documents(), *programs()]
    navigation = [(page.path, page.title) for page in pages if not page.path.startswith("examples/")]
    template = render.env.get_template("page.html.jinja2")
    by_source = {page.source: page.path for page in pages}
    for page in pages:
        body = to_html(linked(page, by_source, folder))
        write(
            folder / page.path,
            template.render(page=page, body=with_reference(body, page), pages=navigation, modules=MODULES),
        )
    reference(folder)


def documents() -> list[Page]:
    """Return README, the guides, and the architecture."""
    guides = {path.stem: path for path in sorted((TOP / "examples" / "guides").glob("*.md"))}
    ordered = {name: guides[name] for name in DOORS} | guides
    return [
        document(TOP / "README.md", "index.html"),
        *(document(path, f"guides/{name}.html") for name, path in ordered.items()),
        document(TOP / "greendata" / "ARCHITECTURE.md", "architecture.html"),
    ]


def document(source: Path, path: str) -> Page:
    text = source.read_text(encoding="utf-8")
    return Page(source, path, text.partition("\n")[0].removeprefix("# ").replace("`", ""), text)


def programs() -> list[Page]:
    """Return the examples as pages that show their source."""
    return [program(path) for path in sorted((TOP / "examples").glob("*.py"))]


def program(source: Path) -> Page:
    code = source.read_text(encoding="utf-8")
    return Page(source, f"examples/{source.stem}.html", source.name, f"# {source.name}\n\n```python\n{code}```\n")


def linked(page: Page, by_source: Mapping[Path, str], folder: Path) -> str:
    """Return the text of *page* with links of the site. Files that are no pages are copied to *folder*."""

    def replace(found: re.Match[str]) -> str:
        target, anchor = found[1], found[2] or ""
        if not target or ":" in target:  # code, a place in this page, or another site
            return found[0]
        source = Path(os.path.normpath(page.source.parent / target))
        path = by_source.get(source)
        if path is None:
            path = f"files/{source.name}"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / path)
        return relative(path, page) + anchor

    return _LINK.sub(replace, page.text) if page.source.suffix == ".md" else page.text


def with_reference(body: str, page: Page) -> str:
    """Link names of greendata in *body* to the reference."""

    def replace(found: re.Match[str]) -> str:
        name = found[1]
        if name not in {*greendata.__all__, *greendata.errors.__all__}:
            return found[0]
        if isinstance(module := getattr(greendata, name, None), ModuleType):
            path, anchor = module.__name__.replace(".", "/"), ""
        else:
            path, anchor = "greendata/errors" if name in greendata.errors.__all__ else "greendata", f"#{name}"
        return f'<a href="{relative(f"reference/{path}.html", page)}{anchor}">{found[0]}</a>'

    return _CODE.sub(replace, body)


def relative(path: str, page: Page) -> str:
    return posixpath.relpath(path, posixpath.dirname(page.path) or ".")


def reference(folder: Path) -> None:
    """Write a page for each of MODULES, and the index that its search box uses."""
    for name in greendata.__all__:
        getattr(greendata, name)  # it is loaded when it is used, which pdoc does not do
    # pdoc shows an annotation as it is written if its name is imported for type checkers only.
    warnings.filterwarnings("ignore", "Error parsing type annotation", module="pdoc")
    modules = {name: pdoc.doc.Module.from_name(name) for name in MODULES}
    for module in modules.values():
        for member in module.flattened_own_members:
            member.docstring = fenced(member.docstring)
    for name, module in modules.items():
        write(folder / "reference" / f"{name.replace('.', '/')}.html", render.html_module(module, modules))
    write(folder / "reference" / "index.html", render.html_index(modules))
    write(folder / INDEX, render.search_index(modules))


def fenced(docstring: str) -> str:
    """Return *docstring* with its tables, which are not Markdown, as code."""
    return _TABLE.sub(lambda table: f"```\n{table[0]}\n```", docstring)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
