"""The ``.green`` namespace: ``lf.green.collect()`` is ``greendata.collect(lf)``, and the same for every verb.

Type checkers do not know the namespace, as they know none that is registered with Polars: to them ``lf.green`` is an
error. ``greendata.collect(lf)`` is checked.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import MethodType
from typing import Any, Generic, TypeVar

import polars as pl

__all__ = ("GreenFrame", "GreenLazyFrame")

F = TypeVar("F", pl.LazyFrame, pl.DataFrame)


class _Namespace(Generic[F]):
    _verbs: tuple[str, ...] = ()

    def __init__(self, frame: F) -> None:
        self._frame: F = frame

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in self._verbs:
            raise AttributeError(f"{name!r} is not a verb of {type(self).__name__}; it has {', '.join(self._verbs)}")
        # Imported late: every program that imports Polars loads this module.
        verbs = import_module("greendata.query.verbs")
        return MethodType(getattr(verbs, name), self._frame)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._verbs]


@pl.api.register_lazyframe_namespace("green")
class GreenLazyFrame(_Namespace[pl.LazyFrame]):
    """The verbs of a lazy frame, as ``lf.green``. Type checkers do not know it; use ``greendata.collect(lf)`` for them.

    Example:
        >>> pl.LazyFrame({"a": [1, 2]}).green.collect(engine="streaming").get(timeout=5).height
        2
    """

    _verbs = (
        "batches",
        "collect",
        "collect_schema",
        "explain",
        "sink_csv",
        "sink_ipc",
        "sink_ndjson",
        "sink_parquet",
    )


@pl.api.register_dataframe_namespace("green")
class GreenFrame(_Namespace[pl.DataFrame]):
    """The verbs of a frame, as ``df.green``. Type checkers do not know it; use ``greendata.write_csv(df)`` for them.

    Example:
        >>> pl.DataFrame({"a": [1]}).green.write_json().get(timeout=5)
        '[{"a":1}]'
    """

    _verbs = ("write_csv", "write_ipc", "write_json", "write_ndjson", "write_parquet")
