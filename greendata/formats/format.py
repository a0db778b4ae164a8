"""The formats of encoded frames: their names, media types and file name suffixes."""

from __future__ import annotations

from typing import Literal, get_args

from greendata.errors import BadChoice

__all__ = ("FORMATS", "Format", "MEDIA_TYPES", "SUFFIXES", "format_of")

Format = Literal["json", "ndjson", "csv", "arrow", "parquet"]

FORMATS: tuple[Format, ...] = get_args(Format)

MEDIA_TYPES: dict[Format, str] = {
    "json": "application/json",  # RFC 8259
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8; header=present",  # RFC 4180
    "arrow": "application/vnd.apache.arrow.stream",  # in the IANA registry, like the next
    "parquet": "application/vnd.apache.parquet",
}

SUFFIXES: dict[Format, str] = {
    "json": ".json",
    "ndjson": ".ndjson",
    "csv": ".csv",
    "arrow": ".arrows",  # the stream format; .arrow is the file format
    "parquet": ".parquet",
}


def format_of(name: object) -> Format:
    """Return *name* if it is the name of a format.

    Raises:
        BadChoice: there is no format of this name.

    Example:
        >>> format_of("csv")
        'csv'
    """
    if name not in FORMATS:
        raise BadChoice("format", name, FORMATS)
    return name
