"""Checks of what was imported: too early for gevent's patch, with a query, or unable to wait cooperatively."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial, wraps
from types import FrameType, ModuleType
from typing import Any

from gevent.monkey import get_original, is_module_patched

from greendata.hub.contexts import contextmanager
from greendata.hub.origin import is_machinery
from greendata.internals.polars import EXECUTIONS
from greendata.observe.doctor.findings import Finding, Verdict
from greendata.observe.doctor.locks import native_locks
from greendata.observe.source_location import SourceLocation
from greendata.pool import pool
from greendata.query.patching.fork_guard import polars_has_run, polars_was_lost
from greendata.query.patching.function_patch import FunctionPatch, is_patched
from greendata.startup.importing import when_imported

__all__ = (
    "Import",
    "cluster_clients",
    "fork",
    "native_locks_of_program",
    "order",
    "psycopg",
    "psycopg2",
    "query_at_import",
    "watched",
)

# Functions that block the whole process if a module has imported them before gevent replaced them.
BLOCKING = (
    ("socket", "socket"),
    ("socket", "create_connection"),
    ("ssl", "SSLContext"),
    ("select", "select"),
    ("subprocess", "Popen"),
    ("time", "sleep"),
)
MODULES_SHOWN = 5
DRIVERS = ("psycopg", "psycopg2")


@dataclass(slots=True)
class Import:
    """The effects of an import that matter later.

    Attributes:
        module: the module that was imported.
        has_run_query: True if Polars ran during the import.
        first_query: the line of the first query, if it is known.
        first_imports: the line that first imported each driver of a database.
    """

    module: str
    has_run_query: bool = False
    first_query: str | None = None
    first_imports: dict[str, str] = field(default_factory=dict)


@contextmanager
def watched(module: str) -> Iterator[Import]:
    """Watch the import of *module* in the block, and yield what is found out.

    Example:
        >>> with watched("json") as found:
        ...     import json
        >>> found.has_run_query
        False
    """
    found = Import(module)
    has_run = polars_has_run()
    for driver in DRIVERS:
        if driver not in sys.modules:
            when_imported(driver, partial(_note_import, found, driver))
    patch = FunctionPatch(EXECUTIONS, "the doctor", outermost=True)
    patch.apply_to_existing(partial(_noting_query, found))
    try:
        yield found
    finally:
        patch.undo()
        found.has_run_query = found.first_query is not None or (polars_has_run() and not has_run)


def _noting_query(found: Import, func: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(func)
    def note_and_run(*args: Any, **kwargs: Any) -> Any:
        if found.first_query is None:
            found.first_query = _line_outside()
        return func(*args, **kwargs)

    return note_and_run


def _note_import(found: Import, driver: str) -> None:
    found.first_imports[driver] = _line_outside()


def _line_outside() -> str:
    """Return the innermost line of the calling thread outside of Polars, gevent, greendata and the import system."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_skipped(frame.f_code.co_filename):
        frame = frame.f_back
    if frame is None:
        return "a thread without Python code"
    return str(SourceLocation(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))


def _is_skipped(file: str) -> bool:
    return file.startswith("<frozen importlib") or is_machinery(file)


def query_at_import(imported: Import | None) -> Finding | None:
    """Report a query that ran during the import: a process that is forked afterwards could run none."""
    if imported is None or not imported.has_run_query:
        return None
    where = "" if imported.first_query is None else f", first at {imported.first_query}"
    then = "the workers run theirs in child processes (on_fork)" if _runs_elsewhere() else "no worker could run one"
    text = (
        f"importing {imported.module} runs a query{where}: with gunicorn --preload {then}, and it delays the start of "
        "each process; load data on the first request, or in post_worker_init"
    )
    return Finding("query at import", Verdict.WARN, text)


def order() -> Finding | None:
    """Find modules that imported a blocking function before gevent replaced it."""
    if not is_module_patched("socket"):
        return None
    late = sorted(set(_early_imports()))
    if not late:
        return Finding("order of imports", Verdict.OK, "no module was imported too early for the patch")
    shown = ", ".join(f"{module} ({name})" for module, name in late[:MODULES_SHOWN])
    more = f" and {len(late) - MODULES_SHOWN} more" if len(late) > MODULES_SHOWN else ""
    text = f"imported before patch_all, so they block the hub: {shown}{more}; patch before every other import"
    return Finding("order of imports", Verdict.FAIL, text)


def _early_imports() -> Iterator[tuple[str, str]]:
    originals = {
        id(original): f"{module}.{name}"
        for module, name in BLOCKING
        if (now := sys.modules.get(module)) and (original := get_original(module, name)) is not getattr(now, name)
    }
    for name, module in list(sys.modules.items()):
        package = name.partition(".")[0]
        if package not in sys.stdlib_module_names and package not in {"gevent", "greendata"}:
            for value in list(getattr(module, "__dict__", {}).values()):
                if id(value) in originals:
                    yield name, originals[id(value)]


def native_locks_of_program() -> Finding | None:
    """Find native locks of the program. If Polars is patched, a greenlet that waits for one blocks its hub."""
    if not is_module_patched("threading") and not is_patched("the pool"):
        return None
    names = native_locks()
    if not names:
        return Finding("locks", Verdict.OK, "no lock of the program was made before the patch")
    more = f" and {len(names) - MODULES_SHOWN} more" if len(names) > MODULES_SHOWN else ""
    text = (
        f"native, made before patch_all: {', '.join(names[:MODULES_SHOWN])}{more}; a greenlet that runs a query under "
        "such a lock lets others run, and the next one that waits for the lock blocks the hub forever. Make it on "
        "first use, use greendata.single_flight, or, with gunicorn --preload, call patch_all at the top of "
        "gunicorn.conf.py"
    )
    return Finding("locks", Verdict.WARN, text)


def psycopg(imported: Import | None = None) -> Finding | None:
    """Check that psycopg waits cooperatively. It decides that when it is imported."""
    if not is_module_patched("socket") or "psycopg" not in sys.modules:
        return None
    waiting = getattr(sys.modules.get("psycopg.waiting"), "wait", None)
    if getattr(waiting, "__name__", "") == "wait_c":
        text = f"it blocks the hub: import it after patch_all{_imported_by('psycopg', imported)}"
        return Finding("psycopg", Verdict.FAIL, text)
    return Finding("psycopg", Verdict.OK, "it waits cooperatively")


def psycopg2(imported: Import | None = None) -> Finding | None:
    """Check that psycopg2 has a callback for waiting, and name the modules that imported it."""
    if not is_module_patched("socket") or "psycopg2" not in sys.modules:
        return None
    extensions = sys.modules.get("psycopg2.extensions")
    if extensions is None or extensions.get_wait_callback() is None:
        text = f"it blocks the hub: use psycogreen, or psycopg 3{_imported_by('psycopg2', imported)}"
        return Finding("psycopg2", Verdict.FAIL, text)
    return Finding("psycopg2", Verdict.OK, "it waits by a callback")


def _imported_by(package: str, imported: Import | None) -> str:
    """Return the modules that imported *package*, as the end of a text; "" if none can be found."""
    first = None if imported is None else imported.first_imports.get(package)
    names = _users_of(package) if first is None else [first]
    more = f" and {len(names) - MODULES_SHOWN} more" if len(names) > MODULES_SHOWN else ""
    return f"; imported by {', '.join(names[:MODULES_SHOWN])}{more}" if names else ""


def _users_of(package: str) -> list[str]:
    """Return the modules outside of *package* that have it, a module of it or an object of it among their names."""
    found = []
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in (package, "gevent", "greendata"):
            values = list(getattr(module, "__dict__", {}).values())
            if any(_home_of(value).partition(".")[0] == package for value in values):
                found.append(name)
    return sorted(found)


def _home_of(value: object) -> str:
    """Return the name of the module that *value* is or comes from, without running its code: it may be a proxy."""
    attribute = "__name__" if type(value) is ModuleType else "__module__"
    try:
        home = object.__getattribute__(value, attribute)
    except AttributeError:
        return ""
    return home if isinstance(home, str) else ""


def cluster_clients() -> Finding | None:
    """Find clients of clusters that do not work in a patched process."""
    found = [name for name in ("ray", "distributed") if name in sys.modules]
    if not found or not is_module_patched("socket"):
        return None
    text = f"{' and '.join(found)} hang in a patched process, from any thread; use them in an unpatched child process"
    return Finding("cluster clients", Verdict.FAIL, text)


def fork() -> Finding:
    """Check that Polars works here, or would work in a process that is forked from this one."""
    if polars_was_lost() and _runs_elsewhere():
        text = "this process was forked after Polars ran; its queries run in child processes (on_fork)"
        return Finding("fork", Verdict.OK, text)
    if polars_was_lost():
        text = (
            "this process was forked after Polars ran, and no query can run here; run none before the fork (--preload)"
        )
        return Finding("fork", Verdict.FAIL, text)
    if polars_has_run() and not _runs_elsewhere():
        return Finding("fork", Verdict.OK, "Polars has run here: a process forked from this one could run no query")
    return Finding("fork", Verdict.OK, f"Polars has {'run here' if polars_has_run() else 'not run here yet'}")


def _runs_elsewhere() -> bool:
    return bool(pool.shared.settings.on_fork == "process")
