"""The base class of all errors: its ``repr`` shows the text, and it can be pickled and copied."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import wraps
from typing import Any, ClassVar, Protocol, Self, TypeVar

from greendata.errors.notes import note, shown, text_of

__all__ = ("AnyResult", "GreenDataError", "Unpicklable")

_PLAIN = (str, int, float, bool, bytes, type(None))  # types that every process can pickle and load
_TEXT = "_text_of_the_original"
E = TypeVar("E", bound="GreenDataError")

SHOWN = 200  # characters of the ``repr`` of an attribute that cannot be pickled


class AnyResult(Protocol):
    """The part of a `greendata.Result` that errors use."""

    label: str

    def ready(self) -> bool:
        """Return whether there is an outcome."""

    def get(self, block: bool = True, timeout: Any = None) -> Any:  # noqa: FBT001, FBT002
        """Wait for the outcome and return its value, or raise its error."""

    def wait(self, timeout: Any = None) -> Any:
        """Wait for the outcome."""

    def cancel(self, message: str = "") -> bool:
        """Cancel the work."""


class GreenDataError(Exception):
    """The base class of every error raised by greendata.

    Every error can be pickled and copied, as process pools, Celery and `multiprocessing` do. The copy has the same
    type, text, notes and attributes. An attribute that cannot be pickled is replaced by an `Unpicklable`. ``__cause__``
    is copied too; if it cannot be pickled, a note has its text.

    Example:
        >>> from greendata.errors import PoolFull
        >>> issubclass(PoolFull, GreenDataError)
        True
        >>> import pickle
        >>> print(pickle.loads(pickle.dumps(PoolFull(3, 2))).queued)
        3
    """

    _not_carried: ClassVar[frozenset[str]] = frozenset()  # attributes that only this process or greenlet can use

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__str__" in vars(cls):
            cls.__str__ = _prefer_original_text(cls.__str__)  # type: ignore[method-assign]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({text_of(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        text = text_of(self)  # first: an error may cache it as an attribute
        pickled: dict[int, _PickledValue] = {}  # an object that is both an argument and an attribute is pickled once

        def wrapped(value: object) -> object:
            return value if type(value) in _PLAIN else pickled.setdefault(id(value), _PickledValue(value))

        args = tuple(map(wrapped, self.args))
        state = {name: wrapped(value) for name, value in self._state().items()}
        cause = None if self.__cause__ is None else (wrapped(self.__cause__), _headline(self.__cause__))
        return _restore, (type(self), args, state, cause, text)

    def __copy__(self) -> Self:
        return _make(type(self), self.args, self._state(), self.__cause__)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        def copied(value: Any) -> Any:
            try:
                return copy.deepcopy(value, memo)
            except Exception:  # noqa: BLE001 - an object that cannot be copied is shared
                return value

        state = {name: copied(value) for name, value in self._state().items()}
        return _make(type(self), tuple(map(copied, self.args)), state, copied(self.__cause__))

    def _state(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in self._not_carried}


class Unpicklable:
    """Replace an attribute of an error that could not be pickled, or could not be loaded in this process.

    Attributes:
        text: the ``repr`` of the original, truncated.

    Example:
        >>> import pickle
        >>> from greendata.errors import ServiceEnded
        >>> pickle.loads(pickle.dumps(ServiceEnded("mail", open))).value
        <built-in function open>
        >>> pickle.loads(pickle.dumps(ServiceEnded("mail", lambda: 3))).value
        <unpicklable: <function <lambda> at 0x...>>
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return f"<unpicklable: {self.text}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unpicklable) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)


class _PickledValue:
    """A value that is pickled separately, so that a failure affects only this value."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            return _load_value, (pickle.dumps(self._value), type(self._value).__qualname__)
        except Exception:  # noqa: BLE001 - a user's object may raise anything
            return Unpicklable, (shown(self._value)[:SHOWN],)


def _load_value(content: bytes, kind: str) -> object:
    try:
        return pickle.loads(content)
    except Exception:  # noqa: BLE001 - as above; the code of that object may be missing here
        return Unpicklable(kind)


def _restore(
    kind: type[GreenDataError],
    args: tuple[object, ...],
    state: dict[str, object],
    cause: tuple[object, str] | None,
    text: str,
) -> GreenDataError:
    """Return the unpickled error, with its original text."""
    error = _make(kind, args, {**state, _TEXT: text}, None)
    if cause is not None:
        found, headline = cause
        if isinstance(found, BaseException):
            error.__cause__ = found
        else:
            note(error, f"caused by {headline}")
    return error


def _make(kind: type[E], args: tuple[Any, ...], state: dict[str, Any], cause: BaseException | None) -> E:
    """Return an error with these attributes, made without calling ``__init__``, whose signature differs by class."""
    builtin: Any = next(base for base in kind.__mro__ if base.__module__ == "builtins")
    error: E = builtin.__new__(kind, *args)
    builtin.__init__(error, *args)  # OSError takes its errno from the arguments
    vars(error).update(state)
    if cause is not None:
        error.__cause__ = cause
    return error


def _prefer_original_text(text: Callable[[Any], str]) -> Callable[[Any], str]:
    @wraps(text)
    def original_text(self: GreenDataError) -> str:
        kept: str | None = vars(self).get(_TEXT)
        return text(self) if kept is None else kept

    return original_text


def _headline(error: BaseException) -> str:
    return f"{type(error).__name__}: {text_of(error)}"
