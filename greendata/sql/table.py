"""`Table`: the table that a frame is written to, and how names are quoted in SQL."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ("IfExists", "Table", "quoted")

IfExists = Literal["fail", "append", "replace"]


class Table(NamedTuple):
    """The table that a frame is written to.

    Attributes:
        name: its name.
        schema: its schema; in SQLite, the name of an attached database. None leaves it to the database.
        if_exists: what to do if the table exists.

    Example:
        >>> Table("sales", None, "append").task
        'write to sales'
    """

    name: str
    schema: str | None
    if_exists: IfExists

    @property
    def task(self) -> str:
        """What the write does, for errors."""
        return f"write to {self.name}"


def quoted(name: str) -> str:
    """Return *name* as an identifier in SQL.

    Example:
        >>> quoted('a "b" c')
        '"a ""b"" c"'
    """
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
