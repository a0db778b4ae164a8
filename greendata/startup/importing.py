"""Call a function when a module has been imported, without importing it.

greendata adds code to Polars: the ``.green`` namespaces, the fork guard and, on request, the patch. A program that
never imports Polars should not pay for this. So the code runs when the program imports Polars.

A finder at the start of `sys.meta_path` handles the awaited names only. It lets the other finders find the module, and
wraps the loader that they return. The wrapper restores the real loader before the module's code runs. So the module,
its spec and its resources look as usual.

    import polars ─► _Finder ─► the other finders ─► _Notifier around the real loader ─► the module's code ─► func()
"""

from __future__ import annotations

import sys
from _thread import get_ident
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ("is_being_imported", "modules_of", "when_imported")

# By module. Any thread appends, and removes from the front, so that each function is called by one thread only.
_awaited: dict[str, list[Callable[[], object]]] = {}


def when_imported(name: str, func: Callable[[], object]) -> None:
    """Call *func* once, right after the module *name* is imported, or now if it is imported already.

    *func* runs before the import statement returns, so no code sees the module without the changes of *func*. An
    exception of *func* fails the import, as an exception in the module's code does. The next import calls *func* again.

    Example:
        >>> when_imported("sys", lambda: print("it is here"))
        it is here
    """
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    _awaited.setdefault(name, []).append(func)
    if name in sys.modules:
        import_module(name)  # waits if another thread is importing it
        _notify(name)


def is_being_imported(name: str) -> bool:
    """Return True while the code of the module *name* runs, or the functions of `when_imported`.

    Example:
        >>> is_being_imported("sys")
        False
    """
    return bool(getattr(getattr(sys.modules.get(name), "__spec__", None), "_initializing", False))


def modules_of(package: str) -> Callable[[str], object]:
    """Return a ``__getattr__`` for *package* that imports its modules on first access.

    So ``greendata.pool.pool`` works after a plain ``import greendata``, which loads only a few modules.

    Example:
        >>> modules_of("greendata.hub")("native").__name__
        'greendata.hub.native'
    """

    def load(name: str) -> object:
        if name.startswith("_") or find_spec(f"{package}.{name}") is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return import_module(f"{package}.{name}")

    return load


def _notify(name: str) -> None:
    funcs = _awaited.get(name, [])
    while funcs:
        func = funcs.pop(0)
        try:
            func()
        except BaseException:
            funcs.insert(0, func)
            raise


class _Finder:
    """Find the awaited modules with the help of the other finders."""

    def __init__(self) -> None:
        # Thread and name. It avoids endless recursion if another finder searches again.
        self._finding: set[tuple[int, str]] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not _awaited.get(name) or (get_ident(), name) in self._finding:
            return None
        self._finding.add((get_ident(), name))
        try:
            spec = self._find_with_others(name, path, target)
        finally:
            self._finding.discard((get_ident(), name))
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = cast("Loader", _Notifier(cast("Loader", spec.loader)))
        return spec

    def _find_with_others(self, name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        for finder in tuple(sys.meta_path):
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None if find is None else find(name, path, target)
            if spec is not None:
                return spec
        return None


class _Notifier:
    """A loader that calls the waiting functions after the module's code has run. Wraps the real loader."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None
        spec.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        _notify(spec.name)


_finder = _Finder()
