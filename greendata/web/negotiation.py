"""The format of a response: by the client's Accept header, the URL and the available formats."""

from __future__ import annotations

from flask import Request

from greendata.errors import FormatUnknown, NotAcceptable
from greendata.formats.format import FORMATS, MEDIA_TYPES, Format, format_of

__all__ = ("BY_TYPE", "acceptable", "bare", "is_for_excel", "type_of")

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
_OFF = ("0", "false", "no", "off")


def acceptable(request: Request) -> tuple[Format, ...]:
    """Return the formats that the response to *request* may have, the client's first choice first; at least one.

    ``?format=`` decides, or ``?excel``, which stands for CSV: that format alone, if ``Accept`` allows it, by name or by
    a wildcard such as ``*/*``. So does the suffix of the URL's path, unless the client prefers a format by its q-value.
    Otherwise the media types that ``Accept`` names come first, by their q-values. JSON and the others follow if the
    client accepts them.

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
        >>> acceptable(get("/report?format=parquet", "application/json, text/plain, */*"))  # as axios sends it
        ('parquet',)
    """
    accept = request.accept_mimetypes
    requested = request.args.get("format")
    if requested is not None and requested not in FORMATS:
        raise FormatUnknown(requested, FORMATS)
    named = [(quality, found) for item, quality in accept if (found := BY_TYPE.get(bare(item))) is not None]
    wanted = [name for quality, name in sorted(named, key=lambda entry: -entry[0]) if quality > 0]
    rest = [name for name in (_DEFAULT, *FORMATS) if not accept or accept[type_of(name)] > 0]
    qualities = {name: accept[type_of(name)] for name in rest} | {name: quality for quality, name in sorted(named)}
    allowed = [name for name in FORMATS if name in rest or name in wanted]
    preferred = max((qualities[name] for name in wanted), default=0)
    if requested is None and is_for_excel(request):
        requested = "csv"
    if requested in allowed:
        return (format_of(requested),)
    suffix = request.path.rpartition(".")[2]
    if suffix in allowed and qualities[format_of(suffix)] >= preferred:
        return (format_of(suffix),)
    if not wanted and not rest:
        raise NotAcceptable(request.headers.get("Accept", ""), map(type_of, FORMATS))
    return tuple(dict.fromkeys([*wanted, *rest]))


def is_for_excel(request: Request) -> bool:
    """Return True if the URL has ``?excel``, or ``?excel=1``: CSV that Excel reads is wanted.

    Example:
        >>> from werkzeug.test import EnvironBuilder
        >>> [is_for_excel(Request(EnvironBuilder(path).get_environ())) for path in ("/?excel", "/?excel=0", "/")]
        [True, False, False]
    """
    value = request.args.get("excel")
    return value is not None and value.lower() not in _OFF


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
