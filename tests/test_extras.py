"""Libraries that only an extra brings: what needs one that is not installed says which extra to install."""

from __future__ import annotations

import pytest

from tests.processes import run_python

# The library, what needs it, what it says, and the extra.
NEEDS = {
    "flask": ("flask", "import greendata.web.flask", "greendata.web.flask needs Flask", "flask"),
    "gunicorn": ("gunicorn", "import greendata.web.gunicorn", "greendata.web.gunicorn needs gunicorn", "gunicorn"),
    "tqdm": ("tqdm", "greendata.stages.map(abs, [1], progress='pages')", "progress= needs tqdm", "progress"),
    "prometheus-client": (
        "prometheus_client",
        "import greendata.observe.metrics",
        "greendata.observe.metrics needs prometheus-client",
        "metrics",
    ),
    "rich": ("rich", "import greendata.observe.top", "greendata.observe.top needs rich", "cli"),
    "SQLite": (
        "adbc_driver_sqlite",
        "greendata.read_sql('SELECT 1', 'sqlite://')",
        "this database needs adbc_driver_sqlite",
        "sql",
    ),
    "PostgreSQL": (
        "adbc_driver_postgresql",
        "greendata.read_sql('SELECT 1', 'postgresql://localhost/shop')",
        "this database needs adbc_driver_postgresql",
        "sql",
    ),
}


@pytest.mark.parametrize(("library", "use", "needs", "extra"), NEEDS.values(), ids=NEEDS.keys())
def test_a_missing_library_names_its_extra(library: str, use: str, needs: str, extra: str) -> None:
    finished = run_python(
        f"""
        import sys
        sys.modules[{library!r}] = None  # as if it were not installed
        import greendata
        try:
            {use}
        except ImportError as error:
            print(error)
        """
    )
    assert finished == (0, f"{needs}; install it with: pip install 'greendata[{extra}]'\n", "")


def test_greendata_itself_does_without_them() -> None:
    missing = dict.fromkeys(library for library, *_ in NEEDS.values())
    finished = run_python(f"import sys; sys.modules.update({missing}); import greendata; print(greendata.stats().done)")
    assert finished == (0, "0\n", "")
