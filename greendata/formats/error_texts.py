"""The texts of errors about bytes that cannot be decoded: short, however large the value or the message is."""

from __future__ import annotations

import re

import polars as pl
from polars.exceptions import PanicException

from greendata.errors import Malformed

__all__ = ("format_value", "short_message")

_PANIC = re.compile(r'JoinError::Panic\(Id\(\d+\), "(.*)", \.\.\.\)', re.DOTALL)  # of a task of Polars

MESSAGE_CHARS = 1000  # characters of a message of Polars that are looked at
VALUE_CHARS = 200  # characters of a value in an error message


def short_message(error: BaseException) -> str:
    r"""Return the first line of the message of *error*. In Polars' messages the other lines are hints on its options.

    A panic has no message for readers: a check in the parser has failed, of which its text is the name.

    Example:
        >>> short_message(ValueError("no.\n\nTry something else."))
        'no'
    """
    if isinstance(error, Malformed):
        return error.reason
    text = str(error)[:MESSAGE_CHARS].strip()
    if isinstance(error, PanicException):
        if found := _PANIC.search(text):
            text = found[1].replace(r"\n", "\n").replace(r"\"", '"')
        text = f"the parser stops with: {text}"
    lines = text.splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def format_value(series: pl.Series, row: int) -> str:
    """Return the value in *row* for an error message. Polars truncates it: it may be as large as the body.

    Example:
        >>> format_value(pl.Series(["soon"]), 0), format_value(pl.Series([[1, 2]]), 0)
        ("'soon'", 'List(Int64)')
    """
    value = series.slice(row, 1).alias("value")  # methods of a Series read its name as a pattern
    if isinstance(series.dtype, pl.String):
        value = value.str.slice(0, VALUE_CHARS)
    return (
        str(series.dtype)[:VALUE_CHARS] if series.dtype.is_nested() or series.dtype == pl.Binary else repr(value.item())
    )
