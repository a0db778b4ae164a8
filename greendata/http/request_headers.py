"""`checked_headers`: the headers that a caller gives to a request."""

from __future__ import annotations

import re
from collections.abc import Mapping

from greendata.errors import BadArgument

__all__ = ("checked_headers",)

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token of RFC 9110
_NOT_IN_VALUES = re.compile(r"[^\t\x20-\x7e\xa0-\xff]|^[ \t]|[ \t]\Z")


def checked_headers(given: Mapping[str, str] | None) -> dict[str, str]:
    r"""Return the headers in *given*. No error shows a value, which may be a credential.

    Raises:
        BadArgument: a name or a value cannot be sent.

    Example:
        >>> try:
        ...     checked_headers({"Authorization": "Bearer read from a file\n"})
        ... except BadArgument as error:
        ...     print(error)
        headers['Authorization'] must be one line of characters in Latin-1, without spaces around it, got '\n'
    """
    if not isinstance(given, Mapping | None):
        raise BadArgument("headers", type(given), "a dict of names and values")
    for name, value in (given or {}).items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise BadArgument("headers", name, "a dict of the names of headers and their values")
        if not isinstance(value, str):
            raise BadArgument(f"headers[{name!r}]", type(value), "text")
        if wrong := _NOT_IN_VALUES.search(value):
            expected = "one line of characters in Latin-1, without spaces around it"
            raise BadArgument(f"headers[{name!r}]", wrong[0], expected)
    return dict(given or {})
