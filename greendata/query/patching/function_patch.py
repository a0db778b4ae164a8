"""The seam: the native functions in which Polars computes, and how to put something before them.

Polars' Python code is a thin layer over classes of a Rust extension, and these classes take attributes. So the
seam lies at the native boundary: all of Polars' own Python code (engines, deprecations, the stack levels of its
warnings) runs on the caller's greenlet as ever, and the native call alone goes elsewhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

import polars as pl

from greendata.errors import SeamMissing
from greendata.errors.plural import counted
from greendata.internals.polars import ESSENTIAL

__all__ = ("FunctionPatch", "diverted_for", "missing_for", "original")

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


class FunctionPatch:
    """A set of native functions, and what one purpose puts before them.

    Several seams may be diverted at once, and restored in any order. Of two that divert the same function, the one
    that was diverted last is called first. One with ``innermost=True`` is called last, where the function runs, and
    one with ``outermost=True`` is called first, where the caller is.

    Args:
        names: of the functions.
        purpose: what `diverted_for` asks for.

    Example:
        >>> seen = []
        >>> patch = FunctionPatch(("polars._plr:PyLazyFrame.collect",), "an example")
        >>> patch.apply(lambda func: lambda *args: seen.append("collect") or func(*args))
        >>> pl.LazyFrame({"a": [1]}).collect().height, seen
        (1, ['collect'])
        >>> patch.undo()
    """

    def __init__(
        self, names: tuple[str, ...], purpose: str, *, innermost: bool = False, outermost: bool = False
    ) -> None:
        self.purpose = purpose
        self.names = names
        self.wrap: Wrap | None = None  # while diverted
        self._there: tuple[str, ...] = ()  # those of the names that the Polars in place has; set by `_divert`
        self._rank = outermost - innermost

    @property
    def is_applied(self) -> bool:
        """True between `divert` and `restore`."""
        return self.wrap is not None

    def apply(self, wrap: Wrap) -> None:
        """Put ``wrap(func)`` in the place of every function that the Polars in place has.

        A function that it lacks is a `RuntimeWarning`, unless it is one of the few that every query goes through.

        Raises:
            SeamMissing: the Polars in place lacks some of those; nothing was put in place.
        """
        missing = [name for name in self.names if _look_up(name) is None]
        needed = [name for name in missing if name in ESSENTIAL]
        if needed:
            raise SeamMissing(needed, pl.__version__)
        if missing:
            text = (
                f"{counted(len(missing), 'function')} not found in Polars {pl.__version__}: {', '.join(missing)}. "
                "The others are patched; a function that has taken the place of one of these is not"
            )
            warnings.warn(text, RuntimeWarning, stacklevel=3)
        self._apply(wrap)

    def apply_to_existing(self, wrap: Wrap) -> None:
        """Put ``wrap(func)`` in the place of every function that the Polars in place has, and say nothing of others."""
        self._apply(wrap)

    def _apply(self, wrap: Wrap) -> None:
        self.undo()
        self._there = tuple(name for name in self.names if _look_up(name) is not None)
        self.wrap = wrap
        _diverted.append(self)
        _diverted.sort(key=lambda patch: patch._rank)  # which keeps the order of equals
        self._put_in_place()

    def undo(self) -> None:
        """Put the functions back; nothing happens if they are in place."""
        if self.wrap is not None:
            self.wrap = None
            _diverted.remove(self)
            self._put_in_place()

    def _put_in_place(self) -> None:
        for name in self._there:
            place = _look_up(name)
            assert place is not None
            owner, attribute, found = place
            first = _originals.setdefault(name, found)
            layers = [patch.wrap for patch in _diverted if patch.wrap is not None and name in patch._there]
            setattr(owner, attribute, _layered(first, owner, layers) if layers else _originals.pop(name))


def diverted_for(purpose: str) -> bool:
    """True while a seam of that purpose is diverted.

    Example:
        >>> diverted_for("an example")
        False
    """
    return any(patch.purpose == purpose for patch in _diverted)


def missing_for(purpose: str) -> list[str]:
    """Return the functions that a seam of that purpose has not put in place, since the Polars in place lacks them.

    Example:
        >>> missing_for("an example")
        []
    """
    found = (patch for patch in _diverted if patch.purpose == purpose)
    return [name for patch in found for name in patch.names if name not in patch._there]


def original(name: str) -> Callable[..., Any] | None:
    """The function of that name as Polars has it, whatever stands before it; None if there is no such thing.

    Example:
        >>> original("polars._plr:PyLazyFrame.collect_schema").__name__
        'collect_schema'
    """
    place = _look_up(name)
    return None if place is None else _originals.get(name, place[2])


def _layered(found: Any, owner: Any, layers: list[Wrap]) -> Any:
    """*found*, as the owner holds it, with the layers before it: the last one is called first."""
    is_static = isinstance(found, staticmethod)
    native: Callable[..., Any] = found.__get__(None, owner) if is_static else found
    func = native
    for wrap in layers:
        func = wraps(native)(wrap(func))
    return staticmethod(func) if is_static else func


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


_diverted: list[FunctionPatch] = []  # innermost first
_originals: dict[str, Any] = {}  # by name, while something stands before them: as their owners hold them
