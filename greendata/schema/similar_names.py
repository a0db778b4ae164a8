"""Say which column of a frame was probably meant for a field, if the frame lacks its column."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches

from greendata.schema.codecs import Column

__all__ = ("hints_for",)

HINTS = 5  # in one error
NAMES = 500  # names to compare, at most: comparing two takes some microseconds
LONG = 100  # characters; longer names are not compared, and hints would be as long


def hints_for(columns: Sequence[Column], names: Collection[str]) -> tuple[str, ...]:
    """Return a hint for each column of a model that a frame with these *names* probably has under another name.

    Example:
        >>> from greendata.schema.fields import columns_of
        >>> from pydantic import BaseModel, Field
        >>> class User(BaseModel):
        ...     user_id: int = Field(alias="userId")
        ...     name: str
        >>> for hint in hints_for(columns_of(User), ["user_id", "Name", "age"]):
        ...     print(hint)
        'user_id' is a field, whose column is 'userId': rename the column, or set validate_by_name=True
        'Name' may be 'name': rename the column
    """
    used = {column.source(names) for column in columns}
    spare = [name for name in names if name not in used and len(name) <= LONG][:NAMES]
    found: list[str] = []
    for column in columns:
        if not column.sources or column.source(names) is not None or len(column.name) > LONG:
            continue
        if column.field in spare:
            found.append(
                f"{column.field!r} is a field, whose column is {column.name!r}: rename the column, or set "
                "validate_by_name=True"
            )
        elif (near := _nearest(column.name, spare)) is not None:
            found.append(f"{near!r} may be {column.name!r}: rename the column")
    return tuple(found[:HINTS])


def _nearest(name: str, spare: Sequence[str]) -> str | None:
    """Return the most similar name. Case, spaces, hyphens and underscores make no difference."""
    plain = {_plain(other): other for other in spare}
    close = get_close_matches(_plain(name), plain, n=1, cutoff=0.75)
    return plain[close[0]] if close else None


def _plain(name: str) -> str:
    return "".join(name.casefold().split()).replace("_", "").replace("-", "")
