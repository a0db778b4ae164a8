"""Which format an answer has: what the client accepts, what the URL says, and what there is."""

from __future__ import annotations

from flask import Request

from greendata.errors import FormatUnknown, NotAcceptable
from greendata.frames.formats import FORMATS, MEDIA_TYPES, Format, format_of

__all__ = ("BY_TYPE", "bare", "choose_format")

# What else clients call them.
_ALIASES: dict[str, Format] = {
    "application/jsonl": "ndjson",
    "application/ndjson": "ndjson",
    "application/parquet": "parquet",
    "application/x-parquet": "parquet",
}
_DEFAULT: Format = "json"


def choose_format(request: Request) -> Format:
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
    named = [(quality, found) for item, quality in accept if (found := BY_TYPE.get(bare(item))) is not None]
    best = max(named, key=lambda entry: entry[0], default=None)  # the first of those with the highest
    if best is not None and best[0] > 0:
        return best[1]
    wishes = (asked, request.path.rpartition(".")[2], _DEFAULT, *FORMATS)
    for name in (format_of(wish) for wish in wishes if wish in FORMATS):
        if not accept or accept[bare(MEDIA_TYPES[name])] > 0:
            return name
    raise NotAcceptable(request.headers.get("Accept", ""), [bare(MEDIA_TYPES[name]) for name in FORMATS])


def bare(media_type: str) -> str:
    """*media_type* without its parameters.

    Example:
        >>> bare("text/CSV; header=present")
        'text/csv'
    """
    return media_type.partition(";")[0].strip().lower()


BY_TYPE: dict[str, Format] = {bare(MEDIA_TYPES[name]): name for name in FORMATS} | _ALIASES
