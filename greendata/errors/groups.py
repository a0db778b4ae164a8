"""Errors of groups, callers and services."""

from __future__ import annotations

from collections.abc import Iterable

from greendata.errors.plural import counted
from greendata.errors.root import AnyResult, GreenDataError

__all__ = (
    "CallerStopped",
    "ForeignGreenlet",
    "GroupClosed",
    "GroupTimeout",
    "NoCaller",
    "ServiceEnded",
)


class GroupClosed(GreenDataError, RuntimeError):
    """The group takes no more members: it was left, it is being cancelled, or it was never entered.

    Attributes:
        label: the name of the group.
        state: the state of the group, as a phrase.
    """

    def __init__(self, label: str, state: str) -> None:
        super().__init__(label, state)
        self.label = label
        self.state = state

    def __str__(self) -> str:
        return f"{self.label} {self.state} and takes no members; start them in a new `with Group() as g:`"


class GroupTimeout(GreenDataError, TimeoutError):
    """A group ran out of time; its members were cancelled.

    Attributes:
        label: the name of the group.
        seconds: the time it was allowed.
        survivors: the results of members that cannot be stopped and continue: native calls, and greenlets that
            ignore being killed.
    """

    def __init__(self, label: str, seconds: float, survivors: Iterable[AnyResult]) -> None:
        super().__init__(label, seconds)
        self.label = label
        self.seconds = seconds
        self.survivors = tuple(survivors)

    def __str__(self) -> str:
        names = ", ".join(sorted(result.label for result in self.survivors))
        continues, continue_ = "cannot be stopped and continues", "cannot be stopped and continue"
        going = f"{counted(len(self.survivors), continues, continue_)}: {names}" if names else "none of them continues"
        return (
            f"{self.label} was not done within {counted(self.seconds, 'second')}; its members were cancelled, {going}"
        )


class CallerStopped(GreenDataError, RuntimeError):
    """The caller was stopped, or its thread or hub is gone, and takes no more calls.

    Attributes:
        caller: the caller's name.
    """

    def __init__(self, caller: str) -> None:
        super().__init__(caller)
        self.caller = caller

    def __str__(self) -> str:
        return f"caller {self.caller!r} is stopped, or its hub is gone; call Caller.current() or Caller.new() again"


class ForeignGreenlet(GreenDataError, RuntimeError):
    """The caller waited for a greenlet of another thread's hub. Only that hub is notified when it ends.

    Attributes:
        greenlet: the greenlet.
    """

    def __init__(self, greenlet: object) -> None:
        super().__init__(greenlet)
        self.greenlet = greenlet

    def __str__(self) -> str:
        return (
            f"{self.greenlet!r} belongs to another thread; start it with Caller.call_soon, whose result crosses threads"
        )


class NoCaller(GreenDataError, RuntimeError):
    """This thread cannot have a caller.

    Attributes:
        reason: why.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason}; call Caller.current() on the hub's thread and pass the caller on"


class ServiceEnded(GreenDataError, RuntimeError):
    """A service returned before it was asked to stop.

    Attributes:
        label: the name of the service.
        value: what it returned.
    """

    def __init__(self, label: str, value: object) -> None:
        super().__init__(label, value)
        self.label = label
        self.value = value

    def __str__(self) -> str:
        return f"service {self.label} returned {self.value!r} before it was asked to stop; it should run until then"
