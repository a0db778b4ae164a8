"""The seam: the native functions in which Polars computes, and how to put something before them.

Polars' Python code is a thin layer over classes of a Rust extension, and these classes take attributes. So the
seam lies at the native boundary: all of Polars' own Python code (engines, deprecations, the stack levels of its
warnings) runs on the caller's greenlet as ever, and the native call alone goes elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

import polars as pl

from greendata.errors import SeamMissing

__all__ = ("EXECUTIONS", "HANDOFFS", "Seam")

EXECUTIONS = (
    # Lazy frames: every engine, sink, eager operation and eager reader ends in one of these.
    "polars._plr:PyLazyFrame.collect",
    "polars._plr:PyLazyFrame.collect_batches",
    "polars._plr:collect_all",
    "polars.lazyframe.engine:_CollectBatches.__next__",
    # Resolving a schema or a plan may read files and ask object stores.
    "polars._plr:PyLazyFrame.collect_schema",
    "polars._plr:PyLazyFrame.describe_optimized_plan",
    "polars._plr:PyLazyFrame.describe_optimized_plan_tree",
    "polars._plr:PyLazyFrame.describe_plan",
    "polars._plr:PyLazyFrame.describe_plan_tree",
    "polars._plr:PyLazyFrame.to_dot",
    "polars._plr:PyLazyFrame.to_dot_streaming_phys",
    "polars._plr:explain_all",
    # Waiting for a query that was started with collect(background=True).
    "polars._plr:PyInProcessQuery.fetch_blocking",
    # Eager readers and writers with a native function of their own.
    "polars._plr:PyDataFrame.read_avro",
    "polars._plr:PyDataFrame.read_ipc_stream",
    "polars._plr:PyDataFrame.read_json",
    "polars._plr:PyDataFrame.write_avro",
    "polars._plr:PyDataFrame.write_ipc_stream",
    "polars._plr:PyDataFrame.write_json",
    "polars.io.database._utils:_read_sql_adbc",
    "polars.io.database._utils:_read_sql_connectorx",
    # Eager operations with a native function of their own, where they cost more than a pass over the column,
    # and those that call the user's function: switching greenlets inside a Rust frame must not happen here.
    "polars._plr:PyDataFrame.group_by_map_groups",
    "polars._plr:PyDataFrame.hash_rows",
    "polars._plr:PyDataFrame.is_duplicated",
    "polars._plr:PyDataFrame.is_unique",
    "polars._plr:PyDataFrame.map_rows",
    "polars._plr:PyDataFrame.partition_by",
    "polars._plr:PyDataFrame.sample_frac",
    "polars._plr:PyDataFrame.sample_n",
    "polars._plr:PyDataFrame.to_dummies",
    "polars._plr:PyDataFrame.transpose",
    "polars._plr:PyDataFrame.upsample",
    "polars._plr:PySeries.map_elements",
    "polars._plr:PySeries.n_unique",
    "polars._plr:PySeries.sort",
    "polars._plr:PySeries.value_counts",
)

# Executions that return at once and compute elsewhere: no need to leave the hub, but they hang after a fork.
HANDOFFS = (
    "polars._plr:PyLazyFrame.collect_concurrently",
    "polars._plr:PyLazyFrame.collect_with_callback",
    "polars._plr:collect_all_with_callback",
)


class Seam:
    """A set of native functions, and what stands before them.

    Example:
        >>> seen = []
        >>> seam = Seam(("polars._plr:PyLazyFrame.collect",))
        >>> seam.divert(lambda func: lambda *args: seen.append("collect") or func(*args))
        >>> pl.LazyFrame({"a": [1]}).collect().height, seen
        (1, ['collect'])
        >>> seam.restore()
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._originals: dict[str, Any] = {}  # by name, while diverted

    @property
    def is_diverted(self) -> bool:
        """True between `divert` and `restore`."""
        return bool(self._originals)

    def divert(self, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Put ``wrap(func)`` in the place of every function, or of none.

        Raises:
            SeamMissing: the Polars in place lacks some of them.
        """
        found = {name: _look_up(name) for name in self._names}
        missing = [name for name, place in found.items() if place is None]
        if missing:
            raise SeamMissing(missing, pl.__version__)
        for name, place in found.items():
            assert place is not None
            owner, attribute, original = place
            is_static = isinstance(original, staticmethod)
            replacement = wraps(getattr(owner, attribute))(wrap(getattr(owner, attribute)))
            setattr(owner, attribute, staticmethod(replacement) if is_static else replacement)
            self._originals[name] = original

    def restore(self) -> None:
        """Put the functions back; nothing happens if they are in place."""
        while self._originals:
            name, original = self._originals.popitem()
            place = _look_up(name)
            assert place is not None
            setattr(place[0], place[1], original)


def _look_up(name: str) -> tuple[Any, str, Any] | None:
    """The owner, the attribute and the object as the owner holds it; None if there is no such thing."""
    module, _, path = name.partition(":")
    try:
        owner: Any = import_module(module)
    except ModuleNotFoundError:
        return None
    *parents, attribute = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent, None)
    return None if attribute not in vars(owner or object) else (owner, attribute, vars(owner)[attribute])
