"""Settings that are given as text with options: the default engine of queries, and the isolation of untrusted input.

They are checked when they are read. The engine itself is made with the first query that needs it, by
`greendata.query.choice`, so that a program which only imports greendata loads neither Polars nor the code of processes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

from greendata.errors import BadSetting
from greendata.startup.variables import yes_or_no

__all__ = (
    "EngineSetting",
    "FORMS",
    "Isolation",
    "LEAST_MEMORY",
    "LOCAL",
    "engine_setting",
    "is_engine",
    "is_factory",
    "isolation",
    "size_of",
)

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
        wanted = f"'process', or 'process:' and some of {', '.join(_ENGINE_OPTIONS)}, as in {_SHOWN}"
        return EngineSetting(PROCESS, _options(name, text, rest, _ENGINE_OPTIONS, wanted) if rest or colon else {})
    if not colon and kind in (THREADS, *LOCAL):
        return EngineSetting(THREADS if kind == "auto" else kind, {})
    if is_factory(text.strip()):
        return EngineSetting("factory", {})
    raise BadSetting(name, text, FORMS)


def is_engine(value: object) -> bool:
    """Return True for an object with the methods of a `polars.Engine`, which this package does not import.

    Example:
        >>> is_engine("process"), is_engine(len)
        (False, False)
    """
    return not isinstance(value, type) and all(hasattr(value, name) for name in ("collect", "execute", "plan_engine"))


def is_factory(text: str) -> bool:
    """Return True if *text* has the form of the place of a function.

    Example:
        >>> is_factory("shop.engines:make"), is_factory("shop.engines")
        (True, False)
    """
    return _FACTORY.fullmatch(text) is not None


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


@dataclass(frozen=True, slots=True)
class Isolation:
    """The limits for reading untrusted input in a child process.

    Attributes:
        workers: children that read at the same time.
        memory_limit: bytes of memory of a child, its interpreter included. A body of the default limit for requests,
            16 MiB, needs a tenth of it.
        timeout: seconds that reading one body may take. The largest that `decode` takes by default, 64 MiB of NDJSON,
            takes one second.
    """

    workers: int = 2
    memory_limit: int = 1 << 30
    timeout: float = 30.0


def isolation(name: str, value: object) -> Isolation | None:
    """Return the limits that *value*, a setting, means; None for no isolation.

    Args:
        name: of the setting.
        value: True or False, a word for it, or limits as text.

    Raises:
        BadSetting: it is none of these.

    Example:
        >>> isolation("GREENDATA_ISOLATE", "memory_limit=512MiB,timeout=10")
        Isolation(workers=2, memory_limit=536870912, timeout=10.0)
        >>> isolation("GREENDATA_ISOLATE", "off")
    """
    is_on = value if isinstance(value, bool) else yes_or_no(value) if isinstance(value, str) else None
    if is_on is not None:
        return Isolation() if is_on else None
    wanted = f"True or False, or text with some of {', '.join(_LIMITS)}, such as 'memory_limit=512MiB,timeout=10'"
    if not isinstance(value, str):
        raise BadSetting(name, value, wanted)
    return Isolation(**_options(name, value, value, _LIMITS, wanted))


def _options(
    name: str, text: str, rest: str, known: Mapping[str, Callable[[str, str], Any]], wanted: str
) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for part in rest.split(","):
        option, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or option not in known or option in options:
            raise BadSetting(name, text, wanted)
        options[option] = known[option](f"{option} of {name}", value)
    return options


def _count(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise BadSetting(name, text, "a whole number >= 1")
    return int(text)


def _memory(name: str, text: str) -> int:
    return size_of(name, text, LEAST_MEMORY)


def _inner(name: str, text: str) -> str:
    if text not in LOCAL[:3] and not is_factory(text):
        raise BadSetting(name, text, "'auto', 'in-memory', 'streaming' or 'module:factory'")
    return text


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < inf:
        raise BadSetting(name, text, "a number of seconds > 0")
    return seconds


_ENGINE_OPTIONS: Mapping[str, Callable[[str, str], Any]] = {
    "workers": _count,
    "memory_limit": _memory,
    "recycle_after": _count,
    "inner": _inner,
}
_LIMITS: Mapping[str, Callable[[str, str], Any]] = {"workers": _count, "memory_limit": _memory, "timeout": _seconds}
_SHOWN = "'process:workers=2,memory_limit=512MiB'"
