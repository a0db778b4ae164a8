"""The engine of queries that name none, as text: in ``GREENDATA_ENGINE``, an app's config and `greendata.configure`.

The text is checked here, when the setting is read. The engine is made by `greendata.query.choice`, with the first query
that needs it, so that a program which only imports greendata loads neither Polars nor the code of other processes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from greendata.errors import BadSetting

__all__ = ("EngineSetting", "FORMS", "LEAST_MEMORY", "LOCAL", "engine_setting", "is_engine", "size_of")

LOCAL = ("auto", "in-memory", "streaming", "gpu")  # Polars' own engines, in threads of this process
THREADS, PROCESS = "threads", "process"
LEAST_MEMORY = 64 << 20  # bytes of a child: its interpreter with Polars takes some 50 MiB

FORMS = (
    "'threads', 'in-memory', 'streaming', 'gpu', 'process', 'process:workers=2,memory_limit=512MiB', "
    "'module:factory' or a polars.Engine"
)

_UNITS = {"": 1, "b": 1} | {
    unit: number
    for power, letter in enumerate("kmgt", 1)
    for unit, number in ((f"{letter}b", 1000**power), (f"{letter}ib", 1024**power), (letter, 1024**power))
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)
_FACTORY = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*")


class EngineSetting(NamedTuple):
    """What a text means.

    Attributes:
        kind: "threads", a name of Polars' own engines, "process" or "factory".
        options: the arguments of `greendata.engines.process.ProcessEngine`.
    """

    kind: str
    options: dict[str, Any]


def engine_setting(name: str, text: str) -> EngineSetting:
    """Return what *text*, the value of the setting *name*, means.

    Raises:
        BadSetting: it is not one of the forms.

    Example:
        >>> engine_setting("engine", "process:workers=4,memory_limit=512MiB")
        EngineSetting(kind='process', options={'workers': 4, 'memory_limit': 536870912})
        >>> engine_setting("engine", "warp")
        Traceback (most recent call last):
        greendata.errors.arguments.BadSetting: engine must be 'threads', 'in-memory', ..., got 'warp'
    """
    kind, colon, rest = text.strip().partition(":")
    if kind == PROCESS:
        return EngineSetting(PROCESS, _process_options(name, text, rest) if rest or colon else {})
    if not colon and kind in (THREADS, *LOCAL):
        return EngineSetting(THREADS if kind == "auto" else kind, {})
    if _FACTORY.fullmatch(text.strip()):
        return EngineSetting("factory", {})
    raise BadSetting(name, text, FORMS)


def is_engine(value: object) -> bool:
    """Return True for an object with the methods of a `polars.Engine`, which this package does not import.

    Example:
        >>> is_engine("process"), is_engine(len)
        (False, False)
    """
    return not isinstance(value, type) and all(hasattr(value, name) for name in ("collect", "execute", "plan_engine"))


def size_of(name: str, value: object, least: int = 0) -> int:
    """Return a number of bytes that is given as a number, or as text such as ``512MiB`` or ``2GB``.

    Raises:
        BadSetting: it is neither, or less than *least*.

    Example:
        >>> size_of("memory_limit", "1.5GiB"), size_of("memory_limit", 1000)
        (1610612736, 1000)
    """
    size = None
    if isinstance(value, str) and (found := _SIZE.fullmatch(value.strip())) and found[2].lower() in _UNITS:
        size = int(float(found[1]) * _UNITS[found[2].lower()])
    elif isinstance(value, int) and not isinstance(value, bool):
        size = value
    if size is None or size < least:
        wanted = f"at least {least >> 20} MiB, such as 512MiB or 2GB" if least else "a size such as 512MiB or 2GB"
        raise BadSetting(name, value, wanted)
    return size


def _process_options(name: str, text: str, rest: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for part in rest.split(","):
        option, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or option not in _OPTIONS or option in options:
            raise BadSetting(name, text, f"'process', or 'process:' and some of {', '.join(_OPTIONS)}, as in {_SHOWN}")
        options[option] = _OPTIONS[option](f"{option} of {name}", value)
    return options


def _count(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise BadSetting(name, text, "a whole number >= 1")
    return int(text)


def _memory(name: str, text: str) -> int:
    return size_of(name, text, LEAST_MEMORY)


def _inner(name: str, text: str) -> str:
    if text not in LOCAL[:3] and not _FACTORY.fullmatch(text):
        raise BadSetting(name, text, "'auto', 'in-memory', 'streaming' or 'module:factory'")
    return text


_OPTIONS: Mapping[str, Callable[[str, str], Any]] = {
    "workers": _count,
    "memory_limit": _memory,
    "recycle_after": _count,
    "inner": _inner,
}
_SHOWN = "'process:workers=2,memory_limit=512MiB'"
