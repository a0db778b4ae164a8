"""Which format an answer has: what the client accepts, what the URL says, and what there is."""

from __future__ import annotations

from flask import Request

from greendata.errors import BadChoice, FormatUnknown, NotAcceptable

__all__ = ("FORMATS", "bare", "choose_format", "check_format")

# Bare media types by format, the registered one first; see RFC 9110 12.5.1 for the header they are matched against.
FORMATS: dict[str, tuple[str, ...]] = {
    "json": ("application/json",),
    "ndjson": ("application/x-ndjson", "application/jsonl", "application/ndjson"),
    "csv": ("text/csv",),
    "arrow": ("application/vnd.apache.arrow.stream",),
    "parquet": ("application/vnd.apache.parquet", "application/parquet"),
}
DEFAULT = "json"
_BY_TYPE = {media_type: name for name, types in FORMATS.items() for media_type in types}


def check_format(name: str) -> str:
    """*name*, which the service itself has chosen.

    Raises:
        BadChoice: there is no such format.

    Example:
        >>> check_format("csv")
        'csv'
    """
    if name not in FORMATS:
        raise BadChoice("format", name, FORMATS)
    return name


def choose_format(request: Request) -> str:
    """The format of the answer to *request*.

    A media type that ``Accept`` names decides, the one with the highest q-value. Where it names none of ours (a
    browser, ``*/*``), ``?format=`` decides, then the suffix of the URL's path, then JSON; of these the first that
    the client accepts.

    Raises:
        FormatUnknown: ``?format=`` names no format.
        NotAcceptable: the client accepts none.

    Example:
        >>> from werkzeug.test import EnvironBuilder
        >>> def asked(path, accept=None):
        ...     headers = {"Accept": accept} if accept else {}
        ...     return Request(EnvironBuilder(path, headers=headers).get_environ())
        >>> choose_format(asked("/report", "text/csv;q=0.5, application/x-ndjson")), choose_format(asked("/report.csv"))
        ('ndjson', 'csv')
        >>> choose_format(asked("/report?format=parquet", "text/html,*/*;q=0.8"))
        'parquet'
    """
    accept = request.accept_mimetypes
    asked = request.args.get("format")
    if asked is not None and asked not in FORMATS:
        raise FormatUnknown(asked, FORMATS)
    named = [(quality, _BY_TYPE[bare(item)]) for item, quality in accept if bare(item) in _BY_TYPE]
    best = max(named, key=lambda entry: entry[0], default=(0, ""))  # the first of those with the highest
    if best[0] > 0:
        return best[1]
    suffix = request.path.rpartition(".")[2]
    for name in (asked, suffix if suffix in FORMATS else None, DEFAULT, *FORMATS):
        if name is not None and (not accept or any(accept[media_type] > 0 for media_type in FORMATS[name])):
            return name
    raise NotAcceptable(request.headers.get("Accept", ""), [types[0] for types in FORMATS.values()])


def bare(media_type: str) -> str:
    """*media_type* without its parameters.

    Example:
        >>> bare("text/CSV; header=present")
        'text/csv'
    """
    return media_type.partition(";")[0].strip().lower()
