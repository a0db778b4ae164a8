"""Errors as HTTP responses: a status, and problem details in JSON (RFC 9457).

An error of the client is described in detail. An error of the server has its status and a title, and the limit that
was exceeded; it says nothing about the query.
"""

from __future__ import annotations

import json
from random import randint
from typing import Any

from flask import Response
from werkzeug.http import HTTP_STATUS_CODES

from greendata.errors import (
    BodyInvalid,
    BodyTooLarge,
    BodyUnsupported,
    DeadlineExceeded,
    FormatUnknown,
    GreenDataError,
    JobCancelled,
    Malformed,
    MemoryLimitExceeded,
    NotAcceptable,
    PoolClosed,
    PoolFull,
    ResultTimeout,
    TooCostly,
)
from greendata.errors.plural import counted
from greendata.observe.running import REASON as CANCELLED_BY_OPERATOR
from greendata.web import drain
from greendata.web.scope import current_scope

__all__ = ("problem", "response_to")

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = (2, 6)  # seconds, a random whole number in this range, so that rejected clients do not return at once
FAILURES = 100  # failures of invalid data that are listed; all are counted
CLIENT_CLOSED_REQUEST = 499  # nginx's status, for the log: no client reads this response

# Errors of the client, which are described in detail.
_CLIENT_ERRORS: tuple[tuple[type[GreenDataError], int, str], ...] = (
    (FormatUnknown, 400, "Unknown format"),
    (TooCostly, 413, "The body takes too much to read"),
    (Malformed, 400, "The body cannot be read"),
    (NotAcceptable, 406, "No available format is acceptable to the client"),
    (BodyTooLarge, 413, "The body is too large"),
    (BodyUnsupported, 415, "The type of the body is not supported"),
)


def problem(status: int, title: str, detail: str = "", **more: Any) -> Response:
    """Return a response with problem details (RFC 9457): ``application/problem+json``.

    Args:
        status: the HTTP status.
        title: the kind of problem, always the same text.
        detail: what happened in this case.
        more: further members, with values for JSON.

    Example:
        >>> problem(503, "The server is busy").get_json(force=True)["status"]
        503
    """
    members = {"type": "about:blank", "title": title, "status": status}
    if detail:
        members["detail"] = detail
    text = json.dumps(members | more, default=str)
    return Response(text, status=_status_line(status), content_type=MEDIA_TYPE)


def response_to(error: GreenDataError) -> Response:
    """Return the response to *error*. Call in the request that raised it.

    Raises:
        GreenDataError: *error* itself, if it is an error of the service: a 500 that belongs in its log.

    Example:
        >>> from greendata.errors import PoolFull
        >>> response_to(PoolFull(50, 50)).status
        '503 SERVICE UNAVAILABLE'
    """
    for kind, status, title in _CLIENT_ERRORS:
        if isinstance(error, kind):
            return problem(status, title, _detail(error), **_members(error))
    if isinstance(error, BodyInvalid):
        return _invalid(error)
    if isinstance(error, DeadlineExceeded | ResultTimeout):
        return _too_long(error)
    if isinstance(error, MemoryLimitExceeded):
        return problem(507, "The query needs more memory than this server allows")
    if isinstance(error, PoolFull | PoolClosed):
        return _try_again("The server is busy" if isinstance(error, PoolFull) else "The server is shutting down")
    if isinstance(error, JobCancelled) and (scope := current_scope()) is not None and scope.is_left:
        return Response(status=_status_line(CLIENT_CLOSED_REQUEST))
    if isinstance(error, JobCancelled) and error.message == drain.REASON:
        return _try_again("The server is shutting down")
    if isinstance(error, JobCancelled) and error.message == CANCELLED_BY_OPERATOR:
        return problem(503, "The query was cancelled", "an operator of this server has cancelled it")
    raise error


def _too_long(error: DeadlineExceeded | ResultTimeout) -> Response:
    """Return the response to a limit of time, with its length and its name. The label of the query is not shown."""
    scope = current_scope()
    if isinstance(error, ResultTimeout):
        limit = "the wait of the view, get(timeout=)"
    elif not error.in_block:
        limit = "the query's own timeout"
    elif scope is not None and scope.limit and scope.seconds == error.seconds:
        limit = scope.limit
    else:
        limit = "a greendata.deadline block of the view"
    if error.seconds is None:
        return problem(504, "The response took too long", "there is no result yet, and the view does not wait for it")
    detail = f"there was no result within {counted(error.seconds, 'second')}; the limit is {limit}"
    return problem(504, "The response took too long", detail, seconds=error.seconds)


def _try_again(title: str) -> Response:
    response = problem(503, title)
    response.headers["Retry-After"] = str(randint(*RETRY_AFTER))
    return response


def _invalid(error: BodyInvalid) -> Response:
    rows = error.failures.head(FAILURES).to_dicts()
    detail = counted(error.failures.height, "failure")
    if error.failures.height > FAILURES:
        detail += f", the first {FAILURES} are listed"
    return problem(422, "The data is invalid", detail, failures=rows)


def _detail(error: GreenDataError) -> str:
    """Return what happened, for the client, without the options of the server."""
    if isinstance(error, BodyTooLarge):
        return f"the body is larger than the limit of {counted(error.limit, 'byte')}; send less"
    return str(error)


def _members(error: GreenDataError) -> dict[str, Any]:
    """Return the members with attributes of the error, for programs."""
    if isinstance(error, BodyTooLarge):
        return {"limit": error.limit}
    available = getattr(error, "available", None)
    return {} if available is None else {"available": list(available)}


def _status_line(status: int) -> str:
    names = {CLIENT_CLOSED_REQUEST: "Client Closed Request", **HTTP_STATUS_CODES}
    return f"{status} {names[status].upper()}"
