"""Numbers with their nouns, in the singular or the plural."""

from __future__ import annotations

__all__ = ("counted",)


def counted(number: float, one: str, many: str | None = None) -> str:
    """Return *number* with its noun: *one* for 1, otherwise *many*, which defaults to *one* with an "s".

    Example:
        >>> counted(1, "row"), counted(0, "row"), counted(2, "column has", "columns have"), counted(0.5, "second")
        ('1 row', '0 rows', '2 columns have', '0.5 seconds')
    """
    shown = f"{number:g}" if isinstance(number, float) else str(number)
    return f"{shown} {one if number == 1 else many or one + 's'}"
