"""The options of a verb, as they are passed on to the installed Polars.

The verbs have the parameters and defaults of the newest Polars that they were written for. An option is passed on only
if it differs from the default of the *installed* Polars. So a verb works with a Polars that does not have the option
yet, or no longer, and its defaults are those in its own signature whatever Polars is installed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import polars as pl

from greendata.errors import NotAFrame
from greendata.hub.result import Result, name_attributes_of_values
from greendata.pool import pool
from greendata.query.choice import engine_for, engine_of, is_made

__all__ = ("eager", "lazy", "options_for", "place_query", "submitted")

# Verbs whose queries run where the choice says. `explain` does not run its query, and the readers' engine is a library.
EXECUTING = ("batches", "collect", "collect_all", "sink_csv", "sink_ipc", "sink_ndjson", "sink_parquet")

# Parameters of verbs that are not options of Polars.
OWN = ("allow_private", "headers", "isolate", "key", "label", "max_bytes", "model", "root", "timeout", "trust")


def submitted(
    verb: Callable[..., Any], polars_function: Callable[..., Any], given: dict[str, Any], *args: Any
) -> Result[Any]:
    """Submit ``polars_function(*args, **options)`` to the pool and return the `Result`.

    Args:
        verb: the verb that is called. Its keyword-only parameters are the options, and timeout, key and label.
        polars_function: the function or method of Polars that does the work.
        given: the arguments of the verb by name, that is, ``locals()`` at its beginning.
        args: the positional arguments of *polars_function*.

    Raises:
        TypeError: an option that the installed Polars does not have. Here and below, nothing was queued.
        BadEngine: the option ``engine``, if there is one, is not an engine.
        BadTimeout, PoolFull, PoolClosed, PolarsForked: as for `greendata.pool.pool.Pool.submit`.
    """
    options = options_for(verb, polars_function, given)
    place_query(verb, given, options)
    work = partial(polars_function, *args, **options)
    return pool.submit(work, timeout=given["timeout"], key=given["key"], label=given["label"] or verb.__name__)


def place_query(verb: Callable[..., Any], given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Set the engine in *options* to the one that `greendata.query.choice` chooses, if *verb* executes a query.

    Raises:
        RouteFailed, BadSetting: see `greendata.query.choice.engine_for`.

    Example:
        >>> options = {}
        >>> place_query(len, {"engine": "auto"}, options)
        >>> options
        {}
    """
    if is_made() and "engine" in given and verb.__name__ in EXECUTING:
        options["engine"] = engine_for(given["engine"], verb.__name__, label=given["label"], key=given["key"])


def options_for(
    verb: Callable[..., Any], polars_function: Callable[..., Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the options in *given* that differ from the defaults of *polars_function*.

    The arguments and errors are those of `submitted`.

    Example:
        >>> def head(lf, *, n=10, engine="auto", timeout=None): ...
        >>> options_for(head, lambda *, n=5: None, {"n": 10, "engine": "auto", "timeout": 3})
        {'n': 10}
    """
    options = {}
    for name, (default, is_known) in _defaults(_function(verb), _function(polars_function)).items():
        value = given[name]
        if value is default or (type(value) is type(default) and value == default):
            continue
        if not is_known:
            theirs = getattr(polars_function, "__name__", "")
            text = f"{verb.__name__}({name}=): {theirs}() of Polars {pl.__version__} has no argument of this name"
            raise TypeError(f"{text}; a newer Polars may have it")
        if name == "engine" and default == "auto":  # the engine of `read_database_uri` is a library
            engine_of(value)
        options[name] = value
    return options


@lru_cache
def _defaults(verb: Callable[..., Any], polars_function: Callable[..., Any]) -> dict[str, tuple[Any, bool]]:
    """Return the default of each option, and whether the installed Polars has it."""
    theirs = inspect.signature(polars_function).parameters
    own = {
        name: parameter.default
        for name, parameter in inspect.signature(verb).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in OWN
    }
    return {name: (theirs[name].default, True) if name in theirs else (default, False) for name, default in own.items()}


def _function(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function of a bound method, so that the cache keeps no frame and no class."""
    found: Callable[..., Any] = getattr(method, "__func__", method)
    return found


def lazy(lf: object) -> pl.LazyFrame:
    """Return *lf*, a LazyFrame.

    Raises:
        NotAFrame: *lf* is something else.
    """
    if not isinstance(lf, pl.LazyFrame):
        raise NotAFrame(lf, "LazyFrame")
    return lf


def eager(df: object) -> pl.DataFrame:
    """Return *df*, a DataFrame.

    Raises:
        NotAFrame: *df* is something else.
    """
    if not isinstance(df, pl.DataFrame):
        raise NotAFrame(df, "DataFrame")
    return df


name_attributes_of_values(name for name in {*dir(pl.DataFrame), *dir(pl.LazyFrame)} if not name.startswith("_"))
