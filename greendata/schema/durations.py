"""Polars expressions for durations as ISO 8601 text, the format of pydantic and JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from greendata.internals.polars import TimeUnit

__all__ = ("UNIT_DIGITS", "duration_ticks")

UNIT_DIGITS: dict[TimeUnit, int] = {"ms": 3, "us": 6, "ns": 9}  # in a fraction of a second
_DURATION = r"^([+-]?)P(?:(\d{1,12})D)?(?:T(?:(\d{1,12})H)?(?:(\d{1,12})M)?(?:(\d{1,18})(?:\.(\d{1,%d})0*)?S)?)?$"


def duration_ticks(value: pl.Expr, unit: TimeUnit) -> pl.Expr:
    """Return durations in ISO 8601 (days, hours, minutes, seconds) as Int128 counts of *unit*; other text gives null.

    Example:
        >>> pl.select(duration_ticks(pl.lit("-PT1.5S"), "ms")).item()
        -1500
    """
    digits = UNIT_DIGITS[unit]
    pattern = _DURATION % digits
    parts = value.str.extract_groups(pattern)

    def part(number: int) -> pl.Expr:
        return parts.struct.field(str(number))

    days, hours, minutes, seconds = (part(number).cast(pl.Int128).fill_null(0) for number in range(2, 6))
    fraction = part(6).str.pad_end(digits, "0").cast(pl.Int128).fill_null(0)
    count = (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 10**digits + fraction
    sign = pl.when(part(1) == "-").then(-1).otherwise(1)
    return pl.when(value.str.contains(pattern) & ~value.str.contains("[PT]$")).then(sign * count)
