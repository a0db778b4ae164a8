"""Injection by name: the arguments that a stage passes to functions with a parameter of that name."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from greendata.errors import BadSignature
from greendata.hub.checks import check_function

__all__ = ("StageStatus", "WorkerInfo", "check_given", "requested_names", "select")


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """Identify a worker within its stage; injected as ``worker_info``.

    Attributes:
        index: the number of the worker, from 0.

    Example:
        >>> WorkerInfo(0).index
        0
    """

    index: int


class StageStatus:
    """The number of active workers of a stage; injected as ``stage_status``.

    Example:
        >>> StageStatus(active_workers=0).done
        True
    """

    def __init__(self, active_workers: int) -> None:
        self.active_workers = active_workers

    @property
    def done(self) -> bool:
        """True if no worker is active, as in the ``on_done`` of the last one."""
        return not self.active_workers

    def __repr__(self) -> str:
        return f"<StageStatus: {self.active_workers} active>"


def requested_names(
    func: Callable[..., Any], known: tuple[str, ...], *, has_element: bool = False, is_open: bool = False
) -> frozenset[str]:
    """Return the names of the parameters of *func* that are injected.

    Args:
        known: the names that can be injected.
        has_element: the first argument of *func* is the element.
        is_open: *func* may have other parameters too, which ``on_start`` provides; `check_given` checks them later.

    Raises:
        NotCallable, AsyncFunction, BadSignature: *func* cannot be called this way.
    """
    check_function(func)
    try:
        parameters = list(_parameters_of(func).values())
    except ValueError:  # a builtin without a signature
        return frozenset()
    if has_element:
        parameters = _after_element(func, parameters, known)
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    needed = {p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    missing = needed - named.keys() if is_open else needed - (named.keys() & set(known))
    if missing:
        raise BadSignature(func, missing, known)
    return frozenset(named if is_open else named.keys() & set(known))


def _parameters_of(func: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of *func*. From Python 3.14 on its annotations may name what only type checkers import."""
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        return inspect.signature(func, annotation_format=Format.FORWARDREF).parameters
    return inspect.signature(func).parameters


def _after_element(
    func: Callable[..., Any], parameters: list[inspect.Parameter], known: tuple[str, ...]
) -> list[inspect.Parameter]:
    first = parameters[0] if parameters else None
    if first is None or first.kind in (first.KEYWORD_ONLY, first.VAR_KEYWORD):
        raise BadSignature(func, (), known)
    return parameters if first.kind is first.VAR_POSITIONAL else parameters[1:]


def select(given: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """Return the items of *given* with one of the *names*."""
    return {name: value for name, value in given.items() if name in names}


def check_given(func: Callable[..., Any], requested: frozenset[str], given: dict[str, Any]) -> None:
    """Check, before the first element, that *given* has every argument that *func* needs.

    Raises:
        BadSignature: an argument without a default is missing.
    """
    if missing := requested - given.keys():
        parameters = _parameters_of(func)
        if needs := {name for name in missing if parameters[name].default is inspect.Parameter.empty}:
            raise BadSignature(func, needs, given)
