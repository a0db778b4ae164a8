"""Find the locks of a program that were made before gevent's patch, and so are native.

A module that is imported before `patch_all` makes native locks. Plain Polars never switches greenlets, so such a lock
round a lazy load does its work. Where each execution lets other greenlets run, the next one that wants the lock waits
natively: its hub stands still, and the greenlet that holds the lock can never go on.

A native RLock by itself stops nobody: all greenlets of a thread are one owner to it, so each is let in.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from greendata.hub import native

__all__ = ("native_locks",)

# What waits at a lock that it holds; not threads, whose locks are for the interpreter.
HOLDERS = {
    *(("threading", name) for name in ("Barrier", "BoundedSemaphore", "Condition", "Event", "Semaphore")),
    *(("queue", name) for name in ("LifoQueue", "PriorityQueue", "Queue")),
}
NATIVE_RLOCK = type(native.RLock())
INSTALLED = ("site-packages", "dist-packages")  # folders of libraries
OURS = ("gevent", "greendata", "polars")


def native_locks() -> list[str]:
    """The names of native locks that modules of the program, and libraries that import Polars, can reach.

    Looked at are the names of these modules, the attributes of their classes and objects, and the items of their
    lists and dictionaries. Each lock is named once.

    Example:
        >>> all(isinstance(name, str) for name in native_locks())
        True
    """
    modules = {name: _attributes(module) for name, module in list(sys.modules.items())}
    programs = {name for name, attributes in modules.items() if _is_the_programs(name, attributes)}
    found: dict[int, str] = {}
    for module in sorted(programs):
        for name, value in modules[module].items():
            for attribute, lock in _locks_of(value, programs):
                found.setdefault(id(lock), f"{module}.{name}{attribute}")
    return sorted(found.values())


def _is_the_programs(name: str, attributes: dict[str, Any]) -> bool:
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
    """The native locks in *value* and in its parts, each with what leads to it."""
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
    """What *value* is made of, if the program makes it: what else there is may be a library's, or a proxy."""
    kind = type(value)
    if kind in (list, tuple, dict):
        items: Any = value
        yield from (("[...]", part) for part in tuple(items.values() if kind is dict else items))
    elif (value if issubclass(kind, type) else kind).__module__ in programs:
        yield from ((f".{name}", part) for name, part in _attributes(value).items())


def _attributes(thing: object) -> dict[str, Any]:
    """What *thing* has itself, with no code of its own run: it may be a proxy, or load something when it is asked."""
    try:
        return dict(object.__getattribute__(thing, "__dict__"))
    except AttributeError:
        return {}
