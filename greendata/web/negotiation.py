"""The format of a response: by the client's Accept header, the URL and the available formats."""

from __future__ import annotations

from flask import Request

from greendata.errors import FormatUnknown, NotAcceptable
from greendata.formats.format import FORMATS, MEDIA_TYPES, Format, format_of

__all__ = ("BY_TYPE", "acceptable", "bare", "type_of")

# Other names that clients use.
_ALIASES: dict[str, Format] = {
    "application/csv": "csv",
    "application/jsonl": "ndjson",
    "application/jsonlines": "ndjson",
    "application/ndjson": "ndjson",
    "application/parquet": "parquet",
    "application/x-jsonlines": "ndjson",
    "application/x-parquet": "parquet",
}
_DEFAULT: Format = "json"


def acceptable(request: Request) -> tuple[Format, ...]:
    """Return the formats that the response to *request* may have, the client's first choice first; at least one.

    The media types that ``Accept`` names come first, by their q-values. If it names none of the available formats (a
    browser, ``*/*``), ``?format=`` decides, otherwise the suffix of the URL's path: that format alone, if the client
    accepts it. JSON and the others follow if the client accepts them.

    Raises:
        FormatUnknown: ``?format=`` names an unknown format.
        NotAcceptable: the client accepts none of the formats.

    Example:
        >>> from werkzeug.test import EnvironBuilder
        >>> def get(path, accept=None):
        ...     headers = {"Accept": accept} if accept else {}
        ...     return Request(EnvironBuilder(path, headers=headers).get_environ())
        >>> acceptable(get("/report", "text/csv;q=0.5, application/x-ndjson")), acceptable(get("/report.csv"))
        (('ndjson', 'csv'), ('csv',))
        >>> acceptable(get("/report?format=parquet", "text/html,*/*;q=0.8"))
        ('parquet',)
    """
    accept = request.accept_mimetypes
    requested = request.args.get("format")
    if requested is not None and requested not in FORMATS:
        raise FormatUnknown(requested, FORMATS)
    named = [(quality, found) for item, quality in accept if (found := BY_TYPE.get(bare(item))) is not None]
    wanted = [name for quality, name in sorted(named, key=lambda entry: -entry[0]) if quality > 0]
    rest = [name for name in (_DEFAULT, *FORMATS) if not accept or accept[type_of(name)] > 0]
    for candidate in (requested, request.path.rpartition(".")[2]):
        if not wanted and candidate in rest:
            return (format_of(candidate),)
    if not wanted and not rest:
        raise NotAcceptable(request.headers.get("Accept", ""), map(type_of, FORMATS))
    return tuple(dict.fromkeys([*wanted, *rest]))


def bare(media_type: str) -> str:
    """Return *media_type* without its parameters.

    Example:
        >>> bare("text/CSV; header=present")
        'text/csv'
    """
    return media_type.partition(";")[0].strip().lower()


def type_of(name: Format) -> str:
    """Return the media type of a format, without parameters.

    Example:
        >>> type_of("csv")
        'text/csv'
    """
    return bare(MEDIA_TYPES[name])


BY_TYPE: dict[str, Format] = {type_of(name): name for name in FORMATS} | _ALIASES
