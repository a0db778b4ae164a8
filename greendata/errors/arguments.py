"""Errors of arguments and settings, raised by the call before any work begins."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from difflib import get_close_matches

from greendata.errors.notes import shortened
from greendata.errors.root import GreenDataError

__all__ = (
    "AsyncFunction",
    "BadArgument",
    "BadChoice",
    "BadSetting",
    "BadTimeout",
    "NotAResult",
    "NotCallable",
    "OptionTaken",
    "UnknownArgument",
)


class AsyncFunction(GreenDataError, TypeError):
    """The function to run is an async function. Calling it would only make a coroutine that nobody awaits.

    Attributes:
        func: the function.
    """

    def __init__(self, func: object) -> None:
        super().__init__(func)
        self.func = func

    def __str__(self) -> str:
        return (
            f"{shortened(self.func)} is an async function, which only an asyncio event loop can run; pass a plain "
            "function, or one that calls asyncio.run(...) itself"
        )


class _BadValue(GreenDataError, ValueError):
    """The common base of `BadArgument` and `BadSetting`."""

    def __init__(self, name: str, value: object, expected: str) -> None:
        super().__init__(name, value, expected)
        self.name = name
        self.value = value
        self.expected = expected

    def __str__(self) -> str:
        return f"{self.name} must be {self.expected}, got {shortened(self.value)}"


class BadArgument(_BadValue):
    """An argument that cannot be used.

    Attributes:
        name: the argument.
        value: what was given.
        expected: what it should be.

    Example:
        >>> print(BadArgument("workers", 0, "a whole number >= 1"))
        workers must be a whole number >= 1, got 0
    """


class BadChoice(GreenDataError, ValueError):
    """A value that is not among the allowed ones.

    Attributes:
        name: the argument.
        value: what was given.
        choices: the allowed values.

    Example:
        >>> print(BadChoice("on_error", "ignore", ("cancel", "collect")))
        on_error must be 'cancel' or 'collect', got 'ignore'
    """

    def __init__(self, name: str, value: object, choices: Iterable[str]) -> None:
        self.choices = tuple(choices)
        super().__init__(name, value, self.choices)
        self.name = name
        self.value = value

    def __str__(self) -> str:
        *others, last = (repr(choice) for choice in self.choices)
        return f"{self.name} must be {', '.join(others)} or {last}, got {shortened(self.value)}"


class BadSetting(_BadValue):
    """A setting of `greendata.configure` or of a ``GREENDATA_*`` variable that cannot be used.

    Attributes:
        name: the setting.
        value: what was given.
        expected: what it should be.
    """


class BadTimeout(GreenDataError, ValueError):
    """A timeout that is negative, NaN or not a number.

    Attributes:
        timeout: what was given.

    Example:
        >>> print(BadTimeout(-1))
        timeout must be None or a number of seconds >= 0, got -1
    """

    def __init__(self, timeout: object) -> None:
        super().__init__(timeout)
        self.timeout = timeout

    def __str__(self) -> str:
        return f"timeout must be None or a number of seconds >= 0, got {self.timeout!r}"


class NotAResult(GreenDataError, TypeError):
    """The object to wait for is not a Result, an AsyncResult or a greenlet.

    Attributes:
        thing: what was given.
    """

    def __init__(self, thing: object) -> None:
        super().__init__(thing)
        self.thing = thing

    def __str__(self) -> str:
        kind = type(self.thing).__name__
        hints = {"LazyFrame": "; start it first: collect(lf)", "DataFrame": "; it is a value already"}
        hint = hints.get(kind, "; start it first: run(func)" if callable(self.thing) else "")
        return f"expected a Result, an AsyncResult or a Greenlet to wait for, got {shortened(self.thing)}{hint}"


class NotCallable(GreenDataError, TypeError):
    """The object to run is not callable.

    Attributes:
        func: what was given.
    """

    def __init__(self, func: object) -> None:
        super().__init__(func)
        self.func = func

    def __str__(self) -> str:
        is_source = isinstance(self.func, Iterable) and not isinstance(self.func, Coroutine)
        hint = "the function comes first" if is_source else "pass the function itself, not what it returned"
        return f"expected a callable to run, got {shortened(self.func)}; {hint}"


class OptionTaken(GreenDataError, TypeError):
    """An argument for the function to run has the name of an option of the call that runs it, which took it.

    Attributes:
        func: the function.
        option: the name.
    """

    def __init__(self, func: object, option: str) -> None:
        super().__init__(func, option)
        self.func = func
        self.option = option

    def __str__(self) -> str:
        return (
            f"run() takes {self.option}= for itself, and {shortened(self.func)} needs an argument of that name; "
            f"pass functools.partial(func, {self.option}=...)"
        )


class UnknownArgument(GreenDataError, TypeError):
    """A keyword argument or a setting that does not exist.

    Attributes:
        verb: the function that was called.
        name: the name that was given.
        known: the names that exist.

    Example:
        >>> print(UnknownArgument("configure", "max_wrkers", ["max_workers", "max_queue", "nice"]))
        configure() got an unexpected keyword argument 'max_wrkers'; did you mean 'max_workers'? It takes max_workers,
        max_queue and nice
    """

    def __init__(self, verb: str, name: str, known: Iterable[str]) -> None:
        self.known = tuple(known)
        super().__init__(verb, name, self.known)
        self.verb = verb
        self.name = name

    def __str__(self) -> str:
        close = get_close_matches(self.name, self.known, n=1)
        hint = f"; did you mean {close[0]!r}? It" if close else "; it"
        *others, last = self.known
        names = f"{', '.join(others)} and {last}" if others else last
        return f"{self.verb}() got an unexpected keyword argument {self.name!r}{hint} takes {names}"
