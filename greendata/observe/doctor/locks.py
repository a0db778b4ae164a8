"""Find the locks of a program that were made before gevent's patch, and so are native.

A module that is imported before `patch_all` makes native locks. Unpatched Polars never switches greenlets, so such a
lock around a lazy load works. With patched Polars each execution lets other greenlets run. The next greenlet that
acquires the lock then waits natively: its hub is blocked, and the greenlet that holds the lock can never continue.

A native RLock alone blocks nothing: to it all greenlets of a thread are the same owner, so each of them acquires it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from greendata.hub import native

__all__ = ("native_locks",)

# Classes that wait on a lock of theirs. Threads are not included: the interpreter uses their locks.
HOLDERS = {
    *(("threading", name) for name in ("Barrier", "BoundedSemaphore", "Condition", "Event", "Semaphore")),
    *(("queue", name) for name in ("LifoQueue", "PriorityQueue", "Queue")),
}
NATIVE_RLOCK = type(native.RLock())
INSTALLED = ("site-packages", "dist-packages")  # folders of installed libraries
OURS = ("gevent", "greendata", "polars")


def native_locks() -> list[str]:
    """Return the names of native locks in modules of the program and in libraries that import Polars.

    The search covers the global names of these modules, the attributes of their classes and objects, and the items of
    their lists and dictionaries. Each lock is named once.

    Example:
        >>> all(isinstance(name, str) for name in native_locks())
        True
    """
    modules = {name: _attributes(module) for name, module in list(sys.modules.items())}
    programs = {name for name, attributes in modules.items() if _belongs_to_program(name, attributes)}
    found: dict[int, str] = {}
    for module in sorted(programs):
        for name, value in modules[module].items():
            for attribute, lock in _locks_of(value, programs):
                found.setdefault(id(lock), f"{module}.{name}{attribute}")
    return sorted(found.values())


def _belongs_to_program(name: str, attributes: dict[str, Any]) -> bool:
    package = name.partition(".")[0]
    if package == "__main__":
        return True
    if package in sys.stdlib_module_names or package in OURS:
        return False
    file = str(attributes.get("__file__") or "")
    polars = sys.modules.get("polars")
    is_library = not file or any(folder in file for folder in INSTALLED)
    return not is_library or any(value is polars for value in attributes.values())


def _locks_of(value: object, programs: set[str]) -> Iterator[tuple[str, object]]:
    """Yield the native locks in *value* and in its parts, each with the suffix that leads to it."""
    yield from (("", lock) for lock in _locks_in(value))
    for attribute, part in _parts(value, programs):
        yield from ((attribute, lock) for lock in _locks_in(part))


def _locks_in(value: object) -> list[object]:
    kind = type(value)
    if kind is native.Lock:
        return [value]
    if (kind.__module__, kind.__qualname__) not in HOLDERS:
        return []
    parts = _attributes(value).values()
    return [lock for part in parts for lock in ([part] if type(part) is NATIVE_RLOCK else _locks_in(part))]


def _parts(value: object, programs: set[str]) -> Iterator[tuple[str, object]]:
    """Yield the parts of *value*, if its class belongs to the program. Other objects may be proxies."""
    kind = type(value)
    if kind in (list, tuple, dict):
        items: Any = value
        yield from (("[...]", part) for part in tuple(items.values() if kind is dict else items))
    elif (value if issubclass(kind, type) else kind).__module__ in programs:
        yield from ((f".{name}", part) for name, part in _attributes(value).items())


def _attributes(thing: object) -> dict[str, Any]:
    """Return the attributes of *thing* without running its code: it may be a proxy, or load something on access."""
    try:
        return dict(object.__getattribute__(thing, "__dict__"))
    except AttributeError:
        return {}
