"""The root of the tree, and what all errors have in common: their text in every representation, and how they travel."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import wraps
from typing import Any, ClassVar, Protocol, Self, TypeVar

from greendata.errors.notes import note, shown, text_of

__all__ = ("AnyResult", "GreenDataError", "Unpicklable")

_PLAIN = (str, int, float, bool, bytes, type(None))  # what every pickle holds, and every process loads
_KEPT = "_text_of_the_original"
E = TypeVar("E", bound="GreenDataError")

SHOWN = 200  # characters of the representation of what cannot be pickled


class AnyResult(Protocol):
    """A `greendata.Result`, as an error that carries one sees it."""

    label: str

    def ready(self) -> bool:
        """Return whether there is an outcome."""

    def get(self, block: bool = True, timeout: Any = None) -> Any:  # noqa: FBT001, FBT002
        """Wait for the outcome and return its value, or raise its error."""

    def wait(self, timeout: Any = None) -> Any:
        """Wait for the outcome."""

    def cancel(self, message: str = "") -> bool:
        """Give the work up."""


class GreenDataError(Exception):
    """The root of every error raised by greendata.

    Every error can be pickled and copied: process pools, Celery and `multiprocessing` do so. Its type, its text, its
    notes and its attributes arrive; in the place of an attribute that cannot be pickled there is an `Unpicklable`.
    ``__cause__`` arrives too, or else a note with its text.

    Example:
        >>> from greendata.errors import PoolFull
        >>> issubclass(PoolFull, GreenDataError)
        True
        >>> import pickle
        >>> print(pickle.loads(pickle.dumps(PoolFull(3, 2))).queued)
        3
    """

    _not_carried: ClassVar[frozenset[str]] = frozenset()  # attributes that belong to this process or greenlet alone

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__str__" in vars(cls):
            cls.__str__ = _as_in_the_original(cls.__str__)  # type: ignore[method-assign]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({text_of(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        text = text_of(self)  # first: an error may keep it as an attribute
        parcels: dict[int, _Parcel] = {}  # what is both an argument and an attribute travels once

        def packed(value: object) -> object:
            return value if type(value) in _PLAIN else parcels.setdefault(id(value), _Parcel(value))

        args = tuple(map(packed, self.args))
        state = {name: packed(value) for name, value in self._state().items()}
        cause = None if self.__cause__ is None else (packed(self.__cause__), _headline(self.__cause__))
        return _arrived, (type(self), args, state, cause, text)

    def __copy__(self) -> Self:
        return _made(type(self), self.args, self._state(), self.__cause__)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        def copied(value: Any) -> Any:
            try:
                return copy.deepcopy(value, memo)
            except Exception:  # noqa: BLE001 - what cannot be copied is shared
                return value

        state = {name: copied(value) for name, value in self._state().items()}
        return _made(type(self), tuple(map(copied, self.args)), state, copied(self.__cause__))

    def _state(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in self._not_carried}


class Unpicklable:
    """Stands for an attribute of an error that could not be pickled, or not be loaded in this process.

    Attributes:
        text: how it showed itself where it was, in short.

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


class _Parcel:
    """A value in a pickle of its own, so that one that fails on its way takes nothing else with it."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            return _opened, (pickle.dumps(self._value), type(self._value).__qualname__)
        except Exception:  # noqa: BLE001 - a user's object raises whatever it likes
            return Unpicklable, (shown(self._value)[:SHOWN],)


def _opened(parcel: bytes, kind: str) -> object:
    try:
        return pickle.loads(parcel)
    except Exception:  # noqa: BLE001 - as above; here the code of that object may be missing
        return Unpicklable(kind)


def _arrived(
    kind: type[GreenDataError],
    args: tuple[object, ...],
    state: dict[str, object],
    cause: tuple[object, str] | None,
    text: str,
) -> GreenDataError:
    """The error on the other side, with the text it had."""
    error = _made(kind, args, {**state, _KEPT: text}, None)
    if cause is not None:
        found, headline = cause
        if isinstance(found, BaseException):
            error.__cause__ = found
        else:
            note(error, f"caused by {headline}")
    return error


def _made(kind: type[E], args: tuple[Any, ...], state: dict[str, Any], cause: BaseException | None) -> E:
    """An error with these attributes, made without its own ``__init__``, which takes what each class likes."""
    builtin: Any = next(base for base in kind.__mro__ if base.__module__ == "builtins")
    error: E = builtin.__new__(kind, *args)
    builtin.__init__(error, *args)  # OSError takes its errno from them
    vars(error).update(state)
    if cause is not None:
        error.__cause__ = cause
    return error


def _as_in_the_original(text: Callable[[Any], str]) -> Callable[[Any], str]:
    @wraps(text)
    def told(self: GreenDataError) -> str:
        kept: str | None = vars(self).get(_KEPT)
        return text(self) if kept is None else kept

    return told


def _headline(error: BaseException) -> str:
    return f"{type(error).__name__}: {text_of(error)}"
