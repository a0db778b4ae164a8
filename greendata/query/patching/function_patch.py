"""Patch the native functions in which Polars computes.

Polars' Python code is a thin layer over the classes of a Rust extension, and attributes of these classes can be set.
So the patches wrap the native functions. All of Polars' Python code (engines, deprecations, the stack levels of its
warnings) still runs in the caller's greenlet, and only the native call runs elsewhere.

    pl.LazyFrame.collect()  ─►  outermost patch  ─►  patches, last applied first  ─►  innermost patch  ─►  Rust
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

__all__ = ("FunctionPatch", "function_named", "is_patched", "missing_functions", "original")

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


class FunctionPatch:
    """A patch of a set of native functions, for one purpose.

    Several patches may be applied at once, and undone in any order. If two patches wrap the same function, the one
    that was applied last is called first. A patch with ``innermost=True`` is called last, in the thread where the
    function runs. A patch with ``outermost=True`` is called first, in the caller's greenlet.

    Args:
        names: the names of the functions.
        purpose: the purpose, by which `is_patched` finds the patch.

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
        self.wrap: Wrap | None = None  # while the patch is applied
        self._present: tuple[str, ...] = ()  # those of the names that the installed Polars has; set by `_apply`
        self._rank = outermost - innermost

    @property
    def is_applied(self) -> bool:
        """True between `apply` and `undo`."""
        return self.wrap is not None

    def apply(self, wrap: Wrap) -> None:
        """Replace every function that the installed Polars has by ``wrap(func)``.

        A missing function gives a `RuntimeWarning`.

        Raises:
            SeamMissing: a function is missing that every query uses. Nothing was replaced.
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
        """Replace every function that the installed Polars has by ``wrap(func)``, without a warning for the others."""
        self._apply(wrap)

    def _apply(self, wrap: Wrap) -> None:
        self.undo()
        self._present = tuple(name for name in self.names if _look_up(name) is not None)
        self.wrap = wrap
        _applied.append(self)
        _applied.sort(key=lambda patch: patch._rank)  # the sort is stable
        self._replace_functions()

    def undo(self) -> None:
        """Restore the functions. Idempotent."""
        if self.wrap is not None:
            self.wrap = None
            _applied.remove(self)
            self._replace_functions()

    def _replace_functions(self) -> None:
        for name in self._present:
            place = _look_up(name)
            assert place is not None
            owner, attribute, found = place
            first = _originals.setdefault(name, found)
            layers = [patch.wrap for patch in _applied if patch.wrap is not None and name in patch._present]
            setattr(owner, attribute, _with_layers(first, owner, layers) if layers else _originals.pop(name))


def is_patched(purpose: str) -> bool:
    """Return True while a patch with that purpose is applied.

    Example:
        >>> is_patched("an example")
        False
    """
    return any(patch.purpose == purpose for patch in _applied)


def missing_functions(purpose: str) -> list[str]:
    """Return the functions that a patch with that purpose could not replace, because the installed Polars lacks them.

    Example:
        >>> missing_functions("an example")
        []
    """
    found = (patch for patch in _applied if patch.purpose == purpose)
    return [name for patch in found for name in patch.names if name not in patch._present]


def function_named(name: str) -> Callable[..., Any]:
    """Return the function of that name, which Polars has, with its patches.

    Example:
        >>> function_named("polars._plr:PyLazyFrame.collect_schema").__name__
        'collect_schema'
    """
    place = _look_up(name)
    assert place is not None
    owner, attribute, _ = place
    found: Callable[..., Any] = getattr(owner, attribute)
    return found


def original(name: str) -> Callable[..., Any] | None:
    """Return the unpatched function of that name, or None if Polars has no such function.

    Example:
        >>> original("polars._plr:PyLazyFrame.collect_schema").__name__
        'collect_schema'
    """
    place = _look_up(name)
    return None if place is None else _originals.get(name, place[2])


def _with_layers(found: Any, owner: Any, layers: list[Wrap]) -> Any:
    """Return *found*, an attribute of *owner*, wrapped by *layers*; the last one is called first."""
    is_static = isinstance(found, staticmethod)
    native: Callable[..., Any] = found.__get__(None, owner) if is_static else found
    func = native
    for wrap in layers:
        func = wraps(native)(wrap(func))
    return staticmethod(func) if is_static else func


def _look_up(name: str) -> tuple[Any, str, Any] | None:
    """Return the owner, the attribute name and the raw attribute, or None if there is no such function."""
    module, _, path = name.partition(":")
    try:
        owner: Any = import_module(module)
    except ModuleNotFoundError:
        return None
    *parents, attribute = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent, None)
    return None if attribute not in vars(owner or object) else (owner, attribute, vars(owner)[attribute])


_applied: list[FunctionPatch] = []  # innermost first
_originals: dict[str, Any] = {}  # the raw attributes by name, while they are patched
