"""The verbs and the methods of `Frame` have Polars' own parameters, in the versions that are supported.

The suite runs with the oldest Polars and with the newest one. What differs on purpose is named here, with the reason.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

import greendata
from greendata.query import verbs
from greendata.query.options import options_for
from tests.support.frames import ROWS

OURS = {"timeout", "key", "label"}
OF_A_FETCH = {"allow_private", "headers", "isolate", "max_bytes", "model"}

# Parameters of Polars that no verb has.
LEFT_OUT = {
    "background": "every verb returns a Result at once",
    "lazy": "a plan that is not run needs no pool",
}
# Parameters that the newest Polars has and an older one that is supported does not have.
NEW = {
    "2.1": {"read_parquet": {"decryption"}, "sink_parquet": {"encryption"}, "write_parquet": {"encryption"}},
}

URLS = {f"read_{kind}_url": getattr(pl, f"read_{kind}") for kind in ("csv", "ndjson", "parquet")}
POLARS: dict[str, Callable[..., Any]] = {
    name: getattr(pl.LazyFrame, {"batches": "collect_batches"}.get(name, name), None)
    or getattr(pl.DataFrame, name, None)
    or getattr(pl, name)
    for name in verbs.__all__
    if name != "run"
}

every_verb = pytest.mark.parametrize("name", POLARS)


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if not name.startswith("_") and name not in ("self", "lf", "df")
    }


def _newer(name: str) -> set[str]:
    """Return the parameters of the verb that the installed Polars is too old for."""
    installed = _version(pl.__version__)
    return {found for since, new in NEW.items() if installed < _version(since) for found in new.get(name, ())}


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


@every_verb
def test_a_verb_has_the_parameters_of_polars(name: str) -> None:
    own, theirs = _parameters(getattr(greendata, name)), _parameters(POLARS[name])
    assert own.keys() - OURS - _newer(name) == theirs.keys() - LEFT_OUT.keys()
    assert [found.kind for found in own.values() if found.kind in (found.VAR_KEYWORD, found.VAR_POSITIONAL)] == []


@every_verb
def test_each_parameter_is_given_as_in_polars_and_has_its_default(name: str) -> None:
    own, theirs = _parameters(getattr(greendata, name)), _parameters(POLARS[name])
    common = own.keys() & theirs.keys()
    assert {found: (own[found].kind, own[found].default) for found in common} == {
        found: (theirs[found].kind, theirs[found].default) for found in common
    }


def test_the_new_parameters_are_new() -> None:
    for new in NEW.values():
        for name, found in new.items():
            assert found <= _parameters(getattr(greendata, name)).keys()
            assert found & _parameters(POLARS[name]).keys() == found - _newer(name)


@pytest.mark.parametrize("name", URLS)
def test_a_reader_of_urls_has_the_parameters_of_the_reader_of_files(name: str) -> None:
    own, of_files = (_parameters(getattr(greendata, found)) for found in (name, name.removesuffix("_url")))
    assert own.keys() - OF_A_FETCH - {"url"} == of_files.keys() - {"source"}
    options = of_files.keys() - OURS - {"source"}
    assert {found: own[found].default for found in options} == {found: of_files[found].default for found in options}


# -- what is passed on ----------------------------------------------------------------------------------


def _verb(*, rows: int = 10, engine: str = "auto", secret: object = None, timeout: float | None = None) -> None: ...


def test_an_option_that_polars_would_choose_anyway_is_not_passed_on() -> None:
    def older(*, rows: int = 10, engine: str = "auto") -> None: ...

    assert options_for(_verb, older, {"rows": 10, "engine": "auto", "secret": None, "timeout": 3}) == {}
    large = inspect.signature(pl.read_ndjson).parameters["batch_size"].default
    given = {**greendata.read_ndjson.__kwdefaults__, "batch_size": int(str(large))}  # equal, and another object
    assert options_for(greendata.read_ndjson, pl.read_ndjson, given) == {}
    given = {**greendata.write_csv.__kwdefaults__, "include_bom": 0}  # equal to False, and of another type
    assert options_for(greendata.write_csv, pl.DataFrame.write_csv, given) == {"include_bom": 0}
    assert options_for(_verb, older, {"rows": 5, "engine": "streaming", "secret": None}) == {
        "rows": 5,
        "engine": "streaming",
    }


def test_a_default_that_polars_has_changed_is_still_ours() -> None:
    def changed(*, rows: int = 99, engine: str = "auto") -> None: ...

    assert options_for(_verb, changed, {"rows": 10, "engine": "auto", "secret": None}) == {"rows": 10}
    assert options_for(_verb, changed, {"rows": 99, "engine": "auto", "secret": None}) == {}


def test_an_option_that_the_installed_polars_does_not_have_is_an_error_if_it_is_given() -> None:
    def older(*, rows: int = 10, engine: str = "auto") -> None: ...

    with pytest.raises(TypeError, match=re.escape(f"_verb(secret=): older() of Polars {pl.__version__} has no ")):
        options_for(_verb, older, {"rows": 10, "engine": "auto", "secret": "s"})


@pytest.mark.parametrize("rows", [0, -1, 1.5, True, "5"])
def test_a_batch_has_at_least_one_row(rows: Any) -> None:
    with pytest.raises(greendata.BadArgument, match=rf"chunk_size must be a whole number >= 1, got {rows!r}"):
        greendata.batches(ROWS.lazy(), chunk_size=rows)
