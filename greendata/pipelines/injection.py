"""Injection by name: what a stage hands to the functions that have a parameter of that name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from greendata.errors import BadSignature, NotCallable

__all__ = ("StageStatus", "WorkerInfo", "asked", "check_given", "chosen")


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """Which worker of its stage this is; injected as ``worker_info``.

    Attributes:
        index: from 0.

    Example:
        >>> WorkerInfo(0).index
        0
    """

    index: int


class StageStatus:
    """How many workers of the stage are at work; injected as ``stage_status``.

    Example:
        >>> StageStatus(active_workers=0).done
        True
    """

    def __init__(self, active_workers: int) -> None:
        self.active_workers = active_workers

    @property
    def done(self) -> bool:
        """True once no worker is: in ``on_done``, for the last one."""
        return not self.active_workers

    def __repr__(self) -> str:
        return f"<StageStatus: {self.active_workers} active>"


def asked(
    func: Callable[..., Any], known: tuple[str, ...], *, has_element: bool = False, is_open: bool = False
) -> frozenset[str]:
    """The names that *func* asks for.

    Args:
        known: what it can have.
        has_element: its first argument is the element.
        is_open: it may ask for other names too; whether they are given shows when ``on_start`` has run.

    Raises:
        NotCallable, BadSignature: it cannot be called so.
    """
    if not callable(func):
        raise NotCallable(func)
    try:
        parameters = list(inspect.signature(func).parameters.values())
    except ValueError:  # a builtin that does not tell
        return frozenset()
    if has_element:
        parameters = _after_element(func, parameters, known)
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    needed = {p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    missing = needed - named.keys() if is_open else needed - (named.keys() & set(known))
    if missing:
        raise BadSignature(func, missing, known)
    return frozenset(named if is_open else named.keys() & set(known))


def _after_element(
    func: Callable[..., Any], parameters: list[inspect.Parameter], known: tuple[str, ...]
) -> list[inspect.Parameter]:
    first = parameters[0] if parameters else None
    if first is None or first.kind in (first.KEYWORD_ONLY, first.VAR_KEYWORD):
        raise BadSignature(func, (), known)
    return parameters if first.kind is first.VAR_POSITIONAL else parameters[1:]


def chosen(given: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """What of *given* has one of the *names*."""
    return {name: value for name, value in given.items() if name in names}


def check_given(func: Callable[..., Any], asked: frozenset[str], given: dict[str, Any]) -> None:
    """See to it that ``on_start`` has returned all that *func* needs, before the first element.

    Raises:
        BadSignature: it has not.
    """
    if missing := asked - given.keys():
        parameters = inspect.signature(func).parameters
        if needs := {name for name in missing if parameters[name].default is inspect.Parameter.empty}:
            raise BadSignature(func, needs, given)
