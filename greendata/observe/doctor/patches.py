"""Checks of the patches: gevent's of the standard library, and greendata's of Polars."""

from __future__ import annotations

import os

from gevent.monkey import is_module_patched

from greendata.observe.doctor.findings import Finding, Verdict
from greendata.query.patching.function_patch import is_patched, missing_functions
from greendata.startup.autopatch import patch_all_arguments, value_at_patch_all
from greendata.startup.variables import AUTOPATCH, NATIVE_WAITS, yes_or_no
from greendata.threads import sharing

__all__ = ("native_waits", "polars_patch", "standard_library")

WORKER = "greendata.web.gunicorn.GreenWorker"  # which patches Polars

# The modules that are checked, and their arguments of `patch_all`.
MODULES = {"socket": "socket", "threading": "thread", "time": "time", "ssl": "ssl"}


def standard_library() -> Finding:
    """Check which modules `gevent.monkey` has patched."""
    missing = [name for name in MODULES if not is_module_patched(name)]
    if not missing:
        return Finding("gevent patch", Verdict.OK, "the standard library is cooperative")
    given = patch_all_arguments()
    excluded = [name for name in missing if given.get(MODULES[name]) is False]
    if excluded:
        arguments = ", ".join(f"{MODULES[name]}=False" for name in excluded)
        verb = "is" if len(excluded) == 1 else "are"
        text = (
            f"{' and '.join(excluded)} {verb} excluded by the caller of patch_all({arguments}): a greenlet that waits "
            "there blocks the hub; call patch_all() without it, unless that is what you want"
        )
    else:
        text = (
            f"not patched: {', '.join(missing)}; call gevent.monkey.patch_all() before all else, or use gunicorn -k "
            "gevent (`python -m greendata doctor --gevent MODULE` examines a module as it runs there)"
        )
    return Finding("gevent patch", Verdict.WARN, text)


def polars_patch() -> Finding:
    """Check that Polars is patched, and find out why not."""
    if missing := missing_functions("the pool"):
        text = f"this Polars lacks {', '.join(missing)}; what has taken their place blocks the hub, the rest yields"
        return Finding("Polars patch", Verdict.WARN, text)
    if is_patched("the pool"):
        return Finding("Polars patch", Verdict.OK, "every Polars execution yields to the hub")
    text = f"plain Polars calls block the hub; greendata's verbs do not. {_why_not_patched()}"
    return Finding("Polars patch", Verdict.WARN, text)


def native_waits() -> Finding | None:
    """Check that locks and sockets work in native threads."""
    if not is_module_patched("threading"):
        return None
    if sharing.are_off():
        text = (
            f"off, by {NATIVE_WAITS}: a lock, a log handler or a connection that native threads share with "
            "greenlets blocks them forever"
        )
        return Finding("native waits", Verdict.WARN, text)
    when = "" if sharing.are_shared() else ", from the first job on"
    return Finding("native waits", Verdict.OK, f"threads without a hub share locks and sockets with greenlets{when}")


def _why_not_patched() -> str:
    value, before = os.environ.get(AUTOPATCH, ""), value_at_patch_all()
    asked = yes_or_no(value)
    if asked is None:
        return f"{AUTOPATCH} is {value!r}, which is neither yes nor no: set it to 1"
    if not asked or (before is not None and yes_or_no(before)):
        return f"Set {AUTOPATCH}=1, or call greendata.patch_polars(), or use gunicorn -k {WORKER}"
    if before is not None:
        return (
            f"{AUTOPATCH} was not set yet when patch_all looked at it (a .env file that the program reads comes too "
            "late): set it in the environment of the process, or call greendata.patch_polars()"
        )
    if is_module_patched("threading"):
        return (
            f"{AUTOPATCH} is set, and patch_all has not looked at it: only single patches of gevent were made, or "
            "greendata is not installed but only on the path. Call greendata.patch_polars()"
        )
    return (
        f"{AUTOPATCH} is set, but nothing has called patch_all here, which looks at it: gunicorn -k gevent does in its "
        "workers, another program calls it itself, or greendata.patch_polars()"
    )
